"""The agent's archive: what a machine runs, and what it puts beside the run's program; one for all kinds of machines.

``shim/`` holds our own packages and is what the program finds on its path. ``spotrelay-libs/`` holds the libraries
that they need, with native code for each Python and architecture side by side: the file names tell them apart.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.assets import Target, cached, copy_sources, input_digest, install, on_linux, prune, write_zip
from infra.host import ROOT

REQUIREMENTS = ROOT / "infra" / "requirements"
PURE_LOCK = REQUIREMENTS / "agent.lock"
NATIVE_LOCK = REQUIREMENTS / "shim.lock"
SOURCES = ("spotrelay/__init__.py", "spotrelay/core", "spotrelay/aws", "spotrelay/instance", "trainer_shim")
START = ROOT / "spotrelay" / "instance" / "archive.py"
SERVICES = ("dynamodb", "s3", "events", "sts", "ssm", "secretsmanager")
ARCHITECTURES = ("arm64", "x86_64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # that the run's program may have


@dataclass(frozen=True)
class Archive:
    """A single file that an instance downloads and checks."""

    path: Path
    sha256: str


def agent_archive() -> Archive:
    """The machine's agent, the shim, and the libraries of both. Unpacked, its folder runs as a program."""
    libraries = _libraries()
    inputs = input_digest(SOURCES, (PURE_LOCK, NATIVE_LOCK), _what())

    def build(out: Path) -> None:
        tree = out / "tree"
        copy_sources(SOURCES, tree / "shim")
        shutil.copyfile(START, tree / "__main__.py")
        shutil.copytree(libraries, tree / "spotrelay-libs")
        write_zip(tree, out / "agent.zip")
        shutil.rmtree(tree)

    path = cached(f"agent-{inputs[:24]}", build) / "agent.zip"
    return Archive(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _libraries() -> Path:
    """Kept by itself: it changes with the locks only, and takes nine calls of pip."""
    inputs = input_digest((), (PURE_LOCK, NATIVE_LOCK), _what())

    def build(out: Path) -> None:
        tree = out / "tree"
        install(PURE_LOCK, tree)
        for architecture in ARCHITECTURES:
            for python in PYTHONS:
                _add_native(Target(architecture, python), tree)
        prune(tree)
        _prune_services(tree)

    return cached(f"libraries-{inputs[:24]}", build) / "tree"


def _add_native(target: Target, tree: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        install(NATIVE_LOCK, Path(folder), on_linux(target))
        shutil.copytree(folder, tree, dirs_exist_ok=True)


def _prune_services(tree: Path) -> None:
    """Keep the models of the services that are called; drop those of the other four hundred."""
    for entry in (tree / "botocore" / "data").iterdir():
        if entry.is_dir() and entry.name not in SERVICES:
            shutil.rmtree(entry)


def _what() -> dict[str, list[str]]:
    return {"services": list(SERVICES), "pythons": list(PYTHONS), "architectures": list(ARCHITECTURES)}
