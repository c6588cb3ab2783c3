"""A run of several ranks that diverges on one of them: all go back to the same checkpoint, after the same step."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.core.checkpoint import Health, SaveReason
from spotrelay.core.spec import Cadence, HealthRules
from tests.shim.cluster import Cluster, Ended

TOTAL = 28
PROMOTED = 18  # at this step the checkpoint of step 4 has been seen to be good
ILL = [[1, step] for step in (19, 20, 21)]  # rank 1's loss, and nobody else's
DIVERGED = 22  # heard of by all after the step that follows


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    cluster.total = TOTAL
    cluster.change(Cadence(every_steps=4), HealthRules(rollback=True, bad_steps=3))
    return cluster


def train(cluster: Cluster, faults: Any = None, **more: Any) -> Ended:
    with cluster.verifying():
        return cluster.together(1, 2, faults, settle="always", **more)


def outcome(ended: Ended) -> list[Any]:
    assert ended.status == 0, ended.said
    assert ended.outcome is not None, ended.said
    found: list[Any] = ended.outcome["ranks"]
    return found


def test_a_loss_that_diverges_on_one_rank_takes_all_back_and_skips_the_same_data(cluster: Cluster) -> None:
    expected = cluster.uninterrupted(2)["ranks"]

    ended = outcome(train(cluster, bad=ILL, promoted=PROMOTED))

    [rollback] = cluster.manifest().rollbacks
    after = next(c.commit for c in cluster.checkpoints if c.commit.step == DIVERGED)
    assert (rollback.step, rollback.to_step) == (DIVERGED, 4)
    assert rollback.why == "the run has diverged: rank 1: bad for 3 steps: the loss of step 21 is nan"
    assert (after.reason, after.back_to, after.health) == (SaveReason.REQUESTED, rollback.checkpoint, Health.HEALTHY)
    for mine, whole in zip(ended, expected, strict=True):
        assert mine["seen"] == whole["seen"][:4] + whole["seen"][DIVERGED:]
        assert mine["losses"][:4] == whole["losses"][:4]
    assert ended[0]["weights"] == ended[1]["weights"] != expected[0]["weights"]


def test_steps_that_were_ill_on_one_rank_alone_promote_nothing(cluster: Cluster) -> None:
    cluster.change(Cadence(every_steps=4), HealthRules(rollback=True, bad_steps=100))
    outcome(train(cluster, bad=[[1, step] for step in (6, 10, 14, 18)], total=20))

    assert [c.commit.step for c in cluster.checkpoints if c.promoted] == []
    assert {c.commit.health for c in cluster.checkpoints} == {Health.HEALTHY}


def test_one_rank_that_cannot_read_the_checkpoint_keeps_all_where_they_are(cluster: Cluster) -> None:
    unreadable = {1: {"call": "stream", "about": "shards/", "moment": "refused"}}

    ended = train(cluster, unreadable, bad=ILL, promoted=PROMOTED)

    assert [len(rank["seen"]) for rank in outcome(ended)] == [TOTAL, TOTAL]
    assert "is damaged, the promoted one before it is tried: rank 1: " in ended.said
    assert "there is nothing to go back to; training goes on" in ended.said
    assert cluster.manifest().rollbacks == ()


def test_too_many_rollbacks_end_all_ranks_with_the_reason(cluster: Cluster) -> None:
    cluster.change(Cadence(every_steps=4), HealthRules(rollback=True, bad_steps=3, max_rollbacks=1))
    again = [[0, step] for step in (24, 25, 26)]

    ended = train(cluster, bad=[*ILL, *again], promoted=PROMOTED, torchrun=False)

    assert "the run has diverged again after 1 rollbacks" in ended.said
    assert "rank 0 ended with 1" in ended.said and "rank 1 ended with 1" in ended.said
