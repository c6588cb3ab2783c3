"""What the attempts of a run before this one have shown: what checkpoints cost, and how its machines went."""

from __future__ import annotations

from spotrelay.core.cadence import Costs, announced_share
from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.hazard import Life, learned, mean_life
from spotrelay.core.run import Attempt, Run
from trainer_shim.environment import Identity


def costs_of(run: Run, identity: Identity) -> Costs:
    """What to expect of this attempt's checkpoints and of its machine, until it has measured for itself."""
    scale = max(identity.time_scale, 1e-6)  # the run's own times are a demo's, the prior is not
    earlier = [a for a in run.attempts if a.generation < identity.generation]
    lives = [Life(served / scale, not a.crashed) for a in earlier if (served := _service_s(a)) is not None]
    in_time = {c.commit.generation for c in run.checkpoints if c.commit.reason is SaveReason.NOTICE}
    lost = [a for a in earlier if _service_s(a) is not None and not a.crashed]
    return Costs(
        *_newest_costs(run, notice=False),
        announced=announced_share(len(lost), len([a for a in lost if a.generation in in_time])),
        last_s=_newest_costs(run, notice=True)[1],
        hazard=learned(lives, mean_life(_instance_type(run, identity))),
    )


def _service_s(attempt: Attempt) -> float | None:
    """How long an attempt that has ended could train."""
    if attempt.running_at is None or attempt.ended_at is None:
        return None
    return (attempt.ended_at - attempt.running_at).total_seconds()


def _newest_costs(run: Run, notice: bool) -> tuple[float, float]:
    """Stall and time to durable of the newest checkpoint of its kind; 1 and 0 when there is none."""
    kind = [c.commit for c in run.checkpoints if (c.commit.reason is SaveReason.NOTICE) is notice]
    newest = max(kind, key=lambda commit: commit.id, default=None)
    return (1.0, 0.0) if newest is None else (newest.stall_s, newest.durable_s)


def _instance_type(run: Run, identity: Identity) -> str:
    attempt = run.attempt(identity.generation)
    if attempt is not None and attempt.pool is not None:
        return attempt.pool.instance_type
    return run.spec.instance_types[0]
