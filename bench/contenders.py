"""Who is compared: what each needs around it, and how it takes one archive into a registry.

A contender's `stage` is a context that gives an object with two methods: `put` brings an archive to where the contender
reads it, which is not measured, and `take` brings it from there into the registry, which is. Without a `registry` that
is the embedded one, of which the object has the `address` and a `login`.
"""

import contextlib
import json
import os
import subprocess
import time

import aws
import function
from process import Failure

REPOSITORY = "bench/debian"


class Gantry:
    """The import function's own process; S3 is the embedded one, with an empty ledger."""

    def __init__(self, name, settings, prefix=()):
        self.name, self.settings, self.prefix = name, settings, prefix

    @contextlib.contextmanager
    def stage(self, tools, folder, registry=None, relayed=None):
        with aws.embedded(tools["gantry"], folder) as endpoint, contextlib.ExitStack() as stack:
            own = endpoint.removeprefix("http://")
            target = registry or own
            seen, behind = endpoint, target
            if relayed:
                # The function sees relays; uploads go past them.
                seen, behind = stack.enter_context(relayed(own, target))
                seen = f"http://{seen}"
            variables = function.environment(tools["template"], endpoint, f"http://{behind}", self.settings)
            variables |= {"AWS_ENDPOINT_URL": seen}
            process = stack.enter_context(function.running(tools["import"], variables, folder, self.prefix))

            class Stage:
                cold_start_s, address = process.cold_start_s, target
                login = None if registry else aws.login(endpoint)

                def put(self, archive, tag):
                    return aws.upload(endpoint, f"{REPOSITORY}/{tag}.tar", archive)

                def take(self, event, _tag):
                    log = folder / "function.log"
                    before = log.stat().st_size
                    try:
                        return process.invoke(event) | _spent(log, before)
                    except Failure as failure:
                        words = log.read_text(errors="replace")[-2000:]
                        raise Failure(f"{failure}\nthe end of the function's log:\n{words}") from failure

            yield Stage()


def _spent(log, start):
    """Where the time of the layers went, summed, as the function's log says it from the offset `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        records = [json.loads(line) for line in file if b'"layer sent"' in line]
    if not records:
        return {}
    names = ("hash_ms", "compress_ms", "read_ms", "wait_ms", "send_ms")
    return {"spent_s": {name.removesuffix("_ms"): sum(record[name] for record in records) / 1000 for name in names}}


def _embedded(endpoint):
    """The embedded registry's address and a login, for those that do not make the repository themselves."""
    aws.create_repository(endpoint, REPOSITORY)
    return endpoint.removeprefix("http://"), aws.login(endpoint)


class Cdk:
    """The function of AWS's cdk-ecr-deployment, on the same S3, as CloudFormation would invoke it."""

    name = "cdk-ecr-deployment"

    @contextlib.contextmanager
    def stage(self, tools, folder, registry=None):
        with aws.embedded(tools["gantry"], folder) as endpoint:
            target, credentials = (registry, None) if registry else _embedded(endpoint)
            insecure = folder / "registries.conf"
            insecure.write_text(f'[[registry]]\nlocation = "{target}"\ninsecure = true\n')
            variables = {
                "AWS_ACCESS_KEY_ID": aws.KEY_ID,
                "AWS_SECRET_ACCESS_KEY": aws.SECRET,
                "AWS_REGION": aws.REGION,
                "AWS_ENDPOINT_URL_S3": endpoint,
                "AWS_LAMBDA_FUNCTION_NAME": "cdk",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008",
                "CONTAINERS_REGISTRIES_CONF": str(insecure),
                "HOME": str(folder),
                "TMPDIR": str(folder),
                "PATH": os.defpath,
            }
            with function.running(tools["cdk"], variables, folder) as process:

                class Stage:
                    cold_start_s, address, login = process.cold_start_s, target, credentials

                    def put(self, archive, tag):
                        aws.upload(endpoint, f"{REPOSITORY}/{tag}.tar", archive)
                        return f"s3://{aws.BUCKET}/{REPOSITORY}/{tag}.tar"

                    def take(self, source, tag):
                        to = f"docker://{target}/{REPOSITORY}:{tag}"
                        sample = process.invoke(_custom_resource(source, to, self.login, process.api.address))
                        answer = json.loads(process.api.put.pop())
                        if answer["Status"] != "SUCCESS":
                            raise Failure(f"cdk-ecr-deployment: {answer.get('Reason')}")
                        return sample

                yield Stage()


def _custom_resource(source, to, login, answer_to):
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html"""
    return {
        "RequestType": "Create",
        "ResponseURL": f"http://{answer_to}/answer",
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/bench/1",
        "RequestId": "1",
        "ResourceType": "Custom::CDKECRDeployment",
        "LogicalResourceId": "Bench",
        "ResourceProperties": {"SrcImage": source, "DestImage": to} | ({"DestCreds": login} if login else {}),
    }


class Skopeo:
    """One `skopeo copy` from the file; memory and CPU are what the kernel says of it when it has ended."""

    name = "skopeo"

    @contextlib.contextmanager
    def stage(self, tools, folder, registry=None):
        with contextlib.ExitStack() as stack:
            target, credentials = registry, None
            if not registry:
                target, credentials = _embedded(stack.enter_context(aws.embedded(tools["gantry"], folder)))

            class Stage:
                address, login = target, credentials

                def put(self, archive, _tag):
                    with archive.open("rb") as file:
                        while file.read(1 << 20):  # into the page cache, where uploads are too
                            pass
                    return archive

                def take(self, archive, tag):
                    kind = "oci-archive" if archive.name.startswith("oci") else "docker-archive"
                    command = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
                    command += ["--dest-creds", credentials] if credentials else []
                    command += [f"{kind}:{archive}", f"docker://{target}/{REPOSITORY}:{tag}"]
                    return _measured(command, folder / "skopeo.log")

            yield Stage()


def _measured(command, log):
    """Runs a command to its end; wall and CPU seconds, and the peak of its memory."""
    with log.open("wb") as text:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=text, stderr=text)
        _pid, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        words = log.read_text(errors="replace")[-500:]
        raise Failure(f"{command[0]} ended with {process.returncode}: {words}")
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


class Once:
    """What no importer can undercut: each blob of an OCI archive read from S3, hashed, and written, once."""

    name = "read, hash, write once"

    @contextlib.contextmanager
    def stage(self, tools, folder, registry):
        with aws.embedded(tools["gantry"], folder) as endpoint:

            class Stage:
                def put(self, archive, tag):
                    aws.upload(endpoint, f"{REPOSITORY}/{tag}.tar", archive)
                    return archive

                def take(self, archive, tag):
                    return aws.copy_blobs(endpoint, f"{REPOSITORY}/{tag}.tar", archive, registry, REPOSITORY)

            yield Stage()
