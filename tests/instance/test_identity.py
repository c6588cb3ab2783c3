from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from spotrelay.core.errors import InvalidInput
from spotrelay.instance.identity import REQUIRED, read_identity

GOOD = {
    "SPOTRELAY_RUN": "run-1",
    "SPOTRELAY_GENERATION": "12",
    "SPOTRELAY_INSTANCE": "i-0123456789abcdef0",
    "SPOTRELAY_TABLE": "table",
    "SPOTRELAY_BUCKET": "bucket",
    "SPOTRELAY_BUS": "bus",
    "SPOTRELAY_HOME_REGION": "eu-west-1",
    "SPOTRELAY_WORK": "/var/tmp/spotrelay.x",
    "SPOTRELAY_TIME_SCALE": "0.05",
    "AWS_REGION": "us-east-1",
}


def test_it_is_read_from_what_the_resume_script_exports() -> None:
    me = read_identity(GOOD)

    assert (me.run_id, me.generation, me.instance_id) == ("run-1", 12, "i-0123456789abcdef0")
    assert (me.home_region, me.region) == ("eu-west-1", "us-east-1")
    assert me.cache == Path("/var/tmp/spotrelay.x/cache")
    assert me.timings.notice == timedelta(seconds=6)


def test_time_is_real_unless_a_scale_is_given() -> None:
    me = read_identity({name: value for name, value in GOOD.items() if name != "SPOTRELAY_TIME_SCALE"})

    assert me.time_scale == 1.0


def test_everything_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidInput) as error:
        read_identity({})

    assert all(name in str(error.value) for name in REQUIRED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPOTRELAY_RUN", "../other"),
        ("SPOTRELAY_RUN", "$(touch x)"),
        ("SPOTRELAY_GENERATION", "0"),
        ("SPOTRELAY_GENERATION", "-1"),
        ("SPOTRELAY_GENERATION", "1\n"),
        ("SPOTRELAY_INSTANCE", "i-1"),
        ("SPOTRELAY_TIME_SCALE", "fast"),
        ("SPOTRELAY_TIME_SCALE", "0"),
        ("SPOTRELAY_TIME_SCALE", "nan"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        read_identity({**GOOD, name: value})
