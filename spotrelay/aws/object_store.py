"""The versioned bucket in S3: create-only puts, checked gets, listings of versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import FlexibleChecksumError

from spotrelay.aws.bodies import readable, send_in_place
from spotrelay.aws.checksums import as_header, checksum_of, from_answer
from spotrelay.aws.failures import FAILURES, Kind, code_of, failed_read, failed_write, kind_of
from spotrelay.aws.streams import S3Stream
from spotrelay.core.errors import AlreadyExists, Damaged, Missing, SpotrelayError
from spotrelay.core.ports import Body, StoredObject, size_of

BEYOND_THE_END = frozenset({"InvalidRange", "416"})
NO_SUCH_VERSION = frozenset({"InvalidArgument", "400"})  # a text that never was a version id

NO_SUCH_OBJECT = frozenset({"NoSuchVersion", "NoSuchKey", "404"})


class S3ObjectStore:
    """An `ObjectStore` over one bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket
        send_in_place(client)

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        """Create an object; nothing is ever overwritten. At most 5 GiB, as one PutObject takes."""
        checksum = checksum or checksum_of(body)
        try:
            answer = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=readable(body), IfNoneMatch="*", **as_header(checksum)
            )
        except FAILURES as error:
            raise self._failed_put(error, key) from error
        etag = _bare(answer["ETag"])
        return StoredObject(key, answer.get("VersionId", "null"), size_of(body), etag, True, checksum)

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

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> S3Stream:
        """The bytes of one version as they arrive, compared with nothing."""
        doing = f"reading {_named(self.bucket, key, version_id)}"
        part = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, **_version(version_id), **part)
        except FAILURES as error:
            if code_of(error) in BEYOND_THE_END:
                raise Damaged(f"{doing}: it has no byte at {start}") from error
            raise self._failed_get(error, doing, version_id) from error
        return S3Stream(answer, doing)

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

    def delete(self, key: str, version_id: str) -> None:
        """Take one version out of the bucket for good. S3 says yes to what is gone already as well."""
        doing = f"deleting {_named(self.bucket, key, version_id)}"
        try:
            self._client.delete_object(Bucket=self.bucket, Key=key, VersionId=version_id)
        except FAILURES as error:
            if code_of(error) not in NO_SUCH_VERSION | NO_SUCH_OBJECT:
                raise failed_write(error, doing, self._no_bucket) from error

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


def _version(version_id: str | None) -> dict[str, str]:
    return {} if version_id is None else {"VersionId": version_id}


def _named(bucket: str, key: str, version_id: str | None) -> str:
    return f"{bucket}/{key}" + (f" at version {version_id}" if version_id else "")


def _bare(etag: str) -> str:
    return etag.strip('"')
