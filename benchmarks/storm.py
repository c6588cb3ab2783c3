"""A reclaim storm: every run of a region loses its machine in the same second.

The real handlers run on in-memory ports, in threads, on a simulated clock: EC2 refuses launches
beyond its request rate, every event is delivered twice and in any order, Lambda answers a limited
number of messages a second, and the sweep comes every minute. In the end there must be exactly one
replacement for each run, nothing lost and nothing left over.

Usage: python -m benchmarks.storm [--runs N]
The last line is one JSON object; the exit status is 1 if a count is not what it should be.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, cycle
from typing import Any

from handlers.batch import serve
from handlers.control import ControlPlane
from handlers.kinds import FROM_EC2, FROM_US
from handlers.settings import LOST_RACES
from handlers.sweep import sweep
from spotrelay.core.errors import Fenced, LeaseHeld
from spotrelay.core.line import Pace
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.ports import Machine
from spotrelay.core.run import RunStatus
from spotrelay.testing import Ends, MemoryLine, MemoryMachines, RequestRate
from tests.handlers.plane import World, batch, changed, context, warning

SECOND = timedelta(seconds=1)
NOTICE = timedelta(minutes=2)
DRAIN = timedelta(seconds=30)  # from the notice until the old attempt has released its lease
BOOT = timedelta(seconds=45)  # from a launch until the machine asks for the lease
TOGETHER = 10  # messages in one invocation
UNLIMITED = 10**9


class Queue:
    """An SQS queue on the simulated clock: messages become visible at a time, any of those first."""

    def __init__(self, clock: Callable[[], datetime], dice: random.Random) -> None:
        self._clock = clock
        self._dice = dice
        self._hidden: list[tuple[datetime, int, dict[str, Any]]] = []
        self._seen: list[dict[str, Any]] = []
        self._numbers = count()
        self.received = 0

    def put(self, message: dict[str, Any], after: timedelta = timedelta(0)) -> None:
        heapq.heappush(self._hidden, (self._clock() + after, next(self._numbers), message))

    def send(self, run_ids: Iterable[str], after: timedelta = timedelta(0)) -> None:
        """As the queue of runs that are due."""
        for run_id in run_ids:
            self.put({"run_id": run_id}, after)

    def take(self, most: int) -> list[dict[str, Any]]:
        while self._hidden and self._hidden[0][0] <= self._clock():
            self._seen.append(heapq.heappop(self._hidden)[2])
        taken = [self._any() for _ in range(min(most, len(self._seen)))]
        self.received += len(taken)
        return taken

    def _any(self) -> dict[str, Any]:
        at = self._dice.randrange(len(self._seen))
        self._seen[at], self._seen[-1] = self._seen[-1], self._seen[at]
        return self._seen.pop()

    @property
    def waiting(self) -> int:
        return len(self._seen)


class Storm:
    """The region, its runs, and the control plane that has to cope."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        arguments.pace = arguments.pace or arguments.rate
        self.dice = random.Random(arguments.seed)
        self.rate = RequestRate(UNLIMITED, UNLIMITED)
        self.world = World(machines=MemoryMachines(self.rate))
        self.events = Queue(self.world.clock.now, self.dice)
        self.due = Queue(self.world.clock.now, self.dice)
        self.ends = Ends()
        self.processes = [self.process() for _ in range(arguments.processes)]
        self.agenda: list[tuple[datetime, int, Callable[[], None]]] = []  # what machines do by themselves
        self.order = count()
        self.known = 0  # machines whose boot is on the agenda
        self.at_work: dict[str, int] = {}  # run to the generation that trains
        self.beats = 10  # more than a boot sends
        self.launched_after: list[float] = []  # seconds from the notice
        self.calls_by_second: Counter[int] = Counter()

    def process(self) -> ControlPlane:
        """One process of a function: what it has seen of the line of launches is its own."""
        line = MemoryLine(Pace(self.arguments.pace), self.ends)
        return replace(self.world.plane, runs_queue=self.due, line=line)

    def run_ids(self) -> list[str]:
        return [f"run-{number:05d}" for number in range(self.arguments.runs)]

    def prepare(self) -> None:
        """Every run trains on its first machine and has a verified checkpoint."""
        for run_id in self.run_ids():
            self.world.start(run_id)
            self.world.checkpoint(run_id)
            self.world.tell("Checkpoint Committed", run_id=run_id)
            self.at_work[run_id] = 1
        self.known = len(self.world.machines.machines)
        self.rate.burst, self.rate.per_second = self.arguments.burst, self.arguments.rate
        self.world.machines.requests.clear()

    def strike(self) -> None:
        """Every machine gets its notice now, and goes two minutes later; each event comes twice."""
        self.struck_at = self.world.clock.now()
        for machine in self.world.machines.machines:
            self.tell_twice(warning(machine.instance_id))
            self.later(DRAIN, lambda m=machine: self.release(m))  # type: ignore[misc]  # bound in the default
            self.later(NOTICE, lambda m=machine: self.vanish(m))  # type: ignore[misc]

    def go_on_until_quiet(self) -> float:
        """Let time pass until every run trains again; returns simulated seconds."""
        with ThreadPoolExecutor(self.arguments.threads) as pool:
            for second in range(self.arguments.longest):
                before = self.launch_calls
                self.act_on_agenda()
                if second % 60 == 30:
                    self.beat()
                    sweep(self.processes[0])
                self.answer(self.events, FROM_EC2, pool)
                self.answer(self.due, FROM_US, pool)
                self.boot_new_machines()
                self.calls_by_second[second] = self.launch_calls - before
                if self.is_quiet():
                    return float(second)
                if second % 300 == 299:
                    print(f"{second + 1} simulated s: {len(self.at_work)} runs train", flush=True)
                self.world.clock.advance(SECOND)
        return float("inf")

    @property
    def launch_calls(self) -> int:
        return len(self.world.machines.requests) + self.world.machines.throttled

    # the world outside

    def tell_twice(self, event: dict[str, Any]) -> None:
        for _ in range(2):
            self.events.put(event, SECOND * self.dice.randrange(3))

    def later(self, after: timedelta, do: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.world.clock.now() + after, next(self.order), do))

    def act_on_agenda(self) -> None:
        while self.agenda and self.agenda[0][0] <= self.world.clock.now():
            heapq.heappop(self.agenda)[2]()

    def release(self, machine: Machine) -> None:
        self.at_work.pop(machine.run_id, None)
        self.world.store.release_lease(machine.run_id, machine.generation, machine.instance_id)

    def vanish(self, machine: Machine) -> None:
        for state in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED):
            self.world.machines.set_state(machine.instance_id, state)
            self.tell_twice(changed(machine.instance_id, state))

    def boot_new_machines(self) -> None:
        machines = self.world.machines.machines
        for machine in machines[self.known :]:
            self.launched_after.append((self.world.clock.now() - self.struck_at).total_seconds())
            self.world.machines.set_state(machine.instance_id, InstanceState.RUNNING)
            self.tell_twice(changed(machine.instance_id, InstanceState.RUNNING))
            self.later(BOOT, lambda m=machine: self.take_over(m))  # type: ignore[misc]
        self.known = len(machines)

    def take_over(self, machine: Machine) -> None:
        try:
            self.world.store.take_lease(machine.run_id, machine.generation, machine.instance_id)
        except LeaseHeld:
            self.later(5 * SECOND, lambda: self.take_over(machine))
            return
        except Fenced:  # a twin, which must not exist: what is counted in the end tells of it
            return
        self.at_work[machine.run_id] = machine.generation
        self.world.beat(machine.run_id, machine.generation, first_step=True)
        detail = {"run_id": machine.run_id, "generation": machine.generation, "what": "first-step"}
        for _ in range(2):
            self.due.put({"source": "spotrelay", "detail-type": "Attempt Reported", "detail": detail})

    def beat(self) -> None:
        self.beats += 1
        for run_id, generation in self.at_work.items():
            sign = Heartbeat(run_id, generation, self.beats, Phase.TRAINING, step=10, total=100)
            self.world.store.beat(sign)

    # the functions

    def answer(self, queue: Queue, kinds: Any, pool: ThreadPoolExecutor) -> None:
        messages = queue.take(self.arguments.lambda_rate)
        batches = [messages[at : at + TOGETHER] for at in range(0, len(messages), TOGETHER)]
        work = zip(batches, cycle(self.processes), strict=False)
        answers = pool.map(lambda each: serve(batch(*each[0]), context(), each[1], kinds), work)
        for group, said in zip(batches, answers, strict=True):
            for failure in said["batchItemFailures"]:
                queue.put(group[int(failure["itemIdentifier"].removeprefix("m-"))], 30 * SECOND)

    def is_quiet(self) -> bool:
        if len(self.at_work) < self.arguments.runs or set(self.at_work.values()) != {2} or self.agenda:
            return False
        return not self.events.waiting and all(
            self.world.run(run_id).status is RunStatus.RUNNING for run_id in self.run_ids()
        )

    # what came of it

    def result(self, simulated_s: float, wall_s: float) -> dict[str, Any]:
        machines = self.world.machines
        runs = [self.world.run(run_id) for run_id in self.run_ids()]
        owned = {a.instance_id for run in runs for a in run.attempts}
        launched = sorted(self.launched_after) or [float("inf")]
        seconds = [calls for second, calls in sorted(self.calls_by_second.items()) if second >= 60]
        return {
            "runs": len(runs),
            "events_received": self.events.received,
            "messages_received": self.due.received,
            "replacements": len(machines.machines) - len(runs),
            "runs_lost": sum(run.status is not RunStatus.RUNNING for run in runs),
            "runs_with_one_replacement": sum(len(run.attempts) == 2 for run in runs),
            "orphans": sum(machine.instance_id not in owned for machine in machines.alive),
            "machines_alive": len(machines.alive),
            "terminated_by_us": len(machines.terminations),
            "launch_calls": self.launch_calls,
            "launch_calls_throttled": machines.throttled,
            "places_in_line_asked_for": self.ends.joined,
            "launch_calls_each": round(self.launch_calls / len(runs), 2),
            "peak_calls_a_second_after_the_first_minute": max(seconds, default=0),
            "ec2_launches_a_second": self.arguments.rate,
            "least_possible_s": round(max(0, len(runs) - self.arguments.burst) / self.arguments.rate, 1),
            "simulated_s": simulated_s,
            "notice_to_launch_s": {"p50": launched[len(launched) // 2], "p95": launched[int(len(launched) * 0.95)]},
            "lost_races": self.world.ledger.counts[LOST_RACES],
            "wall_s": round(wall_s, 1),
        }


def is_right(result: dict[str, Any]) -> bool:
    """Exactly as many replacements as losses, none lost, none left over."""
    runs = result["runs"]
    exact = all(result[name] == runs for name in ("replacements", "runs_with_one_replacement", "machines_alive"))
    return exact and not any(result[name] for name in ("runs_lost", "orphans", "terminated_by_us"))


def parser() -> argparse.ArgumentParser:
    """What may be chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=10.0, help="launches a second that EC2 takes")
    parser.add_argument("--burst", type=int, default=100, help="launches at once that EC2 takes")
    parser.add_argument("--pace", type=float, default=None, help="launches a second of the line; EC2's rate if empty")
    parser.add_argument("--processes", type=int, default=50, help="processes of a function, each with its own sight")
    parser.add_argument("--lambda-rate", type=int, default=400, help="messages a second that each function answers")
    parser.add_argument("--threads", type=int, default=8, help="handlers that really run at the same time")
    parser.add_argument("--longest", type=int, default=7200, help="simulated seconds after which it is given up")
    parser.add_argument("--seed", type=int, default=7)
    return parser


def raged(storm: Storm) -> dict[str, Any]:
    """What came of this storm once it has raged."""
    started = time.perf_counter()
    storm.prepare()
    took = time.perf_counter() - started
    print(f"{storm.arguments.runs} runs at work after {took:.1f} s; the storm begins", flush=True)
    storm.strike()
    simulated_s = storm.go_on_until_quiet()
    return storm.result(simulated_s, time.perf_counter() - started)


def main() -> None:
    result = raged(Storm(parser().parse_args()))
    print(json.dumps(result))
    sys.exit(0 if is_right(result) else 1)


if __name__ == "__main__":
    main()
