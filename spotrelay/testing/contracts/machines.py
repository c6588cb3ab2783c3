"""What every `Machines` must do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from spotrelay.core.errors import InvalidInput, Unavailable
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool, Rung
from spotrelay.core.ports import LaunchAnswer, Machine, Machines
from spotrelay.testing.contracts.race import RACERS, persistent, race
from spotrelay.testing.contracts.samples import NOON, new_id

UNKNOWN_MACHINE = "i-0abcdef0123456789"


@dataclass(frozen=True)
class Ec2UnderTest:
    """A provider, where it may launch, and a hand on its capacity. Its defaults are those of EC2."""

    machines: Machines
    pools: tuple[Pool, ...]  # of one region: a launch chooses among them
    refuse: Callable[[Pool, str], None]  # from now on, with this error code
    elsewhere: Pool  # of another region, in which nothing is launched
    cut_off: Callable[[str], None]  # let a region be out of reach from now on
    run_short: Callable[[Pool, int], None]  # let a pool have this many machines more, and then refuse
    full: str = "InsufficientInstanceCapacity"  # code with which a pool refuses that has nothing to give
    unknown: str = UNKNOWN_MACHINE  # id of a machine that never was
    changed: tuple[Pool, ...] = ()  # for another request under the same token; empty: all pools but the first


class MachinesContract:
    """Inherit, and give it `ec2`: without any machine at first."""

    @pytest.fixture
    def ec2(self) -> Ec2UnderTest:
        """The implementation under test."""
        raise NotImplementedError("give the suite its EC2")

    @pytest.fixture
    def rounds(self) -> int:
        """How often each race is run."""
        return 5

    def test_a_request_is_the_same_after_it_was_stored(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()
        request = ec2.machines.prepare(run_id, 1, 1, Rung(ec2.pools, "test"))

        assert json.loads(json.dumps(request)) == request
        assert request == ec2.machines.prepare(run_id, 1, 1, Rung(ec2.pools, "test"))

    def test_a_launch_gives_a_machine_in_one_of_its_pools(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()

        answer = launched(ec2, run_id, generation=3, launch=4)

        assert answer.pool in ec2.pools
        machine = ec2.machines.find(run_id, 4)
        assert machine is not None
        assert (machine.instance_id, machine.run_id, machine.generation, machine.launch, machine.pool) == (
            answer.instance_id,
            run_id,
            3,
            4,
            answer.pool,
        )
        assert not machine.state.is_over

    def test_the_same_request_is_the_same_machine(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()

        answers = [launched(ec2, run_id) for _ in range(3)]

        assert len({answer.instance_id for answer in answers}) == 1
        assert len(_of(ec2, run_id)) == 1

    def test_another_request_under_a_used_token_is_refused(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()
        launched(ec2, run_id)

        changed = ec2.machines.prepare(run_id, 1, 1, Rung(ec2.changed or ec2.pools[1:], "changed"))
        answer = ec2.machines.launch(changed, NOON)

        assert answer.instance_id is None
        assert {refusal.scope for refusal in answer.refusals} == {FailureScope.CONFIGURATION}
        assert len(_of(ec2, run_id)) == 1

    def test_when_every_pool_refuses_the_answer_says_so_for_each(self, ec2: Ec2UnderTest) -> None:
        for pool in ec2.pools:
            ec2.refuse(pool, ec2.full)
        run_id = new_id()

        answer = ec2.machines.launch(ec2.machines.prepare(run_id, 1, 1, Rung(ec2.pools, "test")), NOON)

        assert (answer.instance_id, answer.pool) == (None, None)
        assert {(r.pool, r.scope, r.code, r.at) for r in answer.refusals} == {
            (pool, FailureScope.POOL, ec2.full, NOON) for pool in ec2.pools
        }
        assert ec2.machines.find(run_id, 1) is None

    def test_a_launch_that_was_never_made_is_not_found(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()
        launched(ec2, run_id)

        assert ec2.machines.find(run_id, 2) is None
        assert ec2.machines.find(new_id(), 1) is None

    def test_states_are_told_for_each_and_gone_for_an_unknown_one(self, ec2: Ec2UnderTest) -> None:
        mine = str(launched(ec2, new_id()).instance_id)

        states = ec2.machines.states((mine, ec2.unknown))

        assert states[mine] in (InstanceState.PENDING, InstanceState.RUNNING)
        assert states[ec2.unknown] is InstanceState.GONE
        assert ec2.machines.states(()) == {}

    def test_a_region_out_of_reach_hides_only_its_own_machines(self, ec2: Ec2UnderTest) -> None:
        run_id, here = new_id(), ec2.pools[0].region
        mine = str(launched(ec2, run_id).instance_id)
        ec2.cut_off(ec2.elsewhere.region)

        states = ec2.machines.states((mine, ec2.unknown))
        told = ec2.machines.states((mine, ec2.unknown), {ec2.unknown: here})
        found = ec2.machines.find(run_id, 1)
        managed: list[str] = []
        with pytest.raises(Unavailable, match=ec2.elsewhere.region):
            managed.extend(machine.instance_id for machine in ec2.machines.managed())

        assert mine in managed
        assert set(states) == {mine}
        assert (set(told), told[ec2.unknown]) == ({mine, ec2.unknown}, InstanceState.GONE)
        assert found is not None and found.instance_id == mine

    def test_what_may_be_out_of_reach_is_not_taken_for_gone(self, ec2: Ec2UnderTest) -> None:
        ec2.cut_off(ec2.elsewhere.region)

        with pytest.raises(Unavailable):
            ec2.machines.states((ec2.unknown,))
        with pytest.raises(Unavailable):
            ec2.machines.states((ec2.unknown,), {ec2.unknown: ec2.elsewhere.region})
        with pytest.raises(Unavailable):
            ec2.machines.find(new_id(), 1)
        with pytest.raises(Unavailable):
            ec2.machines.terminate(ec2.unknown)

    def test_a_machine_is_looked_for_only_where_its_launch_went(self, ec2: Ec2UnderTest) -> None:
        run_id, here = new_id(), ec2.pools[0].region
        mine = launched(ec2, run_id).instance_id
        ec2.cut_off(ec2.elsewhere.region)

        found = ec2.machines.find(run_id, 1, here)

        assert found is not None and found.instance_id == mine
        assert ec2.machines.find(run_id, 2, here) is None
        with pytest.raises(Unavailable):
            ec2.machines.find(run_id, 1, ec2.elsewhere.region)

    def test_a_region_out_of_reach_refuses_what_was_never_sent_before(self, ec2: Ec2UnderTest) -> None:
        ec2.cut_off(ec2.elsewhere.region)
        request = ec2.machines.prepare(new_id(), 1, 1, Rung((ec2.elsewhere,), "test"))

        answer = ec2.machines.launch(request, NOON, first=True)

        assert answer.instance_id is None
        assert [(r.pool, r.scope, r.at) for r in answer.refusals] == [(ec2.elsewhere, FailureScope.REGION, NOON)]
        with pytest.raises(Unavailable):
            ec2.machines.launch(request, NOON)

    def test_a_terminated_machine_is_over_and_no_longer_managed(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()
        mine = str(launched(ec2, run_id).instance_id)
        assert [machine.instance_id for machine in _of(ec2, run_id)] == [mine]

        ec2.machines.terminate(mine)
        ec2.machines.terminate(mine)

        assert ec2.machines.states((mine,))[mine].is_over
        assert _of(ec2, run_id) == []

    def test_terminating_a_machine_that_is_not_there_is_harmless(self, ec2: Ec2UnderTest) -> None:
        ec2.machines.terminate(ec2.unknown)

        assert ec2.machines.states((ec2.unknown,)) == {ec2.unknown: InstanceState.GONE}

    def test_known_prices_are_above_zero_and_of_the_pools_asked_for(self, ec2: Ec2UnderTest) -> None:
        prices = ec2.machines.prices(ec2.pools)

        assert set(prices) <= set(ec2.pools)
        assert all(price > 0 for price in prices.values())

    def test_of_many_senders_of_one_request_all_get_the_same_machine(self, ec2: Ec2UnderTest, rounds: int) -> None:
        for _ in range(rounds):
            run_id = new_id()

            outcomes = race([lambda r=run_id: launched(ec2, r).instance_id] * RACERS)  # type: ignore[misc]

            assert len(set(outcomes)) == 1
            (machine,) = _of(ec2, run_id)
            assert machine.instance_id == outcomes[0]
            ec2.machines.terminate(machine.instance_id)


class ChoosingContract(MachinesContract):
    """For a provider whose launch chooses among several pools of one region; give it two or more."""

    def test_a_refused_pool_sends_the_launch_to_the_next(self, ec2: Ec2UnderTest) -> None:
        ec2.refuse(ec2.pools[0], ec2.full)

        answer = launched(ec2, new_id())

        assert answer.pool in ec2.pools[1:]
        assert all(refusal.pool == ec2.pools[0] for refusal in answer.refusals)

    def test_a_gang_comes_whole_of_one_type_and_zone_and_once(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()

        answer = ganged(ec2, run_id, nodes=3)
        again = ganged(ec2, run_id, nodes=3)

        assert len(set(answer.instance_ids)) == 3
        assert again.instance_ids == answer.instance_ids
        made = ec2.machines.find_all(run_id, 1)
        assert {m.instance_id for m in made} == {m.instance_id for m in _of(ec2, run_id)} == set(answer.instance_ids)
        assert {m.pool for m in made} == {answer.pool}

    def test_a_gang_goes_to_the_zone_that_has_room_for_all_of_it(self, ec2: Ec2UnderTest) -> None:
        ec2.run_short(ec2.pools[0], 1)

        answer = ganged(ec2, new_id(), nodes=2)

        assert len(answer.instance_ids) == 2
        assert answer.pool in ec2.pools[1:]

    def test_where_no_zone_has_room_for_a_whole_gang_none_of_it_is_launched(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()
        for pool in ec2.pools:
            ec2.run_short(pool, 1)

        answer = ganged(ec2, run_id, nodes=2)

        assert answer.instance_ids == ()
        assert {refusal.pool for refusal in answer.refusals} == set(ec2.pools)
        assert _of(ec2, run_id) == []
        assert ec2.machines.find_all(run_id, 1) == ()

    def test_of_many_senders_of_one_gang_all_get_the_same_machines(self, ec2: Ec2UnderTest) -> None:
        run_id = new_id()

        outcomes = race([lambda: ganged(ec2, run_id, nodes=2).instance_ids] * RACERS)

        assert len(set(outcomes)) == 1
        assert outcomes[0] == tuple(ganged(ec2, run_id, nodes=2).instance_ids)
        assert {m.instance_id for m in _of(ec2, run_id)} == set(ganged(ec2, run_id, nodes=2).instance_ids)


def launched(ec2: Ec2UnderTest, run_id: str, generation: int = 1, launch: int = 1) -> LaunchAnswer:
    """The answer to a launch into every pool, which has to give a machine."""
    request = ec2.machines.prepare(run_id, generation, launch, Rung(ec2.pools, "test"))
    answer = persistent(lambda: ec2.machines.launch(request, NOON))
    if answer.instance_id is None:
        raise InvalidInput(f"the suite needs capacity: {answer.refusals}")
    return answer


def ganged(ec2: Ec2UnderTest, run_id: str, nodes: int) -> LaunchAnswer:
    """The answer to the launch of a gang into any of the pools."""
    request = ec2.machines.prepare(run_id, 1, 1, Rung(ec2.pools, "test", nodes=nodes))
    return persistent(lambda: ec2.machines.launch(request, NOON))


def _of(ec2: Ec2UnderTest, run_id: str) -> list[Machine]:
    return [machine for machine in ec2.machines.managed() if machine.run_id == run_id]
