"""What is written down before a decision is acted upon, so that a crash after it is finished by the sweep."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from spotrelay.core.comparing import looking
from spotrelay.core.decisions import Compare, Conclude, Decision, Reserve, Rest, Send, Terminate, Wait
from spotrelay.core.record import conclude
from spotrelay.core.run import Attempt, Intent, Run, note, settle
from spotrelay.core.site import Site


def claim(run: Run, decision: Decision, now: datetime, site: Site, request: dict[str, Any] | None = None) -> Run:
    """The run once this decision is about to be acted upon; to be saved before the act.

    Args:
        request: for a `Reserve`, the exact launch request that `Machines.prepare` made.
    """
    match decision:
        case Wait(until=until):
            return replace(run, due_at=until)
        case Rest():
            return replace(run, due_at=None)
        case Reserve():
            after = _reserved(run, decision, request or {}, now)
        case Send(intent=intent):
            again = replace(intent, sent=intent.sent + 1, due_at=now + site.timings.resend)
            after = note(
                replace(run, intent=again), "launch", decision.why, now, intent.generation, launch=intent.launch
            )
        case Conclude(outcome=outcome, why=why):
            after = conclude(run, outcome, why, now)
        case Compare():
            after = looking(run, decision, now)
        case Terminate(why=why):
            after = note(run, "terminate", f"ending {', '.join(decision.instance_ids)}: {why}", now)
        case _:
            after = run
    return settle(run, replace(after, due_at=now + site.timings.settle))


def _reserved(run: Run, decision: Reserve, request: dict[str, Any], now: datetime) -> Run:
    if run.attempt(decision.generation) is None:
        run = replace(run, attempts=(*run.attempts, Attempt(decision.generation, reserved_at=now)))
    intent = Intent(
        generation=decision.generation,
        launch=decision.launch,
        request=request,
        pools=decision.rung.pools,
        reserved_at=now,
        due_at=now,
        why=decision.why,
        nodes=decision.rung.nodes,
        keeps=decision.rung.keeps,
        rate=decision.rate,
        transfer=decision.transfer,
    )
    run = replace(run, launches=decision.launch, intent=intent, retry_at=None)
    return note(run, "reserved", decision.why, now, decision.generation, launch=decision.launch)
