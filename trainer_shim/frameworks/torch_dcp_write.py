"""A StorageWriter for torch.distributed.checkpoint: shards by every rank, manifest and commit by rank 0."""

from __future__ import annotations

import os
import platform
import threading
import time
from math import prod
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

import spotrelay
from spotrelay.core.checkpoint import Commit, Health, Manifest, SaveReason, Shard, digest_of, manifest_key, shard_key
from spotrelay.core.errors import InvalidInput
from trainer_shim import shards
from trainer_shim.creating import create
from trainer_shim.frameworks.torch_attempt import Attempt
from trainer_shim.frameworks.torch_kinds import name_of
from trainer_shim.frameworks.torch_layout import Value, Written, encode
from trainer_shim.together import together
from trainer_shim.tree import BYTES, Array, Leaf, flatten
from trainer_shim.uploading.digests import content_digest, seal


class SpotrelayWriter(StorageWriter):
    """Writes one checkpoint of a run: `dcp.save(state, storage_writer=SpotrelayWriter(attempt, step))`.

    It exists once `dcp.save` has returned, on every rank, and not before: a save that fails or is killed
    anywhere leaves nothing that anybody would resume from.

    Args:
        step: steps finished; where training goes on.
        health: your own judgement of the state. A bad one is never resumed from.
    """

    def __init__(
        self,
        attempt: Attempt,
        step: int,
        *,
        reason: SaveReason = SaveReason.REQUESTED,
        health: Health = Health.HEALTHY,
    ) -> None:
        self.commit: Commit | None = None  # on rank 0, once it is committed
        self._attempt = attempt
        self._step = step
        self._reason = reason
        self._health = health
        self._save = 0
        self._begun = time.monotonic()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Checkpoints are numbered by the run, so no id that a caller makes up is one."""
        return False

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a new save."""
        if checkpoint_id is not None:
            raise InvalidInput(f"checkpoint_id={checkpoint_id!r}: the run numbers its checkpoints itself, give none")
        self._begun = time.monotonic()

    def storage_meta(self) -> StorageMeta | None:
        """Nothing that a planner has to know."""
        return None

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """See that DCP and the attempt mean the same ranks."""
        if not kwargs.get("use_collectives", True):
            raise InvalidInput("use_collectives=False: a checkpoint is committed only when every rank's part is there")
        if is_coordinator != (self._attempt.ranks.rank == 0):
            raise InvalidInput("dcp.save() is for all ranks, as torch_dcp.join() is: give no process group")

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing to change."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Number the save, for all ranks."""
        self._save = self._attempt.next_save()
        return [SavePlan(plan.items, self._save, plan.planner_data, plan.usable) for plan in plans]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store this rank's part as shards.

        Raises:
            InvalidInput: something is neither a tensor nor JSON; names it. Nothing was uploaded by this rank.
        """
        done: Future[list[WriteResult]] = Future()
        done.set_result(_RankWriter(self._attempt, plan.storage_data, planner).write(plan.items))
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the manifest and commit it: only now does the checkpoint exist.

        Raises:
            Fenced: another attempt is in place, and this checkpoint was not committed.
        """
        attempt, identity = self._attempt, self._attempt.identity
        written, values = _sorted_out([result for each in results for result in each])
        planner, _ = flatten(metadata.planner_data, _no_array)
        stored, tree = encode(metadata, written, values, planner)
        durable_s = time.monotonic() - self._begun
        manifest = Manifest(
            identity.run_id,
            identity.generation,
            self._save,
            self._step,
            stored,
            tree,
            world_size=len(results),
            threads=torch.get_num_threads(),
            health=self._health,
            reason=self._reason,
            versions={
                "python": platform.python_version(),
                "spotrelay": spotrelay.__version__,
                "torch": str(torch.__version__),
            },
            code=attempt.code,
        )
        body = manifest.encode()
        key = manifest_key(identity.run_id, identity.generation, self._save)
        objects = attempt.ports.objects
        made = create(objects, key, lambda: objects.put(key, body), content_digest(body), attempt.call)
        commit = Commit(
            identity.run_id,
            identity.generation,
            self._save,
            self._step,
            made.key,
            made.version_id,
            digest_of(body),
            sum(shard.size for shard in stored),
            self._health,
            self._reason,
            round(time.monotonic() - self._begun, 6),
            round(durable_s, 6),
        )
        attempt.commit(commit)
        self.commit = commit


