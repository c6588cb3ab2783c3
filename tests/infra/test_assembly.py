"""The assembly for the embedded cloud: made without the CDK command line, and known to be fresh or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import assembly, node
from infra.assets import interpreter
from infra.host import ROOT, host_architecture, host_python


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One assembly for this machine, made as the Makefile does."""
    out = tmp_path_factory.mktemp("work") / "_assembly"
    answer = _run("--out", str(out), "--arch", "host", "--python", "host")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.splitlines()[-1])
    assert (told["built"], told["fresh"]) == (True, True)
    return out


def test_every_asset_that_the_assembly_names_is_in_it(made: Path) -> None:
    files = json.loads((made / "Spotrelay.assets.json").read_text())["files"].values()

    assert len(files) == 4, "template, functions, the function for hosts, agent"
    assert [f["source"]["path"] for f in files if not (made / f["source"]["path"]).exists()] == []


def test_the_functions_are_for_this_machine(made: Path) -> None:
    resources = json.loads((made / "Spotrelay.template.json").read_text())["Resources"].values()

    functions = [r["Properties"] for r in resources if r["Type"] == "AWS::Lambda::Function"]
    assert {f["Runtime"] for f in functions} == {f"python{host_python()}"}
    assert {a for f in functions for a in f["Architectures"]} == {host_architecture()}


def test_a_fresh_assembly_is_not_made_again(made: Path) -> None:
    before = (made / assembly.STAMP).stat().st_mtime_ns

    answer = _run("--out", str(made), "--if-stale")

    assert json.loads(answer.stdout)["built"] is False
    assert (made / assembly.STAMP).stat().st_mtime_ns == before


def test_a_check_refuses_what_was_made_from_other_choices(made: Path) -> None:
    assert _run("--out", str(made), "--check").returncode == 0
    assert _run("--out", str(made), "--check", "-c", "zones=2").returncode == 1


def test_a_check_refuses_what_was_made_from_other_sources(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.fingerprint.FILES", ("cdk.json", "package.json"))

    assert not assembly.is_fresh(made, assembly._choices("host", "host", []))


def test_a_check_needs_nothing_installed(made: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('aws_cdk', 'jsii', 'botocore', 'pydantic')))\n"
        "from infra.assembly import main\n"
        f"sys.exit(main(['--out', {str(made)!r}, '--check']))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": "/nowhere"}
    )

    assert answer.returncode == 0, answer.stderr


def test_a_bad_context_is_told_in_words_and_leaves_the_old_assembly(made: Path) -> None:
    answer = _run("--out", str(made), "-c", "zones=99")

    assert answer.returncode == 2
    assert "spotrelay.zones" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert (made / "manifest.json").is_file()
    assert [p.name for p in made.parent.iterdir()] == [made.name]


def test_two_assemblies_of_the_same_sources_are_equal(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "_assembly"

    assert _run("--out", str(again)).returncode == 0

    for name in ("Spotrelay.template.json", "Spotrelay.assets.json"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


def test_a_recent_node_of_the_system_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JSII_NODE", raising=False)
    monkeypatch.setenv("PATH", str(_fake_node(tmp_path, "v24.1.0")))

    node.choose_node()

    assert "JSII_NODE" not in os.environ


@pytest.mark.parametrize("version", ["v18.20.0", "no such thing", ""])
def test_the_node_of_the_wheel_is_taken_where_there_is_none_or_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    wheel = tmp_path / "wheel-node"
    monkeypatch.delenv("JSII_NODE", raising=False)
    monkeypatch.setenv("PATH", str(_fake_node(tmp_path, version)))
    monkeypatch.setattr(node, "wheel_node", lambda: wheel)

    node.choose_node()

    assert os.environ.pop("JSII_NODE") == str(wheel)


def test_a_node_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSII_NODE", "/my/node")

    node.choose_node()

    assert os.environ["JSII_NODE"] == "/my/node"


def test_there_is_an_interpreter_for_the_default_or_the_bundle_says_so() -> None:
    found = interpreter(host_python())

    assert found == sys.executable


def _fake_node(folder: Path, version: str) -> Path:
    if version:
        path = folder / "node"
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
    return folder


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.assembly", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
