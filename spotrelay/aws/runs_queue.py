"""The queue in front of the function that answers for runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from spotrelay.aws.error_codes import bare
from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.errors import Unavailable

BATCH = 10  # messages that one SendMessageBatch takes
LONGEST_S = 900  # that SQS hides a message


class SqsRunsQueue:
    """Hands due runs to as many functions as Lambda will start."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, run_ids: Iterable[str], after: timedelta = timedelta(0)) -> None:
        """Put one message `{"run_id": …}` there for each, ten in a call.

        Args:
            after: how long they stay hidden, in whole seconds as SQS counts them; at most 15 minutes.

        Raises:
            Unavailable: not all of them are there; sending all again is harmless.
        """
        waiting = list(run_ids)
        for start in range(0, len(waiting), BATCH):
            self._send(waiting[start : start + BATCH], min(math.ceil(after.total_seconds()), LONGEST_S))

    def _send(self, run_ids: list[str], delay_s: int) -> None:
        hidden = {"DelaySeconds": delay_s} if delay_s > 0 else {}
        entries = [
            {"Id": str(index), "MessageBody": json.dumps({"run_id": run_id}), **hidden}
            for index, run_id in enumerate(run_ids)
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
