"""The part of S3's protocol that checkpoint libraries speak, and a few requests of the benchmark's own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from itertools import islice
from urllib.parse import unquote
from xml.sax.saxutils import escape

from benchmarks.checkpoint.sink.memory import Blocks, OutOfMemory
from benchmarks.checkpoint.sink.objects import Objects, Refused, Stored
from benchmarks.checkpoint.sink.wire import Body, Connection, Pace, Request

OWN = "/_sink"  # no bucket has such a name
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
WHEN = "2026-01-01T00:00:00.000Z"
COPY = "x-amz-copy-source"
XML = {"Content-Type": "application/xml"}
KEPT = ("x-amz-checksum-", "x-amz-meta-", "content-type")
NOT_KEPT = frozenset({"x-amz-checksum-algorithm", "x-amz-checksum-mode"})

Answer = tuple[int, dict[str, str], list[memoryview] | bytes]


class Service:
    """One bucket of any name; answers one request after the other for each connection."""

    def __init__(self, blocks: Blocks) -> None:
        self.pace = Pace()
        self._blocks = blocks
        self._objects = Objects(blocks)
        self._received = 0
        self._first = {"PUT": 0.0, "GET": 0.0}  # when (monotonic) the first since the mark arrived; not our own
        self._failures = 0  # puts that are still to be refused

    def serve(self, connection: Connection) -> None:
        """Everything that arrives, until the other side closes."""
        while True:
            request = connection.head()
            try:
                self._refuse_early(request)
                body = connection.receive(request, self._blocks, self.pace)
            except (OutOfMemory, Refused) as error:
                refused = error if isinstance(error, Refused) else Refused(507, "InsufficientStorage")
                status, headers, content = _error(refused)
                connection.answer(status, {**headers, "Connection": "close"}, content)
                return
            try:
                status, headers, content = self._answer(request, body)
            except Refused as error:
                status, headers, content = _error(error)
                content = b"" if request.method == "HEAD" else content
            connection.answer(status, {"x-amz-request-id": "sink", **headers}, content, self.pace)

    def _refuse_early(self, request: Request) -> None:
        if not self._first.get(request.method, 1.0):
            self._first[request.method] = time.monotonic()
        if request.method == "PUT" and self._failures:
            self._failures -= 1
            raise Refused(503, "SlowDown")

    def _answer(self, request: Request, body: Body) -> Answer:
        _, _, key = request.path.lstrip("/").partition("/")
        kept = False
        try:
            answer = self._handler(request, key)(request, key, body)
            kept = request.method == "PUT" and bool(key) and COPY not in request.headers
        finally:
            if not kept:
                self._blocks.give_back(body.blocks)
        return answer

    def _handler(self, request: Request, key: str) -> Callable[[Request, str, Body], Answer]:
        if request.path.startswith(OWN):
            return self._own
        if not key:
            return self._bucket
        if "uploads" in request.query or "uploadId" in request.query:
            return self._upload
        own = {"PUT": self._put, "GET": self._get, "HEAD": self._get, "DELETE": self._delete}
        return own.get(request.method, _not_here)

    def _own(self, request: Request, key: str, body: Body) -> Answer:
        path, asked = f"/{key}", json.loads(body.text() or b"{}")
        if path == "/flip":
            self._objects.flip(asked["key"], asked["bit"])
        elif path == "/pace":
            self.pace = Pace(asked["bytes_per_s"], asked["first_byte_s"])
        elif path == "/mark":
            self._first = dict.fromkeys(self._first, 0.0)
        elif path == "/fail":
            self._failures = asked["puts"]
        elif path != "/state":
            raise Refused(404, "NoSuchKey")
        state = {
            "free_bytes": self._blocks.free_bytes,
            "received_bytes": self._received,
            "first_put_at": self._first["PUT"],
            "first_get_at": self._first["GET"],
        }
        return 200, {}, json.dumps(state).encode()

    def _put(self, request: Request, key: str, body: Body) -> Answer:
        if COPY in request.headers:
            source = unquote(request.headers[COPY]).lstrip("/").partition("/")[2]
            stored = self._objects.copy(source.partition("?")[0], key)
            return 200, XML, _xml("CopyObjectResult", f"<ETag>{stored.etag}</ETag><LastModified>{WHEN}</LastModified>")
        self._received += body.size
        about = _about({**request.headers, **body.trailers})
        stored = self._objects.put(key, body, about, request.headers.get("if-none-match") == "*")
        return 200, {"ETag": stored.etag, "x-amz-version-id": stored.version, **_checksums(stored)}, b""

    def _get(self, request: Request, key: str, body: Body) -> Answer:
        stored = self._objects.get(key, request.query.get("versionId", ""))
        size = stored.body.size
        begin, end = _range(request.headers.get("range", ""), size)
        headers = {
            "ETag": stored.etag,
            "Last-Modified": DATE,
            "Accept-Ranges": "bytes",
            "x-amz-version-id": stored.version,
            **{name: value for name, value in stored.about.items() if not name.startswith("x-amz-checksum-")},
        }
        status = 206 if (begin, end) != (0, size) or "range" in request.headers else 200
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers.update(_checksums(stored))
        if request.method == "HEAD":
            return status, {**headers, "Content-Length": str(end - begin)}, b""
        return status, headers, _cut(stored.body.segments, begin, end)

    def _delete(self, request: Request, key: str, body: Body) -> Answer:
        self._objects.delete(key, request.query.get("versionId", ""))
        return 204, {}, b""

    def _upload(self, request: Request, key: str, body: Body) -> Answer:
        upload = request.query.get("uploadId", "")
        if request.method == "PUT":
            self._received += body.size
            return 200, {"ETag": self._objects.part(upload, int(request.query["partNumber"]), body)}, b""
        if request.method == "POST" and not upload:
            inner = f"<Key>{escape(key)}</Key><UploadId>{self._objects.begin(key, _about(request.headers))}</UploadId>"
            return 200, XML, _xml("InitiateMultipartUploadResult", inner)
        if request.method == "POST":
            stored = self._objects.complete(upload, request.headers.get("if-none-match") == "*")
            inner = f"<Key>{escape(key)}</Key><ETag>{escape(stored.etag)}</ETag>"
            version = {"x-amz-version-id": stored.version}
            return 200, {**XML, **version}, _xml("CompleteMultipartUploadResult", inner)
        self._objects.abort(upload)
        return 204, {}, b""

    def _bucket(self, request: Request, key: str, body: Body) -> Answer:
        query, prefix = request.query, request.query.get("prefix", "")
        if request.method == "POST" and "delete" in query:
            for name in re.findall(r"<Key>(.*?)</Key>", body.text().decode()):
                self._objects.delete(name)
            return 200, XML, _xml("DeleteResult", "")
        if request.method != "GET":
            return 200, {"x-amz-bucket-region": "us-east-1"}, b""
        if "versions" in query:
            return 200, XML, _versions(self._objects, prefix, query)
        if "location" in query:
            return 200, XML, _xml("LocationConstraint", "")
        return 200, XML, _listing(self._objects, prefix, query)


def _not_here(request: Request, key: str, body: Body) -> Answer:
    raise Refused(405, "MethodNotAllowed")


def _error(error: Refused) -> Answer:
    inner = f"<Code>{error.code}</Code><Message>{error.code}</Message>"
    return error.status, XML, _xml("Error", inner)


def _xml(name: str, inner: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{inner}</{name}>'.encode()


def _about(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith(KEPT) and name not in NOT_KEPT}


def _checksums(stored: Stored) -> dict[str, str]:
    return {name: value for name, value in stored.about.items() if name.startswith("x-amz-checksum-")}


def _range(text: str, size: int) -> tuple[int, int]:
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if match is None:
        return 0, size
    first, last = match.groups()
    begin, end = (size - int(last), size) if not first else (int(first), int(last) + 1 if last else size)
    if begin >= size and size:
        raise Refused(416, "InvalidRange")
    return max(begin, 0), min(end, size)


def _cut(segments: list[memoryview], begin: int, end: int) -> list[memoryview]:
    found, at = [], 0
    for segment in segments:
        if at < end and at + len(segment) > begin:
            found.append(segment[max(begin - at, 0) : end - at])
        at += len(segment)
    return found


def _listing(objects: Objects, prefix: str, query: dict[str, str]) -> bytes:
    after = query.get("continuation-token") or query.get("start-after", "")
    delimiter, most = query.get("delimiter", ""), int(query.get("max-keys", "1000"))
    entries: dict[str, str] = {}
    for stored, newest in objects.list(prefix):
        head, cut, _ = stored.key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        name = prefix + head + cut if cut else stored.key
        if not newest or name <= after or name in entries:
            continue
        inner = f"<Key>{escape(stored.key)}</Key><LastModified>{WHEN}</LastModified><ETag>{escape(stored.etag)}</ETag>"
        inner += f"<Size>{stored.body.size}</Size><StorageClass>STANDARD</StorageClass>"
        entries[name] = (
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if cut
            else f"<Contents>{inner}</Contents>"
        )
    page = list(islice(entries.items(), most))
    more = len(entries) > most
    tail = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
    head = f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}"
    return _xml("ListBucketResult", f"{head}</IsTruncated>{tail}" + "".join(text for _, text in page))


def _versions(objects: Objects, prefix: str, query: dict[str, str]) -> bytes:
    after = (query.get("key-marker", ""), query.get("version-id-marker", ""))
    most = int(query.get("max-keys", "1000"))
    found = list(objects.list(prefix))
    places = [(stored.key, stored.version) for stored, _ in found]
    start = places.index(after) + 1 if after in places else 0
    page = found[start : start + most]
    more = start + most < len(found)
    entries = [
        f"<Version><Key>{escape(stored.key)}</Key><VersionId>{stored.version}</VersionId>"
        f"<IsLatest>{str(newest).lower()}</IsLatest><LastModified>{WHEN}</LastModified>"
        f"<ETag>{escape(stored.etag)}</ETag><Size>{stored.body.size}</Size></Version>"
        for stored, newest in page
    ]
    last = page[-1][0] if page else None
    markers = (
        f"<NextKeyMarker>{escape(last.key)}</NextKeyMarker><NextVersionIdMarker>{last.version}</NextVersionIdMarker>"
        if more and last
        else ""
    )
    return _xml("ListVersionsResult", f"<IsTruncated>{str(more).lower()}</IsTruncated>{markers}" + "".join(entries))
