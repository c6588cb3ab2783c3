"""No library: one copy into warm memory, checksums, requests on the sockets themselves; what physics asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import xxhash

from benchmarks.checkpoint.systems.system import CONNECTIONS, NotHere, System, objects
from benchmarks.checkpoint.workload import Training
from benchmarks.clients.client import Client, Part, together, warm
from benchmarks.clients.plain import PlainClient

PART = 16 * 2**20  # bytes of one request
SMALL = 2**20  # bytes; tensors below this share a part


class Floor(System):
    """Whichever client is fastest counts; the first is the one that also reads back."""

    def prepare(self) -> None:
        self.times: dict[str, list[float]] = {}  # seconds to put everything, by client
        self._plain = PlainClient(self.place.endpoint, CONNECTIONS)
        self._clients = {"http.client": self._plain, **_others(self.place.endpoint)}

    def begin(self, training: Training) -> None:
        super().begin(training)
        self._arena = warm(training.state_bytes)
        self._room = _targets(training, torch.frombuffer(self._arena, dtype=torch.uint8))
        self._parts = _cut(training, self._arena)

    def save(self) -> None:
        self.number += 1
        for source, target in zip(self.training.tensors(), self._room, strict=True):
            target.copy_(source.detach())

    def wait(self) -> None:
        """Hash and put everything with each client; the names of the fastest one's objects stay."""
        for name, client in self._clients.items():
            keys = f"{self.key}/{name.replace('.', '-')}"
            parts = [Part(f"{keys}/{index:05d}", view) for index, view in enumerate(self._parts)]
            begun = time.perf_counter()
            together(CONNECTIONS, _digest, parts)
            client.put(parts)
            self.times.setdefault(name, []).append(time.perf_counter() - begun)
            if client is not self._plain:
                self._forget(keys)

    def _forget(self, keys: str) -> None:
        client = self.place.s3()
        for key in objects(client, keys):
            client.delete_object(Bucket="bench", Key=key)

    def load(self, training: Training) -> None:
        """Each part from the socket into the tensor that it belongs to."""
        for group in training.optimizer.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.empty_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                training.optimizer.state[parameter] = {**moments, "step": torch.zeros(())}
        views = [_bytes(tensor) for tensor in training.tensors()]
        small = memoryview(bytearray(sum(len(view) for view in views if len(view) < SMALL)))
        large = [view[at : at + PART] for view in views if len(view) >= SMALL for at in range(0, len(view), PART)]
        parts = [Part(f"{self.key}/http-client/{index:05d}", view) for index, view in enumerate([small, *large])]

        def fetch(part: Part) -> None:
            self._plain.get_one(part)
            _digest(part)

        together(CONNECTIONS, fetch, parts)
        at = 0
        for view in views:
            if len(view) < SMALL:
                view[:] = small[at : at + len(view)]
                at += len(view)

    def kinds(self) -> dict[str, str]:
        raise NotHere("nothing is compared with what was saved")


def _others(endpoint: str) -> dict[str, Client]:
    found: dict[str, Client] = {}
    makers: dict[str, tuple[str, str]] = {
        "boto3": ("boto", "HookClient"),
        "obstore": ("rust", "ObstoreClient"),
        "awscrt": ("crt", "CrtClient"),
        "s3torchconnectorclient": ("rust", "MountpointClient"),
    }
    for name, (module, kind) in makers.items():
        try:
            imported: Any = __import__(f"benchmarks.clients.{module}", fromlist=[kind])
        except ImportError:  # a peer that is not installed is not the fastest
            continue
        make: Callable[[str, int], Client] = getattr(imported, kind)
        found[name] = make(endpoint, CONNECTIONS)
    return found


def _digest(part: Part) -> bytes:
    return xxhash.xxh3_128_digest(part.view)


def _bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy()).cast("B")


def _targets(training: Training, arena: torch.Tensor) -> list[torch.Tensor]:
    """A place in the arena for each tensor, the small ones first."""
    places: dict[int, torch.Tensor] = {}
    at = 0
    tensors = training.tensors()
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    for index in sorted(range(len(tensors)), key=lambda index: sizes[index] >= SMALL):
        piece = arena[at : at + sizes[index]]
        places[index] = piece.view(tensors[index].dtype).view(tensors[index].shape)
        at += sizes[index]
    return [places[index] for index in range(len(tensors))]


def _cut(training: Training, arena: memoryview) -> list[memoryview]:
    sizes = [tensor.numel() * tensor.element_size() for tensor in training.tensors()]
    at = sum(size for size in sizes if size < SMALL)
    parts = [arena[:at]]
    for size in sizes:
        if size >= SMALL:
            parts += [arena[at + begin : at + min(begin + PART, size)] for begin in range(0, size, PART)]
            at += size
    return parts
