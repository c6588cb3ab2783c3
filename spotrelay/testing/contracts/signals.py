"""What every `Switch` and every `Clock` must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta

import pytest

from spotrelay.core.ports import Clock, Switch


@dataclass(frozen=True)
class SwitchUnderTest:
    """An implementation, and the hand that throws it."""

    switch: Switch
    turn: Callable[[bool], None]


class SwitchContract:
    """Inherit, and give it `thrown`."""

    @pytest.fixture
    def thrown(self) -> SwitchUnderTest:
        """The implementation under test."""
        raise NotImplementedError("give the suite its switch")

    def test_launches_are_allowed_while_the_switch_is_on_and_only_then(self, thrown: SwitchUnderTest) -> None:
        heard = []

        for on in (True, False, True):
            thrown.turn(on)
            heard.append(thrown.switch.launches_allowed())

        assert heard == [True, False, True]


class ClockContract:
    """Inherit, and give it `clock`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The implementation under test."""
        raise NotImplementedError("give the suite its clock")

    def test_the_time_is_aware_and_in_utc_and_does_not_run_backwards(self, clock: Clock) -> None:
        first, second = clock.now(), clock.now()

        assert first.tzinfo is UTC
        assert timedelta(0) <= second - first < timedelta(minutes=1)
