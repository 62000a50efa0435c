"""Deploys the real template, with the real functions, on an AWS that is not ours, and uses it.

    python3 tests/deployed/deploy.py FOLDER_OF_BINARIES

Needs ministack, aws-sam-translator, boto3 and awscli beside the interpreter. IAM is enforced for everything but the
registry's HTTP API. Ends only what it started.
"""

import hashlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

import boto3

ROOT = Path(__file__).resolve().parents[2]
BINARIES = {"ImportFunction": "import", "OnPushFunction": "on-push", "OnScanFunction": "on-scan", "ReconcileFunction": "reconcile"}
BEGIN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGIN:6.1f} s  {text}", flush=True)


class Aws:
    """A running ministack in a folder of its own, and clients of it."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder, self.endpoint = folder, f"http://127.0.0.1:{port}"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_PAGER": "",
        }
        settings = {
            "AUTH": "true", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0",
            "MINISTACK_REGION": "eu-central-1", "FINDINGS_FILE": str(folder / "findings.json"),
            # Its registry is not where its GetAuthorizationToken says. It hands its environment to the functions.
            "GANTRY_REGISTRY_ENDPOINT": self.endpoint,
        }
        self.log = open(folder / "ministack.log", "wb")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("aws.py"))], cwd=folder, env=self.environment | settings,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        self.wait_for("ministack answers", self.answers, 60)

    def answers(self):
        if self.process.poll() is not None:
            raise SystemExit((self.folder / "ministack.log").read_text()[-4000:])
        try:
            return urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2).status == 200
        except OSError:
            return False

    def client(self, service, **credentials):
        credentials = credentials or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name="eu-central-1", **credentials)

    def run(self, command, **more):
        """Runs a command of the shell, as a person would; its output."""
        done = subprocess.run(["sh", "-euc", command], env=self.environment, cwd=self.folder, text=True, capture_output=True, **more)
        if done.returncode:
            raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def wait_for(self, what, check, seconds=30):
        end = time.monotonic() + seconds
        while not (found := check()):
            if time.monotonic() > end:
                raise SystemExit(f"not in {seconds} s: {what}")
            time.sleep(0.1)
        return found

    def functions_said(self):
        """The log lines of all functions, but those at info."""
        logs, said = self.client("logs"), []
        for group in logs.describe_log_groups()["logGroups"]:
            events = logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
            said += [event["message"] for event in events if '"INFO"' not in event["message"]]
        return "\n".join(said)

    def stop(self):
        # Its own group: the functions are its children.
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


def tarball(seed, repository):
    """What `docker save` writes: one image of one layer, told apart by `seed`; and its layer's digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        content = (f"{seed}\n" * 100_000).encode()
        entry = tarfile.TarInfo("app")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    layer = layer.getvalue()
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "test"}],
    }).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{name}.json", "RepoTags": [f"{repository}:built"], "Layers": ["layer.tar"]}]).encode()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path, content in [("layer.tar", layer), (f"{name}.json", config), ("manifest.json", manifest)]:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue(), "sha256:" + name


class Stack:
    """The template, deployed under a name."""

    def __init__(self, aws, name, binaries):
        self.aws, self.name = aws, name
        self.cloudformation = aws.client("cloudformation")
        self.s3, self.iam, self.ecr = aws.client("s3"), aws.client("iam"), aws.client("ecr")
        self.outputs = {}
        template = (ROOT / "template.yaml").read_text()
        self.s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        for function, binary in BINARIES.items():
            package = io.BytesIO()
            with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
                archive.write(binaries / binary, "bootstrap")
            self.s3.put_object(Bucket="code", Key=f"{binary}.zip", Body=package.getvalue())
            # What `sam package` does: the folder becomes an object.
            before, after = template.split(f"  {function}:\n", 1)
            template = f"{before}  {function}:\n" + after.replace(f"CodeUri: functions/{binary}\n", f"CodeUri: s3://code/{binary}.zip\n", 1)
        self.s3.put_object(Bucket="code", Key="template.yaml", Body=template.encode())

    def deploy(self, create=True, **parameters):
        call = self.cloudformation.create_stack if create else self.cloudformation.update_stack
        call(
            StackName=self.name, TemplateURL=f"{self.aws.endpoint}/code/template.yaml", Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()])
        wanted = "CREATE_COMPLETE" if create else "UPDATE_COMPLETE"
        stack = self.aws.wait_for("the stack is done", self.done, 60)
        if stack["StackStatus"] != wanted:
            events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
            reasons = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in events if "FAILED" in event["ResourceStatus"]]
            raise SystemExit("\n".join([stack["StackStatus"], *reasons]))
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def done(self):
        stack = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]
        return None if stack["StackStatus"].endswith("IN_PROGRESS") else stack

    def physical(self, logical):
        resource = self.cloudformation.describe_stack_resource(StackName=self.name, LogicalResourceId=logical)
        return resource["StackResourceDetail"]["PhysicalResourceId"]

    def receipt(self, key):
        try:
            return json.load(self.s3.get_object(Bucket=self.outputs["UploadBucket"], Key=f"{key}.receipt.json")["Body"])
        except self.s3.exceptions.NoSuchKey:
            return None

    def upload(self, key, body):
        """As the output of the stack says; the receipt, and how gantry-wait ended."""
        (self.aws.folder / "my-app.tar").write_bytes(body)
        command = self.outputs["Upload"].replace("team/my-app/1.4.2.tar", key)
        command = command.replace("gantry-wait", str(ROOT / "docs" / "gantry-wait")) + " 30"
        done = subprocess.run(["sh", "-c", command], env=self.aws.environment, cwd=self.aws.folder, text=True, capture_output=True)
        # Its events name no version, so neither do receipts, and gantry-wait prints only the state.
        if done.returncode not in (0, 1):
            raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.receipt(key)}")
        return self.receipt(key), done.returncode

    def tags(self, key):
        found = self.s3.get_object_tagging(Bucket=self.outputs["UploadBucket"], Key=key)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in found}


