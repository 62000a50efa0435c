"""Runs what `sam build` made under `sam local invoke`, once for each event of events/in.

    python3 tests/deployed/local.py FOLDER_OF_SAM_BUILD

Needs aws-sam-cli beside the interpreter, and a Docker engine: one that runs, or one that it can start by itself, which
takes root and dockerd. Where there is none it says so, checks the binaries alone and ends with 0. The image that the
functions run in is made of this machine's own C library, so nothing is pulled; that the functions need no newer one
than Lambda has is read from them. No AWS can be reached from in there: what an event asks of AWS has to end as an
error that names the call, and what asks for nothing has to be answered. Ends only what it started.
"""

import concurrent.futures
import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = {"Import": "ImportFunction", "OnPush": "OnPushFunction", "OnScan": "OnScanFunction", "Reconcile": "ReconcileFunction"}
IMAGE = "public.ecr.aws/lambda/provided:al2023-x86_64"
# Lambda guide, "OS-only runtimes": provided.al2023 has glibc 2.34.
GLIBC = (2, 34)
# What no event should take, on a machine that has other things to do.
PATIENCE = 120
# Calls at a time; a container each.
WORKERS = 2


def say(text):
    print(text, flush=True)


def newest_glibc(binary):
    """The newest version of the C library that a binary asks for."""
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())
    if not found:
        raise SystemExit(f"{binary} names no version of glibc: is it what sam build made?")
    return max((int(major), int(minor)) for major, minor in found)


def rows():
    """Function, shape and outcome of each sample, as tests/events has them."""
    text = (ROOT / "tests/events/rows.rs").read_text()
    text = text[text.index("static ROWS"):]
    found = re.findall(r'row\(\s*"([^"]+)",\s*(\w+),\s*(\w+),\s*&\[\s*(\w+)', text)
    samples = {path.stem for path in (ROOT / "events/in").glob("*.json")}
    if {name for name, *_ in found} != samples:
        raise SystemExit(f"tests/events/rows.rs and events/in differ: {samples ^ {name for name, *_ in found}}")
    return found


