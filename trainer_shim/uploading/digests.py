"""What is said of a shard's bytes before they are sent: our own digest, and the checksum that S3 compares them with."""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from spotrelay.aws.checksums import Checksum
from spotrelay.core.ports import Body, parts_of

STEP = 2**20  # bytes; both sums are taken while they are in the processor's cache


@dataclass(frozen=True)
class Seal:
    """Both sums of the same bytes."""

    digest: str  # xxh3-128, 32 hexadecimal digits
    checksum: str  # as `ObjectStore.put` takes it


def seal(body: Body) -> Seal:
    """Both sums in one pass over the memory; of parts, what the joined bytes have."""
    digest, checksum = xxhash.xxh3_128(), Checksum()
    for part in parts_of(body):
        view = memoryview(part)
        for start in range(0, len(view), STEP):
            piece = view[start : start + STEP]
            digest.update(piece)
            checksum.update(piece)
    return Seal(digest.hexdigest(), str(checksum))


def content_digest(body: Body) -> str:
    """The digest alone: 32 hexadecimal digits; of parts, what the joined bytes have."""
    found = xxhash.xxh3_128()
    for part in parts_of(body):
        found.update(part)
    return found.hexdigest()
