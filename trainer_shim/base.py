"""What a new checkpoint may be built on: shards of older ones that need not travel again.

A frozen base model under an adapter stays the same from save to save. Its shards may be named again, but only
where the checkpoint that named them was compared with S3 by the control plane and has not been condemned since.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from spotrelay.core.checkpoint import CheckpointId, Shard
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.ports import LiveStore

REMEMBERED = 8  # newest checkpoints whose shards are kept in mind

Content = tuple[str, int]  # digest and bytes


class Memory:
    """The shards of the newest checkpoints that this process wrote or resumed from."""

    def __init__(self, store: LiveStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._shards: dict[CheckpointId, dict[Content, Shard]] = {}

    def remember(self, checkpoint: CheckpointId, shards: Iterable[Shard]) -> None:
        """This checkpoint was committed with these shards."""
        self._shards[checkpoint] = {(shard.digest, shard.size): shard for shard in shards}
        for old in sorted(self._shards)[:-REMEMBERED]:
            del self._shards[old]

    def base(self) -> Base:
        """What the next save may build on; looked up when it first meets a shard that is the same as before."""
        return Base(self)

    def knows(self, content: Content) -> bool:
        """Whether any remembered checkpoint has a shard like this."""
        return any(content in shards for shards in self._shards.values())

    def newest_sound(self) -> tuple[tuple[CheckpointId, ...], dict[Content, Shard]]:
        """The newest remembered checkpoint that is verified, and its shards; nothing when there is no such one.

        When the table does not answer, the save is whole: that costs time, and nothing else.
        """
        try:
            there = {c.id: c for c in self._store.checkpoints(self._run_id)}
        except SpotrelayError:
            return (), {}
        sound = [each for each in self._shards if each in there and there[each].verified and there[each].usable]
        return ((max(sound),), self._shards[max(sound)]) if sound else ((), {})


class Base:
    """The older shards that one save may name; asked from several threads."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._sound: dict[Content, Shard] | None = None
        self._id: tuple[CheckpointId, ...] = ()
        self.builds_on: tuple[CheckpointId, ...] = ()  # whose shards were taken; the commit requires it to be there

    def shard(self, digest: str, size: int) -> Shard | None:
        """An older shard of the same bytes that may be named again; None when it has to be sent."""
        content = (digest, size)
        with self._lock:
            if self._sound is None:
                if not self._memory.knows(content):
                    return None
                self._id, self._sound = self._memory.newest_sound()
            found = self._sound.get(content)
            if found is not None:
                self.builds_on = self._id
            return found

    def without(self) -> Base:
        """For a save that names no older shard, and is remembered all the same."""
        bare = Base(self._memory)
        bare._sound = {}
        return bare

    def remember(self, checkpoint: CheckpointId, shards: Iterable[Shard]) -> None:
        """The save was committed with these shards."""
        self._memory.remember(checkpoint, shards)
