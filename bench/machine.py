"""What the figures were taken on, and the programs they were taken with."""

import contextlib
import json
import os
import platform
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from process import Failure, note, output, run

# Program to look for, and the Debian package that has it.
MEASURED_WITH = {"skopeo": "skopeo", "docker-registry": "docker-registry", "zstd": "zstd", "npm": "npm"}
INPUT_MADE_WITH = {"debootstrap": "debootstrap", "dockerd": "docker.io", "docker": "docker-cli docker.io"}


def install(programs, work):
    """Installs what is absent with apt, and says so. No service of a package is started."""
    absent = {program: packages for program, packages in programs.items() if shutil.which(program) is None}
    if not absent:
        return
    if os.geteuid() != 0:
        raise Failure(f"not here, and only root can install them: {', '.join(absent)}")
    with (work / "install.log").open("wb") as log:
        run(["apt-get", "update"], log)
        # Newer Debian releases have the client `docker` in a package of its own.
        known = output(["apt-cache", "pkgnames"]).split()
        packages = sorted({next(name for name in names.split() if name in known) for names in absent.values()})
        note(f"installing with apt: {' '.join(packages)}")
        with _no_services():
            run(["apt-get", "install", "--yes", "--no-install-recommends", *packages], log)


@contextlib.contextmanager
def _no_services():
    """Debian's own switch that keeps packages from starting services, which would listen on every interface."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


# The function as it is deployed, and the program people run: cargo's arguments, and where the binary is then.
BUILDS = {
    "import": (["--profile", "lambda", "--package", "import"], "lambda/import"),
    "gantry": (["--release"], "release/gantry"),
}


def build(name, repository, work):
    """Builds one of `BUILDS`; gives the binary's path."""
    if shutil.which("cargo") is None:
        raise Failure("cargo is not here: install Rust from https://rustup.rs")
    arguments, binary = BUILDS[name]
    command = ["cargo", "build", *arguments, "--locked"]
    note(f"building {name}: {' '.join(command)}")
    with (work / f"build-{name}.log").open("wb") as log:
        run(command, log, cwd=repository)
    metadata = ["cargo", "metadata", "--format-version=1", "--no-deps", "--manifest-path", repository / "Cargo.toml"]
    return Path(json.loads(output(metadata))["target_directory"]) / binary


# The version that is compared; its package holds the function's binary.
CDK = "cdk-ecr-deployment@4.2.65"


def cdk_function(work):
    """The binary of cdk-ecr-deployment's function, from its npm package."""
    binary = work / "cdk" / "package" / "lambda-bin" / "bootstrap"
    if not binary.exists():
        note(f"fetching {CDK}")
        folder = work / "cdk"
        folder.mkdir(exist_ok=True)
        with (work / "cdk.log").open("wb") as log:
            run(["npm", "pack", CDK], log, cwd=folder)
            [package] = folder.glob("*.tgz")
            run(["tar", "--extract", "--gzip", "--file", package], log, cwd=folder)
        binary.chmod(0o755)
    return binary


def describe(repository, tools):
    """Machine, versions and date, for the results."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    release = re.search(r'^PRETTY_NAME="(.*)"$', Path("/etc/os-release").read_text(), re.MULTILINE)

    def told_by(*command):
        with contextlib.suppress(Failure, OSError):
            return output(command).strip()
        return "unknown"

    def packaged(name):
        return told_by("dpkg-query", "--show", "--showformat=${Version}", name)

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu.group(1) if cpu else platform.machine(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_mib": int(memory.group(1)) // 1024,
            "kernel": platform.release(),
            "system": release.group(1),
        },
        "versions": {
            "gantry": told_by("git", "-C", repository, "describe", "--always", "--dirty"),
            "rustc": told_by("rustc", "--version"),
            "skopeo": packaged("skopeo"),
            "docker-registry": packaged("docker-registry"),
            "cdk-ecr-deployment": CDK.rpartition("@")[2],
            "python": platform.python_version(),
        },
        "binary_bytes": {"gantry": tools["import"].stat().st_size, "cdk-ecr-deployment": tools["cdk"].stat().st_size},
    }


def cpu_seconds():
    """What all CPUs together have spent since the machine started: at work, idle, and taken away by the host."""
    # user nice system idle iowait irq softirq steal, summed over all CPUs
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, waiting, hard, soft, stolen = (field / os.sysconf("SC_CLK_TCK") for field in fields)
    return {"busy_s": user + nice + system + hard + soft, "idle_s": idle + waiting, "stolen_s": stolen}


def spent_since(before):
    """What they have spent since `before`, an earlier `cpu_seconds`."""
    return {name: now - before[name] for name, now in cpu_seconds().items()}


def busy_cpus(seconds=0.5):
    """How many CPUs are at work just now, on average over a moment; a quiet machine is near 0."""
    before = cpu_seconds()
    time.sleep(seconds)
    spent = spent_since(before)
    return os.cpu_count() * (1 - spent["idle_s"] / max(0.01, sum(spent.values())))
