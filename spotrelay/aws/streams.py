"""An object of S3 on its way into memory that the caller chose, without a copy in between.

The SDK's own stream reads into bytes of its own, copies them into the caller's, and computes S3's checksum
beside. A shard's digest is stronger, so the bytes are taken from the connection itself where it can be reached.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import FlexibleChecksumError
from urllib3.exceptions import HTTPError

from spotrelay.aws.failures import FAILURES
from spotrelay.core.errors import Damaged, Unavailable

BROKEN = (OSError, http.client.HTTPException, HTTPError, *FAILURES)  # what a connection that breaks may raise


class S3Stream:
    """A `Stream` over the answer to a GetObject."""

    def __init__(self, answer: Mapping[str, Any], doing: str) -> None:
        self._body = answer["Body"]
        self._doing = doing
        self._left = int(answer["ContentLength"])
        whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
        self.size = int(whole) if whole.isdigit() else self._left
        self._source = direct(self._body) or self._body

    def fill(self, view: memoryview) -> None:
        """Put the next bytes straight into this memory, all of it."""
        done = 0
        try:
            while done < len(view) and (got := self._source.readinto(view[done:])):
                done += got
        except FlexibleChecksumError as error:  # only where the connection itself was out of reach
            raise Damaged(f"{self._doing}: the bytes do not match S3's own checksum") from error
        except BROKEN as error:
            raise Unavailable(f"{self._doing}: the answer broke off ({type(error).__name__})") from error
        if done < len(view):
            raise Unavailable(f"{self._doing}: the answer ended {self._left - done} bytes too early")
        self._left -= done

    def __enter__(self) -> S3Stream:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._left == 0 and self._source is not self._body:
            self._body._raw_stream.release_conn()  # read to its end: the next request may use it
        else:
            self._body.close()


def direct(body: Any) -> http.client.HTTPResponse | None:
    """The standard library's own response beneath the SDK's stream; None when the SDK keeps it elsewhere."""
    found = getattr(getattr(body, "_raw_stream", None), "_fp", None)
    return found if isinstance(found, http.client.HTTPResponse) else None
