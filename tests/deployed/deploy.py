"""Deploys the real template, with the real functions, on an AWS that is not ours, and uses it.

    python3 tests/deployed/deploy.py FOLDER_OF_BINARIES [--stack NAME] [--set PARAMETER=VALUE]... [--own-key] [--previous FOLDER]

`--own-key` makes a KMS key and gives it as Encryption; `--previous` deploys another release first, whose template.yaml
and binaries are in that folder (previous.py makes one).
Needs ministack, aws-sam-translator, boto3 and awscli beside the interpreter. IAM is enforced for everything but the
registry's HTTP API. Ends only what it started.
"""

import argparse
import json
import os
import re
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import pages
from stack import ROOT, Aws, Stack, check, refused, say, tarball


def refused_by_rule(stack, usual):
    """Parameters that contradict each other change nothing."""
    def contradiction():
        stack.deploy(create=False, **usual, TagMutability="immutable")
    try:
        contradiction()
    except (SystemExit, stack.cloudformation.exceptions.ClientError) as error:
        return check("floating tags that cannot move are not deployed", "immutable-except" in str(error), True)
    raise SystemExit("TagMutability=immutable was deployed with floating tags")


def blocks(page, heading):
    """The shell blocks below a heading of a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    section = re.split(rf"(?m)^## {re.escape(heading)}$", text)[1]
    section = re.split(r"(?m)^## ", section)[0]
    return re.findall(r"```sh\n(.*?)```", section, re.S)


def left(aws):
    """Everything in the account that a stack could have made, by kind."""
    logs, events, cloudwatch, functions = (aws.client(name) for name in ("logs", "events", "cloudwatch", "lambda"))
    iam, sqs, sns, s3, ecr = (aws.client(name) for name in ("iam", "sqs", "sns", "s3", "ecr"))
    found = {
        "buckets": [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]],
        "repositories": [one["repositoryName"] for one in ecr.describe_repositories()["repositories"]],
        "roles": [role["RoleName"] for role in iam.list_roles()["Roles"]],
        "policies": [policy["PolicyName"] for policy in iam.list_policies(Scope="Local")["Policies"]],
        "queues": sqs.list_queues().get("QueueUrls", []),
        "topics": [topic["TopicArn"] for topic in sns.list_topics()["Topics"]],
        "rules": [rule["Name"] for rule in events.list_rules()["Rules"]],
        "functions": [one["FunctionName"] for one in functions.list_functions()["Functions"]],
        "event sources": [one["UUID"] for one in functions.list_event_source_mappings()["EventSourceMappings"]],
        "log groups": [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]],
        "alarms": [alarm["AlarmName"] for alarm in cloudwatch.describe_alarms()["MetricAlarms"]],
        "dashboards": [one["DashboardName"] for one in cloudwatch.list_dashboards()["DashboardEntries"]],
    }
    return {kind: sorted(names) for kind, names in found.items() if names}


def table(page, name):
    """The rules and names of a table of Rust: `("Rule", &["name", …])`."""
    text = (ROOT / page).read_text()
    text = text[text.index(f"const {name}"):]
    found = re.findall(r'\(\s*"(\w+)",\s*&\[(.*?)\],?\s*\)', text[:text.index("\n];")], re.S)
    return {rule: sorted(re.findall(r'"([^"]+)"', names)) for rule, names in found}


def patterns(stack, prefix):
    """Another engine's answers about each rule and each sample that comes over the bus."""
    events, found = stack.aws.client("events"), {}
    samples = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "events" / "in").glob("*.json"))}
    samples = {name: sample for name, sample in samples.items() if "source" in sample}
    wanted = table("tests/template/delivery.rs", "SAMPLES")
    # The samples are of other names than the deployed ones.
    account = stack.aws.client("sts").get_caller_identity()["Account"]
    names = {stack.outputs["UploadBucket"]: "uploads", stack.outputs["StateBucket"]: "state", f":eu-central-1:{account}:": ":us-east-1:123456789012:"}
    names |= {f'"{stack.name}"': '"gantry"'} | ({prefix: "team/"} if prefix else {})
    for rule in wanted:
        pattern = events.describe_rule(Name=stack.physical(rule).rpartition("/")[2])["EventPattern"]
        pattern = json.dumps(json.loads(pattern))
        for deployed, sampled in names.items():
            pattern = pattern.replace(deployed, sampled)
        matches = [name for name, sample in samples.items() if events.test_event_pattern(EventPattern=pattern, Event=json.dumps(sample))["Result"]]
        found[rule] = sorted(matches)
    check(f"each rule takes its own of {len(samples)} samples and no other", found, wanted)


