"""The cadence on made-up capacity, beside fixed intervals, and the command that replays it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spotrelay.console.main import app
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Cadence
from spotrelay.simulation.cadences import Case, compare_cadences, kept_work
from spotrelay.simulation.spells import Spell, read_spells, spells_of
from tests.simulation.synthetic import GAP_S, mixed, world, write

HOUR = 3600.0


@pytest.mark.parametrize("announced", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("cost", [1.0, 30.0])
def test_what_was_learnt_on_the_way_is_within_a_point_of_the_best_interval_in_hindsight(
    cost: float, announced: float
) -> None:
    for long_hours in (1.0, 4.0, 20.0):
        spells = spells_of(GAP_S, mixed(2, long_hours))

        result = compare_cadences(spells, Case(cost, announced), Cadence(), 2 * HOUR, 0)

        assert result.behind_points < 1.0, (long_hours, result)


def test_a_wrong_prior_is_outlived() -> None:
    spells = spells_of(GAP_S, mixed(3, 4.0))
    results = [compare_cadences(spells, Case(5.0, 0.0), Cadence(), prior, 0) for prior in (600.0, 200 * HOUR)]

    assert all(result.behind_points < 1.0 for result in results)


def test_a_cadence_that_ignores_what_it_learns_is_behind() -> None:
    spells = spells_of(GAP_S, mixed(2, 1.0))

    stubborn = compare_cadences(spells, Case(30.0, 0.0), Cadence(every_s=7200), 2 * HOUR, 0)

    assert stubborn.behind_points > 3.0


@given(
    seconds=st.floats(1, 50_000),
    lost=st.booleans(),
    announced=st.booleans(),
    cost=st.floats(0.1, 100),
    every=st.floats(60, 5000),
)
def test_no_cadence_keeps_more_than_was_trained(
    seconds: float, lost: bool, announced: bool, cost: float, every: float
) -> None:
    case = Case(cost, 0.5)

    kept = kept_work(Spell(seconds, lost), case, lambda age, saves: max(every, case.durable_s), announced)

    assert 0 <= kept <= max(seconds - case.restart_s, 0.0)


def test_a_loss_takes_what_came_after_the_newest_durable_checkpoint() -> None:
    case = Case(cost_s=10, announced=0, upload_s=20, restart_s=100)
    spell = Spell(100 + 3000 + 25, lost=True)

    # begun at 1000, 2000, 3000; the last of them is not durable when the machine goes
    assert kept_work(spell, case, lambda age, saves: 1000.0, False) == 1000 + 990
    assert kept_work(Spell(100 + 3000 + 31, True), case, lambda age, saves: 1000.0, False) == 1000 + 2 * 990
    assert kept_work(Spell(100 + 3000 + 25, False), case, lambda age, saves: 1000.0, False) == 3025 - 30


def test_an_announced_loss_takes_only_the_rest_of_the_notice() -> None:
    case = Case(cost_s=10, announced=1, upload_s=20, restart_s=100)

    assert kept_work(Spell(100 + 2500, True), case, lambda age, saves: 1000.0, True) == 2500 - 110 - 20


def test_a_run_on_several_machines_loses_when_one_of_them_goes() -> None:
    assert spells_of(300, [4, 4, 3, 4, 0, 4]) == (Spell(600, True), Spell(300, True), Spell(300, False))
    assert spells_of(300, [0, 0]) == ()


def run(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, ["simulate-cadence", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_json_compares_every_trace_in_every_case(tmp_path: Path) -> None:
    write(tmp_path / "far" / "away", world(seed=1, days=6))
    asked = ["--traces", str(tmp_path), "--cost", "2", "--announced", "0", "--announced", "0.5", "--json"]

    answer = json.loads(run(asked).splitlines()[-1])

    assert len(answer["traces"]) == 7
    for name, trace in answer["traces"].items():
        assert name.startswith("far/away/")
        assert 0 < trace["best_fixed"]["efficiency"] <= 1 and trace["best_fixed"]["interval_s"] >= 60
        assert 0 < trace["spotrelay"]["efficiency"] <= 1
        assert [each["announced"] for each in trace["cases"]] == [0, 0.5]
        assert trace["behind_points"] == max(each["behind_points"] for each in trace["cases"])
    assert answer["worst_behind_points"] == max(each["behind_points"] for each in answer["traces"].values())


def test_a_person_gets_a_line_for_each_case(tmp_path: Path) -> None:
    write(tmp_path, world(seed=1, days=6))

    lines = run(["--traces", str(tmp_path), "--cost", "5", "--announced", "0.9"]).splitlines()

    assert len(lines) == 7
    assert all(len(line.split("\t")) == 7 for line in lines)


def test_the_figures_of_a_page_are_written_by_the_command(tmp_path: Path) -> None:
    write(tmp_path / "traces", world(seed=1, days=6))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: simulate-cadence -->\nold\n<!-- end -->\nafter\n")
    asked = ["--traces", str(tmp_path / "traces"), "--cost", "5", "--announced", "0.9", "--page", str(page)]

    run(asked)

    written = page.read_text()
    assert written.startswith("before\n") and written.endswith("<!-- end -->\nafter\n")
    assert "old" not in written and "| 5 s | 0.9 |" in written and "| `us-east-1a_v100_1` |" in written
    page.write_text("nothing here")
    with pytest.raises(InvalidInput, match="it has no block"):
        run(asked)


def test_what_cannot_be_replayed_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        read_spells(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no trace with capacity"):
        read_spells(tmp_path)
    write(tmp_path, {"us-east-1a": [1, 1]})
    with pytest.raises(InvalidInput, match="share between 0 and 1"):
        CliRunner().invoke(
            app, ["simulate-cadence", "--traces", str(tmp_path), "--announced", "2"], catch_exceptions=False
        )
