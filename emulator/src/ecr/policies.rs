//! Lifecycle and repository policies.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account,
    ecr::{Call, Ecr, Output, error::ApiError, lifecycle},
};

/// ECR user guide, "Repository policies".
const MAX_POLICY_CHARS: usize = 10_240;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    repository_name: String,
    lifecycle_policy_text: Option<String>,
    #[serde(rename = "policyText")]
    text: Option<String>,
}

impl Ecr {
    /// `PutLifecyclePolicy`.
    pub(super) fn put_lifecycle_policy(&self, call: &Call) -> Output {
        let wanted: Policy = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:PutLifecyclePolicy", &name)?;
        let text = wanted.lifecycle_policy_text.unwrap_or_default();
        lifecycle::check(&text)?;
        self.change(&name, |repository| {
            repository.lifecycle = Some(text.clone());
        })?;
        Ok(lifecycle_output(&name, &text))
    }

    /// `GetLifecyclePolicy`.
    pub(super) fn lifecycle_policy(&self, call: &Call) -> Output {
        let wanted: Policy = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:GetLifecyclePolicy", &name)?;
        let text = self
            .look(&name, |repository| repository.lifecycle.clone())?
            .ok_or_else(|| missing("LifecyclePolicyNotFoundException", "Lifecycle policy", &name))?;
        Ok(lifecycle_output(&name, &text))
    }

    /// `SetRepositoryPolicy`. ECR answers later with the same policy in its own formatting.
    pub(super) fn set_repository_policy(&self, call: &Call) -> Output {
        let wanted: Policy = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:SetRepositoryPolicy", &name)?;
        let text = formatted(&wanted.text.unwrap_or_default())?;
        self.change(&name, |repository| repository.policy = Some(text.clone()))?;
        Ok(policy_output(&name, &text))
    }

    /// `GetRepositoryPolicy`.
    pub(super) fn repository_policy(&self, call: &Call) -> Output {
        let wanted: Policy = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:GetRepositoryPolicy", &name)?;
        let text = self
            .look(&name, |repository| repository.policy.clone())?
            .ok_or_else(|| missing("RepositoryPolicyNotFoundException", "Repository policy", &name))?;
        Ok(policy_output(&name, &text))
    }
}

fn lifecycle_output(name: &str, text: &str) -> Value {
    json!({"registryId": account::ID, "repositoryName": name, "lifecyclePolicyText": text})
}

fn policy_output(name: &str, text: &str) -> Value {
    json!({"registryId": account::ID, "repositoryName": name, "policyText": text})
}

fn missing(exception: &'static str, what: &str, name: &str) -> ApiError {
    ApiError::new(
        exception,
        format!(
            "{what} does not exist for the repository with name '{name}' in the registry with id '{}'",
            account::ID
        ),
    )
}

fn formatted(text: &str) -> Result<String, ApiError> {
    let refused = |constraint: &str| Err(ApiError::invalid("PolicyText", constraint));
    if text.chars().count() > MAX_POLICY_CHARS {
        return refused("Member must have length less than or equal to 10240");
    }
    let Ok(policy) = serde_json::from_str::<Value>(text) else {
        return refused("Invalid repository policy provided");
    };
    let statements = match policy.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => Vec::new(),
    };
    let whole = |statement: &&Value| {
        let effect = statement.get("Effect").and_then(Value::as_str);
        matches!(effect, Some("Allow" | "Deny"))
            && (statement.get("Principal").is_some() || statement.get("NotPrincipal").is_some())
            && (statement.get("Action").is_some() || statement.get("NotAction").is_some())
    };
    if statements.is_empty() || !statements.iter().all(whole) {
        return refused("Invalid repository policy provided");
    }
    Ok(format!("{policy:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::tests_support::{call, ecr};

    #[test]
    fn policies_are_set_read_and_missed() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        let name = json!({"repositoryName": "ab"});
        ecr.create_repository(&call(name.clone())).unwrap();
        let missing = ecr.repository_policy(&call(name.clone())).unwrap_err();
        assert_eq!(missing.name, "RepositoryPolicyNotFoundException");
        let missing = ecr.lifecycle_policy(&call(name.clone())).unwrap_err();
        assert_eq!(missing.name, "LifecyclePolicyNotFoundException");
        assert_eq!(
            missing.message,
            "Lifecycle policy does not exist for the repository with name 'ab' in the registry with id '123456789012'"
        );
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::210987654321:root"},
            "Action": ["ecr:BatchGetImage"],
        }]});
        let set = json!({"repositoryName": "ab", "policyText": policy.to_string()});
        ecr.set_repository_policy(&call(set)).unwrap();
        let read = ecr.repository_policy(&call(name)).unwrap();
        let text = read["policyText"].as_str().unwrap();
        assert_ne!(text, policy.to_string(), "ECR formats policies anew");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), policy);
        for refused in ["", "{}", r#"{"Statement":[]}"#, r#"{"Statement":[{"Effect":"Allow"}]}"#] {
            let set = json!({"repositoryName": "ab", "policyText": refused});
            let error = ecr.set_repository_policy(&call(set)).unwrap_err();
            assert_eq!(error.name, "InvalidParameterException", "{refused}");
        }
    }
}
