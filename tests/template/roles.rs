//! What the functions' roles may do: no more than they need.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::document::resources;

/// The only actions that have no resource to name (Service Authorization Reference).
const WITHOUT_RESOURCE: [&str; 6] = [
    "ecr:GetAuthorizationToken",
    "ecr:GetRegistryScanningConfiguration",
    "inspector2:ListCoverage",
    "inspector2:ListFindings",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
];

/// Every statement of every function's role, those of its managed policies among them, with the function's name.
pub(crate) fn statements() -> Vec<(String, Value)> {
    let own: BTreeMap<String, Value> = resources("AWS::IAM::Role").into_iter().collect();
    let managed: BTreeMap<String, Value> = resources("AWS::IAM::ManagedPolicy").into_iter().collect();
    let mut found = Vec::new();
    for (function, resource) in resources("AWS::Serverless::Function") {
        let properties = &resource["Properties"];
        // SAM's own policies let a function read every queue and make every log group.
        assert_eq!(properties.get("Policies"), None, "{function}: what is allowed stands in its role");
        let name = format!("{function}Role");
        assert_eq!(properties["Role"], format!("{name}.Arn"), "{function}");
        let role = &own[&name]["Properties"];
        let trusted = role.pointer("/AssumeRolePolicyDocument/Statement");
        let lambda = json!([{
            "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
        }]);
        assert_eq!(trusted, Some(&lambda), "{function}");
        let documents = role["Policies"].as_array().into_iter().flatten();
        let mut documents: Vec<&Value> = documents.map(|policy| &policy["PolicyDocument"]).collect();
        for name in texts(&role["ManagedPolicyArns"]) {
            documents.push(&managed[name]["Properties"]["PolicyDocument"]);
        }
        for document in documents {
            assert!(document["Statement"].is_array(), "{function}: {document} does not say here what it allows");
            for statement in document["Statement"].as_array().into_iter().flatten() {
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

pub(crate) fn texts(value: &Value) -> Vec<&str> {
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

/// What marks a repository as ours must not take another stack's.
#[test]
fn no_role_marks_what_another_stack_marked() {
    let mut marks = 0;
    for (function, statement) in statements() {
        if !texts(&statement["Action"]).contains(&"ecr:TagResource") {
            continue;
        }
        marks += 1;
        let bound = statement.pointer("/Condition/StringEqualsIfExists/aws:ResourceTag~1gantry:stack");
        assert_eq!((texts(&statement["Action"]).len(), bound), (1, Some(&"AWS::StackName".into())), "{function}");
    }
    assert_eq!(marks, 1);
}

/// SNS's own policy would let more publish.
#[test]
fn only_alarms_publish_by_the_topic_s_policy() {
    let [(_, policy)] = &resources("AWS::SNS::TopicPolicy")[..] else { panic!("one topic, one policy") };
    let statements = policy.pointer("/Properties/PolicyDocument/Statement").and_then(Value::as_array);
    let [statement] = &statements.expect("statements")[..] else { panic!("one statement") };
    assert_eq!(statement["Principal"], json!({"Service": "cloudwatch.amazonaws.com"}));
    assert_eq!((texts(&statement["Action"]), texts(&statement["Resource"])), (vec!["sns:Publish"], vec!["Topic"]));
    assert_eq!(statement["Condition"]["StringEquals"]["aws:SourceAccount"], "AWS::AccountId");
}

/// They all take the same looks, whatever woke them; only what is each one's own may differ.
#[test]
fn the_reacting_functions_may_do_the_same() {
    let may = |function: &str| -> BTreeMap<String, String> {
        let own = |(name, statement): (String, Value)| (name == function).then_some(statement);
        let named = statements().into_iter().filter_map(own).map(|statement| {
            let sid = statement["Sid"].as_str().expect("a statement has a name").to_owned();
            (sid, statement.to_string())
        });
        named.filter(|(sid, _)| !["BackOff", "KeepItsPlace", "TakeMessages", "WriteLogs"].contains(&&**sid)).collect()
    };
    let on_push = may("OnPushFunction");
    assert!(on_push.len() > 5, "{on_push:?}");
    assert_eq!(on_push, may("OnScanFunction"));
    assert_eq!(on_push, may("ReconcileFunction"));
}

/// The statement of a bucket's policy with this name.
fn of_bucket(policy: &str, sid: &str) -> Value {
    let policies: BTreeMap<String, Value> = resources("AWS::S3::BucketPolicy").into_iter().collect();
    let statements = policies[policy].pointer("/Properties/PolicyDocument/Statement").expect("statements");
    let statements = statements.as_array().into_iter().flatten();
    let named = statements.into_iter().find(|statement| statement["Sid"] == sid);
    named.expect("it is in the policy").clone()
}

/// What only the pipeline writes is refused to everybody else, account administrators among them.
#[test]
fn buckets_refuse_what_only_the_pipeline_may_write() {
    let roles: Vec<String> =
        resources("AWS::Serverless::Function").into_iter().map(|(function, _)| format!("{function}Role")).collect();
    let session =
        |role: &String| format!("arn:${{AWS::Partition}}:sts::${{AWS::AccountId}}:assumed-role/${{{role}}}/*");
    let mut roles: Vec<String> = roles.iter().flat_map(|role| [format!("{role}.Arn"), session(role)]).collect();
    roles.sort_unstable();
    for (policy, sid, resource) in [
        ("UploadsPolicy", "PipelineWritesReceipts", json!("${Uploads.Arn}/*.receipt.json")),
        ("UploadsPolicy", "PipelineSetsItsTags", json!("${Uploads.Arn}/*")),
        ("StatePolicy", "PipelineWritesState", json!(["${State.Arn}/policy.toml", "${State.Arn}/releases/*"])),
    ] {
        let statement = of_bucket(policy, sid);
        assert_eq!((&statement["Effect"], &statement["Principal"]), (&json!("Deny"), &json!("*")), "{sid}");
        let of = statement.get("Resource").unwrap_or(&statement["NotResource"]);
        assert_eq!(*of, resource, "{sid}");
        assert!(texts(&statement["Action"]).contains(&"s3:PutObject"), "{sid}");
        let mut but: Vec<&str> = texts(&statement["Condition"]["ArnNotLike"]["aws:PrincipalArn"]);
        but.sort_unstable();
        assert_eq!(but, roles, "{sid}");
    }
    let tags = &of_bucket("UploadsPolicy", "PipelineSetsItsTags")["Condition"]["ForAnyValue:StringLike"];
    assert_eq!(tags["s3:RequestObjectTagKeys"], "gantry*");
    for policy in ["UploadsPolicy", "StatePolicy"] {
        assert_eq!(of_bucket(policy, "TlsOnly")["Condition"], json!({"Bool": {"aws:SecureTransport": "false"}}));
    }
}
