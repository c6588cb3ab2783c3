"""Data position of a PyTorch loader, down to the batch in the middle of a shuffled epoch.

At the start of an epoch the generators are written down. To resume, the epoch's order is made
again from them, batches that were trained on are skipped in the sampler (nothing is loaded), each
worker takes up its share and its generators, and the process's generators go where they were.

A loader with `state_dict` looks after itself. Anything else that can be iterated is read again up to
the position, from generators as they were.

Limits: a sampler that goes on drawing from the *process's* generators after its first batch, and a
data set whose workers keep state of their own in memory, cannot be continued exactly in mid-epoch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks import torch_random
from trainer_shim.frameworks.torch_dealing import Rest, can_deal, dealing, dealt_otherwise, samples_done
from trainer_shim.frameworks.torch_workers import PreparedWorker, Tagged, TaggingCollate
from trainer_shim.voice import say


def feed(
    loader: Any, endless: bool, tracked: bool, position: dict[str, Any] | None, settled: Callable[[], None]
) -> LoaderFeed:
    """The feed that knows this kind of loader."""
    kind: type[LoaderFeed] = LoaderFeed
    if not tracked:
        pass
    elif hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        kind = StatefulFeed
    elif isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
        kind = LoaderFeed if isinstance(loader.dataset, IterableDataset) else DataLoaderFeed
    return kind(loader, endless, position, settled)


class LoaderFeed:
    """Any iterable: resumed by reading it again."""

    kind = "replayed"

    def __init__(
        self, loader: Any, endless: bool, position: dict[str, Any] | None, settled: Callable[[], None]
    ) -> None:
        self.loader = loader
        self.endless = endless
        self.epoch = 0
        self.consumed = 0
        self.done = 0  # samples of this epoch that all ranks had finished when it was dealt out anew
        self.own = torch_random.OwnGenerators(loader)
        self.start: dict[str, Any] = {}
        self.first = _told_epoch(loader)  # the sampler's own number for our epoch 0: the script may have set it
        self._batches: Iterator[Any] | None = None
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
        }

    def form(self) -> dict[str, Any]:
        """What decides the batches, as far as it can be asked for."""
        names = ("batch_size", "num_workers", "drop_last")
        found = {name: getattr(self.loader, name) for name in names if hasattr(self.loader, name)}
        found |= dealing(self.loader)
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
            self._begin_anew()
            return
        self._tell_epoch()
        self.start = position["start"]
        self.set_randomness(self.start)
        self._batches = iter(self.loader)
        for _ in range(self.consumed):
            next(self._batches, None)

    def _begin_anew(self) -> None:
        self.consumed, self.done, self.start = 0, 0, {}
        say("this loader cannot take up an epoch that another number of ranks began: the epoch begins anew")

    def unwrapped(self, batch: Any) -> Any:
        """The user's own batch."""
        return batch

    def randomness(self) -> dict[str, Any]:
        """Every generator that can decide what the loader gives."""
        return {"process": torch_random.process_state(cuda=False), "own": self.own.state()}

    def set_randomness(self, state: dict[str, Any]) -> None:
        """Put those generators back."""
        torch_random.set_process_state(state["process"])
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
            self._begin_anew()
            return
        self._tell_epoch()
        self.start = position["start"]
        self.loader.load_state_dict(position["loader"])
        self._batches = iter(self.loader)


