"""Data position of a Trainer, whose loader always fetches some batches before it gives them out.

Two observers: one below accelerate's loader sees each batch fetched, one above sees each batch given out. What
lies between them is not trained on yet, and is fetched again by a resumed run, from the same generators. Of
several ranks each follows its own; where rank 0 fetches for all (`dispatch_batches`), the others see none fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from accelerate.data_loader import DataLoaderDispatcher

from trainer_shim.frameworks import torch_data, torch_random


class FollowedLoader:
    """A Trainer's loader, which is told of every moment between two batches."""

    def __init__(self, loader: Any, boundary: Callable[[], None], data: dict[str, Any] | None, settle: Any) -> None:
        """Follow a loader.

        Args:
            boundary: called before a batch is asked for, when nothing of it was begun.
            data: where to continue, as `data` returned it; None for the beginning.
            settle: puts the process's generators where the checkpoint has them.
        """
        self.over = False  # no batch is given out any more
        self._boundary = boundary
        self._between = True  # before an epoch's first batch, or between two epochs
        self._ahead: deque[tuple[dict[str, Any], dict[str, Any]]] = deque()  # of batches fetched, not given out
        self._rewinds: deque[Callable[[], None]] = deque()  # one before each of the next fetches
        self._each = _fetched_for_each(loader)
        if data is not None and hasattr(loader, "set_epoch"):
            loader.set_epoch(data["position"]["epoch"])  # before its order is made again
        base = getattr(loader, "base_dataloader", None)
        source = loader if base is None else base
        self._feed = torch_data.feed(source, False, True, data["position"] if data else None, lambda: None)
        if data is not None:
            if self._feed.start:  # or its epoch begins anew
                self._rewinds.extend(_rewinding(state) for state in data["ahead"])
            self._rewinds.append(settle)
            self._between = data["between"]
        self._loader = loader
        if base is None:
            self._loader = _Fetched(loader, self._fetches)
        elif self._each:
            loader.base_dataloader = _Fetched(base, self._fetches)
        self._resumed = data is not None

    def data(self) -> dict[str, Any]:
        """Where in the data the next batch is, as training state."""
        if self._between or not self._ahead:
            return {"position": self._feed.position(), "ahead": [], "between": self._between}
        return {"position": self._ahead[0][0], "ahead": [state for _, state in self._ahead], "between": False}

    def set_epoch(self, epoch: int) -> None:
        """Tell the loader which epoch comes. The Trainer's own count begins anew where data has no length."""
        if hasattr(self._loader, "set_epoch"):
            in_epoch = self._resumed and not self._between
            over = bool(self._feed.consumed) and not in_epoch
            self._loader.set_epoch(self._feed.epoch + over)

    def __iter__(self) -> Iterator[Any]:
        self._begin_epoch()
        batches = iter(self._loader)
        while not self.over:
            self._boundary()
            if self._between:
                self._rewind()
            self._between = False
            batch = next(batches, _END)
            self._rewind()  # what is left of it where nothing is fetched
            if batch is _END:
                return
            for _ in range(min(self._each, len(self._ahead))):
                self._ahead.popleft()
            yield batch

    def _begin_epoch(self) -> None:
        resumed, self._resumed = self._resumed, False
        if resumed and not self._between:
            return
        self._between = True
        if not resumed:
            self._boundary()
        self._ahead.clear()
        if self._feed.consumed:
            self._feed.end_epoch()

    def _rewind(self) -> None:
        while self._rewinds:
            self._rewinds.popleft()()

    def _fetches(self) -> Iterator[Any]:
        while True:
            if self._rewinds:
                self._rewinds.popleft()()
            self._ahead.append((self._feed.position(), torch_random.process_state(cuda=False)))
            try:
                batch = self._feed.next()
            except StopIteration:
                self._ahead.pop()
                return
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)


class _Fetched:
    """A loader whose batches come from elsewhere."""

    def __init__(self, loader: Any, fetches: Callable[[], Iterator[Any]]) -> None:
        self._loader = loader
        self._fetches = fetches

    def __iter__(self) -> Iterator[Any]:
        return self._fetches()

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)


def _fetched_for_each(loader: Any) -> int:
    """How many batches this process fetches for one that it gives out."""
    if not isinstance(loader, DataLoaderDispatcher):
        return 1
    if loader.state.process_index:
        return 0
    return 1 if loader.split_batches else int(loader.state.num_processes)


def _rewinding(state: dict[str, Any]) -> Callable[[], None]:
    return lambda: torch_random.set_process_state(state)


_END = object()
