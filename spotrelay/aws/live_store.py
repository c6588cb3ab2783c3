"""What an attempt reads and writes in DynamoDB: lease, commits, heartbeat, report."""

from __future__ import annotations

from typing import Any

from spotrelay.aws import layout
from spotrelay.aws.lease_item import change_lease, load_lease
from spotrelay.aws.reading import NEWEST, load_checkpoints, load_run
from spotrelay.aws.table import ABSENT, Condition, ConditionFailed, Table
from spotrelay.core import lease as rules
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, unpromotable
from spotrelay.core.errors import AlreadyExists, Contention, Fenced, InvalidInput, Missing, Retired
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport, Heartbeat
from spotrelay.core.run import Run

USABLE = Condition(f"attribute_exists(#pk) AND attribute_not_exists(#{layout.RETIRED})")


class DynamoLiveStore:
    """A `LiveStore` over one table of our layout."""

    def __init__(self, client: Any, table: str) -> None:
        self._table = Table(client, table)

    def read_run(self, run_id: str) -> Run:
        """The run with everything that is read beside it."""
        return load_run(self._table, run_id)

    def read_lease(self, run_id: str) -> Lease:
        """The lease as it stands."""
        return load_lease(self._table, run_id)

    def take_lease(self, run_id: str, generation: int, holder: str) -> Lease:
        """Take the lease, or see that one has it already."""
        return change_lease(self._table, run_id, lambda lease: rules.take(lease, generation, holder))

    def release_lease(self, run_id: str, generation: int, holder: str) -> None:
        """Give the lease back."""
        change_lease(self._table, run_id, lambda lease: rules.release(lease, generation, holder))

    def commit(self, commit: Commit, holder: str) -> None:
        """Make a checkpoint exist, in one transaction that requires the lease."""
        held = Condition(
            "#holder = :holder AND #generation = :generation AND #floor <= :generation AND #save < :save",
            {
                ":holder": {"S": holder},
                ":generation": {"N": str(commit.generation)},
                ":save": {"N": str(commit.save)},
            },
        )
        live = layout.live_key(commit.run_id)
        actions = [
            self._table.update_of(live, layout.LEASE, "SET #save = :save", held),
            self._table.put_of(layout.commit_item(commit), ABSENT),
            *(self._table.check_of(live, layout.commit_key(base), USABLE) for base in sorted(set(commit.builds_on))),
        ]
        try:
            self._table.transact(actions, f"committing checkpoint {commit.id} of run {commit.run_id}")
        except ConditionFailed:
            self._explain(commit, holder)

    def promote(self, run_id: str, checkpoint: CheckpointId, holder: str) -> None:
        """Say that the steps after this checkpoint stayed healthy, in one transaction that requires the lease."""
        if self._is_promoted(run_id, checkpoint):
            return
        held = Condition(
            "#holder = :holder AND #generation >= :generation AND #floor <= #generation",
            {":holder": {"S": holder}, ":generation": {"N": str(checkpoint.generation)}},
        )
        mark = Condition(USABLE.expression, {":true": {"BOOL": True}})
        live, sort = layout.live_key(run_id), layout.commit_key(checkpoint)
        actions = [
            self._table.check_of(live, layout.LEASE, held),
            self._table.update_of(live, sort, f"SET #{layout.PROMOTED} = :true", mark),
        ]
        try:
            self._table.transact(actions, f"promoting checkpoint {checkpoint} of run {run_id}")
        except ConditionFailed:
            self._explain_promotion(run_id, checkpoint, holder)

    def checkpoints(self, run_id: str, limit: int = NEWEST) -> tuple[Checkpoint, ...]:
        """The newest checkpoints with what is known about them, newest first."""
        return load_checkpoints(self._table, run_id, limit)

    def beat(self, heartbeat: Heartbeat) -> str:
        """Write the newest sign of life; what was asked of the attempt comes back with the same request."""
        item = layout.heartbeat_item(heartbeat)
        doing = f"writing the heartbeat of run {heartbeat.run_id}, attempt {heartbeat.generation}"
        return layout.read_word(self._table.merge(item, doing))

    def report(self, report: ExitReport) -> None:
        """Write how the program ended; the first report of an attempt stays."""
        doing = f"reporting the end of run {report.run_id}, attempt {report.generation}"
        try:
            self._table.put(layout.report_item(report), doing, ABSENT)
        except ConditionFailed:
            return  # there is one already; that stands

    def _explain(self, commit: Commit, holder: str) -> None:
        """Say why a commit met a failed condition; return if it had been committed before.

        Whoever has lost the lease never gets it back, so a commit that is not there now and was
        sent by this holder can never appear later.
        """
        doing = f"reading checkpoint {commit.id} of run {commit.run_id} back"
        existing = self._table.get(layout.live_key(commit.run_id), layout.commit_key(commit.id), doing)
        if existing is not None:
            if layout.read_commit(existing) == commit:
                return
            raise AlreadyExists(f"run {commit.run_id}: another checkpoint was committed as {commit.id}")
        lease = load_lease(self._table, commit.run_id)
        if not rules.may_commit(lease, commit.generation, holder):
            raise Fenced(
                f"run {commit.run_id}: attempt {commit.generation} does not hold the lease, "
                f"checkpoint {commit.id} was not committed"
            )
        if commit.save <= lease.save:
            raise AlreadyExists(
                f"run {commit.run_id}: checkpoint {commit.generation}.{lease.save} was committed before {commit.id}"
            )
        for base in commit.builds_on:
            if not self._may_be_built_on(commit.run_id, base):
                raise Retired(f"run {commit.run_id}: {commit.id} builds on {base}, which was retired: save whole")
        raise Contention(f"run {commit.run_id}: the lease changed while {commit.id} was committed; send it again")

    def _may_be_built_on(self, run_id: str, checkpoint: CheckpointId) -> bool:
        doing = f"reading checkpoint {checkpoint} of run {run_id}"
        item = self._table.get(layout.live_key(run_id), layout.commit_key(checkpoint), doing)
        return item is not None and layout.RETIRED not in item

    def _is_promoted(self, run_id: str, checkpoint: CheckpointId) -> bool:
        """Whether it is promoted already; raises when it never can be.

        Reason and health never change, so they may be asked for beforehand; the rest is required again.
        """
        doing = f"reading checkpoint {checkpoint} of run {run_id}"
        item = self._table.get(layout.live_key(run_id), layout.commit_key(checkpoint), doing)
        if item is None:
            load_lease(self._table, run_id)
            raise Missing(f"run {run_id}: there is no checkpoint {checkpoint}")
        if why_not := unpromotable(layout.read_commit(item)):
            raise InvalidInput(f"run {run_id}: {why_not}")
        if layout.PROMOTED not in item and layout.RETIRED in item:
            raise Retired(f"run {run_id}: {checkpoint} is retired")
        return layout.PROMOTED in item

    def _explain_promotion(self, run_id: str, checkpoint: CheckpointId, holder: str) -> None:
        """Say why a promotion met a failed condition; return if an earlier try of it took effect."""
        if self._is_promoted(run_id, checkpoint):
            return
        if not rules.may_promote(load_lease(self._table, run_id), checkpoint.generation, holder):
            raise Fenced(f"run {run_id}: {holder} does not hold the lease, {checkpoint} was not promoted")
        raise Contention(f"run {run_id}: the lease changed while {checkpoint} was promoted; send it again")
