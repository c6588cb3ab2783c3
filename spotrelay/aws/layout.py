"""The DynamoDB table: its keys, its indexes, and each item's way in and out.

One table, two partitions a run: `RUN#` is written by the control plane and by `submit`, `LIVE#` by
attempts as well. Values travel as JSON text in `body`; only what a condition or an index needs is an
attribute of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, Verdict
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport, Heartbeat
from spotrelay.core.row import LONG, PACKED, SCHEMA, check_schema, decode_run, decode_value, encode_run, encode_value
from spotrelay.core.run import Entry, Run

T = TypeVar("T")

Item = dict[str, Any]  # as DynamoDB's low-level API has it: {"pk": {"S": …}}

SHARDS = 8  # partitions of the due index
DUE_INDEX = "due"
RUNS_INDEX = "runs"
LISTED = "RUN"
ROW = "ROW"
LEASE = "LEASE"
RETIRED = "retired_at"  # attribute of a commit's item, where a commit that builds on it can require its absence
PROMOTED = "promoted"  # attribute of a commit's item; its absence is the older writer's no
ASKED = "asked"  # attribute of a heartbeat's item, written by the control plane
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
ENTRIES_AT_MOST = 60  # items of one save; a transaction holds 100


def table_definition(name: str) -> dict[str, Any]:
    """Arguments of CreateTable for a table of this layout."""
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "due_shard", "AttributeType": "S"},
            {"AttributeName": "due_at", "AttributeType": "N"},
            {"AttributeName": "listed", "AttributeType": "S"},
            {"AttributeName": "created_at", "AttributeType": "S"},
        ],
        "KeySchema": _keys("pk", "sk"),
        "GlobalSecondaryIndexes": [
            {
                "IndexName": DUE_INDEX,
                "KeySchema": _keys("due_shard", "due_at"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
            {
                "IndexName": RUNS_INDEX,
                "KeySchema": _keys("listed", "created_at"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    }


def _keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


# keys


def run_key(run_id: str) -> str:
    """Partition of what the control plane writes about a run."""
    return f"RUN#{run_id}"


def live_key(run_id: str) -> str:
    """Partition of what attempts write about a run."""
    return f"LIVE#{run_id}"


def instance_key(instance_id: str) -> str:
    """Partition of one machine's index entry."""
    return f"INSTANCE#{instance_id}"


def verdict_key(checkpoint: CheckpointId) -> str:
    """Sort key of a verification's result."""
    return f"VERDICT#{checkpoint.generation:06d}#{checkpoint.save:06d}"


def commit_key(checkpoint: CheckpointId) -> str:
    """Sort key of a committed checkpoint."""
    return f"COMMIT#{checkpoint.generation:06d}#{checkpoint.save:06d}"


def beat_key(generation: int, node: int = 0) -> str:
    """Sort key of the heartbeat of an attempt's machine."""
    return f"BEAT#{generation:06d}{_node(node)}"


def key(partition: str, sort: str) -> Item:
    """A primary key."""
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def run_id_of(item: Item) -> str:
    """The run that an item of a run's partition belongs to."""
    return str(item["pk"]["S"]).partition("#")[2]


def instance_id_of(item: Item) -> str:
    """The machine that an index entry speaks of."""
    return str(item["pk"]["S"]).partition("#")[2]


# times


def due_shard(run_id: str) -> str:
    """The partition of the due index that a run is in."""
    return str(zlib.crc32(run_id.encode()) % SHARDS)


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970, rounded down."""
    return (at - EPOCH) // MILLISECOND


def _due_milliseconds(at: datetime) -> int:
    return -((EPOCH - at) // MILLISECOND)  # rounded up: nothing is due before its time


# items


def run_item(run: Run, writer: str) -> Item:
    """A run's row.

    Args:
        writer: drawn anew for each write; tells our own write from another's when a reply was lost.
    """
    item = _packed(_body(run_key(run.run_id), ROW, encode_run(run))) | {
        "version": {"N": str(run.version)},
        "status": {"S": run.status.value},
        "created_at": {"S": run.created_at.astimezone(UTC).isoformat()},
        "listed": {"S": LISTED},
        "writer": {"S": writer},
    }
    if run.due_at is not None:
        item |= {"due_shard": {"S": due_shard(run.run_id)}, "due_at": {"N": str(_due_milliseconds(run.due_at))}}
    return item


def read_run(item: Item) -> Run:
    """The run in a row, without what is read beside it."""
    run_id = run_id_of(item)
    _check(item, f"run {run_id}", PACKED if "B" in item["body"] else SCHEMA)
    return replace(decode_run(_unpacked(item, run_id), run_id), version=int(item["version"]["N"]))


def _packed(item: Item) -> Item:
    """The item of a run that has lived through much, compressed: else it would not fit, and each KB costs."""
    text = item["body"]["S"]
    if len(text) <= LONG:
        return item
    return item | {"body": {"B": zlib.compress(text.encode())}, "schema": {"N": str(PACKED)}}


def _unpacked(item: Item, run_id: str) -> str:
    body = item["body"]
    if "B" not in body:
        return str(body["S"])
    try:
        return zlib.decompress(bytes(body["B"])).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise InvalidInput(f"run {run_id} cannot be read: {error}") from error


def lease_item(lease: Lease) -> Item:
    """A run's lease; its fields are attributes, since every commit is conditional on them."""
    item = key(live_key(lease.run_id), LEASE) | {
        "generation": {"N": str(lease.generation)},
        "floor": {"N": str(lease.floor)},
        "save": {"N": str(lease.save)},
        "schema": {"N": str(SCHEMA)},
    }
    return item | ({"holder": {"S": lease.holder}} if lease.holder is not None else {})