class Engine:
    """A Docker engine of our own, in a folder of its own."""

    def __init__(self, folder):
        self.socket, self.log = folder / "docker.sock", open(folder / "dockerd.log", "wb")
        self.process = subprocess.Popen(
            ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "-p", folder / "pid", "-H", f"unix://{self.socket}",
             # Neither rules of a firewall nor a file system of the kernel's are needed for one small image.
             "--iptables=false", "--ip-masq=false", "--storage-driver=vfs"],
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def answers(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            if docker(f"unix://{self.socket}", "version").returncode == 0:
                return True
            time.sleep(0.2)
        return False

    def stop(self):
        # It ends its containerd and its proxies itself.
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


def docker(host, *arguments, **more):
    return subprocess.run(["docker", "-H", host, *arguments], capture_output=True, **more)


def engine(folder):
    """Where an engine listens, and what has to be stopped afterwards; or why there is none."""
    if shutil.which("docker") is None:
        return None, "there is no docker"
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if docker(host, "version").returncode == 0:
        return host, None
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        return None, "no Docker engine runs, and one can be started only by root, with dockerd"
    own = Engine(folder)
    if own.answers():
        return f"unix://{own.socket}", own
    own.stop()
    return None, "dockerd does not start here: " + (folder / "dockerd.log").read_text(errors="replace")[-300:].strip()


def image():
    """A file system in which functions can run: this machine's C library, a shell, and certificates."""
    libraries = [path for name in ("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2")
                 for path in glob.glob(f"/lib/x86_64-linux-gnu/{name}") + glob.glob(f"/lib64/{name}")]
    shell = shutil.which("busybox")
    if not shell or not any(path.endswith("libc.so.6") for path in libraries):
        return None
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in [*libraries, "/etc/ssl/certs/ca-certificates.crt"]:
            if os.path.exists(path):
                archive.add(os.path.realpath(path), path)
        archive.add(shell, "/bin/busybox")
        for name in ("sh", "mv", "chmod", "mkdir", "rm"):
            link = tarfile.TarInfo(f"/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "var", "var/task", "var/rapid"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(folder)
    return whole.getvalue()


def ready(host, template):
    """The template with what an account would have put in; nothing of it leads anywhere."""
    text = template.read_text()
    # Nobody listens there: a call fails at once, and not after looking for AWS.
    nowhere = "AWS_ENDPOINT_URL: http://127.0.0.1:9\n"
    text, count = re.subn(r"(?m)^( +)GANTRY_STACK:", rf"\1{nowhere}\1GANTRY_STACK:", text)
    if count != len(FUNCTIONS):
        raise SystemExit(f"{template} sets GANTRY_STACK {count} times")
    local = template.with_name("local.yaml")
    local.write_text(text)
    # The bucket that the samples are of; for a function here the template's own names are all there is.
    variables(local).write_text(json.dumps({"Parameters": {"GANTRY_STATE_BUCKET": "state", "GANTRY_UPLOAD_BUCKET": "uploads"}}))
    return local


def variables(template):
    return template.with_name("variables.json")


def invoke(host, template, function, event):
    """What `sam local invoke` prints, and what the function logs."""
    environment = os.environ | {
        "DOCKER_HOST": host, "SAM_CLI_TELEMETRY": "0", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    command = [str(Path(sys.executable).with_name("sam")), "local", "invoke", function, "-t", str(template), "-e", str(event),
               "--env-vars", str(variables(template)), "--skip-pull-image", "--region", "eu-central-1", "--parameter-overrides", "Architecture=x86_64"]
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=PATIENCE, cwd=template.parent)
    return done, time.monotonic() - begin


def judge(row, done):
    """What is wrong with an answer; nothing, if it is as it should be."""
    name, function, shape, made = row
    answer = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        answer = json.loads(answer[0])
    except ValueError:
        return f"no answer: {done.stdout!r} {done.stderr[-2000:]}"
    asks_aws = made not in ("Ignored", "Unreadable", "NoUpload")
    if shape == "Batch" and isinstance(answer, dict):
        failed = answer.get("batchItemFailures")
        return None if isinstance(failed, list) and bool(failed) == asks_aws else f"answered {answer}"
    if not asks_aws:
        return None if answer is None else f"answered {answer}"
    error = answer.get("errorMessage", "") if isinstance(answer, dict) else ""
    # The call, and what became of it.
    return None if re.search(r"\w+:\w+ on .* got no answer", error) else f"answered {answer}"


def run(host, build):
    rootfs = image()
    if rootfs is None:
        return say("skipped: sam local: busybox-static and a glibc of x86-64 are wanted for the image")
    made = docker(host, "import", "-", IMAGE, input=rootfs)
    if made.returncode:
        raise SystemExit(made.stderr.decode())
    template = ready(host, build / "template.yaml")
    wanted = rows()

    def one(row):
        name, function, *_ = row
        done, seconds = invoke(host, template, FUNCTIONS[function], ROOT / "events/in" / f"{name}.json")
        wrong = judge(row, done)
        say(f"{'WRONG' if wrong else 'ok   '} {seconds:5.1f} s  {FUNCTIONS[function]:17} {name}{': ' + wrong if wrong else ''}")
        return wrong

    # The first makes SAM's own image; the others find it.
    wrong = [one(wanted[0])]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        wrong += pool.map(one, wanted[1:])
    wrong = [one for one in wrong if one]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(wanted)} events are answered wrongly")
    say(f"checked {len(wanted)} events with sam local invoke")


def main():
    build = Path(sys.argv[1]).resolve()
    for function in FUNCTIONS.values():
        newest = newest_glibc(build / function / "bootstrap")
        if newest > GLIBC:
            raise SystemExit(f"{function} asks for glibc {newest}, and Lambda has {GLIBC}")
        say(f"ok     {function} asks for glibc {newest[0]}.{newest[1]} at most")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory(prefix="gantry-local-") as folder:
        host, own = engine(Path(folder))
        if host is None:
            return say(f"skipped: sam local: {own}")
        try:
            run(host, build)
        finally:
            if own:
                own.stop()


if __name__ == "__main__":
    main()
