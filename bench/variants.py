"""Other archives, made from the input: one small layer more, as an OCI layout, and of any size and number of layers."""

import hashlib
import io
import json
import tarfile

from process import output

LAYER_BYTES = 1_000_000


def changed(archive, work):
    """The same image with one layer of 1 MB more: what a build writes after a small change."""
    path = work / "changed.tar"
    if path.exists():
        return path
    with tarfile.open(archive) as tar, tarfile.open(work / "changed.part", "w") as new:
        [image] = json.load(tar.extractfile("manifest.json"))
        config = json.load(tar.extractfile(image["Config"]))
        for name in image["Layers"]:
            member = tar.getmember(name)
            while member.issym() or member.islnk():
                member = tar.getmember(str((tar_folder(member.name) + "/" + member.linkname).replace("/../", "/")))
            entry = tarfile.TarInfo(name)
            entry.size = member.size
            new.addfile(entry, tar.extractfile(member))
        layer = _layer_tar(b"".join(hashlib.sha256(b"%d" % at).hexdigest().encode() for at in range(LAYER_BYTES // 64)))
        config["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(layer).hexdigest())
        config.setdefault("history", []).append({"created_by": "bench"})
        _add(new, "changed/layer.tar", layer)
        _finish(new, config, [*image["Layers"], "changed/layer.tar"], "bench/debian:changed")
    (work / "changed.part").rename(path)
    return path


def tar_folder(name):
    return name.rpartition("/")[0]


def oci(archive, work):
    """The same image as an OCI archive, its layers compressed by skopeo."""
    path = work / "oci.tar"
    if not path.exists():
        part = work / "oci-unfinished.tar"
        part.unlink(missing_ok=True)
        output(["skopeo", "--insecure-policy", "copy", f"docker-archive:{archive}", f"oci-archive:{part}:1.0"])
        part.rename(path)
    return path


def grown(archive, path, size_bytes, layers):
    """A `docker save` of about `size_bytes` in so many layers, made of pieces of the input that are all different."""
    with archive.open("rb") as source, tarfile.open(path, "w") as new:
        length, names, diff_ids = archive.stat().st_size, [], []
        each = size_bytes // layers
        for number in range(layers):
            pieces = _Pieces(source, length, number, each)
            name = f"{number}/layer.tar"
            entry = tarfile.TarInfo(name)
            entry.size = each
            new.addfile(entry, pieces)
            names.append(name)
            diff_ids.append(f"sha256:{pieces.hash.hexdigest()}")
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        _finish(new, config, names, "bench/grown:1.0")
    return path


class _Pieces:
    """The input from some place on, again and again, each time with other bytes in front."""

    def __init__(self, source, length, number, size):
        self.source, self.length, self.left = source, length, size
        self.at = number * 104_729_000 % length
        self.head = b"layer %d of %d bytes\n" % (number, size)
        self.hash = hashlib.sha256()

    def read(self, count):
        if self.head:
            data, self.head = self.head[:count], b""
        else:
            self.source.seek(self.at)
            data = self.source.read(min(count, self.length - self.at))
            self.at = (self.at + len(data)) % self.length
        data = data[: self.left]
        self.left -= len(data)
        self.hash.update(data)
        return data if len(data) == count or not self.left else data + self.read(count - len(data))


def _layer_tar(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "srv/changed", content)
    return buffer.getvalue()


def _add(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _finish(tar, config, layers, name):
    config = json.dumps(config).encode()
    _add(tar, "config.json", config)
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": layers}]
    _add(tar, "manifest.json", json.dumps(manifest).encode())
