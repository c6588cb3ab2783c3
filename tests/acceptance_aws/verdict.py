"""The judgement: pure, from collected evidence. Each rule yields what is wrong, and nothing when all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from spotrelay.console.demo.verdict import Finding
from spotrelay.core.ledger import ledger_of
from spotrelay.core.run import RunStatus
from tests.acceptance_aws.evidence import Evidence, Trained

OF_AN_HEIR = ("reserved", "launch", "launched", "alive", "lease", "resumed", "first-step")
SPOT_REASON = "Server.Spot"  # how EC2's codes for its own taking back begin


def judge(evidence: Evidence) -> list[Finding]:
    """Every rule's answer, in order."""
    return [Finding(rule, tuple(find(evidence))) for rule, find in RULES.items()]


def figures(evidence: Evidence) -> dict[str, Any]:
    """What the last line shows besides the verdict."""
    run = evidence.interrupted.run
    books = ledger_of(run, run.ended_at or run.created_at)
    return {
        "digests_equal": len(_digests(evidence)) == 1 and "" not in _digests(evidence),
        "losses": len(books.recoveries),
        "machines": len(evidence.interrupted.machines),
        "steps_lost": [r.steps_lost for r in books.recoveries],
        "rto_s": [round(r.rto.total_seconds(), 1) if r.rto is not None else None for r in books.recoveries],
        "goodput": round(books.goodput, 4),
    }


def _digests(evidence: Evidence) -> set[str]:
    both = (evidence.interrupted, evidence.reference)
    return {digest for trained in both for digest in (trained.digest_printed, trained.digest_stored)}


# The rules


def _both_succeeded(evidence: Evidence) -> Iterator[str]:
    for run in (evidence.interrupted.run, evidence.reference.run):
        if run.status is not RunStatus.SUCCEEDED:
            yield f"run {run.run_id} {run.status.value}: {run.outcome_why}"


def _really_interrupted(evidence: Evidence) -> Iterator[str]:
    taken = next((m for m in evidence.interrupted.machines if m.instance_id == evidence.taken), None)
    if taken is None:
        yield f"EC2 never showed {evidence.taken}"
    elif not taken.reason.startswith(SPOT_REASON):
        yield f"{evidence.taken} was ended by {taken.reason or 'nobody knows what'}, not by an interruption"


def _reference_was_left_alone(evidence: Evidence) -> Iterator[str]:
    if len(evidence.reference.machines) != 1:
        count = len(evidence.reference.machines)
        yield f"the run to compare with had {count} machines: AWS took one as well. Run the test again"


def _same_weights(evidence: Evidence) -> Iterator[str]:
    if len(_digests(evidence)) != 1 or "" in _digests(evidence):
        for trained in (evidence.interrupted, evidence.reference):
            printed, stored = trained.digest_printed or "no digest", trained.digest_stored or "none"
            yield f"run {trained.run.run_id} printed {printed}, its last checkpoint in S3 holds {stored}"


def _same_losses(evidence: Evidence) -> Iterator[str]:
    """Every loss that any attempt printed, repeated steps included."""
    expected = {step: loss for losses in evidence.reference.losses.values() for step, loss in losses.items()}
    for generation, losses in sorted(evidence.interrupted.losses.items()):
        differing = [step for step, loss in sorted(losses.items()) if expected.get(step) != loss]
        if differing:
            yield f"attempt {generation} had another loss than the uninterrupted run at step {differing[0]}"
    if not any(evidence.interrupted.losses.values()):
        yield "no attempt printed any loss"


def _one_launch_for_each_loss(evidence: Evidence) -> Iterator[str]:
    """By EC2's own description: one machine for each generation, one generation for each machine lost."""
    for trained in (evidence.interrupted, evidence.reference):
        count = Counter(machine.generation for machine in trained.machines)
        yield from (f"attempt {g} of {trained.run.run_id} has {n} machines" for g, n in sorted(count.items()) if n > 1)
        recorded = {attempt.instance_id for attempt in trained.run.attempts}
        yield from (f"{m.instance_id} is in no record" for m in trained.machines if m.instance_id not in recorded)
        shown = {machine.instance_id for machine in trained.machines}
        yield from (f"{i} is recorded, and EC2 never showed it" for i in sorted(filter(None, recorded - shown)))
    lost = len(ledger_of(evidence.interrupted.run, evidence.interrupted.run.created_at).recoveries)
    if len(evidence.interrupted.machines) != lost + 1:
        yield f"{lost} machines were lost, and EC2 launched {len(evidence.interrupted.machines)}"


def _one_writer(evidence: Evidence) -> Iterator[str]:
    """The order of the ids is the order in which S3 took the manifests: nobody committed after a successor."""
    for trained in (evidence.interrupted, evidence.reference):
        name = trained.run.run_id
        if not trained.commits:
            yield f"the table has no commit of {name}"
        for earlier, later in pairwise(sorted(trained.commits, key=lambda c: c.id)):
            if later.written_at < earlier.written_at:  # whole seconds
                yield f"checkpoint {earlier.id} of {name} was written after {later.id}"
        generations = {commit.id.generation for commit in trained.commits}
        yield from _known(trained, generations)


def _known(trained: Trained, generations: set[int]) -> Iterator[str]:
    known = {attempt.generation for attempt in trained.run.attempts}
    yield from (f"attempt {g} of {trained.run.run_id} committed, and nobody knows it" for g in generations - known)
    lease = trained.run.lease
    if lease is not None and generations and lease.generation < max(generations):
        yield f"the lease of {trained.run.run_id} is at {lease.generation}, a commit at {max(generations)}"


def _resumed_from_verified(evidence: Evidence) -> Iterator[str]:
    verified: set[str] = set()
    for entry in evidence.interrupted.timeline:
        name = str(entry.data.get("checkpoint", ""))
        if entry.kind == "verified":
            verified.add(name)
        if entry.kind == "resumed" and name not in verified:
            yield f"attempt {entry.generation} resumed from {name or 'nothing'}, which was not verified"


def _facts_recorded(evidence: Evidence) -> Iterator[str]:
    kinds = {(entry.kind, entry.generation) for entry in evidence.interrupted.timeline}
    attempt = evidence.interrupted.run.attempt_on(evidence.taken)
    if attempt is None:
        yield f"no attempt is recorded on {evidence.taken}"
        return
    lost, heir = attempt.generation, attempt.generation + 1
    for kind, generation in (("notice", lost), ("ended", lost), *((kind, heir) for kind in OF_AN_HEIR)):
        if (kind, generation) not in kinds:
            yield f"the timeline has no line `{kind}` of attempt {generation}"


def _nothing_running(evidence: Evidence) -> Iterator[str]:
    yield from (f"{m.instance_id} of {m.run_id} is {m.state}" for m in evidence.still_running)


RULES: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "both runs succeeded": _both_succeeded,
    "EC2 really took the machine back": _really_interrupted,
    "the other run was left alone": _reference_was_left_alone,
    "final weights equal those of the uninterrupted run": _same_weights,
    "every loss equals that of the uninterrupted run": _same_losses,
    "one launch for each loss": _one_launch_for_each_loss,
    "nobody committed after a successor": _one_writer,
    "resumed only from verified checkpoints": _resumed_from_verified,
    "every fact is recorded": _facts_recorded,
    "nothing was left running": _nothing_running,
}
