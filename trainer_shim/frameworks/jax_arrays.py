"""JAX arrays as bytes and back: what they are, how they are copied out, and where they go when they return.

A checkpoint says of an array whether it was JAX's, NumPy's or a key of random numbers, and whether its type was
weak: what a program computes with it depends on that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy

from spotrelay.core.errors import InvalidInput
from trainer_shim import finite as patterns
from trainer_shim.tree import Array

NUMPY = "numpy."  # before the type of an array of NumPy's
KEY = "key."  # before the algorithm of an array of typed PRNG keys
WEAK = ".weak"  # behind a type that gives way to others, as that of a number does


@dataclass(frozen=True)
class Stored:
    """An array of a checkpoint, still in the memory that it was read into."""

    dtype: str
    shape: tuple[int, ...]
    data: numpy.ndarray[Any, Any]


def describe(value: Any, path: str) -> Array | None:
    """See `trainer_shim.framework.Framework.describe`."""
    if isinstance(value, jax.Array):
        return _describe(value, path)
    if not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if value.dtype.hasobject or _type(value.dtype.name) != value.dtype:
        raise InvalidInput(f"{path} is an array of {value.dtype}: a checkpoint cannot hold it, only plain numbers")
    return Array(NUMPY + value.dtype.name, value.shape, value.nbytes, id(value))


def _describe(value: jax.Array, path: str) -> Array:
    if isinstance(value, jax.core.Tracer):
        raise InvalidInput(f"{path} belongs to a function that is being traced: call run.step() outside of jit")
    if value.is_deleted():
        raise InvalidInput(f"{path} was donated to a function: hand what it returned to run.step(loss, state=...)")
    if not value.is_fully_addressable:
        raise InvalidInput(f"{path} is spread over several processes: a checkpoint is written by one process yet")
    if is_key(value):
        data = jax.random.key_data(value)
        return Array(f"{KEY}{jax.random.key_impl(value)}", value.shape, data.nbytes, id(value))
    dtype = value.dtype.name + (WEAK if value.weak_type else "")
    return Array(dtype, value.shape, value.size * value.dtype.itemsize, id(value))


def is_key(value: Any) -> bool:
    """Whether an array holds typed PRNG keys."""
    return bool(jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key))


def start_copy(value: Any) -> None:
    """Let a device begin to send an array, so that many are on their way at once."""
    if isinstance(value, jax.Array) and not is_key(value):
        value.copy_to_host_async()


def copy_bytes(value: Any, start: int, target: memoryview) -> None:
    """Copy an array's bytes from `start` on until the target is full."""
    for part, first in _parts(value):
        _copy_part(part, first, start, target)


def in_place(value: Any) -> memoryview | None:
    """An array's bytes where they are; None when they would have to be copied to be read."""
    if isinstance(value, jax.Array):
        if is_key(value):
            value = jax.random.key_data(value)
        if any(device.platform != "cpu" for device in value.sharding.device_set) or not value.is_fully_replicated:
            return None
        value = value.addressable_shards[0].data
    array = numpy.asarray(value)
    return array.reshape(-1).view(numpy.uint8).data if array.flags.c_contiguous else None


def _parts(value: Any) -> list[tuple[numpy.ndarray[Any, Any], int]]:
    # An array that is split along its first axis need not be put together: its parts are copied one by one.
    if isinstance(value, jax.Array) and is_key(value):
        value = jax.random.key_data(value)
    if not isinstance(value, jax.Array) or len(value.sharding.device_set) == 1:
        return [(numpy.asarray(value), 0)]
    if value.is_fully_replicated:
        return [(numpy.asarray(value.addressable_shards[0].data), 0)]
    row = value.nbytes // value.shape[0] if value.shape[0] else 0
    found = {}
    for shard in value.addressable_shards:
        if any(part != slice(None) and part != slice(0, size) for part, size in _inner(shard.index, value.shape)):
            return [(numpy.asarray(value), 0)]
        found[(shard.index[0].start or 0) * row] = shard
    return [(numpy.asarray(shard.data), first) for first, shard in found.items()]


def _inner(index: tuple[slice, ...], shape: tuple[int, ...]) -> list[tuple[slice, int]]:
    return [(slice(part.start, part.stop), size) for part, size in zip(index[1:], shape[1:], strict=True)]


