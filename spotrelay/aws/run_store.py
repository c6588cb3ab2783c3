"""The control plane's rows in DynamoDB."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from spotrelay.aws import layout
from spotrelay.aws.lease_item import change_lease
from spotrelay.aws.reading import NEWEST, load_checkpoints, load_run
from spotrelay.aws.table import ABSENT, Condition, ConditionFailed, Table
from spotrelay.core import lease as rules
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Verdict
from spotrelay.core.errors import AlreadyExists, Contention, LostRace, OutcomeUnknown, Unavailable, UnknownRun
from spotrelay.core.lease import Lease
from spotrelay.core.run import Entry, Run


class DynamoRunStore:
    """A `RunStore` over one table of our layout."""

    def __init__(self, client: Any, table: str) -> None:
        self._table = Table(client, table)

    def create(self, run: Run) -> None:
        """Write a new run at version 1, due at once, with its empty lease."""
        doing = f"creating run {run.run_id}"
        run = replace(run, version=1, due_at=run.due_at or run.created_at)
        writer = _new_writer()
        actions = [
            self._table.put_of(layout.run_item(run, writer), ABSENT),
            self._table.put_of(layout.lease_item(Lease(run.run_id)), ABSENT),
            *map(self._table.put_of, layout.entry_items(run)),
        ]
        taken = f"there is a run {run.run_id} already: choose another id"
        try:
            self._table.transact(actions, doing)
        except ConditionFailed as error:
            raise AlreadyExists(taken) from error
        except OutcomeUnknown as error:
            row = self._read_back(run.run_id, error)
            if row is None:
                raise
            if row["writer"]["S"] != writer:
                raise AlreadyExists(taken) from None

    def load(self, run_id: str) -> Run:
        """The run with its lease, newest heartbeats, reports and checkpoints."""
        return load_run(self._table, run_id)

    def save(self, before: Run, after: Run) -> Run:
        """Write `after` and its news if the row still has `before`'s version; index new machines."""
        after = replace(after, version=before.version + 1)
        writer = _new_writer()
        doing = f"saving run {before.run_id} at version {after.version}"
        try:
            self._write(before, after, writer, doing)
        except ConditionFailed as error:
            _expect_ours(before, error.found, writer)
        except OutcomeUnknown as error:
            row = self._read_back(before.run_id, error)
            if row is not None and int(row["version"]["N"]) == before.version:
                raise  # it may still be on its way
            _expect_ours(before, row, writer)
        return replace(after, news=())

    def fence(self, run_id: str, floor: int) -> Lease:
        """Shut every generation below `floor` out of the lease, for good."""
        return change_lease(self._table, run_id, lambda lease: rules.fence(lease, floor))

    def ask(self, run_id: str, generation: int, word: str) -> None:
        """Leave a word for an attempt that has sent a heartbeat: beside the heartbeat, which never overwrites it."""
        beats = Condition("attribute_exists(#pk)", {":word": {"S": word}})
        where = layout.live_key(run_id), layout.beat_key(generation)
        doing = f"asking attempt {generation} of run {run_id} to {word}"
        try:
            self._table.update(*where, f"SET #{layout.ASKED} = :word", doing, beats)
        except ConditionFailed:
            return  # it never sent a heartbeat

    def record_verdict(self, run_id: str, verdict: Verdict) -> None:
        """Write what a verification found; a condemned checkpoint stays condemned."""
        unless_condemned = Condition("attribute_not_exists(#pk) OR #ok = :true", {":true": {"BOOL": True}})
        try:
            self._table.put(
                layout.verdict_item(run_id, verdict),
                f"recording the verdict on checkpoint {verdict.id} of run {run_id}",
                unless_condemned if verdict.ok else None,
            )
        except ConditionFailed:
            return  # condemned by another; that stands

    def checkpoints(self, run_id: str, limit: int = NEWEST) -> tuple[Checkpoint, ...]:
        """The newest checkpoints with what is known about them, newest first."""
        return load_checkpoints(self._table, run_id, limit)

    def retire(self, run_id: str, checkpoint: Checkpoint, at: datetime) -> bool:
        """Let nothing use this checkpoint from now on; the first date stays."""
        unless_promoted = "" if checkpoint.promoted or checkpoint.condemned else " AND attribute_not_exists(#promoted)"
        try:
            self._table.update(
                layout.live_key(run_id),
                layout.commit_key(checkpoint.id),
                f"SET #{layout.RETIRED} = :at",
                f"retiring checkpoint {checkpoint.id} of run {run_id}",
                Condition(
                    f"attribute_exists(#pk) AND attribute_not_exists(#{layout.RETIRED}){unless_promoted}",
                    {":at": {"S": at.astimezone(UTC).isoformat()}},
                ),
            )
        except ConditionFailed as error:
            return error.found is not None and layout.RETIRED in error.found
        return True

    def forget(self, run_id: str, checkpoint: CheckpointId) -> None:
        """Take a retired checkpoint out of the table, with its verdict."""
        retired = Condition(f"attribute_exists(#{layout.RETIRED})")
        actions = [
            self._table.delete_of(layout.live_key(run_id), layout.commit_key(checkpoint), retired),
            self._table.delete_of(layout.run_key(run_id), layout.verdict_key(checkpoint)),
        ]
        try:
            self._table.transact(actions, f"forgetting checkpoint {checkpoint} of run {run_id}")
        except ConditionFailed:
            return  # gone already, or not retired

    def run_of(self, instance_id: str) -> str | None:
        """The run that this machine belongs to."""
        item = self._table.get(layout.instance_key(instance_id), "RUN", f"looking up machine {instance_id}")
        return None if item is None else str(item["run_id"]["S"])

    def owners(self, instance_ids: Sequence[str]) -> dict[str, Run]:
        """The rows of the runs that these machines belong to, by machine."""
        doing = f"looking up {len(instance_ids)} machines"
        entries = self._table.get_many([(layout.instance_key(i), "RUN") for i in instance_ids], doing)
        runs = {layout.instance_id_of(item): str(item["run_id"]["S"]) for item in entries}
        wanted = [(layout.run_key(run_id), layout.ROW) for run_id in sorted(set(runs.values()))]
        rows = {layout.run_id_of(item): layout.read_run(item) for item in self._table.get_many(wanted, doing)}
        return {instance_id: rows[run_id] for instance_id, run_id in runs.items() if run_id in rows}

    def due(self, now: datetime, limit: int = 100) -> list[str]:
        """Ids of runs whose due time has come, longest overdue first."""
        ripe = [
            (int(item["due_at"]["N"]), layout.run_id_of(item))
            for shard in range(layout.SHARDS)
            for item in self._due_in(str(shard), now, limit)
        ]
        return [run_id for _, run_id in sorted(ripe)[:limit]]

    def all_runs(self) -> Iterator[Run]:
        """Every run's row, newest first."""
        listed = self._table.query(
            "listed = :listed",
            {":listed": layout.LISTED},
            "listing the runs",
            IndexName=layout.RUNS_INDEX,
            ScanIndexForward=False,
        )
        for item in listed:
            row = self._row(layout.run_id_of(item), "listing the runs")
            if row is not None:
                yield layout.read_run(row)

    def timeline(self, run_id: str) -> list[Entry]:
        """Every line written about the run, oldest first."""
        values = {":pk": layout.run_key(run_id), ":prefix": "ENTRY#"}
        return layout.read_entries(
            self._table.query("pk = :pk AND begins_with(sk, :prefix)", values, f"reading the timeline of run {run_id}")
        )

    def _row(self, run_id: str, doing: str) -> layout.Item | None:
        return self._table.get(layout.run_key(run_id), layout.ROW, doing)

    def _read_back(self, run_id: str, doubt: OutcomeUnknown) -> layout.Item | None:
        """The row as it stands after a write without an answer; the doubt itself while nobody answers."""
        try:
            return self._row(run_id, f"reading run {run_id} back")
        except (Unavailable, Contention) as error:
            raise doubt from error

    def _write(self, before: Run, after: Run, writer: str, doing: str) -> None:
        item = layout.run_item(after, writer)
        unchanged = Condition("#version = :version", {":version": {"N": str(before.version)}})
        beside = [*layout.entry_items(after), *layout.instance_items(before, after)]
        if beside:
            self._table.transact([self._table.put_of(item, unchanged), *map(self._table.put_of, beside)], doing)
        else:
            self._table.put(item, doing, unchanged)

    def _due_in(self, shard: str, now: datetime, limit: int) -> list[layout.Item]:
        request = {
            "TableName": self._table.name,
            "IndexName": layout.DUE_INDEX,
            "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
            "ExpressionAttributeValues": {":shard": {"S": shard}, ":now": {"N": str(layout.milliseconds(now))}},
            "Limit": limit,
        }
        found = self._table.pages(request, "looking for runs that are due")
        return [item for item, _ in zip(found, range(limit), strict=False)]


def _new_writer() -> str:
    return secrets.token_hex(8)


def _expect_ours(before: Run, row: layout.Item | None, writer: str) -> None:
    """Return if the row was written by `writer`: then an earlier try of this very save took effect."""
    if row is None:
        raise UnknownRun(f"there is no run {before.run_id}")
    if row["writer"]["S"] != writer:
        raise LostRace(f"run {before.run_id} is at version {row['version']['N']}, not {before.version}: read it again")
