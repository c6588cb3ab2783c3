from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from spotrelay.core.live import Heartbeat, Phase
from spotrelay.instance.heartbeats import Beater
from spotrelay.instance.logbook import Logbook
from spotrelay.testing.faults import Fault, Script, faulty
from spotrelay.testing.store import MemoryStore
from tests.instance.attempts import RUN, a_run, a_spec
from tests.instance.machine import eventually

SOON = timedelta(milliseconds=10)


class Watched:
    """A store of one run whose heartbeats a test waits for."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.create(a_run(a_spec()))

    def beat(self) -> Heartbeat | None:
        return self.store.load(RUN).heartbeat(1)

    def counter(self) -> int:
        beat = self.beat()
        return beat.counter if beat else 0


def test_the_counter_grows_and_the_phase_is_told(tmp_path: Path) -> None:
    watched = Watched()
    beater = Beater(watched.store, Logbook(), RUN, 1, SOON, tmp_path / "attached")
    beater.start()
    eventually(lambda: watched.counter() >= 3, "three beats were written")

    beater.enter(Phase.SETUP)

    eventually(lambda: (b := watched.beat()) is not None and b.phase is Phase.SETUP, "the phase was told")
    beater.stop(timedelta(seconds=5))


def test_a_new_phase_is_told_at_once_however_long_the_interval(tmp_path: Path) -> None:
    watched = Watched()
    beater = Beater(watched.store, Logbook(), RUN, 1, timedelta(hours=1), tmp_path / "attached")
    beater.start()
    eventually(lambda: watched.counter() == 1, "the first beat was written")

    beater.enter(Phase.SETUP)

    eventually(lambda: watched.counter() == 2, "the phase was told")
    beater.stop(timedelta(seconds=5))


def test_no_beat_follows_once_the_shim_has_attached(tmp_path: Path) -> None:
    watched = Watched()
    beater = Beater(watched.store, Logbook(), RUN, 1, SOON, tmp_path / "attached")
    beater.start()
    eventually(lambda: watched.counter() >= 1, "the first beat was written")

    (tmp_path / "attached").touch()
    eventually(lambda: not beater.alive, "the agent stopped beating")

    watched.store.beat(Heartbeat(RUN, 1, 1000, Phase.TRAINING))
    beater.stop(timedelta(seconds=5))
    assert watched.counter() == 1000


def test_a_table_that_refuses_stops_nothing_and_is_told_once(tmp_path: Path) -> None:
    watched = Watched()
    logbook = Logbook()
    live = faulty(watched.store, Script({"beat": [Fault.UNAVAILABLE] * 3}))
    beater = Beater(live, logbook, RUN, 1, SOON, tmp_path / "attached")

    beater.start()

    eventually(lambda: watched.counter() >= 4, "it beat again")
    beater.stop(timedelta(seconds=5))
    assert logbook.tail().count("no heartbeat can be written") == 1
    assert logbook.tail().count("heartbeats are written again") == 1


def test_trouble_is_told_with_the_beat(tmp_path: Path) -> None:
    watched = Watched()
    beater = Beater(watched.store, Logbook(), RUN, 1, SOON, tmp_path / "attached", lambda: "log: no bucket")

    beater.start()

    eventually(lambda: (b := watched.beat()) is not None and b.trouble == "log: no bucket", "the trouble was told")
    beater.stop(timedelta(seconds=5))
