"""From the choice of a checkpoint to a model that goes on from it: all of it, or nothing."""

from __future__ import annotations

from typing import Any

from spotrelay.core.checkpoint import CheckpointId, Commit
from spotrelay.core.errors import Damaged, InvalidInput
from spotrelay.core.live import Phase
from trainer_shim.checkpointer import versions
from trainer_shim.entry import Gate, choose
from trainer_shim.framework import Framework
from trainer_shim.herald import Herald
from trainer_shim.restoring import Fits, Restored, fetch
from trainer_shim.voice import say


def resume(gate: Gate, framework: Framework, herald: Herald) -> Restored | None:
    """Put the newest verified checkpoint into what the script attached; None to begin at step 0.

    One that turns out to be damaged is reported, and the one before it is tried.

    Raises:
        NothingToResume: there is progress, and nothing to take it up from.
        InvalidInput: the checkpoint does not fit the script; names every misfit. Nothing was changed.
        UnknownFormat: a newer version of Spotrelay wrote it.
    """
    damaged: set[CheckpointId] = set()
    while (checkpoint := choose(gate, frozenset(damaged))) is not None:
        gate.pulse.set(at_once=True, phase=Phase.RESTORING)
        try:
            fits = _checked(framework) if framework.ready else None
            restored = fetch(checkpoint, gate.ports, framework, gate.identity.cache, gate.call, fits)
        except Damaged as error:
            say(f"checkpoint {checkpoint.id} is damaged, the one before it is tried: {error}")
            damaged.add(checkpoint.id)
            where = {"key": error.key, "version": error.version} if error.key else {}
            about = {"generation": checkpoint.id.generation, "save": checkpoint.id.save, "problem": str(error)}
            herald.send("Checkpoint Damaged", {**about, **where})
            continue
        if framework.ready:
            fit(restored, framework)
        _tell(restored, gate, herald)
        return restored
    return None


def fit(restored: Restored, framework: Framework) -> None:
    """Put a checkpoint into what the script attached.

    Raises:
        InvalidInput: it does not fit; names every misfit. Nothing was changed.
    """
    commit = restored.checkpoint.commit
    _checked(framework)(restored.state, commit)
    framework.apply(restored.state)
    then, now = restored.manifest, versions(framework)
    if then.threads != framework.threads:
        say(
            f"checkpoint {commit.id} was computed with {then.threads} threads, this machine uses "
            f"{framework.threads}: results may differ in their last bits (torch.set_num_threads pins it)"
        )
    changed = [f"{name} {was} (here {now.get(name)})" for name, was in then.versions.items() if now.get(name) != was]
    if changed:
        say(f"checkpoint {commit.id} was computed with {', '.join(changed)}: results may differ in their last bits")


def _checked(framework: Framework) -> Fits:
    def check(state: dict[str, Any], commit: Commit) -> None:
        misfits = framework.misfits(state)
        if misfits:
            more = f" and {len(misfits) - 10} more" if len(misfits) > 10 else ""
            raise InvalidInput(
                f"run {commit.run_id}: checkpoint {commit.id} does not fit this script, and nothing of it was "
                f"applied: {'; '.join(misfits[:10])}{more}. Mend the script, or submit it as a new run"
            )

    return check


def _tell(restored: Restored, gate: Gate, herald: Herald) -> None:
    commit = restored.checkpoint.commit
    gate.pulse.set(at_once=True, step=commit.step, resumed_from=commit.step, resumed_checkpoint=str(commit.id))
    herald.report("restored")
    say(
        f"run {commit.run_id}, attempt {gate.identity.generation}: goes on at step {commit.step}, "
        f"from checkpoint {commit.id}"
    )
