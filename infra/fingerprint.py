"""One hash over everything that an assembly is made from; standard library only, so that a build hook can ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.host import ROOT

SOURCES = (
    "infra",
    "handlers",
    "spotrelay/__init__.py",
    "spotrelay/core",
    "spotrelay/aws",
    "spotrelay/hosts",
    "spotrelay/instance",
    "trainer_shim",
)
FILES = ("cdk.json",)
SUFFIXES = frozenset((".py", ".json", ".sh", ".lock", ".typed"))


def fingerprint(choices: dict[str, Any]) -> str:
    """SHA-256 over the sources and these choices."""
    total = hashlib.sha256(json.dumps(choices, sort_keys=True).encode())
    for path in _inputs():
        total.update(f"\n{path.relative_to(ROOT).as_posix()}\n".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _inputs() -> Iterable[Path]:
    yield from (ROOT / name for name in FILES)
    for source in SOURCES:
        path = ROOT / source
        yield from [path] if path.is_file() else sorted(_below(path))


def _below(path: Path) -> Iterable[Path]:
    for found in path.rglob("*"):
        if found.suffix in SUFFIXES and "__pycache__" not in found.parts and found.is_file():
            yield found
