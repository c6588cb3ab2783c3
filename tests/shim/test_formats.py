"""What past versions wrote is read as it was written; what a newer one wrote is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import FORMAT
from spotrelay.core.errors import InvalidInput, UnknownFormat
from tests.formats import golden, kinds
from tests.formats.golden import Golden
from tests.shim.harm import Scene, Watched
from tests.shim.test_resume_choice import newest_verified
from tests.shim.training import build, digest
from tests.shim.world import RUN, World

GOLDENS = golden.goldens()


def resumed(world: World, golden: Golden, given: dict[str, Any]) -> Any:
    world.submit()
    golden.put_into(world)
    world.store.fence(RUN, 2)
    return world.attach(2, **given)


@pytest.mark.parametrize("each", GOLDENS, ids=lambda each: f"format {each.folder.name}")
def test_a_checkpoint_of_every_version_comes_back_bit_for_bit(world: World, each: Golden) -> None:
    given = kinds.parts(1)

    run = resumed(world, each, given)

    assert run.resumed_from == each.commit.step
    assert golden.digests(given) == each.expected


def test_there_is_one_of_every_version() -> None:
    assert [int(each.folder.name) for each in GOLDENS] == list(range(1, FORMAT + 1))
    assert all(each.manifest.format == int(each.folder.name) for each in GOLDENS)


def test_what_this_version_writes_is_of_its_format_and_comes_back(world: World, tmp_path: Path) -> None:
    golden.write(tmp_path / "new")
    new = Golden(tmp_path / "new")
    given = kinds.parts(1)

    resumed(world, new, given)

    assert new.manifest.format == FORMAT
    assert golden.digests(given) == new.expected


def test_tied_weights_and_views_are_still_the_same_memory_afterwards(world: World) -> None:
    given = kinds.parts(1)
    model = given["model"]
    before = {name: (value, value.data_ptr()) for name, value in model.named_parameters(remove_duplicate=False)}

    resumed(world, GOLDENS[-1], given)

    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[name] is value and value.data_ptr() == where for name, (value, where) in before.items())
    assert all(value.requires_grad for value in after.values())
    assert model.first.weight is model.last.weight
    with torch.no_grad():
        model.flat[4] = 99.0
    assert model.view[0, 0] == 99.0


def test_a_manifest_of_a_newer_format_is_refused_by_name(world: World) -> None:
    scene = Scene(world, *newest_verified(world))
    parts = build()
    framework = Watched(parts.model, parts.optimizer, parts.scheduler, None, {})
    before = digest(parts.model)
    scene.forge(lambda manifest: manifest, lambda body: body.replace(b'"format":1', b'"format":2'))

    with pytest.raises(UnknownFormat, match=rf"format {FORMAT + 1}.*reads up to {FORMAT}: upgrade"):
        scene.resume(framework)

    assert digest(parts.model) == before
    assert scene.told == []


# optimizers of other versions


def fitted(world: World, then: torch.optim.Optimizer, now: torch.optim.Optimizer, change: Any = None) -> None:
    """Save one optimizer's state, change what was saved, and resume with the other."""
    scene = _saved(world, then)
    if change is not None:
        tree = json.loads(json.dumps(scene.manifest.tree["state"]))
        change(tree["others"]["optimizer"])
        scene.forge(lambda manifest: manifest.__class__(**{**vars(manifest), "tree": {**manifest.tree, "state": tree}}))
    model = torch.nn.Linear(2, 2)
    scene.resume(Watched(model, now, None, None, None))


def _saved(world: World, optimizer: torch.optim.Optimizer) -> Scene:
    world.submit()
    model = torch.nn.Linear(2, 2)
    run = world.attach(1, model=model, optimizer=optimizer)
    for _ in range(2):
        for each in optimizer.param_groups[0]["params"]:
            each.grad = torch.ones_like(each)
        optimizer.step()
        run.step(0.5)
        flight = run._session._saver.flight
        assert flight is None or flight.over.wait(20)
    run._session._collect()
    world.hand_over(2)
    newest, older = world.checkpoints[:2]
    return Scene(world, newest, older)


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2, 2))]


def test_an_option_that_the_checkpoint_does_not_have_stays_as_this_script_has_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    now = torch.optim.AdamW(weights(), lr=0.5)

    with caplog.at_level("INFO"):
        fitted(
            world, torch.optim.AdamW(weights(), lr=0.1), now, lambda saved: saved["param_groups"][0].pop("capturable")
        )

    assert now.param_groups[0]["capturable"] is False
    assert now.param_groups[0]["lr"] == 0.1
    assert "the checkpoint has no option capturable, this script's is used: False" in caplog.text


def test_an_option_that_this_torch_does_not_know_is_kept_and_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    now = torch.optim.AdamW(weights())

    with caplog.at_level("INFO"):
        fitted(world, torch.optim.AdamW(weights()), now, lambda saved: saved["param_groups"][0].update(quantum=7))

    assert now.param_groups[0]["quantum"] == 7
    assert "sets no option quantum; it is kept as it was: 7" in caplog.text


def first_state(saved: dict[str, Any]) -> dict[str, Any]:
    """The state of the first parameter, whose keys are numbers in the tree."""
    found: dict[str, Any] = saved["state"]["items"][0][1]
    return found


def test_state_that_this_torch_does_not_know_is_kept_and_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    now = torch.optim.AdamW(weights())

    with caplog.at_level("INFO"):
        fitted(world, torch.optim.AdamW(weights()), now, lambda saved: first_state(saved).update(exp_avg_cube=3.0))

    assert next(iter(now.state.values()))["exp_avg_cube"] == 3.0
    assert "knows no state exp_avg_cube" in caplog.text


def test_state_that_this_torch_needs_and_the_checkpoint_lacks_is_refused_by_name(world: World) -> None:
    now = torch.optim.AdamW(weights())

    with pytest.raises(InvalidInput, match="optimizer: the checkpoint has no exp_avg_sq of parameter 0"):
        fitted(world, torch.optim.AdamW(weights()), now, lambda saved: first_state(saved).pop("exp_avg_sq"))

    assert now.state == {}


def test_another_optimizer_is_refused_by_name(world: World) -> None:
    with pytest.raises(InvalidInput, match="optimizer is SGD in the checkpoint, AdamW here"):
        fitted(world, torch.optim.SGD(weights(), momentum=0.9), torch.optim.AdamW(weights()))


def test_another_number_of_parameters_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match=r"parameters per group are \[1\] in the checkpoint, \[2\] here"):
        fitted(world, torch.optim.AdamW(weights()), torch.optim.AdamW([*weights(), *weights()]))


def test_a_script_that_does_not_fit_is_refused_before_a_shard_is_asked_for(world: World) -> None:
    scene = Scene(world, *newest_verified(world))
    for place in scene.shards:
        scene.bucket.harmed[place] = None
    parts = build(width=20)

    with pytest.raises(InvalidInput, match="does not fit this script, and nothing of it was applied"):
        scene.resume(Watched(parts.model, parts.optimizer, parts.scheduler, None, {}))


def test_the_checkpoint_of_another_framework_is_refused(world: World) -> None:
    scene = Scene(world, *newest_verified(world))
    scene.forge(lambda each: each.__class__(**{**vars(each), "tree": {"arrays": each.tree["arrays"], "state": {}}}))
    parts = build()

    with pytest.raises(InvalidInput, match="written by another framework's script"):
        scene.resume(Watched(parts.model, parts.optimizer, parts.scheduler, None, {}))
