"""A machine whose Python has torch and nothing of ours: the stack brings the shim, without a registry to ask."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from spotrelay.console.demo.reference import digest_in
from spotrelay.core.run import RunStatus
from spotrelay.localcloud.client import LocalCloud
from tests.instance.bare_python import OF_TORCH, bare_python
from tests.loop.shell import QUIET, Shell, left_alone

pytestmark = [pytest.mark.loop, pytest.mark.timeout(300), pytest.mark.xdist_group("brought-shim")]

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 40
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}  # nothing answers there
WHERE = """
import importlib, json, os, runpy, sys
import trainer_shim
found = [importlib.import_module(name).__file__ for name in ("trainer_shim", "spotrelay", "botocore", "xxhash")]
print("FOUND", os.environ.get("RANK", "0"), json.dumps(found), flush=True)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an image with torch."""
    return bare_python(tmp_path_factory.mktemp("image") / "env", *OF_TORCH)


@pytest.fixture
def shell(cloud: LocalCloud, tmp_path: Path) -> Shell:
    (tmp_path / "code").mkdir()
    for example in ("gpt_stdlib.py", "ddp_stdlib.py"):
        shutil.copy(EXAMPLES / example, tmp_path / "code")
    (tmp_path / "code" / "where.py").write_text(WHERE)
    return Shell(cloud, tmp_path)


def submit(shell: Shell, run_id: str, command: list[str], **more: Any) -> None:
    env = QUIET | OFFLINE
    spec = {"command": command, "instance_types": ["g5.xlarge"], "cadence": {"every_steps": 6}, "env": env, **more}
    (shell.folder / f"{run_id}.yaml").write_text(yaml.safe_dump(spec))
    shell.done("submit", f"{run_id}.yaml", "--code", "code", "--run-id", run_id)


def finders(log: str) -> list[tuple[str, list[Path]]]:
    """Rank of each process that said where it had found the shim and what it needs, and the places."""
    lines = [line.split(" ", 2) for line in log.splitlines() if line.startswith("FOUND ")]
    return [(rank, [Path(place) for place in json.loads(places)]) for _, rank, places in lines]


def brought(places: list[Path], home: Path) -> bool:
    """Whether all of it lies in the agent's folder on one of the cloud's machines."""
    agent = places[0].parents[2]
    ours = [place.relative_to(agent).parts[0] for place in places]
    return agent.name == "agent" and home in agent.parents and ours == ["shim"] * 2 + ["spotrelay-libs"] * 2


def test_a_python_with_torch_alone_is_reclaimed_and_goes_on_bit_for_bit_with_the_shim_of_the_stack(
    shell: Shell, image: Path, tmp_path: Path
) -> None:
    expected = left_alone(EXAMPLES / "gpt_stdlib.py", STEPS, tmp_path / "out")

    submit(shell, "bare", [str(image), "where.py", "gpt_stdlib.py", "--steps", str(STEPS)])
    first = shell.until("bare", lambda run: bool(run.lease and run.lease.holder), "the lease")
    shell.cloud.interrupt(first["attempts"][-1]["machines"][0])
    over = shell.ends("bare")

    said = shell.log("bare")
    assert len(over["attempts"]) == 2
    assert [brought(places, shell.cloud.home) for _, places in finders(said)] == [True, True], said
    assert digest_in(said) == digest_in(expected)


def test_every_process_that_torchrun_starts_finds_the_same_shim(shell: Shell, image: Path) -> None:
    torchrun = image.with_name("torchrun")
    torchrun.write_text(f"#!{image}\nfrom torch.distributed.run import main\nmain()\n")
    torchrun.chmod(0o755)
    ranks = ["--standalone", "--nproc-per-node=2", "where.py", "ddp_stdlib.py", "--steps", "8"]
    submit(shell, "ranks", [str(torchrun), *ranks])

    shell.ends("ranks")

    said = shell.log("ranks")
    assert sorted(rank for rank, places in finders(said) if brought(places, shell.cloud.home)) == ["0", "1"], said
    assert f"for {image} (Python" in said, "it was asked before the program started"


def test_a_missing_library_without_a_network_stops_the_run_with_the_remedy_and_before_any_lease(
    shell: Shell, tmp_path: Path
) -> None:
    python = bare_python(tmp_path / "image", *(name for name in OF_TORCH if name != "numpy"))
    submit(shell, "lacks", [str(python), "where.py", "gpt_stdlib.py"], limits={"max_failures": 2})

    failed = shell.until("lacks", lambda run: run.status is RunStatus.FAILED, "the end")

    told = shell.call("status", "lacks")
    assert (len(failed["attempts"]), told.returncode) == (2, 1)
    lease = shell.services.runs.load("lacks").lease
    assert lease is not None and (lease.generation, lease.holder) == (0, None), "nobody ever had it"
    assert "numpy is not installed" in told.stdout
    assert f'setup: [["{python}", "-m", "pip", "install", "numpy"]]' in told.stdout
    assert "FOUND" not in shell.log("lacks"), "the program was never started"
