"""What S3 may answer besides bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.stub import Stubber
from urllib3 import HTTPResponse

from spotrelay.aws import checksums, streams
from spotrelay.aws.checksums import checksum_of, from_answer
from spotrelay.aws.clients import Clients
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.streams import S3Stream, direct
from spotrelay.core.errors import AlreadyExists, Contention, Damaged, Missing, SpotrelayError, Unavailable


def test_bytes_that_were_damaged_on_their_way_are_not_returned(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)
    objects.put("runs/r1/a", b"whole")
    _tamper(s3)

    with pytest.raises(Damaged, match="runs/r1/a"):
        objects.get("runs/r1/a")


def _tamper(s3: Any) -> None:
    """Flip a bit of every body that arrives, beneath the check."""

    def flip(request: Any, **_: Any) -> AWSResponse:
        answer = s3._endpoint.http_session.send(request)
        body = bytes([answer.content[0] ^ 1]) + answer.content[1:]
        raw = HTTPResponse(
            BytesIO(body), headers=dict(answer.headers), status=answer.status_code, preload_content=False
        )
        return AWSResponse(request.url, answer.status_code, answer.headers, raw)

    s3.meta.events.register("before-send.s3.GetObject", flip)


def test_bytes_that_were_damaged_before_they_arrived_are_not_stored(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)

    def swap(params: dict[str, Any], **_: Any) -> None:
        params["body"] = b"other"

    s3.meta.events.register("before-call.s3.PutObject", swap)
    with pytest.raises(SpotrelayError):
        objects.put("runs/r1/a", b"whole")

    assert list(objects.list_versions("runs/r1/")) == []


def test_a_stream_reads_from_the_connection_itself_and_gives_it_back(clients: Clients, bucket: str) -> None:
    """With a version of the SDK that keeps it elsewhere, restores would be right, and slower."""
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)
    objects.put("runs/r1/a", b"whole")
    found = direct(s3.get_object(Bucket=bucket, Key="runs/r1/a")["Body"])
    memory = memoryview(bytearray(5))
    opened = []
    s3.meta.events.register("before-send.s3.GetObject", lambda **_: opened.append(_connections(s3)))

    for _ in range(3):
        with objects.stream("runs/r1/a") as stream:
            stream.fill(memory)

    assert found is not None
    assert bytes(memory) == b"whole"
    assert opened[1] == opened[2] == _connections(s3)


def _connections(s3: Any) -> int:
    manager = s3._endpoint.http_session._manager
    return sum(manager.pools[key].num_connections for key in manager.pools.keys())  # noqa: SIM118 - it is no mapping


def test_a_stream_without_the_connection_itself_reads_through_the_sdk(
    clients: Clients, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = S3ObjectStore(clients.client("s3"), bucket)
    objects.put("runs/r1/a", b"whole")
    monkeypatch.setattr(streams, "direct", lambda body: None)
    memory = memoryview(bytearray(5))

    with objects.stream("runs/r1/a") as stream:
        stream.fill(memory)

    assert bytes(memory) == b"whole"


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_that_breaks_off_is_an_outage(whole: bool) -> None:
    class Broken:
        def readinto(self, view: memoryview) -> int:
            if whole:
                raise ConnectionResetError("gone")
            return 0

        def close(self) -> None:
            pass

    with S3Stream({"Body": Broken(), "ContentLength": 5}, "reading key") as stream, pytest.raises(Unavailable):
        stream.fill(memoryview(bytearray(5)))


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("PreconditionFailed", 412, AlreadyExists),
        ("ConditionalRequestConflict", 409, Contention),
        ("OperationAborted", 409, Contention),
        ("SlowDown", 503, Contention),
        ("NoSuchBucket", 404, Missing),
        ("AccessDenied", 403, Unavailable),
        ("ExpiredToken", 400, Unavailable),
    ],
)
def test_a_put_that_fails_says_what_to_do(
    offline: Clients, code: str, status: int, error: type[SpotrelayError]
) -> None:
    s3 = offline.client("s3")
    with Stubber(s3) as stub:
        stub.add_client_error("put_object", code, http_status_code=status)
        with pytest.raises(error):
            S3ObjectStore(s3, "bucket").put("key", b"")


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchKey", 404, Missing),
        ("NoSuchVersion", 404, Missing),
        ("MethodNotAllowed", 405, Missing),
        ("404", 404, Missing),
        ("SlowDown", 503, Contention),
        ("InternalError", 500, Unavailable),
        ("AccessDenied", 403, Unavailable),
    ],
)
def test_a_look_that_fails_says_what_to_do(
    offline: Clients, code: str, status: int, error: type[SpotrelayError]
) -> None:
    s3 = offline.client("s3")
    with Stubber(s3) as stub:
        stub.add_client_error("head_object", code, http_status_code=status)
        stub.add_client_error("get_object", code, http_status_code=status)
        for look in (S3ObjectStore(s3, "bucket").head, S3ObjectStore(s3, "bucket").get):
            with pytest.raises(error):
                look("key", "version")


def test_a_put_creates_only_and_declares_its_checksum(offline: Clients) -> None:
    s3 = offline.client("s3")
    with Stubber(s3) as stub:
        stub.add_response(
            "put_object",
            {"ETag": '"e"', "VersionId": "v"},
            {"Bucket": "bucket", "Key": "key", "Body": b"hello", "IfNoneMatch": "*", "ChecksumCRC32C": "mnG7TA=="},
        )
        stored = S3ObjectStore(s3, "bucket").put("key", b"hello")

    assert (stored.version_id, stored.etag, stored.checksum) == ("v", "e", "crc32c:mnG7TA==")


def test_without_awscrt_the_checksum_is_crc32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "crt", None)

    assert checksum_of(b"hello") == "crc32:NhCmhg=="


@pytest.mark.parametrize("step", [1, 3, 64])
def test_a_checksum_does_not_depend_on_the_pieces_it_is_made_of(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = checksum_of(bytes(range(200)))

    monkeypatch.setattr(checksums, "STEP", step)

    assert checksum_of(bytes(range(200))) == whole


def test_a_checksum_of_parts_is_not_taken_for_one_of_the_whole() -> None:
    assert from_answer({"ChecksumCRC32C": "mnG7TA==-3"}) == ""


def test_a_listing_goes_on_where_the_page_before_ended(offline: Clients) -> None:
    s3 = offline.client("s3")
    with Stubber(s3) as stub:
        stub.add_response(
            "list_object_versions",
            _page("a", more=True) | {"NextKeyMarker": "a", "NextVersionIdMarker": "va"},
            {"Bucket": "bucket", "Prefix": "p"},
        )
        stub.add_response(
            "list_object_versions",
            _page("b", more=False),
            {"Bucket": "bucket", "Prefix": "p", "KeyMarker": "a", "VersionIdMarker": "va"},
        )

        listed = list(S3ObjectStore(s3, "bucket").list_versions("p"))

        stub.assert_no_pending_responses()
    assert [(o.key, o.version_id, o.size, o.etag, o.latest) for o in listed] == [
        ("a", "va", 1, "e", True),
        ("b", "vb", 1, "e", True),
    ]


def test_a_listing_of_more_than_a_thousand_versions_is_complete(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)
    for number in range(1010):
        s3.put_object(Bucket=bucket, Key=f"p/{number:04d}", Body=b"")

    assert [o.key for o in objects.list_versions("p/")] == [f"p/{number:04d}" for number in range(1010)]


def _page(key: str, more: bool) -> dict[str, Any]:
    version = {"Key": key, "VersionId": f"v{key}", "Size": 1, "ETag": '"e"', "IsLatest": True}
    return {"Versions": [version], "DeleteMarkers": [{"Key": key, "VersionId": "m"}], "IsTruncated": more}


def test_a_view_that_is_sent_again_is_sent_from_its_beginning(clients: Clients, bucket: str) -> None:
    s3 = clients.client("s3")
    objects = S3ObjectStore(s3, bucket)
    busy = [503]

    def answer_once(request: Any, **_: Any) -> AWSResponse | None:
        if not busy:
            return None
        b"".join(request.body)  # it had gone out when the answer came
        raw = HTTPResponse(BytesIO(), headers={}, status=busy.pop(), preload_content=False)
        return AWSResponse(request.url, raw.status, {}, raw)

    s3.meta.events.register("before-send.s3.PutObject", answer_once)
    objects.put("runs/r1/a", memoryview(b"a whole shard")[2:])

    assert busy == []
    assert objects.get("runs/r1/a") == b"whole shard"
