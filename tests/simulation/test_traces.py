from __future__ import annotations

import math
from pathlib import Path

import pytest

from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import Pool
from spotrelay.core.spec import Spec
from spotrelay.simulation.scenario import scenario
from spotrelay.simulation.traces import read_traces, region_of, trace_of
from tests.simulation.synthetic import write

SPEC = Spec(("train",), ("p3.2xlarge", "g5.xlarge"))
POOL = Pool("eu-west-1", "eu-west-1a", "p3.2xlarge")


def test_a_gang_is_not_replayed_on_probes_that_do_not_count_machines(tmp_path: Path) -> None:
    write(tmp_path, {"eu-west-1a": [0, 1, 1]})

    with pytest.raises(InvalidInput, match="nodes asks for 4"):
        read_traces(tmp_path, Spec(("train",), ("p3.2xlarge",), nodes=4))


def test_a_trace_says_until_when_a_machine_lives_and_from_when_there_is_one() -> None:
    trace = trace_of(POOL, 100.0, [0, 1, 2, 0, 0, 1])

    assert [trace.up_until(t) for t in (0, 99, 100, 299, 300, 500)] == [None, None, 300.0, 300.0, None, math.inf]
    assert [trace.up_from(t) for t in (0, 150, 300, 599)] == [100.0, 150, 500.0, 599]
    assert trace.availability == 0.5


def test_a_trace_that_is_up_from_the_first_probe_on_is() -> None:
    trace = trace_of(POOL, 60.0, [1, 0])

    assert (trace.up_until(0), trace.up_until(60), trace.up_from(61)) == (60.0, None, math.inf)


def test_a_trace_without_any_capacity_never_has_one() -> None:
    trace = trace_of(POOL, 60.0, [0, 0])

    assert (trace.up_until(0), trace.up_from(0), trace.availability) == (None, math.inf, 0.0)


def test_traces_named_after_a_gpu_stand_for_the_first_type(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "er", {"eu-west-1b": [1], "eu-west-1a": [0]})

    pools = [trace.pool for trace in read_traces(tmp_path, SPEC)]

    assert pools == [POOL, Pool("eu-west-1", "eu-west-1b", "p3.2xlarge")]


def test_traces_of_types_that_the_spec_names_stand_for_themselves(tmp_path: Path) -> None:
    write(tmp_path, {"eu-west-1a": [1]}, "g5.xlarge")
    write(tmp_path, {"eu-west-1a": [1]}, "c5.large")

    assert [trace.pool.instance_type for trace in read_traces(tmp_path, SPEC)] == ["g5.xlarge"]


def test_only_the_zones_of_the_spec_are_replayed(tmp_path: Path) -> None:
    write(tmp_path, {"eu-west-1a": [1], "eu-west-1b": [1]})

    traces = read_traces(tmp_path, Spec(("train",), ("g5.xlarge",), zones=("eu-west-1b",)))

    assert [trace.pool.zone for trace in traces] == ["eu-west-1b"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("eu-west-1a_v100_1.json", "[]", "no trace"),
        ("eu-west-1a_v100_1.json", "{", "no trace"),
        ("eu-west-1a_v100_1.json", '{"metadata": {"gap_seconds": 0}, "data": [1]}', "above zero"),
        ("eu-west-1a_v100_1.json", '{"metadata": {"gap_seconds": 9}, "data": ["1"]}', "list of numbers"),
        ("eu-west-1a_v100_1.json", '{"metadata": {"gap_seconds": 9}, "data": []}', "list of numbers"),
        ("notes.json", "{}", "is named"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(InvalidInput, match=says) as caught:
        read_traces(tmp_path, SPEC)
    assert name in str(caught.value)


def test_two_traces_of_one_pool_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", {"eu-west-1a": [1]})
    write(tmp_path / "b", {"eu-west-1a": [1]})

    with pytest.raises(InvalidInput, match="a second trace"):
        read_traces(tmp_path, SPEC)


def test_a_folder_without_traces_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidInput, match=r"no traces|no such folder"):
            read_traces(folder, SPEC)


def test_runs_start_where_they_fit_and_the_same_ones_for_a_seed() -> None:
    traces = (trace_of(POOL, 3600.0, [1] * 100), trace_of(POOL, 3600.0, [1] * 80))

    first, again, other = (scenario(SPEC, traces, 50, 72.0, seed).starts for seed in (1, 1, 2))

    assert first == again != other
    assert first == tuple(sorted(first)) and 0 <= first[0] < first[-1] <= 8 * 3600


def test_runs_longer_than_the_traces_are_refused() -> None:
    with pytest.raises(InvalidInput, match="does not fit"):
        scenario(SPEC, (trace_of(POOL, 3600.0, [1] * 71),), 1, 72.0, 0)


@pytest.mark.parametrize(("zone", "region"), [("us-east-1a", "us-east-1"), ("eu-west-2c", "eu-west-2"), ("box", "")])
def test_a_region_is_its_zones_name_without_the_letter(zone: str, region: str) -> None:
    assert region_of(zone) == region
