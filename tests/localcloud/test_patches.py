"""Clocks are scaled where they are set, and a patch that finds nothing to change says so."""

from __future__ import annotations

import base64

import pytest

from spotrelay.localcloud import patches


def data(script: str) -> dict[str, str]:
    return {"UserData": base64.b64encode(script.encode()).decode(), "InstanceType": "g5.xlarge"}


def script_of(template: dict[str, str]) -> str:
    return base64.b64decode(template["UserData"]).decode()


def test_the_user_data_waits_by_the_factor_and_is_otherwise_the_same() -> None:
    scaled = patches.scale_user_data(data("#!/bin/bash\ntime_scale=1\nexport SCALE=$time_scale\n"), 0.1)

    assert script_of(scaled) == "#!/bin/bash\ntime_scale=0.1\nexport SCALE=$time_scale\n"
    assert scaled["InstanceType"] == "g5.xlarge"


def test_real_time_leaves_the_user_data_alone() -> None:
    assert script_of(patches.scale_user_data(data("echo"), 1.0)) == "echo"


@pytest.mark.parametrize("script", ["#!/bin/bash\n", "time_scale=1\ntime_scale=1\n", "time_scale=$other\n"])
def test_user_data_without_the_one_line_is_an_error_not_a_silence(script: str) -> None:
    with pytest.raises(patches.PatchFailed, match="time_scale"):
        patches.scale_user_data(data(script), 0.1)


def test_a_schedule_is_paced_by_the_factor_but_not_faster_than_once_a_second() -> None:
    assert patches.tick_every_s("rate(1 minute)", 0.1) == pytest.approx(6.0)
    assert patches.tick_every_s("rate(5 minutes)", 0.1) == pytest.approx(30.0)
    assert patches.tick_every_s("rate(1 minute)", 0.001) == pytest.approx(1.0)
    with pytest.raises(patches.PatchFailed, match="cron"):
        patches.tick_every_s("cron(0 12 * * ? *)", 0.1)


def test_redelivery_is_never_slower_than_deployed_and_never_instant() -> None:
    assert patches.visibility_s(180, 0.1) == 18
    assert patches.visibility_s(60, 0.01) == patches.SHORTEST_VISIBILITY_S
    assert patches.visibility_s(4, 0.1) == 4


def test_the_list_for_the_docs_has_a_row_for_each_patch() -> None:
    table = patches.markdown().splitlines()

    assert len(table) == 2 + len(patches.every_patch())
    assert all(row.count("|") == 4 for row in table)
