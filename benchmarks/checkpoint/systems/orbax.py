"""Orbax. It cannot write to S3."""

from __future__ import annotations

import os
from typing import Any

import torch

from benchmarks.checkpoint.systems.system import OnDisk
from benchmarks.checkpoint.workload import Training


class Orbax(OnDisk):
    """Its asynchronous checkpointer, given NumPy views of the tensors."""

    def prepare(self) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import orbax.checkpoint as ocp

        self._checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())

    def save(self) -> None:
        self.number += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{index:05d}": tensor.detach().numpy() for index, tensor in enumerate(self.training.tensors())}
        self._checkpointer.save(self.path, arrays)

    def wait(self) -> None:
        self._checkpointer.wait_until_finished()

    def end(self) -> None:
        self._checkpointer.close()

    def load(self, training: Training) -> None:
        found: dict[str, Any] = self._checkpointer.restore(self.path)
        for group in training.optimizer.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.empty_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                training.optimizer.state[parameter] = {**moments, "step": torch.zeros(())}
        with torch.no_grad():
            for index, tensor in enumerate(training.tensors()):
                tensor.copy_(torch.from_numpy(found[f"{index:05d}"]).reshape(tensor.shape))
