"""A code directory as one archive whose bytes depend on its files alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from spotrelay.core.errors import InvalidInput

LEFT_OUT = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
    ".spotrelay",
    "node_modules",
    ".DS_Store",
    "*.pyc",
)
IGNORE_FILE = ".spotrelayignore"  # further patterns, one a line, `#` opens a comment
LARGEST = 512 * 1024 * 1024  # bytes, packed: code, not data


@dataclass(frozen=True)
class Bundle:
    """A packed code directory."""

    data: bytes
    files: tuple[str, ...]  # paths inside it, sorted

    @property
    def digest(self) -> str:
        """SHA-256 of the archive, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def key(self) -> str:
        """Where it lives in the bucket."""
        return f"code/{self.digest}.tar.gz"


def pack(directory: Path) -> Bundle:
    """Pack a directory: sorted names, no times, no owners, so that equal files are equal bytes.

    Links that stay inside the directory are kept as links.

    Raises:
        InvalidInput: no such directory, nothing in it, a link that leaves it, or a device or
            socket in it; names every such path. Nothing was sent.
    """
    if not directory.is_dir():
        raise InvalidInput(f"--code {directory}: there is no such directory")
    root = directory.resolve()
    paths = sorted(_walk(root, root, _patterns(root)))
    problems = [problem for path in paths if (problem := _problem(root, path))]
    if problems:
        raise InvalidInput(f"--code {directory} cannot be packed: " + "; ".join(problems))
    if not any((root / path).is_file() for path in paths):
        raise InvalidInput(f"--code {directory}: there is no file in it to send")
    data = _compressed(_archive(root, paths))
    if len(data) > LARGEST:
        raise InvalidInput(
            f"--code {directory} packs to {len(data) / 2**20:.0f} MiB, and {LARGEST // 2**20} MiB is the most: "
            f"keep data in S3 and name what to leave out in {IGNORE_FILE}"
        )
    return Bundle(data, tuple(paths))


def _patterns(root: Path) -> tuple[str, ...]:
    try:
        lines = (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return LEFT_OUT
    own = (line.strip().strip("/") for line in lines)
    return (*LEFT_OUT, *(line for line in own if line and not line.startswith("#")))


def _walk(root: Path, folder: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    for entry in os.scandir(folder):
        relative = Path(entry.path).relative_to(root).as_posix()
        if any(fnmatch(entry.name, pattern) or fnmatch(relative, pattern) for pattern in patterns):
            continue
        yield relative
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path), patterns)


def _problem(root: Path, relative: str) -> str | None:
    path = root / relative
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        target = path.readlink()
        if target.is_absolute():
            return f"{relative} is a link to the absolute path {target}: make it relative, or leave it out"
        if not path.resolve().is_relative_to(root):
            return f"{relative} is a link that leaves the directory (to {target})"
        return None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"{relative} is neither a file, a directory nor a link"
    return None


def _archive(root: Path, paths: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for relative in paths:
            _add(archive, root / relative, PurePosixPath(relative))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: Path, name: PurePosixPath) -> None:
    mode = path.lstat().st_mode
    info = tarfile.TarInfo(str(name))
    info.mode = 0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644
    if stat.S_ISLNK(mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(info)
    elif stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    else:
        content = path.read_bytes()
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


def _compressed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()
