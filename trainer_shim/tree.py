"""Training state as JSON plus named arrays. Nothing that could run code goes in or comes out.

JSON values stay as they are; what JSON has no word for becomes an object with the key `$`:
tuples, bytes, dictionaries with other keys than texts, numbers that are not finite, and arrays.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from spotrelay.core.errors import InvalidInput

INLINE_BYTES = 256  # longer byte strings travel as arrays
BUILT_IN = frozenset({dict, list, tuple, float, bytes, bytearray})
BYTES = "bytes"  # the dtype of a byte string that travels as an array


class Array(NamedTuple):
    """What a framework says about one of its arrays. A state has thousands, and training waits for them."""

    dtype: str  # the framework's own name
    shape: tuple[int, ...]
    size: int  # bytes
    identity: Hashable  # equal for two names of the very same memory: written once
    group: str = ""  # arrays of different groups share no shard: what changes and what stays lie apart


@dataclass(frozen=True)
class Composite:
    """What a framework says about a value that several of its arrays make up."""

    kind: str  # the framework's own name for it
    parts: dict[str, Any]  # arrays, and what `flatten` takes


class Leaf(NamedTuple):
    """One array of a state, still where the framework keeps it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes
    value: Any
    group: str = ""  # as the framework's description has it


Describe = Callable[[Any, str], Array | Composite | None]
Compose = Callable[[str, dict[str, Any]], Any]


def flatten(state: Any, describe: Describe) -> tuple[Any, list[Leaf]]:
    """The JSON form of a state and the arrays it refers to, by name.

    Args:
        describe: says what a value is if it is one of the framework's arrays; gets its path too.

    Raises:
        InvalidInput: a value can be neither; names its path.
    """
    flattener = _Flattener(describe)
    return flattener.encode(state, ""), list(flattener.leaves.values())


class _Flattener:
    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self.leaves: dict[str, Leaf] = {}
        self.names: dict[Hashable, str] = {}

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            return value
        if kind not in BUILT_IN and not isinstance(value, str):  # most of a state's values are arrays
            array = self.describe(value, path)
            if array is not None:
                return self._encode_described(value, array, path)
        return self._encode_plain(value, path)

    def _encode_described(self, value: Any, array: Array | Composite, path: str) -> Any:
        if isinstance(array, Composite):
            parts = {name: self.encode(part, f"{path}/{name}") for name, part in array.parts.items()}
            return {"$": "composite", "kind": array.kind, "parts": parts}
        return self._encode_array(value, array, path)

    def _encode_plain(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        if isinstance(value, (bytes, bytearray)):
            return self._encode_bytes(bytes(value), path)
        if isinstance(value, dict):
            return self._encode_dict(value, path)
        if isinstance(value, (list, tuple)):
            items = [self.encode(item, f"{path}/{index}") for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"$": "tuple", "items": items}
        raise InvalidInput(
            f"{path or 'the state'} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint "
            "cannot hold: use numbers, texts, lists, dictionaries, tensors, or an object with "
            "state_dict and load_state_dict"
        )

    def _encode_bytes(self, value: bytes, path: str) -> Any:
        if len(value) <= INLINE_BYTES:
            return {"$": "bytes", "base64": base64.b64encode(value).decode()}
        return self._encode_array(value, Array(BYTES, (len(value),), len(value), id(value)), path)

    def _encode_dict(self, value: dict[Any, Any], path: str) -> Any:
        if all(type(key) is str for key in value) and "$" not in value:
            return {key: self.encode(item, f"{path}/{key}" if path else key) for key, item in value.items()}
        items = [[self.encode(key, f"{path}/key"), self.encode(item, f"{path}/{key}")] for key, item in value.items()]
        return {"$": "dict", "items": items}

    def _encode_array(self, value: Any, array: Array, path: str) -> Any:
        known = self.names.get(array.identity)
        if known is None:
            known = path
            while known in self.leaves:
                known += "~"
            self.names[array.identity] = known
            self.leaves[known] = Leaf(known, array.dtype, array.shape, array.size, value, array.group)
        return {"$": "array", "name": known}


def _nothing_composite(kind: str, parts: dict[str, Any]) -> Any:
    raise InvalidInput(f"{kind} is nothing that this framework knows")


def unflatten(tree: Any, array: Callable[[str], Any], compose: Compose = _nothing_composite) -> Any:
    """The state that `flatten` was given.

    Args:
        array: supplies each array by its name.
        compose: makes of its parts what a framework has described as made up of several arrays.

    Raises:
        InvalidInput: the tree has a form that no `flatten` makes.
    """
    if isinstance(tree, list):
        return [unflatten(item, array, compose) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$" not in tree:
        return {key: unflatten(item, array, compose) for key, item in tree.items()}
    try:
        return _decode(tree, array, compose)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"the state's tree holds {str(tree)[:80]}, which no version writes") from error


def _decode(tree: dict[str, Any], array: Callable[[str], Any], compose: Compose) -> Any:
    kind = tree["$"]
    if kind == "array":
        return array(tree["name"])
    if kind == "tuple":
        return tuple(unflatten(item, array, compose) for item in tree["items"])
    if kind == "dict":
        return {unflatten(key, array, compose): unflatten(item, array, compose) for key, item in tree["items"]}
    if kind == "composite":
        return compose(tree["kind"], {name: unflatten(part, array, compose) for name, part in tree["parts"].items()})
    if kind == "bytes":
        return base64.b64decode(tree["base64"], validate=True)
    if kind == "float":
        return float(tree["value"])
    raise ValueError(kind)
