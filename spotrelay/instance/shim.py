"""The shim on this machine: what the agent's archive brings, put where the run's program finds it.

It goes to the end of PYTHONPATH: before what is installed, so that the shim and the control plane are of one version;
behind the folder of the script and behind what the run's own PYTHONPATH names, which somebody has put there on purpose.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import spotrelay

FOLDER = Path(spotrelay.__file__).parents[1]
LIBRARIES = FOLDER.parent / "spotrelay-libs"  # beside it; only in the archive
NAME = "trainer_shim"

PYTHON = re.compile(r"python(3(\.\d+)?t?)?")
FLAG = re.compile(r"-[bBdEIOPqsSuvx]+")  # of Python's options, those without an argument
EXEC_LINE = re.compile(rb"'''exec' \"?([^\"\s]+)\"? ")  # how pip writes a first line that would be too long
LONGEST_LINE = 512  # bytes


def with_shim(environment: Mapping[str, str]) -> dict[str, str]:
    """These variables, with the shim at the end of PYTHONPATH.

    No empty part is made, which would name the folder that one is in.
    """
    path = environment.get("PYTHONPATH", "")
    return {**environment, "PYTHONPATH": os.pathsep.join([*([path] if path else []), str(FOLDER)])}


def with_python(environment: Mapping[str, str], python: str) -> dict[str, str]:
    """These variables, with the folder of this Python in the PATH, so that `python` and `torchrun` are there."""
    folder, path = str(Path(python).parent), environment.get("PATH", os.defpath)
    if folder in path.split(os.pathsep):
        return dict(environment)
    return {**environment, "PATH": os.pathsep.join([folder, path])}


def folders() -> list[Path]:
    """What a container has to be given, whoever it runs as; only the agent's user can read what it unpacked."""
    if not LIBRARIES.is_dir():
        return [FOLDER]
    for top in (FOLDER, LIBRARIES):
        for path in (top, *top.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return [FOLDER, LIBRARIES]


def own_copy(code: Path) -> Path | None:
    """The shim in the run's own code, which its script finds before ours; None when there is none."""
    found = code / NAME
    return found if (found / "__init__.py").is_file() else None


def is_python(program: str) -> bool:
    """Whether a program is Python, by its name."""
    return PYTHON.fullmatch(Path(program).name) is not None


def question(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> list[str] | None:
    """What to run to learn whether the Python behind a command can use the shim; None where it cannot be told.

    It is the command itself, or the first line of the script that it names, such as torchrun's.
    """
    found = _found(command[0], environment, folder)
    if found is None:
        return None
    if is_python(command[0]):
        return asked([command[0]], command[1:])
    words = _first_line(found)
    if words[:1] == ["/usr/bin/env"]:
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
    if not words or not is_python(words[0]) or not _found(words[0], environment, folder):
        return None
    return asked(words[:1], words[1:])


def asked(python: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The question to this Python, with the options that it is given: some make it overlook PYTHONPATH."""
    flags = []
    for word in arguments:
        if not FLAG.fullmatch(word):
            break
        flags.append(word)
    return [*python, *flags, "-m", NAME]


def _found(program: str, environment: Mapping[str, str], folder: Path) -> Path | None:
    if os.sep in program:
        return folder / program
    place = shutil.which(program, path=environment.get("PATH", os.defpath))
    return Path(place) if place else None


def _first_line(program: Path) -> list[str]:
    try:
        with program.open("rb") as file:
            lines = [file.readline(LONGEST_LINE) for _ in range(2)]
    except OSError:
        return []
    longer = EXEC_LINE.match(lines[1])
    if lines[0].strip() == b"#!/bin/sh" and longer:
        return [os.fsdecode(longer.group(1))]
    return os.fsdecode(lines[0][2:]).split() if lines[0].startswith(b"#!") else []
