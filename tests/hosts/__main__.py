"""`make sshd`: the tests of hosts speak to a real sshd. Installs it by apt where we may, else says how to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.hosts.sshd import MISSING, find_sshd


def main() -> int:
    """See to it; the exit code."""
    if find_sshd() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "openssh-server"]):
            done = subprocess.run(["apt-get", *command], env=quiet, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.stderr.write(f"apt-get {command[0]}: {done.stderr[-500:]}\n")
    if find_sshd() is None:
        sys.stderr.write(f"hosts of one's own are NOT tested: {MISSING}\n")
        return int(bool(os.environ.get("CI")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
