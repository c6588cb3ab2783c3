"""What EC2 needs of the cloud around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class World(Protocol):
    """The rest of the cloud, as EC2 sees it. Every method may be called from any thread."""

    def launch_template(self, id_or_name: str, version: str) -> dict[str, Any]:
        """LaunchTemplateData of one version, in boto3's shape; UserData is base64 there.

        Raises:
            Exception: any; there is no such template or version.
        """

    def subnet(self, subnet_id: str) -> Mapping[str, str]:
        """SubnetId, AvailabilityZone and VpcId.

        Raises:
            Exception: any; there is no such subnet.
        """

    def emit(self, event: dict[str, Any]) -> None:
        """Put an `aws.ec2` event onto the default bus of its region."""

    def credentials(self, instance_profile: str, instance_id: str) -> Mapping[str, Any]:
        """AccessKeyId, SecretAccessKey, Token and Expiration of an instance's role; its own, no other instance's."""

    def profile_role(self, instance_profile: str) -> str:
        """ARN of the role in an instance profile, given by name or ARN.

        Raises:
            Exception: any; there is no such profile.
        """

    def policies(self, caller: str) -> list[dict[str, Any]]:
        """Identity policies of a caller's ARN."""

    def instance_environment(self, instance_id: str) -> Mapping[str, str]:
        """Environment variables that put an instance's processes into this cloud."""
