"""safetensors in memory, then AWS's common runtime in parts."""

from __future__ import annotations

import json
from typing import Any

import torch

from benchmarks.checkpoint.systems.system import BUCKET, CONNECTIONS, System
from benchmarks.checkpoint.workload import Training

PART = 16 * 2**20


class Safetensors(System):
    """Tensors by name; what is no tensor travels in the file's own metadata."""

    def prepare(self) -> None:
        from safetensors.torch import load, save

        from benchmarks.clients.crt import CrtClient

        self._encode, self._decode = save, load
        self._client = CrtClient(self.place.endpoint, CONNECTIONS, whole=PART)

    def save(self) -> None:
        from benchmarks.clients.client import Part

        self.number += 1
        optimizer = self.training.optimizer.state_dict()
        tensors = {f"model/{name}": value for name, value in self.training.model.state_dict().items()}
        for index, entries in optimizer["state"].items():
            tensors.update({f"optimizer/{index}/{name}": value for name, value in entries.items()})
        body = self._encode(tensors, {"groups": json.dumps(optimizer["param_groups"])})
        self._client.put([Part(f"{self.key}/checkpoint.safetensors", memoryview(body))])

    def load(self, training: Training) -> None:
        from benchmarks.clients.client import Part

        key = f"{self.key}/checkpoint.safetensors"
        body = bytearray(self.place.s3().head_object(Bucket=BUCKET, Key=key)["ContentLength"])
        self._client.get([Part(key, memoryview(body))])
        head = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        tensors = self._decode(bytes(body))
        model = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        training.model.load_state_dict(model)
        groups = json.loads(head["__metadata__"]["groups"])
        training.optimizer.load_state_dict({"state": _by_index(tensors), "param_groups": groups})


def _by_index(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, entry = name.split("/")
            found.setdefault(int(index), {})[entry] = value
    return found
