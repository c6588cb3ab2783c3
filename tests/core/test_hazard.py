"""What a machine's age and the lives before it say about its end."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.hazard import MEAN_LIFE_S, Life, learned, mean_life

HOUR = 3600.0
seconds = st.floats(0, 1e7)
lives = st.lists(st.builds(Life, seconds, st.booleans()), max_size=50)


@given(lives=lives, prior=st.floats(60, 1e6), age=seconds, later=seconds)
def test_the_hazard_is_a_number_that_never_grows_with_age(
    lives: list[Life], prior: float, age: float, later: float
) -> None:
    hazard = learned(lives, prior)

    young, old = sorted((age, age + later))
    assert 0 < hazard.rate(old) <= hazard.rate(young) * (1 + 1e-9) < math.inf


@given(lives=lives, prior=st.floats(60, 1e6), life=st.floats(1, 1e6), age=seconds)
def test_the_order_of_lives_does_not_matter(lives: list[Life], prior: float, life: float, age: float) -> None:
    more = [*lives, Life(life, True)]

    assert learned(more, prior).rate(age) == pytest.approx(learned(more[::-1], prior).rate(age), rel=1e-6)


def test_machines_that_went_soon_make_the_next_one_go_sooner_than_machines_that_lasted() -> None:
    soon, late = ([Life(span, True)] * 10 for span in (600.0, 20 * HOUR))

    assert learned(soon, 2 * HOUR).rate(0) > 5 * learned(late, 2 * HOUR).rate(0)


def test_a_machine_that_still_lives_is_evidence_too() -> None:
    assert learned([Life(50 * HOUR, False)], 2 * HOUR).rate(0) < learned([], 2 * HOUR).rate(0)


def test_lives_without_memory_are_recognised() -> None:
    dice = random.Random(1)
    hazard = learned([Life(dice.expovariate(1 / HOUR), True) for _ in range(400)], 10 * HOUR)

    assert hazard.rate(0) == pytest.approx(1 / HOUR, rel=0.2)
    assert hazard.rate(HOUR) == pytest.approx(1 / HOUR, rel=0.2)


def test_heavy_tailed_lives_are_recognised() -> None:
    dice = random.Random(1)
    hazard = learned([Life(900 * (dice.paretovariate(0.8) - 1), True) for _ in range(400)], 10 * HOUR)

    for age in (0.0, HOUR, 5 * HOUR):
        assert hazard.rate(age) == pytest.approx(0.8 / (age + 900), rel=0.25)


def test_scarce_families_are_supposed_to_go_first() -> None:
    assert mean_life("p5.48xlarge") < mean_life("g6e.xlarge") < mean_life("c7i.large") == MEAN_LIFE_S
    assert mean_life("trn2.48xlarge") == mean_life("p3.2xlarge")
    assert mean_life("") == MEAN_LIFE_S
