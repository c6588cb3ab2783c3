"""What the in-memory ports offer beyond their contract: an outside hand, capacity, a request rate."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spotrelay.core.errors import Contention, Damaged, InvalidInput, Missing
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool, Rung
from spotrelay.testing import MemoryMachines, MemoryObjects, RequestRate
from spotrelay.testing.contracts.samples import NOON

HERE, THERE = Pool("us-east-1", "us-east-1a", "g5.xlarge"), Pool("us-east-1", "us-east-1b", "g5.xlarge")


def test_a_deleted_object_keeps_its_versions_and_frees_its_key() -> None:
    objects = MemoryObjects()
    first = objects.put("a", b"one")

    objects.hide("a")

    with pytest.raises(Missing):
        objects.get("a")
    assert objects.get("a", first.version_id) == b"one"
    assert objects.put("a", b"two").version_id != first.version_id
    assert [stored.latest for stored in objects.list_versions("a")] == [True, False]


def test_a_removed_version_is_gone_for_good() -> None:
    objects = MemoryObjects()
    first = objects.put("a", b"one")

    objects.remove("a")

    with pytest.raises(Missing):
        objects.get("a", first.version_id)
    assert list(objects.list_versions("a")) == []


def test_an_object_put_on_top_leaves_the_named_version_alone() -> None:
    objects = MemoryObjects()
    first = objects.put("a", b"one")

    objects.overwrite("a", b"other")

    assert (objects.get("a"), objects.get("a", first.version_id)) == (b"other", b"one")


def test_a_flipped_bit_shows_in_the_reading_and_not_in_the_listing() -> None:
    objects = MemoryObjects()
    first = objects.put("a", b"one")

    objects.damage("a")

    assert next(objects.list_versions("a")).etag == first.etag
    with pytest.raises(Damaged):
        objects.get("a")


def test_a_truncated_object_shows_in_the_listing() -> None:
    objects = MemoryObjects()
    first = objects.put("a", b"one")

    objects.truncate("a", 1)

    listed = next(objects.list_versions("a"))
    assert (listed.version_id, listed.size) == (first.version_id, 1)
    assert listed.etag != first.etag


def test_capacity_that_is_refused_once_is_there_the_next_time() -> None:
    machines = MemoryMachines()
    machines.refuse(times=1, zone=HERE.zone)

    pools = [machines.launch(machines.prepare("r1", 1, n, Rung((HERE, THERE), "")), NOON).pool for n in (1, 2)]

    assert pools == [THERE, HERE]


def test_a_capacity_script_about_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidInput, match="colour"):
        MemoryMachines().refuse(colour="red")


def test_a_refused_launch_may_succeed_under_the_same_token_later() -> None:
    machines = MemoryMachines()
    machines.refuse("VcpuLimitExceeded", FailureScope.QUOTA)
    request = machines.prepare("r1", 1, 1, Rung((HERE,), ""))

    first = machines.launch(request, NOON)
    machines.allow()

    assert first.refusals[0].scope is FailureScope.QUOTA
    assert machines.launch(request, NOON).instance_id is not None


def test_a_hidden_machine_is_alive_and_not_shown() -> None:
    machines = MemoryMachines()
    made = str(machines.launch(machines.prepare("r1", 1, 1, Rung((HERE,), "")), NOON).instance_id)

    machines.hide(made)
    assert machines.states((made,)) == {made: InstanceState.GONE}
    assert machines.find("r1", 1) is None
    assert [machine.instance_id for machine in machines.alive] == [made]

    machines.hide(made, hidden=False)
    assert machines.find("r1", 1) is not None


def test_launches_beyond_the_request_rate_are_throttled_until_tokens_are_back() -> None:
    machines = MemoryMachines(RequestRate(burst=2, per_second=1.0))
    requests = [machines.prepare("r1", 1, launch, Rung((HERE,), "")) for launch in range(4)]

    machines.launch(requests[0], NOON)
    machines.launch(requests[1], NOON)
    with pytest.raises(Contention):
        machines.launch(requests[2], NOON)
    machines.launch(requests[2], NOON + timedelta(seconds=1))

    assert (len(machines.alive), machines.throttled) == (3, 1)
