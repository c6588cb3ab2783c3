"""A run spec as a file on disk: YAML (or JSON, which is YAML) with errors that point at the line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Spec, parse_spec


def read_spec(path: Path) -> Spec:
    """The spec in this file.

    Raises:
        InvalidInput: no such file, not YAML, or a spec that cannot work; names the file and
            every mistake.
    """
    try:
        return parse_spec(_load(path))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _load(path: Path) -> Any:
    import yaml  # here: `spotrelay --help` needs no parser

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidInput("there is no such file") from error
    except IsADirectoryError as error:
        raise InvalidInput("this is a directory; name the spec file in it") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("this is not text in UTF-8, so it is no run spec") from error
    except OSError as error:
        raise InvalidInput(f"it cannot be read: {error.strerror}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInput(f"{where}not YAML ({getattr(error, 'problem', None) or error})") from error
    if data is None:
        raise InvalidInput(
            "the file is empty: a run spec names at least command and instance_types, or instance_requirements"
        )
    return _plain(data)


def _plain(data: Any) -> Any:
    """What YAML reads as a time, as the text that a spec has there."""
    if isinstance(data, dict) and isinstance(data.get("deadline"), datetime):
        return {**data, "deadline": data["deadline"].isoformat()}
    return data
