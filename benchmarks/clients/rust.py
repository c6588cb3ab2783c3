"""Clients written in Rust: obstore, and the one under s3torchconnector."""

from __future__ import annotations

from collections.abc import Sequence

import obstore
from obstore.store import S3Store
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

from benchmarks.clients.client import BUCKET, REGION, Part, together


class ObstoreClient:
    """obstore takes memory as it is, and hands out memory of its own."""

    def __init__(self, endpoint: str, connections: int) -> None:
        self._connections = connections
        self._store = S3Store(
            BUCKET,
            endpoint=endpoint,
            region=REGION,
            access_key_id="test",
            secret_access_key="test",
            virtual_hosted_style_request=False,
            unsigned_payload=True,
            checksum_algorithm="CRC64NVME",
            client_options={"allow_http": True},
        )

    def put(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._put, parts)

    def get(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._get, parts)

    def _put(self, part: Part) -> None:
        obstore.put(self._store, part.key, part.view, mode="create", use_multipart=False)

    def _get(self, part: Part) -> None:
        part.view[:] = memoryview(obstore.get(self._store, part.key).bytes())


class MountpointClient:
    """What s3torchconnector stands on. Takes `bytes`, always uploads in parts, and tells no version."""

    def __init__(self, endpoint: str, connections: int) -> None:
        self._connections = connections
        self._client = MountpointS3Client(
            REGION, "bench", throughput_target_gbps=10.0, endpoint=endpoint, force_path_style=True
        )

    def put(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._put, parts)

    def get(self, parts: Sequence[Part]) -> None:
        together(self._connections, self._get, parts)

    def _put(self, part: Part) -> None:
        stream = self._client.put_object(BUCKET, part.key)
        for start in range(0, len(part.view), 2**23):
            stream.write(bytes(part.view[start : start + 2**23]))
        stream.close()

    def _get(self, part: Part) -> None:
        at = 0
        for chunk in self._client.get_object(BUCKET, part.key):
            part.view[at : at + len(chunk)] = chunk
            at += len(chunk)
