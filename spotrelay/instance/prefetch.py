"""The newest verified checkpoint, fetched while the machine is prepared. A cache, not a choice.

The shim decides later which checkpoint it resumes from, and checks every byte that it reads here
against the manifest. So nothing that goes wrong here matters beyond the time it would have saved.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from spotrelay.core.checkpoint import Checkpoint, Shard, decode_manifest, digest_of, resume_candidate
from spotrelay.core.errors import Damaged, SpotrelayError
from spotrelay.core.ports import ObjectStore
from spotrelay.instance.logbook import Logbook

THREADS = 4
DISK_RESERVE = 1024**3  # bytes that stay free for the program
MEMORY_BOUND = 512 * 1024**2  # bytes; a larger shard is left to the shim, which reads it in parts


class Prefetch:
    """Fetches one checkpoint in the background, into files named by the last part of their key."""

    def __init__(
        self, objects: ObjectStore, logbook: Logbook, folder: Path,
        disk_reserve: int = DISK_RESERVE, memory_bound: int = MEMORY_BOUND,
    ) -> None:  # fmt: skip
        self._objects = objects
        self._logbook = logbook
        self._folder = folder
        self._reserve = disk_reserve
        self._memory_bound = memory_bound
        self._stopped = threading.Event()
        self._budget_lock = threading.Lock()
        self._promised = 0  # bytes of shards being written
        self._thread: threading.Thread | None = None

    def start(self, checkpoints: tuple[Checkpoint, ...], objects: ObjectStore | None = None) -> None:
        """Begin with the newest checkpoint that a run may resume from, if there is one.

        Args:
            objects: where to read it instead.
        """
        self._objects = objects or self._objects
        chosen = resume_candidate(checkpoints)
        if chosen is not None:
            self._thread = threading.Thread(target=self._fetch, args=(chosen,), name="prefetch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Begin no further object."""
        self._stopped.set()

    def join(self, seconds: float) -> bool:
        """Whether everything was fetched or given up within this time."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _fetch(self, chosen: Checkpoint) -> None:
        commit = chosen.commit
        try:
            manifest = self._objects.get(commit.manifest_key, commit.manifest_version)
            if digest_of(manifest) != commit.manifest_digest:
                raise Damaged(f"{commit.manifest_key} is not the manifest that was committed")
            shards = decode_manifest(manifest).shards
            self._keep(commit.manifest_key, manifest)
        except (SpotrelayError, OSError) as error:
            self._logbook.say(f"checkpoint {chosen.id} is not prefetched: {error}")
            return
        with ThreadPoolExecutor(THREADS, "prefetch") as pool:
            fetched = sum(pool.map(self._fetch_shard, shards))
        self._logbook.say(f"checkpoint {chosen.id} (step {commit.step}): {fetched} of {len(shards)} shards prefetched")

    def _fetch_shard(self, shard: Shard) -> bool:
        if self._stopped.is_set() or not self._reserve_room(shard):
            return False
        try:
            self._keep(shard.key, self._objects.get(shard.key, shard.version_id))
        except (SpotrelayError, OSError) as error:
            self._logbook.say(f"shard {shard.key} is not prefetched: {error}")
            return False
        finally:
            with self._budget_lock:
                self._promised -= shard.size
        return True

    def _reserve_room(self, shard: Shard) -> bool:
        with self._budget_lock:
            free = shutil.disk_usage(self._folder).free - self._promised
            fits = shard.size <= self._memory_bound and shard.size <= free - self._reserve
            self._promised += shard.size if fits else 0
        if not fits:
            self._logbook.say(f"shard {shard.key} of {shard.size} bytes is not prefetched: too little room for it")
        return fits

    def _keep(self, key: str, body: bytes) -> None:
        """Write a file that is either whole or not there."""
        name = PurePosixPath(key).name
        part = self._folder / f".{name}.part"
        try:
            part.write_bytes(body)
            part.rename(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
