//! Configuration: the environment that `template.yaml` gives a function, read once at start.

use std::collections::BTreeMap;

use aws_sdk_ecr::types::{EncryptionType, ImageTagMutability};
use url::Url;

use crate::plan::{Consumer, platform_of};

/// Everything the pipeline is told by its template.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stack's name; repositories that carry it as the tag [`STACK_TAG`] are ours.
    pub stack: String,
    /// The bucket of the ledger and the image records.
    pub state_bucket: String,
    /// The queue that feeds the function, for backing off; absent when it is invoked without one.
    pub queue_url: Option<String>,
    /// Where messages go that no delivery could finish, for the command that sends them round again.
    pub failed_queue_arn: Option<String>,
    /// How often a message is delivered before it goes to the failed queue.
    pub max_receives: u32,
    /// Put in front of every repository name; empty, or ends in `/`.
    pub repository_prefix: String,
    /// How new repositories are made.
    pub repository: RepositorySettings,
    /// How uncompressed layers are compressed.
    pub compression: Compression,
    /// Who runs the images of uploads that do not say so themselves.
    pub consumer: Consumer,
    /// Where the registry is, if not where `GetAuthorizationToken` says.
    pub registry_endpoint: Option<Url>,
}

/// The resource tag that says which stack a repository belongs to.
pub const STACK_TAG: &str = "gantry:stack";

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

/// Whether tags may move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutability {
    /// All may.
    Mutable,
    /// None may.
    Immutable,
    /// None may but those that match one of these filters (`*` matches any characters; at most five).
    ImmutableExcept(Vec<String>),
}

impl Mutability {
    /// As ECR's API names it.
    pub fn as_ecr(&self) -> ImageTagMutability {
        match self {
            Self::Mutable => ImageTagMutability::Mutable,
            Self::Immutable => ImageTagMutability::Immutable,
            Self::ImmutableExcept(_) => ImageTagMutability::ImmutableWithExclusion,
        }
    }

    /// The exclusion filters.
    pub fn filters(&self) -> &[String] {
        match self {
            Self::Mutable | Self::Immutable => &[],
            Self::ImmutableExcept(filters) => filters,
        }
    }
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

/// A variable that is missing or makes no sense. The function does not start with one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not set.
    #[error("the environment variable {variable} is not set; template.yaml sets it on the function")]
    Missing {
        /// Its name.
        variable: &'static str,
    },
    /// Set to something else than wanted.
    #[error("the environment variable {variable} is {found:?}; wanted {wanted}")]
    Refused {
        /// Its name.
        variable: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        let variables: BTreeMap<String, String> = std::env::vars().collect();
        Self::from_lookup(|name| variables.get(name).cloned())
    }

    /// Reads the variables that `lookup` gives; empty counts as absent, as CloudFormation cannot leave one out.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let optional = |variable: &'static str| lookup(variable).filter(|value| !value.is_empty());
        let required = |variable| optional(variable).ok_or(ConfigError::Missing { variable });

        let encryption = required("GANTRY_ENCRYPTION")?;
        let (encryption, kms_key) = match encryption.as_str() {
            "AES256" => (EncryptionType::Aes256, None),
            "KMS" => (EncryptionType::Kms, None),
            key if key.starts_with("arn:") => (EncryptionType::Kms, Some(encryption)),
            _ => return Err(refused("GANTRY_ENCRYPTION", &encryption, "AES256, KMS or the ARN of a KMS key")),
        };
        let prefix = optional("GANTRY_REPOSITORY_PREFIX").unwrap_or_default();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(refused("GANTRY_REPOSITORY_PREFIX", &prefix, "nothing, or path components ending in /"));
        }
        Ok(Self {
            stack: required("GANTRY_STACK")?,
            state_bucket: required("GANTRY_STATE_BUCKET")?,
            queue_url: optional("GANTRY_QUEUE_URL"),
            failed_queue_arn: optional("GANTRY_FAILED_QUEUE_ARN"),
            max_receives: number("GANTRY_MAX_RECEIVES", &required("GANTRY_MAX_RECEIVES")?)?,
            repository_prefix: prefix,
            repository: RepositorySettings {
                encryption,
                kms_key,
                scan_on_push: boolean("GANTRY_SCAN_ON_PUSH", &required("GANTRY_SCAN_ON_PUSH")?)?,
                mutability: mutability(&required("GANTRY_TAG_MUTABILITY")?)?,
                expire_untagged_days: number("GANTRY_EXPIRE_UNTAGGED_DAYS", &required("GANTRY_EXPIRE_UNTAGGED_DAYS")?)?,
                pull_accounts: accounts(&optional("GANTRY_PULL_ACCOUNTS").unwrap_or_default())?,
            },
            compression: compression(&required("GANTRY_COMPRESSION")?)?,
            consumer: consumer(&required("GANTRY_PROFILE")?, &required("GANTRY_ARCHITECTURE")?)?,
            registry_endpoint: optional("GANTRY_REGISTRY_ENDPOINT").map(|url| endpoint(&url)).transpose()?,
        })
    }
}

