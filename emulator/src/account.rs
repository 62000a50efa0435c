//! The one account and region that the embedded AWS has.

/// The account id; the one AWS uses in its documentation.
pub const ID: &str = "123456789012";

/// The region of every resource.
pub const REGION: &str = "us-east-1";

/// The partition in every ARN.
pub const PARTITION: &str = "aws";

/// The stack's name, `AWS::StackName` in the template.
pub const STACK: &str = "gantry";

/// The user's access key id. The user may do everything.
pub const USER_ACCESS_KEY_ID: &str = "AKIAGANTRYUSER";

/// The secret that belongs to [`USER_ACCESS_KEY_ID`]; it opens nothing but the loopback port.
pub const USER_SECRET: &str = "gantry-local-secret";

/// The ARN of `resource` of `service` in this account and region: `arn:aws:sqs:us-east-1:123456789012:jobs`.
pub fn arn(service: &str, resource: &str) -> String {
    format!("arn:{PARTITION}:{service}:{REGION}:{ID}:{resource}")
}
