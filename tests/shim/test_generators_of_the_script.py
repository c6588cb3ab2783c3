"""The script's random generators are the script's: whatever the shim does beside it, it draws nothing from them."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from spotrelay.aws.clients import Clients
from spotrelay.core.errors import Unavailable
from tests.shim.world import World
from trainer_shim.environment import read_identity
from trainer_shim.patience import persevere
from trainer_shim.wiring import connect

ROOT = Path(__file__).parents[2]
IN_THE_SCRIPTS_PROCESS = [
    path for name in ("trainer_shim", "spotrelay/core", "spotrelay/aws") for path in (ROOT / name).rglob("*.py")
]
HARMLESS = {"Random", "SystemRandom", "getstate", "setstate"}


class Calm:
    def wait(self, timeout: float) -> bool:
        return False


def test_trying_again_draws_nothing_from_them() -> None:
    before = random.getstate()
    answers = iter([Unavailable("not now"), Unavailable("nor now"), 3])

    def call() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert persevere(call, Calm()) == 3
    assert random.getstate() == before


@pytest.mark.parametrize("path", IN_THE_SCRIPTS_PROCESS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_calls_the_global_generator(path: Path) -> None:
    drawn = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr not in HARMLESS
    ]

    assert not drawn


def test_the_sdk_does_not_retry_by_itself_since_its_pauses_would_draw_from_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**world.environ(), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    identity = read_identity({**world.environ()})
    assert identity is not None
    made: list[int] = []
    real = Clients.client

    def client(self: Clients, service: str, region: str | None = None) -> object:
        found = real(self, service, region)
        made.append(found.meta.config.retries["total_max_attempts"])
        return found

    monkeypatch.setattr(Clients, "client", client)

    connect(identity)

    assert made == [1, 1, 1]
