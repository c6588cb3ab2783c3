"""The shim that the agent brings: found by whatever Python the run's command has, and tried before it starts."""

from __future__ import annotations

import json
import os
import shlex
import sys
import zipfile
from pathlib import Path

import pytest

from infra.agent import agent_archive
from spotrelay.core.live import ExitReport
from spotrelay.core.spec import Spec
from spotrelay.instance import shim
from spotrelay.instance.metadata import Metadata
from tests.instance.attempts import RUN, Bench, a_run, a_spec, packed
from tests.instance.bare_python import bare_python
from tests.instance.machine import write_program
from tests.instance.metadata_server import FakeMetadata

WHERE = """
import json, sys
import trainer_shim, botocore, xxhash
print("FOUND", json.dumps([trainer_shim.__file__, botocore.__file__, xxhash.__file__]))
"""
OF_AWS = ("botocore", "jmespath", "urllib3", "dateutil", "six")
IMAGE = "registry.example.com/train@sha256:" + "a" * 64


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's archive, as a machine has it."""
    folder = tmp_path_factory.mktemp("agent")
    zipfile.ZipFile(agent_archive().path).extractall(folder)
    return folder


@pytest.fixture
def bench(tmp_path: Path, metadata: FakeMetadata, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(shim, "FOLDER", unpacked / "shim")
    monkeypatch.setattr(shim, "LIBRARIES", unpacked / "spotrelay-libs")
    return Bench(tmp_path / "work", Metadata(metadata.address), environ={"PATH": os.environ["PATH"]})


@pytest.fixture(scope="session")
def with_numpy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("with-numpy") / "env", "numpy")


@pytest.fixture(scope="session")
def with_nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("with-nothing") / "env")


def report(bench: Bench, spec: Spec) -> ExitReport:
    bench.submit(a_run(spec))
    bench.agent().run()
    (found,) = bench.store.load(RUN).reports
    return found


def found_by(bench: Bench) -> list[Path]:
    """Where the program found the shim, botocore and xxhash."""
    line = next(line for line in bench.log().splitlines() if line.startswith("FOUND "))
    return [Path(path) for path in json.loads(line.removeprefix("FOUND "))]


def test_a_python_with_nothing_of_ours_finds_the_stacks_shim_and_its_libraries(
    bench: Bench, unpacked: Path, with_numpy: Path
) -> None:
    assert report(bench, a_spec(str(with_numpy), "-c", WHERE)).code == 0, bench.log()

    ours, botocore, xxhash = found_by(bench)
    assert ours == unpacked / "shim" / "trainer_shim" / "__init__.py"
    assert {botocore.parents[1], xxhash.parents[1]} == {unpacked / "spotrelay-libs"}
    assert f"trainer_shim 0.1.0 in {unpacked / 'shim'}" in bench.log()


def test_what_the_user_has_installed_is_used_by_both_and_only_an_installed_shim_comes_after_the_stacks(
    bench: Bench, unpacked: Path, tmp_path: Path
) -> None:
    python = bare_python(tmp_path / "env", *OF_AWS, "numpy", "xxhash", "trainer_shim")
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))

    assert report(bench, a_spec(str(python), "-c", WHERE)).code == 0, bench.log()

    ours, botocore, xxhash = found_by(bench)
    assert ours.parents[1] == unpacked / "shim"
    assert {botocore.parents[1], xxhash.parents[1]} == {site}


def test_a_shim_in_the_code_goes_before_the_stacks_and_is_told(bench: Bench, with_nothing: Path) -> None:
    body, digest = packed(
        {"trainer_shim/__init__.py": "", "train.py": "import trainer_shim as t; print('IS', t.__file__)"}
    )
    bench.objects.put(f"code/{digest}.tar.gz", body)
    code = {"code_key": f"code/{digest}.tar.gz", "code_digest": digest}

    assert report(bench, a_spec(str(with_nothing), "train.py", **code)).code == 0, bench.log()

    assert f"IS {bench.work / 'code' / 'trainer_shim'}" in bench.log()
    assert "the code has a trainer_shim of its own" in bench.log()


def test_what_is_missing_is_told_with_the_line_that_mends_it_and_the_program_never_starts(
    bench: Bench, with_nothing: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"

    told = report(bench, a_spec(str(with_nothing), "-c", f"open({str(started)!r}, 'w')"))

    assert (told.stage, told.code) == ("boot", 78)
    assert "numpy is not installed" in told.tail
    assert f'setup: [["{with_nothing}", "-m", "pip", "install", "numpy"]]' in told.tail
    assert "bring_shim: false" in told.tail
    assert not started.exists()


def test_setup_may_install_what_is_missing(bench: Bench, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "env")
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    install = ("sh", "-c", f"echo '__version__ = \"2.4.6\"' >{shlex.quote(str(site))}/numpy.py")

    assert report(bench, a_spec(str(python), "-c", WHERE, setup=(install,))).code == 0, bench.log()


def test_a_python_that_is_too_old_is_named(bench: Bench, tmp_path: Path) -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); runpy.run_module('trainer_shim')"
    old = write_program(tmp_path / "python3.9", f"#!/bin/sh\nexec {sys.executable} -c {shlex.quote(pretend)}\n")

    told = report(bench, a_spec(str(old), "train.py"))

    assert told.stage == "boot"
    assert "trainer_shim needs Python 3.11 or newer, and" in told.tail and "is 3.9" in told.tail


