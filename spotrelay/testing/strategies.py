"""What hypothesis draws: specs, pools, facts, faults. The only module here that imports it."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st

from spotrelay.core.checkpoint import Commit, Health, SaveReason, Verdict
from spotrelay.core.facts import (
    CancelRequested,
    DrainAsked,
    Fact,
    LaunchAbandoned,
    LaunchAnswered,
    LaunchPostponed,
    LaunchUnclear,
    MachineFound,
    Observed,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TerminateAsked,
    VerificationPostponed,
    Verified,
)
from spotrelay.core.live import ExitReport, Heartbeat, Phase
from spotrelay.core.notice import (
    InstanceState,
    InterruptionNotice,
    NoticeSource,
    RebalanceRecommendation,
    StateChange,
)
from spotrelay.core.placement import FailureScope, Market, Pool, Refusal, Rung
from spotrelay.core.ports import LaunchAnswer, Machine
from spotrelay.core.run import Run
from spotrelay.core.spec import MOST_DOLLARS, MOST_HOURS, MOST_LAUNCHES, Cadence, Limits, NoCheckpoint, Spec
from spotrelay.testing.clock import START
from spotrelay.testing.faults import Fault

REGIONS = ("us-east-1", "eu-west-1")
ZONES = tuple((region, f"{region}{letter}") for region in REGIONS for letter in "abc")
TYPES = ("g5.xlarge", "g5.2xlarge", "g6.xlarge", "p4d.24xlarge")
CODES = {
    "InsufficientInstanceCapacity": FailureScope.POOL,
    "InsufficientFreeAddressesInSubnet": FailureScope.ZONE,
    "MaxSpotInstanceCountExceeded": FailureScope.QUOTA,
    "EndpointConnectionError": FailureScope.REGION,
    "PendingVerification": FailureScope.ACCOUNT,
    "RequestLimitExceeded": FailureScope.THROTTLE,
    "InternalError": FailureScope.SERVER,
    "SomethingNew": FailureScope.UNKNOWN,
}  # none that stops a run for good: draw CONFIGURATION on purpose

run_ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True)
instance_ids = st.integers(1, 8).map(lambda number: f"i-{number:017x}")
instance_states = st.sampled_from(InstanceState)
times = st.integers(0, 48 * 3600).map(lambda seconds: START + timedelta(seconds=seconds))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
pools = st.builds(
    lambda zone, kind, market: Pool(zone[0], zone[1], kind, market.value),
    st.sampled_from(ZONES),
    st.sampled_from(TYPES),
    st.sampled_from(Market),
)
rungs = st.builds(
    lambda pool, zones: Rung(tuple(Pool(pool.region, z, pool.instance_type, pool.market) for z in zones), "drawn"),
    pools,
    st.lists(st.sampled_from([zone for _, zone in ZONES]), min_size=1, max_size=3, unique=True),
)


def refusals(at: st.SearchStrategy[datetime] = times) -> st.SearchStrategy[Refusal]:
    """Definite refusals of launches."""
    return st.builds(
        lambda pool, code, when: Refusal(pool, CODES[code], code, f"no {pool}", when),
        pools,
        st.sampled_from(sorted(CODES)),
        at,
    )


def specs() -> st.SearchStrategy[Spec]:
    """Specs that `parse_spec` accepts."""
    names = st.from_regex(r"[A-RT-Z_][A-Z0-9_]{0,8}", fullmatch=True)  # none begins like our own
    return st.builds(
        Spec,
        command=st.lists(texts.filter(bool), min_size=1, max_size=4).map(tuple),
        instance_types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True).map(tuple),
        zones=st.lists(st.sampled_from([zone for _, zone in ZONES]), max_size=3, unique=True).map(tuple),
        on_demand=st.booleans(),
        failover=st.booleans(),
        on_no_checkpoint=st.sampled_from(NoCheckpoint),
        env=st.dictionaries(names, texts, max_size=3),
        setup=st.lists(st.lists(texts, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
        limits=st.builds(
            Limits,
            max_launches=st.integers(1, MOST_LAUNCHES),
            max_failures=st.integers(1, 5),
            max_hours=st.floats(0.5, MOST_HOURS),
            max_dollars=st.none() | st.floats(0.5, MOST_DOLLARS),
            on_demand_prices=st.just(dict.fromkeys(TYPES, 1.0)),
        ),
        cadence=st.builds(Cadence, floor_s=st.floats(1, 60), ceiling_s=st.floats(60, 3600)),
    )


def runs() -> st.SearchStrategy[Run]:
    """Runs as `submit` makes them."""
    return st.builds(Run, run_ids, specs(), times)


def commits(run_id: str, generations: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[Commit]:
    """Commits of one run."""
    return st.builds(
        Commit,
        run_id=st.just(run_id),
        generation=generations or st.integers(1, 4),
        save=st.integers(1, 6),
        step=st.integers(0, 10_000),
        manifest_key=st.just(f"runs/{run_id}/manifests/1"),
        manifest_version=st.just("v1"),
        manifest_digest=st.just("d" * 64),
        size=st.integers(0, 2**40),
        health=st.sampled_from(Health),
        reason=st.sampled_from(SaveReason),
        stall_s=st.floats(0, 100),
        durable_s=st.floats(0, 1000),
    )


def verdicts() -> st.SearchStrategy[Verdict]:
    """What a verification may find."""
    return st.builds(
        lambda generation, save, ok: Verdict(generation, save, ok, "" if ok else "a shard is missing", START),
        st.integers(1, 4),
        st.integers(1, 6),
        st.booleans(),
    )


def heartbeats(run_id: str) -> st.SearchStrategy[Heartbeat]:
    """Signs of life of one run's attempts."""
    return st.builds(
        Heartbeat,
        run_id=st.just(run_id),
        generation=st.integers(1, 4),
        counter=st.integers(1, 1000),
        phase=st.sampled_from(Phase),
        step=st.integers(0, 10_000),
        total=st.integers(0, 10_000),
        loss=st.none() | st.floats(0, 100),
        first_step=st.booleans(),
    )


