"""The code bundle: its bytes depend on the files alone, and nothing from outside gets in."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from spotrelay.console.bundle import pack
from spotrelay.core.errors import InvalidInput


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "pkg").mkdir(parents=True)
    (folder / "train.py").write_text("import pkg\n")
    (folder / "pkg" / "__init__.py").write_text("")
    return folder


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_equal_files_are_equal_bytes_whatever_their_times_and_owners_umask(code: Path) -> None:
    first = pack(code)
    os.utime(code / "train.py", (1, 1))
    (code / "train.py").chmod(0o600)

    assert pack(code).data == first.data


def test_a_changed_byte_changes_the_digest(code: Path) -> None:
    first = pack(code)
    (code / "train.py").write_text("import pkg \n")

    assert pack(code).digest != first.digest


def test_whether_a_file_may_be_run_is_kept(code: Path) -> None:
    (code / "train.py").chmod(0o755)

    with tarfile.open(fileobj=io.BytesIO(pack(code).data)) as archive:
        assert archive.getmember("train.py").mode == 0o755


def test_repositories_caches_and_named_patterns_stay_at_home(code: Path) -> None:
    for folder in (".git", "__pycache__", ".venv", "data"):
        (code / folder).mkdir()
        (code / folder / "x").write_text("x")
    (code / ".spotrelayignore").write_text("# large\ndata/\n*.bin\n")
    (code / "w.bin").write_text("x")

    assert names(pack(code).data) == [".spotrelayignore", "pkg", "pkg/__init__.py", "train.py"]


def test_a_link_that_stays_inside_is_kept_as_a_link(code: Path) -> None:
    (code / "main.py").symlink_to("train.py")

    with tarfile.open(fileobj=io.BytesIO(pack(code).data)) as archive:
        assert archive.getmember("main.py").linkname == "train.py"


def test_everything_that_cannot_travel_is_named_at_once(code: Path) -> None:
    (code / "up").symlink_to("../secret")
    (code / "abs").symlink_to("/etc/passwd")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(code)
    try:
        listener.bind("s")
    finally:
        os.chdir(here)
        listener.close()

    with pytest.raises(InvalidInput) as told:
        pack(code)

    assert all(name in str(told.value) for name in ("up is a link", "abs is a link", "s is neither"))


def test_a_directory_that_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such directory"):
        pack(tmp_path / "nothing")
    with pytest.raises(InvalidInput, match="no file"):
        pack(tmp_path)
