"""boto3, as it is and with two changes that keep the bytes where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.clients.client import BUCKET, KEYS, REGION, Part, together
from spotrelay.aws.bodies import send_in_place
from spotrelay.aws.checksums import as_header, checksum_of
from spotrelay.aws.object_store import S3ObjectStore


class BotoClient:
    """boto3 as it is: it wants `bytes`, which is a copy, and signs them over http, which is a sha256."""

    def __init__(self, endpoint: str, connections: int, **settings: Any) -> None:
        self._connections = connections
        config = Config(max_pool_connections=connections, **settings)
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name=REGION, config=config, **KEYS)

    def put(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._put, parts)

    def get(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._get, parts)

    def _put(self, part: Part) -> None:
        self.client.put_object(
            Bucket=BUCKET, Key=part.key, Body=bytes(part.view), IfNoneMatch="*", **as_header(checksum_of(part.view))
        )

    def _get(self, part: Part) -> None:
        part.view[:] = self.client.get_object(Bucket=BUCKET, Key=part.key)["Body"].read()


class FileClient(BotoClient):
    """boto3 with a file over the memory, unsigned: it reads and sends it block by block."""

    def __init__(self, endpoint: str, connections: int) -> None:
        super().__init__(endpoint, connections, s3={"payload_signing_enabled": False})

    def _put(self, part: Part) -> None:
        self.client.put_object(
            Bucket=BUCKET, Key=part.key, Body=Memory(part.view), IfNoneMatch="*", **as_header(checksum_of(part.view))
        )


class AdapterClient(BotoClient):
    """boto3 as our own adapter uses it: the memory is put in the file's place just before the request leaves."""

    def __init__(self, endpoint: str, connections: int) -> None:
        super().__init__(endpoint, connections, s3={"payload_signing_enabled": False})
        send_in_place(self.client)
        self._store = S3ObjectStore(self.client, BUCKET)

    def _put(self, part: Part) -> None:
        self._store.put(part.key, part.view)


class HookClient(BotoClient):
    """boto3, unsigned; just before a request is sent, its body becomes the memory itself: one sendall.

    Reading goes past the SDK's and urllib3's buffers, from the socket into the destination.
    """

    def __init__(self, endpoint: str, connections: int) -> None:
        super().__init__(
            endpoint, connections, s3={"payload_signing_enabled": False}, response_checksum_validation="when_required"
        )
        self.client.meta.events.register("before-send.s3.PutObject", _with_memory)

    def _put(self, part: Part) -> None:
        self.client.put_object(
            Bucket=BUCKET, Key=part.key, Body=Memory(part.view), IfNoneMatch="*", **as_header(checksum_of(part.view))
        )

    def _get(self, part: Part) -> None:
        body = self.client.get_object(Bucket=BUCKET, Key=part.key)["Body"]
        left = part.view
        while left and (got := body._raw_stream._fp.readinto(left)):
            left = left[got:]
        body.close()
        if left:
            raise OSError(f"get {part.key}: {len(left)} bytes are missing")


class Memory:
    """As much of a file as botocore looks at before it sends one."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        begin = self._at
        self._at = len(self.view) if size < 0 else min(begin + size, len(self.view))
        return bytes(self.view[begin : self._at])

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere."""
        self._at = offset + (0, self._at, len(self.view))[whence]
        return self._at

    def tell(self) -> int:
        """Where the next bytes come from."""
        return self._at


def _with_memory(request: Any, **rest: Any) -> None:
    body = request.body
    if isinstance(body, Memory):
        request.body = body.view
        request.reset_stream = lambda: None  # memory needs no rewinding when the request is sent again
