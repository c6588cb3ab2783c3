"""Items: their keys, what conditions and indexes need of them, and a newer writer's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from spotrelay.aws import layout
from spotrelay.core.checkpoint import Verdict
from spotrelay.core.errors import InvalidInput, UnknownFormat
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport
from spotrelay.core.run import note
from spotrelay.testing.contracts.samples import NOON, new_beat, new_commit, new_run, rich_run

RUN = replace(rich_run("r1"), version=7)
ITEMS: list[tuple[layout.Item, Callable[[layout.Item], Any], Any]] = [
    (layout.run_item(RUN, "w"), layout.read_run, RUN),
    (layout.lease_item(Lease("r1", 2, "i-2", 1, 4)), layout.read_lease, Lease("r1", 2, "i-2", 1, 4)),
    (layout.lease_item(Lease("r1")), layout.read_lease, Lease("r1")),
    (layout.commit_item(new_commit("r1", 1, 2)), layout.read_commit, new_commit("r1", 1, 2)),
    (layout.verdict_item("r1", Verdict(1, 2, True)), layout.read_verdict, Verdict(1, 2, True)),
    (layout.heartbeat_item(new_beat("r1", 1, 2)), layout.read_heartbeat, new_beat("r1", 1, 2)),
    (layout.report_item(ExitReport("r1", 1, 0, "boot")), layout.read_report, ExitReport("r1", 1, 0, "boot")),
]
NAMES = ["row", "held lease", "free lease", "commit", "verdict", "heartbeat", "report"]


@pytest.mark.parametrize(("item", "read", "value"), ITEMS, ids=NAMES)
def test_a_value_comes_back_from_its_item(item: layout.Item, read: Callable[[layout.Item], Any], value: Any) -> None:
    assert read(item) == value


@pytest.mark.parametrize(("item", "read", "value"), ITEMS, ids=NAMES)
def test_an_item_of_a_newer_version_is_refused_by_name(
    item: layout.Item, read: Callable[[layout.Item], Any], value: Any
) -> None:
    with pytest.raises(UnknownFormat, match=r"r1.*upgrade"):
        read(item | {"schema": {"N": "2"}})


@pytest.mark.parametrize(("item", "read", "value"), ITEMS, ids=NAMES)
def test_an_item_that_nobody_of_us_wrote_is_refused(
    item: layout.Item, read: Callable[[layout.Item], Any], value: Any
) -> None:
    with pytest.raises(InvalidInput, match="schema"):
        read({name: attribute for name, attribute in item.items() if name != "schema"})


def test_a_commit_of_an_older_writer_is_not_promoted_and_a_promoted_one_is_still_a_commit() -> None:
    item = layout.commit_item(new_commit("r1", 1, 2))
    promoted = item | {layout.PROMOTED: {"BOOL": True}}

    assert not layout.read_checkpoint(item, None).promoted
    assert layout.read_checkpoint(promoted, None).promoted
    assert layout.read_commit(promoted) == new_commit("r1", 1, 2)


def test_keys_sort_as_generations_and_saves_do() -> None:
    keys = [layout.commit_key(new_commit("r", g, s).id) for g in (1, 2, 10, 100) for s in (1, 9, 10, 1000)]

    assert keys == sorted(keys)
    assert keys[0] == "COMMIT#000001#000001"


def test_a_row_is_in_the_due_index_only_while_it_is_due() -> None:
    due = layout.run_item(RUN, "w")

    assert due["due_at"] == {"N": str(layout.milliseconds(NOON) + 60_000)}
    assert due["due_shard"]["S"] in {str(shard) for shard in range(layout.SHARDS)}
    assert not {"due_at", "due_shard"} & set(layout.run_item(replace(RUN, due_at=None), "w"))


def test_nothing_is_due_before_its_time_not_even_by_a_microsecond() -> None:
    at = NOON + timedelta(microseconds=1)

    item = layout.run_item(replace(RUN, due_at=at), "w")

    assert int(item["due_at"]["N"]) > layout.milliseconds(at - timedelta(microseconds=1))
    assert int(item["due_at"]["N"]) <= layout.milliseconds(at + timedelta(milliseconds=1))


def test_runs_spread_over_the_shards_of_the_due_index() -> None:
    shards = [layout.due_shard(f"run-{number}") for number in range(800)]

    assert set(shards) == {str(shard) for shard in range(layout.SHARDS)}
    assert all(60 <= shards.count(shard) <= 140 for shard in set(shards))


def test_however_much_news_there_is_one_transaction_holds_it() -> None:
    run = new_run("r1")
    for number in range(500):
        run = note(run, "line", str(number), NOON)

    items = layout.entry_items(run)

    assert len(items) <= layout.ENTRIES_AT_MOST
    assert [entry.text for entry in layout.read_entries(items)] == [str(number) for number in range(500)]


def test_only_machines_that_are_new_are_indexed() -> None:
    before = rich_run("r1")
    attempt = replace(before.attempts[0], generation=3, instance_id="i-00000000000000003")
    after = replace(before, attempts=(*before.attempts, attempt))

    (item,) = layout.instance_items(before, after)

    assert (item["pk"]["S"], item["run_id"]["S"], item["generation"]["N"]) == (
        "INSTANCE#i-00000000000000003",
        "r1",
        "3",
    )


def test_the_row_does_not_hold_what_is_read_beside_it() -> None:
    loaded = replace(RUN, lease=Lease("r1"), heartbeats=(new_beat("r1", 1, 1),), news=note(RUN, "a", "b", NOON).news)

    assert layout.run_item(loaded, "w") == layout.run_item(RUN, "w")


@pytest.mark.parametrize(("name", "read", "value"), [(n, r, v) for n, (_, r, v) in zip(NAMES, ITEMS, strict=True)])
def test_an_item_written_by_the_first_release_is_still_read(
    name: str, read: Callable[[layout.Item], Any], value: Any
) -> None:
    written = json.loads((Path(__file__).parent / "items" / "schema-1.json").read_text())

    assert read(written[name]) == value


@pytest.mark.parametrize(("item", "read", "value"), ITEMS, ids=NAMES)
def test_what_a_newer_writer_of_the_same_schema_adds_is_ignored(
    item: layout.Item, read: Callable[[layout.Item], Any], value: Any
) -> None:
    added = item | {"news": {"S": "added"}}
    if "body" in item:
        added["body"] = {"S": json.dumps(json.loads(item["body"]["S"]) | {"added": [1]})}

    assert read(added) == value
