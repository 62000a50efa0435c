//! An image tarball in S3 becomes a verified, tagged image in Amazon ECR.
//!
//! The modules stand in the order in which a byte travels: an [`event`] names an [`object`]; its [`archive`] is
//! walked by ranged reads; [`naming`] says where its images belong and [`plan`] what must be sent; [`compress`]
//! and [`ecr`] send it; [`state`] remembers what was sent; [`import`] is the order of it all; [`react`] verifies and
//! judges what ECR then holds, and releases it; the [`receipt`] and [`notify`] tell people; [`uploads`] looks after what
//! no event brought.
//!
//! Nothing here knows Lambda, and only [`config`] says which variables it wants.

pub mod event;

pub mod object;

pub mod decompress;

pub mod archive;

pub mod naming;

pub mod plan;

pub mod compress;

pub mod ecr;

pub mod state;

pub mod import;

pub mod react;

pub mod receipt;

pub mod uploads;

pub mod notify;

pub mod image;

pub mod aws;
pub mod config;
pub mod disposition;
pub mod limits;
pub mod resources;
pub mod retry;
pub mod timeouts;
pub mod version;
