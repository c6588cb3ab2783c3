"""The upload process itself: takes requests about a shared buffer, hashes, sends, answers.

It ends when the training process does, and not before: a signal to the whole group is the training's to answer.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from spotrelay.aws.clients import Clients
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.ports import ObjectStore
from trainer_shim.together import CONNECTIONS
from trainer_shim.uploading.digests import seal

LONGEST_MESSAGE = 64 * 2**10  # bytes
LOOK_S = 1.0  # between looks at whether the training process is still there


class Uploader:
    """Serves one channel until it is closed."""

    def __init__(self, channel: socket.socket, connect: Callable[[], ObjectStore]) -> None:
        self._channel = channel
        self._connect = connect
        self._objects: ObjectStore | None = None
        self._connecting = threading.Lock()
        self._memory: dict[int, memoryview] = {}  # by the buffer's generation; only the newest one
        self._answering = threading.Lock()

    def serve(self) -> None:
        """Take requests until the other end is gone."""
        with ThreadPoolExecutor(CONNECTIONS) as workers:
            while True:
                message, descriptors, _, _ = socket.recv_fds(self._channel, LONGEST_MESSAGE, 1)
                if not message:
                    os._exit(0)  # the training process is gone: nobody waits for what is under way
                request = json.loads(message)
                if request["do"] == "map":
                    self._map(request, descriptors[0])
                else:
                    workers.submit(self._answer, request)

    def _map(self, request: dict[str, Any], descriptor: int) -> None:
        memory = mmap.mmap(descriptor, request["size"], flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        os.close(descriptor)
        self._memory = {request["buffer"]: memoryview(memory)}

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            answer = self._done(request)
        except SpotrelayError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001 - the one who asked has to get an answer
            answer = {"error": "Unavailable", "text": f"the upload process met {type(error).__name__}: {error}"}
        with self._answering:
            self._channel.send(json.dumps({"id": request["id"], **answer}).encode())

    def _done(self, request: dict[str, Any]) -> dict[str, Any]:
        body = self._memory[request["buffer"]][request["begin"] : request["begin"] + request["size"]]
        if request["do"] == "seal":
            return {"seal": asdict(seal(body))}
        return {"stored": asdict(self._bucket().put(request["key"], body, request["checksum"]))}

    def _bucket(self) -> ObjectStore:
        with self._connecting:
            if self._objects is None:
                self._objects = self._connect()
            return self._objects


def main() -> int:
    """Serve the channel whose descriptor, region and bucket are the arguments."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    descriptor, region, bucket = sys.argv[1:4]
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    clients = Clients(region)
    Uploader(socket.socket(fileno=int(descriptor)), lambda: S3ObjectStore(clients.client("s3"), bucket)).serve()
    return 0


def _end_with(parent: int) -> None:
    # Workers that the training process forked hold its end of the channel open, and may outlive it.
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(LOOK_S)
    os._exit(0)
