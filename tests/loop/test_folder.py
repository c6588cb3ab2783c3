"""The demo's folder: emptied only when a demo made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spotrelay.console.demo.folder import Folder, require
from spotrelay.console.exits import NotReady
from spotrelay.core.errors import InvalidInput


def test_what_an_earlier_demo_left_is_replaced(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "demo")
    folder.open()
    (folder.home / "loss.png").write_bytes(b"old")

    folder.open()

    assert not folder.plot.exists()


def test_a_folder_that_no_demo_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(InvalidInput, match="no demo made"):
        Folder(tmp_path).open()

    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_request_log_stays_and_the_cloud_s_files_go_unless_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "demo")
    folder.open()
    (folder.cloud / "requests.jsonl").write_text("{}\n")

    folder.close(keep=False)

    assert (folder.home / "requests.jsonl").read_text() == "{}\n"
    assert not folder.cloud.exists()


def test_a_missing_package_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(NotReady, match=r"no_such_package: pip install 'spotrelay\[demo\]'"):
        require(("json", "no_such_package"))
