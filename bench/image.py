"""The input: a `docker save` of a Debian image, about 700 MB in four layers, made once and kept.

The content is real: a minimal Debian, then three sets of packages installed into it, each layer the files that its
step wrote. A real engine turns them into an image and saves it; where none runs, the same layout is written here.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from process import Failure, Service, note, output, run

NAME = "bench/debian:1.0"
PACKAGES = (
    ("gcc", "g++", "make"),
    ("python3", "perl", "perl-doc", "git"),
    ("libboost1.74-dev",),
)
CONFIG = {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}


def prepare(work):
    """Returns the archive and how it was made, from the cache folder `work` where it is there already."""
    archive, about = work / "input.tar", work / "input.json"
    if is_made(work):
        return archive, json.loads(about.read_text())
    layers = _layers(work)
    unfinished = work / "input.tar.part"
    made_by = _engine_save(work, layers, unfinished)
    if made_by is None:
        made_by = "written by bench (no Docker engine could run)"
        _write_archive(layers, unfinished)
    unfinished.rename(archive)
    facts = describe(archive, made_by)
    about.write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(work / "layers")
    return archive, facts


def is_made(work):
    """Whether `prepare` would find everything in the cache folder."""
    return (work / "input.tar").exists() and (work / "input.json").exists()


def describe(archive, made_by="given with --archive"):
    """What the results say of an archive, and what its image must be afterwards: config digest and diff IDs."""
    try:
        with tarfile.open(archive) as tar:
            [image] = json.load(tar.extractfile("manifest.json"))
            config = tar.extractfile(image["Config"]).read()
            layer_bytes = [tar.getmember(name).size for name in image["Layers"]]
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise Failure(f"{archive} is no `docker save` of one image: {error}") from error
    facts = {"made_by": made_by, "bytes": archive.stat().st_size, "sha256": _sha256(archive)}
    facts |= {"layer_bytes": layer_bytes, "diff_ids": diff_ids}
    return facts | {"config_digest": f"sha256:{hashlib.sha256(config).hexdigest()}"}


def _layers(work):
    """One tar for each layer, from a root file system that is filled step by step."""
    folder, root = work / "layers", work / "rootfs"
    mirror, release = _mirror()
    for left_over in (folder, root):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.mkdir()
    note(f"making the input: debootstrap of {release} from {mirror}")
    before, layers = {}, []
    log = work / "input.log"
    with log.open("wb") as text:
        run(["debootstrap", "--variant=minbase", release, root, mirror], text)
        for number, packages in enumerate(((), *PACKAGES), start=1):
            if packages:
                note(f"making the input: {' '.join(packages)}")
                run(["chroot", root, "apt-get", "update"], text)
                install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
                run(["chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", *install], text)
            run(["chroot", root, "apt-get", "clean"], text)
            shutil.rmtree(root / "var/lib/apt/lists")
            (root / "var/lib/apt/lists/partial").mkdir(parents=True)
            after = _entries(root)
            changed = sorted(path for path, entry in after.items() if before.get(path) != entry)
            before = after
            layer = folder / f"{number}.tar"
            names = "\0".join(changed).encode(errors="surrogateescape")
            pack = ["tar", "--create", "--file", layer, "--directory", root, "--numeric-owner", "--no-recursion"]
            run([*pack, "--null", "--files-from", "-"], text, stdin=names)
            layers.append(layer)
    shutil.rmtree(root)
    return layers


def _mirror():
    """The archive that the machine's own apt takes its release from, and that release's name."""
    release = None
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            release = line.partition("=")[2].strip('"')
    targets = output(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"])
    for line in targets.splitlines():
        site, _, found = line.partition(" ")
        if found == release:
            return site, release
    raise Failure(f"apt has no source for the release {release}; run apt-get update")


def _entries(root):
    """What tells whether a file was written: its inode and the time of its last change."""
    entries = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            entries[os.path.relpath(path, root)] = (stat.st_ino, stat.st_ctime_ns)
    return entries


def _engine_save(work, layers, archive):
    """Builds and saves the image with a Docker engine; says which, or `None` where no engine can run."""
    with tempfile.TemporaryDirectory(dir=work, prefix="engine-") as folder, Service() as service:
        environment = dict(os.environ, DOCKER_BUILDKIT="0")
        if not _engine_answers(environment):
            environment["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
            folders = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
            folders += ["--pidfile", f"{folder}/dockerd.pid"]
            network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
            note("no Docker engine answers; starting one for the input")
            service.start(["dockerd", "--host", environment["DOCKER_HOST"], *folders, *network], f"{folder}/log")
            if not service.wait_for(lambda: _engine_answers(environment)):
                note(f"dockerd does not run here: {service.last_words()}")
                return None
        version = output(["docker", "version", "--format", "{{.Server.Version}}"], environment).strip()
        context = Path(folder) / "context"
        context.mkdir()
        for layer in layers:
            os.link(layer, context / layer.name)
        steps = ["FROM scratch", *(f"ADD {layer.name} /" for layer in layers)]
        steps += [f"ENV {CONFIG['Env'][0]}", f"CMD {json.dumps(CONFIG['Cmd'])}"]
        (context / "Dockerfile").write_text("\n".join(steps) + "\n")
        note(f"making the input: docker build and docker save, Docker Engine {version}")
        with (work / "input.log").open("ab") as text:
            run(["docker", "build", "--tag", NAME, context], text, environment)
            run(["docker", "save", "--output", archive, NAME], text, environment)
            run(["docker", "rmi", "--force", NAME], text, environment)
        return f"docker save, Docker Engine {version}"


def _engine_answers(environment):
    return subprocess.run(["docker", "version"], env=environment, capture_output=True).returncode == 0


def _write_archive(layers, archive):
    """What `docker save` writes: a config, the layers, and a manifest that names them."""
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]}
    history = [{"created": "2026-01-01T00:00:00Z", "created_by": layer.name} for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": CONFIG}
    config = json.dumps(config | {"rootfs": rootfs, "history": history}).encode()
    names = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in rootfs["diff_ids"]]
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [NAME], "Layers": names}]
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar, tempfile.TemporaryDirectory() as folder:
        for name, layer in zip(names, layers):
            tar.add(layer, name)
        for name, content in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            path = Path(folder) / name
            path.write_bytes(content)
            tar.add(path, name)


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
