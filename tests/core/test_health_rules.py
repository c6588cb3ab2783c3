"""Divergence, promotion, and what a rollback leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.checkpoint import (
    Checkpoint,
    CheckpointId,
    Commit,
    Health,
    SaveReason,
    Verdict,
    awaiting_verification,
    newest_promoted,
    resume_candidate,
)
from spotrelay.core.errors import InvalidInput
from spotrelay.core.health import Divergence, Judgement, said, worst
from spotrelay.core.promotion import MOST_WAITING, PROBATION_STEPS, Probation
from spotrelay.core.spec import HealthRules, parse_spec

healths = st.sampled_from(Health)
FINE = Judgement(Health.HEALTHY)


def commit(save: int, step: int = 0, generation: int = 1, **given: Any) -> Commit:
    return Commit("run-1", generation, save, step, f"m{save}", "v", "d", 1, **given)


def verified(made: Commit, promoted: bool = False) -> Checkpoint:
    return Checkpoint(made, Verdict(made.generation, made.save, True), promoted)


# divergence


@given(seen=st.lists(healths, max_size=60), bad=st.integers(1, 5), suspect=st.integers(1, 20))
def test_a_run_diverges_exactly_when_ill_steps_follow_one_another_long_enough(
    seen: list[Health], bad: int, suspect: int
) -> None:
    divergence = Divergence(HealthRules(bad_steps=bad, suspect_steps=suspect))

    for step, health in enumerate(seen, start=1):
        told = divergence.see(step, Judgement(health, "why"))

        ill = seen[:step]
        all_bad = step >= bad and all(each is Health.BAD for each in ill[-bad:])
        all_ill = step >= suspect and all(each is not Health.HEALTHY for each in ill[-suspect:])
        assert bool(told) == (all_bad or all_ill)


def test_steps_that_were_not_looked_at_count_as_the_ones_around_them() -> None:
    divergence = Divergence(HealthRules(bad_steps=10))

    assert not divergence.see(100, Judgement(Health.BAD, "the loss is nan"))
    assert divergence.see(110, Judgement(Health.BAD, "the loss is nan")) == "bad for 11 steps: the loss is nan"


@given(st.lists(healths, min_size=1))
def test_the_gravest_judgement_wins(seen: list[Health]) -> None:
    found = worst(Judgement(each) for each in seen).health

    assert found in seen
    assert found is Health.BAD or Health.BAD not in seen
    assert found is not Health.HEALTHY or set(seen) == {Health.HEALTHY}


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (None, Health.HEALTHY),
        (True, Health.HEALTHY),
        ("healthy", Health.HEALTHY),
        (False, Health.SUSPECT),
        ("perplexity is up", Health.SUSPECT),
        ("suspect", Health.SUSPECT),
        ("bad: the routers collapsed", Health.BAD),
        (3, Health.SUSPECT),
        ("x" * 10_000, Health.SUSPECT),
    ],
)
def test_a_scripts_answer_has_one_meaning(answer: object, health: Health) -> None:
    found = said(answer)

    assert found.health is health
    assert bool(found.reason) == (health is not Health.HEALTHY)
    assert len(found.reason) < 400


# promotion


def test_a_checkpoint_is_promoted_once_enough_healthy_steps_and_the_next_judgement_followed() -> None:
    probation = Probation()

    assert probation.committed(commit(1, step=100)) is None
    assert probation.committed(commit(2, step=100 + PROBATION_STEPS - 1)) is None
    assert probation.committed(commit(3, step=100 + PROBATION_STEPS)) == CheckpointId(1, 1)
    assert probation.committed(commit(4, step=100 + 2 * PROBATION_STEPS)) == CheckpointId(1, 3)


@pytest.mark.parametrize("health", [Health.SUSPECT, Health.BAD])
def test_ill_steps_and_ill_checkpoints_speak_against_what_came_before(health: Health) -> None:
    by_step, by_checkpoint = Probation(), Probation()
    for probation in (by_step, by_checkpoint):
        probation.committed(commit(1, step=100))

    by_step.see(Judgement(health, "why"))
    assert by_step.committed(commit(2, step=200)) is None
    assert by_checkpoint.committed(commit(2, step=200, health=health)) is None
    assert by_checkpoint.committed(commit(3, step=300)) is None


def test_a_last_checkpoint_in_a_notice_promotes_others_and_never_itself() -> None:
    probation = Probation()
    probation.committed(commit(1, step=100))

    assert probation.committed(commit(2, step=200, reason=SaveReason.NOTICE)) == CheckpointId(1, 1)
    assert probation.committed(commit(3, step=300)) is None


@given(st.lists(st.tuples(st.integers(0, 30), healths, st.sampled_from(SaveReason), healths), max_size=100))
def test_nothing_is_promoted_that_was_followed_by_illness_or_too_soon(
    history: list[tuple[int, Health, SaveReason, Health]],
) -> None:
    probation = Probation()
    step, ill_at, made = 0, -1, {}
    for save, (steps, of_steps, reason, health) in enumerate(history, start=1):
        step += steps
        if steps:
            probation.see(Judgement(of_steps))
            ill_at = step if of_steps is not Health.HEALTHY else ill_at
        made[save] = commit(save, step, health=health, reason=reason)
        found = probation.committed(made[save])
        ill_at = step if health is not Health.HEALTHY else ill_at
        if found is not None:
            promoted = made[found.save]
            assert promoted.health is Health.HEALTHY and promoted.reason is not SaveReason.NOTICE
            assert step - promoted.step >= PROBATION_STEPS
            assert ill_at <= promoted.step
        assert len(probation._waiting) <= MOST_WAITING


# what a rollback leaves behind


def test_checkpoints_between_the_target_and_the_save_after_a_rollback_are_left_behind() -> None:
    good, astray, later = (verified(commit(n), promoted=n == 1) for n in (1, 2, 3))
    back = verified(commit(4, back_to="1.1"))

    assert resume_candidate((later, astray, good)) == later
    assert resume_candidate((back, later, astray, good)) == back
    pending = Checkpoint(back.commit)
    assert resume_candidate((pending, later, astray, good)) == good
    assert awaiting_verification((pending, Checkpoint(later.commit), good)) == (pending,)
    condemned = Checkpoint(back.commit, Verdict(1, 4, False, "gone"))
    assert resume_candidate((condemned, later, astray, good)) == good


def test_a_rollback_reaches_back_into_earlier_generations() -> None:
    good, astray = verified(commit(7), promoted=True), verified(commit(8), promoted=True)
    back = Checkpoint(commit(1, generation=2, back_to="1.7"))

    assert resume_candidate((back, astray, good)) == good
    assert newest_promoted((back, astray, good)) == good


@given(saves=st.integers(1, 12), target=st.integers(0, 12), after=st.integers(1, 12))
def test_only_what_lies_between_is_left_behind(saves: int, target: int, after: int) -> None:
    rows = [verified(commit(n, back_to=f"1.{target}" if n == after else "")) for n in range(1, saves + 1)]

    found = resume_candidate(tuple(rows))

    left = [n for n in range(1, saves + 1) if not (after <= saves and target < n < after)]
    assert found is not None and found.id.save == max(left)


# the spec


def test_a_spec_switches_rollbacks_on_and_bounds_them() -> None:
    base = {"command": ["true"], "instance_types": ["g5.xlarge"]}

    assert parse_spec(base).health.rollback is False
    rules = parse_spec({**base, "health": {"rollback": True, "max_rollbacks": 2}}).health
    assert (rules.rollback, rules.max_rollbacks) == (True, 2)
    for wrong in ({"bad_steps": 0}, {"suspect_steps": 51}, {"max_rollbacks": 17}, {"window_steps": -1}):
        with pytest.raises(InvalidInput, match=f"health.{next(iter(wrong))}"):
            parse_spec({**base, "health": wrong})
    with pytest.raises(InvalidInput, match=r"did you mean health\.rollback"):
        parse_spec({**base, "health": {"rolback": True}})
