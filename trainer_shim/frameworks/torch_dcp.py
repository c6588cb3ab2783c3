"""A run's checkpoints for scripts that call torch.distributed.checkpoint themselves, saved on N ranks, read on M.

::

    attempt = torch_dcp.join()  # after init_process_group; None outside Spotrelay
    found = None if attempt is None else torch_dcp.load(make_state, attempt)
    if found is not None:
        take(found.state)
    for step in range(0 if found is None else found.step, total):
        ...
        if attempt is not None and (step + 1) % 100 == 0:
            dcp.save(make_state(), storage_writer=SpotrelayWriter(attempt, step + 1))

No pickle is written and none is read: tensors travel in safetensors files, the rest as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import LoadPlanner

from spotrelay.core.errors import Damaged
from trainer_shim.frameworks.torch_attempt import Attempt, join
from trainer_shim.frameworks.torch_dcp_read import SpotrelayReader
from trainer_shim.frameworks.torch_dcp_write import SpotrelayWriter

__all__ = ["Attempt", "Loaded", "SpotrelayReader", "SpotrelayWriter", "join", "load"]


@dataclass(frozen=True)
class Loaded:
    """What a run goes on from."""

    step: int  # steps finished
    state: dict[str, Any]  # filled; hand it to what it was made from


def load(
    make_state: Callable[[], dict[str, Any]], attempt: Attempt, planner: LoadPlanner | None = None
) -> Loaded | None:
    """A state from the newest checkpoint that is whole, on all ranks the same one; None at a run's beginning.

    One that turns out to be damaged is reported, and the one before it is tried, before any tensor was touched.

    Args:
        make_state: what to fill, as for `dcp.load`. Called only when there is a checkpoint, because torch's
            `get_state_dict` lets a new optimizer take an empty step, which its counters remember.

    Raises:
        SystemExit: there is progress and nothing to take it up from, or the attempt has to end.
        CheckpointException: the checkpoint does not fit the state; its text names what. Nothing was touched.
    """
    reader = SpotrelayReader(attempt)
    state: dict[str, Any] | None = None
    while reader.choose() is not None:
        state = make_state() if state is None else state
        try:
            state_dict_loader.load(state, storage_reader=reader, planner=planner)
        except CheckpointException as error:
            if any(isinstance(cause, Damaged) for cause, _ in error.failures.values()):
                continue
            raise
        assert reader.commit is not None
        attempt.restored(reader.commit, reader.source.told)
        return Loaded(reader.commit.step, state)
    return None
