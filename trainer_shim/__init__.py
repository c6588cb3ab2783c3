"""Three lines that make a training script outlive its machines.

::

    run = trainer_shim.attach(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    for step, batch in run.steps(loader, total=10_000):
        ...
        run.step(loss)

Importing this package starts nothing and imports neither a framework nor an AWS client.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036  # a machine's agent puts the shim before whatever Python the run names
    raise ImportError(
        f"trainer_shim needs Python 3.11 or newer, and {sys.executable} is {sys.version_info[0]}."
        f"{sys.version_info[1]}: name a newer one in the run's command"
    )

from trainer_shim.brought import complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer_shim.run import Run

__all__ = ["attach", "resume"]

complete()


def attach(
    *,
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    loader: Any = None,
    scaler: Any = None,
    extra: Any = None,
    state: Any = None,
    lazy: bool = False,
    staging_bytes: int | None = None,
    check: Callable[[int], bool | str | None] | None = None,
) -> Run:
    """Make this script's training state outlive the machine; resume it where a checkpoint exists.

    Inside Spotrelay this waits for the lease, restores the newest verified checkpoint and starts the
    heartbeat. Outside, the script trains as it would without, and says so once. Where several ranks train together,
    call it on each, after `init_process_group`, with the wrapped or sharded model.

    Args:
        model: a torch module or a Flax NNX module, or several as a list or dictionary; likewise optimizer
            and scheduler.
        state: for JAX, a tree of arrays that each step makes anew: parameters, optimizer state, keys. Read it from
            `run.state`, and hand the new one to `run.step(loss, state=state)`.
        scaler: a GradScaler.
        loader: what `run.steps` iterates over when it is given none.
        extra: your own state: a dictionary or list of numbers, texts and tensors, refilled in place on
            resume, or an object with `state_dict` and `load_state_dict`.
        lazy: copy parameters and moments beside the next forward and backward instead of before it. Needs that
            only the optimizer's `step` changes them; where something else does, it is noticed and switched off.
        staging_bytes: host memory for snapshots, at the most; a state above it is copied in turns, and the
            training waits while the bucket takes what does not fit. None: as much as the state has.
        check: your own judgement of the state, asked at a checkpoint with the steps finished: None or True when all
            is well, False or a text with the reason when it is suspect, a text beginning with "bad" when it must
            not be resumed from. It has ten seconds; an error in it makes the checkpoint suspect.

    Raises:
        SystemExit: this attempt was replaced (76), drained while it waited (75), or cannot resume (1).
        InvalidInput: something attached cannot be saved, or a checkpoint does not fit; names it.
    """
    from trainer_shim.attaching import attach as attach_here

    return attach_here(model, optimizer, scheduler, loader, scaler, extra, state, lazy, staging_bytes, check)


def resume(trainer: Any) -> str | bool:
    """What to hand to a Hugging Face Trainer, which then outlives its machine like any other run.

    ::

        trainer.train(resume_from_checkpoint=trainer_shim.resume(trainer))

    Inside Spotrelay this waits for the lease and fetches the newest verified checkpoint; the Trainer is followed
    by a callback, saved between its steps, and drained when its machine goes. Outside it is False.

    Raises:
        SystemExit: as `attach`.
        InvalidInput: the Trainer cannot be followed, or, in `train`, the checkpoint does not fit it.
    """
    from trainer_shim.attaching import resume as resume_here

    return resume_here(trainer)
