"""What DynamoDB may answer besides yes and no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.stub import Stubber

from spotrelay.aws.clients import Clients
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.aws.table import ConditionFailed, Table
from spotrelay.core.checkpoint import Verdict
from spotrelay.core.errors import Contention, InvalidInput, Missing, OutcomeUnknown, SpotrelayError
from spotrelay.core.run import note
from spotrelay.testing.contracts.samples import NOON, new_beat, new_commit, new_run

RUN = note(new_run("r1"), "line", "text", NOON)


@pytest.mark.parametrize(
    "call",
    [
        lambda runs, live: runs.create(RUN),
        lambda runs, live: runs.load("r1"),
        lambda runs, live: runs.save(RUN, RUN),
        lambda runs, live: runs.fence("r1", 2),
        lambda runs, live: runs.record_verdict("r1", Verdict(1, 1, True)),
        lambda runs, live: runs.run_of("i-1"),
        lambda runs, live: runs.due(NOON),
        lambda runs, live: list(runs.all_runs()),
        lambda runs, live: runs.timeline("r1"),
        lambda runs, live: live.take_lease("r1", 1, "i-1"),
        lambda runs, live: live.commit(new_commit("r1", 1, 1), "i-1"),
        lambda runs, live: live.checkpoints("r1"),
        lambda runs, live: live.beat(new_beat("r1", 1, 1)),
    ],
)
def test_a_table_that_is_not_there_is_named_with_the_remedy(clients: Clients, call: Callable[..., Any]) -> None:
    client = clients.client("dynamodb")

    with pytest.raises(Missing, match=r"nowhere is not there; run `spotrelay doctor`"):
        call(DynamoRunStore(client, "nowhere"), DynamoLiveStore(client, "nowhere"))


def cancelled(*codes: str) -> dict[str, Any]:
    return {"CancellationReasons": [{"Code": code} for code in codes]}


@pytest.mark.parametrize(
    ("codes", "error"),
    [
        (("None", "TransactionConflict"), Contention),
        (("ThrottlingError", "None"), Contention),
        (("ProvisionedThroughputExceeded",), Contention),
        (("TransactionConflict", "ConditionalCheckFailed"), ConditionFailed),
        (("ConditionalCheckFailed", "None"), ConditionFailed),
        (("ValidationError", "None"), InvalidInput),
        (("ItemCollectionSizeLimitExceeded",), InvalidInput),
        (("None", "None"), Contention),
    ],
)
def test_the_reasons_of_a_cancelled_transaction_are_told_apart(
    offline: Clients, codes: tuple[str, ...], error: type[Exception]
) -> None:
    client = offline.client("dynamodb")
    with Stubber(client) as stub:
        stub.add_client_error("transact_write_items", "TransactionCanceledException", modeled_fields=cancelled(*codes))
        with pytest.raises(error) as caught:
            Table(client, "table").transact([{}], "writing")

    if isinstance(caught.value, ConditionFailed):
        assert caught.value.action == codes.index("ConditionalCheckFailed")


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("TransactionInProgressException", 400, OutcomeUnknown),
        ("InternalServerError", 500, OutcomeUnknown),
        ("ThrottlingException", 400, Contention),
        ("TransactionConflictException", 400, Contention),
    ],
)
def test_a_commit_without_a_clear_answer_is_never_a_no(
    offline: Clients, code: str, status: int, error: type[SpotrelayError]
) -> None:
    client = offline.client("dynamodb")
    with Stubber(client) as stub:
        stub.add_client_error("transact_write_items", code, http_status_code=status)
        with pytest.raises(error):
            DynamoLiveStore(client, "table").commit(new_commit("r1", 1, 1), "i-1")


def test_a_lease_that_is_contended_once_is_taken_at_the_next_look(offline: Clients) -> None:
    client = offline.client("dynamodb")
    free = {
        "pk": {"S": "LIVE#r1"},
        "sk": {"S": "LEASE"},
        "generation": {"N": "0"},
        "floor": {"N": "1"},
        "save": {"N": "0"},
        "schema": {"N": "1"},
    }
    with Stubber(client) as stub:
        stub.add_response("get_item", {"Item": free})
        stub.add_client_error("put_item", "TransactionConflictException")
        stub.add_response("get_item", {"Item": free})
        stub.add_response("put_item", {})

        lease = DynamoLiveStore(client, "table").take_lease("r1", 1, "i-1")

        stub.assert_no_pending_responses()
    assert lease.holder == "i-1"


def test_a_query_of_many_pages_is_read_to_its_end(clients: Clients, table: str) -> None:
    store = DynamoRunStore(clients.client("dynamodb"), table)
    store.create(new_run("r1"))
    run = store.load("r1")
    long = "x" * 60_000
    for number in range(25):  # 1.5 MB, and a page holds 1 MB
        run = store.save(run, note(run, "line", f"{number} {long}", NOON))

    assert [entry.text.split()[0] for entry in store.timeline("r1")] == [str(number) for number in range(25)]
