"""FSDP2 with `attach()` alone: sharded over N ranks, resumed on M, like any other training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from spotrelay.core.checkpoint import Manifest, decode_manifest
from spotrelay.core.live import EXIT_DRAINED
from spotrelay.core.spec import Cadence, HealthRules
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
    """A run of its own in the emulated cloud, submitted: a checkpoint after every second step."""
    made = Cluster(emulator, None)  # type: ignore[arg-type]  # no single processes here
    made.submit(Cadence(every_steps=2))
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


def test_a_signal_to_one_rank_drains_all_and_they_go_on_bit_for_bit(cluster: Cluster, crew: Crew) -> None:
    whole = all_well(crew.run(2, "attached", {}, {"total": 8}))
    drained = crew.run(2, "attached", cluster.environment(1), {"total": 8, "terminate": [1, 4]})
    assert [each.status for each in drained] == [EXIT_DRAINED, EXIT_DRAINED], drained[0].said + drained[1].said
    cluster.hand_over(2)

    resumed = all_well(crew.run(2, "attached", cluster.environment(2), {"total": 8}))

    assert all(0 < each["first"] < 8 for each in resumed)
    assert [each["losses"] for each in resumed] == [each["losses"] for each in whole]
    assert [each["states"]["8"] for each in resumed] == [each["states"]["8"] for each in whole]


def test_pieces_go_back_together_when_one_rank_diverges(cluster: Cluster, crew: Crew) -> None:
    cluster.change(Cadence(every_steps=4), HealthRules(rollback=True, bad_steps=2))
    ill = {"total": 24, "bad": [[1, 20], [1, 21]], "promoted": [0, 18]}

    with cluster.verifying():
        ended = all_well(crew.run(2, "attached", cluster.environment(1), ill))

    [rollback] = manifest_of(cluster).rollbacks
    assert (rollback.step, rollback.to_step) == (22, 4)
    assert [each["states"]["before 22"] for each in ended] == [ended[0]["states"]["4"]] * 2


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (2, 1), (1, 2)])
def test_another_number_of_ranks_has_the_very_state_that_was_saved(
    before: int, after: int, cluster: Cluster, crew: Crew
) -> None:
    saved = all_well(crew.run(before, "attached", cluster.environment(1), {"total": 3}))
    cluster.hand_over(2)

    resumed = all_well(crew.run(after, "attached", cluster.environment(2), {"total": 4}))

    assert {each["first"] for each in resumed} == {3}
    assert {each["states"]["3"] for each in resumed} == {saved[0]["states"]["3"]}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_model_that_was_not_sharded_may_be_from_now_on_and_the_other_way_round(
    before: int, after: int, cluster: Cluster, crew: Crew
) -> None:
    saved = all_well(crew.run(before, "attached", cluster.environment(1), {"total": 3, "sharded": before > 1}))
    cluster.hand_over(2)

    resumed = all_well(crew.run(after, "attached", cluster.environment(2), {"total": 4, "sharded": after > 1}))

    assert {each["first"] for each in resumed} == {3}
    assert {each["states"]["3"] for each in resumed} == {saved[0]["states"]["3"]}


def test_a_parameter_with_two_names_is_saved_once_and_restored_under_both(cluster: Cluster, crew: Crew) -> None:
    saved = all_well(crew.run(4, "attached", cluster.environment(1), {"total": 3, "tied": True}))
    tree = manifest_of(cluster).tree
    cluster.hand_over(2)

    resumed = all_well(crew.run(2, "attached", cluster.environment(2), {"total": 4, "tied": True}))

    assert {"models/model/symbols.weight", "models/model/scale"} <= tree["state"]["sharded"].keys()
    assert not {"models/model/head.weight", "models/model/scale_again"} & tree["state"]["sharded"].keys()
    assert {each["first"] for each in resumed} == {3}
    assert {each["states"]["3"] for each in resumed} == {saved[0]["states"]["3"]}


def test_each_rank_uploads_its_own_pieces_and_what_all_have_is_there_once(cluster: Cluster, crew: Crew) -> None:
    all_well(crew.run(4, "attached", cluster.environment(1), {"total": 1}))

    manifest = manifest_of(cluster)
    tables = [manifest.tree["arrays"], *(each["arrays"] for each in manifest.tree["ranks"][1:])]
    weight, step = "models/model/head.weight", "others/optimizer/state/0/step"
    assert [each[weight]["shape"] for each in tables] == [[8, 10], [8, 10], [8, 10], [5, 10]]  # of 29 rows
    assert [step in each for each in tables] == [True, False, False, False]
    assert {manifest.shards[each[weight]["at"][0][0]].rank for each in tables} == {0, 1, 2, 3}


def test_a_rank_killed_in_mid_save_leaves_the_checkpoint_before_it(cluster: Cluster, crew: Crew) -> None:
    whole = all_well(crew.run(2, "attached", {}, {"total": 6}))
    fault = {"rank": 1, "call": "put", "about": "shards/000001/000002/0001-", "moment": "after"}
    killed = crew.run(2, "attached", cluster.environment(1), {"total": 6}, fault)
    committed = [each.commit.step for each in cluster.checkpoints]
    cluster.hand_over(2)

    resumed = all_well(crew.run(2, "attached", cluster.environment(2), {"total": 6}))

    assert killed[1].status == KILLED
    assert len(committed) == 1
    assert {each["first"] for each in resumed} == set(committed)
    assert [each["states"]["6"] for each in resumed] == [each["states"]["6"] for each in whole]


def test_a_flipped_bit_in_one_ranks_piece_takes_all_of_them_to_the_checkpoint_before(
    cluster: Cluster, crew: Crew
) -> None:
    saved = all_well(crew.run(2, "attached", cluster.environment(1), {"total": 5}))
    older = sorted(each.commit.step for each in cluster.checkpoints)[-2]
    newest = cluster.checkpoints[0].id.save
    cluster.hand_over(2)
    flip = {"rank": 1, "about": f"shards/000001/{newest:06d}/0001-", "moment": "flip"}

    resumed = all_well(crew.run(2, "attached", cluster.environment(2), {"total": 5}, flip))

    assert {each["first"] for each in resumed} == {older}
    assert {each["states"][str(older)] for each in resumed} == {saved[0]["states"][str(older)]}
