"""One system in a process of its own: saves, or restores, and says on its last line what it cost.

Usage: python -m benchmarks.checkpoint.worker ROLE JSON   (started by the harness)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoint.sink import Sink
from benchmarks.checkpoint.systems.system import NotHere

LONGEST_S = 120.0  # for one save
FROZEN = 0.995  # of the parameters in a fine-tune; AdamW triples what the rest weighs
EVERY = 4  # steps from one save to the next
WARM = 5  # steps until training by itself occupies no more than before


@dataclass
class Save:
    """What one checkpoint cost, in seconds."""

    beside: bool  # whether training went on while it was stored
    stall: float  # training stood still: between the steps, and before the next one could change anything
    durable: float = 0.0
    lost: float = 0.0  # of training, stall included, over the steps that followed


def main() -> None:
    role, given = sys.argv[1], json.loads(sys.argv[2])
    roles: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "save": save,
        "restore": restore,
        "emergency": emergency,
        "frozen": frozen,
    }
    try:
        found = roles[role](given)
    except NotHere as error:
        found = {"not_here": str(error)}
    print(json.dumps(found), flush=True)


def save(given: dict[str, Any]) -> dict[str, Any]:
    """Checkpoints between steps, every fourth, alone or beside the training; the first one is not counted."""
    from benchmarks.checkpoint import occupied
    from benchmarks.checkpoint.workload import build

    system = _system(given)
    system.prepare()
    training = build(given["size"])
    training.step()
    occupied.forget_peak()
    for _ in range(WARM):
        training.step()
    before = occupied.peak()
    system.begin(training)
    training.held_back = system.held_back
    cycles = Cycles(system, training, given.get("forget", True))
    for beside in (True, *((False, True) * given["pairs"])):
        cycles.save(beside)
    occupied.forget_peak()
    cycles.save(beside=True)  # for its memory only: to look at it takes time
    cycles.land()
    extra = occupied.peak() - before
    system.end()
    return {
        "saves": [asdict(each) for each in cycles.saves[1:-1]],
        "step_s": median(cycles.usual),
        "state_bytes": training.state_bytes,
        "extra_bytes": extra,
        "digests": cycles.digests,
        "clients": {name: times[1:] for name, times in getattr(system, "times", {}).items()},
    }


class Cycles:
    """Three steps and a fourth with a save after it, again and again."""

    def __init__(self, system: Any, training: Any, forget: bool = True) -> None:
        self.saves: list[Save] = []
        self.usual: list[float] = []  # seconds of a step while nothing is stored
        self.digests: list[str] = []  # of what was saved
        self._system = system
        self._training = training
        self._forget = forget
        self._flying: threading.Thread | None = None
        self._boundaries: list[float] = []
        self._failures: list[Exception] = []

    def save(self, beside: bool) -> Save:
        """One more."""
        self.land()
        self._training.step()
        self.digests.append(self._training.digest())
        begun = time.monotonic()
        self._system.save()
        made = Save(beside, time.monotonic() - begun - median(self._boundaries))
        self.saves.append(made)

        def wait() -> None:
            try:
                self._system.wait()
                made.durable = (self._system.durable_at or time.monotonic()) - begun
            except Exception as error:  # noqa: BLE001 - raised again by the training thread
                self._failures.append(error)

        self._flying = threading.Thread(target=wait, daemon=True)
        self._flying.start()
        if not beside:
            self._land()
        return made

    def land(self) -> None:
        """The three steps before the next save, beside what is still on its way, and its landing."""
        laps = []
        for _ in range(EVERY - 1):
            lap = self._training.step()
            begun = time.monotonic()
            self._system.pass_by()
            lap.boundary = time.monotonic() - begun
            laps.append(lap)
        if self._flying is None:
            self.usual += [lap.compute + lap.boundary for lap in laps]
            self._boundaries += [lap.boundary for lap in laps]
            return
        made = self.saves[-1]
        made.stall += laps[0].fence
        taken = sum(lap.compute + lap.boundary for lap in laps)
        made.lost = made.stall + taken - len(laps) * median(self.usual)
        self._land()

    def _land(self) -> None:
        assert self._flying is not None
        self._flying.join(LONGEST_S)
        if self._failures:
            raise self._failures[0]
        if self._flying.is_alive():
            raise TimeoutError(f"a save is not durable after {LONGEST_S:.0f} s")
        self._flying = None
        if self._forget:
            self._system.forget_older()


def restore(given: dict[str, Any]) -> dict[str, Any]:
    """The newest checkpoint into a model that has made no step, and one step from it."""
    from benchmarks.checkpoint import occupied
    from benchmarks.checkpoint.workload import build

    system = _system(given)
    system.prepare()
    system.find()
    training = build(given["size"], seed=2)
    before = occupied.now()
    occupied.forget_peak()
    sink = Sink.at(given["endpoint"])
    sink.mark()
    begun = time.monotonic()
    try:
        system.load(training)
    except BaseException as error:  # DCP's own errors are no Exception
        if not given.get("damaged"):
            raise
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    landed = system.landed_at or time.monotonic()
    asked = sink.state()["first_get_at"] or begun  # a system that writes to the disk asks nobody
    peak = system.restored_peak or occupied.peak()
    looking = time.time()
    digest = training.digest()
    looked_s = time.time() - looking
    training.step()
    whole_s = time.time() - given["spawned"] - looked_s
    system.end()
    moments = training.state_bytes - sum(each.numel() * 4 for each in training.model.parameters())
    return {
        "load_s": landed - asked,
        "first_step_s": whole_s,
        "digest": digest,
        "extra_bytes": peak - before - moments,
    }


def emergency(given: dict[str, Any]) -> dict[str, Any]:
    """A save beside the training, and then the last one of a machine that is told to end."""
    from benchmarks.checkpoint import occupied
    from benchmarks.checkpoint.workload import build

    system = _system(given)
    system.prepare()
    training = build(given["size"])
    training.step()
    system.begin(training)
    training.held_back = system.held_back
    cycles = Cycles(system, training)
    for _ in range(3):
        cycles.save(beside=True)
    cycles.land()
    training.step()
    digest = training.digest()
    occupied.forget_peak()
    before = occupied.peak()
    Sink.at(given["endpoint"]).mark()
    os.kill(os.getpid(), signal.SIGTERM)
    told = time.monotonic()
    landed: list[float] = []

    def wait() -> None:
        system.wait()
        landed.append(system.durable_at - told)

    system.save_here()
    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    status = 0
    try:
        system.run.step(training.loss)
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    waiting.join(LONGEST_S)
    return {
        "status": status,
        "digests": [digest],
        "decided_s": Sink.at(given["endpoint"]).state()["first_put_at"] - told,
        "durable_s": landed[0],
        "normal_durable_s": median(each.durable for each in cycles.saves[1:]),
        "extra_bytes": occupied.peak() - before,
        "state_bytes": training.state_bytes,
    }


def frozen(given: dict[str, Any]) -> dict[str, Any]:
    """Bytes that reach S3 for each checkpoint of a fine-tune in which 99.5 % of the parameters are frozen."""
    from benchmarks.checkpoint.workload import build

    system = _system(given)
    system.prepare()
    training = build(given["size"], frozen=FROZEN)
    training.step()
    system.begin(training)
    training.held_back = system.held_back
    cycles = Cycles(system, training, forget=False)
    sink, received = Sink.at(given["endpoint"]), []
    for _ in range(3):
        before = sink.state()["received_bytes"]
        cycles.save(beside=False)
        received.append(sink.state()["received_bytes"] - before)
        system.verify()
    system.end()
    trained = sum(each.numel() for each in training.model.parameters() if each.requires_grad)
    return {
        "received_bytes": received,
        "trained_bytes": 3 * 4 * trained,  # the parameters and two moments, 32 bits each
        "state_bytes": training.state_bytes,
        "digests": cycles.digests,
    }


def _system(given: dict[str, Any]) -> Any:
    from benchmarks.checkpoint.systems import SYSTEMS
    from benchmarks.checkpoint.systems.system import Place

    place = Place(given["endpoint"], given["prefix"], Path(given["folder"]))
    return SYSTEMS[given["system"]].make(place)


if __name__ == "__main__":
    main()
