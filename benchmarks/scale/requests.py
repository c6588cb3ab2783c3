"""From a call of a port to the requests that its adapter on AWS makes of it, with DynamoDB's units.

`tests/benchmarks/test_scale.py` compares the table below with what the adapters really send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from spotrelay.aws import layout
from spotrelay.core.experience import Experience
from spotrelay.core.row import encode_run, encode_value
from spotrelay.core.run import Run

EXPERIENCE = "EXPERIENCE"
SMALL = 700  # bytes of a heartbeat, lease, commit, verdict or timeline item, rounded up
INDEX_ENTRY = 100  # bytes of one entry of the due index
BESIDE = 400  # bytes of a row's attributes beside its body
EC2_PAGE = 1000
SQS_BATCH = 10


@dataclass(frozen=True)
class Request:
    """One request to AWS."""

    service: str  # dynamodb, ec2, sqs
    operation: str
    partition: str = ""  # of the table or an index
    read_units: float = 0.0
    write_units: float = 0.0


def _read(operation: str, partition: str, size: int = SMALL, strong: bool = True) -> Request:
    return Request("dynamodb", operation, partition, max(ceil(size / 4096), 1) * (1.0 if strong else 0.5))


def _write(operation: str, partition: str, size: int = SMALL, factor: int = 1) -> Request:
    return Request("dynamodb", operation, partition, 0.0, float(max(ceil(size / 1024), 1) * factor))


def size_of(run: Run) -> int:
    """Bytes of a run's row."""
    return len(encode_run(run)) + BESIDE


def of_load(run: Run, size: Callable[[Run], int] = size_of) -> Iterator[Request]:
    """Reading a run with everything beside it."""
    row, live = layout.run_key(run.run_id), layout.live_key(run.run_id)
    yield _read("GetItem", row, size(run))
    yield _read("GetItem", live)
    yield _read("Query", live, SMALL * max(len(run.heartbeats), 1))
    yield _read("Query", live, SMALL * max(len(run.reports), 1))
    yield _read("Query", live, SMALL * max(len(run.checkpoints), 1))
    if run.checkpoints:
        yield _read("Query", row, SMALL * len(run.checkpoints))


def of_save(before: Run, after: Run, size: Callable[[Run], int] = size_of) -> Iterator[Request]:
    """Writing a row; with its news and new machines it is one transaction, which costs twice."""
    news, machines = len(layout.entry_items(after)), len(layout.instance_items(before, after))
    factor = 2 if news or machines else 1
    row = layout.run_key(after.run_id)
    yield _write("TransactWriteItems" if factor == 2 else "PutItem", row, size(after), factor)
    yield from (_write("part of it", row, SMALL, 2) for _ in range(news))
    yield from (_write("part of it", str(item["pk"]["S"]), 200, 2) for item in layout.instance_items(before, after))
    if before.due_at != after.due_at:  # the old entry goes, the new one comes
        shard = f"due/{layout.due_shard(after.run_id)}"
        yield from (_write("index", shard, INDEX_ENTRY) for at in (before.due_at, after.due_at) if at is not None)


def of_due(found: Sequence[str]) -> Iterator[Request]:
    """Asking each partition of the index what is due."""
    there = [layout.due_shard(run_id) for run_id in found]
    for shard in range(layout.SHARDS):
        size = INDEX_ENTRY * there.count(str(shard))
        pages = max(ceil(size / 2**20), 1)
        yield from (_read("Query", f"due/{shard}", ceil(size / pages), strong=False) for _ in range(pages))


def of_owners(instance_ids: Sequence[str], found: dict[str, Run]) -> Iterator[Request]:
    """Looking machines and their runs up, a hundred in a request."""
    rows = {run.run_id: run for run in found.values()}
    for many, each in ((len(instance_ids), 200), (len(rows), max(map(size_of, rows.values()), default=0))):
        for start in range(0, many, 100):
            some = min(100, many - start)
            units = some * max(ceil(each / 4096), 1) * 0.5
            yield Request("dynamodb", "BatchGetItem", read_units=units)  # each item has a partition of its own


def of_managed(listed: Iterable[str], there: dict[str, int], whole: Any) -> Iterator[Request]:
    """Listing machines: one request for a region, or all its pages in its turn."""
    for region in listed:
        pages = max(ceil(there.get(region, 0) / EC2_PAGE), 1) if whole is None or region in whole else 1
        yield from (Request("ec2", "DescribeInstances") for _ in range(pages))


def of_send(many: int) -> Iterator[Request]:
    """Putting runs onto their queue."""
    yield from (Request("sqs", "SendMessageBatch") for _ in range(ceil(many / SQS_BATCH)))


def of_recall(known: Experience) -> Iterator[Request]:
    """Reading everything that the account has learnt; a moment's delay does no harm there."""
    yield _read("Query", EXPERIENCE, len(encode_value(known)), strong=False)


def of_learn(before: Experience, after: Experience, places: Iterable[tuple[str, str]]) -> Iterator[Request]:
    """Reading the item of each region and type, and writing it where something was new."""
    for place in places:
        old, new = (_records(each, place) for each in (before, after))
        yield _read("GetItem", EXPERIENCE, len(encode_value(old)))
        if old != new:
            yield _write("PutItem", EXPERIENCE, len(encode_value(new)))


def _records(experience: Experience, place: tuple[str, str]) -> Experience:
    return Experience(tuple(r for r in experience.records if (r.pool.region, r.pool.instance_type) == place))


def of_small(method: str, partition: str) -> Iterator[Request]:
    """Calls that read or write one small item."""
    reads = {"run_of": 1, "fence": 1}.get(method, 0)
    writes = {"fence": 1, "record_verdict": 1, "join": 1, "retire": 1, "create": 2, "beat": 1}.get(method, 0)
    yield from (_read("GetItem", partition) for _ in range(reads))
    yield from (_write("PutItem", partition) for _ in range(writes))
