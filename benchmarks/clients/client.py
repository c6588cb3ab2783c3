"""What a candidate has to do: create objects from memory, and read them into memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

BUCKET = "bench"
REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@dataclass(frozen=True)
class Part:
    """One object, and the memory that it is in or comes to."""

    key: str
    view: memoryview


class Client(Protocol):
    """One candidate. `connections` requests at the same time, however it does that."""

    def put(self, parts: Sequence[Part]) -> None:
        """Create every object, with a checksum that S3 compares where the client can."""
        ...

    def get(self, parts: Sequence[Part]) -> None:
        """Read every object into its memory."""
        ...


def together(connections: int, work: Callable[[Part], Any], parts: Sequence[Part]) -> None:
    """`work` for every part on so many threads."""
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, parts))


def warm(size: int) -> memoryview:
    """Memory that was touched before."""
    view = memoryview(mmap.mmap(-1, size))
    for start in range(0, size, mmap.PAGESIZE):
        view[start] = 0
    return view
