//! The template's rules: parameters that it forbids together (CloudFormation user guide, "Rules").

use serde_json::{Map, Value};

use super::TemplateError;
use super::resolve::Resolver;

/// Refuses parameters that an assertion forbids; a rule counts where its condition holds, or where it has none.
pub(super) fn check(rules: &Map<String, Value>, resolver: &Resolver<'_>) -> Result<(), TemplateError> {
    for (name, rule) in rules {
        let wrong = |source| TemplateError::Rule { rule: name.clone(), source };
        if let Some(condition) = rule.get("RuleCondition")
            && !resolver.holds(condition).map_err(wrong)?
        {
            continue;
        }
        for assertion in rule["Assertions"].as_array().into_iter().flatten() {
            if !resolver.holds(&assertion["Assert"]).map_err(wrong)? {
                let reason = assertion["AssertDescription"].as_str().unwrap_or("it gives no reason");
                return Err(TemplateError::Forbidden { rule: name.clone(), reason: reason.trim_end().to_owned() });
            }
        }
    }
    Ok(())
}
