"""Looks are what standing still is counted by: bursts are one, and a time without any begins anew."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spotrelay.core.run import Progress, Silence
from spotrelay.core.silence import looked_again
from spotrelay.core.site import Site
from spotrelay.testing.clock import START

SITE = Site()


@pytest.mark.parametrize(("seconds", "looks"), [(1, 2), (29, 2), (31, 3), (179, 3), (181, 1)])
@pytest.mark.parametrize("kind", [Silence, Progress])
def test_a_look_counts_unless_it_follows_at_once_or_after_a_time_without_any(
    kind: type[Silence], seconds: int, looks: int
) -> None:
    old = kind(1, 7, since=START - timedelta(minutes=4), last_look=START, looks=2)
    now = START + timedelta(seconds=seconds)
    fresh = kind(1, 7, since=now, last_look=now)

    found = looked_again(old, fresh, SITE)

    assert found.looks == looks
    assert found.since == (now if looks == 1 else old.since)
    assert found.last_look == (old.last_look if looks == 2 else now)
