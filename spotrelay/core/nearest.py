"""Reads from the nearer of two copies of a bucket: from the replica once, and from home where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from spotrelay.core.errors import SpotrelayError, Unavailable
from spotrelay.core.ports import Body, ObjectStore, StoredObject, Stream
from spotrelay.core.replica import Replica

ENOUGH = 2  # times that the replica gave no answer: from then on it is not asked any more


def nearest(
    replica: Replica | None, nearby: Callable[[str], ObjectStore] | None, home: ObjectStore, tell: Callable[[str], None]
) -> Nearest | None:
    """What reads a checkpoint nearby first; None where no replica was seen to have all of it.

    Args:
        nearby: a bucket in the machine's own region, by its name; None where none can be asked.

    Raises:
        SpotrelayError: the replica cannot be asked at all; home can.
    """
    if replica is None or not replica.complete or nearby is None:
        return None
    return Nearest(nearby(replica.bucket), home, tell)


class Nearest:
    """An `ObjectStore` that reads nearby first. Everything else goes to home, as every write does.

    An object is asked of the replica once. Whoever asks again, since the answer broke off or its bytes were not
    those that were saved, gets it from home; so nothing that is wrong with the replica reaches further than that.
    """

    def __init__(self, replica: ObjectStore, home: ObjectStore, tell: Callable[[str], None]) -> None:
        self._replica = replica
        self._home = home
        self._tell = tell
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._silences = 0
        self.trouble = ""  # why something was read at home, the first time

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The bytes of one version."""
        if self._asks(key):
            try:
                return self._replica.get(key, version_id)
            except SpotrelayError as error:
                self._failed(error)
        return self._home.get(key, version_id)

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> Stream:
        """The bytes of one version as they arrive, compared with nothing."""
        if self._asks(key):
            try:
                return self._replica.stream(key, version_id, start)
            except SpotrelayError as error:
                self._failed(error)
        return self._home.stream(key, version_id, start)

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        """Create an object, at home."""
        return self._home.put(key, body, checksum)

    def head(self, key: str, version_id: str | None = None) -> StoredObject:
        """Size, ETag, version and checksum, at home."""
        return self._home.head(key, version_id)

    def delete(self, key: str, version_id: str) -> None:
        """Take one version out of the bucket at home."""
        self._home.delete(key, version_id)

    def list_versions(self, prefix: str) -> Iterator[StoredObject]:
        """Every version at home under a prefix."""
        return self._home.list_versions(prefix)

    def _asks(self, key: str) -> bool:
        """Whether the replica is asked for this object now: the first time, while it gives answers."""
        with self._lock:
            again = key in self._asked
            self._asked.add(key)
            silent = self._silences >= ENOUGH
        if again and not silent:
            self._say(f"{key} is read again, at home: its first reading from the replica was not good")
        return not again and not silent

    def _failed(self, error: SpotrelayError) -> None:
        if isinstance(error, Unavailable):
            with self._lock:
                self._silences += 1
        self._say(f"read at home instead of nearby: {error}")

    def _say(self, text: str) -> None:
        with self._lock:
            self.trouble = self.trouble or text
        self._tell(text)
