from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from spotrelay.core.checkpoint import FORMAT, Manifest, decode_manifest
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput, UnknownFormat
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec, parse_spec
from spotrelay.testing.strategies import runs, specs

GOOD = {"command": ["python", "train.py"], "instance_types": ["g5.xlarge"]}


@given(run=runs())
def test_a_run_survives_the_way_through_json(run: Run) -> None:
    assert from_json(Run, json.loads(json.dumps(to_json(run)))) == run


@given(spec=specs())
def test_a_spec_survives_the_way_through_json(spec: Spec) -> None:
    assert parse_spec(json.loads(json.dumps(to_json(spec)))) == spec


def test_a_key_that_a_newer_writer_added_is_ignored() -> None:
    assert from_json(Spec, {**GOOD, "since_next_year": 1}) == from_json(Spec, GOOD)


def test_a_manifest_of_a_newer_format_is_refused_by_name() -> None:
    data = to_json(Manifest("run-1", 1, 1, 10, ())) | {"format": FORMAT + 1}

    with pytest.raises(UnknownFormat, match=f"format {FORMAT + 1}"):
        decode_manifest(json.dumps(data).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"text"', b'{"run_id": "a"}', b"\xff"])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_manifest(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"comand": ["x"]}, "comand"),
        ({"limits": {"max_dolars": 3}}, "limits.max_dolars"),
        ({"command": "python train.py"}, "command"),
        ({"command": []}, "command is empty"),
        ({"instance_types": ["g5"]}, "'g5'"),
        ({"limits": {"max_launches": 0}}, "max_launches"),
        ({"limits": {"max_launches": "many"}}, "max_launches"),
        ({"limits": {"max_hours": True}}, "max_hours"),
        ({"on_demand": True, "limits": {"max_dollars": 5}}, "on_demand_prices"),
        ({"cadence": {"floor_s": 100, "ceiling_s": 10}}, "floor_s"),
        ({"cadence": {"every_s": 10, "every_steps": 10}}, "exclude"),
        ({"secrets": {"TOKEN": "hunter2"}}, "TOKEN"),
        ({"env": {"1X": "a"}}, "1X"),
        ({"env": {"SPOTRELAY_RUN": "a"}}, "SPOTRELAY_RUN"),
        ({"image": "pytorch:latest"}, "digest"),
        ({"on_no_checkpoint": "guess"}, "guess"),
        ({"command": ["a\0b"]}, "NUL"),
    ],
)
def test_a_wrong_spec_is_told_what_is_wrong(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_spec(GOOD | change)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(GOOD | {"instance_types": ["g5"], "image": "x:latest"})

    assert "'g5'" in str(caught.value) and "digest" in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_spec_that_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_spec(data)
