"""Scripts that hold the shim wrong, and users who press Ctrl-C: a clear line, and never a torn checkpoint."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import trainer_shim
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Cadence
from tests.shim.training import build, digest
from tests.shim.world import RUN, World, eventually
from trainer_shim import silence


def beat(world: World) -> Any:
    return world.store.load(RUN).heartbeat(1)


def test_a_script_that_never_reports_a_step_is_told_while_it_trains_and_at_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(silence, "PATIENCE_S", 5.0)  # of the world's time, which is short
    world.submit()
    parts = build()

    with caplog.at_level("INFO"):
        run = world.attach(1, **parts.attached())
        for _ in parts.loader:
            pass
        eventually(lambda: "no step was reported" in beat(world).trouble, "the heartbeat says so")
        eventually(lambda: caplog.text.count("Let it call run.step(loss) once for each batch") == 1, "it was said")
        run.close()

    assert "ends without having called run.step(loss): nothing of it was saved" in caplog.text
    assert world.checkpoints == ()


def test_a_script_that_reports_its_steps_hears_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    waiting = silence.Silence(0.0)  # no patience at all
    impatient = waiting.trouble()
    waiting.heard()

    with caplog.at_level("INFO"):
        calm = waiting.trouble()
        waiting.end()

    assert "no step was reported" in impatient
    assert calm == ""
    assert caplog.text == ""


def test_a_run_that_was_finished_before_hears_nothing_of_it_either(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.submit()
    run = world.attach(1, **build().attached())
    for _, _ in run.steps([1, 2], total=2):
        run.step(1.0)
    run.close()
    world.hand_over(2)

    with caplog.at_level("INFO"):
        run = world.attach(2, **build().attached())
        assert list(run.steps([1, 2], total=2)) == []
        run.close()

    assert "run.step(loss)" not in caplog.text


@pytest.mark.parametrize("where", ["while the snapshot is copied", "while the last save is awaited"])
def test_ctrl_c_in_the_middle_of_a_save_leaves_the_checkpoint_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    world.submit(Cadence(every_steps=2))
    parts = build()
    run = world.attach(1, **parts.attached())
    after: dict[int, str] = {}

    def interrupt(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for step, (inputs, wanted) in run.steps(total=5):
            loss = torch.nn.functional.cross_entropy(parts.model(inputs), wanted)
            parts.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
            parts.optimizer.step()
            run.step(loss)
            after[step + 1] = digest(parts.model)
            flight = run._session._saver.flight
            if flight is not None:
                assert flight.over.wait(20)
            if where == "while the snapshot is copied" and step == 3:
                monkeypatch.setattr(run._framework, "stage", interrupt)
            if where == "while the last save is awaited" and step == 4:
                monkeypatch.setattr(run._session, "_wait_for", interrupt)
    monkeypatch.undo()
    run.close()
    world.hand_over(2)

    again = build()
    resumed = world.attach(2, **again.attached())
    assert resumed.resumed_from in (2, 4, 5)
    assert digest(again.model) == after[resumed.resumed_from]


def test_a_process_that_was_forked_after_attach_ends_without_touching_the_run(world: World) -> None:
    world.submit()
    run = world.attach(1, **build().attached())
    for _, _ in run.steps([1, 2], total=2):
        run.step(1.0)

    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.step(1.0)
        except RuntimeError as error:
            run.close()  # nobody's threads are here to be ended
            code = 0 if "only the one that attached may call it" in str(error) else 2
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.step(1.0)  # this process goes on as before
    eventually(lambda: world.steps_committed()[-1] == 3, "the step was committed")


def test_a_process_that_trains_by_itself_on_one_of_several_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GENERATION", "NODES"):
        monkeypatch.setenv(f"SPOTRELAY_{name}", "2")
    for name in ("RUN", "INSTANCE", "TABLE", "BUCKET", "BUS", "HOME_REGION"):
        monkeypatch.setenv(f"SPOTRELAY_{name}", "nobody")

    with pytest.raises(InvalidInput, match="2 machines, and this process knows of 1 rank"):
        trainer_shim.attach(**build().attached())
