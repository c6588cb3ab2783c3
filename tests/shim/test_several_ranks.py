"""Several ranks train one model: real processes under gloo against the emulated cloud."""

from __future__ import annotations

import fcntl
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from spotrelay.core.checkpoint import Health
from spotrelay.core.live import EXIT_DRAINED
from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster, Ended, Nursery
from tests.shim.imds import Imds, serving
from tests.shim.team_script import SAMPLES

TOTAL = 12
KILLED = 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def expected(children: Nursery) -> dict[int, Any]:
    """What the uninterrupted program leaves behind, by its number of ranks."""
    found = {}
    for ranks in (2, 4):
        ended = children.run({}, {"total": TOTAL}, None, ranks)
        assert ended.outcome is not None, ended.said
        found[ranks] = ended.outcome["ranks"]
    return found


@pytest.fixture
def imds() -> Iterator[Imds]:
    with serving() as served:
        yield served


def outcome(ended: Ended) -> Any:
    assert ended.status == 0, ended.said
    assert ended.outcome is not None, ended.said
    return ended.outcome


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_signal_to_one_rank_drains_all_after_the_same_step_and_they_go_on_bit_for_bit(
    cluster: Cluster, expected: dict[int, Any], ranks: int
) -> None:
    cluster.scale = 0.1  # a save has to fit between SIGTERM and the end, on a busy machine too
    drained = cluster.together(1, ranks, terminate=[1, 6], settle=5)
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)

    ended = outcome(cluster.together(2, ranks))

    assert drained.status == EXIT_DRAINED, drained.said
    assert f"rank {ranks - 1} ended with {EXIT_DRAINED}" in drained.said
    assert committed == [7, 4], drained.said  # one step after the signal: agreed without a stop
    assert ended["resumed_from"] == 7
    assert ended["ranks"] == expected[ranks]


def test_a_notice_that_one_rank_sees_drains_all(cluster: Cluster, imds: Imds, expected: dict[int, Any]) -> None:
    cluster.metadata = imds.endpoint
    cluster.change(Cadence(every_steps=1000))
    imds.announce(left=timedelta(seconds=20))

    drained = cluster.together(1, 2, total=100_000)
    cluster.metadata = ""
    cluster.hand_over(2)
    ended = outcome(cluster.together(2, 2, total=max(TOTAL, drained.steps)))

    assert drained.status == EXIT_DRAINED, drained.said
    assert "rank 0: EC2 is going to terminate this machine" in drained.said
    assert (cluster.live.read_run(cluster.run_id).lease.holder) is not None  # the second attempt's
    if drained.steps <= TOTAL:
        assert ended["ranks"] == expected[2]


def test_what_all_ranks_hold_alike_is_written_once_and_by_all_of_them(cluster: Cluster) -> None:
    together = cluster.together(1, 4)
    alone = Cluster(cluster.cloud, cluster.nursery)
    alone.submit()
    alone.together(1, 1)

    saved, single = cluster.manifest(), alone.manifest()
    there = list(cluster.objects.list_versions(f"runs/{cluster.run_id}/shards/000001/000001/"))

    assert together.status == 0, together.said
    table = saved.tree["arrays"]
    numbers = {at for name in table if name.startswith("models") or "/state/" in name for at, *_ in table[name]["at"]}
    common = [sum(saved.shards[n].size for n in numbers if saved.shards[n].rank == rank) for rank in range(4)]
    keys = Counter(version.key for version in there)
    own = sum(shard.size for shard in saved.shards if shard.rank == 1) - common[1]
    assert set(keys.values()) == {1}
    assert min(common) > 0 and max(common) < 0.5 * sum(common)
    assert sum(common) + own * 4 < 1.25 * (sum(shard.size for shard in single.shards) + own * 3)
    assert all(len(each["at"]) >= 1 for each in saved.tree["arrays"].values())
    assert [sorted(each.get("state", {})) for each in saved.tree["ranks"][1:]] == [
        ["data", "extra", "models", "random"]
    ] * 3


@pytest.mark.parametrize("long", [6, 7], ids=["before all have heard", "when all but one have come to drain"])
def test_in_a_step_that_will_not_end_in_time_rank_0_gives_the_lease_back_and_all_leave_after_it(
    cluster: Cluster, expected: dict[int, Any], long: int
) -> None:
    drained = cluster.together(1, 2, terminate=[0, 6], long=[1, long], settle=5)
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)
    ended = outcome(cluster.together(2, 2))

    assert "the step that is being made will not end in time" in drained.said
    assert drained.status == EXIT_DRAINED, drained.said
    assert f"rank 0 ended with {EXIT_DRAINED}" in drained.said and f"rank 1 ended with {EXIT_DRAINED}" in drained.said
    assert committed == [4]
    assert ended["resumed_from"] == 4
    assert ended["ranks"] == expected[2]


