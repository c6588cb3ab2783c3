"""From the choice of a checkpoint to a model that goes on from it: all of it, or nothing."""

from __future__ import annotations

from typing import Any

from spotrelay.core.checkpoint import CheckpointId, Commit
from spotrelay.core.errors import Damaged, InvalidInput
from spotrelay.core.live import Phase
from trainer_shim.checkpointer import versions
from trainer_shim.entry import Choice, Gate, choose
from trainer_shim.framework import Framework
from trainer_shim.herald import Herald
from trainer_shim.nearness import Source
from trainer_shim.restoring import Fits, Restored, fetch
from trainer_shim.team import Team
from trainer_shim.views import Wanted, everything
from trainer_shim.voice import say


def resume(
    gate: Gate, framework: Framework, herald: Herald, team: Team, wanted: Wanted = everything
) -> Restored | None:
    """Put the newest verified checkpoint into what the script attached; None to begin at step 0.

    One that turns out to be damaged is reported, and the one before it is tried. Where several ranks train
    together, rank 0 chooses, every rank fetches, and none goes on before all of them have it.

    Raises:
        NothingToResume: there is progress, and nothing to take it up from.
        InvalidInput: the checkpoint does not fit the script; names every misfit. Nothing was changed.
        UnknownFormat: a newer version of Spotrelay wrote it.
    """
    damaged: set[CheckpointId] = set()
    while (choice := team.led(Choice, lambda: choose(gate, frozenset(damaged)))) is not None:
        checkpoint, source = choice.checkpoint, Source(gate.ports, choice.replica)
        gate.pulse.set(at_once=True, phase=Phase.RESTORING)
        restored, met = None, None
        try:
            fits = _checked(framework, team) if framework.ready and team.size == 1 else None
            restored = fetch(
                checkpoint, source.ports, framework, gate.identity.cache, gate.call, fits, team.rank, wanted
            )
        except Damaged as error:
            met = error
        damage = team.damage(met)
        if damage is not None:
            say(f"checkpoint {checkpoint.id} is damaged, the one before it is tried: {damage}")
            damaged.add(checkpoint.id)
            herald.damaged(checkpoint.id, damage)
            continue
        assert restored is not None, "a rank that restored nothing has said why"
        if framework.ready:
            fit(restored, framework, team)
        _tell(restored, source.told, gate, herald, team)
        return restored
    return None


def fit(restored: Restored, framework: Framework, team: Team) -> None:
    """Put a checkpoint into what the script attached.

    Raises:
        InvalidInput: it does not fit; names every misfit. Nothing was changed.
    """
    commit = restored.checkpoint.commit
    _checked(framework, team)(restored.state, commit)
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


def _checked(framework: Framework, team: Team) -> Fits:
    def check(state: dict[str, Any], commit: Commit) -> None:
        misfits = team.all(framework.misfits(state))
        if misfits:
            more = f" and {len(misfits) - 10} more" if len(misfits) > 10 else ""
            raise InvalidInput(
                f"run {commit.run_id}: checkpoint {commit.id} does not fit this script, and nothing of it was "
                f"applied: {'; '.join(misfits[:10])}{more}. Mend the script, or submit it as a new run"
            )

    return check


def _tell(restored: Restored, via: str, gate: Gate, herald: Herald, team: Team) -> None:
    commit = restored.checkpoint.commit
    then = restored.manifest.world_size
    if then != team.size:
        say(
            f"checkpoint {commit.id} was saved by {then} ranks, {team.size} go on: complete and correct, and not in "
            "the same bits, since batches are dealt out anew"
        )
    gate.pulse.set(
        at_once=True, step=commit.step, resumed_from=commit.step, resumed_checkpoint=str(commit.id), resumed_via=via
    )
    herald.report("restored")
    say(
        f"run {commit.run_id}, attempt {gate.identity.generation}: goes on at step {commit.step}, "
        f"from checkpoint {commit.id}{f', read from {via}' if via else ''}"
    )
