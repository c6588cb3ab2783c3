"""Data positions that no framework is needed for: loaders that save themselves, and anything that can be read again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks import randomness
from trainer_shim.voice import say


def saves_itself(loader: Any) -> bool:
    """Whether a loader has a position of its own to hand out and to take."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def dealt_otherwise(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a loader of this form gives other samples to a rank than one of that form did."""
    return any(was.get(name) != now.get(name) for name in ("replicas", "ranks"))


def _for_one(loader: Any) -> dict[str, int]:
    return {}


class LoaderFeed:
    """Any iterable: resumed by reading it again, or by handing its iterator the state that it gave out."""

    kind = "replayed"
    dealing = staticmethod(_for_one)  # to how many ranks a loader's samples are dealt out
    generators = randomness.OwnGenerators
    process_state = staticmethod(randomness.process_state)
    set_process_state = staticmethod(randomness.set_process_state)

    def __init__(
        self, loader: Any, endless: bool, position: dict[str, Any] | None, settled: Callable[[], None]
    ) -> None:
        self.loader = loader
        self.endless = endless
        self.epoch = 0
        self.consumed = 0
        self.done = 0  # samples of this epoch that all ranks had finished when it was dealt out anew
        self.own = self.generators(loader)
        self.start: dict[str, Any] = {}
        self.first = _told_epoch(loader)  # the sampler's own number for our epoch 0: the script may have set it
        self._batches: Any = None
        if position is not None:
            self._compare(position)
            self.epoch, self.consumed = position["epoch"], position["consumed"]
            self.first = position.get("first", self.first)
            self.done = position.get("done", 0)
            self.resume(position)
            self.own.set_state(position["own"])
        settled()

    def next(self) -> Any:
        """See `trainer_shim.framework.Feed.next`."""
        if self._batches is None:
            self._batches = self.begin()
        try:
            batch = next(self._batches)
        except StopIteration:
            if not self.endless or self.consumed + self.done == 0:
                raise
            self.end_epoch()
            return self.next()
        self.consumed += 1
        return self.unwrapped(batch)

    def end_epoch(self) -> None:
        """Give up what is left of the epoch; the next batch begins another one."""
        self.epoch += 1
        self.consumed = self.done = 0
        self._batches = None

    def position(self) -> dict[str, Any]:
        """See `trainer_shim.framework.Feed.position`."""
        return {
            "kind": self.kind,
            "form": self.form(),
            "epoch": self.epoch,
            "consumed": self.consumed,
            "first": self.first,
            "done": self.done,
            "start": self.start,
            "own": self.own.state(),
            "iterator": self._batches.get_state() if _has_state(self._batches) else None,
        }

    def form(self) -> dict[str, Any]:
        """What decides the batches, as far as it can be asked for."""
        names = ("batch_size", "num_workers", "drop_last")
        found = {name: getattr(self.loader, name) for name in names if hasattr(self.loader, name)}
        found |= self.dealing(self.loader)
        with contextlib.suppress(TypeError):  # a loader without a length
            found["batches"] = len(self.loader)
        return found

    def _compare(self, position: dict[str, Any]) -> None:
        if position["kind"] != self.kind:
            raise InvalidInput(
                f"the checkpoint's data position is of a {position['kind']} loader, and this one is {self.kind}: "
                "give run.steps() the loader that the run began with"
            )
        was, now = position["form"], self.form()
        if dealt_otherwise(was, now):  # told of where the checkpoint is chosen
            return
        changed = ", ".join(f"{name} {was[name]} → {now.get(name)}" for name in was if was[name] != now.get(name))
        if changed:
            say(f"the loader is another one than at the checkpoint ({changed}): batches will differ from here on")

    def close(self) -> None:
        """See `trainer_shim.framework.Feed.close`."""
        self._batches = None

    def begin(self) -> Iterator[Any]:
        """Start an epoch; the generators are where they were when it started."""
        self._tell_epoch()
        self.start = self.randomness()
        return iter(self.loader)

    def resume(self, position: dict[str, Any]) -> None:
        """Go to a position in the middle of an epoch."""
        if not position["start"]:
            return
        if dealt_otherwise(position["form"], self.form()):
            self.begin_anew()
            return
        self._tell_epoch()
        self.start = position["start"]
        self.set_randomness(self.start)
        self._batches = batches = iter(self.loader)
        if _has_state(batches) and position.get("iterator") is not None:
            batches.set_state(position["iterator"])
            return
        for _ in range(self.consumed):
            next(batches, None)

    def begin_anew(self) -> None:
        """Begin an epoch that cannot be taken up from its beginning."""
        self.consumed, self.done, self.start = 0, 0, {}
        say("this loader cannot take up an epoch that another number of ranks began: the epoch begins anew")

    def unwrapped(self, batch: Any) -> Any:
        """The user's own batch."""
        return batch

    def randomness(self) -> dict[str, Any]:
        """Every generator that can decide what the loader gives."""
        return {"process": self.process_state(), "own": self.own.state()}

    def set_randomness(self, state: dict[str, Any]) -> None:
        """Put those generators back."""
        self.set_process_state(state["process"])
        self.own.set_state(state["own"])

    def _tell_epoch(self) -> None:
        for each in _samplers(self.loader):
            tell = getattr(each, "set_epoch", None)
            if tell is not None:
                tell((self.first or 0) + self.epoch)


def _samplers(loader: Any) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return [getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]


def _told_epoch(loader: Any) -> int | None:
    """The epoch that a sampler was set to before the loop; None where none says."""
    found = [each.epoch for each in _samplers(loader) if hasattr(each, "set_epoch") and hasattr(each, "epoch")]
    return found[0] if found and isinstance(found[0], int) else None


class StatefulFeed(LoaderFeed):
    """A loader that saves its own position, such as torchdata's StatefulDataLoader."""

    kind = "stateful"

    def position(self) -> dict[str, Any]:
        """Adds what the loader says of itself."""
        return {**super().position(), "loader": self.loader.state_dict()}

    def resume(self, position: dict[str, Any]) -> None:
        """Hand the loader its own state."""
        if dealt_otherwise(position["form"], self.form()):
            self.begin_anew()
            return
        self._tell_epoch()
        self.start = position["start"]
        if self.start:  # a loader may draw its order anew, and be told only how far in it to go
            self.set_randomness(self.start)
        self.loader.load_state_dict(position["loader"])
        self._batches = iter(self.loader)


def _has_state(batches: Any) -> bool:
    # As grain's iterators have it.
    return hasattr(batches, "get_state") and hasattr(batches, "set_state")