def upgrade(stack, previous, parameters):
    """The previous release, an upload, and this one over it."""
    stack.package(previous / "template.yaml", previous)
    known = re.findall(r"(?m)^  (\w+):$", (previous / "template.yaml").read_text())
    stack.deploy(**{name: value for name, value in parameters.items() if name in known})
    body, _ = tarball(7, "kept")
    receipt, code = stack.upload("team/kept/1.0.0.tar", body)
    check("the previous release imports", (receipt["state"], code), ("released", 0))
    was = stack.outputs["UploadBucket"], receipt["import"]["images"][0]["digest"]
    return body, was


def scenario(aws, binaries, arguments):
    machine = "arm64" if os.uname().machine in ("aarch64", "arm64") else "x86_64"
    before = left(aws)
    stack = Stack(aws, arguments.stack)
    before["buckets"] = ["code"]
    usual = {"Architecture": machine, "UploadFolder": "crew"} | dict(one.split("=", 1) for one in arguments.set)
    prefix, folder = usual.get("RepositoryPrefix", ""), usual["UploadFolder"]
    if arguments.own_key:
        usual["Encryption"] = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    repositories = [f"{prefix}{name}" for name in (f"{folder}/app", "team/holes", "team/my-app", "team/new")]
    if arguments.previous:
        body, was = upgrade(stack, arguments.previous, usual)
        repositories.append(f"{prefix}team/kept")
    stack.package(ROOT / "template.yaml", binaries)
    stack.deploy(create=not arguments.previous, **usual)
    say(f"ok    deployed, {len(stack.cloudformation.describe_stack_resources(StackName=stack.name)['StackResources'])} resources")
    if arguments.previous:
        receipt, code = stack.upload("team/kept/1.0.0.tar", body)
        [image] = receipt["import"]["images"]
        check("upgraded, the same tarball sends nothing", (receipt["state"], code, image["unchanged"]), ("released", 0, True))
        check("upgraded, bucket and image are the same", (stack.outputs["UploadBucket"], image["digest"]), was)
        receipt, code = stack.upload("team/kept/1.1.0.tar", tarball(8, "kept")[0])
        check("upgraded, another tarball is released", (receipt["state"], code), ("released", 0))
    refused_by_rule(stack, usual)
    patterns(stack, prefix)
    uploads, state = stack.outputs["UploadBucket"], stack.outputs["StateBucket"]
    sqs, sns = aws.client("sqs"), aws.client("sns")
    listener = sqs.create_queue(QueueName="listener")["QueueUrl"]
    listener_arn = sqs.get_queue_attributes(QueueUrl=listener, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": listener_arn}
    sqs.set_queue_attributes(QueueUrl=listener, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allowed]})})
    subscription = sns.subscribe(TopicArn=stack.outputs["Topic"], Protocol="sqs", Endpoint=listener_arn, Attributes={"RawMessageDelivery": "true"})

    def waiting(logical):
        attributes = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=stack.physical(logical), AttributeNames=attributes)["Attributes"]
        return sum(map(int, found.values()))

    body, image_id = tarball(1, "my-app")
    receipt, code = stack.upload("team/my-app/1.4.2.tar", body)
    check("an upload is released", (receipt["state"], code), ("released", 0))
    [image] = receipt["import"]["images"]
    tags = stack.tags("team/my-app/1.4.2.tar")
    check("its object says so", tags, {"gantry": "released", "gantry-digest": image["digest"]})
    check("the image's ID is the tarball's", image["image_id"], image_id)
    found = stack.ecr.describe_images(repositoryName=f"{prefix}team/my-app", imageIds=[{"imageDigest": image["digest"]}])["imageDetails"][0]
    # It knows no exclusions from immutability, so latest stays where it is not.
    check("ECR has it under its tag", found["imageTags"], ["1.4.2"])
    repository = stack.ecr.describe_repositories(repositoryNames=[f"{prefix}team/my-app"])["repositories"][0]
    mark = stack.ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
    check("the repository is the stack's", {tag["Key"]: tag["Value"] for tag in mark}["gantry:stack"], stack.name)
    wanted = {"encryptionType": "KMS", "kmsKey": usual["Encryption"]} if arguments.own_key else {"encryptionType": "AES256"}
    check("it is encrypted as the parameter says", repository["encryptionConfiguration"], wanted)
    rules = json.loads(stack.ecr.get_lifecycle_policy(repositoryName=f"{prefix}team/my-app")["lifecyclePolicyText"])["rules"]
    kept = [rule["selection"]["countNumber"] for rule in rules if rule["selection"].get("tagPatternList") == ["*"]]
    # The previous release, which made the repository, may not have known the parameter; settings are not changed later.
    keep = "all" if arguments.previous else usual.get("KeepReleases", "all")
    check("releases expire only if the parameter says so", kept, [] if keep == "all" else [int(keep)])
    told = set()

    def heard():
        for message in sqs.receive_message(QueueUrl=listener, MaxNumberOfMessages=10).get("Messages", []):
            told.add(json.loads(message["Body"])["detail-type"])
        return {"Image Imported", "Image Released"} <= told

    aws.wait_for("the topic tells of it", heard)
    say("ok    the topic tells of it")
    aws.wait_for("the queues are empty", lambda: not any(waiting(queue) for queue in ("ImportQueue", "PushQueue", "ScanQueue", "FailedMessages", "UndeliveredEvents")))
    say("ok    the queues are empty, those of the dead too")
    logs = aws.client("logs")

    def counted():
        group = stack.physical("ImportLogs")
        lines = [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"] if '"_aws"' in event["message"]]
        return [line for line in map(json.loads, lines) if line["Imports"] == 1 and line["stack"] == stack.name]

    aws.wait_for("the log has its line of metrics", counted)
    say("ok    the log has its line of metrics")
    receipt, code = stack.upload("team/my-app/broken.tar", b"no archive")
    check("what is no archive is refused", (receipt["state"], code), ("failed", 1))

    # What people may do.
    def user(name, policies):
        stack.iam.create_user(UserName=name)
        for policy in policies:
            stack.iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = stack.iam.create_access_key(UserName=name)["AccessKey"]
        return aws.client("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])

    uploader = user("uploader", [stack.outputs["UploaderPolicyArn"]])
    judge = user("judge", [stack.outputs["PolicyAdministratorPolicyArn"]])
    chief = user("chief", ["arn:aws:iam::aws:policy/AdministratorAccess"])
    uploader.put_object(Bucket=uploads, Key=f"{folder}/app/1.0.0.tar", Body=tarball(2, "app")[0])
    aws.wait_for("an uploader's image is released", lambda: (stack.receipt(f"{folder}/app/1.0.0.tar") or {}).get("state") == "released")
    check("an uploader reads the receipt", json.load(uploader.get_object(Bucket=uploads, Key=f"{folder}/app/1.0.0.tar.receipt.json")["Body"])["state"], "released")
    refused("an uploader writes in no other folder", lambda: uploader.put_object(Bucket=uploads, Key="team/app/1.tar", Body=b""))
    refused("an uploader writes no receipt", lambda: uploader.put_object(Bucket=uploads, Key=f"{folder}/app/1.0.0.tar.receipt.json", Body=b"{}"))
    refused("a judge uploads nothing", lambda: judge.put_object(Bucket=uploads, Key=f"{folder}/app/1.tar", Body=b""))
    refused("a judge writes no record", lambda: judge.put_object(Bucket=state, Key="images/x.json", Body=b"{}"))
    refused("not even an administrator writes a receipt", lambda: chief.put_object(Bucket=uploads, Key=f"{folder}/app/1.0.0.tar.receipt.json", Body=b"{}"))
    refused("not even an administrator writes a record", lambda: chief.put_object(Bucket=state, Key="images/x.json", Body=b"{}"))

    # Another setting, over what is there: releases wait for the scan.
    stack.deploy(create=False, **usual, ReleaseGate="scan")
    judge.put_object(Bucket=state, Key="policy.toml", Body=b'max_severity = "low"\n')
    (aws.folder / "findings.json").write_text(json.dumps({f"{prefix}team/holes": ["HIGH"]}))
    receipt, code = stack.upload("team/holes/1.0.0.tar", tarball(3, "holes")[0])
    check("after an update, what the policy forbids is held", (receipt["state"], code), ("held", 1))
    receipt, code = stack.upload("team/my-app/1.5.0.tar", tarball(4, "my-app")[0])
    check("after an update, what it allows is released", (receipt["state"], code), ("released", 0))
    receipt, code = stack.upload("team/my-app/1.5.0.tar", tarball(4, "my-app")[0])
    check("the same again changes nothing", (receipt["state"], code, receipt["import"]["images"][0]["unchanged"]), ("released", 0, True))

    # One right less, one word more in the receipt.
    role = stack.physical("ImportFunctionRole")
    policy = stack.iam.get_role_policy(RoleName=role, PolicyName="import")["PolicyDocument"]
    policy = policy if isinstance(policy, dict) else json.loads(policy)
    less = json.loads(json.dumps(policy))
    for statement in less["Statement"]:
        if isinstance(statement["Action"], list) and "ecr:CreateRepository" in statement["Action"]:
            statement["Action"].remove("ecr:CreateRepository")
    stack.iam.put_role_policy(RoleName=role, PolicyName="import", PolicyDocument=json.dumps(less))
    stack.s3.put_object(Bucket=uploads, Key="team/new/1.0.0.tar", Body=tarball(5, "new")[0])
    reason = aws.wait_for("the receipt gives a reason", lambda: (stack.receipt("team/new/1.0.0.tar") or {}).get("import", {}).get("reason"))
    check("a missing right is the operator's matter", reason["kind"], "operator")
    check("and is named in the receipt", "ecr:CreateRepository" in reason["text"] + reason["fix"], True)
    stack.iam.put_role_policy(RoleName=role, PolicyName="import", PolicyDocument=json.dumps(policy))
    aws.wait_for("given back, the import goes on by itself", lambda: stack.receipt("team/new/1.0.0.tar")["state"] == "released", 60)
    say("ok    given back, the import goes on by itself")

    # What the pages show, as it stands there.
    (aws.folder / "my-app.tar").write_bytes(tarball(1, "my-app")[0])
    adopted = stack.ecr.create_repository(repositoryName=f"{prefix}team/adopted")["repository"]
    repositories.append(adopted["repositoryName"])
    shown = {
        "STACK": stack.name, "UPLOADS": uploads, "STATE": state, "TOPIC": stack.outputs["Topic"], "ACCOUNT": adopted["registryId"],
        "REPOSITORY": adopted["repositoryName"], "REPOSITORY_ARN": adopted["repositoryArn"],
    }
    stack.s3.delete_object(Bucket=state, Key="policy.toml")
    say(f"ok    {pages.run(aws, shown)} blocks of the documentation run as they stand, the others are listed with a reason")
    check("the adopted repository takes uploads", stack.upload("team/adopted/1.0.0.tar", tarball(10, "adopted")[0])[1], 0)
    events = aws.client("events")
    events.remove_targets(Rule="deploy-my-app", Ids=["deploy"])
    events.delete_rule(Name="deploy-my-app")
    for one in sns.list_subscriptions_by_topic(TopicArn=stack.outputs["Topic"])["Subscriptions"]:
        if one["Protocol"] == "email":
            sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])

    # As docs/install.md has it.
    sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sqs.delete_queue(QueueUrl=listener)
    for name in ("uploader", "judge", "chief"):
        for attached in stack.iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
            stack.iam.detach_user_policy(UserName=name, PolicyArn=attached["PolicyArn"])
    uninstall, remove_the_rest = blocks("install.md", "Uninstall")
    names = {"STACK": stack.name, "UPLOADS": uploads, "STATE": state}
    prelude = "".join(f"{key}={shlex.quote(value)}\n" for key, value in names.items())
    aws.run(prelude + uninstall)
    after = left(aws)
    expected = dict(before, buckets=sorted(["code", uploads, state]), repositories=sorted(repositories))
    check("uninstalled, only buckets and repositories are left", after, expected)
    stack.deploy(**usual)
    receipt, code = stack.upload("team/again/1.0.0.tar", tarball(6, "again")[0])
    check("the same name deploys again and works", (receipt["state"], code), ("released", 0))
    again = {"STACK": stack.name, "UPLOADS": stack.outputs["UploadBucket"], "STATE": stack.outputs["StateBucket"]}
    aws.run("".join(f"{key}={shlex.quote(value)}\n" for key, value in again.items()) + uninstall)
    for each in (again, names):
        aws.run("".join(f"{key}={shlex.quote(value)}\n" for key, value in each.items()) + remove_the_rest)
    check("and with the rest removed nothing is", left(aws), before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=Path)
    parser.add_argument("--stack", default="images")
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE")
    parser.add_argument("--own-key", action="store_true")
    parser.add_argument("--previous", type=Path)
    arguments = parser.parse_args()
    binaries = arguments.binaries.resolve()
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory(prefix="gantry-deployed-") as folder:
        aws = Aws(Path(folder))
        try:
            scenario(aws, binaries, arguments)
        except BaseException:
            print(aws.functions_said()[-3000:], file=sys.stderr)
            lines = (Path(folder) / "ministack.log").read_text(errors="replace").splitlines()
            print("\n".join(line[:400] for line in lines if "ERROR" in line or "WARN" in line)[-6000:], file=sys.stderr)
            raise
        finally:
            aws.stop()
    say("checked the template deployed")


if __name__ == "__main__":
    main()
