"""Opens the real assets: what is in them, what is not, and whether they run where they are meant to."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import assets
from infra.agent import ARCHITECTURES, PYTHONS, SERVICES, Archive, agent_archive
from infra.assets import Bundle, Target, interpreter, lambda_bundle
from infra.host import ROOT, host_architecture, host_python
from infra.models import OPERATIONS
from spotrelay.instance.main import NOT_CONFIGURED

LIBRARIES = "spotrelay-libs"
AARCH64, X86_64 = 183, 62  # e_machine of an ELF file
MOST_ZIPPED = 10 * 1024 * 1024
HELD = ("spotrelay", "botocore", "jmespath")
HANDLERS = ("interruptions", "runs", "sweep")


@pytest.fixture(scope="module")
def arm() -> Bundle:
    """What `cdk deploy` uploads."""
    return lambda_bundle(Target("arm64", "3.13"))


@pytest.fixture(scope="module")
def intel() -> Bundle:
    """The same for the other architecture."""
    return lambda_bundle(Target("x86_64", "3.13"))


@pytest.fixture(scope="module")
def native() -> Bundle:
    """What the embedded cloud runs on this machine."""
    return lambda_bundle(Target(host_architecture(), host_python()))


@pytest.fixture(scope="module")
def archive() -> Archive:
    """What an instance downloads."""
    return agent_archive()


def test_the_bundle_holds_the_handlers_and_what_they_need(arm: Bundle) -> None:
    names = {path.name for path in arm.tree.iterdir()}

    assert {"handlers", "spotrelay", "aws_lambda_powertools", "pydantic", "pydantic_core", "models"} <= names
    assert {p.name for p in (arm.tree / "spotrelay").iterdir() if p.is_dir()} - {"__pycache__"} == {"core", "aws"}


def test_the_bundle_holds_no_training_framework_and_no_sdk(arm: Bundle) -> None:
    heavy = ("torch", "numpy", "boto3", "botocore", "s3transfer", "urllib3", "ministack", "trainer_shim", "aws_cdk")

    assert not [name for name in heavy if (arm.tree / name).exists()]
    assert arm.archive.stat().st_size < MOST_ZIPPED


def test_what_scanners_look_for_is_kept(arm: Bundle) -> None:
    kept = {path.parent.name.split("-")[0] for path in arm.tree.glob("*.dist-info/METADATA")}

    assert {"pydantic", "pydantic_core", "aws_lambda_powertools"} <= kept


def test_the_archive_holds_the_tree_and_nothing_else(arm: Bundle) -> None:
    assert sorted(zipfile.ZipFile(arm.archive).namelist()) == sorted(_files(arm.tree))


def test_every_module_has_its_byte_code(arm: Bundle) -> None:
    if interpreter("3.13") is None:
        assert not arm.compiled, "no Python 3.13 here: then the bundle says that it has no byte code"
        return

    without = [
        p for p in arm.tree.rglob("*.py") if not (p.parent / "__pycache__" / f"{p.stem}.cpython-313.pyc").is_file()
    ]

    assert arm.compiled
    assert without == []


def test_byte_code_is_never_compared_with_its_source(arm: Bundle) -> None:
    flags = {int.from_bytes(path.read_bytes()[4:8], "little") for path in arm.tree.rglob("*.pyc")}

    assert flags <= {0b01}, "hash-based, and not checked at import"


def test_architectures_differ_in_native_code_only(arm: Bundle, intel: Bundle) -> None:
    one, other = _files(arm.tree), _files(intel.tree)

    differing = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}

    assert differing
    # The wheel's own record says for which platform it was made.
    assert {Path(n).suffix for n in differing if not n.endswith(".dist-info/METADATA")} == {".so"}


@pytest.mark.parametrize(("name", "machine"), [("arm", AARCH64), ("intel", X86_64)])
def test_native_code_is_of_the_architecture_asked_for(name: str, machine: int, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(name)

    machines = {int.from_bytes(path.read_bytes()[18:20], "little") for path in bundle.tree.rglob("*.so")}

    assert machines == {machine}


def test_building_twice_gives_equal_files(native: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONHASHSEED", "42")

    again = lambda_bundle(Target(host_architecture(), host_python()))

    assert again.tree != native.tree
    assert _files(again.tree) == _files(native.tree)
    assert again.digest == native.digest
    assert again.archive.read_bytes() == native.archive.read_bytes()


def test_packing_the_agent_twice_gives_equal_bytes(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    again = agent_archive()

    assert again.path != archive.path
    assert again.sha256 == archive.sha256 == hashlib.sha256(again.path.read_bytes()).hexdigest()


def test_a_changed_source_makes_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "infra").mkdir()
    for name in assets.BUILDERS:
        (tmp_path / name).write_text("")
    (tmp_path / "handlers.py").write_text("first = 1\n")
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    before = assets.input_digest(("handlers.py",), (), {})

    (tmp_path / "handlers.py").write_text("first = 2\n")

    assert assets.input_digest(("handlers.py",), (), {}) != before


@pytest.mark.parametrize("module", HANDLERS)
def test_each_handler_is_imported_from_the_bundle_by_a_python_with_nothing_else(
    native: Bundle, module: str, tmp_path: Path
) -> None:
    code = f"import handlers.{module} as m, sys\nassert callable(m.handler)\nprint(m.__file__, 'torch' in sys.modules)"

    answer = _run_clean([native.tree, _managed_sdk(tmp_path)], code)

    assert answer.returncode == 0, answer.stderr
    file, torch = answer.stdout.split()
    assert file.startswith((str(native.tree), "/var/task"))
    assert torch == "False"


def test_the_sdk_takes_the_small_model_of_ec2_from_the_bundle(native: Bundle, tmp_path: Path) -> None:
    code = (
        "import boto3\n"
        "client = boto3.client('ec2', region_name='us-east-1')\n"
        "print(sorted(client.meta.service_model.operation_names))"
    )

    answer = _run_clean(
        [native.tree, _managed_sdk(tmp_path)],
        code,
        AWS_DATA_PATH="$LAMBDA_TASK_ROOT/models",
        LAMBDA_TASK_ROOT=str(native.tree),
    )

    assert answer.returncode == 0, answer.stderr
    assert tuple(ast.literal_eval(answer.stdout)) == tuple(sorted(OPERATIONS))


def test_the_small_model_of_ec2_has_every_operation_that_the_adapters_call() -> None:
    sources = [path.read_text() for folder in ("spotrelay/aws", "handlers") for path in (ROOT / folder).rglob("*.py")]
    snake = {_snake(name) for name in _every_ec2_operation()}

    called = {name for text in sources for name in snake if f".{name}(" in text or f'"{name}"' in text}

    assert {"create_fleet", "describe_instances", "terminate_instances"} <= called
    assert called <= {_snake(name) for name in OPERATIONS}


def test_the_agent_brings_an_sdk_for_its_services_and_no_other(archive: Archive) -> None:
    names = zipfile.ZipFile(archive.path).namelist()
    data = f"{LIBRARIES}/botocore/data/"

    below = [name.removeprefix(data) for name in names if name.startswith(data)]
    services = {name.split("/")[0] for name in below if "/" in name}

    assert services == set(SERVICES)
    assert {"__main__.py", "shim/spotrelay/instance/main.py", f"{LIBRARIES}/botocore/cacert.pem"} <= set(names)
    assert archive.path.stat().st_size < 6 * 1024 * 1024


def test_the_archive_holds_the_whole_shim_and_nothing_of_the_console_the_cloud_or_the_handlers(
    archive: Archive,
) -> None:
    names = zipfile.ZipFile(archive.path).namelist()

    ours = {name.removeprefix("shim/") for name in names if name.startswith("shim/trainer_shim/")}
    packages = {name.split("/")[2] for name in names if name.startswith("shim/spotrelay/") and name.count("/") > 2}

    assert ours == {p.relative_to(ROOT).as_posix() for p in assets.source_files(ROOT / "trainer_shim")}
    assert packages == {"core", "aws", "instance"}


def test_the_archive_has_native_code_for_every_python_and_architecture_side_by_side(archive: Archive) -> None:
    with zipfile.ZipFile(archive.path) as held:
        native = {name: held.read(name)[18:20] for name in held.namelist() if name.endswith((".so", ".pyd"))}

    machines = {"arm64": ("aarch64", AARCH64), "x86_64": ("x86_64", X86_64)}
    assert {name: int.from_bytes(machine, "little") for name, machine in native.items()} == {
        f"{LIBRARIES}/xxhash/_xxhash.cpython-{python.replace('.', '')}-{word}-linux-gnu.so": number
        for python in PYTHONS
        for word, number in (machines[architecture] for architecture in ARCHITECTURES)
    }


def test_the_agent_makes_its_clients_from_its_own_archive(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    zipfile.ZipFile(archive.path).extractall(folder)
    code = (
        "import os, botocore, spotrelay.instance.main\n"
        "from spotrelay.aws.clients import Clients\n"
        "os.environ.update(AWS_ACCESS_KEY_ID='x', AWS_SECRET_ACCESS_KEY='y')\n"
        f"for name in {SERVICES!r}:\n"
        "    Clients('us-east-1').client(name)\n"
        "print(botocore.__file__)"
    )

    answer = _run_clean([folder / "shim", folder / LIBRARIES], code)

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(str(folder))


def test_the_archive_runs_as_a_program_and_takes_nothing_from_the_image_that_it_has_itself(
    archive: Archive, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    zipfile.ZipFile(archive.path).extractall(folder)

    code = (
        "import runpy, sys\n"
        "try:\n"
        f"    runpy.run_path({str(folder)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        f"    print(end.code, *(sys.modules[name].__file__ for name in {HELD!r}))"
    )

    answer = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code], env={}, capture_output=True, text=True, check=False
    )

    status, *places = answer.stdout.split()
    assert int(status) == NOT_CONFIGURED and "the resume script did not set SPOTRELAY_RUN" in answer.stderr
    assert [place for place in places if not place.startswith(str(folder))] == []


def test_an_interpreter_that_does_not_run_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.14"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))

    assert interpreter("3.14") is None


def _files(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def _managed_sdk(folder: Path) -> Path:
    """A folder with boto3 and what it needs, as Lambda has them beside the bundle, and nothing else."""
    import importlib.util

    sdk = folder / "sdk"
    sdk.mkdir()
    for name in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (sdk / source.name).symlink_to(source)
    return sdk


def _run_clean(paths: list[Path], code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with these folders and the standard library to import from."""
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    where = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", where + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**base, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1", **environment},
    )


def _every_ec2_operation() -> Iterator[str]:
    from botocore.loaders import Loader

    yield from json.loads(json.dumps(Loader().load_service_model("ec2", "service-2")["operations"]))


def _snake(name: str) -> str:
    from botocore import xform_name

    return str(xform_name(name))
