"""A Trainer on several ranks: real processes under gloo against the emulated cloud, killed and resumed."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.core.live import EXIT_DRAINED
from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster, Ended
from tests.shim.trainer_training import SAMPLES

TOTAL = 16
SAVED = 7  # in the middle of an epoch that is not the first; then at 14
SCRIPT = "tests.shim.trainer_team"
EPOCH = -(-SAMPLES // (2 * 4))  # steps on two ranks

KINDS: dict[str, dict[str, Any]] = {
    "accumulating, with a worker": {"gradient_accumulation_steps": 2, "dataloader_num_workers": 1},
    "dispatched by rank 0": {"accelerator_config": {"dispatch_batches": True}},
    "in pieces of a batch, drawn by a generator": {
        "accelerator_config": {"split_batches": True, "use_seedable_sampler": False},
        "eval_strategy": "epoch",
    },
    "a stream": {"stream": True},
    "a stream that each rank reads": {"stream": True, "accelerator_config": {"dispatch_batches": False}},
}
SELDOM: dict[str, dict[str, Any]] = {
    "dispatched by rank 0 in pieces": {"accelerator_config": {"dispatch_batches": True, "split_batches": True}},
    "workers that live on": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
}
KILLED = {1: {"call": "put", "about": "shards/000001/000002/0001-", "moment": "before"}}


def uninterrupted(cluster: Cluster, ranks: int, **trainer: Any) -> list[Any]:
    found: list[Any] = cluster.uninterrupted(ranks, script=SCRIPT, trainer=trainer)["ranks"]
    return found


def train(cluster: Cluster, generation: int, ranks: int, faults: Any = None, trainer: Any = None, **more: Any) -> Ended:
    return cluster.together(generation, ranks, faults, script=SCRIPT, trainer=trainer or {}, **more)


def outcome(ended: Ended) -> list[Any]:
    assert ended.status == 0, ended.said
    assert ended.outcome is not None, ended.said
    found: list[Any] = ended.outcome["ranks"]
    return found


def tail(ranks: list[Any], after: int) -> list[Any]:
    """What the uninterrupted program would say of a run that was resumed after this step."""
    return [
        {**rank, "steps": {step: seen for step, seen in rank["steps"].items() if int(step) > after}} for rank in ranks
    ]


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    cluster.total = TOTAL
    cluster.change(Cadence(every_steps=SAVED))
    return cluster


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.long) for kind in SELDOM)])
def test_a_rank_killed_in_the_middle_of_a_save_costs_no_bit(cluster: Cluster, kind: str) -> None:
    wishes = {**KINDS, **SELDOM}[kind]
    expected = uninterrupted(cluster, 2, **wishes)

    killed = train(cluster, 1, 2, KILLED, wishes)
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)
    ended = outcome(train(cluster, 2, 2, trainer=wishes))

    assert "rank 1 ended with -9" in killed.said
    assert committed == [SAVED]
    assert ended == tail(expected, SAVED)


def test_three_ranks_add_up_gradients_in_the_order_that_they_had(cluster: Cluster) -> None:
    wishes = {"ddp_find_unused_parameters": False}  # only then does the wrapper change its order after the first step
    expected = uninterrupted(cluster, 3, **wishes)

    train(cluster, 1, 3, KILLED, wishes)
    cluster.hand_over(2)

    assert outcome(train(cluster, 2, 3, trainer=wishes)) == tail(expected, SAVED)


def test_a_signal_to_one_rank_drains_all_between_two_epochs_and_they_go_on_bit_for_bit(cluster: Cluster) -> None:
    cluster.change(Cadence(every_steps=1000))
    cluster.scale = 0.1  # a save has to fit between SIGTERM and the end, on a busy machine too
    expected = uninterrupted(cluster, 2)

    drained = train(cluster, 1, 2, terminate=[1, EPOCH - 1])
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)
    ended = outcome(train(cluster, 2, 2))

    assert drained.status == EXIT_DRAINED, drained.said
    assert committed == [EPOCH]  # one step after the signal: agreed without a stop
    assert ended == tail(expected, EPOCH)


def test_what_all_ranks_hold_alike_is_written_once(cluster: Cluster) -> None:
    outcome(train(cluster, 1, 2))

    saved = cluster.manifest()
    parameters = {at for name, each in saved.tree["arrays"].items() if "symbols" in name for at, *_ in each["at"]}
    assert saved.world_size == 2
    assert {saved.shards[number].rank for number in parameters} == {0, 1}
    assert [sorted(each["state"]) for each in saved.tree["ranks"][1:]] == [["data", "extra", "models", "random"]]
    assert not any("symbols" in name for name in saved.tree["ranks"][1]["arrays"])


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
def test_another_number_of_ranks_goes_on_and_each_knows_its_place(cluster: Cluster, before: int, after: int) -> None:
    train(cluster, 1, before, KILLED)
    cluster.hand_over(2)

    ended = train(cluster, 2, after)

    assert f"was saved by {before} ranks, {after} go on" in ended.said
    assert [sorted(map(int, rank["steps"])) for rank in outcome(ended)] == [list(range(SAVED + 1, TOTAL + 1))] * after
    assert [rank["first"] for rank in outcome(ended)] == [True, *[False] * (after - 1)]