class _RankWriter:
    """One rank's part of one save."""

    def __init__(self, attempt: Attempt, save: int, planner: SavePlanner) -> None:
        self._attempt = attempt
        self._save = save
        self._planner = planner
        self._resolving = threading.Lock()  # planners are not made for several threads

    def write(self, items: list[WriteItem]) -> list[WriteResult]:
        trees = {item.index: self._tree(item) for item in items if item.type == WriteItemType.BYTE_IO}
        tensors = [item for item in items if item.index not in trees]
        leaves = [self._leaf(item) for item in tensors] + [leaf for _, own in trees.values() for leaf in own]
        stored = iter(self._store(leaves))
        results = [WriteResult(item.index, 0, next(stored)) for item in tensors]
        for index, (tree, own) in trees.items():
            arrays = {leaf.name: (leaf.dtype, leaf.shape, next(stored)) for leaf in own}
            results.append(WriteResult(index, 0, Value(tree, arrays)))
        return results

    def _tree(self, item: WriteItem) -> tuple[Any, list[Leaf]]:
        # The planner would pickle it: it is asked for the object itself.
        name = item.index.fqn
        if not isinstance(self._planner, DefaultSavePlanner):
            raise InvalidInput(
                f"{name}: the planner {type(self._planner).__qualname__} is no DefaultSavePlanner, so what is no "
                "tensor cannot be had from it but as pickle, which no checkpoint holds"
            )
        tree, leaves = flatten({name: self._planner.lookup_object(item.index)}, _describe)
        return tree[name], leaves

    def _leaf(self, item: WriteItem) -> Leaf:
        about = item.tensor_data
        assert about is not None, "a tensor's item says what the tensor is"
        name = _chunk_name(item.index)
        if about.properties.layout is not torch.strided:
            raise InvalidInput(f"{item.index.fqn} is a {about.properties.layout} tensor: a checkpoint cannot hold it")
        whole = getattr(self._planner, "state_dict", {}).get(item.index.fqn)
        if isinstance(whole, DTensor) and any(each.is_partial() for each in whole.placements):
            raise InvalidInput(f"{item.index.fqn} is a DTensor with a pending reduction: redistribute it first")
        dtype, shape = about.properties.dtype, tuple(about.chunk.sizes)

        def resolve() -> torch.Tensor:
            with self._resolving:
                found = self._planner.resolve_data(item)
            if not isinstance(found, torch.Tensor) or found.is_meta or found.dtype != dtype or found.shape != shape:
                raise InvalidInput(f"{name} is not the {dtype} tensor of {shape} that the planner announced")
            return found.detach()

        return Leaf(name, name_of(dtype), shape, prod(shape) * dtype.itemsize, resolve)

    def _store(self, leaves: list[Leaf]) -> list[Written]:
        if not leaves:
            return []
        named = [leaf._replace(name=f"{leaf.name}~{number}") for number, leaf in enumerate(leaves)]  # unique for sure
        plan = shards.plan(named)
        stored = together(lambda planned: self._store_shard(named, planned), plan.shards)
        sizes = {piece.entry: piece.size for planned in plan.shards for piece in planned.pieces}
        return [
            Written(tuple((stored[shard], entry, sizes[entry]) for shard, entry, _ in plan.arrays[leaf.name]["at"]))
            for leaf in named
        ]

    def _store_shard(self, leaves: list[Leaf], planned: shards.ShardPlan) -> Shard:
        body = _filled(leaves, planned)
        identity = self._attempt.identity
        sealed = seal(body)
        rank = self._attempt.ranks.rank
        key = shard_key(identity.run_id, identity.generation, self._save, rank, planned.index, sealed.digest)
        objects = self._attempt.ports.objects
        made = create(objects, key, lambda: objects.put(key, body, sealed.checksum), sealed.digest, self._attempt.call)
        return Shard(key, made.version_id, len(body), made.etag, sealed.digest, made.checksum, rank)


def _filled(leaves: list[Leaf], planned: shards.ShardPlan) -> memoryview:
    body = memoryview(bytearray(planned.size))
    body[: len(planned.header)] = planned.header
    for piece in planned.pieces:
        if piece.size:
            _copy(leaves[piece.leaf], piece, body[piece.offset :][: piece.size])
    return body


def _copy(leaf: Leaf, piece: shards.Piece, target: memoryview) -> None:
    if leaf.dtype == BYTES:
        target[:] = leaf.value[piece.start : piece.start + piece.size]
        return
    source: torch.Tensor = leaf.value() if callable(leaf.value) else leaf.value
    flat = torch.frombuffer(target, dtype=source.dtype)
    if piece.size == leaf.size:
        flat.view(leaf.shape).copy_(source)
    else:
        flat.copy_(source.reshape(-1)[piece.start // source.element_size() :][: flat.numel()])


def _sorted_out(results: list[WriteResult]) -> tuple[dict[MetadataIndex, Written], dict[str, Value]]:
    written: dict[MetadataIndex, Written] = {}
    values: dict[str, Value] = {}
    for result in results:
        if isinstance(result.storage_data, Value):
            values[result.index.fqn] = result.storage_data
        else:
            written[result.index] = result.storage_data
    return written, values


def _chunk_name(index: MetadataIndex) -> str:
    return index.fqn if not index.offset else f"{index.fqn}@{','.join(map(str, index.offset))}"


def _describe(value: Any, path: str) -> Array | None:
    """A tensor inside of something that is none, such as a tuple."""
    if not isinstance(value, torch.Tensor) or isinstance(value, DTensor):
        return None
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        raise InvalidInput(f"{path} is a meta, sparse or quantized tensor: a checkpoint cannot hold it")
    shape = tuple(value.shape)
    size = value.numel() * value.element_size()
    return Array(name_of(value.dtype), shape, size, id(value))


def _no_array(value: Any, path: str) -> Array | None:
    return None
