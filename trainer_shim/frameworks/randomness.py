"""Random generators of a Python process and of its objects as bytes and numbers, and back."""

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


def numpy_state(generator: Any = None) -> dict[str, Any] | None:
    """The state of NumPy's global generator, or of a RandomState; None while nobody has imported NumPy."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    name, keys, position, has_gauss, gauss = (generator or numpy.random).get_state()
    return {
        "name": str(name),
        "keys": keys.tobytes(),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def set_numpy_state(state: dict[str, Any] | None, generator: Any = None) -> None:
    """Put NumPy's global generator, or a RandomState, where `numpy_state` found it."""
    if state is None:
        return
    import numpy

    keys = numpy.frombuffer(state["keys"], dtype=numpy.uint32)
    (generator or numpy.random).set_state((state["name"], keys, state["position"], state["has_gauss"], state["gauss"]))


def process_state() -> dict[str, Any]:
    """Generators of the process: Python's and NumPy's."""
    return {"python": python_state(), "numpy": numpy_state()}


def set_process_state(state: dict[str, Any]) -> None:
    """Put the generators of the process where `process_state` found them."""
    set_python_state(state["python"])
    set_numpy_state(state["numpy"])


class OwnGenerators:
    """Generators that a loader, its samplers or its data set keep as attributes of their own."""

    def __init__(self, loader: Any) -> None:
        self._found: dict[str, Any] = {}
        seen: set[int] = set()
        for path, owner in _owners(loader):
            for name, value in getattr(owner, "__dict__", {}).items():
                if self.knows(value) and id(value) not in seen:
                    seen.add(id(value))
                    self._found[f"{path}.{name}"] = value

    def state(self) -> dict[str, Any]:
        """Where each of them is, by the path of its attribute."""
        return {path: self.state_of(value) for path, value in self._found.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Put each where `state` found it; those that the script no longer has are left out."""
        for path, saved in state.items():
            if path in self._found:
                self.set_state_of(self._found[path], saved)

    def knows(self, value: Any) -> bool:
        """Whether a value is a generator that can be put back."""
        numpy = sys.modules.get("numpy")
        return isinstance(value, random.Random) or (
            numpy is not None and isinstance(value, (numpy.random.Generator, numpy.random.RandomState))
        )

    def state_of(self, value: Any) -> Any:
        """Where a generator is."""
        if isinstance(value, random.Random):
            return python_state(value)
        return _plain(value.bit_generator.state) if hasattr(value, "bit_generator") else numpy_state(value)

    def set_state_of(self, value: Any, state: Any) -> None:
        """Put a generator where `state_of` found it."""
        if isinstance(value, random.Random):
            set_python_state(state, value)
        elif hasattr(value, "bit_generator"):
            value.bit_generator.state = _with_words(state)
        else:
            set_numpy_state(state, value)


def _owners(loader: Any) -> list[tuple[str, Any]]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "batch_sampler", None)  # accelerate's shards stand around one
    owners = [
        ("loader", loader),
        ("sampler", getattr(loader, "sampler", None)),
        ("batch_sampler", batch_sampler),
        ("batch_sampler.sampler", getattr(batch_sampler, "sampler", None)),
        ("batch_sampler.batch_sampler", inner),
        ("batch_sampler.batch_sampler.sampler", getattr(inner, "sampler", None)),
        ("dataset", getattr(loader, "dataset", None)),
    ]
    return [(path, owner) for path, owner in owners if owner is not None]


def _plain(state: Any) -> Any:
    # Some of NumPy's bit generators keep words in arrays; a checkpoint takes bytes.
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if hasattr(state, "tobytes"):
        return {"kind": state.dtype.str, "words": state.tobytes()}
    return state


def _with_words(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    if set(state) == {"kind", "words"}:
        import numpy

        return numpy.frombuffer(state["words"], dtype=state["kind"])
    return {key: _with_words(value) for key, value in state.items()}
