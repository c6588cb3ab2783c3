"""Templates synthesised once a session with small stand-ins for the assets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.agent import Archive
from infra.app import build_app
from infra.assets import Bundle
from tests.infra.reading import Template

Synthesise = Callable[..., dict[str, Template]]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A Lambda bundle that holds nothing worth running."""
    tree = tmp_path_factory.mktemp("bundle") / "tree"
    tree.mkdir()
    archive = tree.with_name("bundle.zip")
    archive.write_bytes(b"PK")
    return Bundle(tree, archive, "0" * 64, True)


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An agent's archive that holds nothing."""
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    path.write_bytes(b"PK")
    return Archive(path, hashlib.sha256(b"PK").hexdigest())


@pytest.fixture(scope="session")
def synthesise(bundle: Bundle, agent: Archive, tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """Makes the templates of a configuration, by stack name."""

    def run(**config: Any) -> dict[str, Template]:
        out = tmp_path_factory.mktemp("cdk.out")
        build_app({"spotrelay": config}, outdir=out, validate=False, bundle=bundle, agent=agent).synth()
        return {path.name.removesuffix(".template.json"): read(path) for path in out.glob("*.template.json")}

    def read(path: Path) -> Template:
        return Template(json.loads(path.read_text()))

    return run


@pytest.fixture(scope="session")
def home(synthesise: Synthesise) -> Template:
    """The home stack with every default."""
    return synthesise()["Spotrelay"]


@pytest.fixture(scope="session")
def abroad(synthesise: Synthesise) -> dict[str, Template]:
    """Home, a region that runs machines, and one that only forwards."""
    place = {"launch_template": "lt-0f", "version": "4", "subnets": {"eu-west-1a": "subnet-0e"}}
    return synthesise(
        home_region="us-east-1",
        home={"table": "the-table", "bucket": "the-bucket"},
        regions={"eu-west-1": {"place": place}, "us-west-2": {}},
    )


def pytest_configure(config: pytest.Config) -> None:
    """The rule packs have a mark of their own, so that `make check` can run just them."""
    config.addinivalue_line("markers", "nag: the rule packs over the stack's template")
