//! The token that opens the registry: from `GetAuthorizationToken`, cached while it is good.
//!
//! It is the base64 of `AWS:<password>` and goes unchanged into `Authorization: Basic` of every request; it lives
//! 12 hours (ECR user guide, "Private registry authentication").

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use url::Url;

use super::RegistryError;
use crate::aws::CallError;
use crate::limits;

/// Where the registry is, and what opens it. Its secret is never printed.
pub(super) struct Token {
    pub(super) authorization: HeaderValue,
    pub(super) endpoint: Url,
    expires_at: Timestamp,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("authorization", &"hidden")
            .field("endpoint", &self.endpoint.as_str())
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// Gives the token, fetching one when there is none that lives long enough.
#[derive(Debug)]
pub struct TokenSource {
    client: aws_sdk_ecr::Client,
    endpoint: Option<Url>,
    now: fn() -> Timestamp,
    cached: Mutex<Option<Arc<Token>>>,
}

impl TokenSource {
    /// Tokens from `client`; `endpoint` overrides where they say the registry is.
    pub fn new(client: aws_sdk_ecr::Client, endpoint: Option<Url>, now: fn() -> Timestamp) -> Self {
        Self { client, endpoint, now, cached: Mutex::new(None) }
    }

    /// The cached token, or a new one.
    pub(super) async fn token(&self) -> Result<Arc<Token>, RegistryError> {
        let mut cached = self.cached.lock().await;
        let margin = SignedDuration::try_from(limits::TOKEN_MARGIN).unwrap_or_default();
        if let Some(token) = &*cached
            && token.expires_at.duration_since((self.now)()) > margin
        {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.fetch().await?);
        *cached = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Forgets `refused`, unless another request already fetched a newer one.
    pub(super) async fn forget(&self, refused: &Arc<Token>) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            *cached = None;
        }
    }

    async fn fetch(&self) -> Result<Token, RegistryError> {
        let answer = self
            .client
            .get_authorization_token()
            .send()
            .await
            .map_err(|error| CallError::new("ecr:GetAuthorizationToken", "*", error))?;
        let data = answer.authorization_data().first().ok_or(RegistryError::NoToken)?;
        let token = data.authorization_token().ok_or(RegistryError::NoToken)?;
        let mut authorization =
            HeaderValue::try_from(format!("Basic {token}")).map_err(|_not_ascii| RegistryError::NoToken)?;
        authorization.set_sensitive(true);
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => data.proxy_endpoint().and_then(|endpoint| endpoint.parse().ok()).ok_or(RegistryError::NoToken)?,
        };
        let expires_at = data.expires_at().and_then(|at| Timestamp::from_second(at.secs()).ok());
        // Without an expiry the token is used for this request alone.
        Ok(Token { authorization, endpoint, expires_at: expires_at.unwrap_or(Timestamp::UNIX_EPOCH) })
    }
}
