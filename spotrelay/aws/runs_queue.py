"""The queue in front of the function that answers for runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from spotrelay.aws.error_codes import bare
from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.errors import Unavailable

BATCH = 10  # messages that one SendMessageBatch takes


class SqsRunsQueue:
    """Hands due runs to as many functions as Lambda will start."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, run_ids: Iterable[str]) -> None:
        """Put one message `{"run_id": …}` there for each, ten in a call.

        Raises:
            Unavailable: not all of them are there; sending all again is harmless.
        """
        waiting = list(run_ids)
        for start in range(0, len(waiting), BATCH):
            self._send(waiting[start : start + BATCH])

    def _send(self, run_ids: list[str]) -> None:
        entries = [
            {"Id": str(index), "MessageBody": json.dumps({"run_id": run_id})} for index, run_id in enumerate(run_ids)
        ]
        doing = f"queueing {len(run_ids)} due runs"
        try:
            answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
        except FAILURES as error:
            raise Unavailable(
                str(failed_read(error, doing, "the queue is not there; run `spotrelay doctor`"))
            ) from error
        failed = answer.get("Failed") or []
        if failed:
            codes = ", ".join(sorted({bare(entry.get("Code", "")) for entry in failed}))
            raise Unavailable(f"{doing}: {len(failed)} were not taken ({codes}); send all of them again")
