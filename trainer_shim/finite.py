"""Whether arrays hold an infinity or a NaN, at the memory's speed and on the caller's thread alone.

One element that is not finite makes a sum so, and a sum is the fastest look there is. Sums of finite elements
may overflow, and short formats have no fast sum; then the bits tell. In every format of IEEE's kind what is not
finite has the patterns from a certain one upwards, sign apart, so two maxima, of the bits as signed and as unsigned
numbers, are exact.
"""

from __future__ import annotations

import numpy

STEP = 2**20  # bytes; the second look finds them in the processor's cache
SUMMED = 32  # bits from which on an addition takes one instruction

PARTS = {"complex64": "float32", "complex128": "float64"}
LEAST = {  # bits of an element, and the least pattern that is not finite
    "float64": (64, 0x7FF0_0000_0000_0000),
    "float32": (32, 0x7F80_0000),
    "bfloat16": (16, 0x7F80),
    "float16": (16, 0x7C00),
    "float8_e5m2": (8, 0x7C),
    "float8_e4m3fn": (8, 0x7F),  # it has no infinity
}
WITHOUT_MINUS_ZERO = ("float8_e4m3fnuz", "float8_e5m2fnuz")  # its pattern is their only NaN


def has_patterns(dtype: str) -> bool:
    """Whether `finite` can tell for this type."""
    return PARTS.get(dtype, dtype) in LEAST or dtype in WITHOUT_MINUS_ZERO


def finite(data: memoryview, dtype: str) -> bool:
    """Whether all these elements are finite.

    Args:
        data: contiguous bytes of whole elements.
        dtype: by its common name; one for which `has_patterns` holds.
    """
    if dtype in WITHOUT_MINUS_ZERO:
        return not (numpy.frombuffer(data, "u1") == 0x80).any()
    bits, least = LEAST[PARTS.get(dtype, dtype)]
    return (bits >= SUMMED and _finite_sum(data, bits)) or _finite_patterns(data, bits, least)


def _finite_sum(data: memoryview, bits: int) -> bool:
    with numpy.errstate(over="ignore", invalid="ignore"):
        return bool(numpy.isfinite(numpy.frombuffer(data, f"f{bits // 8}").sum()))


def _finite_patterns(data: memoryview, bits: int, least: int) -> bool:
    signed = numpy.frombuffer(data, f"i{bits // 8}")
    unsigned = signed.view(f"u{bits // 8}")
    step = STEP // (bits // 8)
    return all(
        signed[at : at + step].max() < least and unsigned[at : at + step].max() < least + 2 ** (bits - 1)
        for at in range(0, len(signed), step)
    )
