"""A run under FSDP2 through torch.distributed.checkpoint: saved on N ranks, resumed on M, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from spotrelay.core.checkpoint import Manifest, decode_manifest
from spotrelay.core.live import EXIT_DRAINED
from tests.instance.cloud import Cloud
from tests.shim.cluster import Cluster
from tests.shim.crew import Crew, Ended

KILLED = -9


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Starts ranks."""
    made = Crew(tmp_path_factory.mktemp("crew"))
    yield made
    made.close()


@pytest.fixture
def cluster(emulator: Cloud) -> Cluster:
    """A run of its own in the emulated cloud, submitted."""
    made = Cluster(emulator, None)  # type: ignore[arg-type]  # no single processes here
    made.submit()
    return made


def all_well(ended: list[Ended]) -> list[dict[str, Any]]:
    """What every rank returned; fails the test where one did not."""
    for each in ended:
        assert each.status == 0, each.said
    return [each.outcome for each in ended]


def manifest_of(cluster: Cluster) -> Manifest:
    """Of the newest checkpoint."""
    commit = cluster.checkpoints[0].commit
    return decode_manifest(cluster.objects.get(commit.manifest_key, commit.manifest_version))


def test_the_same_number_of_ranks_goes_on_bit_for_bit(cluster: Cluster, crew: Crew) -> None:
    whole = all_well(crew.run(2, "train", {}, {"total": 6}))
    all_well(crew.run(2, "train", cluster.environment(1), {"total": 4, "saves": [3], "release": False}))
    cluster.hand_over(2)

    resumed = all_well(crew.run(2, "train", cluster.environment(2), {"total": 6}))

    assert [each["first"] for each in resumed] == [3, 3]
    assert [each["digest"] for each in resumed] == [each["digest"] for each in whole]


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_another_number_of_ranks_has_the_very_state_that_was_saved(
    before: int, after: int, cluster: Cluster, crew: Crew
) -> None:
    saved = all_well(crew.run(before, "train", cluster.environment(1), {"total": 3, "saves": [3]}))
    cluster.hand_over(2)

    resumed = all_well(crew.run(after, "train", cluster.environment(2), {"total": 5}))

    assert {each["states"]["3"] for each in resumed} == {saved[0]["states"]["3"]}
    assert all(each["first"] == 3 and set(each["losses"]) == {"3", "4"} for each in resumed)
    assert manifest_of(cluster).world_size == before


def test_what_every_rank_has_is_written_once(cluster: Cluster, crew: Crew) -> None:
    all_well(crew.run(4, "train", cluster.environment(1), {"total": 1, "saves": [1]}))

    manifest = manifest_of(cluster)
    arrays = manifest.tree["arrays"]
    assert len(arrays["model.calls"]["chunks"]) == 1
    assert len(arrays["optimizer.state.head.weight.step"]["chunks"]) == 1
    assert len(arrays["model.head.weight"]["chunks"]) == 4
    assert {shard.rank for shard in manifest.shards} == {0, 1, 2, 3}
    claimed = [tuple(at[:2]) for each in arrays.values() for chunk in each["chunks"] for at in chunk["at"]]
    assert len(claimed) == len(set(claimed))


@pytest.mark.parametrize(
    "fault",
    [
        {"rank": 1, "call": "put", "about": "shards/000001/000002/0001-0001", "moment": "after"},
        {"rank": 0, "call": "put", "about": "manifests/000001/000002", "moment": "after"},
        {"rank": 0, "call": "commit", "about": "save=2", "moment": "before"},
    ],
    ids=["a rank among its shards", "rank 0 behind the manifest", "rank 0 before the commit"],
)
def test_a_rank_killed_in_mid_save_leaves_the_checkpoint_before_it(
    fault: dict[str, Any], cluster: Cluster, crew: Crew
) -> None:
    ended = crew.run(2, "train", cluster.environment(1), {"total": 5, "saves": [2, 4]}, fault)
    assert ended[fault["rank"]].status == KILLED
    assert all(each.status != 0 for each in ended)
    cluster.hand_over(2)

    resumed = all_well(crew.run(2, "train", cluster.environment(2), {"total": 3}))

    assert [each.id.save for each in cluster.checkpoints] == [1]
    assert [each["first"] for each in resumed] == [2, 2]


def test_a_number_taken_by_a_process_that_died_is_not_used_again(cluster: Cluster, crew: Crew) -> None:
    fault = {"rank": 0, "call": "commit", "about": "save=1", "moment": "before"}
    crew.run(2, "train", cluster.environment(1), {"total": 1, "saves": [1]}, fault)

    all_well(crew.run(2, "train", cluster.environment(1), {"total": 2, "saves": [2]}))

    assert [(each.id.save, each.commit.step) for each in cluster.checkpoints] == [(2, 2)]


def test_a_flipped_bit_that_one_rank_meets_takes_all_of_them_to_the_checkpoint_before(
    cluster: Cluster, crew: Crew
) -> None:
    saved = all_well(crew.run(2, "train", cluster.environment(1), {"total": 4, "saves": [2, 4]}))
    cluster.hand_over(2)
    flip = {"rank": 1, "about": "shards/000001/000002/0001-", "moment": "flip"}

    ended = crew.run(2, "train", cluster.environment(2), {"total": 4}, flip)

    resumed = all_well(ended)
    assert [each["first"] for each in resumed] == [2, 2]
    assert {each["states"]["2"] for each in resumed} == {saved[0]["states"]["2"]}
    assert "checkpoint 1.2 is damaged" in ended[0].said


def test_a_manifest_that_one_rank_finds_damaged_takes_all_of_them_to_the_checkpoint_before(
    cluster: Cluster, crew: Crew
) -> None:
    all_well(crew.run(2, "train", cluster.environment(1), {"total": 4, "saves": [2, 4]}))
    cluster.hand_over(2)
    flip = {"rank": 1, "about": "manifests/000001/000002", "moment": "flip"}

    resumed = all_well(crew.run(2, "train", cluster.environment(2), {"total": 4}, flip))

    assert [each["first"] for each in resumed] == [2, 2]


def test_what_json_cannot_hold_is_refused_by_name_and_nothing_is_committed(cluster: Cluster, crew: Crew) -> None:
    ended = all_well(crew.run(2, "save_what_json_cannot_hold", cluster.environment(1)))

    assert all("helper.of.mine is a builtins.object" in each["said"] for each in ended)
    assert cluster.checkpoints == ()


def test_a_misfit_on_one_rank_leaves_all_of_them_untouched(cluster: Cluster, crew: Crew) -> None:
    all_well(crew.run(2, "train", cluster.environment(1), {"total": 2, "saves": [2]}))
    cluster.hand_over(2)

    ended = all_well(crew.run(2, "load_untouched", cluster.environment(2), {"misfit_on": 1}))

    assert all(each["untouched"] and "model.calls is torch.int64" in each["said"] for each in ended)


def test_a_machine_that_goes_under_one_rank_ends_all_of_them_after_the_same_step(cluster: Cluster, crew: Crew) -> None:
    ended = crew.run(2, "train", cluster.environment(1), {"total": 9, "terminate": [1, 3]})

    assert [each.status for each in ended] == [EXIT_DRAINED, EXIT_DRAINED]
    assert [each.commit.step for each in cluster.checkpoints] == [3]
    assert not cluster.live.read_lease(cluster.run_id).held


def test_a_replaced_attempt_is_refused_on_every_rank(cluster: Cluster, crew: Crew) -> None:
    cluster.hand_over(2)

    ended = crew.run(2, "train", cluster.environment(1), {"total": 1})

    assert [each.status for each in ended] == [76, 76]
