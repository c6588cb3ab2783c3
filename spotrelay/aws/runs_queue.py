"""The queue in front of the function that answers for runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.errors import Unavailable

TOGETHER = 10  # messages that SQS takes in one call


class SqsRunsQueue:
    """Messages that name a run to be looked at. Doubled ones do no harm."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, run_ids: Iterable[str]) -> None:
        """Put one message `{"run_id": …}` there for each; ten go in one call.

        Raises:
            Unavailable, Contention: not all of them are there; sending all again is harmless.
        """
        names = list(run_ids)
        refused: list[str] = []
        for start in range(0, len(names), TOGETHER):
            refused += self._send_together(names[start : start + TOGETHER])
        if refused:
            raise Unavailable(f"SQS refused {len(refused)} of {len(names)} messages, the first for run {refused[0]}")

    def _send_together(self, run_ids: list[str]) -> list[str]:
        entries = [{"Id": str(at), "MessageBody": json.dumps({"run_id": name})} for at, name in enumerate(run_ids)]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
        except FAILURES as error:
            raise failed_read(error, f"sending {len(run_ids)} runs to their queue") from error
        return [run_ids[int(failed["Id"])] for failed in answer.get("Failed", [])]
