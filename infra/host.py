"""This machine and this working tree; standard library only, so that a freshness check needs nothing installed."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def host_architecture() -> str:
    """This machine's architecture, as Lambda names it."""
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"


def host_python() -> str:
    """The running interpreter's version, as Lambda names it."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
