from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from spotrelay.core.errors import Damaged, InvalidInput, Missing
from spotrelay.instance.bundle import fetch_bundle, unpack
from spotrelay.testing.objects import MemoryObjects
from tests.instance.attempts import packed


def an_archive(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def a_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


def test_the_pinned_code_is_unpacked(tmp_path: Path) -> None:
    objects = MemoryObjects()
    body, digest = packed({"train.py": "print('hello')\n", "package/data.txt": "naïve"})
    objects.put(f"code/{digest}.tar.gz", body)

    size = fetch_bundle(objects, f"code/{digest}.tar.gz", digest, tmp_path / "code")

    assert size == len(body)
    assert (tmp_path / "code" / "train.py").read_text() == "print('hello')\n"
    assert (tmp_path / "code" / "package" / "data.txt").read_text() == "naïve"


def test_code_with_another_digest_is_not_unpacked(tmp_path: Path) -> None:
    objects = MemoryObjects()
    body, _ = packed({"train.py": "evil"})
    objects.put("code/a.tar.gz", body)

    with pytest.raises(Damaged, match="SHA-256"):
        fetch_bundle(objects, "code/a.tar.gz", "0" * 64, tmp_path / "code")

    assert not (tmp_path / "code").exists()


def test_code_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        fetch_bundle(MemoryObjects(), "code/a.tar.gz", "0" * 64, tmp_path / "code")


@pytest.mark.parametrize(
    "member",
    [
        a_member("/etc/pwned"),
        a_member("../pwned"),
        a_member("a/../../pwned"),
        a_member("link", tarfile.SYMTYPE, "/etc/passwd"),
        a_member("link", tarfile.SYMTYPE, "../../outside"),
        a_member("link", tarfile.LNKTYPE, "../outside"),
        a_member("pipe", tarfile.FIFOTYPE),
        a_member("disk", tarfile.BLKTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.linkname}",
)
def test_a_member_that_reaches_outside_or_is_no_file_is_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="refused"):
        unpack(an_archive(member), tmp_path / "inside")

    assert {path.name for path in tmp_path.iterdir()} <= {"inside"}


def test_a_link_inside_the_bundle_is_kept(tmp_path: Path) -> None:
    unpack(an_archive(a_member("real.py"), a_member("link.py", tarfile.SYMTYPE, "real.py")), tmp_path / "code")

    assert (tmp_path / "code" / "link.py").read_bytes() == b"x"


@pytest.mark.parametrize(
    "body", [b"", b"no archive", an_archive(a_member("a" * 90))[:-40]], ids=["empty", "text", "cut"]
)
def test_what_is_no_archive_is_refused(body: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no tar\.gz"):
        unpack(body, tmp_path / "code")
