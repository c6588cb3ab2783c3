"""Hosts of one's own in the rules: their place on the ladder, their silence, their drain, and what is registered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.claim import claim
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Drain, Fence, Observe, Reserve, Send, Terminate, Verify, Wait
from spotrelay.core.errors import Contention, InvalidInput, OutOfReach, Unavailable, one_of
from spotrelay.core.facts import DrainAsked, LaunchAnswered, Observed, TerminateAsked
from spotrelay.core.hosts import Host, checked_host, machine_id, open_pools, parse_target
from spotrelay.core.lease import Lease
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.markets import change_market, choose
from spotrelay.core.notice import InstanceState, InterruptionNotice, NoticeSource
from spotrelay.core.orders import prepare
from spotrelay.core.placement import FailureScope, Market, Pool, Refusal, Rung, next_rung
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.providers import Providers
from spotrelay.core.record import absorb, record
from spotrelay.core.run import AttemptState, Run, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import OwnMachines, Spec, parse_spec, pools_of
from spotrelay.testing import MemoryMachines

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = "ssh-ed25519 " + "A" * 68
LAB = Host("lab1", "train", "lab1.example.org", "ssm:/spotrelay-hosts/lab1", KEY, kind="rtx4090")
OTHER = replace(LAB, name="lab2", kind="a100")
ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"))
OWN = open_pools((LAB, OTHER))
FIRST = Spec(("train",), ("g5.xlarge",), own_machines=OwnMachines.FIRST)
LAST = replace(FIRST, own_machines=OwnMachines.LAST, on_demand=True)
SITE = Site(ZONES, own=OWN)
MACHINE = machine_id("Spotrelay", LAB.region, "run-1.1.1")


# the ladder


def test_own_machines_come_first_or_last_or_not_at_all_as_the_spec_says() -> None:
    first, last = pools_of(FIRST, ZONES, OWN), pools_of(LAST, ZONES, OWN)

    assert first[:2] == OWN and {p.market for p in first[2:]} == {"spot"}
    assert last[-2:] == OWN and [p.market for p in last[:4]] == ["spot"] * 2 + ["on-demand"] * 2
    assert not set(OWN) & set(pools_of(Spec(("train",), ("g5.xlarge",)), ZONES, OWN))


def test_only_kinds_that_the_spec_names_will_do() -> None:
    assert pools_of(replace(FIRST, own_kinds=("a100",)), ZONES, OWN)[0] == OTHER.pool
    assert LAB.pool not in pools_of(replace(FIRST, own_kinds=("a100",)), ZONES, OWN)


@pytest.mark.parametrize("spec", [FIRST, LAST], ids=["first", "last"])
def test_own_machines_are_asked_alone_before_or_after_everything_that_is_bought(spec: Spec) -> None:
    groups = choose(Run("run-1", spec, NOON), pools_of(spec, ZONES, OWN), NOON, replace(SITE, own=OWN)).groups

    assert groups[0 if spec is FIRST else -1] == OWN
    assert all(set(group) == set(OWN) or not set(group) & set(OWN) for group in groups)


def test_a_host_that_was_lost_a_moment_ago_waits_for_all_the_others() -> None:
    lost = replace(training().attempts[0], state=AttemptState.ENDED, ended_at=NOON, machine_gone_at=NOON)
    run = replace(training(), attempts=(lost,))

    soon = choose(run, pools_of(FIRST, ZONES, OWN), NOON + MINUTE, SITE).groups
    later = choose(run, pools_of(FIRST, ZONES, OWN), NOON + 11 * MINUTE, SITE).groups

    assert soon[0] == (OTHER.pool,) and soon[-1] == (LAB.pool,)
    assert later[0] == OWN


def test_a_host_where_a_machine_of_the_run_may_still_be_at_work_takes_no_second_one() -> None:
    alone = choose(training(), pools_of(FIRST, ZONES, OWN), NOON + 30 * MINUTE, SITE).groups

    assert LAB.pool not in {pool for group in alone for pool in group}
    assert alone[0] == (OTHER.pool,)


def test_a_run_on_a_host_is_never_moved_to_spot_or_on_demand_for_money_or_time() -> None:
    spec = replace(FIRST, on_demand=True, deadline_hours=0.01, training_hours=5.0)
    run = replace(training(), spec=spec)

    assert change_market(run, run.attempts[0], NOON, SITE) is None


def test_a_launch_on_a_host_goes_to_that_host_alone() -> None:
    pools = pools_of(FIRST, ZONES, open_pools((LAB, replace(OTHER, kind=LAB.kind))))

    rung = next_rung(pools, (), (), NOON)

    assert rung is not None and rung.pools == (LAB.pool,)
    with pytest.raises(InvalidInput, match="one host"):
        prepare("run-1", 1, 1, Rung(OWN, "two of them"))


def test_a_host_out_of_reach_leads_to_the_next_host_and_a_busy_one_too() -> None:
    pools = pools_of(FIRST, ZONES, OWN)
    away = Refusal(LAB.pool, FailureScope.REGION, "HostUnreachable", "", NOON)
    busy = Refusal(OTHER.pool, FailureScope.POOL, "HostBusy", "", NOON)

    after_one, after_both = next_rung(pools, (away,), (), NOON), next_rung(pools, (away, busy), (), NOON)

    assert after_one is not None and after_one.pools == (OTHER.pool,)
    assert after_both is not None and after_both.pools[0].market == "spot"


def test_images_and_gangs_are_refused_on_hosts_by_name() -> None:
    base = {"command": ["train"], "instance_types": ["g5.xlarge"], "own_machines": "first"}

    with pytest.raises(InvalidInput, match=r"image and own_machines.*hosts run code bundles"):
        parse_spec({**base, "image": "x@sha256:" + "a" * 64})
    with pytest.raises(InvalidInput, match=r"nodes and own_machines.*a host trains alone"):
        parse_spec({**base, "nodes": 2})
    with pytest.raises(InvalidInput, match="own_kinds says"):
        parse_spec({**base, "own_machines": "never", "own_kinds": ["a100"]})


# a host that vanishes


def training() -> Run:
    run = Run("run-1", FIRST, NOON, lease=Lease("run-1"))
    reserve = decide(run, NOON, SITE)
    assert isinstance(reserve, Reserve) and reserve.rung.pools == (LAB.pool,)
    run = claim(run, reserve, NOON, SITE, {"Region": LAB.region})
    send = decide(run, NOON, SITE)
    assert isinstance(send, Send)
    run = record(claim(run, send, NOON, SITE), LaunchAnswered(1, LaunchAnswer(MACHINE, LAB.pool), 0.0), NOON, SITE)
    beat = Heartbeat("run-1", 1, 1, Phase.TRAINING, step=5, first_step=True)
    run = replace(run, lease=Lease("run-1", 1, MACHINE), heartbeats=(beat,))
    return absorb(run, NOON, SITE)


def silent(run: Run, minutes: int) -> tuple[Run, datetime]:
    """The run after so many minutes in which its heartbeat stood still and its host was asked in vain."""
    now = NOON
    for _ in range(minutes):
        now += MINUTE
        run = absorb(run, now, SITE)
        if isinstance(decide(run, now, SITE), Observe):
            run = record(run, Observed((), (MACHINE,)), now, SITE)
    return run, now


def test_a_silent_host_that_does_not_answer_is_unknown_and_nothing_is_launched_beside_it() -> None:
    run, now = silent(training(), 14)

    attempt = run.attempts[0]
    assert attempt.unreachable_since is not None and attempt.state is AttemptState.RUNNING
    assert run.status is RunStatus.RUNNING
    assert not isinstance(decide(run, now, SITE), (Reserve, Terminate))


def test_after_hopeless_silence_the_attempt_of_an_unreachable_host_is_fenced_and_the_run_goes_on_elsewhere() -> None:
    run, now = silent(training(), 17)

    attempt = run.attempts[0]
    assert attempt.over and attempt.live, "nobody can say that it is gone"
    fence = decide(run, now, SITE)
    assert isinstance(fence, Fence) and fence.floor == 2
    run = replace(run, lease=Lease("run-1", 1, None, 2))
    end = decide(run, now, SITE)
    assert isinstance(end, Terminate)
    run = record(claim(run, end, now, SITE), TerminateAsked(MACHINE), now, SITE)
    reserve = decide(run, now, SITE)
    assert isinstance(reserve, Reserve)
    assert reserve.rung.pools[0] == OTHER.pool, "lab1 was lost a moment ago"


def test_a_heartbeat_ends_the_doubt_about_a_host_that_cannot_be_reached() -> None:
    run, now = silent(training(), 12)
    beat = Heartbeat("run-1", 1, 2, Phase.TRAINING, step=9, first_step=True)

    run = absorb(replace(run, heartbeats=(beat,)), now + MINUTE, SITE)
    run = record(run, Observed((), (MACHINE,)), now + 5 * MINUTE, SITE)

    assert run.status is RunStatus.RUNNING
    assert isinstance(decide(run, now + 5 * MINUTE, SITE), Wait)


def test_an_answer_ends_the_doubt_too() -> None:
    run, now = silent(training(), 10)

    run = record(run, Observed(((MACHINE, InstanceState.RUNNING),)), now, SITE)

    assert run.attempts[0].unreachable_since is None


def test_a_fenced_machine_on_a_lost_host_counts_as_gone_once_its_rights_have_run_out() -> None:
    run, now = silent(training(), 17)
    soon, late = now + timedelta(minutes=50), now + timedelta(minutes=61)

    before = record(run, Observed((), (MACHINE,)), soon, SITE)
    after = record(before, Observed((), (MACHINE,)), late, SITE)

    assert before.attempts[0].live
    assert not after.attempts[0].live


def test_a_machine_of_ec2_that_gives_no_answer_is_never_ended_for_that() -> None:
    _, now = silent(training(), 17)
    pool = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")

    mine = replace(training().attempts[0], instance_id="i-00000000000000001", pool=pool)
    in_ec2 = record(replace(training(), attempts=(mine,)), Observed(()), now, SITE)

    assert in_ec2.attempts[0].state is AttemptState.RUNNING


# a host that is to be empty


def drained(run: Run) -> Run:
    return record(run, InterruptionNotice(MACHINE, "terminate", NOON, NoticeSource.DRAIN), NOON, SITE)


def test_a_drain_asks_the_attempt_to_go_and_launches_its_successor_at_once() -> None:
    run = drained(training())
    elsewhere = replace(SITE, own=open_pools((replace(LAB, draining=True), OTHER)))

    ask = decide(run, NOON, elsewhere)
    assert isinstance(ask, Drain) and ask.generation == 1
    run = record(claim(run, ask, NOON, elsewhere), DrainAsked(1), NOON, elsewhere)
    reserve = decide(run, NOON, elsewhere)

    assert isinstance(reserve, Reserve)
    assert (reserve.generation, reserve.rung.pools) == (2, (OTHER.pool,))
    assert "drained" in run.news[-2].text or any("being drained" in entry.text for entry in run.news)


def test_nobody_hurries_a_drain() -> None:
    run = drained(training())

    assert run.attempts[0].deadline == NOON + SITE.timings.drain


def test_a_drain_told_twice_asks_once() -> None:
    run = record(drained(training()), DrainAsked(1), NOON, SITE)

    again = drained(run)

    assert again.attempts == run.attempts
    assert not isinstance(decide(again, NOON, SITE), Drain)


def test_a_machine_that_has_drained_off_its_host_is_looked_after_although_no_event_tells_that_it_went() -> None:
    run = record(drained(training()), DrainAsked(1), NOON, SITE)
    beat = Heartbeat("run-1", 1, 3, Phase.DRAINED, step=9, first_step=True)
    run = absorb(replace(run, heartbeats=(beat,)), NOON, SITE)
    later = NOON + MINUTE

    found = []
    for _ in range(6):
        decision = decide(run, later, replace(SITE, launches_allowed=False))
        found.append(type(decision))
        if not isinstance(decision, (Verify, Fence)):
            break

    assert isinstance(decision, Observe), found


# the registry and the providers


def test_targets_are_read_strictly() -> None:
    assert parse_target("ssh://train@lab1.example.org:2222") == ("train", "lab1.example.org", 2222)
    assert parse_target("train@10.0.0.7") == ("train", "10.0.0.7", 22)
    assert parse_target("ssh://train@[fd00::7]:22") == ("train", "fd00::7", 22)
    for wrong in ("lab1", "ssh://lab1", "ssh://a@b:99999", "ssh://a b@c", "ssh://-o@x", "ssh://a@b;rm -rf"):
        with pytest.raises(InvalidInput):
            parse_target(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Lab One"),
        ("kind", "g5 xlarge"),
        ("host_key", "whatever"),
        ("key_secret", "ssm:/spotrelay/lab1"),  # where programs of runs may read
        ("slots", 0),
        ("price", float("nan")),
        ("python", "python3; true"),
        ("folder", "../elsewhere"),
        ("folder", "a b"),
    ],
)
def test_a_host_that_cannot_work_is_refused_with_the_reason(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=field.partition("_")[0]):
        checked_host(replace(LAB, **{field: value}))  # type: ignore[arg-type]

    assert checked_host(LAB) == LAB


def test_a_machines_id_follows_from_host_and_token_alone() -> None:
    assert machine_id("Spotrelay", LAB.region, "run-1.1.1") == machine_id("Spotrelay", LAB.region, "run-1.1.1")
    assert (
        len({machine_id(s, h.region, t) for s in "AB" for h in (LAB, OTHER) for t in ("r.1.1", "r.1.2", "s.1.1")}) == 12
    )


def test_providers_hide_nothing_but_what_does_not_answer() -> None:
    ec2, hosts = MemoryMachines(), MemoryMachines()
    both = Providers(ec2, hosts)
    spot = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
    here = both.launch(both.prepare("r1", 1, 1, Rung((spot,), "")), NOON).instance_id
    there = both.launch(both.prepare("r2", 1, 1, Rung((LAB.pool,), "")), NOON).instance_id
    assert here is not None and there is not None
    hosts.cut_off(LAB.region)

    known = both.states((here, there), {here: "eu-west-1", there: LAB.region})
    seen = []
    with pytest.raises(Unavailable):
        seen.extend(machine.run_id for machine in both.managed())

    assert [m.run_id for m in ec2.machines] == ["r1"] and [m.run_id for m in hosts.machines] == ["r2"]
    assert set(known) == {here} and seen == ["r1"]
    assert both.find("r1", 1, "eu-west-1") is not None, "a host that is away holds up nobody in EC2"
    with pytest.raises(Unavailable):
        both.states((there,), {there: LAB.region})
    both.terminate(here)
    assert ec2.terminations == [here] and hosts.terminations == []


def test_several_errors_are_one_that_says_what_all_of_them_say() -> None:
    away, throttled = OutOfReach("a"), Contention("b")

    assert type(one_of([away, OutOfReach("c")])) is OutOfReach
    assert type(one_of([throttled, Contention("c")])) is Contention
    assert type(one_of([away, throttled])) is Unavailable
    assert one_of([away]) is away


def test_a_spec_from_before_hosts_asks_for_none() -> None:
    spec = parse_spec({"command": ["train"], "instance_types": ["g5.xlarge"]})

    assert spec.own_machines is OwnMachines.NEVER
    assert Market.OWN.value not in {pool.market for pool in pools_of(spec, ZONES, OWN)}
