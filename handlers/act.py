"""Performs a decision through the ports. What came of it is returned as facts, to be recorded.

Every act here may be done twice: a launch carries the token of its intent, and the others say
what should be rather than what to change.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from handlers.collect import collect
from handlers.comparing import looked_for
from handlers.control import ControlPlane
from handlers.judging import judged, judged_all
from handlers.paying import give_back, pay_for_launch, pay_for_machine
from handlers.settings import LAUNCHES_POSTPONED, TERMINATE_FAILED
from spotrelay.core.decisions import (
    AskStacks,
    Collect,
    Compare,
    Decision,
    Drain,
    Fence,
    Observe,
    Pay,
    Recheck,
    Resolve,
    Send,
    Terminate,
    Verify,
)
from spotrelay.core.errors import Contention, OutcomeUnknown, OutOfReach, SpotrelayError, Unavailable
from spotrelay.core.facts import (
    DrainAsked,
    Fact,
    LaunchAbandoned,
    LaunchAnswered,
    LaunchPostponed,
    LaunchUnclear,
    MachineFound,
    MoneyRefused,
    Observed,
    Priced,
    StacksAsked,
    TerminateAsked,
)
from spotrelay.core.hosts import is_host, is_on_host
from spotrelay.core.live import ASK_DRAIN, ASK_STACKS
from spotrelay.core.placement import Pool
from spotrelay.core.run import Intent, Run

Prices = Mapping[Pool, float]  # dollars an hour

TOUCH_THE_WORLD = (
    Fence, Verify, Recheck, Compare, Pay, Send, Resolve, Observe, Terminate, Drain, AskStacks, Collect,
)  # fmt: skip
CHANGE_WHAT_IS_READ_BESIDE = (Fence, Verify, Recheck, Collect)  # the lease and the verdicts are not part of the row


def act(decision: Decision, run: Run, plane: ControlPlane, prices: Prices) -> tuple[Fact, ...]:
    """Do what was decided, and say what came of it.

    Args:
        prices: those that are known already, by pool.

    Raises:
        Unavailable, Contention: a service does not answer; the run stays due, and it is tried again.
    """
    match decision:
        case Fence(floor=floor):
            plane.store.fence(run.run_id, floor)
            return ()
        case Verify(checkpoints=checkpoints):
            return tuple(judged(checkpoints, run, plane))
        case Recheck(checkpoints=checkpoints):
            return tuple(judged_all(checkpoints, run, plane))
        case Compare():
            return tuple(looked_for(decision, plane))
        case Send(intent=intent):
            return _send(intent, run, plane, prices)
        case Pay(generation=generation):
            return pay_for_machine(generation, run, plane)
        case Resolve(intent=intent):
            return (_made(run, intent, plane) or LaunchAbandoned(intent.launch),)
        case Observe(instance_ids=instance_ids):
            return (_observed(instance_ids, run, plane),)
        case Terminate(instance_ids=instance_ids):
            return _terminated(instance_ids, run, plane)
        case Drain() | AskStacks():
            return (_ask(decision, run, plane),)
        case Collect():
            return collect(run, plane)
        case _:
            return ()


def _ask(decision: Drain | AskStacks, run: Run, plane: ControlPlane) -> Fact:
    """Leave a word for an attempt; each request for stacks is another one, so that it is heard anew."""
    generation = decision.generation
    if isinstance(decision, Drain):
        plane.store.ask(run.run_id, generation, ASK_DRAIN)
        return DrainAsked(generation, decision.by, decision.why)
    plane.store.ask(run.run_id, generation, f"{ASK_STACKS} {run.version}")
    return StacksAsked(generation)


def _observed(instance_ids: tuple[str, ...], run: Run, plane: ControlPlane) -> Observed:
    """What became of these machines. That a host of one's own gives no answer is a fact too."""
    where = _regions(run)
    in_ec2 = tuple(i for i in instance_ids if not is_on_host(i))
    states = dict(plane.machines.states(in_ec2, where)) if in_ec2 else {}
    unreached = []
    for instance_id in (i for i in instance_ids if is_on_host(i)):
        try:
            states |= plane.machines.states((instance_id,), where)
        except OutOfReach:
            unreached.append(instance_id)
    return Observed(tuple(states.items()), tuple(unreached))


