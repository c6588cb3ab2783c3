"""Reading nearby first: what is wrong with a replica reaches no further than one more request to home."""

from __future__ import annotations

import pytest

from spotrelay.core.errors import Missing, Unavailable
from spotrelay.core.nearest import ENOUGH, Nearest
from spotrelay.core.ports import ObjectStore, StoredObject
from spotrelay.testing import Fault, MemoryObjects, faulty

KEY, BODY = "runs/run-1/shards/a", b"weights"


class Two:
    """A bucket, its replica, and who was asked for what."""

    def __init__(self, fault: Fault = Fault.NONE) -> None:
        self.home, self.copy = MemoryObjects(), MemoryObjects()
        self.stored: StoredObject = self.home.put(KEY, BODY)
        self.home.replicate(self.copy)
        self.asked: list[str] = []
        self.said: list[str] = []
        self.nearest = Nearest(self._watched("replica", self.copy, fault), self._watched("home", self.home), self.tell)

    def tell(self, text: str) -> None:
        self.said.append(text)

    def read(self, key: str = KEY) -> bytes:
        with self.nearest.stream(key, self.stored.version_id if key == KEY else None) as stream:
            body = bytearray(stream.size)
            stream.fill(memoryview(body))
        return bytes(body)

    def _watched(self, name: str, store: MemoryObjects, fault: Fault = Fault.NONE) -> ObjectStore:
        def draw(method: str) -> Fault:
            self.asked.append(name)
            return fault

        found: ObjectStore = faulty(store, draw)
        return found


@pytest.fixture
def two() -> Two:
    return Two()


def test_what_the_replica_has_is_read_there(two: Two) -> None:
    assert two.read() == BODY
    assert (two.asked, two.nearest.trouble) == (["replica"], "")


def test_what_it_lacks_is_read_at_home(two: Two) -> None:
    two.copy.remove(KEY)

    assert two.read() == BODY
    assert two.asked == ["replica", "home"]
    assert KEY in two.nearest.trouble and two.said == [two.nearest.trouble]


def test_what_is_asked_for_again_comes_from_home(two: Two) -> None:
    two.copy.damage(KEY)

    first, second = two.read(), two.read()

    assert first != BODY, "nobody here knows a digest"
    assert second == BODY
    assert two.asked == ["replica", "home"]
    assert "read again, at home" in two.nearest.trouble


def test_whole_objects_go_the_same_way(two: Two) -> None:
    two.copy.damage(KEY)

    assert two.nearest.get(KEY, two.stored.version_id) == BODY
    assert two.asked == ["replica", "home"]


def test_a_replica_that_gives_no_answer_is_soon_left_alone() -> None:
    two = Two(Fault.UNAVAILABLE)
    others = [f"runs/run-1/shards/{number}" for number in range(5)]
    for key in others:
        two.home.put(key, BODY)

    assert [two.read(key) for key in others] == [BODY] * len(others)
    assert two.asked.count("replica") == ENOUGH


def test_what_is_nowhere_is_missed_at_home(two: Two) -> None:
    with pytest.raises(Missing):
        two.nearest.get("runs/run-1/shards/never", "v1")
    assert two.asked == ["replica", "home"]


def test_an_outage_of_home_is_told_as_it_is(two: Two) -> None:
    nearest = Nearest(MemoryObjects(), faulty(two.home, lambda method: Fault.UNAVAILABLE), two.tell)

    with pytest.raises(Unavailable):
        nearest.stream(KEY, two.stored.version_id)


def test_everything_else_goes_to_home(two: Two) -> None:
    two.nearest.put("runs/run-1/shards/b", BODY)

    assert [o.key for o in two.nearest.list_versions("runs/")] == [KEY, "runs/run-1/shards/b"]
    assert two.nearest.head(KEY).size == len(BODY)
    two.nearest.delete(KEY, two.stored.version_id)
    assert (two.asked.count("replica"), len(list(two.copy.list_versions("runs/")))) == (0, 1)
