//! What the functions' roles may do: no more than they need.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::resources;

/// The only actions that have no resource to name (Service Authorization Reference).
const WITHOUT_RESOURCE: [&str; 4] = [
    "ecr:GetAuthorizationToken",
    "ecr:GetRegistryScanningConfiguration",
    "inspector2:ListCoverage",
    "inspector2:ListFindings",
];

/// Every statement of every function's role, with the function's name.
fn statements() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (function, resource) in resources("AWS::Serverless::Function") {
        let properties = &resource["Properties"];
        assert_eq!(properties.get("Role"), None, "{function}: a role of its own would not be looked at here");
        for policy in properties["Policies"].as_array().expect("a list of policies") {
            assert!(policy["Statement"].is_array(), "{function}: {policy} does not say here what it allows");
            for statement in policy["Statement"].as_array().into_iter().flatten() {
                // `!If` is a list of its condition and two statements, of which one may be nothing.
                match statement {
                    Value::Array(branches) => {
                        let branches = branches.iter().filter(|branch| branch.is_object());
                        found.extend(branches.map(|branch| (function.clone(), branch.clone())));
                    }
                    one => found.push((function.clone(), one.clone())),
                }
            }
        }
    }
    found
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn roles_name_their_resources() {
    let statements = statements();
    assert!(
        statements.iter().any(|(_, statement)| statement["Sid"] == "EncryptRepositories"),
        "the !If is looked into"
    );
    for (function, statement) in statements {
        let resources = texts(&statement["Resource"]);
        assert!(!resources.is_empty(), "{function}: {statement}");
        if texts(&statement["Action"]).iter().all(|action| WITHOUT_RESOURCE.contains(action)) {
            continue;
        }
        for resource in resources {
            // `arn:aws:s3:::*` is every bucket, as `*` is everything.
            let name = resource.rsplit(':').next().unwrap_or_default();
            assert!(!name.trim_start_matches(['*', '/']).is_empty(), "{function}: {statement}");
        }
    }
}

#[test]
fn roles_name_their_actions() {
    for (function, statement) in statements() {
        assert_eq!(statement["Effect"], "Allow", "{function}: {statement}");
        let actions = texts(&statement["Action"]);
        assert!(!actions.is_empty(), "{function}: {statement}");
        for action in actions {
            assert!(!action.contains(['*', '?']), "{function}: {action}");
        }
    }
}

#[test]
fn what_changes_an_image_is_bound_to_our_repositories() {
    for (function, statement) in statements() {
        for action in texts(&statement["Action"]) {
            let changes = ["ecr:Put", "ecr:Set", "ecr:Initiate", "ecr:Upload", "ecr:Complete", "ecr:BatchDelete"];
            if changes.iter().any(|start| action.starts_with(start)) {
                let bound = statement.pointer("/Condition/StringEquals/aws:ResourceTag~1gantry:stack");
                assert_eq!(bound, Some(&Value::from("AWS::StackName")), "{function}: {action}");
            }
            assert!(!action.starts_with("ecr:Delete") && !action.starts_with("s3:Delete"), "{function}: {action}");
        }
    }
}

/// They all take the same looks, whatever woke them; only what is each one's own may differ.
#[test]
fn the_reacting_functions_may_do_the_same() {
    let may = |function: &str| -> BTreeMap<String, String> {
        let own = |(name, statement): (String, Value)| (name == function).then_some(statement);
        let named = statements().into_iter().filter_map(own).map(|statement| {
            let sid = statement["Sid"].as_str().expect("a statement has a name").to_owned();
            (sid, statement.to_string().replace(r#","${State.Arn}/sweep.json""#, ""))
        });
        named.filter(|(sid, _)| sid != "BackOff").collect()
    };
    let on_push = may("OnPushFunction");
    assert!(on_push.len() > 5, "{on_push:?}");
    assert_eq!(on_push, may("OnScanFunction"));
    assert_eq!(on_push, may("ReconcileFunction"));
}
