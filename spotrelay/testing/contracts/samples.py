"""Values that the suites are written with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from spotrelay.core.checkpoint import Commit, Health, SaveReason
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.placement import FailureScope, Pool, Refusal
from spotrelay.core.ports import LiveStore, RunStore
from spotrelay.core.run import Attempt, AttemptState, Intent, Run, RunStatus, Silence
from spotrelay.core.spec import Cadence, Limits, NoCheckpoint, Spec

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
POOL = Pool("us-east-1", "us-east-1a", "g5.xlarge")


@dataclass(frozen=True)
class Stores:
    """Both sides of one state."""

    runs: RunStore
    live: LiveStore


def new_id() -> str:
    """A run id that nobody has used."""
    return f"run-{secrets.token_hex(6)}"


def new_run(run_id: str | None = None, created_at: datetime = NOON) -> Run:
    """A run as `submit` makes it."""
    spec = Spec(command=("python", "train.py"), instance_types=("g5.xlarge",))
    return Run(run_id or new_id(), spec, created_at)


def rich_run(run_id: str) -> Run:
    """A run in which every field of the row says something."""
    return Run(
        run_id,
        Spec(
            command=("python", "train.py", "--name", 'it\'s "quoted"\n'),
            instance_types=("g5.xlarge", "g6.2xlarge"),
            zones=("us-east-1a",),
            on_demand=True,
            failover=False,
            on_no_checkpoint=NoCheckpoint.STOP,
            env={"A": "ä €\t"},
            secrets={"TOKEN": "ssm:/team/token"},
            setup=(("pip", "install", "."),),
            code_key="code/0.tar.gz",
            code_digest="0" * 64,
            limits=Limits(max_dollars=12.5),
            cadence=Cadence(ceiling_s=1800.0, every_s=30.0),
        ),
        NOON,
        status=RunStatus.HANDOVER,
        attempts=(
            Attempt(
                1,
                AttemptState.DRAINING,
                "i-00000000000000001",
                POOL,
                0.52,
                reserved_at=NOON,
                noticed_at=NOON + A_SECOND,
                deadline=NOON + timedelta(minutes=2, microseconds=1),
                noticed_by="eventbridge",
            ),
            Attempt(2),
        ),
        launches=2,
        intent=Intent(2, 2, {"Priority": 0.0, "Deep": [{"a": None}]}, (POOL,), NOON, sent=1),
        refusals=(Refusal(POOL, FailureScope.POOL, "InsufficientInstanceCapacity", "none left", NOON),),
        cancel_why="because",
        retry_at=NOON + A_SECOND,
        backoffs=3,
        failures=1,
        silence=Silence(1, 7, NOON, NOON + A_SECOND, 2),
        recheck_after=NOON,
        due_at=NOON + timedelta(minutes=1),
    )


def new_commit(run_id: str, generation: int, save: int, step: int = 100) -> Commit:
    """A checkpoint's commit."""
    return Commit(
        run_id,
        generation,
        save,
        step,
        f"runs/{run_id}/manifests/{generation:06d}/{save:06d}.json",
        "v1",
        "d" * 64,
        4096,
        Health.HEALTHY,
        SaveReason.CADENCE,
        0.25,
        1.5,
    )


def new_beat(run_id: str, generation: int, counter: int) -> Heartbeat:
    """A sign of life."""
    return Heartbeat(run_id, generation, counter, Phase.TRAINING, step=counter, total=100, loss=2.5)
