"""Many runs in small: counts with fixed bounds, and the table of requests against what the adapters really send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from benchmarks.scale import __main__ as command
from benchmarks.scale import idle, requests, storms
from benchmarks.scale.money import million_minutes
from spotrelay.aws.clients import Clients
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.errors import Contention
from spotrelay.core.placement import Pool
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.run import Attempt, AttemptState, Run, note
from spotrelay.testing import MemoryMachines
from spotrelay.testing.ministack import ministack
from tests.aws.resources import new_table
from tests.handlers.plane import SPEC

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
RUNS = 230  # more than a sweep looks at in every minute


@pytest.fixture(scope="module")
def crowd() -> idle.Crowd:
    return idle.Crowd(RUNS)


@pytest.mark.parametrize("due", [0, 10, 200])
def test_a_sweep_costs_requests_for_what_is_due_and_not_for_what_exists(crowd: idle.Crowd, due: int) -> None:
    crowd.due(due)

    counted = crowd.sweep(in_turn=False)

    assert counted == {"dynamodb": 8, "ec2": 1, "sqs": due // 10}
    assert not crowd.world.machines.terminations


def test_one_sweep_in_ten_looks_at_every_machine_by_the_hundred(crowd: idle.Crowd) -> None:
    crowd.due(0)

    counted = crowd.sweep(in_turn=True)

    assert counted == {"dynamodb": 8 + 2 * 3, "ec2": 1, "sqs": 0}


def test_a_run_that_only_trains_costs_seven_requests_a_minute(crowd: idle.Crowd) -> None:
    look = crowd.look()

    assert look["dynamodb_requests"] == 7
    assert look["read_units"] <= 7
    assert look["write_units"] <= 6
    assert million_minutes(look)["dollars"] < 10


@pytest.fixture(scope="module")
def storm() -> dict[str, Any]:
    return storms.measure(200, "--burst", "20", "--lambda-rate", "50")


def test_a_doubled_storm_beyond_ec2s_rate_ends_with_exactly_one_replacement_each(storm: dict[str, Any]) -> None:
    assert storm["exact"]
    assert storm["replacements"] == storm["runs_with_one_replacement"] == 200
    assert storm["least_possible_s"] == 18


class ForgetfulMachines(MemoryMachines):
    """EC2 without tokens: the same request sent again makes another machine."""

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        answer = super().launch(request, now, first=first)
        if request["RunId"] == "run-00003" and request["Generation"] == 2:
            super().launch({**request, "ClientToken": "another"}, now, first=first)
        return answer


def test_a_storm_in_which_a_launch_happens_twice_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.storm.MemoryMachines", ForgetfulMachines)

    found = storms.measure(10, "--longest", "300")

    assert found["replacements"] == 11
    assert not found["exact"]


class BarrenMachines(MemoryMachines):
    """EC2 that has no capacity left for one of the runs."""

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        if request["RunId"] == "run-00003" and request["Generation"] == 2:
            raise Contention("EC2 answers RequestLimitExceeded: send the same request later")
        return super().launch(request, now, first=first)


def test_a_storm_that_leaves_a_run_without_its_replacement_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.storm.MemoryMachines", BarrenMachines)

    found = storms.measure(10, "--longest", "300")

    assert found["replacements"] == 9
    assert not found["exact"]


def test_the_command_fails_when_a_storm_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.scale.storms.raged", lambda storm: {**dict.fromkeys(storms.KEPT, 4), "machines_alive": 3}
    )
    monkeypatch.setattr("sys.argv", ["scale", "--runs", "3", "--storm", "4"])

    with pytest.raises(SystemExit) as ended:
        command.main()

    assert ended.value.code == 1


def test_a_storm_costs_about_one_launch_call_for_each_replacement(storm: dict[str, Any]) -> None:
    assert 1.0 <= storm["launch_calls_each"] <= 1.4
    assert storm["notice_to_launch_s"]["p95"] <= 30


def test_no_partition_of_a_storm_comes_near_what_dynamodb_takes(storm: dict[str, Any]) -> None:
    assert storm["share_of_what_a_partition_takes"]["writes"] < 0.3
    assert storm["share_of_what_a_partition_takes"]["reads"] < 0.3


def test_looking_up_owners_by_the_hundred_heats_no_single_partition() -> None:
    machines = [f"i-{number:017x}" for number in range(1000)]

    asked = list(requests.of_owners(machines, {}))

    assert sum(each.read_units for each in asked) == 500
    assert not any(each.partition for each in asked)


# the table of requests


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("ministack")
    with ministack(folder) as address:
        yield address


class Watched:
    """A real store in front of an emulated table, and the operations that it sent."""

    def __init__(self) -> None:
        clients = Clients("us-east-1", get_session())
        client = clients.client("dynamodb")
        self.store = DynamoRunStore(client, new_table(clients))
        self.sent: Counter[str] = Counter()
        client.meta.events.register("before-call.dynamodb", self._note)

    def _note(self, model: Any, **_: Any) -> None:
        self.sent[model.name] += 1

    def of(self, call: Any) -> tuple[Any, Counter[str]]:
        self.sent.clear()
        answer = call()
        return answer, Counter(self.sent)


@pytest.fixture
def watched(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "000000000001")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Watched()


def told(made: Iterator[requests.Request]) -> Counter[str]:
    return Counter(each.operation for each in made if each.operation not in ("index", "part of it"))


def test_the_table_of_requests_is_what_the_adapters_send(watched: Watched) -> None:
    store, machine = watched.store, "i-00000000000000001"
    store.create(Run("r1", SPEC, NOON))
    first = store.load("r1")
    attempt = Attempt(1, AttemptState.BOOTING, machine, Pool("us-east-1", "us-east-1a", "g5.xlarge"))
    with_machine = note(replace(first, attempts=(attempt,)), "launched", "", NOON)

    saved, with_news = watched.of(lambda: store.save(first, with_machine))
    assert with_news == told(requests.of_save(first, with_machine))
    later = replace(saved, due_at=NOON + timedelta(minutes=1))
    _, without = watched.of(lambda: store.save(saved, later))
    assert without == told(requests.of_save(saved, later))
    loaded, sent = watched.of(lambda: store.load("r1"))
    assert sent == told(requests.of_load(loaded))
    found, sent = watched.of(lambda: store.due(NOON + timedelta(hours=1)))
    assert (found, sent) == (["r1"], told(requests.of_due(found)))
    owners, sent = watched.of(lambda: store.owners([machine]))
    assert sent == told(requests.of_owners([machine], owners))
    _, sent = watched.of(lambda: store.run_of(machine))
    assert sent == told(requests.of_small("run_of", ""))
