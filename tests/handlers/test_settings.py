"""The environment of the functions: read once, every mistake named."""

from __future__ import annotations

import json

import pytest

from handlers import settings
from handlers.settings import read_settings
from spotrelay.core.errors import InvalidInput

PLACES = {
    "eu-west-1": {"launch_template": "lt-1", "version": "3", "subnets": {"eu-west-1b": "subnet-b"}},
    "us-east-1": {"launch_template": "lt-2", "version": "1", "subnets": {"us-east-1a": "subnet-a"}},
}
ENVIRONMENT = {
    settings.TABLE: "table",
    settings.BUCKET: "bucket",
    settings.BUS: "bus",
    settings.STACK: "Spotrelay",
    settings.HOME_REGION: "us-east-1",
    settings.PLACES: json.dumps(PLACES),
    settings.SWITCH: "/spotrelay/launches",
}


def test_the_environment_of_the_stack_is_read() -> None:
    found = read_settings({**ENVIRONMENT, settings.RUNS_QUEUE: "https://queue", settings.TIME_SCALE: "0.05"})

    assert (found.table, found.runs_queue, found.time_scale) == ("table", "https://queue", 0.05)
    assert found.places.subnet("eu-west-1", "eu-west-1b") == "subnet-b"


def test_the_home_region_is_preferred() -> None:
    assert read_settings(ENVIRONMENT).places.zones == (("us-east-1", "us-east-1a"), ("eu-west-1", "eu-west-1b"))


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(InvalidInput, match=f"{settings.TABLE}, {settings.SWITCH}"):
        read_settings({**ENVIRONMENT, settings.TABLE: "", settings.SWITCH: ""})


@pytest.mark.parametrize("name", settings.REQUIRED)
def test_no_required_variable_may_be_left_out(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_settings({key: value for key, value in ENVIRONMENT.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (settings.PLACES, "{"),
        (settings.PLACES, "{}"),
        (settings.PLACES, '{"eu-west-1": {"version": "1"}}'),
        (settings.TIME_SCALE, "fast"),
        (settings.TIME_SCALE, "0"),
        (settings.TIME_SCALE, "-1"),
        (settings.TIME_SCALE, "nan"),
        (settings.DAY_DOLLARS, "much"),
        (settings.DAY_DOLLARS, "-1"),
        (settings.DAY_DOLLARS, "nan"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        read_settings({**ENVIRONMENT, name: value})
