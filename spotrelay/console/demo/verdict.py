"""The judgement: pure, from collected evidence. Each rule yields what is wrong, and nothing when all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from spotrelay.console.demo.evidence import Evidence, Request
from spotrelay.console.demo.scenes import Reclaim
from spotrelay.core.ledger import ledger_of
from spotrelay.core.live import EXIT_FENCED
from spotrelay.core.run import RunStatus

OF_AN_HEIR = ("reserved", "launch", "launched", "alive", "lease", "resumed", "first-step")
OVER = ("terminated", "shutting-down")


@dataclass(frozen=True)
class Finding:
    """One rule's answer."""

    rule: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def judge(evidence: Evidence) -> list[Finding]:
    """Every rule's answer, in order."""
    return [Finding(rule, tuple(find(evidence))) for rule, find in RULES.items()]


def summary(evidence: Evidence, findings: list[Finding], wall_s: float) -> dict[str, Any]:
    """The figures for the last line."""
    run = evidence.run
    books = ledger_of(run, run.ended_at or run.created_at)
    generations = {r.generation for r in evidence.reclaims}
    recoveries = {r.lost_generation: r for r in books.recoveries if r.lost_generation in generations}
    began = min((a.running_at for a in run.attempts if a.running_at), default=run.created_at)
    letters = [r.letter for r in evidence.reclaims]
    survived = {r.letter for r in evidence.reclaims} - {
        r.letter for r in evidence.reclaims if r.generation not in recoveries
    }
    return {
        "reclaims_survived": len(survived),
        "reclaims": len(set(letters)),
        "digests_equal": _digests_equal(evidence),
        "wall_s": round(wall_s, 1),
        "training_s": round(((run.ended_at or run.created_at) - began).total_seconds(), 1),
        "goodput": round(books.goodput, 4),
        "steps_lost": [r.steps_lost for r in recoveries.values()],
        "rto_s": [round(r.rto.total_seconds(), 1) if r.rto is not None else None for r in recoveries.values()],
        "verdict": "passed" if all(f.ok for f in findings) else "failed",
        "failed": [f.rule for f in findings if not f.ok],
    }


def _digests_equal(evidence: Evidence) -> bool:
    found = {evidence.digest_printed, evidence.digest_stored, evidence.digest_reference}
    return len(found) == 1 and "" not in found


# The rules


def _run_succeeded(evidence: Evidence) -> Iterator[str]:
    if evidence.run.status is not RunStatus.SUCCEEDED:
        yield f"the run {evidence.run.status.value}: {evidence.run.outcome_why}"


def _same_weights(evidence: Evidence) -> Iterator[str]:
    if not _digests_equal(evidence):
        yield (
            f"the run printed {evidence.digest_printed or 'no digest'}, its last checkpoint in S3 holds "
            f"{evidence.digest_stored or 'none'}, the uninterrupted run has {evidence.digest_reference or 'none'}"
        )


def _same_losses(evidence: Evidence) -> Iterator[str]:
    """Every loss that any attempt ever printed, repeated steps included."""
    compared = 0
    for generation, losses in sorted(evidence.losses.items()):
        differing = [s for s, loss in sorted(losses.items()) if evidence.losses_reference.get(s) != loss]
        compared += len(losses)
        if differing:
            yield f"attempt {generation} had another loss than the uninterrupted run at step {differing[0]}"
    if not compared:
        yield "no attempt printed any loss"


def _one_writer(evidence: Evidence) -> Iterator[str]:
    """From the request log: whoever took the lease last is the only one whose commits were applied."""
    generation_of = {machine.instance_id: machine.generation for machine in evidence.machines}
    seen: set[str] = set()
    newest, last = 0, (0, 0)
    for request in evidence.requests:
        generation = generation_of.get(request.instance_id, 0)
        if request.what == "take" and request.applied:
            newest = max(newest, generation)
        if request.what != "commit" or not request.applied:
            continue
        claimed, save = _numbers(request.checkpoint)
        if claimed != generation:
            yield f"{request.instance_id} of attempt {generation} committed as attempt {claimed}"
        if claimed < newest:
            yield f"attempt {claimed} committed {request.checkpoint} after attempt {newest} had taken the lease"
        if request.checkpoint in seen:
            yield f"checkpoint {request.checkpoint} was committed twice"
        if (claimed, save) <= last:
            yield f"checkpoint {request.checkpoint} was committed after {last[0]}.{last[1]}"
        seen.add(request.checkpoint)
        last = max(last, (claimed, save))
    if not seen:
        yield "no commit was seen in the request log"


def _zombies(evidence: Evidence) -> Iterator[str]:
    """The first zombie is refused at its commit; the second one's commit stands, and it commits no more."""
    codes = {report.generation: report.code for report in evidence.run.reports}
    for reclaim in (r for r in evidence.reclaims if r.zombie):
        who = f"zombie {reclaim.instance_id} (attempt {reclaim.generation})"
        commits = [r for r in evidence.requests if r.what == "commit" and r.instance_id == reclaim.instance_id]
        later = [r for r in commits if r.at_s >= reclaim.woken_at_s]
        if any(r.applied for r in later):
            yield f"{who} committed after it was replaced"
        if reclaim.zombie == "before" and not any(not r.applied for r in later):
            yield f"{who} never tried to commit after it woke, so that nothing was refused"
        if reclaim.zombie == "after":
            yield from _held_commit(evidence, reclaim, commits, who)
        code = codes.get(reclaim.generation)
        if code != EXIT_FENCED:
            yield f"{who} did not find out that it was replaced: its program ended with {code}, not {EXIT_FENCED}"


