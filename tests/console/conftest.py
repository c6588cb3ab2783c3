"""The `spotrelay` command over in-memory services, called as a shell would."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spotrelay.console import main as command
from spotrelay.console import wiring
from spotrelay.console.wiring import Services
from spotrelay.testing import ManualClock, MemoryObjects, MemoryPublisher, MemoryStore

ZONES = (("us-east-1", "us-east-1a"), ("us-east-1", "us-east-1b"))
SPEC = """
command: [python, train.py]
instance_types: [g5.xlarge, g5.2xlarge]
"""


@dataclass
class Plane:
    """The services behind a command, with their real types."""

    store: MemoryStore
    objects: MemoryObjects
    publisher: MemoryPublisher
    clock: ManualClock

    @property
    def services(self) -> Services:
        return Services(self.store, self.objects, self.publisher, self.clock, ZONES)


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    plane = Plane(MemoryStore(), MemoryObjects(), MemoryPublisher(), ManualClock())
    monkeypatch.setattr(wiring, "connect", lambda where: plane.services)
    return plane


@dataclass
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def spotrelay(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["spotrelay", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capfd.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small run.yaml"
    path.write_text(SPEC)
    return path
