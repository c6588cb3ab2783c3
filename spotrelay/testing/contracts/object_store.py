"""What every `ObjectStore` must do."""

from __future__ import annotations

import pytest

from spotrelay.aws.checksums import checksum_of
from spotrelay.core.errors import AlreadyExists, Damaged, InvalidInput, Missing, Unavailable
from spotrelay.core.ports import ObjectStore, StoredObject
from spotrelay.testing.contracts.race import RACERS, of_kind, persistent, race
from spotrelay.testing.contracts.samples import new_id


class ObjectStoreContract:
    """Inherit, and give it `objects`: one versioned bucket, that may be shared by the tests."""

    @pytest.fixture
    def objects(self) -> ObjectStore:
        """The implementation under test."""
        raise NotImplementedError("give the suite its bucket")

    @pytest.fixture
    def rounds(self) -> int:
        """How often each race is run."""
        return 10

    @pytest.fixture
    def prefix(self) -> str:
        """A prefix of the bucket that nobody else uses."""
        return f"runs/{new_id()}/"

    @pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 400])
    def test_an_object_comes_back_as_it_was_put(self, objects: ObjectStore, prefix: str, body: bytes) -> None:
        stored = objects.put(f"{prefix}a", body)

        assert stored.size == len(body)
        assert objects.get(f"{prefix}a") == body
        assert objects.get(f"{prefix}a", stored.version_id) == body

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    def test_a_view_into_a_larger_buffer_comes_back_as_its_own_bytes(
        self, objects: ObjectStore, prefix: str, size: int
    ) -> None:
        buffer = bytearray(range(256)) * 12_000

        stored = objects.put(f"{prefix}a", memoryview(buffer)[7 : 7 + size])

        assert stored == objects.head(f"{prefix}a")
        assert objects.get(f"{prefix}a") == buffer[7 : 7 + size]

    def test_a_checksum_that_was_known_before_is_the_one_that_is_stored(
        self, objects: ObjectStore, prefix: str
    ) -> None:
        stored = objects.put(f"{prefix}a", b"shard", checksum_of(b"shard"))

        assert objects.get(f"{prefix}a") == b"shard"
        assert stored.checksum.partition(":")[2]

    def test_bytes_that_differ_from_their_checksum_are_refused(self, objects: ObjectStore, prefix: str) -> None:
        with pytest.raises(InvalidInput, match="BadDigest"):
            objects.put(f"{prefix}a", b"shard", checksum_of(b"Shard"))

        with pytest.raises(Missing):
            objects.head(f"{prefix}a")

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    @pytest.mark.parametrize("chunk", [1_000_003, 4_000_000])
    def test_a_stream_fills_the_memory_that_it_is_given(
        self, objects: ObjectStore, prefix: str, size: int, chunk: int
    ) -> None:
        body = (bytes(range(256)) * 12_000)[:size]
        stored = objects.put(f"{prefix}a", body)
        memory = memoryview(bytearray(size + 2))

        with objects.stream(f"{prefix}a", stored.version_id) as stream:
            for begin in range(0, size, chunk):
                stream.fill(memory[1 + begin : 1 + min(begin + chunk, size)])

        assert stream.size == size
        assert memory == b"\0" + body + b"\0"

    def test_a_stream_may_begin_anywhere_and_be_left_early(self, objects: ObjectStore, prefix: str) -> None:
        objects.put(f"{prefix}a", bytes(range(200)))
        tail, few = memoryview(bytearray(50)), memoryview(bytearray(3))

        with objects.stream(f"{prefix}a", start=150) as stream:
            stream.fill(tail)
        with objects.stream(f"{prefix}a", start=7) as left_early:
            left_early.fill(few)

        assert (bytes(tail), bytes(few)) == (bytes(range(150, 200)), b"\7\10\11")
        assert stream.size == left_early.size == 200

    def test_a_stream_that_ends_before_the_memory_is_full_says_so(self, objects: ObjectStore, prefix: str) -> None:
        objects.put(f"{prefix}a", b"short")

        with objects.stream(f"{prefix}a") as stream, pytest.raises(Unavailable):
            stream.fill(memoryview(bytearray(6)))
        with pytest.raises(Damaged):
            objects.stream(f"{prefix}a", start=5)

    def test_a_head_tells_what_the_put_told(self, objects: ObjectStore, prefix: str) -> None:
        stored = objects.put(f"{prefix}a", b"shard")

        assert objects.head(f"{prefix}a") == stored
        assert objects.head(f"{prefix}a", stored.version_id).etag == stored.etag
        assert stored.checksum.partition(":")[0] in ("crc32", "crc32c", "crc64nvme")

    def test_nothing_is_ever_overwritten(self, objects: ObjectStore, prefix: str) -> None:
        first = objects.put(f"{prefix}a", b"first")

        for again in (b"first", b"second"):
            with pytest.raises(AlreadyExists):
                objects.put(f"{prefix}a", again)

        assert objects.get(f"{prefix}a") == b"first"
        assert [stored.version_id for stored in objects.list_versions(prefix)] == [first.version_id]

    def test_what_is_not_there_is_missing(self, objects: ObjectStore, prefix: str) -> None:
        objects.put(f"{prefix}a", b"here")
        elsewhere = objects.put(f"{prefix}b", b"there").version_id

        for attempt in (
            lambda: objects.get(f"{prefix}none"),
            lambda: objects.head(f"{prefix}none"),
            lambda: objects.get(f"{prefix}a", elsewhere),
            lambda: objects.stream(f"{prefix}none"),
            lambda: objects.stream(f"{prefix}a", elsewhere),
            lambda: objects.head(f"{prefix}a", elsewhere),
        ):
            with pytest.raises(Missing):
                attempt()

    def test_a_deleted_version_is_gone_for_good_and_deleting_it_again_is_harmless(
        self, objects: ObjectStore, prefix: str
    ) -> None:
        stored, neighbour = objects.put(f"{prefix}a", b"old"), objects.put(f"{prefix}b", b"stays")

        objects.delete(stored.key, stored.version_id)
        objects.delete(stored.key, stored.version_id)

        assert [o.key for o in objects.list_versions(prefix)] == [neighbour.key]
        with pytest.raises(Missing):
            objects.get(stored.key)
        assert objects.put(stored.key, b"new").version_id != stored.version_id

    def test_another_version_of_the_key_is_not_deleted(self, objects: ObjectStore, prefix: str) -> None:
        stored, other = objects.put(f"{prefix}a", b"here"), objects.put(f"{prefix}b", b"there")

        objects.delete(stored.key, other.version_id)

        assert objects.get(stored.key) == b"here"

    def test_a_listing_shows_the_versions_under_its_prefix_and_no_others(
        self, objects: ObjectStore, prefix: str
    ) -> None:
        keys = [f"{prefix}shards/{name}" for name in ("a", "b c+d&%e", "ü/€")]
        stored = {key: objects.put(key, key.encode()) for key in keys}
        objects.put(f"{prefix}manifests/a", b"")

        listed = list(objects.list_versions(f"{prefix}shards/"))

        assert {o.key: (o.version_id, o.size, o.etag) for o in listed} == {
            key: (o.version_id, o.size, o.etag) for key, o in stored.items()
        }
        assert all(o.latest for o in listed)
        assert list(objects.list_versions(f"{prefix}nothing")) == []

    def test_of_many_puts_to_one_key_exactly_one_wins(self, objects: ObjectStore, prefix: str, rounds: int) -> None:
        for number in range(rounds):
            key = f"{prefix}{number}"
            bodies = [f"racer {racer}".encode() for racer in range(RACERS)]

            outcomes = race([lambda b=b, k=key: persistent(lambda: objects.put(k, b)) for b in bodies])  # type: ignore[misc]

            (winner,) = [index for index, o in enumerate(outcomes) if isinstance(o, StoredObject)]
            assert of_kind(outcomes, AlreadyExists) == RACERS - 1
            assert objects.get(key) == bodies[winner]
