"""A Python as Lambda's: bare, with boto3 and the runtime client, and nothing else of this machine's.

What the asset forgets to bring must be missed here, so the packages of the project's own
environment are out of reach.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SDK = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
RUNTIME = ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py")


def managed_runtime(directory: Path) -> Path:
    """A directory for PYTHONPATH with links to boto3 and the runtime client."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (*SDK, *RUNTIME):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        link = directory / source.name
        if not link.exists():
            link.symlink_to(source)
    return directory


def bare_python() -> list[str]:
    """The command of the interpreter beneath this environment, without any site-packages."""
    base: str = getattr(sys, "_base_executable", sys.executable)
    return [base, "-S"]
