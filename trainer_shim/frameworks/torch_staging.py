"""Torch arrays on their way into host memory, or sent from where they are."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence

import torch

from spotrelay.core.ports import Body
from trainer_shim.frameworks.torch_kinds import one_run_of_bytes
from trainer_shim.shards import Piece, Plan
from trainer_shim.tree import BYTES, Leaf

COPIERS = min(
    4, os.cpu_count() or 1
)  # threads that copy; more of them than this do not fill the memory's bandwidth better


class Stager:
    """Copies arrays into staging memory; remembers the views of it from one save to the next."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._views: dict[tuple[int, int], list[torch.Tensor]] = {}  # by shard and address
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._begun: set[torch.device] = set()  # devices with copies on their way

    def stage(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview) -> None:
        """Begin to copy the arrays of one shard to their places."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for index, piece in enumerate(plan.shards[shard].pieces):
            value = leaves[piece.leaf].value
            if not piece.size:
                continue
            if not isinstance(value, torch.Tensor):
                memory[piece.offset : piece.offset + piece.size] = _bytes(leaves[piece.leaf], piece)
            elif one_run_of_bytes(value):
                # Torch would split each copy over its threads and wait for the slowest, which on a machine that is
                # busy costs ten times the copy itself. Here a thread that comes late copies less.
                ctypes.memmove(address + piece.offset, value.data_ptr() + piece.start, piece.size)
            else:
                target = self._staged(leaves, plan, shard, memory, address)[index]
                self._copy(_flat_part(leaves[piece.leaf], piece), target)

    def _staged(
        self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview, address: int
    ) -> list[torch.Tensor]:
        """Views of the shard's memory, one for each of its pieces."""
        if plan is not self._plan:
            self._plan, self._views = plan, {}
        found = self._views.get((shard, address))
        if found is None:
            views = [_view(leaves[piece.leaf], piece, memory) for piece in plan.shards[shard].pieces]
            found = self._views[shard, address] = views
        return found

    def landed(self) -> None:
        """Return once every copy that was begun has arrived."""
        while self._begun:
            self._streams[self._begun.pop()].synchronize()

    def _copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        if not source.is_cuda:
            target.copy_(source)
            return
        # Beside what the device goes on to compute, after what it has been asked for already.
        stream = self._stream_of(source.device)
        if source.device not in self._begun:
            stream.wait_stream(torch.cuda.current_stream(source.device))
            self._begun.add(source.device)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        source.record_stream(stream)

    def mark(self, leaves: Sequence[Leaf]) -> None:
        """Let later copies wait for what this thread has asked of the devices; another thread's streams are others."""
        for device in {leaf.value.device for leaf in leaves if isinstance(leaf.value, torch.Tensor)}:
            if device.type == "cuda":
                self._stream_of(device).wait_stream(torch.cuda.current_stream(device))

    def _stream_of(self, device: torch.device) -> torch.cuda.Stream:
        stream = self._streams.get(device)
        if stream is None:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no annotation
            self._streams[device] = stream
        return stream


def bodies(leaves: Sequence[Leaf], plan: Plan) -> list[Body] | None:
    """The shards' bytes where they are, header first; None when some are on a device.

    What is not contiguous is copied, and nothing else.
    """
    if any(isinstance(leaf.value, torch.Tensor) and leaf.value.device.type != "cpu" for leaf in leaves):
        return None
    found: list[Body] = []
    for shard in plan.shards:
        parts = [memoryview(shard.header)]
        for piece in shard.pieces:
            leaf = leaves[piece.leaf]
            if leaf.dtype == BYTES:
                parts.append(memoryview(_bytes(leaf, piece)))
            elif piece.size:
                parts.append(in_place(leaf, piece))
        found.append(parts)
    return found


def in_place(leaf: Leaf, piece: Piece) -> memoryview:
    """The bytes of a piece of an array on the CPU, where they are if they lie there as they are meant."""
    part = _flat_part(leaf, piece).resolve_conj().resolve_neg().contiguous()
    return part.reshape(-1).view(torch.uint8).numpy().data


def pin(device: torch.device, address: int, size: int) -> Callable[[], None]:
    """Register host memory, so that copies from a GPU run at full speed; what undoes it.

    Where the driver refuses, copies are slower and otherwise the same. Called on any thread: without naming the
    device it would wake another one's driver.
    """
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch has no annotation
    with torch.cuda.device(device):
        refused = int(runtime.cudaHostRegister(address, size, 0)) != 0

    def undo() -> None:
        with torch.cuda.device(device):
            runtime.cudaHostUnregister(address)

    return (lambda: None) if refused else undo


def _flat_part(leaf: Leaf, piece: Piece) -> torch.Tensor:
    source: torch.Tensor = leaf.value.detach()
    if piece.size == leaf.size:
        return source
    first, width = piece.start // source.element_size(), source.element_size()
    return source.reshape(-1)[first : first + piece.size // width]


def _bytes(leaf: Leaf, piece: Piece) -> bytes:
    part: bytes = leaf.value[piece.start : piece.start + piece.size]
    return part


def _view(leaf: Leaf, piece: Piece, memory: memoryview) -> torch.Tensor:
    if leaf.dtype == BYTES or piece.size == 0:
        return torch.empty(0)
    count = piece.size // leaf.value.element_size()
    flat = torch.frombuffer(memory, dtype=leaf.value.dtype, count=count, offset=piece.offset)
    return flat.view(leaf.shape) if piece.size == leaf.size else flat
