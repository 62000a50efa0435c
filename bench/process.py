"""Starting, watching and ending processes; every one is ended by its own id."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


class Failure(Exception):
    """Something did not work; the message says what, for a person."""


def note(text):
    """A line of progress, on stderr, so that stdout holds the table alone."""
    print(text, file=sys.stderr, flush=True)


def run(command, log, environment=None, stdin=b"", cwd=None):
    """Runs a command to its end, its output into the open file `log`; a failure quotes the output's end."""
    log.flush()
    done = subprocess.run(command, input=stdin, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=cwd)
    if done.returncode != 0:
        words = Path(log.name).read_bytes()[-1000:].decode(errors="replace").strip()
        raise Failure(f"{command[0]} ended with {done.returncode}; the end of {log.name}:\n{words}")


def output(command, environment=None):
    """What a command prints on stdout."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def free_port():
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    """Whether something speaks HTTP there, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


class Service(contextlib.AbstractContextManager):
    """A process that runs while the `with` block does."""

    def __init__(self):
        self.process, self.log = None, None

    def start(self, command, log, environment=None):
        """Starts `command`, its output into the file `log`."""
        self.log = Path(log)
        with self.log.open("wb") as text:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=text, stderr=subprocess.STDOUT, env=environment
            )

    def wait_for(self, ready, seconds=60):
        """Waits until `ready()` is true; false when the process ended or the time ran out first."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if ready():
                return True
            time.sleep(0.02)
        return False

    def last_words(self):
        """The end of what it printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it printed nothing"

    def __exit__(self, *_failure):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, 9)
            self.process.wait()
