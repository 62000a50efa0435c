use super::*;

const TEMPLATE: &str = include_str!("../../../template.yaml");
const ENDPOINT: &str = "http://127.0.0.1:4566";

fn read(overrides: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Template::read(TEMPLATE, &overrides, ENDPOINT)
}

#[test]
fn the_projects_template_is_understood_in_full() {
    let template = read(&[]).unwrap();
    let uploads = &template.buckets["Uploads"];
    assert_eq!((uploads.name.as_str(), uploads.versioned, uploads.event_bridge), ("uploads", true, true));
    assert!(template.buckets["State"].event_bridge);

    let queue = &template.queues["ImportQueue"];
    let failed = &template.queues["FailedMessages"];
    assert_eq!(queue.visibility, Duration::from_mins(90));
    assert_eq!(queue.redrive, Some(Redrive { dead_letter_arn: failed.arn.clone(), max_receives: 10 }));
    // One policy for all queues; each statement names the queue it is for.
    assert_eq!(queue.policy.len(), 4);
    assert_eq!(failed.redrive, None);

    let rule = &template.rules["UploadRule"];
    assert_eq!(rule.pattern["detail"]["bucket"]["name"][0], "uploads");
    assert_eq!(rule.targets[0].arn, queue.arn);
    assert_eq!(rule.targets[0].dead_letter_arn.as_ref(), Some(&template.queues["UndeliveredEvents"].arn));

    let function = &template.functions["ImportFunction"];
    assert_eq!(function.timeout, Duration::from_mins(15));
    assert_eq!((function.memory_mib, function.handler.as_str()), (3008, "bootstrap"));
    assert_eq!(function.environment["GANTRY_QUEUE_URL"], queue.url);
    assert_eq!(function.environment["GANTRY_MAX_RECEIVES"], "10");
    assert_eq!(function.environment["GANTRY_PULL_ACCOUNTS"], "");
    assert_eq!(
        function.source,
        Some(QueueSource {
            queue_arn: queue.arn.clone(),
            batch_size: 1,
            batching_window: Duration::ZERO,
            maximum_concurrency: Some(5),
            reports_failures: true,
        })
    );
    let scans = template.functions["OnScanFunction"].source.as_ref().unwrap();
    assert_eq!((scans.batch_size, scans.batching_window), (500, Duration::from_secs(2)));
    assert_eq!(template.functions["ReconcileFunction"].schedules[0].every, Duration::from_mins(15));
    assert!(template.topics.contains_key("Topic"));
}

#[test]
fn parameters_reach_environment_and_role() {
    let plain = read(&[]).unwrap();
    let keyed =
        read(&[("Encryption", "arn:aws:kms:us-east-1:123456789012:key/k"), ("RepositoryPrefix", "team/")]).unwrap();
    let (plain, keyed) = (&plain.functions["ImportFunction"], &keyed.functions["ImportFunction"]);
    assert_eq!(keyed.environment["GANTRY_REPOSITORY_PREFIX"], "team/");
    assert_eq!(keyed.statements.len(), plain.statements.len() + 1);
}

