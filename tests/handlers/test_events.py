"""The edge: every shape that an event is known to arrive in, and every way in which it can be wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.events import Parsed, parse, read_time
from handlers.kinds import FROM_EC2, FROM_US
from handlers.signals import Arrival, Quarantined, Signal
from spotrelay.core.facts import CancelRequested, Verified
from spotrelay.core.notice import (
    InstanceState,
    InterruptionNotice,
    NoticeSource,
    RebalanceRecommendation,
    StateChange,
)

EVENTS = Path(__file__).parent.parent / "events"
KINDS = {**FROM_EC2, **FROM_US}
SENT = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)  # the `time` in the fixtures
ARRIVAL = Arrival(SENT + timedelta(seconds=3), timedelta(minutes=2))
MACHINE = "i-0a1b2c3d4e5f60718"


def read(raw: Any, arrival: Arrival = ARRIVAL) -> list[Parsed]:
    return parse(raw, arrival, KINDS)


def read_file(name: str, arrival: Arrival = ARRIVAL) -> Parsed:
    (found,) = read((EVENTS / name).read_bytes(), arrival)
    return found


def notice(
    action: str = "terminate",
    after: timedelta = timedelta(minutes=2),
    source: NoticeSource = NoticeSource.EVENTBRIDGE,
) -> InterruptionNotice:
    return InterruptionNotice(MACHINE, action, SENT + after, source)


RECEIVED = timedelta(minutes=2, seconds=3)  # notice time after the arrival, for events without a time of their own
FACTS_OF_A_MACHINE = {
    "interruption-warning.json": notice(),
    "interruption-warning-zone-arn.json": notice(),
    "interruption-warning-other-arn.json": notice("stop"),
    "interruption-warning-bare.json": notice(after=RECEIVED),
    "interruption-warning-extra-keys.json": notice("hibernate"),
    "interruption-warning-placeholder-time.json": notice(after=RECEIVED),
    "rebalance-recommendation.json": RebalanceRecommendation(MACHINE),
    "rebalance-recommendation-with-action.json": RebalanceRecommendation(MACHINE),
    "state-change.json": StateChange(MACHINE, InstanceState.SHUTTING_DOWN),
    "state-change-underscore.json": StateChange(MACHINE, InstanceState.TERMINATED),
    "state-change-leading-space.json": StateChange(MACHINE, InstanceState.STOPPED),
    "capacity-reservation-interruption.json": notice(
        after=timedelta(minutes=2, seconds=30), source=NoticeSource.CAPACITY_RESERVATION
    ),
}
FACTS_OF_A_RUN = {
    "run-submitted.json": (),
    "run-due.json": (),
    "run-cancel-requested.json": (CancelRequested("wrong data"),),
    "attempt-reported.json": (),
    "checkpoint-committed.json": (),
    "checkpoint-damaged.json": (Verified(2, 3, False, "could not be restored: shard 0 differs from its digest"),),
    "interruption-notice-seen.json": (notice(after=timedelta(seconds=105), source=NoticeSource.METADATA),),
    "rebalance-recommendation-seen.json": (RebalanceRecommendation(MACHINE),),
}
UNKNOWN = (
    "state-change-new-state.json",
    "spot-request-fulfilled.json",
    "health.json",
    "autoscaling-test-notification.json",
    "sns-confirmation.json",
)


@pytest.mark.parametrize("name", FACTS_OF_A_MACHINE)
def test_an_event_about_a_machine_becomes_its_fact(name: str) -> None:
    signal = read_file(name)

    assert isinstance(signal, Signal)
    assert (signal.instance_id, signal.run_id) == (MACHINE, None)
    assert signal.facts == (FACTS_OF_A_MACHINE[name],)


@pytest.mark.parametrize("name", FACTS_OF_A_RUN)
def test_an_event_about_a_run_becomes_its_facts(name: str) -> None:
    signal = read_file(name)

    assert isinstance(signal, Signal)
    assert (signal.instance_id, signal.run_id) == (None, "gpt-small")
    assert signal.facts == FACTS_OF_A_RUN[name]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_kind_that_nobody_reads_becomes_none(name: str) -> None:
    assert read_file(name) is None


@pytest.mark.parametrize("name", sorted(path.name for path in EVENTS.glob("malformed-*")))
def test_a_malformed_event_is_quarantined_with_all_its_bytes(name: str) -> None:
    found = read_file(name)

    assert isinstance(found, Quarantined)
    assert found.data == (EVENTS / name).read_bytes()
    assert found.reason.isascii() and 0 < len(found.reason) <= 500


def test_every_fixture_is_in_one_of_the_tables() -> None:
    listed = {
        *FACTS_OF_A_MACHINE,
        *FACTS_OF_A_RUN,
        *UNKNOWN,
        "state-change-short-id.json",
        "capacity-block-expiration.json",
        "capacity-block-expiration-older-name.json",
    }
    assert {path.name for path in EVENTS.iterdir() if not path.name.startswith("malformed-")} == listed


def test_a_machine_of_the_old_short_form_is_read() -> None:
    signal = read_file("state-change-short-id.json")

    assert isinstance(signal, Signal) and signal.instance_id == "i-1a2b3c4d"


@pytest.mark.parametrize("name", ["capacity-block-expiration.json", "capacity-block-expiration-older-name.json"])
def test_the_end_of_a_capacity_block_concerns_nobody_by_itself(name: str) -> None:
    assert read_file(name) == Signal("Capacity Block Expiration Warning")


# what may be wrapped round an event


def warning(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "interruption-warning.json").read_text())
    return event | changes


def in_sqs(body: Any) -> dict[str, Any]:
    return {"messageId": "m-1", "receiptHandle": "r", "body": body, "eventSource": "aws:sqs"}


def in_sns(message: str) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "n-1", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": message}


WRAPPED = {
    "bare": warning(),
    "as text": json.dumps(warning()),
    "as bytes": json.dumps(warning()).encode(),
    "as bytes with a byte order mark": b"\xef\xbb\xbf" + json.dumps(warning()).encode(),
    "text in text": json.dumps(json.dumps(warning())),
    "text in text in text": json.dumps(json.dumps(json.dumps(warning()))),
    "in SQS": {"Records": [in_sqs(json.dumps(warning()))]},
    "one SQS record": in_sqs(json.dumps(warning())),
    "in SQS, parsed": in_sqs(warning()),
    "as ReceiveMessage shows it": {"MessageId": "m", "ReceiptHandle": "r", "Body": json.dumps(warning())},
    "in SNS": in_sns(json.dumps(warning())),
    "in SNS in SQS": {"Records": [in_sqs(json.dumps(in_sns(json.dumps(warning()))))]},
    "in SNS for a function": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(warning())}}]},
    "in a list": [warning()],
    "in a list in text": json.dumps([warning()]),
    "detail as text": warning(detail=json.dumps(warning()["detail"])),
    "with keys that look like a wrapper": warning(Records=[], body="x", messageId="y"),
}


@pytest.mark.parametrize("shape", WRAPPED)
def test_an_event_is_found_whatever_is_wrapped_round_it(shape: str) -> None:
    (signal,) = read(WRAPPED[shape])

    assert isinstance(signal, Signal) and signal.facts == (notice(),)


def test_several_events_in_one_message_are_judged_one_by_one() -> None:
    found = read([warning(), warning(detail={}), warning(source="aws.unheard-of")])

    assert [type(item).__name__ for item in found] == ["Signal", "Quarantined", "NoneType"]


def test_the_bytes_of_a_wrapped_malformed_event_are_those_of_its_message() -> None:
    body = json.dumps(in_sns("{]"))

    (found,) = read(body)

    assert isinstance(found, Quarantined) and found.data == body.encode()


def test_an_event_wrapped_without_end_is_quarantined() -> None:
    raw: Any = warning()
    for _ in range(20):
        raw = [raw]

    (found,) = read(raw)

    assert isinstance(found, Quarantined) and "wrapped" in found.reason


@pytest.mark.parametrize("raw", ["", "[]", "17", "null", '"word"', "true", '{"Records": []}', b"\xff\xfe", "[" * 5000])
def test_a_message_without_an_event_is_quarantined(raw: str | bytes) -> None:
    (found,) = read(raw)

    assert isinstance(found, Quarantined)


def test_deep_nesting_inside_an_event_is_no_exception() -> None:
    deep = "[" * 900 + "]" * 900

    found = read(json.dumps(warning()).replace(f'"{MACHINE}"', deep))

    assert isinstance(found[0], (Signal, Quarantined))


def test_an_event_of_another_source_is_not_taken_for_ec2s() -> None:
    assert read(warning(source="sns.ec2")) == [None]
    assert read(warning(source="spotrelay")) == [None]


# deadlines


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (SENT, SENT + timedelta(minutes=2)),
        (SENT + timedelta(seconds=30), SENT + timedelta(seconds=150)),  # EC2's clock before ours
        (SENT - timedelta(minutes=10), SENT - timedelta(minutes=8)),  # late, and true
        (SENT - timedelta(days=900), ARRIVAL.at + timedelta(minutes=2)),
        (SENT + timedelta(hours=1), ARRIVAL.at + timedelta(minutes=2)),
        (datetime(1970, 1, 1, tzinfo=UTC), ARRIVAL.at + timedelta(minutes=2)),
    ],
)
def test_the_deadline_follows_the_events_time_while_that_is_believable(sent: datetime, expected: datetime) -> None:
    (signal,) = read(warning(time=sent.isoformat()))

    assert isinstance(signal, Signal)
    (fact,) = signal.facts
    assert isinstance(fact, InterruptionNotice) and fact.deadline == expected


@pytest.mark.parametrize("time", ["", None, 17, "soon", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59-23:59", [], {}])
def test_a_time_that_is_none_counts_from_the_arrival(time: Any) -> None:
    (signal,) = read(warning(time=time))

    assert isinstance(signal, Signal)
    (fact,) = signal.facts
    assert isinstance(fact, InterruptionNotice) and fact.deadline == ARRIVAL.at + timedelta(minutes=2)


def test_a_scaled_notice_is_shorter() -> None:
    signal = read_file("interruption-warning.json", Arrival(SENT, timedelta(seconds=6)))

    assert isinstance(signal, Signal)
    (fact,) = signal.facts
    assert isinstance(fact, InterruptionNotice) and fact.deadline == SENT + timedelta(seconds=6)


def test_an_action_in_words_that_are_not_ec2s_is_taken_for_the_usual_one() -> None:
    (signal,) = read(warning(detail={"instance-id": MACHINE, "instance-action": "{{action}}"}))

    assert isinstance(signal, Signal) and signal.facts == (notice(),)


def test_times_are_read_in_both_formats_that_aws_writes() -> None:
    assert read_time("2026-03-01T10:00:00.250Z") == SENT + timedelta(milliseconds=250)
    assert read_time("Sun, 1 Mar 2026 10:00:00 GMT") == SENT
    assert read_time("2026-03-01T11:00:00+01:00") == SENT
    assert read_time("2026-03-01T10:00:00") == SENT


# anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "source",
    "detail-type",
    "detail_type",
    "detail",
    "time",
    "Records",
    "body",
    "messageId",
    "Type",
    "Message",
    "Sns",
]
LIKE_AN_EVENT = st.fixed_dictionaries(
    {},
    optional={
        **{key: JSON for key in KEYS},
        "source": st.sampled_from(["aws.ec2", "spotrelay"]) | JSON,
        "detail-type": st.sampled_from(sorted(kind for _, kind in KINDS)) | JSON,
        "detail": st.dictionaries(
            st.sampled_from(
                ["instance-id", "instance_id", "state", "run_id", "generation", "save", "action", "deadline"]
            ),
            JSON | st.sampled_from([MACHINE, "gpt-small", "running"]),
        )
        | JSON,
    },
)


def outcomes_are_of_the_three_sorts(raw: Any) -> None:
    found = read(raw)

    assert found
    for item in found:
        assert item is None or isinstance(item, (Signal, Quarantined))
        if isinstance(item, Quarantined):
            assert item.reason.isascii() and isinstance(item.data, bytes)


@given(JSON | LIKE_AN_EVENT | st.lists(LIKE_AN_EVENT, min_size=1, max_size=3))
def test_no_json_value_raises(value: Any) -> None:
    outcomes_are_of_the_three_sorts(value)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine the first one takes seconds
@given(LIKE_AN_EVENT, st.integers(0, 3))
def test_no_wrapped_json_text_raises(value: dict[str, Any], wrappings: int) -> None:
    raw: Any = json.dumps(value)
    for _ in range(wrappings):
        raw = json.dumps(raw)

    outcomes_are_of_the_three_sorts(raw)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_bytes_and_no_text_raise(raw: bytes | str) -> None:
    outcomes_are_of_the_three_sorts(raw)


@given(st.data())
def test_no_cut_or_changed_event_raises(data: st.DataObject) -> None:
    good = (EVENTS / data.draw(st.sampled_from(sorted(path.name for path in EVENTS.iterdir())))).read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))

    outcomes_are_of_the_three_sorts(good[:at])
    outcomes_are_of_the_three_sorts(good[:at] + data.draw(st.binary(min_size=1, max_size=2)) + good[at + 1 :])
