//! Tokens and account settings.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use crate::{
    clock,
    ecr::{Call, Ecr, Output, epoch, error::ApiError},
};

/// How long a token is said to be valid.
const TOKEN_HOURS: i64 = 12;

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    value: Option<String>,
}

impl Ecr {
    /// `GetAuthorizationToken`: base64 of `AWS:PASSWORD`. The password is the caller's own, so that
    /// the registry API knows who calls.
    pub(super) fn authorization_token(&self, call: &Call) -> Output {
        self.authorize_account(call, "ecr:GetAuthorizationToken")?;
        let password = self.gate.issue_password(&call.caller);
        let expires_at = clock::now() + SignedDuration::from_hours(TOKEN_HOURS);
        Ok(json!({"authorizationData": [{
            "authorizationToken": STANDARD.encode(format!("AWS:{password}")),
            "expiresAt": epoch(expires_at),
            "proxyEndpoint": self.endpoint,
        }]}))
    }

    /// `GetAccountSetting`.
    pub(super) fn account_setting(&self, call: &Call) -> Output {
        let setting: Setting = call.parse()?;
        self.authorize_account(call, "ecr:GetAccountSetting")?;
        let value = self.images.account_setting(&setting.name).ok_or_else(|| unknown_name(&setting.name))?;
        Ok(json!({"name": setting.name, "value": value}))
    }

    /// `PutAccountSetting`.
    pub(super) fn put_account_setting(&self, call: &Call) -> Output {
        let setting: Setting = call.parse()?;
        self.authorize_account(call, "ecr:PutAccountSetting")?;
        let value = setting.value.unwrap_or_default();
        let allowed: &[&str] = match setting.name.as_str() {
            "BASIC_SCAN_TYPE_VERSION" => &["AWS_NATIVE"],
            "REGISTRY_POLICY_SCOPE" => &["V2"],
            "BLOB_MOUNTING" => &["ENABLED", "DISABLED"],
            name => return Err(unknown_name(name)),
        };
        if !allowed.contains(&value.as_str()) {
            return Err(ApiError::invalid(
                "value",
                &format!("Member must satisfy enum value set: [{}]", allowed.join(", ")),
            ));
        }
        self.images.set_account_setting(&setting.name, &value)?;
        Ok(json!({"name": setting.name, "value": value}))
    }
}

fn unknown_name(name: &str) -> ApiError {
    ApiError::invalid("name", &format!("There is no account setting {name}"))
}
