"""Boxes within an array: which part of it a rank holds, and whether parts make a whole. Plain numbers only."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from spotrelay.core.errors import InvalidInput

MOST = 2**62  # bytes of an array: beyond it arithmetic in frameworks overflows


@dataclass(frozen=True)
class Box:
    """A part of an array, axis by axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def volume(self) -> int:
        """Elements in it."""
        return prod(self.sizes)

    def overlap(self, other: Box) -> Box | None:
        """What both have; None when that is nothing."""
        low = tuple(map(max, self.offsets, other.offsets))
        high = [
            min(a + width, b + height)
            for a, width, b, height in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        ]
        if not self.volume or not other.volume or any(end <= begin for begin, end in zip(low, high, strict=True)):
            return None
        return Box(low, tuple(end - begin for begin, end in zip(low, high, strict=True)))


def whole(shape: Sequence[int]) -> Box:
    """All of an array."""
    return Box((0,) * len(shape), tuple(shape))


def numbers(value: Any, name: str) -> tuple[int, ...]:
    """Sizes or offsets that were read from somewhere.

    Raises:
        InvalidInput: they are none.
    """
    if not isinstance(value, (list, tuple)) or any(type(each) is not int or not 0 <= each < MOST for each in value):
        raise InvalidInput(f"{name} has a size or an offset that is none: {str(value)[:80]}")
    if prod(max(each, 1) for each in value) >= MOST:
        raise InvalidInput(f"{name} would be larger than any array: {str(value)[:80]}")
    return tuple(value)


def check_tiling(name: str, shape: Sequence[int], boxes: Sequence[Box]) -> None:
    """See that boxes lie within an array, do not overlap, and fill it.

    Raises:
        InvalidInput: they do not; says where.
    """
    for box in boxes:
        if len(box.offsets) != len(shape) or len(box.sizes) != len(shape):
            raise InvalidInput(f"{name}: a part has another number of dimensions than the whole")
        if any(o + s > most for o, s, most in zip(box.offsets, box.sizes, shape, strict=True)):
            raise InvalidInput(f"{name}: a part at {box.offsets} of {box.sizes} lies outside of {tuple(shape)}")
    filled = [box for box in boxes if box.volume]
    if sum(box.volume for box in filled) != prod(shape):
        raise InvalidInput(f"{name}: its parts do not fill its shape {tuple(shape)}")
    if shape:
        _check_apart(name, filled, max(range(len(shape)), key=lambda axis: len({box.offsets[axis] for box in filled})))


def _check_apart(name: str, boxes: Sequence[Box], sweep: int) -> None:
    order = sorted(range(len(boxes)), key=lambda i: boxes[i].offsets[sweep])
    near: list[tuple[int, int]] = []  # where it ends on the sweep's axis, and which
    for number in order:
        box = boxes[number]
        begin = box.offsets[sweep]
        while near and near[0][0] <= begin:
            near.pop(0)
        if any(box.overlap(boxes[other]) for _, other in near):
            raise InvalidInput(f"{name}: parts overlap at {box.offsets}")
        insort(near, (begin + box.sizes[sweep], number))
