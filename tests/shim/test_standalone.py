"""Outside Spotrelay, and on machines where nothing answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainer_shim
from spotrelay.core.errors import InvalidInput
from tests.shim.training import build, train
from tests.shim.world import World, left_with
from trainer_shim.environment import read_identity

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, torch, trainer_shim
model = torch.nn.Linear(2, 2)
run = trainer_shim.attach(model=model)
for step, batch in run.steps([torch.zeros(1, 2)] * 3, total=5):
    run.step(model(batch).sum())
run.close()
again = trainer_shim.attach(model=model)
print(run.id, run.step_number, "boto3" in sys.modules, "botocore" in sys.modules)
"""


def outside() -> dict[str, str]:
    """An environment without Spotrelay, without credentials and without a way out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOTRELAY_", "AWS_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}


def test_the_same_script_trains_unchanged_says_so_and_touches_no_aws() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=outside(), capture_output=True, text=True, timeout=60, check=True
    )

    assert answer.stdout.split() == ["None", "5", "False", "False"]
    assert answer.stderr.count("no run in the environment") == 1


def test_a_script_without_the_shim_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)

    class Plain:
        """The loop as one would write it."""

        def steps(self, total: int) -> object:
            step = 0
            while step < total:
                for batch in parts.loader:
                    if step == total:
                        return
                    yield step, batch
                    step += 1

        def step(self, loss: object) -> None:
            return

        def close(self) -> None:
            return

    parts = build(workers=2)
    plain = train(lambda **given: Plain(), parts)

    assert train(trainer_shim.attach, build(workers=2)).losses == plain.losses


def test_one_pass_is_made_when_no_total_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    run = trainer_shim.attach(model=build().model)
    seen = []
    for step, batch in run.steps(["a", "b", "c"]):
        seen.append((step, batch))
        run.step()

    assert seen == [(0, "a"), (1, "b"), (2, "c")]


def test_an_environment_in_part_is_an_error_that_names_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match="SPOTRELAY_BUCKET"):
        read_identity({"SPOTRELAY_RUN": "run-1", "SPOTRELAY_TABLE": "t"})


def test_something_else_than_a_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"torch\.nn\.Module"):
        trainer_shim.attach(model="model")


@pytest.mark.parametrize("credentials", [True, False], ids=["with credentials", "without credentials"])
def test_attach_where_aws_does_not_answer_gives_up_in_time(credentials: bool) -> None:
    world = World(pytest.MonkeyPatch())
    environment = {
        **outside(),
        **world.environ(),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nobody listens there
        "SPOTRELAY_TIME_SCALE": "0.003",  # fifteen minutes become three seconds
    }
    if credentials:
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert answer.returncode == 1
    assert "Unavailable" in answer.stderr


FAILING = """
import torch, trainer_shim
from datetime import UTC, datetime
from spotrelay.core.errors import Unavailable
from spotrelay.testing import MemoryObjects, MemoryPublisher, MemoryStore
from tests.shim.world import new_run
from trainer_shim import wiring

class Broken(MemoryObjects):
    def put(self, key, body, checksum=""):
        raise Unavailable("the bucket does not answer")

store = MemoryStore()
store.create(new_run())
wiring.connect = lambda identity: wiring.Ports(store, Broken(), MemoryPublisher())
run = trainer_shim.attach(model=torch.nn.Linear(2, 2))
run.step(1.0)
raise RuntimeError("the script is wrong")
"""


def test_a_script_that_fails_ends_even_if_a_save_is_stuck_for_ever() -> None:
    environment = {**outside(), **World(pytest.MonkeyPatch()).environ()}

    answer = subprocess.run(
        [sys.executable, "-c", FAILING], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert answer.returncode == 1
    assert "the script is wrong" in answer.stderr


def test_an_unreadable_time_scale_is_named() -> None:
    world = World(pytest.MonkeyPatch())
    with pytest.raises(InvalidInput, match="SPOTRELAY_TIME_SCALE='fast'"):
        read_identity({**world.environ(), "SPOTRELAY_TIME_SCALE": "fast"})


def test_a_run_that_is_not_there_is_named(world: World) -> None:
    from spotrelay.core.errors import UnknownRun

    with pytest.raises(UnknownRun, match="run-1"):
        world.attach(1, model=build().model)


def test_fenced_ends_without_a_traceback(world: World) -> None:
    world.submit()
    world.store.fence("run-1", 9)
    with left_with(76):
        world.attach(1, model=build().model)
