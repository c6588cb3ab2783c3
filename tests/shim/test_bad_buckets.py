"""Buckets that refuse: training goes on, the heartbeat says what is wrong, and nothing is lost once they let us in."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.core.errors import InvalidInput, Missing, SpotrelayError, Unavailable
from spotrelay.core.ports import Body, StoredObject
from spotrelay.core.spec import Cadence
from spotrelay.testing import MemoryObjects
from tests.shim.training import STEPS, build, train
from tests.shim.world import RUN, World, eventually
from trainer_shim import wiring

REFUSALS = [
    Unavailable("writing bucket/x: not let in (AccessDenied); check the credentials and their rights"),
    InvalidInput("writing bucket/x: the bucket is in another region (PermanentRedirect)"),
    InvalidInput("writing bucket/x: its quota is used up (QuotaExceeded)"),
    Missing("writing bucket/x: bucket bucket is not there; run `spotrelay doctor`"),
]


class Refusing(MemoryObjects):
    """Refuses every put until it is opened."""

    def __init__(self, refusal: SpotrelayError) -> None:
        super().__init__()
        self.refusal = refusal
        self.closed = True
        self.asked = 0

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        self.asked += 1
        if self.closed:
            raise self.refusal
        return super().put(key, body, checksum)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: str(error).rpartition("(")[2][:12])
def test_training_goes_on_beside_a_bucket_that_refuses_and_its_end_is_committed_once_it_is_open(
    world: World, refusal: SpotrelayError
) -> None:
    world.submit(Cadence(every_steps=3))
    world.objects = bucket = Refusing(refusal)
    world.ports = wiring.Ports(world.store, bucket, world.publisher)
    expected = train(lambda **given: _alone(world, **given), build())

    def after(run: Any, steps: int) -> None:
        flight = run._session._saver.flight
        if flight is not None and steps < STEPS - 1:
            eventually(lambda: bucket.asked > 0 and (flight.trouble or flight.over.is_set()), "the refusal is met")
        if steps == STEPS - 1:
            assert world.checkpoints == ()
            bucket.closed = False

    outcome = train(lambda **given: world.attach(1, **given), build(), after=after)

    assert outcome.digest == expected.digest
    assert world.steps_committed()[-1] == STEPS


def _alone(world: World, **given: Any) -> Any:
    import trainer_shim

    world.monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    return trainer_shim.attach(**given)


def test_the_heartbeat_tells_why_nothing_is_committed(world: World) -> None:
    world.submit(Cadence(every_steps=3))
    world.objects = bucket = Refusing(REFUSALS[0])
    world.ports = wiring.Ports(world.store, bucket, world.publisher)
    parts = build()
    run = world.attach(1, **parts.attached(), extra={})
    for step, _ in run.steps(total=6):
        run.step(1.0)
        if step == 4:

            def told() -> bool:
                beat = world.store.load(RUN).heartbeat(1)
                return beat is not None and "AccessDenied" in beat.trouble

            eventually(told, "the heartbeat says so")
            bucket.closed = False
    run.close()

    assert world.steps_committed()[-1] == 6