def reports(run_id: str) -> st.SearchStrategy[ExitReport]:
    """How the programs of one run's attempts may end."""
    return st.builds(
        ExitReport,
        run_id=st.just(run_id),
        generation=st.integers(1, 4),
        code=st.sampled_from([0, 1, 75, 76, -9, -15]),
        stage=st.sampled_from(["boot", "program"]),
        tail=texts,
    )


def facts(run_id: str, at: st.SearchStrategy[datetime] = times) -> st.SearchStrategy[Fact]:
    """Everything that may be learnt about one run, true or not, in any order."""
    launches = st.integers(1, 6)
    answers = st.builds(LaunchAnswer, instance_ids, pools, st.lists(refusals(at), max_size=2).map(tuple)) | st.builds(
        LaunchAnswer, st.none(), st.none(), st.lists(refusals(at), min_size=1, max_size=3).map(tuple)
    )
    machines = st.builds(
        lambda i, state, generation, launch, pool: Machine(i, state, run_id, generation, launch, pool),
        instance_ids,
        instance_states,
        st.integers(1, 4),
        launches,
        pools,
    )
    return st.one_of(
        st.builds(
            InterruptionNotice,
            instance_ids,
            st.sampled_from(["terminate", "stop", "hibernate"]),
            at,
            st.sampled_from(NoticeSource),
        ),
        st.builds(RebalanceRecommendation, instance_ids),
        st.builds(StateChange, instance_ids, instance_states),
        st.builds(LaunchAnswered, launches, answers, st.none() | st.floats(0.01, 50)),
        st.builds(LaunchUnclear, launches, st.just("the reply was lost")),
        st.builds(LaunchPostponed, launches, st.integers(0, 2), at, st.booleans(), st.just("throttled")),
        st.builds(LaunchAbandoned, launches),
        st.builds(MachineFound, machines),
        st.builds(Observed, st.lists(st.tuples(instance_ids, instance_states), max_size=3).map(tuple)),
        st.builds(TerminateAsked, instance_ids),
        st.builds(Verified, st.integers(1, 4), st.integers(1, 6), st.booleans(), st.just("as drawn")),
        st.builds(VerificationPostponed, st.just("S3 did not answer")),
        st.builds(CancelRequested, st.just("by hand")),
        st.builds(DrainAsked, st.integers(1, 4)),
        st.builds(PauseRequested, st.just("by hand")),
        st.just(ResumeRequested()),
        st.builds(RetryRequested, st.just("by hand")),
    )


def faults(*kinds: Fault) -> st.SearchStrategy[Fault]:
    """Faults for one call, none being the likeliest; of these kinds only, if any are named."""
    wanted = [kind for kind in (kinds or Fault) if kind is not Fault.NONE]
    return st.integers(0, 4).flatmap(lambda luck: st.sampled_from(wanted) if luck == 0 else st.just(Fault.NONE))
