//! Which build this is: the crate version and the commit it was built from.

/// Crate version and commit, as `0.1.0+1a2b3c4d5e6f`; the commit is `unknown` in a build outside a git checkout.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("GANTRY_COMMIT"));

/// What AWS and registries see as our user agent.
pub const USER_AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"), " (", env!("GANTRY_COMMIT"), ")");
