"""The function that looks without being asked: `handlers.sweep.handler`, every minute.

What was missed, lost or left half done is found here: runs whose due time has come, and machines
with our tag that no run knows.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any
from zlib import crc32

from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.control import ControlPlane, Keeper
from handlers.outlooks import look_out
from handlers.respond import respond
from handlers.settings import (
    DUE_RUNS,
    HOSTS_OUT_OF_REACH,
    ORPHANS_ADOPTED,
    ORPHANS_TERMINATED,
    SPEND_RATE,
    SWEEP_FAILURES,
)
from handlers.wiring import observed, wired
from spotrelay.core.budget import MICRO, called, hourly
from spotrelay.core.errors import OutOfReach, SpotrelayError, UnknownRun
from spotrelay.core.facts import MachineFound
from spotrelay.core.notice import InterruptionNotice, NoticeSource
from spotrelay.core.ports import Machine
from spotrelay.core.run import Run, machine_on

MOST_DUE = 20_000  # runs taken up by one sweep; the next one takes the rest
AT_ONCE = 100  # machines whose runs are looked up together
TOGETHER = 20  # due runs that are queued for the same moment; a crowd of them is spread over half a minute
TURNS = 10  # sweeps; in one of them every machine of a region is looked at, though there be a crowd


class SweepFailed(SpotrelayError):
    """A part of the sweep did not work; the rest did. Alarmed; the next sweep does it again."""


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Sweep once."""
    wires = wired()
    return observed(wires, lambda: sweep(wires.plane), event, context)


