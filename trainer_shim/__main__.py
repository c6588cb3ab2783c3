"""`python -m trainer_shim`: whether this Python can use the shim, and which one it would use."""

from __future__ import annotations

import sys

from spotrelay import __version__
from trainer_shim.brought import HERE
from trainer_shim.needs import told, unmet

UNMET = 78  # as sysexits.h says it of a configuration


def main() -> int:
    """Say it in one line; 0 when the shim can be used."""
    lacking = unmet()
    if lacking:
        sys.stderr.write(f"{told(lacking)}\n")
        return UNMET
    version = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(f"trainer_shim {__version__} in {HERE}, for {sys.executable} (Python {version})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
