"""The fault wrappers do what their names say, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spotrelay.core.errors import Contention, LostRace, OutcomeUnknown, Unavailable
from spotrelay.core.placement import Rung
from spotrelay.testing import Crash, Fault, ManualClock, MemoryMachines, MemoryObjects, MemoryStore, Script, faulty
from spotrelay.testing.contracts.samples import NOON, POOL, new_run
from spotrelay.testing.faults import at


def test_a_crash_before_leaves_nothing_behind() -> None:
    store, run = MemoryStore(), new_run()

    with pytest.raises(Crash):
        faulty(store, at("create", 1, Fault.CRASH_BEFORE)).create(run)

    assert list(store.all_runs()) == []


def test_a_crash_after_leaves_the_whole_effect_behind() -> None:
    store, run = MemoryStore(), new_run()

    with pytest.raises(Crash):
        faulty(store, at("create", 1, Fault.CRASH_AFTER)).create(run)

    assert store.load(run.run_id).version == 1


def test_no_handler_of_ordinary_errors_survives_a_crash() -> None:
    assert not issubclass(Crash, Exception)


def test_a_lost_reply_takes_effect_and_is_not_known() -> None:
    store, run = MemoryStore(), new_run()
    store.create(run)
    before = store.load(run.run_id)

    with pytest.raises(OutcomeUnknown):
        faulty(store, at("save", 1, Fault.LOST_REPLY)).save(before, replace(before, launches=1))

    assert store.load(run.run_id).launches == 1


def test_a_lost_reply_hides_a_refusal_as_well() -> None:
    store, run = MemoryStore(), new_run()
    store.create(run)
    before = store.load(run.run_id)
    store.save(before, before)

    with pytest.raises(OutcomeUnknown) as caught:
        faulty(store, at("save", 1, Fault.LOST_REPLY)).save(before, before)

    assert isinstance(caught.value.__cause__, LostRace)


@pytest.mark.parametrize(("fault", "error"), [(Fault.THROTTLE, Contention), (Fault.UNAVAILABLE, Unavailable)])
def test_a_throttle_or_an_outage_takes_no_effect(fault: Fault, error: type[Exception]) -> None:
    machines = MemoryMachines()
    request = machines.prepare("r1", 1, 1, Rung((POOL,), "test"))

    with pytest.raises(error):
        faulty(machines, at("launch", 1, fault)).launch(request, NOON)

    assert machines.machines == []


def test_a_lost_answer_to_a_read_is_an_outage() -> None:
    with pytest.raises(Unavailable):
        faulty(MemoryObjects(), at("head", 1, Fault.LOST_REPLY)).head("key")


def test_a_lost_answer_breaks_a_stream_off_in_its_middle() -> None:
    objects = MemoryObjects()
    objects.put("key", b"0123456789")
    memory = memoryview(bytearray(10))

    with faulty(objects, at("stream", 1, Fault.LOST_REPLY)).stream("key") as stream:
        stream.fill(memory[:4])
        with pytest.raises(Unavailable):
            stream.fill(memory[4:8])

    assert bytes(memory) == b"0123" + bytes(6)


def test_a_stale_read_repeats_the_answer_to_the_same_question() -> None:
    store, run = MemoryStore(), new_run()
    store.create(run)
    seen = faulty(store, Script({"load": [Fault.NONE, Fault.STALE, Fault.NONE]}))

    first = seen.load(run.run_id)
    store.save(first, replace(first, launches=1))

    assert [seen.load(run.run_id).launches for _ in range(2)] == [0, 1]


def test_a_stale_listing_is_a_fresh_iterator_each_time() -> None:
    objects = MemoryObjects()
    objects.put("a", b"")
    seen = faulty(objects, Script({"list_versions": [Fault.NONE, Fault.STALE]}))

    first = [stored.key for stored in seen.list_versions("")]
    objects.put("b", b"")

    assert [stored.key for stored in seen.list_versions("")] == first == ["a"]


def test_a_script_goes_by_method_and_ends_without_faults() -> None:
    script = Script({"save": [Fault.THROTTLE], "*": [Fault.UNAVAILABLE]})

    drawn = [script(name) for name in ("save", "save", "load", "load")]

    assert drawn == [Fault.THROTTLE, Fault.NONE, Fault.UNAVAILABLE, Fault.NONE]


def test_what_never_touches_the_world_never_fails() -> None:
    always = faulty(ManualClock(), lambda method: Fault.CRASH_BEFORE)

    assert always.now() == ManualClock().now()
