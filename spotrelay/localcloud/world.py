"""The cloud around EC2, as the emulated EC2 sees it: templates, subnets, roles, events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from spotrelay.localcloud import emulator

_RENEW_BEFORE_S = 300.0


class EmulatedWorld:
    """Answers EC2's questions from MiniStack's state; thread-safe."""

    def __init__(self, endpoint: str, adapt_template: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._endpoint = endpoint
        self._adapt_template = adapt_template
        self._credentials: dict[str, dict[str, Any]] = {}
        self._instances: dict[str, str] = {}
        self._lock = threading.Lock()

    def launch_template(self, id_or_name: str, version: str) -> dict[str, Any]:
        """LaunchTemplateData of one version of a template, with the patches of `patches.py` applied.

        Raises:
            UnknownResource: no such template or version.
        """
        return self._adapt_template(emulator.launch_template(id_or_name, version))

    def subnet(self, subnet_id: str) -> dict[str, str]:
        """SubnetId, AvailabilityZone and VpcId of a subnet.

        Raises:
            UnknownResource: no such subnet.
        """
        return emulator.subnet(subnet_id)

    def emit(self, event: Mapping[str, Any]) -> None:
        """Put an `aws.ec2` event on the default bus of its region."""
        emulator.publish(event, str(event.get("region") or emulator.HOME_REGION))

    def credentials(self, instance_profile: str, instance_id: str) -> dict[str, str]:
        """Credentials of an instance's role, the session named after the instance; renewed when they near their end.

        Raises:
            UnknownResource: no such instance profile, or it holds no role.
        """
        with self._lock:
            known = self._credentials.get(instance_id)
            if known is None or known["Expiration"] - time.time() < _RENEW_BEFORE_S:
                known = emulator.open_session(emulator.instance_role(instance_profile), instance_id)
                self._credentials[instance_id] = known
                self._instances[known["AccessKeyId"]] = instance_id
        return {**known, "Expiration": datetime.fromtimestamp(known["Expiration"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def profile_role(self, instance_profile: str) -> str:
        """ARN of the role in an instance profile, given by name or ARN.

        Raises:
            UnknownResource: no such instance profile, or it holds no role.
        """
        return emulator.role_arn(emulator.instance_role(instance_profile))

    def expire_credentials(self, instance_id: str) -> None:
        """Let an instance's current credentials end now; the next ones it asks for are new."""
        with self._lock:
            known = self._credentials.pop(instance_id, None)
        if known is not None:
            emulator.expire_session(known["AccessKeyId"])

    def instance_of(self, access_key: str) -> str | None:
        """The instance to which an access key was given."""
        return self._instances.get(access_key)

    def policies(self, caller: str) -> list[dict[str, Any]]:
        """Identity policies of a principal's ARN; the account's root may do everything."""
        return emulator.policies_of(caller)

    def instance_environment(self, instance_id: str) -> dict[str, str]:
        """What an instance's processes need to know of this cloud that a real instance knows by its place."""
        return {"AWS_ENDPOINT_URL": self._endpoint}
