"""The run's pinned code: fetched by digest, checked, and only then unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path, PurePosixPath

from spotrelay.core.errors import Damaged, InvalidInput
from spotrelay.core.ports import ObjectStore


def fetch_bundle(objects: ObjectStore, key: str, digest: str, folder: Path) -> int:
    """Unpack the code bundle `key` into `folder`; returns its size in bytes.

    Raises:
        Missing: there is no such object; submit the code again.
        Damaged: its SHA-256 is not the pinned one; nothing was unpacked.
        InvalidInput: it is no tar.gz, or would write outside the folder; nothing outside was touched.
    """
    body = objects.get(key)
    found = hashlib.sha256(body).hexdigest()
    if found != digest:
        raise Damaged(
            f"the code bundle {key} has SHA-256 {found}, the run pins {digest}: submit the run again with its code"
        )
    unpack(body, folder)
    return len(body)


def unpack(body: bytes, folder: Path) -> None:
    """Unpack a tar.gz whose members all stay inside `folder`.

    Raises:
        InvalidInput: it is no tar.gz, or a member is absolute, leads outside, or is a device.
    """
    if not hasattr(tarfile, "data_filter"):
        raise InvalidInput("this Python cannot unpack archives safely: use 3.11.4 or newer")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            for member in archive.getmembers():
                _refuse_absolute(member)
            archive.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise InvalidInput(f"the code bundle is refused: {error}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InvalidInput(f"the code bundle is no tar.gz archive: {error}") from error


def _refuse_absolute(member: tarfile.TarInfo) -> None:
    names = [member.name, *([member.linkname] if member.issym() or member.islnk() else [])]
    for name in names:
        if PurePosixPath(name).is_absolute():
            raise InvalidInput(f"the code bundle is refused: {name!r} is an absolute path")
