"""The upload process, as the training sees it.

It shares the staging buffer, so no byte is copied to reach it; and it has an interpreter lock of its own, so
that hashing and sending never hold up the training's Python. It decides nothing: which key, whether at all, and
the commit stay with the training process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import trainer_shim
from spotrelay.core import errors
from spotrelay.core.ports import StoredObject
from trainer_shim.staging import Places, StagingBuffer
from trainer_shim.uploading.digests import Seal

LONGEST_MESSAGE = 64 * 2**10  # bytes
LONGEST_S = 1800.0  # for one answer: a shard through a bucket that takes 40 kB a second
HOME = Path(trainer_shim.__file__).parents[1]
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from trainer_shim.uploading.child import main; sys.exit(main())"
)


class _Answer:
    def __init__(self) -> None:
        self.come = threading.Event()
        self.value: dict[str, Any] = {}


class UploadProcess:
    """Starts the process when it is first needed, and another one when it has died.

    Raises, from every call besides what the bucket says:
        Unavailable: the process cannot be started or has ended; the next call starts another one.
    """

    def __init__(self, region: str, bucket: str) -> None:
        self._about = (region, bucket)
        self._lock = threading.Lock()
        self._waiting: dict[int, _Answer] = {}
        self._count = 0
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._shared = -1  # generation of the buffer that it has
        self._owner = os.getpid()

    def start(self) -> None:
        """Let it import what it needs, before anybody waits for it."""
        with self._lock:
            self._started()

    def carrier(self, buffer: StagingBuffer, sizes: list[int], places: Places) -> CarrierThere:
        """For the shards of one save, which stand in the staging buffer."""
        return CarrierThere(self, buffer, sizes, places)

    def ask(self, buffer: StagingBuffer, request: dict[str, Any]) -> dict[str, Any]:
        """The process's answer to one request about the buffer."""
        answer = _Answer()
        with self._lock:
            channel = self._started()
            self._share(channel, buffer)
            self._count += 1
            number = self._count
            self._waiting[number] = answer
            try:
                _send(channel, {"id": number, "buffer": buffer.generation, **request})
            except OSError as error:
                del self._waiting[number]
                raise errors.Unavailable(f"the upload process has ended: {error}") from error
        if not answer.come.wait(LONGEST_S):
            with self._lock:
                if self._socket is channel:
                    self._end()  # it is stuck; who waits for it is told so
            answer.come.wait()
        return _opened(answer.value)

    def close(self) -> None:
        """End it; a request under way is broken off."""
        with self._lock:
            self._end()

    def _started(self) -> socket.socket:
        if os.getpid() != self._owner:
            raise errors.Unavailable("this process was forked from the one that attached: only that one saves")
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [str(HOME), str(theirs.fileno()), *self._about]
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM, *arguments],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except OSError as error:
                ours.close()
                raise errors.Unavailable(f"the upload process cannot be started: {error}") from error
        self._socket, self._shared = ours, -1
        try:
            threading.Thread(target=self._listen, args=(ours,), name="spotrelay-uploader", daemon=True).start()
        except RuntimeError as error:
            self._end()
            raise errors.Unavailable(f"nobody can listen to the upload process: {error}") from error
        return ours

    def _share(self, channel: socket.socket, buffer: StagingBuffer) -> None:
        if self._shared == buffer.generation:
            return
        assert buffer.descriptor is not None, "only a shared buffer has a process to send it"
        message = {"id": 0, "do": "map", "buffer": buffer.generation, "size": buffer.size}
        try:
            socket.send_fds(channel, [json.dumps(message).encode()], [buffer.descriptor])
        except OSError as error:
            raise errors.Unavailable(f"the upload process has ended: {error}") from error
        self._shared = buffer.generation

    def _listen(self, channel: socket.socket) -> None:
        try:
            while message := channel.recv(LONGEST_MESSAGE):
                value = json.loads(message)
                with self._lock:
                    answer = self._waiting.pop(value["id"], None)
                if answer is not None:
                    answer.value = value
                    answer.come.set()
        except (OSError, ValueError):
            pass  # gone, or what it says cannot be understood: either way it is ended, and another one started
        finally:
            with self._lock:
                if self._socket is channel:
                    self._end()

    def _end(self) -> None:
        """Everything that still waits learns that there will be no answer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None and os.getpid() == self._owner:
            process.kill()
            process.wait()
        for answer in self._waiting.values():
            answer.value = {"error": "Unavailable", "text": "the upload process has ended"}
            answer.come.set()
        self._waiting.clear()


class CarrierThere:
    """A `Carrier` for one save in the staging buffer."""

    def __init__(self, process: UploadProcess, buffer: StagingBuffer, sizes: list[int], places: Places) -> None:
        self._process = process
        self._buffer = buffer
        self._sizes = sizes
        self._places = places

    def seal(self, shard: int) -> Seal:
        """See `Carrier.seal`."""
        return Seal(**self._ask({"do": "seal"}, shard)["seal"])

    def put(self, shard: int, key: str, sealed: Seal) -> StoredObject:
        """See `Carrier.put`."""
        return StoredObject(**self._ask({"do": "put", "key": key, "checksum": sealed.checksum}, shard)["stored"])

    def _ask(self, request: dict[str, Any], shard: int) -> dict[str, Any]:
        place = {"begin": self._places.begin_of(shard), "size": self._sizes[shard]}
        return self._process.ask(self._buffer, {**request, **place})


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.send(json.dumps(message).encode())


def _opened(value: dict[str, Any]) -> dict[str, Any]:
    if "error" not in value:
        return value
    kind = getattr(errors, value["error"], None)
    if not (isinstance(kind, type) and issubclass(kind, errors.SpotrelayError)):
        kind = errors.Unavailable
    raise kind(value["text"])
