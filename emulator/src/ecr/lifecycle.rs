//! What ECR takes for a lifecycle policy (ECR API reference, `PutLifecyclePolicy`; user guide, "Lifecycle policy properties").

use serde::Deserialize;

use crate::ecr::error::ApiError;

const MIN_CHARS: usize = 100;
const MAX_CHARS: usize = 30_720;
const MAX_RULES: usize = 50;
const MAX_WILDCARDS: usize = 4;
const MIN_ARCHIVED_DAYS: u64 = 90;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(rename = "rulePriority")]
    priority: u64,
    #[serde(rename = "description")]
    _description: Option<String>,
    selection: Selection,
    action: Action,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    tag_status: TagStatus,
    tag_pattern_list: Option<Vec<String>>,
    tag_prefix_list: Option<Vec<String>>,
    storage_class: Option<StorageClass>,
    count_type: CountType,
    count_unit: Option<CountUnit>,
    count_number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TagStatus {
    Tagged,
    Untagged,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StorageClass {
    Standard,
    Archive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum CountType {
    ImageCountMoreThan,
    SinceImagePushed,
    SinceImagePulled,
    SinceImageTransitioned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CountUnit {
    Days,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Action {
    r#type: ActionType,
    target_storage_class: Option<StorageClass>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionType {
    Expire,
    Transition,
}

/// Refuses what ECR refuses.
pub(super) fn check(text: &str) -> Result<(), ApiError> {
    let parameter = "LifecyclePolicyText";
    let length = text.chars().count();
    if length < MIN_CHARS {
        return Err(ApiError::invalid(parameter, "Member must have length greater than or equal to 100"));
    }
    if length > MAX_CHARS {
        return Err(ApiError::invalid(parameter, "Member must have length less than or equal to 30720"));
    }
    let policy: Policy = serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(parameter, &format!("Lifecycle policy validation failure: {error}")))?;
    check_rules(&policy.rules)
        .map_err(|problem| ApiError::invalid(parameter, &format!("Lifecycle policy validation failure: {problem}")))
}

fn check_rules(rules: &[Rule]) -> Result<(), String> {
    if !(1..=MAX_RULES).contains(&rules.len()) {
        return Err(format!("1 to {MAX_RULES} rules, not {}", rules.len()));
    }
    let highest = rules.iter().map(|rule| rule.priority).max();
    let mut priorities: Vec<u64> = rules.iter().map(|rule| rule.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    if priorities.len() < rules.len() || priorities.first() == Some(&0) {
        return Err("rulePriority must be unique and at least 1".to_owned());
    }
    let mut untagged = Vec::new();
    for rule in rules {
        let selection = &rule.selection;
        let class = selection.storage_class.unwrap_or(StorageClass::Standard);
        check_tags(selection)?;
        match selection.tag_status {
            TagStatus::Any if Some(rule.priority) != highest => {
                return Err("a rule with tagStatus any must have the highest rulePriority".to_owned());
            }
            TagStatus::Untagged if untagged.contains(&class) => {
                return Err("only one rule with tagStatus untagged per storage class".to_owned());
            }
            TagStatus::Untagged => untagged.push(class),
            TagStatus::Any | TagStatus::Tagged => {}
        }
        check_count(rule, class)?;
    }
    Ok(())
}

fn check_tags(selection: &Selection) -> Result<(), String> {
    let patterns = selection.tag_pattern_list.as_deref();
    let lists = [patterns, selection.tag_prefix_list.as_deref()];
    let given = lists.into_iter().flatten().filter(|list| !list.is_empty());
    match (selection.tag_status, given.count()) {
        (TagStatus::Tagged, 1) | (TagStatus::Untagged | TagStatus::Any, 0) => {}
        (TagStatus::Tagged, _) => {
            return Err("tagStatus tagged needs either tagPatternList or tagPrefixList".to_owned());
        }
        (TagStatus::Untagged | TagStatus::Any, _) => {
            return Err("only tagStatus tagged has tagPatternList or tagPrefixList".to_owned());
        }
    }
    let starry = |pattern: &&String| pattern.matches('*').count() > MAX_WILDCARDS;
    if let Some(pattern) = patterns.unwrap_or_default().iter().find(starry) {
        return Err(format!("at most {MAX_WILDCARDS} wildcards, not {pattern}"));
    }
    Ok(())
}

fn check_count(rule: &Rule, class: StorageClass) -> Result<(), String> {
    let selection = &rule.selection;
    let action = &rule.action;
    if selection.count_number == 0 {
        return Err("countNumber must be at least 1".to_owned());
    }
    let counts_days = selection.count_type != CountType::ImageCountMoreThan;
    if counts_days != selection.count_unit.is_some() {
        return Err("countUnit days belongs to the since… count types, and only to them".to_owned());
    }
    let transition = action.r#type == ActionType::Transition;
    if transition != (action.target_storage_class == Some(StorageClass::Archive)) {
        return Err("targetStorageClass archive belongs to the action transition".to_owned());
    }
    match selection.count_type {
        CountType::SinceImagePulled if !transition => {
            Err("sinceImagePulled is only for the action transition".to_owned())
        }
        CountType::SinceImageTransitioned
            if transition || class != StorageClass::Archive || selection.count_number < MIN_ARCHIVED_DAYS =>
        {
            Err(format!("sinceImageTransitioned expires archived images after at least {MIN_ARCHIVED_DAYS} days"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(priority: u64, selection: &Value, action: &Value) -> Value {
        json!({
            "rulePriority": priority,
            "description": "long enough for ECR, which wants a hundred characters in the whole policy",
            "selection": selection,
            "action": action,
        })
    }

    fn untagged() -> Value {
        json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14})
    }

    fn expire() -> Value {
        json!({"type": "expire"})
    }

    fn verdict(rules: &[Value]) -> Result<(), String> {
        check(&json!({"rules": rules}).to_string()).map_err(|error| error.message)
    }

    #[test]
    fn what_ecr_takes() {
        let tagged = json!({"tagStatus": "tagged", "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 3});
        let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3});
        let archive = json!({"tagStatus": "tagged", "tagPrefixList": ["v"], "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 3});
        let transition = json!({"type": "transition", "targetStorageClass": "archive"});
        let archived = json!({"tagStatus": "untagged", "storageClass": "archive", "countType": "sinceImageTransitioned", "countUnit": "days", "countNumber": 90});
        let rules = [
            rule(1, &untagged(), &expire()),
            rule(2, &tagged, &expire()),
            rule(3, &archive, &transition),
            rule(4, &archived, &expire()),
            rule(9, &any, &expire()),
        ];
        assert_eq!(verdict(&rules), Ok(()));
    }

    #[test]
    fn what_ecr_refuses() {
        let with = |field: &str, value: Value| {
            let mut selection = untagged();
            selection[field] = value;
            selection
        };
        let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3});
        let starry = json!({"tagStatus": "tagged", "tagPatternList": ["*a*b*c*d*"], "countType": "imageCountMoreThan", "countNumber": 3});
        let one = |selection: Value| vec![rule(1, &selection, &expire())];
        let cases = [
            (vec![], "length greater than or equal to 100"),
            (vec![rule(1, &untagged(), &expire()); 51], "1 to 50 rules, not 51"),
            (vec![rule(1, &untagged(), &expire()), rule(1, &any, &expire())], "rulePriority must be unique"),
            (
                vec![rule(1, &untagged(), &expire()), rule(2, &untagged(), &expire())],
                "only one rule with tagStatus untagged",
            ),
            (vec![rule(1, &any, &expire()), rule(2, &untagged(), &expire())], "must have the highest rulePriority"),
            (one(with("tagStatus", json!("tagged"))), "needs either"),
            (one(with("tagPrefixList", json!(["a"]))), "only tagStatus tagged"),
            (one(with("countUnit", Value::Null)), "countUnit days"),
            (one(with("countNumber", json!(0))), "at least 1"),
            (one(with("countType", json!("sinceImagePulled"))), "transition"),
            (one(with("countType", json!("sinceImageTransitioned"))), "at least 90 days"),
            (one(with("countType", json!("other"))), "unknown variant"),
            (one(with("other", json!(1))), "unknown field"),
            (one(starry), "at most 4 wildcards"),
            (vec![rule(1, &untagged(), &json!({"type": "transition"}))], "targetStorageClass archive"),
        ];
        for (rules, expected) in cases {
            let got = verdict(&rules).unwrap_err();
            assert!(got.contains(expected), "wanted {expected:?} in {got:?}");
        }
        let long = format!("{{\"rules\":[]}}{}", " ".repeat(MAX_CHARS));
        assert!(check(&long).unwrap_err().message.contains("30720"));
    }
}
