"""Triggers match what they say, count, and fire once."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.localcloud.triggers import BadTrigger, Triggers

STOP = {"what": "stop-group", "moment": "before"}


def put(key: str, instance: str = "i-1") -> dict[str, Any]:
    return {"service": "s3", "action": "PutObject", "target": f"bucket/{key}", "instance_id": instance}


def test_a_trigger_fires_on_the_request_that_it_names_and_never_again() -> None:
    triggers = Triggers()
    trigger = triggers.add({"service": "s3", "target": "shards/"}, STOP)

    assert triggers.fire(put("manifests/1")) is None
    assert triggers.fire(put("shards/1")) is trigger
    assert triggers.fire(put("shards/2")) is None


def test_the_nth_fitting_request_is_counted_from_one() -> None:
    triggers = Triggers()
    trigger = triggers.add({"target": "shards/", "nth": 3}, STOP)

    fired = [triggers.fire(put(f"shards/{n}")) for n in range(4)]

    assert fired == [None, None, trigger, None]


def test_two_triggers_due_at_once_fire_on_two_requests() -> None:
    triggers = Triggers()
    first, second = triggers.add({"service": "s3"}, STOP), triggers.add({"service": "s3"}, STOP)

    assert [triggers.fire(put("a")), triggers.fire(put("b"))] == [first, second]


def test_an_instance_is_matched_whole() -> None:
    triggers = Triggers()
    triggers.add({"instance_id": "i-1"}, STOP)

    assert triggers.fire(put("a", instance="i-11")) is None


def test_what_it_fired_on_is_told() -> None:
    triggers = Triggers()
    trigger = triggers.add({"service": "s3"}, STOP)

    triggers.fire(put("shards/1"))

    assert trigger.described()["fired_on"]["target"] == "bucket/shards/1"


def test_a_cancelled_trigger_does_not_fire() -> None:
    triggers = Triggers()
    trigger = triggers.add({"service": "s3"}, STOP)

    triggers.cancel(trigger.number)

    assert triggers.fire(put("a")) is None


@pytest.mark.parametrize(
    ("match", "do"),
    [
        ({"servise": "s3"}, STOP),
        ({}, {"what": "explode", "moment": "before"}),
        ({}, {"what": "kill-group", "moment": "sometime"}),
        ({"target": "("}, STOP),
    ],
)
def test_words_that_it_does_not_know_are_refused(match: dict[str, Any], do: dict[str, Any]) -> None:
    with pytest.raises(BadTrigger):
        Triggers().add(match, do)
