"""SIGKILL before and after every request of a checkpoint; the next attempt ends in the same bits."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster, Nursery

SHARDS = 4  # of the small model, at the least
STAGES = [("put", f"shards/000001/000002/0000-{part:04d}") for part in range(SHARDS)] + [
    ("put", "manifests/000001/000002"),
    ("commit", "save=2,"),
    ("publish", "'save': 2"),
]
FAULTS = [{"call": call, "about": about, "moment": moment} for call, about in STAGES for moment in ("before", "after")]


@pytest.fixture(scope="module")
def expected(children: Nursery) -> dict[str, Any]:
    """What the uninterrupted program leaves behind."""
    ended = children.run({}, {"total": 12})
    assert ended.outcome is not None, ended.said
    return ended.outcome


def test_the_small_model_has_as_many_shards_as_these_tests_think(cluster: Cluster) -> None:
    ended = cluster.attempt(1)

    assert ended.status == 0, ended.said
    shards = list(cluster.objects.list_versions(f"runs/{cluster.run_id}/shards/000001/000002/"))
    assert len(shards) >= SHARDS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f['moment']} {f['call']} {f['about'][-6:]}")
def test_killed_at_any_request_of_the_second_checkpoint(
    cluster: Cluster, expected: dict[str, Any], fault: dict[str, Any]
) -> None:
    killed = cluster.attempt(1, fault, pace_s=0.02)
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)

    ended = cluster.attempt(2)

    assert killed.status == -signal.SIGKILL, killed.said
    assert ended.status == 0, ended.said
    assert ended.outcome is not None
    first = max(committed)
    assert ended.outcome["losses"] == {step: loss for step, loss in expected["losses"].items() if int(step) >= first}
    assert ended.outcome["digest"] == expected["digest"]
    assert ended.outcome["seen"] == expected["seen"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("about", ["seal", "put.*shards/000001"], ids=["hash", "put"])
def test_killed_while_the_upload_process_works_for_it(
    cluster: Cluster, expected: dict[str, Any], about: str, moment: str
) -> None:
    fault = {"call": "ask", "about": about, "moment": moment}
    killed = cluster.attempt(1, fault, uploader=True, pace_s=0.02)
    cluster.hand_over(2)

    ended = cluster.attempt(2, uploader=True)

    assert killed.status == -signal.SIGKILL, killed.said
    assert ended.status == 0, ended.said
    assert ended.outcome is not None
    assert ended.outcome["digest"] == expected["digest"]
    assert ended.outcome["seen"] == expected["seen"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments_again_and_again(cluster: Cluster, seed: int) -> None:
    source = random.Random(seed)
    cluster.total = 60
    cluster.change(Cadence(every_steps=3))
    expected = cluster.nursery.run({}, {"total": cluster.total, "workers": 2}).outcome
    generation = 1
    while True:
        ended = cluster.attempt(
            generation, workers=2, pace_s=0.01, killed_after_s=source.uniform(0.7, 2.0) if generation < 12 else 600.0
        )
        cluster.hand_over(generation + 1)
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL, ended.said
        generation += 1

    assert generation > 1
    assert ended.outcome is not None and expected is not None
    assert ended.outcome["digest"] == expected["digest"]
    assert ended.outcome["seen"] == expected["seen"]
