"""SIGKILL before and after every request of a checkpoint; the next attempt ends in the same bits."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.shim.cluster import Cluster, Nursery

PUTS = 5  # of one checkpoint of the small model: its shards, then its manifest
STAGES = [("put", PUTS + n) for n in range(1, PUTS + 1)] + [("commit", 2), ("publish", 3)]
FAULTS = [
    {"call": call, "number": number, "moment": moment} for call, number in STAGES for moment in ("before", "after")
]


@pytest.fixture(scope="module")
def expected(children: Nursery) -> dict[str, Any]:
    """What the uninterrupted program leaves behind."""
    ended = children.run({}, {"total": 12})
    assert ended.outcome is not None, ended.said
    return ended.outcome


def test_a_checkpoint_makes_as_many_requests_as_these_tests_think(cluster: Cluster) -> None:
    ended = cluster.attempt(1)

    assert ended.status == 0, ended.said
    manifests = [o.key for o in cluster.objects.list_versions(f"runs/{cluster.run_id}/manifests/")]
    shards = [o.key for o in cluster.objects.list_versions(f"runs/{cluster.run_id}/shards/")]
    assert len(shards) + len(manifests) == PUTS * len(cluster.checkpoints)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f['moment']} {f['call']} {f['number']}")
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
