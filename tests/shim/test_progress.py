"""What the heartbeat tells of how the program gets on."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from spotrelay.core.live import ASK_STACKS
from spotrelay.core.spec import Cadence
from tests.shim.training import build, train
from tests.shim.world import RUN, World, eventually


def test_every_step_and_every_word_of_the_script_is_a_sign(world: World) -> None:
    world.submit(Cadence(every_steps=1000))
    told: list[int] = []

    def after(run: Any, steps: int) -> None:
        if steps == 3:
            run.alive()
            run.alive()
        told.append(run._session._pulse._beat.signs)

    train(lambda **given: world.attach(1, **given), build(), 5, after)

    assert all(b > a for a, b in itertools.pairwise(told))
    assert told[3] - told[2] >= 1 and told[2] - told[1] >= 3


def test_a_word_of_the_control_plane_shows_the_stacks_of_all_threads(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.submit(Cadence(every_steps=1000))
    shown: list[str] = []

    def after(run: Any, steps: int) -> None:
        if steps == 2:
            world.store.ask(RUN, 1, f"{ASK_STACKS} 7")
            eventually(lambda: run._session._pulse._asked == f"{ASK_STACKS} 7", "the word was heard")
            eventually(
                lambda: shown.append(capfd.readouterr().err) or "most recent call first" in "".join(shown), "stacks"
            )

    train(lambda **given: world.attach(1, **given), build(), 4, after)

    assert "test_progress.py" in "".join(shown), "the line at which the training stands"


def test_outside_spotrelay_a_sign_is_harmless() -> None:
    def after(run: Any, steps: int) -> None:
        run.alive()

    import trainer_shim

    train(lambda **given: trainer_shim.attach(**given), build(), 2, after)
