"""What is particular to hosts: their keys, their files, their end, and what a machine may and may not do there."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import botocore.session
import pytest

from spotrelay.console.host_checks import REMEDIES
from spotrelay.core.errors import Missing, OutOfReach, Unavailable
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Rung
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.hosts.keeper import members
from spotrelay.testing.contracts.samples import NOON
from tests.hosts.lab import AGENT, SPEC, Lab, archive, at
from tests.localcloud.kit import eventually


def launch(lab: Lab, run_id: str, host: str = "lab1", first: bool = True, number: int = 1) -> LaunchAnswer:
    request = lab.machines.prepare(run_id, 1, number, Rung((lab.hosts.one(host).pool,), "test"))
    return lab.machines.launch(request, NOON, first=first)


def started(lab: Lab, run_id: str, host: str = "lab1") -> tuple[str, dict[str, Any]]:
    """A machine whose agent is at work, and what that agent found around it."""
    machine = launch(lab, run_id, host).instance_id
    assert machine is not None
    said = lab.home(host, machine) / "work" / "agent.json"
    eventually(said.exists, "the agent has started")
    return machine, json.loads(said.read_text())


def refused(answer: LaunchAnswer) -> tuple[str, FailureScope]:
    assert answer.instance_id is None
    (refusal,) = answer.refusals
    return refusal.code, refusal.scope


def test_a_host_with_another_key_than_the_registered_one_is_never_spoken_to(lab: Lab) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    lab.change("lab1", host_key=" ".join(other.split()[:2]))

    answer = launch(lab, "r1")

    assert refused(answer) == ("HostKeyMismatch", FailureScope.REGION)
    assert lab.issuer.issued == [], "rights were made for a machine that is not ours"


def test_a_host_that_refuses_our_key_says_so(lab: Lab) -> None:
    lab.servers["lab1"].private_key, right = lab.servers["lab2"].private_key, lab.servers["lab1"].private_key

    code, scope = refused(launch(lab, "r1"))
    lab.servers["lab1"].private_key = right

    assert (code, scope) == ("HostRefusesKey", FailureScope.REGION)


def test_a_host_without_a_python_that_will_do_says_so(lab: Lab) -> None:
    lab.change("lab1", python="/no/such/python")

    assert refused(launch(lab, "r1"))[0] == "NoPython"
    with pytest.raises(Unavailable, match="--python"):
        lab.machines.check("lab1")


def test_an_examined_host_tells_what_it_has_or_by_a_code_what_is_wrong_with_it(lab: Lab) -> None:
    healthy = lab.machines.examine("lab1")
    lab.change("lab1", python="/no/such/python")
    no_python = lab.machines.examine("lab1")
    lab.change("lab1", port=1)
    unreachable = lab.machines.examine("lab1")
    lab.change("lab1", host_key=lab.servers["lab2"].host().host_key)
    another = lab.machines.examine("lab1")

    assert "trouble" not in healthy and healthy["free_bytes"] > 0 and healthy["at_work"] == []
    troubles = [said["trouble"] for said in (no_python, unreachable, another)]
    assert troubles == ["NoPython", "HostUnreachable", "HostKeyMismatch"]
    assert set(troubles) <= set(REMEDIES)


def test_a_host_that_is_not_registered_is_refused_and_its_machines_are_gone(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    request = lab.machines.prepare("r1", 1, 2, Rung((lab.hosts.one("lab1").pool,), "test"))
    lab.hosts.remove("lab1")

    answer = lab.machines.launch(request, NOON)

    assert refused(answer) == ("HostUnknown", FailureScope.REGION)
    assert lab.machines.states((machine,), {machine: "ssh:lab1"}) == {machine: InstanceState.GONE}
    with pytest.raises(Missing):
        lab.machines.check("lab1")


def test_a_drained_host_takes_no_new_launch_and_still_answers_for_an_old_one(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    lab.hosts.drain("lab1")

    assert refused(launch(lab, "r2")) == ("HostDraining", FailureScope.POOL)
    assert launch(lab, "r1", first=False).instance_id == machine


def test_slots_are_how_many_runs_a_host_has_at_once(lab: Lab) -> None:
    lab.change("lab1", slots=2)

    first, second = launch(lab, "r1"), launch(lab, "r2")

    assert first.instance_id != second.instance_id
    assert refused(launch(lab, "r3")) == ("HostBusy", FailureScope.POOL)


def test_two_attempts_of_one_run_never_share_a_host_however_many_slots_it_has(lab: Lab) -> None:
    lab.change("lab1", slots=2)
    first = launch(lab, "r1")

    assert refused(launch(lab, "r1", number=2)) == ("HostBusy", FailureScope.POOL)

    assert first.instance_id is not None
    lab.machines.terminate(first.instance_id)
    assert launch(lab, "r1", number=2).instance_id is not None


def test_a_launch_that_is_sent_again_after_its_machine_has_ended_starts_nothing(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    lab.machines.terminate(machine)

    again = launch(lab, "r1", first=False)

    assert again.instance_id == machine
    assert members(machine) == []


def test_the_agent_is_brought_once_and_whole(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    lab.machines.terminate(machine)
    started(lab, "r2")

    assert lab.fetched == 1
    folder = lab.home("lab1", machine).parent / "agents"
    assert [path.name for path in folder.iterdir()] == [path.name for path in folder.glob("*") if len(path.name) == 64]


def test_credentials_are_in_a_file_for_one_user_and_nowhere_else(lab: Lab) -> None:
    machine, said = started(lab, "r1")

    home = lab.home("lab1", machine)
    assert stat.S_IMODE((home / "rights.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    secret = b"secret-0001"
    for pid in members(machine):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    others = [path for path in home.rglob("*") if path.is_file() and path.name != "rights.json"]
    assert others and not any(secret in path.read_bytes() for path in others)
    assert said["environ"]["AWS_EC2_METADATA_DISABLED"] == "true"


def test_a_program_finds_its_own_credentials_and_the_renewed_ones_without_being_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.clock.set(datetime.now(UTC) - timedelta(minutes=55))
    machine, said = started(lab, "r1")
    lab.runs.machines[machine] = "r1"
    lab.runs.known["r1"] = Run("r1", SPEC, NOON, attempts=(on(machine, lab),), status=RunStatus.RUNNING)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, said["environ"][name])
    held = botocore.session.get_session().get_credentials()
    assert held is not None and held.get_frozen_credentials().access_key == "ASIA0001"

    lab.clock.set(datetime.now(UTC))
    renewed = lab.machines.tend()

    assert renewed == 1
    assert held.get_frozen_credentials().access_key == "ASIA0002"


def on(machine: str, lab: Lab, state: AttemptState = AttemptState.RUNNING) -> Attempt:
    return Attempt(1, state, instance_id=machine, pool=lab.hosts.one("lab1").pool, ended_at=None)


@pytest.mark.parametrize("case", ["fresh", "over", "somebody else's", "unknown"])
def test_rights_are_renewed_only_when_they_run_out_and_only_for_an_attempt_that_goes_on(lab: Lab, case: str) -> None:
    machine, _ = started(lab, "r1")
    state = AttemptState.ENDED if case == "over" else AttemptState.RUNNING
    lab.runs.known["r1"] = Run("r1", SPEC, NOON, attempts=(on(machine, lab, state),), status=RunStatus.RUNNING)
    lab.runs.machines = {} if case == "unknown" else {machine: "r2" if case == "somebody else's" else "r1"}
    lab.clock.set(at(0.25 if case == "fresh" else 0.75))

    assert lab.machines.tend() == 0
    assert len(lab.issuer.issued) == 1


def test_what_a_killed_agent_leaves_behind_ends_with_it(lab: Lab) -> None:
    machine, said = started(lab, "r1")

    os.kill(said["pid"], signal.SIGKILL)

    eventually(lambda: members(machine) == [], "its program and its guard are gone, though in a session of their own")
    assert lab.machines.states((machine,))[machine] is InstanceState.TERMINATED
    assert not (lab.home("lab1", machine) / "rights.json").exists()


def test_a_program_that_ignores_sigterm_is_killed(lab: Lab) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    lab = Lab(*lab.servers.values(), agent=archive(deaf + AGENT))
    machine, _ = started(lab, "r1")

    lab.machines.terminate(machine)

    assert members(machine) == []


def test_a_host_that_claims_a_machine_of_another_launch_is_not_believed(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    order = lab.home("lab1", machine) / "order.json"
    order.write_text(json.dumps({**json.loads(order.read_text()), "run": "somebody-elses"}))

    assert list(lab.machines.managed()) == []


def test_a_host_out_of_reach_is_told_from_a_control_plane_that_cannot_ask(lab: Lab) -> None:
    machine, _ = started(lab, "r1")
    lab.servers["lab1"].stop()

    with pytest.raises(OutOfReach, match="ssh:lab1"):
        lab.machines.states((machine,), {machine: "ssh:lab1"})
    assert members(machine), "it goes on all the same"


def test_no_secret_and_nothing_of_a_run_is_in_the_command_that_the_host_is_given(lab: Lab) -> None:
    started(lab, "r1")

    log = (lab.servers["lab1"].folder / "sshd.log").read_text()
    assert not re.search(r"secret-|token-0|\br1\b", log)


def test_check_says_what_a_person_wants_to_know(lab: Lab) -> None:
    started(lab, "r1")

    said = lab.machines.check("lab1")

    assert said["python"].startswith("3.")
    assert said["free_bytes"] > 0 and len(said["at_work"]) == 1


def test_prices_are_those_of_the_registry(lab: Lab) -> None:
    pools = tuple(host.pool for host in lab.hosts.hosts())
    unknown = replace(pools[0], region="ssh:nobody")

    assert lab.machines.prices((*pools, unknown)) == dict.fromkeys(pools, 0.35)
