"""First file of the agent's archive: unpacks it beside itself and starts the agent from there.

The archive becomes a directory because botocore and the certificate bundle are read as files.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path


def unpacked(archive: Path) -> Path:
    """The directory with the archive's files; made once, whole or not at all."""
    target = archive.with_name(archive.name + ".d")
    if target.is_dir():
        return target
    partial = Path(tempfile.mkdtemp(prefix=archive.name, dir=archive.parent))
    try:
        with zipfile.ZipFile(archive) as source:
            source.extractall(partial)
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # another process was not faster: the disk is full, or worse
            raise
    return target


if __name__ == "__main__":
    here = Path(sys.argv[0]).resolve()
    directory = str(unpacked(here))
    sys.path[0] = directory
    os.environ["SPOTRELAY_AGENT_DIR"] = directory
    runpy.run_module("spotrelay.instance", run_name="__main__", alter_sys=True)