def _held_commit(evidence: Evidence, reclaim: Reclaim, commits: list[Request], who: str) -> Iterator[str]:
    held = [r for r in commits if r.applied and r.at_s < reclaim.woken_at_s]
    known = {str(c.id) for c in evidence.run.checkpoints} | {str(e.data.get("checkpoint")) for e in evidence.timeline}
    if not held:
        yield f"{who} was stopped before its commit was applied"
    elif held[-1].checkpoint not in known:
        yield f"{who} had committed {held[-1].checkpoint}, which nobody knows"


def _one_launch(evidence: Evidence) -> Iterator[str]:
    """From EC2's own ledger: one machine for each generation, and one generation for each machine lost."""
    count = Counter(machine.generation for machine in evidence.machines)
    yield from (f"attempt {g} has {n} machines" for g, n in sorted(count.items()) if n > 1)
    wanted = len(evidence.reclaims) + 1
    if len(evidence.machines) != wanted:
        yield f"{wanted} machines were to be launched, EC2 knows {len(evidence.machines)}"
    recorded = {a.instance_id for a in evidence.run.attempts}
    yield from (f"{m.instance_id} is in no record" for m in evidence.machines if m.instance_id not in recorded)


def _nothing_running(evidence: Evidence) -> Iterator[str]:
    yield from (f"{m.instance_id} is {m.state}" for m in evidence.machines if m.state not in OVER)
    yield from (f"process {process} is alive" for process in evidence.processes)


def _facts_recorded(evidence: Evidence) -> Iterator[str]:
    kinds = {(entry.kind, entry.generation) for entry in evidence.timeline}
    for reclaim in evidence.reclaims:
        lost, heir = reclaim.generation, reclaim.generation + 1
        wanted = [("ended", lost), *((kind, heir) for kind in OF_AN_HEIR)]
        wanted += [("notice", lost)] if reclaim.noticed else []
        for kind, generation in wanted:
            if (kind, generation) not in kinds:
                yield f"({reclaim.letter}) the timeline has no line `{kind}` of attempt {generation}"
    reasons = [e for e in evidence.timeline if e.kind in ("reserved", "ended") and not e.text]
    yield from (f"the line `{e.kind}` of attempt {e.generation} gives no reason" for e in reasons)
    if not any(entry.kind == "succeeded" for entry in evidence.timeline):
        yield "the timeline does not say that the run succeeded"


def _whole_checkpoints_only(evidence: Evidence) -> Iterator[str]:
    """Each heir resumed from a checkpoint that was verified before, and never from a harmed or partial one."""
    forbidden = {r.damaged for r in evidence.reclaims} | {r.partial for r in evidence.reclaims}
    verified: set[str] = set()
    for entry in evidence.timeline:
        name = str(entry.data.get("checkpoint", ""))
        if entry.kind == "verified":
            verified.add(name)
        if entry.kind == "resumed" and name not in verified:
            yield f"attempt {entry.generation} resumed from {name}, which was not verified"
        if entry.kind == "resumed" and name in forbidden:
            yield f"attempt {entry.generation} resumed from {name}, which was harmed"
    condemned = {str(e.data.get("checkpoint")) for e in evidence.timeline if e.kind == "condemned"}
    for reclaim in evidence.reclaims:
        if reclaim.damaged and reclaim.damaged not in condemned:
            yield f"checkpoint {reclaim.damaged} lost a shard, and nobody found out"
        if reclaim.partial and any(r.applied and r.checkpoint == reclaim.partial for r in evidence.requests):
            yield f"checkpoint {reclaim.partial} was cut off and is committed all the same"


def _ladder_climbed(evidence: Evidence) -> Iterator[str]:
    """Refusals in both forms were met, and the next machine was of another type."""
    type_of = {machine.generation: machine.instance_type for machine in evidence.machines}
    for reclaim in (r for r in evidence.reclaims if r.refused_by_5xx):
        heir, who = type_of.get(reclaim.generation + 1, "none"), f"({reclaim.letter})"
        if heir in (*reclaim.refused_in_fleets, reclaim.refused_by_5xx):
            yield f"{who} the next machine is a {heir}, of which there was none"
        lines = [e for e in evidence.timeline if e.kind == "refused" and e.generation == reclaim.generation + 1]
        refused = {str(e.data.get("pool", "")).split("/")[0] for e in lines}
        if not refused & set(reclaim.refused_in_fleets):
            yield f"{who} no refusal in a fleet's answer is recorded"
        if reclaim.refused_by_5xx not in refused:
            yield f"{who} no refusal of {reclaim.refused_by_5xx} is recorded"
        if not any(r.what == "launch" and (r.status or 0) >= 500 for r in evidence.requests):
            yield f"{who} EC2 never answered a launch with a 5xx"


RULES: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "the run succeeded": _run_succeeded,
    "final weights equal those of the uninterrupted run": _same_weights,
    "every loss equals that of the uninterrupted run": _same_losses,
    "at no moment could two attempts commit": _one_writer,
    "zombies were refused, and found out": _zombies,
    "one launch for each reclaim": _one_launch,
    "resumed only from verified, whole checkpoints": _whole_checkpoints_only,
    "refused capacity led to other pools": _ladder_climbed,
    "every fact is recorded": _facts_recorded,
    "nothing is left running": _nothing_running,
}


def _numbers(checkpoint: str) -> tuple[int, int]:
    generation, _, save = checkpoint.partition(".")
    return int(generation), int(save)
