"""torch.distributed.checkpoint on AWS's connector."""

from __future__ import annotations

import warnings
from typing import Any

from benchmarks.checkpoint.systems.system import BUCKET, REGION, System
from benchmarks.checkpoint.workload import Training


class Dcp(System):
    """`save`, which returns when everything is stored."""

    def prepare(self) -> None:
        import torch.distributed.checkpoint as dcp
        from s3torchconnector import S3ClientConfig
        from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        warnings.simplefilter("ignore")  # that there is one process only
        self._dcp, self._get, self._set = dcp, get_state_dict, set_state_dict
        self._reader, self._writer = S3StorageReader, S3StorageWriter
        self._config = S3ClientConfig(force_path_style=True)

    def save(self) -> None:
        self.number += 1
        self._dcp.save(self._state(self.training), storage_writer=self._to(), no_dist=True)

    def load(self, training: Training) -> None:
        state = self._state(training)
        self._dcp.load(state, storage_reader=self._reader(REGION, self._uri, self._config), no_dist=True)
        self._set(
            training.model,
            training.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )

    def _to(self) -> Any:
        return self._writer(REGION, self._uri, self._config, overwrite=True)

    @property
    def _uri(self) -> str:
        return f"s3://{BUCKET}/{self.key}/"

    def _state(self, training: Training) -> dict[str, Any]:
        model, optimizer = self._get(training.model, training.optimizer)
        return {"model": model, "optimizer": optimizer}


class DcpAsync(Dcp):
    """`async_save` with one stager for all saves, so that its memory is used again."""

    def __init__(self, place: Any, staged: bool = False) -> None:
        super().__init__(place)
        self._staged = staged  # whether the copy is made in the stager's thread, behind the next forward and backward
        self._staging: Any = None
        self._saving: Any = None

    def prepare(self) -> None:
        super().prepare()
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,
                use_shared_memory=False,
                use_async_staging=self._staged,
                use_non_blocking_copy=False,
            )
        )

    def save(self) -> None:
        self.number += 1
        answer = self._dcp.async_save(
            self._state(self.training), storage_writer=self._to(), async_stager=self._stager, no_dist=True
        )
        self._staging = getattr(answer, "staging_completion", None)
        self._saving = getattr(answer, "upload_completion", answer)

    def held_back(self) -> None:
        if self._staging is not None:
            self._staging.result()

    def wait(self) -> None:
        self._saving.result()

    def end(self) -> None:
        self._stager.close()
