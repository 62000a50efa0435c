//! Reading variables: what every function has, and the forms that values take.

use std::collections::BTreeMap;

use aws_sdk_ecr::types::ImageTagMutability;
use url::Url;

use crate::react::floating::{Template, TemplateError};

/// What every function is told.
#[derive(Debug, Clone)]
pub struct CommonConfig {
    /// The stack's name; repositories that carry it as the tag [`STACK_TAG`] are ours.
    pub stack: String,
    /// The bucket of the ledger, the image records and the policy.
    pub state_bucket: String,
    /// The topic that people listen to.
    pub topic_arn: String,
    /// Where the registry is, if not where `GetAuthorizationToken` says.
    pub registry_endpoint: Option<Url>,
}

/// The queue that feeds a function.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Its URL, for backing off; absent when the function is invoked without one.
    pub url: Option<String>,
    /// Where messages go that no delivery could finish, for the command that sends them round again.
    pub failed_queue_arn: Option<String>,
    /// How often a message is delivered before it goes to the failed queue.
    pub max_receives: u32,
}

/// The resource tag that says which stack a repository belongs to.
pub const STACK_TAG: &str = "gantry:stack";

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
    /// A floating tag's template that cannot work.
    #[error("the environment variable {variable} is refused")]
    Template {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: TemplateError,
    },
}

/// The variables of a process, or what a test puts in their place. Empty counts as absent, as CloudFormation cannot
/// leave one out.
pub(super) struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

/// Whether the environment names certificate authorities of its own, by the variables of OpenSSL and whatever follows it.
pub fn names_certificates() -> bool {
    let variable = environment();
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(|name| variable(name).is_some())
}

/// The process's environment.
pub(super) fn environment() -> impl Fn(&str) -> Option<String> {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    move |name| variables.get(name).cloned()
}

impl<'a> Variables<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self(lookup)
    }

    pub(super) fn optional(&self, variable: &str) -> Option<String> {
        (self.0)(variable).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, variable: &'static str) -> Result<String, ConfigError> {
        self.optional(variable).ok_or(ConfigError::Missing { variable })
    }

    pub(super) fn number(&self, variable: &'static str) -> Result<u32, ConfigError> {
        let text = self.required(variable)?;
        match text.parse() {
            Ok(0) | Err(_) => Err(refused(variable, &text, "a whole number above 0")),
            Ok(number) => Ok(number),
        }
    }

    pub(super) fn boolean(&self, variable: &'static str) -> Result<bool, ConfigError> {
        let text = self.required(variable)?;
        match text.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(refused(variable, &text, "true or false")),
        }
    }

    pub(super) fn common(&self) -> Result<CommonConfig, ConfigError> {
        let endpoint = |text: String| {
            text.parse().map_err(|_not_a_url| {
                refused("GANTRY_REGISTRY_ENDPOINT", &text, "a URL such as https://registry.example")
            })
        };
        Ok(CommonConfig {
            stack: self.required("GANTRY_STACK")?,
            state_bucket: self.required("GANTRY_STATE_BUCKET")?,
            topic_arn: self.required("GANTRY_TOPIC_ARN")?,
            registry_endpoint: self.optional("GANTRY_REGISTRY_ENDPOINT").map(endpoint).transpose()?,
        })
    }

    pub(super) fn queue(&self) -> Result<QueueConfig, ConfigError> {
        Ok(QueueConfig {
            url: self.optional("GANTRY_QUEUE_URL"),
            failed_queue_arn: self.optional("GANTRY_FAILED_QUEUE_ARN"),
            max_receives: self.number("GANTRY_MAX_RECEIVES")?,
        })
    }

    pub(super) fn floating(&self, mutability: &Mutability) -> Result<Vec<Template>, ConfigError> {
        const VARIABLE: &str = "GANTRY_FLOATING_TAGS";
        let refused = |source| ConfigError::Template { variable: VARIABLE, source };
        let text = self.optional(VARIABLE).unwrap_or_default();
        let templates = text.split(',').map(str::trim).filter(|template| !template.is_empty());
        templates.map(|template| Template::parse(template, mutability).map_err(refused)).collect()
    }

    pub(super) fn mutability(&self) -> Result<Mutability, ConfigError> {
        mutability(&self.required("GANTRY_TAG_MUTABILITY")?)
    }
}

pub(super) fn refused(variable: &'static str, found: &str, wanted: &'static str) -> ConfigError {
    ConfigError::Refused { variable, found: found.to_owned(), wanted }
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
