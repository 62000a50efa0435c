//! `template.yaml` held against the code and against what AWS wants: what a deployment would otherwise find out.

mod delivery;
mod document;
mod environment;
mod packages;
mod parameters;
mod rights;
mod roles;