fn refused(variable: &'static str, found: &str, wanted: &'static str) -> ConfigError {
    ConfigError::Refused { variable, found: found.to_owned(), wanted }
}

fn number(variable: &'static str, text: &str) -> Result<u32, ConfigError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(refused(variable, text, "a whole number above 0")),
        Ok(number) => Ok(number),
    }
}

fn boolean(variable: &'static str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(refused(variable, text, "true or false")),
    }
}

fn mutability(text: &str) -> Result<Mutability, ConfigError> {
    const VARIABLE: &str = "GANTRY_TAG_MUTABILITY";
    const WANTED: &str = "mutable, immutable, or immutable-except: and one to five wildcard filters with commas";
    match text {
        "mutable" => Ok(Mutability::Mutable),
        "immutable" => Ok(Mutability::Immutable),
        _ => {
            let filters = text.strip_prefix("immutable-except:").ok_or_else(|| refused(VARIABLE, text, WANTED))?;
            let filters: Vec<String> = filters.split(',').map(|filter| filter.trim().to_owned()).collect();
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._*-".contains(c);
            let valid = |filter: &String| !filter.is_empty() && filter.len() <= 128 && filter.chars().all(allowed);
            if filters.len() <= 5 && filters.iter().all(valid) {
                Ok(Mutability::ImmutableExcept(filters))
            } else {
                Err(refused(VARIABLE, text, WANTED))
            }
        }
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

fn consumer(profile: &str, architecture: &str) -> Result<Consumer, ConfigError> {
    let wanted = "exact, lambda or fargate";
    Ok(Consumer {
        profile: profile.parse().map_err(|_unknown| refused("GANTRY_PROFILE", profile, wanted))?,
        platform: platform_of(architecture)
            .map_err(|_refused| refused("GANTRY_ARCHITECTURE", architecture, "arm64 or x86_64"))?,
    })
}

fn endpoint(text: &str) -> Result<Url, ConfigError> {
    text.parse()
        .map_err(|_not_a_url| refused("GANTRY_REGISTRY_ENDPOINT", text, "a URL such as https://registry.example"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("GANTRY_STACK", "gantry"),
            ("GANTRY_STATE_BUCKET", "state"),
            ("GANTRY_MAX_RECEIVES", "10"),
            ("GANTRY_ENCRYPTION", "AES256"),
            ("GANTRY_SCAN_ON_PUSH", "true"),
            ("GANTRY_TAG_MUTABILITY", "immutable-except:latest*"),
            ("GANTRY_EXPIRE_UNTAGGED_DAYS", "14"),
            ("GANTRY_COMPRESSION", "gzip"),
            ("GANTRY_PROFILE", "exact"),
            ("GANTRY_ARCHITECTURE", "arm64"),
        ])
    }

    fn read(variables: &BTreeMap<&'static str, &'static str>) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_template_s_defaults_are_understood() {
        let config = read(&variables()).unwrap();
        assert_eq!(config.compression, Compression::Gzip { level: DEFAULT_GZIP_LEVEL });
        assert_eq!(config.repository.mutability, Mutability::ImmutableExcept(vec!["latest*".into()]));
        assert_eq!(config.repository.kms_key, None);
    }

    #[test]
    fn each_error_names_the_variable() {
        for missing in variables().keys() {
            let mut variables = variables();
            variables.remove(missing);
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(missing) && error.contains("not set"), "{missing}: {error}");
        }
        for (variable, value) in [
            ("GANTRY_MAX_RECEIVES", "0"),
            ("GANTRY_MAX_RECEIVES", "ten"),
            ("GANTRY_ENCRYPTION", "none"),
            ("GANTRY_SCAN_ON_PUSH", "yes"),
            ("GANTRY_TAG_MUTABILITY", "immutable-except:a,b,c,d,e,f"),
            ("GANTRY_TAG_MUTABILITY", "immutable-except:"),
            ("GANTRY_TAG_MUTABILITY", "frozen"),
            ("GANTRY_COMPRESSION", "gzip-13"),
            ("GANTRY_COMPRESSION", "brotli"),
            ("GANTRY_PROFILE", "ecs"),
            ("GANTRY_ARCHITECTURE", "linux/"),
            ("GANTRY_PULL_ACCOUNTS", "1234"),
            ("GANTRY_REPOSITORY_PREFIX", "team"),
            ("GANTRY_REGISTRY_ENDPOINT", "not a url"),
        ] {
            let mut variables = variables();
            variables.insert(variable, value);
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(variable) && error.contains(value), "{variable}={value}: {error}");
        }
    }
}
