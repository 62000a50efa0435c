//! The buckets and the queue that `status` and `retry` talk to: on this machine, or of a stack in an account.
//!
//! In an account, credentials and region are read from the environment and from nowhere else: no file, no instance
//! role. `AWS_ENDPOINT_URL` names another AWS, a running `gantry up` for one.

use aws_config::BehaviorVersion;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_smithy_http_client::{Builder, tls};
use gantry::state::{Documents, ImageRecords};
use gantry::uploads::{ImportQueue, Uploads};

use crate::cli::{AccountArgs, StackArgs};
use crate::session::{Functions, Session, SessionError};

/// What the environment has to say; of several names any will do.
const WANTED: [&[&str]; 3] =
    [&["AWS_ACCESS_KEY_ID"], &["AWS_SECRET_ACCESS_KEY", "SECRET_ACCESS_KEY"], &["AWS_REGION", "AWS_DEFAULT_REGION"]];

/// Where uploads, records and the queue are.
pub(crate) struct Place {
    /// The uploads.
    pub(crate) uploads: Uploads,
    /// The image records, where it was said which bucket they are in.
    pub(crate) records: Option<ImageRecords>,
    /// Import's queue, where it was said which it is.
    pub(crate) queue: Option<ImportQueue>,
}

impl Place {
    /// The place in an account that `account` names, or that of the stack on this machine, with its session.
    pub(crate) async fn open(
        stack: &StackArgs,
        account: &AccountArgs,
        functions: Functions,
    ) -> Result<(Self, Option<Session>), SessionError> {
        if let Some(uploads) = &account.uploads {
            return Ok((Self::of_account(uploads, account).await?, None));
        }
        let session = Session::open(stack, functions).await?;
        Ok((session.place(), Some(session)))
    }

    async fn of_account(uploads: &str, account: &AccountArgs) -> Result<Self, SessionError> {
        for variable in WANTED {
            if !variable.iter().any(|name| std::env::var_os(name).is_some()) {
                return Err(SessionError::Environment { variable: variable[0] });
            }
        }
        let https =
            Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
        let aws = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(https)
            .credentials_provider(EnvironmentVariableCredentialsProvider::new())
            .region(EnvironmentVariableRegionProvider::new())
            .load()
            .await;
        let s3 = aws_sdk_s3::Client::new(&aws);
        let records = |bucket: &String| ImageRecords::new(Documents::new(s3.clone(), bucket));
        let queue = |url: &String| ImportQueue::new(aws_sdk_sqs::Client::new(&aws), url);
        Ok(Self {
            uploads: Uploads::new(s3.clone(), uploads),
            records: account.state.as_ref().map(records),
            queue: account.queue.as_ref().map(queue),
        })
    }
}
