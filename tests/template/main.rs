//! `template.yaml` held against the code and against what AWS wants: what a deployment would otherwise find out.

mod dashboard;
mod delivery;
mod document;
mod environment;
mod insights;
mod packages;
mod parameters;
mod rights;
mod roles;
