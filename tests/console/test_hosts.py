"""`spotrelay hosts`, called as a shell would."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from spotrelay.console import hosts as work
from spotrelay.core.errors import Unavailable
from spotrelay.core.hosts import machine_id
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.spec import Spec
from spotrelay.testing.hosts import MemoryHosts
from tests.console.conftest import Plane, Said

Call = Callable[..., Said]
KEY = "ssh-ed25519 " + "A" * 68
ADD = ("hosts", "add", "lab1", "ssh://train@lab1.example.org:2222", "--key-secret", "ssm:/spotrelay-hosts/lab1")
SAID = {"python": "3.12.1", "gpus": 2, "free_bytes": 5_000_000_000, "at_work": [], "folder": "/home/train/.spotrelay"}


class Reach:
    """Connects to nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def check(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        if self.silent:
            raise Unavailable(f"ssh:{name}: train@lab1.example.org:2222: ConnectionRefusedError")
        return dict(SAID)


@pytest.fixture
def reach() -> Reach:
    return Reach()


@pytest.fixture
def hosts(plane: Plane, reach: Reach, monkeypatch: pytest.MonkeyPatch) -> MemoryHosts:
    registry = MemoryHosts()
    monkeypatch.setattr(work, "connect", lambda where: work.Desk(plane.services, registry, reach))
    return registry


def training_on_lab1(plane: Plane, hosts: MemoryHosts, run_id: str = "r1") -> str:
    host = hosts.one("lab1")
    machine = machine_id("Spotrelay", host.region, f"{run_id}.1.1")
    run = Run(run_id, Spec(("train",), ("g5.xlarge",)), plane.clock.now())
    plane.store.create(run)
    attempt = Attempt(1, AttemptState.RUNNING, instance_id=machine, pool=host.pool)
    before = plane.store.load(run_id)
    plane.store.save(before, replace(before, status=RunStatus.RUNNING, attempts=(attempt,)))
    return machine


def test_a_host_is_registered_once_it_answers(spotrelay: Call, hosts: MemoryHosts, reach: Reach) -> None:
    said = spotrelay(*ADD, "--host-key", f"{KEY} root@lab1", "--kind", "rtx4090", "--slots", "2", "--price", "0.4")

    host = hosts.one("lab1")
    assert said.code == 0 and "2 GPUs" in said.out
    assert (host.user, host.address, host.port) == ("train", "lab1.example.org", 2222)
    assert (host.host_key, host.kind, host.slots, host.price) == (KEY, "rtx4090", 2, 0.4)
    assert reach.asked == ["lab1"]


def test_a_host_that_does_not_answer_is_not_registered(spotrelay: Call, hosts: MemoryHosts, reach: Reach) -> None:
    reach.silent = True

    said = spotrelay(*ADD, "--host-key", KEY)

    assert said.code == 6 and "ConnectionRefusedError" in said.err
    assert hosts.hosts() == ()


def test_no_host_is_believed_without_its_key(spotrelay: Call, hosts: MemoryHosts) -> None:
    said = spotrelay(*ADD)

    assert said.code == 2 and "--host-key" in said.err
    assert hosts.hosts() == ()


@pytest.mark.parametrize("key", ["ssm:/spotrelay/lab1", "ssm:/other", "a private key"])
def test_a_private_key_where_runs_may_read_is_refused(spotrelay: Call, hosts: MemoryHosts, key: str) -> None:
    said = spotrelay(*ADD[:-1], key, "--host-key", KEY)

    assert said.code == 2 and "spotrelay-hosts" in said.err


def test_a_taken_name_is_refused(spotrelay: Call, hosts: MemoryHosts) -> None:
    spotrelay(*ADD, "--host-key", KEY)

    assert spotrelay(*ADD, "--host-key", KEY).code == 5


def test_the_list_shows_hosts_and_what_runs_on_them(spotrelay: Call, hosts: MemoryHosts, plane: Plane) -> None:
    spotrelay(*ADD, "--host-key", KEY, "--no-check")
    training_on_lab1(plane, hosts)

    rows = json.loads(spotrelay("hosts", "list", "--json").out)
    shown = spotrelay("hosts", "list").out

    assert [(row["host"], row["runs"], row["draining"]) for row in rows] == [("lab1", ["r1"], False)]
    assert "ssh://train@lab1.example.org:2222" in shown


def test_a_drain_marks_the_host_and_tells_the_runs_on_it(spotrelay: Call, hosts: MemoryHosts, plane: Plane) -> None:
    spotrelay(*ADD, "--host-key", KEY)
    machine = training_on_lab1(plane, hosts)

    said = spotrelay("hosts", "drain", "lab1", "--json")

    assert json.loads(said.out) == {"host": "lab1", "draining": True, "runs": ["r1"]}
    assert hosts.one("lab1").draining
    (told,) = plane.publisher.of("Interruption Notice Seen")
    assert (told["run_id"], told["instance-id"], told["source"]) == ("r1", machine, "drain")
    assert spotrelay("hosts", "open", "lab1").code == 0
    assert not hosts.one("lab1").draining


def test_a_host_with_runs_on_it_is_removed_only_when_it_is_said_to_be_lost(
    spotrelay: Call, hosts: MemoryHosts, plane: Plane
) -> None:
    spotrelay(*ADD, "--host-key", KEY)
    training_on_lab1(plane, hosts)

    refused = spotrelay("hosts", "remove", "lab1")
    assert refused.code == 5 and hosts.one("lab1")
    lost = spotrelay("hosts", "remove", "lab1", "--lost")

    assert lost.code == 0 and "r1" in lost.err
    assert hosts.hosts() == ()
    assert spotrelay("hosts", "remove", "lab1").code == 4


def test_check_says_what_was_found(spotrelay: Call, hosts: MemoryHosts, reach: Reach) -> None:
    said = spotrelay("hosts", "check", "lab1", "--json")

    assert json.loads(said.out) == SAID
