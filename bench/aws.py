"""The embedded AWS of `gantry up`, without its own functions, and an upload to it."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import re
import tarfile
import time
from datetime import datetime, timezone
from urllib.parse import quote, urlencode

from process import Failure, Service, answers, free_port

KEY_ID, SECRET, REGION, BUCKET = "AKIAGANTRYUSER", "gantry-local-secret", "us-east-1", "uploads"


@contextlib.contextmanager
def embedded(gantry, folder):
    """Runs `gantry up` on a fresh folder while the `with` block does; gives its endpoint."""
    port = free_port()
    with Service() as service:
        command = [gantry, "up", "--no-functions", "--data", folder / "data", "--port", str(port)]
        service.start(command, folder / "up.log")
        endpoint = f"http://127.0.0.1:{port}"
        if not service.wait_for(lambda: answers(endpoint)):
            raise Failure(f"gantry up did not start: {service.last_words()}")
        yield endpoint


# S3 takes no more in one PUT (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html); parts of a fifth of that.
MOST_IN_ONE_PUT, PART = 5 << 30, 1 << 30


def upload(endpoint, key, archive):
    """Puts the archive as one object, and gives the `Object Created` event that EventBridge would deliver."""
    host, size = endpoint.removeprefix("http://"), archive.stat().st_size
    path, now = f"/{BUCKET}/{quote(key)}", datetime.now(timezone.utc)
    with archive.open("rb") as file:
        if size <= MOST_IN_ONE_PUT:
            headers, _text = _s3(host, "PUT", path, {}, file, size)
            stored = {"etag": headers["ETag"].strip('"'), "version-id": headers["x-amz-version-id"]}
        else:
            stored = _in_parts(host, path, file, size)
    stored |= {"key": key, "size": size, "sequencer": f"{time.time_ns():016X}"}
    return {
        "version": "0",
        "id": "00000000-0000-4000-8000-000000000002",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {"version": "0", "bucket": {"name": BUCKET}, "object": stored, "reason": "PutObject"},
    }


def _in_parts(host, path, file, size):
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"""
    _headers, begun = _s3(host, "POST", path, {"uploads": ""})
    [upload_id] = re.findall("<UploadId>(.*)</UploadId>", begun)
    parts = ""
    for number, start in enumerate(range(0, size, PART), 1):
        query = {"partNumber": str(number), "uploadId": upload_id}
        length = min(PART, size - start)
        headers, _text = _s3(host, "PUT", path, query, _Part(file, length), length)
        parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{headers['ETag']}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    headers, done = _s3(host, "POST", path, {"uploadId": upload_id}, body, len(body))
    [etag] = re.findall("<ETag>(?:&quot;|\")(.*?)(?:&quot;|\")</ETag>", done)
    return {"etag": etag, "version-id": headers["x-amz-version-id"]}


class _Part:
    """So many bytes of a file, from where it is."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def read(self, size):
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data


def _s3(host, method, path, query, body=b"", length=0):
    """One request to S3; its answer's headers and text. What is not a success is a `Failure`."""
    query = urlencode(sorted(query.items()))
    headers = _signed(method, host, path, datetime.now(timezone.utc), query=query) | {"Content-Length": str(length)}
    connection = http.client.HTTPConnection(host, timeout=600, blocksize=1 << 20)
    try:
        connection.request(method, f"{path}?{query}" if query else path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{method} {path} broke off: {error}") from error
    if answer.status != 200:
        raise Failure(f"{method} {path} was answered {answer.status}: {text[:500]}")
    return answer.headers, text


def create_repository(endpoint, name):
    """Makes a repository in the embedded ECR."""
    _ecr(endpoint, "CreateRepository", {"repositoryName": name})


def login(endpoint):
    """What `docker login` would take for the embedded ECR: `AWS:<password>`."""
    answer = _ecr(endpoint, "GetAuthorizationToken", {})
    return base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()


def _ecr(endpoint, operation, request):
    host, body = endpoint.removeprefix("http://"), json.dumps(request).encode()
    headers = _signed("POST", host, "/", datetime.now(timezone.utc), "ecr", hashlib.sha256(body).hexdigest())
    headers["Content-Type"] = "application/x-amz-json-1.1"
    headers["X-Amz-Target"] = f"AmazonEC2ContainerRegistry_V20150921.{operation}"
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("POST", "/", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise Failure(f"{operation} was answered {answer.status}: {text.decode(errors='replace')[:500]}")
    return json.loads(text)


def copy_blobs(endpoint, key, archive, registry, repository):
    """Reads every blob of the OCI archive that was uploaded as `key`, hashes it and puts it into the registry, one after
    the other, in chunks of 1 MiB; the seconds that took."""
    with tarfile.open(archive) as tar:
        blobs = [(member.offset_data, member.size, member.name.rpartition("/")[2]) for member in tar if "/sha256/" in member.name]
    host, path = endpoint.removeprefix("http://"), f"/{BUCKET}/{quote(key)}"
    s3, to = http.client.HTTPConnection(host, timeout=600), http.client.HTTPConnection(registry, timeout=600)
    started, cpu = time.perf_counter(), time.process_time()
    for offset, size, digest in blobs:
        to.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
        session = to.getresponse()
        session.read()
        location = session.headers["Location"]
        headers = _signed("GET", host, path, datetime.now(timezone.utc))
        s3.request("GET", path, headers=headers | {"Range": f"bytes={offset}-{offset + size - 1}"})
        body, found = s3.getresponse(), hashlib.sha256()

        def hashed():
            while chunk := body.read(1 << 20):
                found.update(chunk)
                yield chunk

        separator = "&" if "?" in location else "?"
        target = location.removeprefix(f"http://{registry}") + f"{separator}digest=sha256:{digest}"
        to.request("PUT", target, hashed(), {"Content-Length": str(size), "Content-Type": "application/octet-stream"})
        answer = to.getresponse()
        text = answer.read()
        if answer.status != 201 or found.hexdigest() != digest:
            raise Failure(f"the blob {digest} was answered {answer.status}: {text[:200]}")
    return {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def _signed(method, host, path, now, service="s3", payload="UNSIGNED-PAYLOAD", query=""):
    """The headers of a request signed with Signature Version 4; `query` is sorted, `payload` is its body's hash, or says that it has none.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"
    scope = f"{day}/{REGION}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in (day, REGION, service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    authorization = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return headers | {"Authorization": authorization}