#[test]
fn refusals_name_the_resource() {
    let cases = [
        ("Resources: []", "the template's Resources is missing or no mapping"),
        (
            "Resources: { Q: { Type: AWS::SQS::Queue, Properties: { FifoQueue: true } } }",
            "the resource Q of the template asks for a FIFO queue, which the embedded AWS does not have",
        ),
        (
            "Resources: { Q: { Type: AWS::SQS::Queue, Properties: { VisibilityTimeout: long } } }",
            "the resource Q of the template: VisibilityTimeout must be a whole number",
        ),
        (
            "Resources: { B: { Type: AWS::S3::Bucket, Properties: { X: !Ref Nobody } } }",
            "the resource B of the template cannot be resolved",
        ),
        (
            "Resources: { F: { Type: AWS::Serverless::Function, Properties: { Events: { E: { Type: Api } } } } }",
            "the resource F of the template asks for an event of type \"Api\", which the embedded AWS does not have",
        ),
        (
            "Resources: { R: { Type: AWS::Events::Rule, Properties: { EventPattern: { source: [a] }, Targets: [{ Arn: 'arn:aws:sns:x' }] } } }",
            "the resource R of the template asks for the rule target arn:aws:sns:x, which the embedded AWS does not have",
        ),
        (
            "Resources: { F: { Type: AWS::Serverless::Function, Properties: { Policies: [{ Statement: { Effect: Allow } }] } } }",
            "a policy of the resource F of the template cannot be evaluated",
        ),
    ];
    for (text, want) in cases {
        let error = Template::read(text, &BTreeMap::new(), ENDPOINT).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn a_condition_leaves_a_resource_out_and_globals_fill_gaps() {
    let text = "
Conditions: { Never: !Equals [a, b] }
Globals: { Function: { Timeout: 7, Environment: { Variables: { A: 1, B: 2 } } } }
Resources:
  Gone: { Type: AWS::SQS::Queue, Condition: Never }
  Alarm: { Type: AWS::CloudWatch::Alarm, Properties: { X: !ImportValue y } }
  F: { Type: AWS::Serverless::Function, Properties: { Environment: { Variables: { B: 3 } } } }
";
    let template = Template::read(text, &BTreeMap::new(), ENDPOINT).unwrap();
    assert!(template.queues.is_empty());
    let function = &template.functions["F"];
    assert_eq!(function.timeout, Duration::from_secs(7));
    let want = BTreeMap::from([("A", "1"), ("B", "3")]);
    assert!(function.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(want));
}

#[test]
fn topics_have_their_own_and_their_resources_subscriptions() {
    let text = r#"
Conditions: { Never: !Equals [a, b] }
Resources:
  Told:
    Type: AWS::SNS::Topic
    Properties: { Subscription: [{ Protocol: email, Endpoint: a@example.com }] }
  Held:
    Type: AWS::SNS::Subscription
    Properties: { TopicArn: !Ref Told, Protocol: email, Endpoint: b@example.com, FilterPolicy: { state: [held] } }
  Body:
    Type: AWS::SNS::Subscription
    Properties: { TopicArn: !Ref Told, Protocol: sqs, Endpoint: q, FilterPolicy: '{"a":[1]}', FilterPolicyScope: MessageBody }
  Gone: { Type: AWS::SNS::Subscription, Condition: Never, Properties: { TopicArn: !Ref Told, Protocol: email } }
"#;
    let template = Template::read(text, &BTreeMap::new(), ENDPOINT).unwrap();
    let topic = &template.topics["Told"];
    assert_eq!(
        (topic.name.as_str(), topic.arn.as_str()),
        ("gantry-Told", "arn:aws:sns:us-east-1:123456789012:gantry-Told")
    );
    let mut got: Vec<_> = topic
        .subscriptions
        .iter()
        .map(|one| (one.endpoint.as_str(), one.filter.as_ref().map(Value::to_string), one.filter_scope))
        .collect();
    got.sort_unstable_by_key(|(endpoint, ..)| *endpoint);
    let want = [
        ("a@example.com", None, FilterScope::Attributes),
        ("b@example.com", Some(r#"{"state":["held"]}"#.to_owned()), FilterScope::Attributes),
        ("q", Some(r#"{"a":[1]}"#.to_owned()), FilterScope::Body),
    ];
    assert_eq!(got, want);
}

#[test]
fn event_source_mappings_are_within_lambdas_limits() {
    let read = |settings: &str| {
        let text = format!(
            "Resources: {{ F: {{ Type: AWS::Serverless::Function, Properties: {{ Events: {{ E: {{ Type: SQS, Properties: {{ Queue: q, {settings} }} }} }} }} }} }}"
        );
        let template = Template::read(&text, &BTreeMap::new(), ENDPOINT);
        template.map(|template| template.functions["F"].source.clone().unwrap()).map_err(|error| error.to_string())
    };
    let source = read("BatchSize: 10000, MaximumBatchingWindowInSeconds: 300").unwrap();
    assert_eq!((source.batch_size, source.batching_window), (10_000, Duration::from_mins(5)));
    assert_eq!(read("").unwrap().batch_size, 10);
    let cases = [
        ("BatchSize: 0", "Events.BatchSize must be a number from 1 to 10000"),
        ("BatchSize: 10001", "Events.BatchSize must be a number from 1 to 10000"),
        (
            "BatchSize: 11",
            "Events.MaximumBatchingWindowInSeconds must be at least 1, since Events.BatchSize is above 10",
        ),
        ("MaximumBatchingWindowInSeconds: 301", "Events.MaximumBatchingWindowInSeconds must be a number from 0 to 300"),
        (
            "ScalingConfig: { MaximumConcurrency: 1 }",
            "Events.ScalingConfig.MaximumConcurrency must be a number from 2 to 1000",
        ),
    ];
    for (settings, want) in cases {
        assert_eq!(read(settings).unwrap_err(), format!("the resource F of the template: {want}"));
    }
}

#[test]
fn kinds_that_are_not_emulated_are_left_out_and_may_be_referred_to() {
    let text = r#"
Mappings: { M: { k: { n: 7 } } }
Conditions:
  A: !Equals [a, a]
  B: !And [!Condition A, !Not [!Or [!Equals [a, b], !Not [!Condition A]]]]
Resources:
  Told: { Type: AWS::SNS::Topic }
  ToldPolicy: { Type: AWS::SNS::TopicPolicy, Properties: { Topics: [!Ref Told], PolicyDocument: { Statement: [{ Effect: Nonsense }] } } }
  Alarm: { Type: AWS::CloudWatch::Alarm, Properties: { AlarmActions: [!Ref Told], AlarmName: !ImportValue x } }
  Board: { Type: AWS::CloudWatch::Dashboard, Properties: { DashboardBody: !Sub '{"x": "${Told.TopicName}", "y": "${!Kept}"}' } }
  Logs: { Type: AWS::Logs::LogGroup, Properties: { RetentionInDays: 7 } }
  Invoke: { Type: AWS::Lambda::Permission, Properties: { FunctionName: !Ref F } }
  Mapping: { Type: AWS::Lambda::EventSourceMapping }
  Policy:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      PolicyDocument: { Statement: { Effect: Allow, Action: sns:Publish, Resource: !Ref Told, Condition: { Bool: { "aws:SecureTransport": true } } } }
  F:
    Type: AWS::Serverless::Function
    Properties:
      LoggingConfig: { LogGroup: !Ref Logs }
      Policies: [!Ref Policy, AWSXRayDaemonWriteAccess, { Statement: [{ Effect: Allow, Action: "s3:*", Resource: "*" }] }]
      Environment:
        Variables:
          TOPIC: !If [B, !Ref Told, none]
          NUMBER: !FindInMap [M, !Select [0, !Split [",", "k,l"]], n]
          JOINED: !Join ["-", [a, !Sub ["${x}/${AWS::Region}", { x: !GetAtt Told.TopicName }]]]
"#;
    let template = Template::read(text, &BTreeMap::new(), ENDPOINT).unwrap();
    let function = &template.functions["F"];
    assert_eq!(function.statements.len(), 2);
    assert_eq!(function.environment["TOPIC"], template.topics["Told"].arn);
    assert_eq!(function.environment["NUMBER"], "7");
    assert_eq!(function.environment["JOINED"], "a-gantry-Told/us-east-1");
    let foreign = text.replace("!Ref Policy,", "arn:aws:iam::aws:policy/AdministratorAccess,");
    let error = Template::read(&foreign, &BTreeMap::new(), ENDPOINT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the resource F of the template asks for the policy arn:aws:iam::aws:policy/AdministratorAccess, which the embedded AWS does not have"
    );
}

#[test]
fn a_role_of_its_own_takes_the_place_of_the_policies() {
    let text = r#"
Resources:
  Told: { Type: AWS::SNS::Topic }
  Shared: { Type: AWS::IAM::ManagedPolicy, Properties: { PolicyDocument: { Statement: { Effect: Allow, Action: sns:Publish, Resource: !Ref Told } } } }
  People:
    Type: AWS::IAM::ManagedPolicy
    Properties: { PolicyDocument: { Statement: { Effect: Allow, Action: s3:GetObject, Resource: !Sub "arn:aws:s3:::b/${!aws:PrincipalTag/x}/*" } } }
  FRole:
    Type: AWS::IAM::Role
    Properties:
      ManagedPolicyArns: [!Ref Shared]
      Policies: [{ PolicyName: own, PolicyDocument: { Statement: [{ Effect: Allow, Action: "s3:*", Resource: "*" }] } }]
  F:
    Type: AWS::Serverless::Function
    Properties:
      Role: !GetAtt FRole.Arn
      Policies: [{ Statement: [{ Effect: Allow, Action: "*", Resource: "*" }] }]
      Events: { Queue: { Type: SQS, Properties: { Queue: q } } }
"#;
    let template = Template::read(text, &BTreeMap::new(), ENDPOINT).unwrap();
    // Neither what SAM would add for the queue, nor the policies that SAM leaves out beside a role.
    assert_eq!(template.functions["F"].statements.len(), 2);
    let peoples = text.replace("!Ref Shared", "!Ref People");
    let error = Template::read(&peoples, &BTreeMap::new(), ENDPOINT).unwrap_err();
    assert_eq!(error.to_string(), "a policy of the resource People of the template cannot be evaluated");
    let foreign = text.replace("!Ref Shared", "arn:aws:iam::aws:policy/AdministratorAccess");
    let error = Template::read(&foreign, &BTreeMap::new(), ENDPOINT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the resource F of the template asks for the policy arn:aws:iam::aws:policy/AdministratorAccess, which the embedded AWS does not have"
    );
}
