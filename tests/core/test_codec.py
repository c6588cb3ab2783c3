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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_dollars": 3}, "did you mean limits.max_dollars"),
        ({"comand": ["x"]}, "did you mean command"),
        ({"limits": {"every_s": 3}}, "did you mean cadence.every_s"),
        ({"limits": {"max_dolars": 3}}, "did you mean limits.max_dollars"),
        ({"env": {"LR": 0.1}}, "env.LR: 0.1 is not a text: quote it"),
        ({"env": {"DEBUG": True}}, "quote it"),
        ({"limits": {"max_hours": "1e12"}}, r"write 1\.0e\+12"),
        ({"limits": {"max_dollars": "1.5e3"}}, r"write 1\.5e\+3"),
        ({"limits": {"max_dollars": "12"}}, "leave the quotes away"),
        ({"command": "python train.py"}, r"write \[python, train.py\]"),
        ({"on_no_checkpoint": "guess"}, "restart, stop"),
    ],
)
def test_a_slip_is_answered_with_what_was_probably_meant(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_spec(GOOD | change)


NUMBERS = ["max_hours", "max_dollars"], ["floor_s", "ceiling_s", "every_s"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0, -1.0])
@pytest.mark.parametrize(
    ("where", "name"),
    [("limits", n) for n in NUMBERS[0]] + [("cadence", n) for n in NUMBERS[1]] + [("price", "g5.xlarge")],
)
def test_no_number_is_infinite_or_none_or_below_zero(where: str, name: str, value: float) -> None:
    change = {"limits": {"on_demand_prices": {name: value}}} if where == "price" else {where: {name: value}}

    with pytest.raises(InvalidInput, match=f"{name} must be"):
        parse_spec(GOOD | change)


@pytest.mark.parametrize(
    ("where", "name", "most", "above"),
    [
        ("limits", "max_hours", 8784, 8784.5),
        ("limits", "max_dollars", 1e7, 10_000_001),
        ("limits", "max_launches", 400, 401),
        ("cadence", "every_s", 604_800, 604_801),
        ("cadence", "ceiling_s", 604_800, 10**400),
    ],
)
def test_limits_have_upper_bounds(where: str, name: str, most: float, above: float) -> None:
    parse_spec(GOOD | {where: {name: most}})

    with pytest.raises(InvalidInput, match=name):
        parse_spec(GOOD | {where: {name: above}})


def test_every_type_has_an_on_demand_price_where_dollars_are_limited() -> None:
    spec = GOOD | {"instance_types": ["g5.xlarge", "g6.xlarge"], "on_demand": True}

    with pytest.raises(InvalidInput, match=r"missing: g6\.xlarge"):
        parse_spec(spec | {"limits": {"max_dollars": 5, "on_demand_prices": {"g5.xlarge": 1.0}}})


def test_every_mistake_of_every_kind_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(
            {
                "comand": ["x"],
                "instance_types": ["g5"],
                "image": "x:latest",
                "max_dollars": 3,
                "env": {"LR": 0.1, "DEBUG": True, "1X": "a"},
                "setup": [["pip", 1], "make"],
                "limits": {"max_launches": 500, "max_hours": "1e12", "max_dollars": float("nan"), "hours": 1},
                "cadence": {"floor_s": 100, "ceiling_s": 10},
            }
        )

    said = str(caught.value)
    for word in (
        "comand", "spec.command: missing", "'g5'", "digest", "did you mean limits.max_dollars", "limits.hours",
        "env.LR", "env.DEBUG", "setup[0][1]", "setup[1]", "max_launches must not be above 400", "1.0e+12",
        "limits.max_dollars must be a finite number", "cadence.floor_s is above",
    ):  # fmt: skip
        assert word in said, said


def test_a_value_of_the_wrong_type_is_not_called_missing_too() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(GOOD | {"on_demand": True, "limits": {"max_dollars": 5, "on_demand_prices": 3}})

    assert "needs" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_spec_that_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_spec(data)