def test_a_python_told_to_overlook_the_path_is_found_out_before_it_starts(bench: Bench, with_numpy: Path) -> None:
    told = report(bench, a_spec(str(with_numpy), "-u", "-I", "-c", "print('started')"))

    assert told.stage == "boot"
    assert "No module named trainer_shim" in told.tail


def test_a_run_that_brings_its_own_shim_is_left_alone(bench: Bench, with_nothing: Path) -> None:
    code = "import os, sys; print('PATH', os.environ.get('PYTHONPATH'), 'trainer_shim' in sys.modules)"

    assert report(bench, a_spec(str(with_nothing), "-c", code, bring_shim=False)).code == 0, bench.log()

    assert "PATH None False" in bench.log()
    assert "trainer_shim 0.1.0" not in bench.log()


def test_the_runs_own_pythonpath_goes_before_the_shim(bench: Bench, unpacked: Path, with_numpy: Path) -> None:
    code = "import os; print('PATH', os.environ['PYTHONPATH'])"

    assert report(bench, a_spec(str(with_numpy), "-c", code, env={"PYTHONPATH": "/opt/a:/opt/b"})).code == 0, (
        bench.log()
    )

    assert f"PATH /opt/a:/opt/b:{unpacked / 'shim'}\n" in bench.log()


def test_programs_beside_the_agents_python_are_found_by_their_names(bench: Bench) -> None:
    bench.environ["PATH"] = os.defpath

    code = report(bench, a_spec(Path(sys.executable).name, "-c", "import sys; print('RUNS', sys.executable)")).code

    assert code == 0, bench.log()
    assert f"RUNS {sys.executable}" in bench.log()


def test_an_image_keeps_its_own_path_gets_the_shim_read_only_and_its_python_is_asked(
    bench: Bench, unpacked: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    docker = f"""#!/bin/sh
printf '%s|' "$@" >>{notes}; echo "$PYTHONPATH" >>{notes}
if [ "$1" = image ]; then echo '["PATH=/bin", "PYTHONPATH=/opt/in-the-image"]'; fi
"""
    write_program(tmp_path / "bin" / "docker", docker)
    bench.environ["PATH"] = f"{tmp_path / 'bin'}:{bench.environ['PATH']}"

    assert report(bench, a_spec("python3", "-u", "train.py", image=IMAGE)).code == 0, bench.log()

    _, _, asked, ran = notes.read_text().splitlines()
    path = f"/opt/in-the-image:{unpacked / 'shim'}"
    assert asked.endswith(f"{IMAGE}|python3|-u|-m|trainer_shim|{path}")
    assert ran.endswith(f"{IMAGE}|python3|-u|train.py|{path}")
    for folder in (unpacked / "shim", unpacked / "spotrelay-libs"):
        assert f"--volume|{folder}:{folder}:ro" in ran
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in (folder, *folder.rglob("*")))
    assert "--env|PYTHONPATH" in ran


@pytest.mark.parametrize(
    ("first_lines", "asked"),
    [
        ("#!{python}\nimport re", ["{python}", "-m", "trainer_shim"]),
        ("#!{python} -u\nimport re", ["{python}", "-u", "-m", "trainer_shim"]),
        ("#!/usr/bin/env python3\n", ["python3", "-m", "trainer_shim"]),
        ("#!/usr/bin/env -S python3 -s\n", ["python3", "-s", "-m", "trainer_shim"]),
        ("#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''", ["{python}", "-m", "trainer_shim"]),
        ("#!/bin/sh\nexec something\n", None),
        ("#!/no/such/interpreter\n", None),
        ("\x7fELF", None),
    ],
)  # fmt: skip
def test_the_python_behind_a_script_is_the_one_of_its_first_line(
    first_lines: str, asked: list[str] | None, tmp_path: Path
) -> None:
    python = write_program(tmp_path / "env" / "bin" / "python", "#!/bin/sh\n")
    write_program(tmp_path / "bin" / "python3", "#!/bin/sh\n")
    write_program(tmp_path / "bin" / "torchrun", first_lines.format(python=python))

    found = shim.question(["torchrun", "train.py"], {"PATH": str(tmp_path / "bin")}, tmp_path)

    assert found == (None if asked is None else [word.format(python=python) for word in asked])


def test_a_command_that_is_not_there_is_not_asked(tmp_path: Path) -> None:
    assert shim.question(["nothing"], {"PATH": str(tmp_path)}, tmp_path) is None
    assert shim.question(["./nothing"], {"PATH": str(tmp_path)}, tmp_path) is None
