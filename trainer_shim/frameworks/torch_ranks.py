"""The ranks of torch.distributed, over gloo groups of our own, whatever the training itself uses."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from spotrelay.core.errors import InvalidInput
from trainer_shim.ranks import Alone, Numbers, Parted, Ranks
from trainer_shim.voice import say

FOR_EVER = timedelta(days=1)  # of one exchange: how long it may take is for the caller to say
LOOK_LEAST_S, LOOK_MOST_S = 0.0001, 0.02  # between looks at an exchange
LONG_S = 60.0  # of a wait, after which a line says so
GATHERING_S = 30.0  # until a line says that ranks are missing at attach()


def ranks() -> Ranks:
    """All ranks that train with this process; every one of them has to call this.

    Raises:
        InvalidInput: they were started and cannot talk to each other, or are on several machines.
    """
    started = int(os.environ.get("WORLD_SIZE") or "1")
    there = distributed.is_available() and distributed.is_initialized()
    if not there:
        if started > 1:
            raise InvalidInput(
                f"this is one of {started} processes of one training, and they do not know each other yet: call "
                "torch.distributed.init_process_group() before attach()"
            )
        return Alone()
    size = distributed.get_world_size()
    if size == 1:
        return Alone()
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or str(size))
    if here != size and int(os.environ.get("SPOTRELAY_NODES") or "1") == 1:
        raise InvalidInput(
            f"{size} ranks, {here} of them on this machine, and the run has one machine: "
            "say in its spec how many train together (nodes: 2)"
        )
    return GlooRanks()


class GlooRanks:
    """See `trainer_shim.ranks.Ranks`."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.watches = int(os.environ.get("LOCAL_RANK") or str(self.rank)) == 0
        self._group = _group()

    def compare(self, numbers: Numbers) -> Callable[[float], Numbers]:
        """See `Ranks.compare`."""
        values = torch.tensor(numbers, dtype=torch.int64)
        try:
            work = distributed.all_reduce(values, distributed.ReduceOp.MAX, group=self._group, async_op=True)
        except (RuntimeError, ValueError) as error:
            raise _parted(error) from error

        def answer(within_s: float) -> Numbers:
            _wait(work, within_s)
            return [int(number) for number in values.tolist()]

        return answer

    def gather(self, value: Any, within_s: float) -> list[Any]:
        """See `Ranks.gather`."""
        body = json.dumps(value, separators=(",", ":")).encode()
        until = time.monotonic() + within_s
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._all_gather(lengths, torch.tensor([len(body)], dtype=torch.int64), until)
        longest = max(int(length) for length in lengths)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        padded = torch.frombuffer(bytearray(body.ljust(longest, b" ")), dtype=torch.uint8)
        self._all_gather(parts, padded, until)
        return [json.loads(part.numpy().tobytes()) for part in parts]

    def beside(self) -> Ranks:
        """See `Ranks.beside`."""
        return GlooRanks()

    def _all_gather(self, into: list[torch.Tensor], value: torch.Tensor, until: float) -> None:
        try:
            work = distributed.all_gather(into, value, group=self._group, async_op=True)
        except (RuntimeError, ValueError) as error:
            raise _parted(error) from error
        _wait(work, until - time.monotonic())


def _group() -> Any:
    missing = threading.Timer(
        GATHERING_S, say, ["waiting for the other ranks to call attach(): every rank has to call it"]
    )
    missing.daemon = True
    missing.start()
    try:
        return distributed.new_group(backend="gloo", timeout=FOR_EVER)
    except (RuntimeError, ValueError) as error:
        raise _parted(error) from error
    finally:
        missing.cancel()


def _wait(work: Any, within_s: float) -> None:
    # Looked at instead of waited for: a signal's handler runs between two looks, never inside a wait in C++.
    begun = time.monotonic()
    rest_s, told = LOOK_LEAST_S, within_s > FOR_EVER.total_seconds() / 2
    while not work.is_completed():
        waited_s = time.monotonic() - begun
        if waited_s >= within_s:
            raise Parted(f"another rank did not answer within {within_s:.0f} s")
        if waited_s > LONG_S and not told:
            say("waits for another rank since a minute: all of them have to make the same steps", everywhere=True)
            told = True
        time.sleep(rest_s)
        rest_s = min(2 * rest_s, LOOK_MOST_S)
    try:
        work.wait()
    except RuntimeError as error:
        raise _parted(error) from error


def _parted(error: Exception) -> Parted:
    return Parted(f"another rank of this attempt has left ({str(error).splitlines()[0][:160]})")
