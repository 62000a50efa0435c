"""Debian's docker-registry on fresh storage, and what an image in it really is."""

import base64
import contextlib
import hashlib
import json
import subprocess
import urllib.error
import urllib.request

from process import Failure, Service, answers, free_port, output

MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""


@contextlib.contextmanager
def running(folder):
    """Runs a registry on storage below `folder` while the `with` block does; gives its host and port."""
    address = f"127.0.0.1:{free_port()}"
    config = folder / "registry.yml"
    config.write_text(CONFIG.format(folder=json.dumps(str(folder / "registry")), address=address))
    with Service() as service:
        service.start(["docker-registry", "serve", config], folder / "registry.log")
        if not service.wait_for(lambda: answers(f"http://{address}/v2/")):
            raise Failure(f"docker-registry did not start: {service.last_words()}")
        yield address


def manifest(address, repository, tag, login=None):
    """The manifest under a tag and its digest, hashed here; `login` is `user:password`."""
    url = f"http://{address}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": ", ".join(MANIFESTS)}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise Failure(f"the registry has no {repository}:{tag} (status {error.code})") from error
    return json.loads(text), f"sha256:{hashlib.sha256(text).hexdigest()}"


def check_layers(address, repository, tag, diff_ids, folder):
    """Pulls the image with skopeo, and compares every layer's uncompressed bytes with its diff ID."""
    layout = folder / "pulled"
    image = f"docker://{address}/{repository}:{tag}"
    output(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", image, f"oci:{layout}:{tag}"])

    def blob(digest):
        return layout / "blobs" / digest.replace(":", "/")

    [root] = json.loads((layout / "index.json").read_text())["manifests"]
    layers = json.loads(blob(root["digest"]).read_text())["layers"]
    found = []
    for layer in layers:
        unpack = "zstd" if layer["mediaType"].endswith("zstd") else "gzip"
        with subprocess.Popen([unpack, "-dc", blob(layer["digest"])], stdout=subprocess.PIPE) as process:
            found.append(f"sha256:{hashlib.file_digest(process.stdout, 'sha256').hexdigest()}")
        if process.returncode != 0:
            raise Failure(f"{unpack} cannot unpack {layer['digest']}")
    if found != diff_ids:
        raise Failure(f"the layers unpack to {found}, the archive says {diff_ids}")
