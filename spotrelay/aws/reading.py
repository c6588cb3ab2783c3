"""Reading a run with everything beside it; the same for the control plane and for an attempt."""

from __future__ import annotations

from dataclasses import replace

from spotrelay.aws import layout
from spotrelay.aws.lease_item import load_lease
from spotrelay.aws.table import Table
from spotrelay.core.checkpoint import Checkpoint, resume_candidate
from spotrelay.core.errors import UnknownRun
from spotrelay.core.run import Run

NEWEST = 20  # checkpoints read with a run
FAR_BACK = 1000  # when none of those can be resumed from
SIGNS = 8  # heartbeats and reports read with a run, of each machine of an attempt


def load_run(table: Table, run_id: str) -> Run:
    """The run's row, then what attempts wrote: nothing read here is older than the row.

    Raises:
        UnknownRun: there is none.
        UnknownFormat: a newer version wrote it.
    """
    doing = f"reading run {run_id}"
    item = table.get(layout.run_key(run_id), layout.ROW, doing)
    if item is None:
        raise UnknownRun(f"there is no run {run_id}")
    live = layout.live_key(run_id)
    run = layout.read_run(item)
    signs = SIGNS * run.spec.nodes
    return replace(
        run,
        lease=load_lease(table, run_id),
        heartbeats=tuple(map(layout.read_heartbeat, table.newest(live, "BEAT#", signs, doing))),
        reports=tuple(map(layout.read_report, table.newest(live, "REPORT#", signs, doing))),
        checkpoints=_load_far_enough(table, run_id),
    )


def _load_far_enough(table: Table, run_id: str) -> tuple[Checkpoint, ...]:
    """The newest; more of them when a streak of bad ones hides the one to resume from."""
    found = load_checkpoints(table, run_id, NEWEST)
    hidden = len(found) == NEWEST and resume_candidate(found) is None
    return load_checkpoints(table, run_id, FAR_BACK) if hidden else found


def load_checkpoints(table: Table, run_id: str, limit: int) -> tuple[Checkpoint, ...]:
    """The newest committed checkpoints with what is known about them, newest first."""
    doing = f"reading the checkpoints of run {run_id}"
    items = table.newest(layout.live_key(run_id), "COMMIT#", limit, doing)
    commits = [layout.read_commit(item) for item in items]
    if not commits:
        return ()
    judged = table.query(
        "pk = :pk AND sk BETWEEN :oldest AND :newest",
        {
            ":pk": layout.run_key(run_id),
            ":oldest": layout.verdict_key(commits[-1].id),
            ":newest": layout.verdict_key(commits[0].id),
        },
        doing,
    )
    verdicts = {verdict.id: verdict for verdict in map(layout.read_verdict, judged)}
    pairs = zip(commits, items, strict=True)
    return tuple(layout.read_checkpoint(item, verdicts.get(commit.id)) for commit, item in pairs)