def sweep(plane: ControlPlane) -> dict[str, Any]:
    """Do everything that is due, each part guarded against the failure of the others.

    Raises:
        SweepFailed: at the very end, naming what failed.
    """
    failures: list[str] = []

    def guarded(what: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - reported at the end; the other parts must not wait for it
            trace = traceback.format_exc()
            plane.telemetry.error("a step of the sweep failed", step=what, cause=repr(error), trace=trace)
            failures.append(f"{what}: {error}")
            return None

    due = guarded("due runs", lambda: plane.store.due(plane.clock.now(), MOST_DUE)) or []
    plane.telemetry.count(DUE_RUNS, len(due))
    _take_up(due, plane, guarded)
    if plane.keeper is not None:
        guarded("rights of machines on hosts", partial(_tend, plane.keeper, plane))
    drained = guarded("hosts", lambda: _drained(plane)) or frozenset()
    machines: list[Machine] = []  # all that were seen, should one region not answer
    turn = _its_turn(plane)
    guarded("machines", partial(_list, machines, turn, plane))
    for start in range(0, len(machines), AT_ONCE):
        some = machines[start : start + AT_ONCE]
        doubtful = guarded("owners of machines", partial(_doubtful, some, plane)) or []
        for machine in doubtful:
            guarded(f"machine {machine.instance_id}", partial(_compare, machine, plane))
    for machine in machines:
        if machine.pool.region in drained:
            guarded(f"draining {machine.instance_id}", partial(_move_on, machine, plane))
    guarded("placement scores", lambda: look_out(plane))
    payable = guarded("books", lambda: _audit(plane)) or []
    _take_up(payable, plane, guarded)
    if failures:
        plane.telemetry.count(SWEEP_FAILURES, len(failures))
        raise SweepFailed(f"{len(failures)} steps of the sweep failed, the first: {failures[0]}")
    return {"due": len(due), "machines": len(machines)}


def _audit(plane: ControlPlane) -> list[str]:
    """Tell what machines cost at this moment, and level the cells of the account's books.

    Returns the runs that waited for money and can be paid by now.
    """
    budget, now = plane.site.budget, plane.clock.now()
    if budget is None or plane.books is None:
        return []
    cells = plane.books.level(now.date(), budget.ceiling)
    plane.telemetry.count(SPEND_RATE, round(hourly(cells, now) * 100 / MICRO))
    return [waiting.run_id for waiting in called(cells, budget.ceiling, now)]


def _take_up(due: list[str], plane: ControlPlane, guarded: Callable[[str, Callable[[], Any]], Any]) -> None:
    queue = plane.runs_queue
    if queue is None:
        for run_id in due:
            guarded(f"run {run_id}", partial(respond, plane, run_id))
        return
    window = plane.site.timings.watch / 2
    for start in range(0, len(due), TOGETHER):
        guarded("runs queue", partial(queue.send, due[start : start + TOGETHER], window * (start / len(due))))


def _list(machines: list[Machine], turn: frozenset[str], plane: ControlPlane) -> None:
    """Add every machine that is seen. A host that is switched off is no failure of the sweep."""
    try:
        machines.extend(plane.machines.managed(turn))
    except OutOfReach as error:
        plane.telemetry.count(HOSTS_OUT_OF_REACH)
        plane.telemetry.warning("hosts out of reach", cause=str(error))


def _tend(keeper: Keeper, plane: ControlPlane) -> None:
    try:
        keeper.tend()
    except OutOfReach as error:
        plane.telemetry.warning("rights not renewed", cause=str(error))


def _drained(plane: ControlPlane) -> frozenset[str]:
    """Hosts that a person wants empty, as regions."""
    return frozenset(host.region for host in plane.hosts.hosts() if host.draining) if plane.hosts else frozenset()


def _move_on(machine: Machine, plane: ControlPlane) -> None:
    """Tell the run of a machine on a drained host. The console has told it already, if its event was not lost."""
    run_id = plane.store.run_of(machine.instance_id)
    if run_id is not None:
        deadline = plane.clock.now() + plane.site.timings.notice
        respond(plane, run_id, (InterruptionNotice(machine.instance_id, "terminate", deadline, NoticeSource.DRAIN),))


def _its_turn(plane: ControlPlane) -> frozenset[str]:
    """Regions whose machines are looked at in this sweep, however many they are."""
    minute = int(plane.clock.now().timestamp() // 60)
    regions = {region for region, _ in plane.site.zones}
    return frozenset(region for region in regions if crc32(region.encode()) % TURNS == minute % TURNS)


def _doubtful(machines: list[Machine], plane: ControlPlane) -> list[Machine]:
    """Those of these machines for which no run answers, as far as a cheap look tells."""
    owners = plane.store.owners([machine.instance_id for machine in machines])
    return [m for m in machines if not _answers_for(owners.get(m.instance_id), m)]


def _answers_for(run: Run | None, machine: Machine) -> bool:
    attempt = run.attempt_on(machine.instance_id) if run is not None else None
    return attempt is not None and machine_on(attempt, machine.instance_id).live


def _compare(machine: Machine, plane: ControlPlane) -> None:
    """A machine that its run does not know, or takes for gone, is adopted or ended."""
    try:
        run: Run | None = plane.store.load(machine.run_id)
    except UnknownRun:
        run = None
    if run is not None and _belongs_to_open_launch(machine, run):
        if run.intent is not None and run.intent.nodes > 1:
            return  # the same request, sent again, tells of all of them; until then they are nobody's to end
        plane.telemetry.count(ORPHANS_ADOPTED)
        plane.telemetry.warning("machine adopted", run_id=run.run_id, instance_id=machine.instance_id)
        respond(plane, run.run_id, (MachineFound(machine),))
    elif _is_orphan(machine, run, plane):
        plane.machines.terminate(machine.instance_id)
        plane.telemetry.count(ORPHANS_TERMINATED)
        plane.telemetry.error(
            "machine terminated that belongs to no live attempt",
            run_id=machine.run_id,
            instance_id=machine.instance_id,
            generation=machine.generation,
            launch=machine.launch,
        )


def _belongs_to_open_launch(machine: Machine, run: Run) -> bool:
    intent = run.intent
    return (
        run.attempt_on(machine.instance_id) is None
        and intent is not None
        and (intent.generation, intent.launch) == (machine.generation, machine.launch)
    )


def _is_orphan(machine: Machine, run: Run | None, plane: ControlPlane) -> bool:
    """Whether nobody answers for this machine, and nobody can be about to.

    The grace covers a launch whose answer is being recorded at this moment.
    """
    grace = 4 * plane.site.timings.settle
    now = plane.clock.now()
    attempt = run.attempt_on(machine.instance_id) if run is not None else None
    if attempt is None:
        return machine.launched_at is not None and now - machine.launched_at > grace
    gone_at = machine_on(attempt, machine.instance_id).machine_gone_at
    return gone_at is not None and now - gone_at > grace
