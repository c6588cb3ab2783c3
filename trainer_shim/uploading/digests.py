"""The digest of a shard: xxh3-128, fast enough to be taken of everything that moves."""

from __future__ import annotations

import xxhash

from spotrelay.core.ports import Body, parts_of


def content_digest(body: Body) -> str:
    """32 hexadecimal digits; of parts, what the joined bytes have."""
    found = xxhash.xxh3_128()
    for part in parts_of(body):
        found.update(part)
    return found.hexdigest()
