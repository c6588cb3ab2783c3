"""All ranks act at the same step, whoever saw the reason, and none waits for one that has left."""

from __future__ import annotations

import time
from typing import Any

from spotrelay.core.checkpoint import SaveReason
from tests.shim.thread_ranks import ThreadRanks, crew, on_all
from trainer_shim.agreement import Agreement, Moment, Word
from trainer_shim.ranks import Alone, Parted


def word(step: int, moment: Moment = Moment.STEP, **about: Any) -> Word:
    return Word(moment, step, **about)


def at_step(agreement: Agreement, said: Word) -> Word | None:
    """One step's exchange, nothing done between hearing and saying."""
    heard = agreement.hear(lambda: said)
    agreement.say(lambda: said)
    return heard


def test_a_process_by_itself_hears_itself_at_once() -> None:
    said = word(1, reason=SaveReason.CADENCE)

    assert at_step(Agreement(Alone()), said) is said


def test_what_one_rank_saw_is_heard_by_all_after_the_next_step() -> None:
    soon = time.monotonic() + 30

    def train(ranks: ThreadRanks) -> list[Word | None]:
        agreement = Agreement(ranks)
        seen = ranks.rank == 2
        return [at_step(agreement, word(step, ending=soon if seen and step >= 3 else None)) for step in range(1, 6)]

    for heard in on_all(crew(4), train):
        assert [each is not None and each.ending is not None for each in heard] == [False, False, False, True, True]
        assert abs(heard[-1].ending - soon) < 1


def test_the_nearest_deadline_counts() -> None:
    now = time.monotonic()

    def ask(ranks: ThreadRanks) -> float | None:
        return Agreement(ranks).now(word(0, Moment.BEGIN, ending=now + 10 * (ranks.rank + 1))).ending

    for ending in on_all(crew(3), ask):
        assert abs(ending - now - 10) < 1


def test_everything_that_one_says_all_hear() -> None:
    def ask(ranks: ThreadRanks) -> Word:
        first = ranks.rank == 0
        wish = SaveReason.REBALANCE if first else None
        return Agreement(ranks).now(word(7, reason=wish, busy=ranks.rank == 1, fenced=first))

    assert on_all(crew(2), ask) == [word(7, reason=SaveReason.REBALANCE, busy=True, fenced=True)] * 2


def test_ranks_at_different_steps_part_with_both_steps_named() -> None:
    def ask(ranks: ThreadRanks) -> Word:
        return Agreement(ranks).now(word(5 + ranks.rank))

    for error in on_all(crew(2), ask):
        assert isinstance(error, Parted)
        assert "5 to 6 steps" in str(error)


def test_a_rank_whose_loop_has_ended_while_others_go_on_is_told_of() -> None:
    def ask(ranks: ThreadRanks) -> Word | None:
        agreement = Agreement(ranks)
        at_step(agreement, word(1))
        return agreement.now(word(1, Moment.FINISH)) if ranks.rank else agreement.now(word(1))

    for error in on_all(crew(2), ask):
        assert isinstance(error, Parted)
        assert "step of its loop where another is at its finish" in str(error)


def test_nobody_waits_for_a_rank_that_has_left() -> None:
    def ask(ranks: ThreadRanks) -> Word | None:
        if ranks.rank == 1:
            ranks.leave()
            return None
        return Agreement(ranks).now(word(1))

    answers = on_all(crew(3), ask)

    assert [type(each) for each in answers] == [Parted, type(None), Parted]