def read_lease(item: Item) -> Lease:
    """The lease in its item."""
    run_id = run_id_of(item)
    _check(item, f"lease of run {run_id}")
    generation, floor, save = (int(item[name]["N"]) for name in ("generation", "floor", "save"))
    return Lease(run_id, generation, item["holder"]["S"] if "holder" in item else None, floor, save)


def entry_items(run: Run) -> list[Item]:
    """The run's news as timeline items; what exceeds a transaction shares the last one."""
    texts = [to_json(entry) for entry in run.news]
    bodies = [*texts[: ENTRIES_AT_MOST - 1], *([texts[ENTRIES_AT_MOST - 1 :]] if len(texts) >= ENTRIES_AT_MOST else [])]
    return [
        _body(run_key(run.run_id), f"ENTRY#{run.version:08d}#{index:02d}", json.dumps(body, separators=(",", ":")))
        for index, body in enumerate(bodies)
    ]


def read_entries(items: Iterable[Item]) -> list[Entry]:
    """The timeline in its items, in their order."""
    entries: list[Entry] = []
    for item in items:
        what = f"timeline of run {run_id_of(item)}"
        _check(item, what)
        data = json.loads(item["body"]["S"])
        entries += [from_json(Entry, line, what) for line in (data if isinstance(data, list) else [data])]
    return entries


def instance_items(before: Run, after: Run) -> list[Item]:
    """Index entries of the machines that `after` names and `before` does not."""
    known = {instance_id for attempt in before.attempts for instance_id in attempt.instance_ids}
    return [
        key(instance_key(instance_id), "RUN")
        | {"run_id": {"S": after.run_id}, "generation": {"N": str(attempt.generation)}}
        for attempt in after.attempts
        for instance_id in attempt.instance_ids
        if instance_id not in known
    ]


def commit_item(commit: Commit) -> Item:
    """A committed checkpoint."""
    return _body(live_key(commit.run_id), commit_key(commit.id), encode_value(commit))


def verdict_item(run_id: str, verdict: Verdict) -> Item:
    """A verification's result; `ok` is an attribute, since a condemnation is never taken back."""
    return _body(run_key(run_id), verdict_key(verdict.id), encode_value(verdict)) | {"ok": {"BOOL": verdict.ok}}


def heartbeat_item(heartbeat: Heartbeat) -> Item:
    """The newest sign of life of an attempt's machine."""
    place = beat_key(heartbeat.generation, heartbeat.node)
    return _body(live_key(heartbeat.run_id), place, encode_value(heartbeat))


def report_item(report: ExitReport) -> Item:
    """How an attempt's program ended."""
    return _body(live_key(report.run_id), f"REPORT#{report.generation:06d}{_node(report.node)}", encode_value(report))


def _node(node: int) -> str:
    """What tells a gang's further machines from its first."""
    return f"#{node:03d}" if node else ""


def read_commit(item: Item) -> Commit:
    """The commit in its item."""
    return _value(Commit, item)


def read_checkpoint(item: Item, verdict: Verdict | None) -> Checkpoint:
    """The checkpoint in its commit's item, which also says what became of it."""
    retired_at = datetime.fromisoformat(item[RETIRED]["S"]) if RETIRED in item else None
    return Checkpoint(read_commit(item), verdict, PROMOTED in item, retired_at)


def read_verdict(item: Item) -> Verdict:
    """The verdict in its item."""
    return _value(Verdict, item)


def read_heartbeat(item: Item) -> Heartbeat:
    """The heartbeat in its item."""
    return _value(Heartbeat, item)


def read_word(item: Item) -> str:
    """What was asked of the attempt whose heartbeat this is."""
    return str(item[ASKED]["S"]) if ASKED in item else ""


def read_report(item: Item) -> ExitReport:
    """The report in its item."""
    return _value(ExitReport, item)


def _body(partition: str, sort: str, body: str) -> Item:
    return key(partition, sort) | {"body": {"S": body}, "schema": {"N": str(SCHEMA)}}


def _value(kind: type[T], item: Item) -> T:
    what = f"item {item['sk']['S']} of run {run_id_of(item)}"
    _check(item, what)
    return decode_value(kind, item["body"]["S"], what)


def _check(item: Item, what: str, known: int = SCHEMA) -> None:
    written = item.get("schema", {}).get("N")
    if written is None:
        raise InvalidInput(f"{what} has no schema: it was not written by Spotrelay")
    check_schema(int(written), what, known)
