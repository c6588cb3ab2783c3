"""The one folder that the demo writes to, and which of its files stay."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from spotrelay.console.exits import NotReady
from spotrelay.core.errors import InvalidInput

MARK = ".spotrelay-demo"  # shows that the folder is ours to empty


class Folder:
    """A demo's home."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.cloud = self.home / "cloud"  # the embedded cloud's own
        self.code = self.home / "code"  # what `submit --code` packs
        self.reference = self.home / "reference"  # of the uninterrupted run
        self.scratch = self.home / "tmp"
        self.plot = self.home / "loss.png"

    def open(self) -> None:
        """Make the folder, empty of what an earlier demo left.

        Raises:
            InvalidInput: there is something else in it; nothing was touched.
        """
        if self.home.exists():
            if not self.home.is_dir():
                raise InvalidInput(f"--home {self.home} is a file: name a folder")
            if any(self.home.iterdir()) and not (self.home / MARK).exists():
                raise InvalidInput(f"--home {self.home} holds something that no demo made: name an empty folder")
            shutil.rmtree(self.home)
        for folder in (self.home, self.cloud, self.code, self.reference, self.scratch):
            folder.mkdir(parents=True)
        (self.home / MARK).write_text("made by `spotrelay demo`, which empties this folder when it starts\n")

    def close(self, keep: bool) -> None:
        """Remove what nobody reads; the plot, the request log, the timeline and the verdict stay."""
        requests = self.cloud / "requests.jsonl"
        if requests.exists():
            shutil.copyfile(requests, self.home / "requests.jsonl")
        if not keep:
            for folder in (self.cloud, self.code, self.scratch):
                shutil.rmtree(folder, ignore_errors=True)

    def write(self, name: str, value: Any) -> None:
        """Leave a value as a JSON file."""
        (self.home / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def require(modules: tuple[str, ...]) -> None:
    """See that the demo can be played on this machine.

    Raises:
        NotReady: it is not Linux, or packages are missing; says which and how to get them.
    """
    if sys.platform != "linux":
        raise NotReady("the demo's machines are process groups of Linux, and this is another system")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotReady(f"the demo needs {', '.join(missing)}: pip install 'spotrelay[demo]'")


def training_script() -> Path:
    """The script that is trained: in the package, or beside it in a checkout.

    Raises:
        NotReady: neither has it.
    """
    here = Path(__file__).resolve().parent
    for place in (here / "gpt_stdlib.py", here.parents[2] / "examples" / "gpt_stdlib.py"):
        if place.is_file():
            return place
    raise NotReady("the demo's training script is not part of this installation: install spotrelay again")


def built_assembly() -> Path:
    """The built stack: template and Lambda assets.

    Raises:
        NotReady: it was not built; says how to.
    """
    place = Path(__file__).resolve().parents[2] / "_assembly"
    if not (place / "manifest.json").is_file():
        raise NotReady(
            f"the stack was not built into this installation ({place} is not there): "
            "run `make assembly`, or `python -m infra.assembly` with the deploy extra installed"
        )
    return place
