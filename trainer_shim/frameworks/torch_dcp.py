"""A run's checkpoints for scripts that call torch.distributed.checkpoint themselves, saved on N ranks, read on M.

::

    attempt = torch_dcp.join()  # after init_process_group; None outside Spotrelay
    first = 0 if attempt is None else torch_dcp.load(state, attempt) or 0
    for step in range(first, total):
        ...
        if attempt is not None and (step + 1) % 100 == 0:
            dcp.save(state, storage_writer=SpotrelayWriter(attempt, step + 1))

No pickle is written and none is read: tensors travel in safetensors files, the rest as JSON.
"""

from __future__ import annotations

from typing import Any

from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import LoadPlanner

from spotrelay.core.errors import Damaged
from trainer_shim.frameworks.torch_attempt import Attempt, join
from trainer_shim.frameworks.torch_dcp_read import SpotrelayReader
from trainer_shim.frameworks.torch_dcp_write import SpotrelayWriter

__all__ = ["Attempt", "SpotrelayReader", "SpotrelayWriter", "join", "load"]


def load(state: dict[str, Any], attempt: Attempt, planner: LoadPlanner | None = None) -> int | None:
    """Fill a state from the newest checkpoint that is whole, all ranks from the same one; returns its step.

    None when the run begins at step 0; the state is untouched then. A checkpoint that turns out to be damaged
    is reported, and the one before it is tried, before anything of the state was touched.

    Raises:
        SystemExit: there is progress and nothing to take it up from, or the attempt has to end.
        CheckpointException: the checkpoint does not fit the state; its text names what. Nothing was touched.
    """
    reader = SpotrelayReader(attempt)
    while reader.choose() is not None:
        try:
            state_dict_loader.load(state, storage_reader=reader, planner=planner)
        except CheckpointException as error:
            if any(isinstance(cause, Damaged) for cause, _ in error.failures.values()):
                continue
            raise
        assert reader.commit is not None
        attempt.restored(reader.commit)
        return reader.commit.step
    return None
