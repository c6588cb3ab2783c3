"""The versioned bucket in S3: create-only puts, checked gets, listings of versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import FlexibleChecksumError

from spotrelay.aws.checksums import as_header, checksum_of, from_answer
from spotrelay.aws.failures import FAILURES, Kind, code_of, failed_read, failed_write, kind_of
from spotrelay.core.errors import AlreadyExists, Damaged, Missing, SpotrelayError
from spotrelay.core.ports import StoredObject

NO_SUCH_VERSION = frozenset({"InvalidArgument", "400"})  # a text that never was a version id


class S3ObjectStore:
    """An `ObjectStore` over one bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def put(self, key: str, body: bytes | memoryview) -> StoredObject:
        """Create an object; nothing is ever overwritten. At most 5 GiB, as one PutObject takes."""
        checksum = checksum_of(body)
        try:
            answer = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=_Readable.of(body), IfNoneMatch="*", **as_header(checksum)
            )
        except FAILURES as error:
            raise self._failed_put(error, key) from error
        return StoredObject(key, answer.get("VersionId", "null"), len(body), _bare(answer["ETag"]), True, checksum)

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The bytes of one version, compared with S3's own checksum on the way."""
        doing = f"reading {_named(self.bucket, key, version_id)}"
        try:
            answer = self._client.get_object(
                Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **_version(version_id)
            )
            body: bytes = answer["Body"].read()
        except FlexibleChecksumError as error:
            raise Damaged(f"{doing}: the bytes do not match S3's own checksum") from error
        except FAILURES as error:
            raise self._failed_get(error, doing, version_id) from error
        return body

    def head(self, key: str, version_id: str | None = None) -> StoredObject:
        """Size, ETag, version and checksum."""
        try:
            answer = self._client.head_object(
                Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **_version(version_id)
            )
        except FAILURES as error:
            doing = f"looking at {_named(self.bucket, key, version_id)}"
            raise self._failed_get(error, doing, version_id) from error
        return StoredObject(
            key,
            answer.get("VersionId", "null"),
            answer["ContentLength"],
            _bare(answer["ETag"]),
            version_id is None,
            from_answer(answer),
        )

    def list_versions(self, prefix: str) -> Iterator[StoredObject]:
        """Every version under a prefix that is not a delete marker; 1,000 a request."""
        marker: dict[str, str] = {}
        while True:
            try:
                page = self._client.list_object_versions(Bucket=self.bucket, Prefix=prefix, **marker)
            except FAILURES as error:
                raise failed_read(error, f"listing {self.bucket}/{prefix}", self._no_bucket) from error
            for version in page.get("Versions", []):
                yield StoredObject(
                    version["Key"],
                    version["VersionId"],
                    version["Size"],
                    _bare(version["ETag"]),
                    version["IsLatest"],
                )
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    @property
    def _no_bucket(self) -> str:
        return f"bucket {self.bucket} is not there; run `spotrelay doctor`"

    def _failed_put(self, error: Exception, key: str) -> SpotrelayError:
        doing = f"writing {self.bucket}/{key}"
        if kind_of(error) is Kind.PRECONDITION:
            return AlreadyExists(f"{doing}: the key is taken; read it, it may be your own earlier try")
        return failed_write(error, doing, self._no_bucket)

    def _failed_get(self, error: Exception, doing: str, version_id: str | None) -> SpotrelayError:
        if version_id is not None and code_of(error) in NO_SUCH_VERSION:
            return Missing(f"{doing}: there is no such version")
        absent = self._no_bucket if code_of(error) == "NoSuchBucket" else "it is not there"
        return failed_read(error, doing, absent)


class _Readable:
    """Bytes of somebody else's memory as a file, so that a request sends them without a copy."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @staticmethod
    def of(body: bytes | memoryview) -> Any:
        """What botocore takes for these bytes; it takes no memoryview."""
        return body if isinstance(body, bytes) else _Readable(body.cast("B"))

    def read(self, size: int = -1) -> memoryview:
        """The next bytes; none at the end."""
        begin = self._at
        self._at = len(self._view) if size < 0 else min(begin + size, len(self._view))
        return self._view[begin : self._at]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere; a request that is sent again begins at 0."""
        self._at = offset + (0, self._at, len(self._view))[whence]
        return self._at

    def tell(self) -> int:
        """Where the next bytes come from."""
        return self._at

    def __len__(self) -> int:
        return len(self._view)


def _version(version_id: str | None) -> dict[str, str]:
    return {} if version_id is None else {"VersionId": version_id}


def _named(bucket: str, key: str, version_id: str | None) -> str:
    return f"{bucket}/{key}" + (f" at version {version_id}" if version_id else "")


def _bare(etag: str) -> str:
    return etag.strip('"')
