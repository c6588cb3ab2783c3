from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.placement import REMEMBERED, FailureScope, Pool, Refusal, excludes, next_rung, reopens_at
from spotrelay.core.spec import Spec, pools_of

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ZONES = tuple(("eu-west-1", f"eu-west-1{z}") for z in "abc")
SPEC = Spec(("train",), ("g5.xlarge", "g6.xlarge"), on_demand=True)
POOLS = pools_of(SPEC, ZONES)


def refused(pool: Pool, scope: FailureScope = FailureScope.POOL, at: datetime = NOON) -> Refusal:
    return Refusal(pool, scope, "Code", "", at)


def test_spot_comes_before_on_demand_and_types_in_the_order_of_the_spec() -> None:
    assert [p.instance_type for p in POOLS[:6]] == ["g5.xlarge"] * 3 + ["g6.xlarge"] * 3
    assert {p.market for p in POOLS[:6]} == {"spot"} and {p.market for p in POOLS[6:]} == {"on-demand"}


def test_the_first_rung_is_the_preferred_type_in_every_zone() -> None:
    rung = next_rung(POOLS, (), (), NOON)

    assert rung is not None and rung.pools == POOLS[:3]


@given(lost=st.sampled_from(POOLS))
def test_the_first_rung_is_never_the_pool_just_lost(lost: Pool) -> None:
    rung = next_rung(POOLS, (), ((lost, NOON),), NOON + timedelta(seconds=1))

    assert rung is not None and lost not in rung.pools


def test_a_lost_pool_is_used_when_it_is_all_there_is() -> None:
    rung = next_rung(POOLS[:1], (), ((POOLS[0], NOON),), NOON)

    assert rung is not None and rung.pools == POOLS[:1]


def test_refused_zones_lead_to_the_next_type_and_then_to_on_demand() -> None:
    first = tuple(refused(p) for p in POOLS[:3])
    second = first + tuple(refused(p) for p in POOLS[3:6])

    after_first, after_second = next_rung(POOLS, first, (), NOON), next_rung(POOLS, second, (), NOON)

    assert after_first is not None and after_first.pools == POOLS[3:6]
    assert after_second is not None and after_second.pools == POOLS[6:9]


def test_a_quota_keeps_out_the_whole_family_of_that_market_and_nothing_else() -> None:
    rung = next_rung(POOLS, (refused(POOLS[0], FailureScope.QUOTA),), (), NOON)

    assert rung is not None and rung.pools[0].market == "on-demand"


@pytest.mark.parametrize(
    ("refused_type", "shut", "open_"),
    [
        (
            "c5.xlarge",
            ["m5.large", "r6id.large", "t3.nano", "im4gn.large", "d3en.xlarge"],
            ["dl1.24xlarge", "x2idn.32xlarge"],
        ),
        ("p5.48xlarge", ["p5en.48xlarge"], ["p4d.24xlarge", "p6-b200.48xlarge"]),
        ("p4d.24xlarge", ["p2.xlarge", "p3dn.24xlarge"], ["p5.48xlarge"]),
        ("trn1.32xlarge", ["trn2.48xlarge"], ["t3.large"]),
        ("g5.xlarge", ["vt1.3xlarge", "gr6.4xlarge", "g4dn.xlarge"], ["c5.large"]),
        ("f2.6xlarge", ["f1.2xlarge"], ["inf2.xlarge"]),
        ("inf2.xlarge", ["inf1.xlarge"], ["i4i.large"]),
        ("u-6tb1.metal", ["u7i-12tb.224xlarge"], ["m5.large"]),
    ],
)
def test_a_quota_is_shared_by_the_types_that_ec2_counts_together(
    refused_type: str, shut: list[str], open_: list[str]
) -> None:
    no = refused(Pool("eu-west-1", "eu-west-1a", refused_type), FailureScope.QUOTA)

    there = {name: Pool("eu-west-1", "eu-west-1b", name) for name in (*shut, *open_)}

    assert [name for name, pool in there.items() if excludes(no, pool, NOON)] == shut
    assert not any(excludes(no, replace(pool, region="us-east-1"), NOON) for pool in there.values())
    assert not any(excludes(no, replace(pool, market="on-demand"), NOON) for pool in there.values())


def test_a_region_that_cannot_be_reached_sends_the_launch_to_another() -> None:
    abroad = Pool("us-east-1", "us-east-1a", "g5.xlarge")
    no = refused(POOLS[0], FailureScope.REGION)

    rung = next_rung((*POOLS, abroad), (no,), (), NOON)
    later = next_rung((*POOLS, abroad), (no,), (), NOON + timedelta(minutes=5))

    assert rung is not None and rung.pools == (abroad,)
    assert later is not None and later.pools == POOLS[:3]


def test_a_zone_failure_keeps_out_the_zone_for_every_type() -> None:
    rung = next_rung(POOLS, (refused(POOLS[0], FailureScope.ZONE),), (), NOON)

    assert rung is not None and {p.zone for p in rung.pools} == {"eu-west-1b", "eu-west-1c"}


@pytest.mark.parametrize("scope", [s for s in FailureScope if s is not FailureScope.CONFIGURATION])
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_a_refusal_is_forgotten_after_its_scopes_time(scope: FailureScope, scale: float) -> None:
    refusals = tuple(refused(p, scope) for p in POOLS)
    lasts = REMEMBERED[scope] * scale

    assert next_rung(POOLS, refusals, (), NOON + lasts * 0.99, scale) is None
    assert reopens_at(POOLS, refusals, NOON, scale) == NOON + lasts
    assert next_rung(POOLS, refusals, (), NOON + lasts, scale) is not None
