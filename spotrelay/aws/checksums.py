"""S3's own checksums, as its headers carry them: CRC32C where awscrt is installed, else CRC32."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from spotrelay.core.ports import Body, parts_of

try:
    from awscrt import checksums as crt
except ImportError:  # a trimmed machine; S3 takes CRC32 just as well
    crt = None

STEP = 64 * 2**20  # bytes hashed in one go

HEADERS = {"crc32c": "ChecksumCRC32C", "crc32": "ChecksumCRC32", "crc64nvme": "ChecksumCRC64NVME"}


class Checksum:
    """The checksum of bytes that come one piece after the other. Its text is "algorithm:base64"."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: bytes | memoryview) -> None:
        """The next bytes."""
        self._value = crt.crc32c(piece, self._value) if crt else zlib.crc32(piece, self._value)

    def __str__(self) -> str:
        return f"{'crc32c' if crt else 'crc32'}:{base64.b64encode(self._value.to_bytes(4, 'big')).decode()}"


def checksum_of(body: Body) -> str:
    """The checksum that a put of these bytes declares."""
    found = Checksum()
    for whole in parts_of(body):
        view = memoryview(whole)
        for start in range(0, len(view), STEP):
            found.update(view[start : start + STEP])
    return str(found)


def as_header(checksum: str) -> dict[str, str]:
    """The argument of PutObject that makes S3 refuse bytes which do not match."""
    algorithm, _, value = checksum.partition(":")
    return {HEADERS[algorithm]: value}


def from_answer(answer: Mapping[str, Any]) -> str:
    """The checksum in an answer of S3; empty when there is none of the whole object."""
    found = ((name, answer.get(header)) for name, header in HEADERS.items())
    return next((f"{name}:{value}" for name, value in found if value and "-" not in value), "")
