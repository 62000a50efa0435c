"""Image tarballs as `docker save` writes them, small and made of nothing but the standard library."""

import hashlib
import io
import json
import random
import tarfile


def layer(name: str, seed: int, size: int) -> bytes:
    """A layer with one file of bytes that compress to about half."""
    bytes_of = random.Random(seed)
    half = bytes_of.randbytes(size // 2)
    return _tar({name: half + bytes(size - len(half))})


def docker(name: str, layers: list[bytes]) -> bytes:
    """The archive of one image, called `name`."""
    diff_ids = ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = json.dumps(config).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    names = [f"{at}/layer.tar" for at in range(len(layers))]
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": names}]
    return _tar({config_name: config, **dict(zip(names, layers)), "manifest.json": json.dumps(manifest).encode()})


def _tar(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
