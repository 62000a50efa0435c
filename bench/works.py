"""The works that are measured: each gives rows for the results, and checks what it has done."""

import contextlib
import os
import tempfile
from pathlib import Path

import image
import machine
import registry
import relay
import variants
from contenders import REPOSITORY, Cdk, Gantry, Once, Skopeo
from process import Failure, note

# What a user can choose: the fastest gzip, the default, zstd.
GZIP_1, GZIP, ZSTD = Gantry("gantry gzip-1", {"Compression": "gzip-1"}), Gantry("gantry", {}), None
ZSTD = Gantry("gantry zstd", {"Compression": "zstd"})
PEERS = [Skopeo(), Cdk()]

# Lambda's network as its users measured it: 30 ms to S3's first byte, 85 MB/s for one connection, 75 MiB/s each way for
# one environment.
FIRST_BYTE_S, CONNECTION_RATE, FUNCTION_RATE = 0.030, 85e6, 75 * (1 << 20)


@contextlib.contextmanager
def _place(work, name):
    with tempfile.TemporaryDirectory(dir=work, prefix=f"{name.replace(' ', '-')}-") as folder:
        folder = Path(folder)
        with registry.running(folder) as address:
            yield folder, address


def _taken(stage, source, tag):
    """One measurement, with the disk at rest: also how busy the machine was with other things before, and what all its
    CPUs did meanwhile."""
    os.sync()
    sample = {"busy_cpus_before": machine.busy_cpus()}
    before = machine.cpu_seconds()
    sample |= stage.take(source, tag)
    return sample | {"machine": machine.spent_since(before)}


def _stored(address, tag, facts, login=None):
    stored, digest = registry.manifest(address, REPOSITORY, tag, login)
    if stored["config"]["digest"] != facts["config_digest"]:
        raise Failure(f"the image's config is {stored['config']['digest']}, the archive's {facts['config_digest']}")
    return {"compressed_mb": sum(layer["size"] for layer in stored["layers"]) / 1e6, "manifest": digest}


def first_and_again(rounds, tools, archive, work):
    """A first import into an empty registry, the same again, and again with one small layer more, by everybody."""
    changed = variants.changed(archive, work)
    facts, facts_changed = image.describe(archive), image.describe(changed)
    everybody = [GZIP_1, GZIP, ZSTD, *PEERS]
    samples = {work: {who.name: [] for who in everybody} for work in ("first", "again", "changed")}
    for number in range(1, rounds + 1):
        for who in everybody:
            with _place(work, who.name) as (folder, address), who.stage(tools, folder, address) as stage:
                source = stage.put(archive, "1.0")
                sample = _taken(stage, source, "1.0") | _stored(address, "1.0", facts)
                if hasattr(stage, "cold_start_s"):
                    sample["cold_start_ms"] = stage.cold_start_s * 1000
                if number == 1:
                    registry.check_layers(address, REPOSITORY, "1.0", facts["diff_ids"], folder)
                samples["first"][who.name].append(sample)
                source = stage.put(archive, "1.0")
                samples["again"][who.name].append(_taken(stage, source, "1.0") | _stored(address, "1.0", facts))
                source = stage.put(changed, "2.0")
                taken = _taken(stage, source, "2.0") | _stored(address, "2.0", facts_changed)
                samples["changed"][who.name].append(taken)
            rows = ", ".join(f"{work} {samples[work][who.name][-1]['wall_s']:.2f} s" for work in samples)
            note(f"round {number} of {rounds}: {who.name}: {rows}")
    return samples


def embedded(rounds, tools, archive, work):
    """A first import into the embedded registry, which hashes faster than docker-registry, by everybody."""
    facts, everybody = image.describe(archive), [GZIP_1, GZIP, ZSTD, *PEERS]
    samples = {who.name: [] for who in everybody}
    for number in range(1, rounds + 1):
        for who in everybody:
            with tempfile.TemporaryDirectory(dir=work) as folder, who.stage(tools, Path(folder)) as stage:
                sample = _taken(stage, stage.put(archive, "1.0"), "1.0")
                samples[who.name].append(sample | _stored(stage.address, "1.0", facts, stage.login))
            note(f"round {number} of {rounds}, embedded registry: {who.name} {samples[who.name][-1]['wall_s']:.2f} s")
    return samples


