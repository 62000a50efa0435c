"""Makes the previous release for deploy.py: its template and its functions, built from this repository's history.

    python3 tests/deployed/previous.py FOLDER

There is no release with a tag yet, so the previous one is the commit named here; a release puts its own tag in its
place. Without git, or in a clone that is too shallow, it says so and makes nothing. What cargo made of other crates is
used again, so it compiles only what is ours.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREVIOUS = "1d651a50f91c839b6ea4d53b0b1eb2466c4d6967"
BINARIES = ["import", "on-push", "on-scan", "reconcile"]


def main():
    folder = Path(sys.argv[1]).resolve()
    git = ["git", "-C", str(ROOT)]
    if not shutil.which("git") or subprocess.run([*git, "cat-file", "-e", f"{PREVIOUS}^{{commit}}"], capture_output=True).returncode:
        return print(f"skipped: the upgrade, since this clone has no commit {PREVIOUS}")
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.Popen([*git, "archive", PREVIOUS], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(source)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise SystemExit(f"git archive {PREVIOUS} failed")
    packages = [word for binary in BINARIES for word in ("-p", binary)]
    subprocess.run(["cargo", "build", "--release", "--locked", "--target-dir", str(ROOT / "target"), *packages], cwd=source, check=True)
    for binary in BINARIES:
        # Cargo links its own copy; ours will stand in its place soon.
        shutil.copy2(ROOT / "target" / "release" / binary, folder / binary)
    shutil.copy2(source / "template.yaml", folder)
    print(f"made the previous release, {PREVIOUS}, in {folder}")


if __name__ == "__main__":
    main()
