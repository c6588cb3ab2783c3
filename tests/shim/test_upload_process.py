"""The upload process against S3 over HTTP: what it sends, what it says, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import xxhash

from spotrelay.core.errors import AlreadyExists, Unavailable
from tests.instance.cloud import BUCKET, Cloud
from tests.shim.world import eventually
from trainer_shim.shards import Plan, ShardPlan
from trainer_shim.staging import Places, StagingBuffer
from trainer_shim.uploading import process
from trainer_shim.uploading.process import CarrierThere, UploadProcess

SIZES = (70_000, 1, 3_000_000)


@pytest.fixture
def uploader(emulator: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadProcess]:
    """A process that talks to the emulated S3."""
    for name, value in {
        "AWS_ENDPOINT_URL": emulator.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    made = UploadProcess("us-east-1", BUCKET)
    yield made
    made.close()


def loaded(uploader: UploadProcess, fill: int = 7) -> tuple[CarrierThere, list[bytes]]:
    """A carrier over a buffer with three shards, and what they hold."""
    begins = [0, 73_728, 77_824]
    plan = Plan(
        tuple(ShardPlan(n, begins[n], begins[n] + SIZES[n], b"", (), frozenset()) for n in range(3)), 4_000_000, {}
    )
    buffer = StagingBuffer()
    memory = buffer.reserve(plan.size)
    bodies = []
    for shard in plan.shards:
        bodies.append(bytes((fill * n + shard.index) % 251 for n in range(shard.size)))
        memory[shard.begin : shard.end] = bodies[-1]
    return uploader.carrier(buffer, [shard.size for shard in plan.shards], Places(plan, buffer.size, 1.0)), bodies


def fresh(name: str) -> str:
    return f"runs/uploads/{os.urandom(8).hex()}/{name}"


def test_what_arrives_is_what_stands_in_the_shared_buffer(uploader: UploadProcess, emulator: Cloud) -> None:
    carrier, bodies = loaded(uploader)
    keys = [fresh(str(shard)) for shard in range(3)]

    with ThreadPoolExecutor(3) as threads:
        seals = list(threads.map(carrier.seal, range(3)))
        stored = list(threads.map(carrier.put, range(3), keys, seals))

    assert [each.digest for each in seals] == [xxhash.xxh3_128_hexdigest(body) for body in bodies]
    client = emulator.client("s3")
    for key, body, each in zip(keys, bodies, stored, strict=True):
        assert client.get_object(Bucket=BUCKET, Key=key, VersionId=each.version_id)["Body"].read() == body
        assert (each.key, each.size, each.checksum.partition(":")[0]) == (key, len(body), "crc32c")


def test_a_key_that_is_taken_is_the_same_error_as_here(uploader: UploadProcess) -> None:
    carrier, _ = loaded(uploader)
    key = fresh("0")
    carrier.put(0, key, carrier.seal(0))

    with pytest.raises(AlreadyExists, match=key):
        carrier.put(2, key, carrier.seal(2))


def test_a_process_that_was_killed_is_followed_by_another(uploader: UploadProcess) -> None:
    carrier, bodies = loaded(uploader)
    carrier.seal(0)
    assert uploader._process is not None
    first = uploader._process.pid

    os.kill(first, signal.SIGKILL)
    eventually(lambda: uploader._process is None, "its end is noticed")

    assert carrier.seal(2).digest == xxhash.xxh3_128_hexdigest(bodies[2])
    assert uploader._process is not None and uploader._process.pid != first


def test_who_waits_when_the_process_dies_is_told_so(uploader: UploadProcess) -> None:
    carrier, _ = loaded(uploader)
    carrier.seal(0)
    assert uploader._process is not None
    os.kill(uploader._process.pid, signal.SIGSTOP)
    said: list[Exception] = []

    def ask() -> None:
        try:
            carrier.seal(2)
        except Unavailable as error:
            said.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    eventually(lambda: uploader._waiting, "the question is under way")
    os.kill(uploader._process.pid, signal.SIGKILL)
    waiting.join(20)

    assert [str(error) for error in said] == ["the upload process has ended"]


def test_a_process_that_is_stuck_is_ended_and_followed_by_another(
    uploader: UploadProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier, bodies = loaded(uploader)
    carrier.seal(0)
    assert uploader._process is not None
    os.kill(uploader._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(process, "LONGEST_S", 0.3)

    with pytest.raises(Unavailable, match="has ended"):
        carrier.seal(1)
    monkeypatch.setattr(process, "LONGEST_S", 60.0)

    assert carrier.seal(2).digest == xxhash.xxh3_128_hexdigest(bodies[2])


def test_signals_to_the_whole_group_leave_it_to_the_training_process(uploader: UploadProcess) -> None:
    carrier, bodies = loaded(uploader)
    carrier.seal(0)
    assert uploader._process is not None
    pid = uploader._process.pid

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, each)

    assert carrier.seal(1).digest == xxhash.xxh3_128_hexdigest(bodies[1])
    assert uploader._process is not None and uploader._process.pid == pid


def test_it_ends_with_the_process_that_attached(uploader: UploadProcess) -> None:
    carrier, _ = loaded(uploader)
    carrier.seal(0)
    process = uploader._process
    assert process is not None and uploader._socket is not None

    uploader._socket.shutdown(2)

    assert process.wait(20) in (0, -signal.SIGKILL)


def test_a_buffer_that_grew_is_shared_anew(uploader: UploadProcess) -> None:
    buffer = StagingBuffer()
    for size in (10_000, 5_000_000):
        plan = Plan((ShardPlan(0, 0, size, b"", (), frozenset()),), size, {})
        memory = buffer.reserve(size)
        memory[:size] = bytes([size % 251]) * size

        carrier = uploader.carrier(buffer, [size], Places(plan, buffer.size, 1.0))

        assert carrier.seal(0).digest == xxhash.xxh3_128_hexdigest(bytes([size % 251]) * size)
