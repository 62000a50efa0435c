"""A ministack that runs, and the template deployed on it under a name; what checks of it are written with."""

import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
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

    def __init__(self, aws, name):
        self.aws, self.name = aws, name
        self.cloudformation = aws.client("cloudformation")
        self.s3, self.iam, self.ecr = aws.client("s3"), aws.client("iam"), aws.client("ecr")
        self.outputs = {}
        self.s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def package(self, template, binaries):
        """Puts a release where CloudFormation finds it."""
        template = template.read_text()
        for function, binary in BINARIES.items():
            package = io.BytesIO()
            with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
                # As cargo names them, or as `sam build` lays them out.
                built = binaries / function / "bootstrap"
                archive.write(built if built.exists() else binaries / binary, "bootstrap")
            self.s3.put_object(Bucket="code", Key=f"{binary}.zip", Body=package.getvalue())
            # What `sam package` does: the folder becomes an object.
            before, after = template.split(f"  {function}:\n", 1)
            template = f"{before}  {function}:\n" + re.sub(r"CodeUri: \S+", f"CodeUri: s3://code/{binary}.zip", after, count=1)
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
