"""What the doctor makes of what hosts say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from spotrelay.console import doctor, host_checks
from spotrelay.console.host_checks import Finding
from spotrelay.core.errors import Missing, SpotrelayError, Unavailable
from spotrelay.core.hosts import Host

LAB = Host("lab1", "train", "lab1.example.org", "ssm:/spotrelay-hosts/lab1", "ssh-ed25519 " + "A" * 68)
WELL = {"python": "3.12.1", "gpus": 2, "free_bytes": 80_000_000_000, "at_work": [], "folder": "/home/train/.spotrelay"}


class Examiner:
    """Answers by script."""

    def __init__(self, said: Mapping[str, Any] | SpotrelayError) -> None:
        self._said = said

    def examine(self, name: str) -> Mapping[str, Any]:
        if isinstance(self._said, SpotrelayError):
            raise self._said
        return self._said


def found(said: Mapping[str, Any] | SpotrelayError, host: Host = LAB) -> Finding:
    return host_checks.look(host, Examiner(said))


def test_a_healthy_host_is_one_line_with_what_a_run_needs() -> None:
    seen = found(WELL)

    assert (seen.state, seen.remedy) == ("ok", "")
    assert seen.text == "lab1.example.org: Python 3.12.1, 2 GPUs, 80 GB free, 0 of 1 slots taken"


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"trouble": "HostUnreachable", "why": "no route"}, "failed", "firewall"),
        ({"trouble": "HostRefusesKey", "why": "not let in"}, "failed", "authorized_keys"),
        ({"trouble": "NoPython", "why": "too old"}, "failed", "3.11"),
        ({"trouble": "SomethingNew", "why": "?"}, "failed", "hosts check"),
        (WELL | {"free_bytes": 1_000_000_000}, "failed", "make room in /home/train/.spotrelay"),
        (Missing("no host lab1"), "failed", "hosts list"),
        (Unavailable("no answer"), "unknown", "again later"),
    ],
)
def test_whatever_is_wrong_with_a_host_comes_with_its_remedy(said: Any, state: str, words: str) -> None:
    seen = found(said)

    assert seen.state == state
    assert words in seen.remedy


def test_a_host_without_a_gpu_and_a_drained_one_say_so() -> None:
    assert "no GPU seen" in found(WELL | {"gpus": 0}).text
    assert "hosts open lab1" in found(WELL, replace(LAB, draining=True)).text


def test_each_host_has_a_line_and_a_stack_without_hosts_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(LAB, name="lab2")
    here: tuple[Any, ...] = ((LAB, other), Examiner(WELL))
    monkeypatch.setattr(host_checks, "registered", lambda clients, stack: here)

    lines = list(doctor._hosts(None, None))  # type: ignore[arg-type]  # nobody is asked
    here = ((), None)

    assert [line.name for line in lines] == ["host lab1", "host lab2"]
    assert list(doctor._hosts(None, None)) == []  # type: ignore[arg-type]  # nobody is asked
