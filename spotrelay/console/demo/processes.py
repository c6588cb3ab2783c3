"""The kernel's own process table, independent of what the emulated EC2 believes."""

from __future__ import annotations

import os
from pathlib import Path


def living_in(folder: Path) -> dict[int, str]:
    """Processes that were started with a home in this folder, from the kernel's own table: id to command line."""
    mark = os.fsencode(str(folder)) + b"/"
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended while we looked, or is another user's
            continue
    return found