FAULTS: dict[str, dict[int, dict[str, Any]]] = {
    "rank 1 before a shard": {1: {"call": "put", "about": "shards/000001/000002/0001-", "moment": "before"}},
    "rank 1 after a shard": {1: {"call": "put", "about": "shards/000001/000002/0001-", "moment": "after"}},
    "rank 0 before the manifest": {0: {"call": "put", "about": "manifests/000001/000002", "moment": "before"}},
    "rank 0 before the commit": {0: {"call": "commit", "about": "save=2,", "moment": "before"}},
    "rank 0 after the commit": {0: {"call": "commit", "about": "save=2,", "moment": "after"}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rank_killed_in_the_middle_of_a_save_leaves_nothing_of_it(
    cluster: Cluster, expected: dict[int, Any], fault: str
) -> None:
    killed = cluster.together(1, 2, FAULTS[fault])
    committed = [c.commit.step for c in cluster.checkpoints]
    cluster.hand_over(2)

    ended = outcome(cluster.together(2, 2))

    assert killed.status != 0
    assert "ended with -9" in killed.said
    assert len(committed) == (2 if fault == "rank 0 after the commit" else 1)
    assert committed[-1] == 4
    assert ended["resumed_from"] == committed[0]
    # After the very last step nothing is trained any more, so ranks keep rank 0's buffers as they were saved.
    alike = 1 if committed[0] == cluster.total else 2
    assert ended["ranks"][:alike] == expected[2][:alike]


def test_ranks_started_again_within_their_attempt_go_on_from_the_checkpoint_before(
    cluster: Cluster, expected: dict[int, Any]
) -> None:
    cluster.together(1, 2, FAULTS["rank 0 before the commit"])
    cluster.hand_over(1)

    ended = outcome(cluster.together(1, 2))

    assert ended["resumed_from"] == 4
    assert ended["ranks"] == expected[2]
    assert [c.id.save for c in cluster.checkpoints] == [4, 3, 1]  # number 2 stays with the save that was lost


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 3)])
def test_a_run_goes_on_with_another_number_of_ranks_and_sees_every_sample_of_the_epoch(
    cluster: Cluster, before: int, after: int
) -> None:
    cluster.together(1, before, terminate=[1, 2])
    cluster.hand_over(2)
    first = cluster.manifest()

    ended = cluster.together(2, after, terminate=[0, 7])
    cluster.hand_over(3)
    finished = outcome(cluster.together(3, after, total=20))

    assert first.step == 3
    assert f"was saved by {before} ranks, {after} go on" in ended.said
    steps = [[rank["seen"][step] for rank in finished["ranks"] if step < len(rank["seen"])] for step in range(20)]
    seen = Counter(index for step in steps[3:] for batch in step for index in batch)
    consumed = 3 * 3 * before
    epoch = -(-(SAMPLES - consumed) // (3 * after))  # steps that the new ranks need for what is left
    rest = Counter(index for step in steps[3 : 3 + epoch] for batch in step for index in batch)
    old = Counter(index for rank in earlier(cluster, before) for batch in rank[:3] for index in batch)
    assert set(old) | set(rest) == set(range(SAMPLES))
    assert sum(rest.values()) - len(rest) < after  # what fills up the last batches
    assert not set(old) & set(rest) or sum(old.values()) > SAMPLES
    assert sum(seen.values()) > 0


def earlier(cluster: Cluster, ranks: int) -> list[list[list[int]]]:
    """The samples that the uninterrupted program of so many ranks sees, by rank and step."""
    return [rank["seen"] for rank in cluster.uninterrupted(ranks)["ranks"]]


def test_a_rank_that_has_drifted_away_is_told_of_and_nothing_is_saved(cluster: Cluster) -> None:
    ended = cluster.together(1, 2, drift=[1, 2], total=6, settle=6, give_up=True)

    assert "rank 1 differs from rank 0's" in ended.said
    assert cluster.checkpoints == ()


def test_bad_on_one_rank_is_bad_on_all(cluster: Cluster) -> None:
    ended = cluster.together(1, 2, bad=[[1, 4]], total=4)

    assert ended.status == 0, ended.said
    newest = cluster.checkpoints[0].commit
    assert (newest.step, newest.health) == (4, Health.BAD)
    assert cluster.manifest().why.startswith("rank 1: the loss of step 4 is nan")


def test_a_rank_whose_script_fails_leaves_no_other_hanging(cluster: Cluster) -> None:
    ended = cluster.together(1, 4, settle=5, stop=[2, 5], torchrun=False)

    assert "rank 2 ended with 70" in ended.said
    assert all(f"rank {rank} ended with 0" not in ended.said for rank in range(4))
    assert [c.commit.step for c in cluster.checkpoints] == [4]


def test_a_checkpoint_that_does_not_fit_one_rank_is_applied_on_none(cluster: Cluster) -> None:
    cluster.together(1, 2, total=4)
    cluster.hand_over(2)

    ended = cluster.together(2, 2, misfit=1, torchrun=False)

    assert ended.said.count("rank 1: extra is a list here") == 2
    assert "goes on at step" not in ended.said


def test_damage_that_one_rank_meets_takes_all_to_the_checkpoint_before(
    cluster: Cluster, expected: dict[int, Any]
) -> None:
    cluster.together(1, 2, total=8)
    cluster.hand_over(2)
    broken = [shard.key for shard in cluster.manifest().shards if shard.rank == 1][-1]  # rank 1's alone
    fault = {"call": "stream", "about": broken, "moment": "refused"}

    ended = outcome(cluster.together(2, 2, {1: fault}))

    assert ended["resumed_from"] == 4
    assert ended["ranks"] == expected[2]


def test_a_second_process_of_the_same_attempt_is_refused(cluster: Cluster) -> None:
    cluster.state(1).mkdir(parents=True)
    with (cluster.state(1) / "attached").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        ended = cluster.together(1, 2, torchrun=False)

    assert "another process on this machine has attached to this run" in ended.said
    assert "rank 0 ended with 70" in ended.said and "rank 1 ended with 1" in ended.said
    assert cluster.checkpoints == ()


def test_ranks_that_do_not_know_each_other_are_refused(cluster: Cluster) -> None:
    ended = cluster.together(1, 2, strangers=True, torchrun=False)

    assert ended.said.count("call torch.distributed.init_process_group() before attach()") == 2
