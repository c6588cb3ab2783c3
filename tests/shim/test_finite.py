"""Whether arrays hold an infinity or a NaN, against NumPy's own word, element by element."""

from __future__ import annotations

import ml_dtypes
import numpy
import pytest
import torch

from trainer_shim.finite import LEAST, WITHOUT_MINUS_ZERO, finite, has_patterns

SEED = 7
KINDS = [*LEAST, *WITHOUT_MINUS_ZERO]


def kind_of(name: str) -> numpy.dtype:
    return numpy.dtype(getattr(ml_dtypes, name, None) or name)


def every_pattern(name: str) -> numpy.ndarray:
    """All of them where they can be counted, many of them else."""
    width = kind_of(name).itemsize
    if width <= 2:
        return numpy.arange(2 ** (8 * width), dtype=f"u{width}")
    drawn = numpy.random.default_rng(SEED).integers(0, 2 ** (8 * width), 20_000, dtype=f"u{width}", endpoint=False)
    least, sign = LEAST[name][1], 2 ** (8 * width - 1)
    edges = [least - 1, least, least + 1, sign - 1, sign, sign + least - 1, sign + least, 2 * sign - 1, 0]
    return numpy.concatenate([drawn, numpy.array(edges, drawn.dtype)])


@pytest.mark.parametrize("name", KINDS)
def test_each_element_alone_is_judged_as_numpy_judges_it(name: str) -> None:
    patterns = every_pattern(name)
    expected = numpy.isfinite(patterns.view(kind_of(name)).astype("f8" if patterns.itemsize == 8 else "f4"))
    sample = range(len(patterns)) if len(patterns) <= 256 else range(0, len(patterns), 13)

    wrong = [i for i in (*sample, *range(-9, 0)) if finite(patterns[i : i + 1 or None].data, name) != expected[i]]

    assert not wrong and 0 < expected.sum() < len(expected)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("where", [0, 300_000, 600_000])
def test_one_bad_element_among_many_is_found_wherever_it_is(name: str, where: int) -> None:
    array = numpy.linspace(-3, 3, 600_001).astype(kind_of(name))
    assert finite(array.view("u1").data, name)

    array[where] = numpy.nan

    assert not finite(array.view("u1").data, name)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_finite_elements_whose_sum_is_not_are_finite(name: str) -> None:
    assert finite(numpy.full(1000, numpy.finfo(name).max, name).data.cast("B"), name)
    assert not finite(numpy.array([numpy.inf, -numpy.inf], name).data.cast("B"), name)


def test_both_parts_of_a_complex_number_count() -> None:
    for bad in (complex(0, float("nan")), complex(float("inf"), 0)):
        assert not finite(torch.tensor([1j, bad]).numpy().view("u1").data, "complex64")
    assert finite(torch.tensor([1j, 2.0]).numpy().view("u1").data, "complex64")


def test_types_without_infinities_are_not_asked_about() -> None:
    assert not any(has_patterns(name) for name in ("int32", "bool", "uint8", "bytes"))