def compressed(rounds, tools, archive, work):
    """An OCI archive, whose layers are compressed already."""
    path = variants.oci(archive, work)
    everybody = [GZIP, Skopeo(), Once()]
    samples = {who.name: [] for who in everybody}
    for number in range(1, rounds + 1):
        for who in everybody:
            with _place(work, who.name) as (folder, address), who.stage(tools, folder, address) as stage:
                samples[who.name].append(_taken(stage, stage.put(path, "1.0"), "1.0"))
            note(f"round {number} of {rounds}, OCI: {who.name} {samples[who.name][-1]['wall_s']:.2f} s")
    return samples


def counted(tools, archive, work):
    """Requests and bytes of a first import, the same again, and one small layer more; not timed."""
    changed, size = variants.changed(archive, work), archive.stat().st_size
    rows = {}
    with _place(work, "counted") as (folder, address), contextlib.ExitStack() as stack:
        seen = []

        @contextlib.contextmanager
        def relayed(s3, behind):
            with relay.running(relay.Network(), s3, behind) as relays:
                seen.extend(relays)
                yield [each.address for each in relays]

        stage = stack.enter_context(GZIP.stage(tools, folder, address, relayed))
        for name, path, tag in (("first", archive, "1.0"), ("again", archive, "1.0"), ("changed", changed, "2.0")):
            event = stage.put(path, tag)
            for each in seen:
                each.reset()
            stage.take(event, tag)
            s3, to = seen
            rows[name] = {
                "aws_requests": s3.requests,
                "aws_bytes_read": s3.bytes_down,
                "of_the_archive": s3.bytes_down / size,
                "registry_requests": to.requests,
                "registry_bytes_sent": to.bytes_up,
            }
    return rows


def lambdas_network(tools, archive, work):
    """A first import over a network like Lambda's, against the time that its rate alone would take."""
    rows = {}
    for who in (GZIP, ZSTD):
        network = relay.Network(FIRST_BYTE_S, CONNECTION_RATE, FUNCTION_RATE)

        @contextlib.contextmanager
        def relayed(s3, behind):
            with relay.running(network, s3, behind) as relays:
                yield [each.address for each in relays]

        with _place(work, who.name) as (folder, address), who.stage(tools, folder, address, relayed) as stage:
            sample = stage.take(stage.put(archive, "1.0"), "1.0")
        least_s = archive.stat().st_size / FUNCTION_RATE
        rows[who.name] = sample | {"least_s": least_s, "ratio": sample["wall_s"] / least_s}
        note(f"Lambda's network: {who.name} {sample['wall_s']:.2f} s, at least {least_s:.2f} s")
    return rows


def levels(tools, archive, work):
    """One core at each of some settings: how much of the archive it takes in a second, and what comes out."""
    rows, size = {}, archive.stat().st_size
    facts = image.describe(archive)
    for setting in ("gzip-1", "gzip-4", "gzip-5", "gzip-6", "gzip-9", "zstd-1", "zstd", "zstd-3", "zstd-6"):
        who = Gantry(setting, {"Compression": setting}, prefix=("taskset", "--cpu-list", "0"))
        with _place(work, setting) as (folder, address), who.stage(tools, folder, address) as stage:
            sample = stage.take(stage.put(archive, "1.0"), "1.0") | _stored(address, "1.0", facts)
        rows[setting] = sample | {"mb_per_cpu_s": size / 1e6 / sample["cpu_s"]}
        note(f"one core, {setting}: {rows[setting]['mb_per_cpu_s']:.0f} MB for each second, {sample['compressed_mb']:.1f} MB")
    return rows


def growth(tools, archive, work, largest_mb):
    """More bytes, and more layers: time must grow with the bytes, and memory not at all."""
    shapes = [(mb, 4) for mb in (100, 300, 1_000, 3_000, 10_000) if mb <= largest_mb]
    shapes += [(800, layers) for layers in (1, 2, 4, 8, 16, 100)]
    rows = []
    for mb, layers in shapes:
        with _place(work, "growth") as (folder, address), GZIP.stage(tools, folder, address) as stage:
            path = variants.grown(archive, folder / "grown.tar", mb * 1_000_000, layers)
            event = stage.put(path, "1.0")
            path.unlink()
            sample = _taken(stage, event, "1.0")
        rows.append({"mb": mb, "layers": layers} | sample | {"mb_per_s": mb / sample["wall_s"]})
        note(f"{mb} MB in {layers} layers: {sample['wall_s']:.2f} s, peak {sample['peak_mib']:.0f} MiB")
    return rows


def started(tools, work, times=20):
    """The function's process, from its start to its first request for work, in milliseconds."""
    taken = []
    with _place(work, "started") as (folder, address):
        for _ in range(times):
            with GZIP.stage(tools, folder, address) as stage:
                taken.append(stage.cold_start_s * 1000)
    return taken
