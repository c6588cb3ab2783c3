"""A reply that never arrives is neither a yes nor a no: the adapters read back, or say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spotrelay.aws.clients import ATTEMPTS, Clients
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.errors import AlreadyExists, Fenced, LostRace, OutcomeUnknown
from spotrelay.core.run import Run, note
from spotrelay.testing.contracts.samples import NOON, new_commit, new_run
from tests.aws.wire import lose_replies, lose_requests


@pytest.fixture
def dynamodb(clients: Clients) -> Any:
    return clients.client("dynamodb")


@pytest.fixture
def calm(clients: Clients, table: str) -> DynamoRunStore:
    """The same table over a client of its own, on which nothing is ever lost."""
    return DynamoRunStore(Clients(clients.region).client("dynamodb"), table)


@pytest.fixture
def runs(dynamodb: Any, table: str) -> DynamoRunStore:
    return DynamoRunStore(dynamodb, table)


@pytest.fixture
def live(dynamodb: Any, table: str) -> DynamoLiveStore:
    return DynamoLiveStore(dynamodb, table)


def created(store: DynamoRunStore) -> Run:
    run = new_run()
    store.create(run)
    return store.load(run.run_id)


def changed(run: Run, news: bool) -> Run:
    after = replace(run, launches=5)
    return note(after, "line", "once", NOON) if news else after


@pytest.mark.parametrize(("operation", "news"), [("PutItem", False), ("TransactWriteItems", True)])
@pytest.mark.parametrize("times", [1, ATTEMPTS])
def test_a_save_whose_replies_were_lost_is_known_to_have_won(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any, operation: str, news: bool, times: int
) -> None:
    before = created(calm)
    wire = lose_replies(dynamodb, operation, times)

    saved = runs.save(before, changed(before, news))

    assert wire.sent == times
    assert (saved.version, calm.load(before.run_id).launches) == (2, 5)
    assert len(calm.timeline(before.run_id)) == int(news)


@pytest.mark.parametrize(("operation", "news"), [("PutItem", False), ("TransactWriteItems", True)])
def test_a_save_that_nobody_answered_and_nobody_heard_stays_unknown(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any, operation: str, news: bool
) -> None:
    before = created(calm)
    lose_requests(dynamodb, operation)

    with pytest.raises(OutcomeUnknown):
        runs.save(before, changed(before, news))

    assert calm.load(before.run_id) == before


@pytest.mark.parametrize(("operation", "news"), [("PutItem", False), ("TransactWriteItems", True)])
def test_a_save_that_nobody_answered_while_another_won_is_a_lost_race(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any, operation: str, news: bool
) -> None:
    before = created(calm)
    calm.save(before, changed(before, news))
    lose_requests(dynamodb, operation)

    with pytest.raises(LostRace):
        runs.save(before, changed(before, news))


def test_a_save_stays_unknown_while_nobody_answers_the_reading_back(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    before = created(calm)
    lose_replies(dynamodb, "PutItem")
    lose_requests(dynamodb, "GetItem")

    with pytest.raises(OutcomeUnknown):
        runs.save(before, changed(before, news=False))


def test_two_equal_saves_are_not_mistaken_for_one(runs: DynamoRunStore, calm: DynamoRunStore) -> None:
    before = created(calm)
    calm.save(before, changed(before, news=False))

    with pytest.raises(LostRace):
        runs.save(before, changed(before, news=False))


def test_a_creation_whose_replies_were_lost_is_known_to_have_succeeded(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    run = new_run()
    lose_replies(dynamodb, "TransactWriteItems")

    runs.create(run)

    assert calm.load(run.run_id).version == 1


def test_a_creation_that_nobody_heard_stays_unknown(runs: DynamoRunStore, dynamodb: Any) -> None:
    lose_requests(dynamodb, "TransactWriteItems")

    with pytest.raises(OutcomeUnknown):
        runs.create(new_run())


def test_a_creation_that_nobody_answered_does_not_claim_anothers_run(
    runs: DynamoRunStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    run = new_run()
    calm.create(run)
    lose_requests(dynamodb, "TransactWriteItems")

    with pytest.raises(AlreadyExists):
        runs.create(run)


@pytest.mark.parametrize("times", [1, ATTEMPTS])
def test_a_lease_whose_replies_were_lost_is_held(
    live: DynamoLiveStore, calm: DynamoRunStore, dynamodb: Any, times: int
) -> None:
    run = created(calm)
    lose_replies(dynamodb, "PutItem", times)

    lease = live.take_lease(run.run_id, 1, "i-1")

    assert lease.holder == "i-1"
    assert calm.load(run.run_id).lease == lease


def test_a_lease_that_cannot_be_written_is_unknown_in_the_end(
    live: DynamoLiveStore, calm: DynamoRunStore, dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = created(calm)
    monkeypatch.setattr("spotrelay.aws.lease_item.TRIES", 2)
    lose_requests(dynamodb, "PutItem")

    with pytest.raises(OutcomeUnknown):
        live.take_lease(run.run_id, 1, "i-1")


def test_a_commit_whose_first_reply_was_lost_succeeds(
    live: DynamoLiveStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    run = created(calm)
    live.take_lease(run.run_id, 1, "i-1")
    lose_replies(dynamodb, "TransactWriteItems", times=1)

    live.commit(new_commit(run.run_id, 1, 1), "i-1")

    assert len(calm.load(run.run_id).checkpoints) == 1


def test_a_commit_whose_replies_were_lost_is_told_truthfully_when_sent_again_without_the_lease(
    live: DynamoLiveStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    run = created(calm)
    commit = new_commit(run.run_id, 1, 1)
    live.take_lease(run.run_id, 1, "i-1")
    lose_replies(dynamodb, "TransactWriteItems", times=ATTEMPTS)
    with pytest.raises(OutcomeUnknown):
        live.commit(commit, "i-1")
    calm.fence(run.run_id, 2)

    live.commit(commit, "i-1")

    assert [checkpoint.commit for checkpoint in calm.load(run.run_id).checkpoints] == [commit]


def test_a_commit_that_was_fenced_before_anybody_heard_it_is_told_truthfully(
    live: DynamoLiveStore, calm: DynamoRunStore, dynamodb: Any
) -> None:
    run = created(calm)
    commit = new_commit(run.run_id, 1, 1)
    live.take_lease(run.run_id, 1, "i-1")
    lose_requests(dynamodb, "TransactWriteItems", times=ATTEMPTS)
    with pytest.raises(OutcomeUnknown):
        live.commit(commit, "i-1")
    calm.fence(run.run_id, 2)

    with pytest.raises(Fenced):
        live.commit(commit, "i-1")

    assert calm.load(run.run_id).checkpoints == ()


def test_a_put_whose_reply_was_lost_finds_its_own_object_in_the_way(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)
    lose_replies(s3, "PutObject", times=1)

    with pytest.raises(AlreadyExists):
        objects.put("runs/r1/a", b"mine")

    assert objects.get("runs/r1/a") == b"mine"


def test_a_put_that_nobody_answered_stays_unknown(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    lose_requests(s3, "PutObject")

    with pytest.raises(OutcomeUnknown):
        S3ObjectStore(s3, bucket).put("runs/r1/a", b"mine")