class DataLoaderFeed(LoaderFeed):
    """torch's DataLoader over a map-style data set."""

    kind = "dataloader"

    def __init__(
        self,
        loader: DataLoader[Any],
        endless: bool,
        position: dict[str, Any] | None,
        settled: Callable[[], None],
    ) -> None:
        self.birth: dict[str, Any] = {}  # generators when the workers were started
        self.born = 0  # epoch in which they were
        self.workers: dict[int, dict[str, Any]] = {}  # their generators after their newest batch
        super().__init__(loader, endless, position, settled)

    @property
    def lasting(self) -> bool:
        """Whether workers live on from epoch to epoch."""
        return bool(self.loader.num_workers and self.loader.persistent_workers)

    def position(self) -> dict[str, Any]:
        """Adds the workers' generators and those that they were seeded from."""
        return {**super().position(), "birth": self.birth, "born": self.born, "workers": dict(self.workers)}

    def unwrapped(self, batch: Any) -> Any:
        """Takes note of the worker's generators."""
        if isinstance(batch, Tagged):
            self.workers[batch.worker] = batch.state
            return batch.batch
        return batch

    def begin(self) -> Iterator[Any]:
        """Starts workers, unless they live on."""
        self._tell_epoch()
        self.start = self.randomness()
        if not self.lasting or not self.birth:
            self.birth, self.born, self.workers = self.start, self.epoch, {}
        with _borrowed(self.loader, {}, None):
            return iter(self.loader)

    def resume(self, position: dict[str, Any]) -> None:
        """Make the epoch's order again and skip in it."""
        self.start, self.birth, self.born = position["start"], position["birth"], position["born"]
        self.workers = dict(position["workers"])
        if not self.start:
            return
        if dealt_otherwise(position["form"], self.form()):
            if not can_deal(position["form"], self.loader):
                self._begin_anew()
                return
            self.done += samples_done(position["form"], self.consumed)
            self.consumed = 0
            self.start = self.birth = self.randomness()
            self.born, self.workers = self.epoch, {}
        self._tell_epoch()
        order = _Order(Rest(self.loader, self.done) if self.done else self.loader._index_sampler)
        self.set_randomness(self.birth)
        with _borrowed(self.loader, self.workers, order):
            batches = iter(self.loader)  # draws the workers' seed; finds no order yet
        if self.born != self.epoch:
            self.set_randomness(self.start)
        order.open(self.consumed)
        if self.loader.num_workers:
            _prime(batches, self.consumed)
        self._batches = batches


class _Order:
    """A loader's index sampler that seems empty until it is opened, and then begins further on."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.closed = True
        self.newest: _Indices | None = None

    def __iter__(self) -> _Indices:
        self.newest = _Indices(self)
        return self.newest

    def __len__(self) -> int:
        return len(self.sampler)

    def open(self, skipped: int) -> None:
        """Let the newest iterator go on after the first `skipped` batches of indices."""
        self.closed = False
        assert self.newest is not None
        for _ in range(skipped):
            next(self.newest, None)


class _Indices:
    def __init__(self, order: _Order) -> None:
        self.order = order
        self.under: Iterator[Any] | None = None

    def __iter__(self) -> _Indices:
        return self

    def __next__(self) -> Any:
        if self.order.closed:
            raise StopIteration
        if self.under is None:
            self.under = iter(self.order.sampler)
        return next(self.under)


@contextmanager
def _borrowed(loader: DataLoader[Any], states: dict[int, dict[str, Any]], order: _Order | None) -> Iterator[None]:
    # An iterator takes these from its loader when it is made, so they are ours only meanwhile.
    ours: dict[str, Any] = {}
    if loader.num_workers:
        ours["collate_fn"] = TaggingCollate(loader.collate_fn)
        ours["worker_init_fn"] = PreparedWorker(loader.worker_init_fn, states)
    if order is not None:
        ours["batch_sampler" if loader.batch_sampler is not None else "sampler"] = order
    theirs = {name: getattr(loader, name) for name in ours}
    for name, value in ours.items():
        object.__setattr__(loader, name, value)  # DataLoader itself forbids to change its samplers
    try:
        yield
    finally:
        for name, value in theirs.items():
            object.__setattr__(loader, name, value)


def _prime(batches: Any, consumed: int) -> None:
    # The worker that would have come next comes next, then as many batches are on their way as ever.
    for _ in range(consumed % batches._num_workers):
        next(batches._worker_queue_idx_cycle)
    for _ in range(batches._prefetch_factor * batches._num_workers):
        batches._try_put_index()
