//! What import is told.

use aws_sdk_ecr::types::EncryptionType;

use super::read::{CommonConfig, ConfigError, Mutability, QueueConfig, Variables, environment, refused};
use crate::plan::{Consumer, platform_of};
use crate::react::floating::Template;

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
    /// The function's memory, in MiB.
    pub memory_mib: u64,
}

/// The default of the template's `MemorySize`, for whoever runs the function without saying how much it has.
const DEFAULT_MEMORY_MIB: u64 = 3_008;

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
    /// How many tagged images a repository keeps, the newest; `None` keeps all.
    pub keep_releases: Option<u32>,
    /// The tags that follow releases; an image that one of them names is kept besides.
    pub floating: Vec<Template>,
    /// Accounts (12 digits) that may pull.
    pub pull_accounts: Vec<String>,
}

/// How uncompressed layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip members of fixed size at a level, 1 (fastest) to 12 (smallest): libdeflate's, but for most of what 1 makes.
    Gzip {
        /// The level.
        level: u8,
    },
    /// zstd frames of fixed size at one of zstd's levels, 1 (fastest) to 19 (smallest).
    Zstd {
        /// The level.
        level: u8,
    },
}

/// The level of plain `gzip`, at which the network of a function of the default size is the limit, and not the codec.
///
/// It is also one at which an import is no slower than others where there is no such limit.
/// An environment gets 75 MiB/s each way. With everything else that an import does, one vCPU takes in some 110 MB/s at
/// level 5, the 1.7 of the default size 190 MB/s, six 660 MB/s; level 6 takes a fifth longer for 0.8% of the size.
/// `bench/results` has the figures.
pub const DEFAULT_GZIP_LEVEL: u8 = 5;

/// The level of plain `zstd`: more than twice as fast as that, and 5% smaller.
pub const DEFAULT_ZSTD_LEVEL: u8 = 2;

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
        let mutability = variables.mutability()?;
        Ok(Self {
            common: variables.common()?,
            queue: variables.queue()?,
            upload_bucket: variables.required("GANTRY_UPLOAD_BUCKET")?,
            repository_prefix: prefix,
            repository: RepositorySettings {
                encryption,
                kms_key,
                scan_on_push: variables.boolean("GANTRY_SCAN_ON_PUSH")?,
                floating: variables.floating(&mutability)?,
                mutability,
                expire_untagged_days: variables.number("GANTRY_EXPIRE_UNTAGGED_DAYS")?,
                keep_releases: keep_releases(&variables.required("GANTRY_KEEP_RELEASES")?)?,
                pull_accounts: accounts(&variables.optional("GANTRY_PULL_ACCOUNTS").unwrap_or_default())?,
            },
            compression: compression(&variables.required("GANTRY_COMPRESSION")?)?,
            memory_mib: variables
                .optional("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
                .and_then(|size| size.parse().ok())
                .unwrap_or(DEFAULT_MEMORY_MIB),
            consumer: consumer(&variables.required("GANTRY_PROFILE")?, &variables.required("GANTRY_ARCHITECTURE")?)?,
        })
    }
}

fn keep_releases(text: &str) -> Result<Option<u32>, ConfigError> {
    match (text, text.parse()) {
        ("all", _) => Ok(None),
        (_, Ok(number @ 1..)) => Ok(Some(number)),
        _ => Err(refused("GANTRY_KEEP_RELEASES", text, "all, or a whole number above 0")),
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
    let (codec, level) = match text.split_once('-') {
        Some((codec, level)) => (codec, level.parse().ok()),
        None if text == "zstd" => (text, Some(DEFAULT_ZSTD_LEVEL)),
        None => (text, Some(DEFAULT_GZIP_LEVEL)),
    };
    match (codec, level) {
        ("gzip", Some(level @ 1..=12)) => Ok(Compression::Gzip { level }),
        ("zstd", Some(level @ 1..=19)) => Ok(Compression::Zstd { level }),
        _ => Err(refused("GANTRY_COMPRESSION", text, "gzip, gzip-1 to gzip-12, zstd, or zstd-1 to zstd-19")),
    }
}