def _terminated(instance_ids: tuple[str, ...], run: Run, plane: ControlPlane) -> tuple[TerminateAsked, ...]:
    """Ask EC2 to end machines. A refusal holds up nothing else: it is asked for again later."""
    for instance_id in instance_ids:
        try:
            plane.machines.terminate(instance_id)
        except SpotrelayError as error:
            plane.telemetry.count(TERMINATE_FAILED)
            plane.telemetry.error("machine not ended", run_id=run.run_id, instance_id=instance_id, cause=str(error))
    return tuple(map(TerminateAsked, instance_ids))


def _made(run: Run, intent: Intent, plane: ControlPlane) -> MachineFound | None:
    """What a launch made that nobody will send again."""
    if intent.nodes == 1:
        try:
            machine = plane.machines.find(run.run_id, intent.launch, intent.pools[0].region)
        except OutOfReach:
            if not _host_is_lost(intent, plane):
                raise
            return None
        return MachineFound(machine) if machine else None
    gang = plane.machines.find_all(run.run_id, intent.launch)
    return MachineFound(gang[0], gang[1:]) if gang else None


def _send(intent: Intent, run: Run, plane: ControlPlane, prices: Prices) -> tuple[Fact, ...]:
    """Send a launch in its turn, once its money is set aside."""
    now, region = plane.clock.now(), intent.pools[0].region
    if plane.line is not None and intent.turn_at is None and plane.line.stands(region, now):
        return (_stand_in_line(intent, run, plane, f"others wait for {region} too"),)
    money = pay_for_launch(intent, run, plane)
    if isinstance(money, MoneyRefused):  # nothing is sent, and what was sent before is looked for
        return (money, _made(run, intent, plane) or LaunchAbandoned(intent.launch)) if intent.sent else (money,)
    paid = () if money is None else (money,)
    try:
        answer = plane.machines.launch(intent.request, now, first=intent.sent == 0)
    except Contention as error:
        give_back(intent, run, plane)
        return (_stand_in_line(intent, run, plane, str(error)),)
    except (OutcomeUnknown, Unavailable) as error:
        if isinstance(error, (OutcomeUnknown, OutOfReach)) and _host_is_lost(intent, plane):
            give_back(intent, run, plane)
            return (*paid, LaunchAbandoned(intent.launch))
        return (*paid, LaunchUnclear(intent.launch, str(error)))
    if answer.instance_id is None:
        give_back(intent, run, plane)
    return (*paid, LaunchAnswered(intent.launch, answer, prices.get(answer.pool) if answer.pool else None))


def _host_is_lost(intent: Intent, plane: ControlPlane) -> bool:
    """Whether a host has given no clear answer to a launch for so long that the run goes on without it.

    EC2 comes back; a box may not. A machine that it made all the same is fenced, and ended once it answers.
    """
    given = plane.clock.now() - intent.reserved_at
    return is_host(intent.pools[0].region) and given >= plane.site.timings.hopeless


def _stand_in_line(intent: Intent, run: Run, plane: ControlPlane, why: str) -> LaunchPostponed | LaunchUnclear:
    """A launch beyond EC2's rate gets a turn; while the line cannot be read, it goes again after a while."""
    plane.telemetry.count(LAUNCHES_POSTPONED)
    if plane.line is None:
        return LaunchUnclear(intent.launch, why)
    try:
        turn = plane.line.join(intent.pools[0].region, plane.clock.now(), random.random())
    except SpotrelayError as error:
        plane.telemetry.warning("no place in the line of launches", run_id=run.run_id, cause=str(error))
        return LaunchUnclear(intent.launch, why)
    return LaunchPostponed(intent.launch, intent.sent, turn.at, turn.taken, why)


def _regions(run: Run) -> dict[str, str]:
    """Where each machine of the run is."""
    return {instance_id: a.pool.region for a in run.attempts if a.pool for instance_id in a.instance_ids}


def missing_price(run: Run, plane: ControlPlane) -> Priced | None:
    """What a machine costs, if its launch did not tell and it can be learnt.

    Asked once the machine is written down: a price is worth no delay of that.
    """
    attempt = next((a for a in reversed(run.live) if a.price is None), None)
    if attempt is None or attempt.pool is None or attempt.instance_id is None:
        return None
    try:
        price = plane.machines.prices((attempt.pool,)).get(attempt.pool)
    except SpotrelayError as error:
        plane.telemetry.warning("price not known", run_id=run.run_id, pool=str(attempt.pool), cause=str(error))
        return None
    return None if price is None else Priced(attempt.instance_id, price)
