"""A stand-in for AWS FIS, which no emulator has: refuses what the service's own model does not describe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

Interrupt = Callable[[str], Any]  # from an instance's id


def check_request(service: str, operation: str, request: dict[str, Any]) -> None:
    """Raise where the SDK would refuse the request, and where it has a name that the SDK does not know."""
    shape: Any = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    validate_parameters(request, shape)


class FaultInjection:
    """The operations that the test uses, as a client has them."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._numbers = itertools.count(1)
        self.templates: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.refusals: list[str] = []  # reasons with which the next experiments fail at once
        self.calls: list[str] = []

    def create_experiment_template(self, **request: Any) -> dict[str, Any]:
        self._called("CreateExperimentTemplate", request)
        for action in request["actions"].values():
            assert set(action["targets"].values()) <= set(request["targets"])
        found = {**request, "id": f"EXT{next(self._numbers)}"}
        self.templates[found["id"]] = found
        return {"experimentTemplate": found}

    def start_experiment(self, **request: Any) -> dict[str, Any]:
        self._called("StartExperiment", request)
        template = self.templates[request["experimentTemplateId"]]
        found = {"id": f"EXP{next(self._numbers)}", "tags": request["tags"], "state": {"status": "completed"}}
        self.experiments[found["id"]] = found
        if self.refusals:
            found["state"] = {"status": "failed", "reason": self.refusals.pop(0)}
            return {"experiment": found}
        for target in template["targets"].values():
            for arn in target["resourceArns"]:
                self._interrupt(arn.rpartition("/")[2])
        return {"experiment": found}

    def get_experiment(self, **request: Any) -> dict[str, Any]:
        self._called("GetExperiment", request)
        return {"experiment": self.experiments[request["id"]]}

    def stop_experiment(self, **request: Any) -> dict[str, Any]:
        self._called("StopExperiment", request)
        self.experiments[request["id"]]["state"] = {"status": "stopped"}
        return {"experiment": self.experiments[request["id"]]}

    def delete_experiment_template(self, **request: Any) -> dict[str, Any]:
        self._called("DeleteExperimentTemplate", request)
        if request["id"] not in self.templates:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": request["id"]}}, "Delete")
        return {"experimentTemplate": self.templates.pop(request["id"])}

    def get_paginator(self, operation: str) -> _Pages:
        pages = {
            "list_experiments": ("experiments", self.experiments),
            "list_experiment_templates": ("experimentTemplates", self.templates),
        }
        key, found = pages[operation]
        return _Pages([{key: [one]} for one in found.values()])

    def _called(self, operation: str, request: dict[str, Any]) -> None:
        check_request("fis", operation, request)
        self.calls.append(operation)


class _Pages:
    def __init__(self, pages: list[dict[str, Any]]) -> None:
        self._pages = pages

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        return iter(self._pages)
