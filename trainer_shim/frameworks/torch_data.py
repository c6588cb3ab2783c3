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

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from trainer_shim.frameworks import feeding, torch_random
from trainer_shim.frameworks.feeding import LoaderFeed, StatefulFeed, saves_itself
from trainer_shim.frameworks.torch_dealing import Rest, can_deal, dealing, samples_done
from trainer_shim.frameworks.torch_workers import PreparedWorker, Tagged, TaggingCollate


def feed(
    loader: Any, endless: bool, tracked: bool, position: dict[str, Any] | None, settled: Callable[[], None]
) -> LoaderFeed:
    """The feed that knows this kind of loader."""
    kind: type[LoaderFeed] = TorchLoaderFeed
    if not tracked:
        pass
    elif saves_itself(loader):
        kind = TorchdataFeed if _of_torchdata(loader) else TorchStatefulFeed
    elif isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
        kind = TorchLoaderFeed if isinstance(loader.dataset, IterableDataset) else DataLoaderFeed
    return kind(loader, endless, position, settled)


class _TorchGenerators:
    """A feed's generators, with torch's among them, and how samples are dealt out to ranks."""

    dealing = staticmethod(dealing)
    generators = torch_random.OwnGenerators
    process_state = staticmethod(torch_random.process_state_of_cpu)
    set_process_state = staticmethod(torch_random.set_process_state)


class TorchLoaderFeed(_TorchGenerators, LoaderFeed):
    """Any iterable: resumed by reading it again."""


class TorchStatefulFeed(_TorchGenerators, StatefulFeed):
    """A loader that saves its own position."""


class TorchdataFeed(TorchStatefulFeed):
    """torchdata's StatefulDataLoader, which leaves out the generators of its workers."""

    def __init__(
        self, loader: Any, endless: bool, position: dict[str, Any] | None, settled: Callable[[], None]
    ) -> None:
        self.workers: dict[int, dict[str, Any]] = {}  # their generators after their newest batch
        # Workers that read again up to the position, because their data set has no state, draw all of it again.
        again = isinstance(loader.dataset, IterableDataset) and not saves_itself(loader.dataset)
        self.told = not again and loader.snapshot_every_n_steps == 1
        super().__init__(loader, endless, position, settled)

    def position(self) -> dict[str, Any]:
        """Adds the workers' generators."""
        return {**super().position(), "workers": dict(self.workers)}

    def unwrapped(self, batch: Any) -> Any:
        """Takes note of the worker's generators."""
        if isinstance(batch, Tagged):
            self.workers[batch.worker] = batch.state
            return batch.batch
        return batch

    def begin(self) -> Iterator[Any]:
        """Starts workers, unless they live on."""
        if not self.loader.persistent_workers:
            self.workers = {}
        with _borrowed(self.loader, {}, None):
            return super().begin()

    def resume(self, position: dict[str, Any]) -> None:
        """Hand the loader its own state, and its workers theirs."""
        over = position["loader"].get("_iterator_finished") and not self.loader.persistent_workers
        self.workers = {} if over else dict(position["workers"])
        with _borrowed(self.loader, self.workers if self.told else {}, None):
            super().resume(position)


def _of_torchdata(loader: Any) -> bool:
    torchdata = sys.modules.get("torchdata.stateful_dataloader")
    return torchdata is not None and isinstance(loader, torchdata.StatefulDataLoader)


class DataLoaderFeed(TorchLoaderFeed):
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
        if feeding.dealt_otherwise(position["form"], self.form()):
            if not can_deal(position["form"], self.loader):
                self.begin_anew()
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
