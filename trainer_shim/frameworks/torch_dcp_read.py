"""A StorageReader for torch.distributed.checkpoint: every byte is proven, on every rank, before a tensor changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from spotrelay.core.checkpoint import CheckpointId, Commit, Manifest
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import Damaged, InvalidInput, Missing
from trainer_shim import restoring, shards
from trainer_shim.entry import Choice
from trainer_shim.frameworks.torch_attempt import Attempt
from trainer_shim.frameworks.torch_kinds import dtype_of
from trainer_shim.frameworks.torch_layout import Layout, Part, decode
from trainer_shim.nearness import Source
from trainer_shim.together import together
from trainer_shim.tree import BYTES, unflatten
from trainer_shim.voice import say

Apply = Callable[[], None]


class SpotrelayReader(StorageReader):
    """Reads the newest verified checkpoint of a run: `dcp.load(state, storage_reader=SpotrelayReader(attempt))`.

    All ranks read the same one. Where one rank meets damage, `dcp.load` fails on all of them with every tensor
    untouched, and the next `dcp.load` with this reader takes the checkpoint before it; `torch_dcp.load` does
    both. Each rank keeps what it needs in host memory until all ranks have proven theirs.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.commit: Commit | None = None  # what is read
        self.source = Source(attempt.ports, None)  # where it is read
        self.damaged: set[CheckpointId] = set()  # found so by any rank
        self._fresh = False  # whether the choice was made and not yet used
        self._attempt = attempt
        self._manifest: Manifest | None = None
        self._layout: Layout | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """The run knows which checkpoint is to be read, so no id that a caller gives is one."""
        return False

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a new load."""
        if checkpoint_id is not None:
            raise InvalidInput(f"checkpoint_id={checkpoint_id!r}: the run knows its newest checkpoint, give none")

    def choose(self) -> Commit | None:
        """The checkpoint that will be read; None when the run begins at step 0. All ranks call it.

        Raises:
            SystemExit: there is progress and nothing to take it up from, or the attempt has to end.
        """
        damaged = frozenset(self.damaged)

        def chosen() -> Any:
            found = self._attempt.newest(damaged)
            return None if found is None else to_json(found)

        told = self._attempt.on_all(chosen)
        choice = None if told is None else from_json(Choice, told, "choice")
        self.commit = choice.checkpoint.commit if choice is not None else None
        self.source = Source(self._attempt.ports, choice.replica if choice is not None else None)
        self._fresh = True
        return self.commit

    def read_metadata(self, *args: Any) -> Metadata:
        """Choose, and read the layout; a checkpoint whose manifest is damaged is passed over.

        Raises:
            Missing: there is no checkpoint yet.
        """
        while True:
            commit = self.commit if self._fresh else self.choose()
            self._fresh = False
            if commit is None:
                raise Missing(f"run {self._attempt.identity.run_id} has no checkpoint yet: it begins at step 0")
            try:
                self._attempt.ranks.agree(partial(self._read_layout, commit))
            except Damaged as error:
                self._condemn(error)
                continue
            assert self._layout is not None
            return self._layout.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """See that DCP and the attempt mean the same ranks."""
        if is_coordinator != (self._attempt.ranks.rank == 0):
            raise InvalidInput("dcp.load() is for all ranks, as torch_dcp.join() is: give no process group")

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing to change."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Nothing to change."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Prove what every rank needs, agree, and only then copy.

        Raises:
            Damaged: on all ranks, when any has met damage. Nothing was touched.
            InvalidInput: on all ranks, when something does not fit. Nothing was touched.
        """
        try:
            applies = self._attempt.ranks.agree(lambda: self._proven(plan, planner))
        except Damaged as error:
            self._condemn(error)
            raise
        for apply in applies:
            apply()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read_layout(self, commit: Commit) -> None:
        attempt = self._attempt
        manifest = restoring.proven_manifest(commit, self.source.ports, attempt.call)
        try:
            self._manifest, self._layout = manifest, decode(manifest.tree, manifest.shards)
        except InvalidInput as error:
            raise Damaged(f"checkpoint {commit.id}: {error}") from error

    def _proven(self, plan: LoadPlan, planner: LoadPlanner) -> list[Apply]:
        assert self._layout is not None and self._manifest is not None, "read_metadata() comes first"
        reading = _Reading(self._layout, planner)
        applies = [reading.take(item) for item in plan.items]
        needed = sorted(reading.wanted)
        together(lambda shard: self._cut_out(shard, reading.wanted[shard]), needed)
        return [apply for made in applies for apply in made()]

    def _cut_out(self, shard: int, wanted: list[_Wanted]) -> None:
        assert self._manifest is not None
        attempt, about = self._attempt, self._manifest.shards[shard]
        body = restoring.proven_shard(about, self.source.ports, attempt.identity.cache, attempt.call)
        entries = shards.read(memoryview(body), about.key)
        for each in wanted:
            found = entries.get(each.part.entry)
            if found is None or len(found) != each.part.size:
                raise Damaged(f"{about.key} does not hold {each.part.entry} as the manifest says")
            each.target[each.to : each.to + each.size] = found[each.start : each.start + each.size]

    def _condemn(self, error: Damaged) -> None:
        assert self.commit is not None
        self.damaged.add(self.commit.id)
        if self._attempt.ranks.rank == 0:
            say(f"checkpoint {self.commit.id} is damaged, the one before it is tried: {error}")
            self._attempt.herald.damaged(self.commit.id, error)


