"""The digest of the weights inside a checkpoint, from its bytes in S3 alone: no torch, none of the run's own words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from spotrelay.core.checkpoint import Manifest

Get = Callable[[str, str], bytes]  # key and version to bytes


def weights_digest(manifest: Manifest, get: Get, model: str = "model") -> str:
    """What the training script would print for these weights: SHA-256 over name, type, shape and bytes."""
    shards = [_entries(get(shard.key, shard.version_id)) for shard in manifest.shards]
    arrays: dict[str, Any] = manifest.tree["arrays"]
    names: dict[str, Any] = manifest.tree["state"]["models"][model]
    found = hashlib.sha256()
    for name, reference in sorted(names.items()):
        described = arrays[reference["name"]]
        found.update(f"{name} torch.{described['dtype']} {tuple(described['shape'])}\n".encode())
        for shard, entry, *_ in described["at"]:
            found.update(shards[shard][entry])
    return found.hexdigest()


def _entries(body: bytes) -> dict[str, memoryview]:
    """The arrays of a file in safetensors format, by name."""
    view, length = memoryview(body), int.from_bytes(body[:8], "little")
    table: dict[str, Any] = json.loads(body[8 : 8 + length])
    data = view[8 + length :]
    return {
        name: data[slice(*described["data_offsets"])] for name, described in table.items() if name != "__metadata__"
    }
