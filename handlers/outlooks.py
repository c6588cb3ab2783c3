"""The sweep's question to EC2 for placement scores, one at a time and rarely; the answer is kept for all runs."""

from __future__ import annotations

from dataclasses import replace

from handlers.control import ControlPlane
from handlers.settings import SCORES_ASKED
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.outlook import Outlook, next_asked

TURNS = 5  # sweeps; in one of them it is looked for a question that is due


def look_out(plane: ControlPlane) -> None:
    """Ask the question that is due, if there is one. No answer is no failure: it is said once, and tried again."""
    now, timings = plane.clock.now(), plane.site.timings
    if (
        plane.scores is None
        or plane.experience is None
        or int(now.timestamp() // timings.watch.total_seconds()) % TURNS
    ):
        return
    outlooks = plane.experience.recall().outlooks
    wanted = next_asked(outlooks, now, timings.scale)
    if wanted is None:
        return
    plane.telemetry.count(SCORES_ASKED)
    try:
        scores = plane.scores.ask(wanted.question)
        after = replace(wanted, asked_at=now, told_at=now, scores=scores, problem="")
    except SpotrelayError as error:
        after = replace(wanted, asked_at=now, problem=str(error))
        _tell(after, outlooks, plane)
    plane.experience.keep(after)


def _tell(outlook: Outlook, before: tuple[Outlook, ...], plane: ControlPlane) -> None:
    """Say once that there is no answer, not for each question and each try."""
    if not any(known.problem for known in before):
        types = ", ".join(outlook.question.instance_types)
        what = "no placement scores: launches are chosen without them"
        plane.telemetry.warning(what, instance_types=types, cause=outlook.problem)
