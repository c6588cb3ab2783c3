"""torch.save into memory, then boto3's transfer manager."""

from __future__ import annotations

import io

import torch

from benchmarks.checkpoint.systems.system import BUCKET, System
from benchmarks.checkpoint.workload import Training


class TorchSave(System):
    """What most scripts do."""

    def prepare(self) -> None:
        self._client = self.place.s3()

    def save(self) -> None:
        self.number += 1
        file = io.BytesIO()
        torch.save({"model": self.training.model.state_dict(), "optimizer": self.training.optimizer.state_dict()}, file)
        file.seek(0)
        self._client.upload_fileobj(file, BUCKET, f"{self.key}/checkpoint.pt")

    def load(self, training: Training) -> None:
        file = io.BytesIO()
        self._client.download_fileobj(BUCKET, f"{self.key}/checkpoint.pt", file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