def check(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, wanted {wanted!r}")
    say(f"ok    {what}")


def refused(what, call):
    """A call that has to end in AccessDenied."""
    try:
        call()
    except Exception as error:  # botocore makes its classes as it goes
        code = getattr(error, "response", {}).get("Error", {}).get("Code", str(error))
        return check(what, code in ("AccessDenied", "AccessDeniedException"), True)
    raise SystemExit(f"{what}: it was allowed")


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


def scenario(aws, binaries):
    machine = "arm64" if os.uname().machine in ("aarch64", "arm64") else "x86_64"
    before = left(aws)
    stack = Stack(aws, "images", binaries)
    before["buckets"] = ["code"]
    usual = {"Architecture": machine, "UploadFolder": "crew"}
    stack.deploy(**usual)
    say(f"ok    deployed, {len(stack.cloudformation.describe_stack_resources(StackName='images')['StackResources'])} resources")
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
    found = stack.ecr.describe_images(repositoryName="team/my-app", imageIds=[{"imageDigest": image["digest"]}])["imageDetails"][0]
    # It knows no exclusions from immutability, so latest stays where it is not.
    check("ECR has it under its tag", found["imageTags"], ["1.4.2"])
    repository = stack.ecr.describe_repositories(repositoryNames=["team/my-app"])["repositories"][0]
    mark = stack.ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
    check("the repository is the stack's", {tag["Key"]: tag["Value"] for tag in mark}["gantry:stack"], "images")
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
        return [line for line in map(json.loads, lines) if line["Imports"] == 1 and line["stack"] == "images"]

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
    uploader.put_object(Bucket=uploads, Key="crew/app/1.0.0.tar", Body=tarball(2, "app")[0])
    aws.wait_for("an uploader's image is released", lambda: (stack.receipt("crew/app/1.0.0.tar") or {}).get("state") == "released")
    check("an uploader reads the receipt", json.load(uploader.get_object(Bucket=uploads, Key="crew/app/1.0.0.tar.receipt.json")["Body"])["state"], "released")
    refused("an uploader writes in no other folder", lambda: uploader.put_object(Bucket=uploads, Key="team/app/1.tar", Body=b""))
    refused("an uploader writes no receipt", lambda: uploader.put_object(Bucket=uploads, Key="crew/app/1.0.0.tar.receipt.json", Body=b"{}"))
    refused("a judge uploads nothing", lambda: judge.put_object(Bucket=uploads, Key="crew/app/1.tar", Body=b""))
    refused("a judge writes no record", lambda: judge.put_object(Bucket=state, Key="images/x.json", Body=b"{}"))
    refused("not even an administrator writes a receipt", lambda: chief.put_object(Bucket=uploads, Key="crew/app/1.0.0.tar.receipt.json", Body=b"{}"))
    refused("not even an administrator writes a record", lambda: chief.put_object(Bucket=state, Key="images/x.json", Body=b"{}"))

    # Another setting, over what is there: releases wait for the scan.
    stack.deploy(create=False, **usual, ReleaseGate="scan")
    judge.put_object(Bucket=state, Key="policy.toml", Body=b'max_severity = "low"\n')
    (aws.folder / "findings.json").write_text(json.dumps({"team/holes": ["HIGH"]}))
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

    # As docs/install.md has it.
    sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sqs.delete_queue(QueueUrl=listener)
    for name in ("uploader", "judge", "chief"):
        for attached in stack.iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
            stack.iam.detach_user_policy(UserName=name, PolicyArn=attached["PolicyArn"])
    uninstall, remove_the_rest = blocks("install.md", "Uninstall")
    names = {"STACK": "images", "UPLOADS": uploads, "STATE": state}
    prelude = "".join(f"{key}={shlex.quote(value)}\n" for key, value in names.items())
    aws.run(prelude + uninstall)
    after = left(aws)
    expected = dict(before, buckets=sorted(["code", uploads, state]), repositories=["crew/app", "team/holes", "team/my-app", "team/new"])
    check("uninstalled, only buckets and repositories are left", after, expected)
    stack.deploy(**usual)
    receipt, code = stack.upload("team/again/1.0.0.tar", tarball(6, "again")[0])
    check("the same name deploys again and works", (receipt["state"], code), ("released", 0))
    again = {"STACK": "images", "UPLOADS": stack.outputs["UploadBucket"], "STATE": stack.outputs["StateBucket"]}
    aws.run("".join(f"{key}={shlex.quote(value)}\n" for key, value in again.items()) + uninstall)
    for each in (again, names):
        aws.run("".join(f"{key}={shlex.quote(value)}\n" for key, value in each.items()) + remove_the_rest)
    check("and with the rest removed nothing is", left(aws), before)


def main():
    binaries = Path(sys.argv[1]).resolve()
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory(prefix="gantry-deployed-") as folder:
        aws = Aws(Path(folder))
        try:
            scenario(aws, binaries)
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