@dataclass(frozen=True)
class _Wanted:
    """A run of bytes within one entry of a shard, and where it goes."""

    part: Part
    start: int  # first byte within the entry
    size: int  # bytes
    target: memoryview
    to: int  # first byte within the target


class _Reading:
    """What one rank needs of each shard, and what is to be done once it is there."""

    def __init__(self, layout: Layout, planner: LoadPlanner) -> None:
        self.wanted: dict[int, list[_Wanted]] = {}  # by shard
        self._layout = layout
        self._planner = planner

    def take(self, item: ReadItem) -> Callable[[], list[Apply]]:
        """Note what an item needs; what is returned makes, of the bytes, what puts them in place."""
        if item.type == LoadItemType.BYTE_IO:
            return self._value(item)
        name = item.storage_index.fqn
        about = self._layout.metadata.state_dict_metadata[name]
        if not isinstance(about, TensorStorageMetadata):
            raise InvalidInput(f"{name} is a tensor here, and none in the checkpoint")
        target = self._planner.resolve_tensor(item).detach()
        if target.dtype != about.properties.dtype or target.shape != item.lengths:
            raise InvalidInput(
                f"{name} is {about.properties.dtype} in the checkpoint, and {target.dtype} of "
                f"{tuple(target.shape)} here, where {tuple(item.lengths)} is wanted"
            )
        if not target.numel():
            return list
        source = self._span(item, about)

        def put() -> None:
            target.copy_(source)
            self._planner.commit_tensor(item, target)

        return lambda: [put]

    def _span(self, item: ReadItem, about: TensorStorageMetadata) -> torch.Tensor:
        """The part of a chunk that an item wants, as a view of the rows that hold it; filled later."""
        parts = self._layout.parts[item.storage_index]
        chunk = next(each for each in about.chunks if each.offsets == (item.storage_index.offset or each.offsets))
        dtype, sizes = about.properties.dtype, chunk.sizes
        first, count = (item.storage_offsets[0], item.lengths[0]) if len(sizes) else (0, 1)
        row = prod(sizes[1:]) * dtype.itemsize
        body = self._want(parts, first * row, count * row)
        rows = torch.frombuffer(body, dtype=dtype).view(item.lengths[:1] + tuple(sizes[1:]))
        for axis in range(1, len(sizes)):
            rows = rows.narrow(axis, item.storage_offsets[axis], item.lengths[axis])
        return rows

    def _want(self, parts: tuple[Part, ...], begin: int, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        for part in parts:
            low, high = max(begin, part.start), min(begin + size, part.start + part.size)
            if low < high:
                wanted = _Wanted(part, low - part.start, high - low, view, low - begin)
                self.wanted.setdefault(part.shard, []).append(wanted)
        return body

    def _value(self, item: ReadItem) -> Callable[[], list[Apply]]:
        name = item.storage_index.fqn
        if name not in self._layout.values:
            raise InvalidInput(f"{name} is no tensor here, and one in the checkpoint")
        held = self._layout.arrays[name]
        bodies = {key: self._want(each.parts, 0, sum(part.size for part in each.parts)) for key, each in held.items()}

        def array(key: str) -> Any:
            if held[key].dtype == BYTES:
                return bytes(bodies[key])
            kind = dtype_of(held[key].dtype)
            flat = torch.frombuffer(bodies[key], dtype=kind) if bodies[key] else torch.empty(0, dtype=kind)
            return flat.view(held[key].shape)

        def made() -> list[Apply]:
            try:
                value = unflatten(self._layout.values[name], array)
            except (InvalidInput, KeyError) as error:
                raise Damaged(f"{name} is described in a form that no version writes: {error}") from error
            return [_placing(self._planner, item, value)]

        return made


def _placing(planner: LoadPlanner, item: ReadItem, value: Any) -> Apply:
    # The planner's own load_bytes unpickles: what it would have read is put where it would have put it.
    name = item.dest_index.fqn
    if not isinstance(planner, DefaultLoadPlanner) or type(planner).load_bytes is not DefaultLoadPlanner.load_bytes:
        raise InvalidInput(f"{name}: the planner {type(planner).__qualname__} wants pickle, which no checkpoint holds")
    if planner.flatten_state_dict:
        return lambda: set_element(planner.original_state_dict, planner.mappings[name], value)
    return lambda: planner.state_dict.__setitem__(name, value)
