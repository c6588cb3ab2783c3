"""The benchmark's own S3 endpoint speaks as S3 does, where checkpoint libraries listen."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks.checkpoint.sink import Sink, sink
from benchmarks.checkpoint.sink.memory import BLOCK
from spotrelay.aws.checksums import checksum_of
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.core.errors import AlreadyExists, Missing

MIB = 2**20
BUCKET = "bench"


@pytest.fixture(scope="module")
def running() -> Iterator[Sink]:
    with sink(64 * MIB) as found:
        yield found


@pytest.fixture
def client(running: Sink, request: pytest.FixtureRequest) -> Iterator[Any]:
    made = boto3.client(
        "s3",
        endpoint_url=running.endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 2, "mode": "standard"}),
    )
    yield made
    for version in made.list_object_versions(Bucket=BUCKET).get("Versions", []):
        made.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


def test_bytes_come_back_as_they_were_whatever_their_size(client: Any) -> None:
    for size in (0, 1, 1000, BLOCK - 1, BLOCK, 3 * BLOCK + 7):
        body = os.urandom(size)

        client.put_object(Bucket=BUCKET, Key="a/b c+ü", Body=body)

        assert client.get_object(Bucket=BUCKET, Key="a/b c+ü")["Body"].read() == body
        assert client.head_object(Bucket=BUCKET, Key="a/b c+ü")["ContentLength"] == size


def test_a_range_is_that_part_of_the_bytes(client: Any) -> None:
    body = os.urandom(3 * BLOCK)
    client.put_object(Bucket=BUCKET, Key="k", Body=body)

    answer = client.get_object(Bucket=BUCKET, Key="k", Range=f"bytes={BLOCK - 5}-{2 * BLOCK + 5}")

    assert answer["Body"].read() == body[BLOCK - 5 : 2 * BLOCK + 6]
    assert answer["ContentRange"] == f"bytes {BLOCK - 5}-{2 * BLOCK + 5}/{3 * BLOCK}"
    with pytest.raises(ClientError, match="InvalidRange"):
        client.get_object(Bucket=BUCKET, Key="k", Range=f"bytes={3 * BLOCK}-")


def test_what_is_created_is_never_overwritten_and_our_own_adapter_says_so(client: Any) -> None:
    store = S3ObjectStore(client, BUCKET)

    stored = store.put("only", memoryview(b"first"))

    with pytest.raises(AlreadyExists):
        store.put("only", b"second")
    assert store.get("only", stored.version_id) == b"first"
    assert store.head("only") == stored
    with pytest.raises(Missing):
        store.get("other")


def test_each_version_stays_what_it_was(client: Any) -> None:
    first = client.put_object(Bucket=BUCKET, Key="k", Body=b"first")["VersionId"]
    second = client.put_object(Bucket=BUCKET, Key="k", Body=b"second")["VersionId"]

    assert client.get_object(Bucket=BUCKET, Key="k", VersionId=first)["Body"].read() == b"first"
    assert client.get_object(Bucket=BUCKET, Key="k")["VersionId"] == second


def test_listings_come_in_pages_and_in_order(client: Any) -> None:
    for number in range(7):
        client.put_object(Bucket=BUCKET, Key=f"list/{number % 2}/{number}", Body=b"x")
    client.put_object(Bucket=BUCKET, Key="list/1/1", Body=b"again")

    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 3}
    )
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    folders = client.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/")["CommonPrefixes"]
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 3}
    )
    versions = [(entry["Key"], entry["IsLatest"]) for page in pages for entry in page["Versions"]]

    assert keys == sorted(f"list/{number % 2}/{number}" for number in range(7))
    assert [folder["Prefix"] for folder in folders] == ["list/0/", "list/1/"]
    assert len(versions) == 8 and versions.count(("list/1/1", False)) == 1


def test_an_upload_in_parts_becomes_one_object_once_it_is_complete(client: Any) -> None:
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB), b"end"]
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="big")["UploadId"]
    etags = {}
    for number in (3, 1, 2):
        answer = client.upload_part(
            Bucket=BUCKET, Key="big", UploadId=upload, PartNumber=number, Body=parts[number - 1]
        )
        etags[number] = answer["ETag"]

    before = client.list_objects_v2(Bucket=BUCKET, Prefix="big")["KeyCount"]
    listed = [{"PartNumber": number, "ETag": etags[number]} for number in (1, 2, 3)]
    done = client.complete_multipart_upload(
        Bucket=BUCKET, Key="big", UploadId=upload, MultipartUpload={"Parts": listed}
    )

    assert before == 0
    assert client.get_object(Bucket=BUCKET, Key="big", VersionId=done["VersionId"])["Body"].read() == b"".join(parts)


def test_memory_of_what_is_deleted_or_given_up_is_used_again(client: Any, running: Sink) -> None:
    free = running.state()["free_bytes"]
    for _ in range(30):
        client.put_object(Bucket=BUCKET, Key="k", Body=bytes(8 * MIB))
        client.delete_object(Bucket=BUCKET, Key="k")
        upload = client.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"]
        client.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=1, Body=bytes(5 * MIB))
        client.abort_multipart_upload(Bucket=BUCKET, Key="k", UploadId=upload)
        client.put_object(Bucket=BUCKET, Key="taken", Body=b"", IfNoneMatch="*")
        with pytest.raises(ClientError):
            client.put_object(Bucket=BUCKET, Key="taken", Body=bytes(3 * MIB), IfNoneMatch="*")
        client.delete_object(Bucket=BUCKET, Key="taken")

    assert running.state()["free_bytes"] == free


def test_more_than_fits_is_refused(client: Any) -> None:
    with pytest.raises(ClientError, match="InsufficientStorage"):
        client.put_object(Bucket=BUCKET, Key="k", Body=bytes(80 * MIB))


def test_chunks_are_taken_out_of_their_frames_and_the_trailer_is_kept(running: Sink, client: Any) -> None:
    body = os.urandom(200_000)
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:70_000], body[70_000:]))
    checksum = checksum_of(body).removeprefix("crc32c:")
    framed += f"0\r\nx-amz-checksum-crc32c: {checksum}\r\n\r\n".encode()
    plain = _sent(running, f"Content-Length: {len(framed)}\r\n", framed)
    halves = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (framed[:100], framed[100:])) + b"0\r\n\r\n"
    nested = _sent(running, "Transfer-Encoding: chunked\r\n", halves)

    assert plain == nested == b"HTTP/1.1 200 OK"
    for version in client.list_object_versions(Bucket=BUCKET, Prefix="chunked")["Versions"]:
        where = {"Bucket": BUCKET, "Key": "chunked", "VersionId": version["VersionId"]}
        assert client.get_object(**where)["Body"].read() == body
        assert client.head_object(**where, ChecksumMode="ENABLED")["ChecksumCRC32C"] == checksum


def test_several_objects_are_deleted_and_copied_by_one_request(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="one", Body=b"1")
    client.copy_object(Bucket=BUCKET, Key="two", CopySource={"Bucket": BUCKET, "Key": "one"})
    assert client.get_object(Bucket=BUCKET, Key="two")["Body"].read() == b"1"

    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "one"}, {"Key": "two"}]})

    assert client.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_a_flipped_bit_is_one_bit(client: Any, running: Sink) -> None:
    body = os.urandom(2 * BLOCK)
    client.put_object(Bucket=BUCKET, Key="k", Body=body)

    running.flip("k", 8 * BLOCK + 13)

    found = client.get_object(Bucket=BUCKET, Key="k")["Body"].read()
    assert [(at, one ^ two) for at, (one, two) in enumerate(zip(body, found, strict=True)) if one != two] == [
        (BLOCK + 1, 1 << 5)
    ]


def test_a_refused_put_is_tried_again_by_the_client(client: Any, running: Sink) -> None:
    running.fail(1)

    client.put_object(Bucket=BUCKET, Key="k", Body=io.BytesIO(bytes(MIB)))

    assert client.head_object(Bucket=BUCKET, Key="k")["ContentLength"] == MIB


def test_a_slow_endpoint_is_as_slow_as_it_was_told(client: Any, running: Sink) -> None:
    running.pace(bytes_per_s=20e6, first_byte_s=0.02)
    try:
        begun = time.monotonic()
        client.put_object(Bucket=BUCKET, Key="k", Body=bytes(4 * MIB))
        put_s = time.monotonic() - begun
        client.get_object(Bucket=BUCKET, Key="k")["Body"].read()
        get_s = time.monotonic() - begun - put_s
    finally:
        running.pace(0, 0)

    assert put_s > 0.2 and get_s > 0.15


def _sent(running: Sink, header: str, body: bytes) -> bytes:
    """The first line of the answer to a put in aws-chunked encoding."""
    head = f"PUT /{BUCKET}/chunked HTTP/1.1\r\nHost: x\r\nContent-Encoding: aws-chunked\r\n{header}\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.sendall(head.encode() + body)
        return sock.recv(4096).split(b"\r\n")[0]
