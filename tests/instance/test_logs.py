from __future__ import annotations

import io
from datetime import timedelta

from spotrelay.core.errors import AlreadyExists, Missing
from spotrelay.instance.logbook import CHUNK_BYTES, Logbook
from spotrelay.instance.logship import LogShipper, chunk_key
from spotrelay.testing.faults import Fault, Script, at, faulty
from spotrelay.testing.objects import MemoryObjects

SOON = timedelta(milliseconds=20)


def shipper(objects: MemoryObjects, logbook: Logbook) -> LogShipper:
    return LogShipper(objects, logbook, "run-1", 2, SOON)


def chunks(objects: MemoryObjects) -> list[bytes]:
    keys = sorted(stored.key for stored in objects.list_versions("runs/run-1/logs/000002/"))
    assert keys == [chunk_key("run-1", 2, number) for number in range(1, len(keys) + 1)]
    return [objects.get(key) for key in keys]


def test_only_whole_lines_are_taken_until_the_end() -> None:
    logbook = Logbook()
    logbook.write(b"one\ntwo\nthr")

    assert logbook.take() == b"one\ntwo\n"
    assert logbook.take() == b""
    assert logbook.take(everything=True) == b"thr"


def test_a_line_of_the_agent_starts_on_a_line_of_its_own_and_is_shown_on_the_console() -> None:
    console = io.BytesIO()
    logbook = Logbook(console)
    logbook.write(b"no end")

    logbook.say("hello")

    assert logbook.take().startswith(b"no end\nspotrelay +")
    assert console.getvalue().endswith(b"hello\n")
    assert b"no end" not in console.getvalue()


def test_a_console_on_a_full_disk_harms_nobody() -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    logbook = Logbook(Full())

    logbook.say("first")
    logbook.say("second")

    assert b"second" in logbook.take()


def test_the_tail_is_bounded_in_bytes_and_ends_with_the_newest() -> None:
    logbook = Logbook()
    logbook.write("ä".encode() * 5000 + b"the end")

    tail = logbook.tail()

    assert len(tail.encode()) <= 4096
    assert tail.endswith("the end")


def test_bytes_that_are_no_text_do_not_make_the_tail_longer_than_its_bound() -> None:
    logbook = Logbook()
    logbook.write(b"\xff" * 10000 + b"the end")

    assert len(logbook.tail().encode()) <= 4096
    assert logbook.tail().endswith("the end")


def test_what_does_not_fit_into_memory_is_dropped_oldest_first_and_said() -> None:
    logbook = Logbook(pending_bytes=10)
    logbook.write(b"0123456789abcde\n")

    assert logbook.take() == b"\nspotrelay: 6 bytes of log were lost, because they could not be shipped\n6789abcde\n"


def test_chunks_arrive_once_and_in_order() -> None:
    objects, logbook = MemoryObjects(), Logbook()
    ship = shipper(objects, logbook)
    logbook.write(b"one\n")
    ship.flush(SOON)
    logbook.write(b"two\n" * CHUNK_BYTES)

    assert ship.flush(SOON)

    assert b"".join(chunks(objects)) == b"one\n" + b"two\n" * CHUNK_BYTES
    assert len(chunks(objects)) == 5


def test_a_running_log_is_shipped_while_it_grows() -> None:
    objects, logbook = MemoryObjects(), Logbook()
    ship = shipper(objects, logbook)
    ship.start()
    logbook.write(b"one\n")
    from tests.instance.machine import eventually

    eventually(lambda: chunks(objects) == [b"one\n"], "the first chunk was shipped")
    logbook.write(b"two\n")
    eventually(lambda: chunks(objects) == [b"one\n", b"two\n"], "the second chunk was shipped")
    assert ship.close(SOON)


def test_a_lost_reply_does_not_ship_a_chunk_twice() -> None:
    objects, logbook = MemoryObjects(), Logbook()
    ship = shipper(faulty(objects, at("put", 1, Fault.LOST_REPLY)), logbook)
    logbook.write(b"one\n")

    assert ship.flush(timedelta(seconds=1))

    assert b"".join(chunks(objects)).count(b"one\n") == 1


def test_a_chunk_that_s3_refuses_is_shipped_later_and_the_trouble_is_known_meanwhile() -> None:
    objects, logbook = MemoryObjects(), Logbook()
    ship = shipper(faulty(objects, Script({"put": [Fault.UNAVAILABLE] * 3})), logbook)
    logbook.write(b"one\n")

    assert not ship.flush(timedelta(0))
    assert "does not answer" in ship.trouble
    assert ship.flush(timedelta(seconds=2))

    assert ship.trouble == ""
    assert b"".join(chunks(objects)).startswith(b"one\nspotrelay +")


def test_a_key_that_somebody_else_has_used_is_left_alone() -> None:
    objects, logbook = MemoryObjects(), Logbook()
    objects.put(chunk_key("run-1", 2, 1), b"another machine's\n")
    ship = shipper(objects, logbook)
    logbook.write(b"one\n")

    assert ship.flush(SOON)

    assert chunks(objects) == [b"another machine's\n", b"one\n"]


def test_a_bucket_that_is_not_there_is_told_once_and_nothing_fails() -> None:
    class Gone(MemoryObjects):
        def put(self, key: str, body: bytes, checksum: str = "") -> None:  # type: ignore[override]
            raise Missing("the bucket is not there")

    logbook = Logbook()
    ship = shipper(Gone(), logbook)
    logbook.write(b"one\n")

    assert not ship.flush(SOON)

    assert logbook.tail().count("the bucket is not there") == 1


def test_already_exists_is_an_error_of_the_port_and_not_of_the_log() -> None:
    objects = MemoryObjects()
    objects.put("k", b"")
    try:
        objects.put("k", b"")
    except AlreadyExists:
        return
    raise AssertionError("the fake must refuse to overwrite, or the tests above prove nothing")