def _copy_part(part: numpy.ndarray[Any, Any], first: int, start: int, target: memoryview) -> None:
    source = numpy.ascontiguousarray(part).reshape(-1).view(numpy.uint8)
    begin, end = max(first, start), min(first + source.nbytes, start + len(target))
    if begin < end:
        numpy.frombuffer(target, numpy.uint8)[begin - start : end - start] = source[begin - first : end - first]


def stored(data: memoryview, dtype: str, shape: tuple[int, ...]) -> Stored:
    """An array over these bytes.

    Raises:
        InvalidInput: they cannot be one.
    """
    try:
        if dtype.startswith(KEY):
            words = numpy.frombuffer(data, numpy.uint32)
            return Stored(dtype, shape, words.reshape(*shape, words.size // max(math.prod(shape), 1)))
        kind = _type(dtype)
        if kind is None or kind.hasobject:
            raise TypeError("no plain numbers")
        return Stored(dtype, shape, numpy.frombuffer(data, kind).reshape(shape))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{len(data)} bytes are no {dtype} array of shape {shape}") from error


def stand_in(dtype: str, shape: tuple[int, ...]) -> Stored:
    """A stored array without bytes of its own.

    Raises:
        InvalidInput: there is no such type.
    """
    kind = numpy.dtype(numpy.uint32) if dtype.startswith(KEY) else _type(dtype)
    if kind is None or kind.hasobject:
        raise InvalidInput(f"there is no type {dtype} here")
    return Stored(dtype, shape, numpy.broadcast_to(numpy.zeros((), kind), shape))


def loaded(saved: Stored, like: Any = None) -> Any:
    """An array of one's own from a stored one.

    Args:
        like: what the script has in its place: a JAX array says on which devices it goes, and how.
    """
    if saved.dtype.startswith(NUMPY) and not isinstance(like, jax.Array):
        return saved.data.copy() if saved.shape or isinstance(like, numpy.ndarray) else saved.data.copy()[()]
    if saved.dtype.startswith(KEY):
        value = jax.random.wrap_key_data(jnp.array(saved.data), impl=saved.dtype.removeprefix(KEY))
    elif saved.dtype.endswith(WEAK):
        value = jnp.full(saved.shape, saved.data.dtype.type(0).item()).at[...].set(saved.data)
    elif isinstance(like, jax.Array) and like.committed:
        return jax.device_put(saved.data, like.sharding, may_alias=False)
    else:
        return jnp.array(saved.data)
    return jax.device_put(value, like.sharding) if isinstance(like, jax.Array) and like.committed else value


def own(value: Any) -> Any:
    """A restored value with arrays of its own in the place of stored ones."""
    if isinstance(value, Stored):
        return loaded(value)
    if isinstance(value, dict):
        return {key: own(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(own(item) for item in value)
    return value


def wide(saved: Stored) -> bool:
    """Whether JAX cannot hold this array as it is set up, with 32 bits."""
    plain = not saved.dtype.startswith((NUMPY, KEY))
    return plain and jax.dtypes.canonicalize_dtype(saved.data.dtype) != saved.data.dtype


def narrowed(dtype: str) -> str:
    """The type that JAX makes of one of NumPy's."""
    kind = _type(dtype)
    return dtype if kind is None else jax.dtypes.canonicalize_dtype(kind).name


def finite(data: memoryview, dtype: str) -> bool:
    """Whether these bytes of a floating type hold neither an infinity nor a NaN."""
    kind = _type(dtype)
    assert kind is not None
    if patterns.has_patterns(kind.name):
        return patterns.finite(data, kind.name)
    return bool(numpy.isfinite(numpy.frombuffer(data, kind)).all())


def floating(dtype: str) -> bool:
    """Whether arrays of this type can hold an infinity or a NaN."""
    kind = _type(dtype)
    return kind is not None and bool(jnp.issubdtype(kind, jnp.inexact))


def _type(dtype: str) -> numpy.dtype[Any] | None:
    try:
        return numpy.dtype(dtype.removeprefix(NUMPY).removesuffix(WEAK))
    except TypeError:
        return None
