"""AWS's common runtime: its S3 client by itself, and as s3transfer uses it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import botocore.session
from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
from awscrt.s3 import S3ChecksumAlgorithm, S3ChecksumConfig, S3ChecksumLocation, S3Client, S3RequestType
from botocore.config import Config
from s3transfer.crt import (
    BotocoreCRTCredentialsWrapper,
    BotocoreCRTRequestSerializer,
    CRTTransferManager,
    create_s3_crt_client,
)

from benchmarks.clients.client import BUCKET, REGION, Part

LARGE = 2**30  # bytes; below this one request is one object
GBIT = 10.0  # what the client may assume of the network, its own default; it makes connections accordingly


class CrtClient:
    """awscrt's S3Client. Reads the memory through a file, which is a copy; hands out chunks as `bytes`."""

    def __init__(self, endpoint: str, connections: int, whole: int = LARGE) -> None:
        group = EventLoopGroup(2)
        credentials = AwsCredentialsProvider.new_static("test", "test")
        self._client = S3Client(
            bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
            region=REGION,
            credential_provider=credentials,
            tls_mode=_tls_off(),
            part_size=16 * 2**20,
            multipart_upload_threshold=whole,
            throughput_target_gbps=GBIT,
        )
        self._host = endpoint.removeprefix("http://")

    def put(self, parts: Sequence[Part]) -> None:
        checksum = S3ChecksumConfig(algorithm=S3ChecksumAlgorithm.CRC32C, location=S3ChecksumLocation.TRAILER)
        begun = []
        for part in parts:
            headers = self._headers()
            headers.add("Content-Length", str(len(part.view)))
            headers.add("If-None-Match", "*")
            request = HttpRequest("PUT", f"/{BUCKET}/{part.key}", headers, Reader(part.view))
            begun.append(
                self._client.make_request(type=S3RequestType.PUT_OBJECT, request=request, checksum_config=checksum)
            )
        for each in begun:
            each.finished_future.result(60)

    def get(self, parts: Sequence[Part]) -> None:
        begun = []
        for part in parts:

            def take(chunk: bytes, offset: int, view: memoryview = part.view, **rest: Any) -> None:
                view[offset : offset + len(chunk)] = chunk

            request = HttpRequest("GET", f"/{BUCKET}/{part.key}", self._headers())
            begun.append(self._client.make_request(type=S3RequestType.GET_OBJECT, request=request, on_body=take))
        for each in begun:
            each.finished_future.result(60)

    def _headers(self) -> HttpHeaders:
        headers = HttpHeaders()
        headers.add("Host", self._host)
        return headers


class TransferClient:
    """boto3's transfer manager on the common runtime. Neither takes memory nor tells a version."""

    def __init__(self, endpoint: str, connections: int) -> None:
        session = botocore.session.get_session()
        session.set_credentials("test", "test")
        wrapper = BotocoreCRTCredentialsWrapper(session.get_credentials())
        client = create_s3_crt_client(
            REGION, wrapper.to_crt_credentials_provider(), target_throughput=GBIT * 1e9 / 8, use_ssl=False
        )
        serializer = BotocoreCRTRequestSerializer(
            session,
            {"endpoint_url": endpoint, "region_name": REGION, "config": Config(s3={"addressing_style": "path"})},
        )
        self._manager = CRTTransferManager(client, serializer)

    def put(self, parts: Sequence[Part]) -> None:
        jobs = [
            self._manager.upload(Reader(part.view), BUCKET, part.key, {"ChecksumAlgorithm": "CRC32C"}) for part in parts
        ]
        for each in jobs:
            each.result()

    def get(self, parts: Sequence[Part]) -> None:
        writers = [Writer(part.view) for part in parts]
        jobs = [self._manager.download(BUCKET, part.key, writer) for part, writer in zip(parts, writers, strict=True)]
        for each in jobs:
            each.result()


class Reader(io.RawIOBase):
    """Memory as a file."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readinto(self, room: Any) -> int:
        part = self._view[self._at : self._at + len(room)]
        room[: len(part)] = part
        self._at += len(part)
        return len(part)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._view))[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class Writer(io.RawIOBase):
    """A file that fills memory."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def write(self, chunk: Any) -> int:
        self._view[self._at : self._at + len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def writable(self) -> bool:
        return True


def _tls_off() -> Any:
    from awscrt.s3 import S3RequestTlsMode

    return S3RequestTlsMode.DISABLED
