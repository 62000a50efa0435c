//! What import is told.

use aws_sdk_ecr::types::EncryptionType;

use super::read::{CommonConfig, ConfigError, Mutability, QueueConfig, Variables, environment, refused};
use crate::plan::{Consumer, platform_of};

/// Everything that import is told by the template.
#[derive(Debug, Clone)]
pub struct ImportConfig {
    /// What every function is told.
    pub common: CommonConfig,
    /// The queue that feeds it.
    pub queue: QueueConfig,
    /// The one bucket whose objects are uploads.
    pub upload_bucket: String,
    /// Put in front of every repository name; empty, or ends in `/`.
    pub repository_prefix: String,
    /// How new repositories are made.
    pub repository: RepositorySettings,
    /// How uncompressed layers are compressed.
    pub compression: Compression,
    /// Who runs the images of uploads that do not say so themselves.
    pub consumer: Consumer,
}

/// How new repositories are made; see the template's parameters of the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySettings {
    /// AES256 or KMS.
    pub encryption: EncryptionType,
    /// The customer's key, where there is one.
    pub kms_key: Option<String>,
    /// Whether images are scanned when pushed.
    pub scan_on_push: bool,
    /// Whether tags may move.
    pub mutability: Mutability,
    /// Days after which an untagged image expires.
    pub expire_untagged_days: u32,
    /// Accounts (12 digits) that may pull.
    pub pull_accounts: Vec<String>,
}

/// How uncompressed layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip members of fixed size at a libdeflate level, 1 (fastest) to 12 (smallest).
    Gzip {
        /// The level.
        level: u8,
    },
}

/// The level of plain `gzip`.
///
/// On the layers of a 681 MB image one core makes 140 MB/s of it, so the 1.7 vCPUs of
/// the default memory size keep ahead of the function's 75 MiB/s of network, and it is smaller than zlib's 6.
pub const DEFAULT_GZIP_LEVEL: u8 = 4;

impl ImportConfig {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(environment())
    }

    /// Reads the variables that `lookup` gives.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variables = Variables::new(&lookup);
        let encryption = variables.required("GANTRY_ENCRYPTION")?;
        let (encryption, kms_key) = match encryption.as_str() {
            "AES256" => (EncryptionType::Aes256, None),
            "KMS" => (EncryptionType::Kms, None),
            key if key.starts_with("arn:") => (EncryptionType::Kms, Some(encryption)),
            _ => return Err(refused("GANTRY_ENCRYPTION", &encryption, "AES256, KMS or the ARN of a KMS key")),
        };
        let prefix = variables.optional("GANTRY_REPOSITORY_PREFIX").unwrap_or_default();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(refused("GANTRY_REPOSITORY_PREFIX", &prefix, "nothing, or path components ending in /"));
        }
        Ok(Self {
            common: variables.common()?,
            queue: variables.queue()?,
            upload_bucket: variables.required("GANTRY_UPLOAD_BUCKET")?,
            repository_prefix: prefix,
            repository: RepositorySettings {
                encryption,
                kms_key,
                scan_on_push: variables.boolean("GANTRY_SCAN_ON_PUSH")?,
                mutability: variables.mutability()?,
                expire_untagged_days: variables.number("GANTRY_EXPIRE_UNTAGGED_DAYS")?,
                pull_accounts: accounts(&variables.optional("GANTRY_PULL_ACCOUNTS").unwrap_or_default())?,
            },
            compression: compression(&variables.required("GANTRY_COMPRESSION")?)?,
            consumer: consumer(&variables.required("GANTRY_PROFILE")?, &variables.required("GANTRY_ARCHITECTURE")?)?,
        })
    }
}

fn accounts(text: &str) -> Result<Vec<String>, ConfigError> {
    let accounts: Vec<String> =
        text.split(',').map(str::trim).filter(|account| !account.is_empty()).map(str::to_owned).collect();
    let valid = |account: &String| account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
    if accounts.iter().all(valid) {
        Ok(accounts)
    } else {
        Err(refused("GANTRY_PULL_ACCOUNTS", text, "account numbers of 12 digits, with commas"))
    }
}

fn consumer(profile: &str, architecture: &str) -> Result<Consumer, ConfigError> {
    let wanted = "exact, lambda or fargate";
    Ok(Consumer {
        profile: profile.parse().map_err(|_unknown| refused("GANTRY_PROFILE", profile, wanted))?,
        platform: platform_of(architecture)
            .map_err(|_refused| refused("GANTRY_ARCHITECTURE", architecture, "arm64 or x86_64"))?,
    })
}

fn compression(text: &str) -> Result<Compression, ConfigError> {
    let level = match text {
        "gzip" => Some(DEFAULT_GZIP_LEVEL),
        _ => text.strip_prefix("gzip-").and_then(|level| level.parse().ok()),
    };
    match level {
        Some(level @ 1..=12) => Ok(Compression::Gzip { level }),
        _ => Err(refused("GANTRY_COMPRESSION", text, "gzip, or gzip-1 to gzip-12")),
    }
}
