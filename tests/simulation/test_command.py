from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spotrelay.console.main import app
from spotrelay.core.errors import InvalidInput
from tests.simulation.synthetic import world, write

POLICIES = {"spotrelay", "wait", "region", "next_region", "on_demand", "clairvoyant"}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    spec = tmp_path / "run.yaml"
    spec.write_text("command: [python, train.py]\ninstance_types: [p3.2xlarge]\n")
    traces = write(tmp_path / "traces", world(seed=1, days=8))
    return ["simulate", "--spec", str(spec), "--traces", str(traces), "--runs", "5"]


def answer(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_json_names_every_policy_with_its_figures(arguments: list[str]) -> None:
    policies = json.loads(answer([*arguments, "--json"]))["policies"]

    assert set(policies) == POLICIES
    for figures in policies.values():
        assert 0 < figures["productive"] <= 1 and figures["launches"] >= 1 and figures["cost"] > 0


def test_a_person_gets_a_line_for_each_policy(arguments: list[str]) -> None:
    lines = answer(arguments).splitlines()

    assert {line.split("\t")[0] for line in lines} == POLICIES


def test_the_options_reach_the_replay(arguments: list[str]) -> None:
    few, many = (
        json.loads(answer([*arguments, "--json", *more]))
        for more in ([], ["--hours", "24", "--seed", "3", "--on-demand-price", "3", "--restart-minutes", "0"])
    )

    assert (few["hours"], many["hours"]) == (72, 24)
    assert few["policies"]["on_demand"]["cost"] == 72
    assert many["policies"]["on_demand"] == few["policies"]["on_demand"] | {
        "productive": 1.0,
        "cost": 72,
        "cost_per_productive_hour": 3.0,
    }


def test_a_plot_is_a_picture(arguments: list[str], tmp_path: Path) -> None:
    answer([*arguments, "--plot", str(tmp_path / "plot.png")])

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_says_why(arguments: list[str], tmp_path: Path) -> None:
    for path in (tmp_path / "plot.doc", tmp_path / "nowhere" / "plot.png"):
        with pytest.raises(InvalidInput, match=r"plot\.(doc|png): the plot cannot be written"):
            CliRunner().invoke(app, [*arguments, "--plot", str(path)], catch_exceptions=False)


def test_the_price_that_the_spec_names_is_counted_with(arguments: list[str], tmp_path: Path) -> None:
    with (tmp_path / "run.yaml").open("a") as spec:
        spec.write("limits: {on_demand_prices: {p3.2xlarge: 3.06}}\n")

    assert json.loads(answer([*arguments, "--json"]))["policies"]["on_demand"]["cost"] == pytest.approx(72 * 3.06)
