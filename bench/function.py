"""A function's own process under a small Runtime API host, as Lambda runs it, and what its work cost."""

import contextlib
import json
import os
import queue
import re
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from process import Failure, Service

TIMEOUT_S = 900
REQUEST_ID = "00000000-0000-4000-8000-000000000001"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, _request, _address):
        """The function's end resets its connections; what else breaks off is told by the answer that is missing."""


class RuntimeApi:
    """The part of the Runtime API that gives invocations and takes their answers; a PUT is taken too, since functions
    behind CloudFormation answer with one.

    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """

    def __init__(self):
        self.asked = threading.Event()
        self.asked_at = None
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.put = []
        self.server = _Server(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_failure):
        self.server.shutdown()
        self.server.server_close()

    def invoke(self, event, service):
        """Sends `event`; returns the seconds until the answer. An error the function answers with is a `Failure`."""
        started = time.perf_counter()
        self.events.put(json.dumps(event).encode())
        while True:
            try:
                kind, body, answered = self.answers.get(timeout=1)
            except queue.Empty:
                if service.process.poll() is not None:
                    raise Failure(f"the function's process ended: {service.last_words()}") from None
                if time.perf_counter() - started > TIMEOUT_S:
                    raise Failure(f"the function did not answer within {TIMEOUT_S} s") from None
                continue
            if kind != "response":
                raise Failure(f"the function answered {kind}: {body.decode(errors='replace')[:1000]}")
            return answered - started

    def _handler(api):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                if not api.asked.is_set():
                    api.asked_at = time.perf_counter()
                    api.asked.set()
                event = api.events.get()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(event)))
                self.send_header("Lambda-Runtime-Aws-Request-Id", REQUEST_ID)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + TIMEOUT_S) * 1000)))
                arn = "arn:aws:lambda:us-east-1:123456789012:function:import"
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
                self.send_header("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000;Sampled=0")
                self.end_headers()
                self.wfile.write(event)

            def do_POST(self):
                body = self._body()
                answered = time.perf_counter()
                kind = re.sub(r"^/2018-06-01/runtime/(invocation/[^/]+/)?", "", self.path)
                api.answers.put((kind, body, answered))
                self._done(202)

            def do_PUT(self):
                api.put.append(self._body())
                self._done(200)

            def _done(self, status):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while length := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_args):
                pass

        return Handler


class Function:
    """A function's process that has asked for work."""

    def __init__(self, api, service, cold_start_s):
        self.api, self.service, self.cold_start_s = api, service, cold_start_s

    def invoke(self, event):
        """One invocation: wall and CPU seconds, and the peak of the process's memory so far."""
        before = self._cpu_s()
        wall_s = self.api.invoke(event, self.service)
        proc = Path(f"/proc/{self.service.process.pid}")
        [peak_kib] = re.findall(r"^VmHWM:\s+(\d+) kB$", (proc / "status").read_text(), re.MULTILINE)
        return {"wall_s": wall_s, "cpu_s": self._cpu_s() - before, "peak_mib": int(peak_kib) / 1024}

    def _cpu_s(self):
        # The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields after it.
        fields = Path(f"/proc/{self.service.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(binary, environment, folder, prefix=()):
    """Runs a function's process while the `with` block does; `environment` may depend on the host's address."""
    with RuntimeApi() as api, Service() as service:
        environment = environment | {"AWS_LAMBDA_RUNTIME_API": api.address}
        started = time.perf_counter()
        service.start([*prefix, binary], folder / "function.log", environment)
        if not service.wait_for(api.asked.is_set) and not api.asked.is_set():
            raise Failure(f"the function did not start: {service.last_words()}")
        yield Function(api, service, api.asked_at - started)


def environment(template, endpoint, registry, settings):
    """What Lambda and `template.yaml` set, with every parameter but `settings` at its default; both endpoints here."""
    text = template.read_text()
    parameters = text.partition("\nParameters:")[2].partition("\nMappings:")[0]
    defaults = dict(re.findall(r"^  (\w+):\n(?:    .*\n)*?    Default: (.*)$", parameters, re.MULTILINE)) | settings
    with urllib.request.urlopen(f"{endpoint}/_emulator/stack") as answer:
        stack = json.load(answer)
    defaults |= {"AWS::StackName": "gantry", "State": stack["buckets"]["State"], "Uploads": stack["buckets"]["Uploads"]}
    defaults |= {"Arn": "arn:aws:sqs:us-east-1:123456789012:failed-messages", "Topic": stack["topics"]["Topic"]}
    defaults |= stack["queues"] | dict(re.findall(r'^      (MaxReceives): "?(\d+)', text, re.MULTILINE))
    variables = {}
    [function] = re.findall(r"^  ImportFunction:\n((?:(?:    .*)?\n)+)", text, re.MULTILINE)
    for name, value in re.findall(r"^          (GANTRY_\w+): (.*)$", function, re.MULTILINE):
        # `!Ref Name`, or the last name inside the brackets of `!Join` and `!FindInMap`.
        source = re.findall(r"[\w:]+", value)[-1]
        if source not in defaults:
            raise Failure(f"bench does not understand template.yaml's {name}: {value}")
        variables[name] = defaults[source].strip('"')
    return variables | {
        "AWS_ACCESS_KEY_ID": "AKIAGANTRYUSER",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": defaults["MemorySize"],
        "AWS_LAMBDA_FUNCTION_NAME": "import",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "gantry-local-secret",
        "GANTRY_REGISTRY_ENDPOINT": registry,
        "PATH": os.defpath,
    }
