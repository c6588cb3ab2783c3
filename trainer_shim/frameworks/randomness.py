"""Random generators of a Python process as bytes and numbers, and back."""

from __future__ import annotations

import random
import sys
from array import array
from typing import Any


def python_state(generator: random.Random | None = None) -> dict[str, Any]:
    """The state of Python's generator, or of one of one's own."""
    version, words, gauss = (generator or random).getstate()
    return {"version": version, "words": array("I", words).tobytes(), "gauss": gauss}


def set_python_state(state: dict[str, Any], generator: random.Random | None = None) -> None:
    """Put Python's generator, or one of one's own, where `python_state` found it."""
    words = array("I")
    words.frombytes(state["words"])
    (generator or random).setstate((state["version"], tuple(words), state["gauss"]))


def numpy_state() -> dict[str, Any] | None:
    """The state of NumPy's global generator; None while nobody has imported NumPy."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "name": str(name),
        "keys": keys.tobytes(),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def set_numpy_state(state: dict[str, Any] | None) -> None:
    """Put NumPy's global generator where `numpy_state` found it."""
    if state is None:
        return
    import numpy

    keys = numpy.frombuffer(state["keys"], dtype=numpy.uint32)
    numpy.random.set_state((state["name"], keys, state["position"], state["has_gauss"], state["gauss"]))
