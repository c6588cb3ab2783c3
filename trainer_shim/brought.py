"""Where a machine's agent has put the shim and the libraries that it needs."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parents[1]  # what the path has to name for the shim to be found
LIBRARIES = HERE.parent / "spotrelay-libs"  # there where the agent brought the shim, and nowhere else


def complete() -> None:
    """Let these libraries be found at the very end of the path: whatever the user has is what both use."""
    if str(LIBRARIES) not in sys.path and LIBRARIES.is_dir():
        sys.path.append(str(LIBRARIES))
