//! The embedded AWS: what Gantry's functions call, on one loopback port.
//!
//! S3, ECR's control and registry APIs, SQS, SNS, EventBridge and its rules, the roles of
//! `template.yaml` and a Lambda host that runs each function as a real child process. It answers as
//! AWS does, quirks included, and depends on nothing of Gantry's own code, so that one mistake cannot pass on both
//! sides of the wire.

pub mod account;
pub mod clock;
mod disk;
pub mod ecr;
mod envelope;
pub mod events;
pub mod faults;
pub mod host;
pub mod iam;
pub mod images;
pub mod registry;
pub mod s3;
pub mod shape;
pub mod sns;
pub mod sqs;
pub mod stack;
pub mod template;
pub mod wire;
