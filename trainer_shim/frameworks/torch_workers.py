"""What travels with each batch of a DataLoader that has workers: where its worker's generators were.

A resumed run starts new workers. Each gets the generators that its predecessor had after the last
batch that was trained on; batches that were only prefetched are drawn again, the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.utils.data
from torch.utils.data._utils.pin_memory import pin_memory

from trainer_shim.frameworks import torch_random


@dataclass
class Tagged:
    """A batch and the generators of the worker that made it, as they were afterwards."""

    batch: Any
    worker: int
    state: dict[str, Any]

    def pin_memory(self) -> Tagged:
        """The same with a batch in pinned memory; torch's pinning thread calls it."""
        return Tagged(pin_memory(self.batch), self.worker, self.state)  # type: ignore[no-untyped-call]


class TaggingCollate:
    """The user's collate function; in a worker its batches come out tagged."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        batch = self.collate(samples)
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            return batch
        return Tagged(batch, worker.id, torch_random.process_state(cuda=False))


class PreparedWorker:
    """The user's worker_init_fn, then the generators of the worker's predecessor, if it has one."""

    def __init__(self, init: Callable[[int], None] | None, states: dict[int, dict[str, Any]]) -> None:
        self.init = init
        self.states = states

    def __call__(self, worker: int) -> None:
        _outlive_shutdown()
        if self.init is not None:
            self.init(worker)
        if worker in self.states:
            torch_random.set_process_state(self.states[worker])


def _outlive_shutdown() -> None:
    # A machine that shuts down sends SIGTERM to every process. The trainer still needs its workers
    # for the step it is in, so they obey only their parent, which ends them that way.
    trainer = multiprocessing.parent_process()
    parent = os.getppid() if trainer is None or trainer.pid is None else trainer.pid
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey, args=(parent,), name="spotrelay-sigterm", daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid not in (parent, os.getpid()):
        continue
    os._exit(0)
