"""The cloud's own record of every request, independent of anything that its users write down.

One JSON object a line in `requests.jsonl`:

    at          wall clock at arrival, epoch seconds; `mono` the same on this machine's monotonic clock
    caller      ARN of the principal; `access_key` its key; `instance_id` when the key was given to an instance
    service     s3, dynamodb, ec2, lambda, …; `action` the API call; `region` the one it was signed for
    method, path, target    target: S3 bucket/key, DynamoDB table and keys, queue URL, event sources, …
    status      HTTP status; null when the request was never applied
    error       error code of a refusal, else empty
    bytes, bytes_out        bodies of request and reply
    took_s      from arrival to the last byte of the reply; `held_s` the part in which a trigger held it
    trigger     number of the trigger that fired on it, else null
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class RequestLog:
    """Starts a log anew and appends to it; thread-safe, each entry one write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry."""
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        """Write what is left and close the file."""
        with self._lock:
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All whole entries of a log, oldest first; a line still being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
