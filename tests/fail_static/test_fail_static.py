"""Promise 6 with everything real: a service fails for longer than the silence bound, and a healthy run trains on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spotrelay.core.run import RunStatus
from tests.fail_static.ground import TIMINGS, Ground, ground
from tests.fail_static.proxy import Mode
from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.xdist_group("fail-static")]

OUTAGE_S = 1.3 * TIMINGS.silence.total_seconds()
LONG_OUTAGE_S = 1.2 * TIMINGS.hopeless.total_seconds()

WORST = [
    ("dynamodb", Mode.SILENCE, LONG_OUTAGE_S),  # no heartbeat for so long that a clock alone would call it dead
    ("s3", Mode.SILENCE, OUTAGE_S),
    ("lambda", Mode.ERRORS, OUTAGE_S),
    ("sqs", Mode.LOST_REPLIES, OUTAGE_S),
    ("events", Mode.SILENCE, OUTAGE_S),
    ("sts", Mode.ERRORS, OUTAGE_S),
]
"""Each service once, as it hurts most here: a call that hangs holds up a thread, one that fails does not."""

EVERYTHING = [(service, mode, seconds) for (service, _, seconds), mode in itertools.product(WORST, Mode)]
SEEN_FROM_OUTSIDE = ("dynamodb", "s3", "lambda", "sqs", "events")  # asked for again and again while a run is healthy


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[Ground]:
    """A run that trains and has a verified checkpoint."""
    assembly_or_skip()
    with ground(tmp_path) as made:
        made.submit()
        made.verified_after((0, 0))
        yield made


@pytest.mark.timeout(420)
def test_promise_6_fail_static_each_service_fails_longer_than_the_silence_bound(healthy: Ground) -> None:
    for service, mode, seconds in WORST:
        a_healthy_run_outlives(healthy, service, mode, seconds)

    everything_converges(healthy)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_promise_6_fail_static_each_service_fails_in_each_way(healthy: Ground) -> None:
    for service, mode, seconds in EVERYTHING:
        a_healthy_run_outlives(healthy, service, mode, seconds)

    everything_converges(healthy)


def a_healthy_run_outlives(healthy: Ground, service: str, mode: Mode, seconds: float) -> None:
    cell = f"{service}, {mode.value}"
    before = healthy.steps()[-1]
    harmed = healthy.proxy.harmed[service]

    with healthy.outage(service, mode):
        if service in SEEN_FROM_OUTSIDE:
            healthy.until(lambda run: healthy.proxy.harmed[service] > harmed, f"{cell}: a request that fails")
        began = time.time()
        parts = []
        for _ in range(3):
            known = len(healthy.steps())
            time.sleep(seconds / 3)
            parts.append(len(healthy.steps()) - known)
        ended = time.time()
        known_then = healthy.newest_verified()

    assert min(parts) >= 3, f"{cell}: steps in each third of {ended - began:.0f} s: {parts}"
    healthy.verified_after(known_then)
    after = healthy.steps()[-1]
    assert after.pid == before.pid, f"{cell}: it is another process"
    assert after.number > before.number, cell
    assert len(healthy.asked_of_ec2("CreateFleet")) == 1, f"{cell}: it was launched again"
    assert healthy.asked_of_ec2("TerminateInstances") == [], f"{cell}: its machine was ended"


def everything_converges(healthy: Ground) -> None:
    numbers = [step.number for step in healthy.steps()]
    healthy.finish()

    healthy.until(lambda run: run.status is RunStatus.SUCCEEDED, "the end of the run")
    healthy.until(lambda run: not healthy.machines(), "no process on any machine")

    assert numbers == list(range(len(numbers))), "a step was left out or done twice"
    assert [i["State"]["Name"] for i in healthy.cloud.instances()] == ["terminated"]
