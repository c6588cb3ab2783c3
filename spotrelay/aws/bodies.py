"""Bytes of somebody else's memory as the body of a request, sent from where they are.

botocore takes no views, and what it takes instead, a file, is read 16 KiB at a time. So a file is what it
gets to sign and to measure; just before a request leaves, the views themselves take its place, and the
connection hands each to the kernel whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from spotrelay.core.ports import Body, parts_of

HOOK = "spotrelay-send-in-place"
SMALL = 64 * 2**10  # bytes; shorter parts are joined, since each one costs a system call


def readable(body: Body) -> Any:
    """What botocore takes for these bytes."""
    return body if isinstance(body, bytes) else Readable([memoryview(part).cast("B") for part in parts_of(body)])


def send_in_place(client: Any) -> None:
    """Let this S3 client send the bodies of `readable` without a copy. Harmless when repeated."""
    client.meta.events.register("before-send.s3.PutObject", _swap, unique_id=HOOK)


def _swap(request: Any, **_: Any) -> None:
    if isinstance(request.body, Readable):
        request.body = _Parts(request.body)


class Readable:
    """Several views as one file."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self.views = views
        self._size = sum(len(view) for view in views)
        self._at = 0

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next bytes; none at the end."""
        begin = self._at
        self._at = self._size if size < 0 else min(begin + size, self._size)
        found = []
        start = 0
        for view in self.views:
            cut = view[max(begin - start, 0) : max(self._at - start, 0)]
            start += len(view)
            if len(cut):
                found.append(cut)
            if start >= self._at:
                break
        return found[0] if len(found) == 1 else b"".join(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere; a request that is sent again begins at 0."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where the next bytes come from."""
        return self._at

    def __len__(self) -> int:
        return self._size


class _Parts:
    """The same bytes as an iterable, which a connection sends part by part."""

    def __init__(self, whole: Readable) -> None:
        self._whole = whole

    def __iter__(self) -> Iterator[bytes | memoryview]:
        small: list[memoryview] = []
        held = 0
        for view in self._whole.views:
            if len(view) < SMALL:
                small.append(view)
                held += len(view)
            if held >= SMALL or len(view) >= SMALL:
                yield b"".join(small)
                small, held = [], 0
            if len(view) >= SMALL:
                yield view
        yield b"".join(small)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Begin anew, as botocore asks for before it sends a request again."""
        return self._whole.seek(offset, whence)
