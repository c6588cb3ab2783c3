"""Training in mixed precision, and generators of GPUs: both come back bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spotrelay.core.spec import Cadence
from tests.shim.training import digest
from tests.shim.world import World
from trainer_shim.frameworks import torch_random

TOTAL = 24
OVERFLOWS = 7  # the step whose gradients are made infinite, so that the scale falls


def mixed(world: World, generation: int, last: int) -> tuple[str, dict[str, Any], list[float]]:
    """Train up to step `last`; the model's digest, the scaler's state and the scale after each step."""
    torch.manual_seed(7)
    model = torch.nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    batches = [torch.randn(4, 8) for _ in range(TOTAL)]
    run = world.attach(generation, model=model, optimizer=optimizer, scaler=scaler)
    scales = []
    for step, batch in run.steps(batches, total=TOTAL):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch).float().square().mean()
        scaler.scale(loss).backward()
        if step == OVERFLOWS:
            assert model.weight.grad is not None
            model.weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        run.step(loss)
        scales.append(scaler.get_scale())
        if step + 1 == last:
            break
    run.close()
    return digest(model), scaler.state_dict(), scales


def test_a_grad_scaler_goes_on_with_its_scale_and_its_count(world: World) -> None:
    alone = World(pytest.MonkeyPatch())
    alone.submit(Cadence(every_steps=1000))
    whole = mixed(alone, 1, TOTAL)
    alone.close()
    world.submit(Cadence(every_steps=1000))
    first = mixed(world, 1, 10)  # after the fall of the scale, in the middle of its count
    world.hand_over(2)

    second = mixed(world, 2, TOTAL)

    assert first[1]["_growth_tracker"] > 0  # else nothing would be lost by forgetting it
    assert first[1]["scale"] != 1024.0
    assert first[2] + second[2] == whole[2]
    assert second[1] == whole[1]
    assert second[0] == whole[0]


def test_a_scaler_that_is_left_out_on_the_resume_is_named(world: World) -> None:
    from spotrelay.core.errors import InvalidInput

    world.submit(Cadence(every_steps=1000))
    mixed(world, 1, 3)
    world.hand_over(2)

    with pytest.raises(InvalidInput, match="scaler is in the checkpoint, and was not attached"):
        world.attach(2, model=torch.nn.Linear(8, 3), optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]))


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and this machine has none")


@gpu
def test_the_generators_of_every_gpu_come_back_where_they_were() -> None:
    torch.cuda.manual_seed_all(11)
    torch.rand(5, device="cuda")
    state = torch_random.process_state()
    expected = [torch.rand(9, device=f"cuda:{n}").tolist() for n in range(torch.cuda.device_count())]

    torch_random.set_process_state(state)

    assert len(state["cuda"]) == torch.cuda.device_count()
    assert [torch.rand(9, device=f"cuda:{n}").tolist() for n in range(torch.cuda.device_count())] == expected


@gpu
def test_dropout_on_a_gpu_goes_on_as_if_never_interrupted(world: World) -> None:
    def losses(place: World, generation: int, last: int) -> list[float]:
        torch.manual_seed(7)
        model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        run = place.attach(generation, model=model, optimizer=optimizer)
        found = []
        for step, batch in run.steps([torch.ones(4, 8)] * TOTAL, total=TOTAL):
            loss = model(batch.cuda()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss)
            found.append(loss.item())
            if step + 1 == last:
                break
        run.close()
        return found

    alone = World(pytest.MonkeyPatch())
    alone.submit(Cadence(every_steps=1000))
    whole = losses(alone, 1, TOTAL)
    alone.close()
    world.submit(Cadence(every_steps=1000))
    first = losses(world, 1, 10)
    world.hand_over(2)

    assert first + losses(world, 2, TOTAL) == whole
