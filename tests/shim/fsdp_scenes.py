"""What the ranks of `tests.shim.crew` do: a small transformer under FSDP2, saved and loaded through DCP."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import trainer_shim
from spotrelay.core.checkpoint import newest_promoted
from tests.shim.world import eventually
from trainer_shim.frameworks import torch_dcp

WIDTH = 10  # not a multiple of 4: shards of different sizes, and an empty one among 3 rows on 4 ranks
SYMBOLS = 29
PLACES = 6
BATCH = 8  # of all ranks together


class Block(nn.Module):
    """Attention and a feed-forward layer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.mix(self.norm(x)).chunk(3, dim=-1)
        x = x + functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: torch.Tensor = x + self.feed(x)
        return result


class Model(nn.Module):
    """Predicts the next symbol; counts its calls in a buffer, which FSDP does not shard."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.scale = nn.Parameter(torch.ones(3, WIDTH))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, SYMBOLS)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = self.symbols(text) * self.scale.sum(0)
        for block in self.blocks:
            x = block(x)
        result: torch.Tensor = self.head(x)
        return result


class Script:
    """Model, optimizer and schedule, from a fixed seed."""

    def __init__(self, sharded: bool = True, tied: bool = False) -> None:
        torch.manual_seed(7)
        self.model = Model()
        if tied:
            self.model.head.weight = self.model.symbols.weight
            self.model.scale_again = self.model.scale  # on 4 ranks one has an empty piece of it
        if sharded:
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            for block in self.model.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "scheduler": self.scheduler.state_dict(), "note": ("kept", 1)}

    def take(self, state: dict[str, Any]) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def step(self, number: int) -> float:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        batch = torch.randint(SYMBOLS, (BATCH, PLACES + 1), generator=torch.Generator().manual_seed(number))
        torch.manual_seed(1000 * number + rank)
        return self.learn(batch[rank::ranks])

    def learn(self, mine: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        logits = self.model(mine[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()


def digest(state: Any) -> str:
    """Of every tensor in a state, put together from all ranks, and of everything else in it."""
    found = hashlib.sha256()

    def see(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                see(f"{name}/{key}", value[key])
        elif isinstance(value, (list, tuple)):
            found.update(type(value).__name__.encode())
            for index, item in enumerate(value):
                see(f"{name}/{index}", item)
        elif isinstance(value, torch.Tensor):
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            found.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
            found.update(whole.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(f"{name} {value!r}".encode())

    see("", state)
    return found.hexdigest()


def train(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest checkpoint to `total`, saving after the steps in `saves`."""
    script = Script()
    attempt = torch_dcp.join()
    outcome: dict[str, Any] = {"losses": {}, "first": 0, "states": {}}
    if attempt is not None:
        found = torch_dcp.load(script.state, attempt)
        if found is not None:
            script.take(found.state)
            outcome["first"] = found.step
            outcome["states"][str(found.step)] = digest(script.state())
    for number in range(outcome["first"], arguments["total"]):
        if arguments.get("terminate") == [dist.get_rank(), number]:
            os.kill(os.getpid(), signal.SIGTERM)
        if attempt is not None and attempt.ending():
            dcp.save(script.state(), storage_writer=torch_dcp.SpotrelayWriter(attempt, number))
            attempt.drain()
        outcome["losses"][str(number)] = script.step(number)
        if attempt is not None and number + 1 in arguments.get("saves", []):
            state = script.state()
            outcome["states"][str(number + 1)] = digest(state)
            dcp.save(state, storage_writer=torch_dcp.SpotrelayWriter(attempt, number + 1))
    outcome["digest"] = digest(script.state())
    if attempt is not None and arguments.get("release", True):
        attempt.release()
        attempt.close()
    return outcome


def save_what_json_cannot_hold(arguments: dict[str, Any]) -> dict[str, Any]:
    """Two saves, one of them with an object in it."""
    script = Script()
    attempt = torch_dcp.join()
    assert attempt is not None
    said = ""
    state = {**script.state(), "helper": {"of": {"mine": object()}}}
    try:
        dcp.save(state, storage_writer=torch_dcp.SpotrelayWriter(attempt, 1))
    except dcp.CheckpointException as error:
        said = "; ".join(f"{type(cause).__name__}: {cause}" for cause, _ in error.failures.values())
    attempt.close()
    return {"said": said}


def load_untouched(arguments: dict[str, Any]) -> dict[str, Any]:
    """A load that must fail; says why and whether anything of the state moved."""
    script = Script()
    attempt = torch_dcp.join()
    assert attempt is not None
    state = script.state()
    if arguments["misfit_on"] == dist.get_rank():
        state["model"]["calls"] = state["model"]["calls"].to(torch.int32)
    before, said = digest(state), ""
    with contextlib.ExitStack() as stack:
        stack.callback(attempt.close)
        try:
            torch_dcp.load(lambda: state, attempt)
        except dcp.CheckpointException as error:
            said = "; ".join(f"{type(cause).__name__}: {cause}" for cause, _ in error.failures.values())
    return {"said": said, "untouched": digest(state) == before}


class Pieces(Dataset[torch.Tensor]):
    """Texts, shifted by a number from whoever loads them."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        shift = int(torch.randint(SYMBOLS, ()))
        return (torch.arange(PLACES + 1) * (index + 1) + shift) % SYMBOLS


def attached(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train with `attach()`, as any script does; dropout and data come from each rank's own generators."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    script = Script(sharded=arguments.get("sharded", True), tied=arguments.get("tied", False))
    torch.manual_seed(100 + rank)
    data = Pieces()
    loader = DataLoader(data, batch_size=BATCH // ranks, sampler=DistributedSampler(data, drop_last=True))
    mine: dict[str, Any] = {"losses": []}
    states: dict[str, str] = {}

    def all_of_it() -> str:
        return digest([script.model.state_dict(), script.optimizer.state_dict(), script.scheduler.state_dict()])

    run = trainer_shim.attach(
        model=script.model, optimizer=script.optimizer, scheduler=script.scheduler, loader=loader, extra=mine
    )
    states[str(run.step_number)] = all_of_it()
    for number, text in run.steps(total=arguments["total"]):
        if arguments.get("terminate") == [rank, number]:
            os.kill(os.getpid(), signal.SIGTERM)
        if "bad" in arguments:
            states[f"before {number}"] = all_of_it()
        mine["losses"].append(script.learn(text))
        run.step(float("nan") if [rank, number + 1] in arguments.get("bad", []) else mine["losses"][-1])
        states[str(number + 1)] = all_of_it()
        if "bad" in arguments:
            flight = run._session._saver.flight
            assert flight is None or flight.over.wait(20)
        if [rank, number + 1] == arguments.get("promoted"):
            eventually(partial(_promoted, run), "a checkpoint is promoted")
    run.close()
    return {"states": states, "losses": mine["losses"], "first": run.resumed_from}


def _promoted(run: Any) -> Any:
    return newest_promoted(run._session._ports.store.checkpoints(os.environ["SPOTRELAY_RUN"]))
