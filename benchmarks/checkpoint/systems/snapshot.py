"""torchsnapshot."""

from __future__ import annotations

from typing import Any

from benchmarks.checkpoint.systems.system import BUCKET, System
from benchmarks.checkpoint.workload import Training


class Torchsnapshot(System):
    """`async_take`."""

    def prepare(self) -> None:
        import aiobotocore.session  # noqa: F401 - imported by it at its first use
        from torchsnapshot import Snapshot

        self._snapshot: Any = Snapshot

    def save(self) -> None:
        self.number += 1
        self._pending = self._snapshot.async_take(self._uri, _app(self.training))

    def wait(self) -> None:
        self._pending.wait()

    def load(self, training: Training) -> None:
        self._snapshot(self._uri).restore(_app(training))

    @property
    def _uri(self) -> str:
        return f"s3://{BUCKET}/{self.key}"


def _app(training: Training) -> dict[str, Any]:
    return {"model": training.model, "optimizer": training.optimizer}
