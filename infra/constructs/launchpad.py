"""What a machine is started from in one region: network, launch template and resume script."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from aws_cdk import CfnParameter, CfnTag, Fn, Stack, aws_ec2
from constructs import Construct

from infra.config import Config, Network
from infra.constructs.launching import MANAGED, Pad
from infra.constructs.network import Ground
from infra.host import ROOT

RESUME_SCRIPT = ROOT / "spotrelay" / "instance" / "resume.sh"
IMAGE_PARAMETER = "InstanceImage"  # of the template; its value is the name of an SSM parameter
USER_DATA_MOST = 16 * 1024  # bytes before base64, EC2's limit
RESOLVED_GROWTH = 64  # bytes that a token may grow by when CloudFormation fills it in


class UserDataTooLong(Exception):
    """The resume script with its values would not fit into EC2's user data. Shorten the script."""


@dataclass(frozen=True)
class Facts:
    """The static values that a booting machine is told; none of them is a secret."""

    agent_bucket: str
    agent_key: str
    agent_sha256: str
    table: str
    bucket: str
    bus: str
    home_region: str
    stack: str
    python: str
    time_scale: str = "1"


class Launchpad(Construct):
    """One launch template: no market options, since each launch decides Spot or on-demand for itself."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        config: Config,
        *,
        facts: Facts,
        instance_profile: str,
        image: str,
        boots_from: str,
        zones: int,
        network: Network | None,
    ) -> None:
        super().__init__(scope, name)
        self.ground = Ground(
            self,
            "Ground",
            stack_name=config.stack,
            cidr=config.cidr,
            zones=zones,
            given=network,
            flow_logs=config.flow_logs,
        )
        self.template = self._launch_template(config, facts, instance_profile, image, boots_from)

    def place(self) -> str:
        """This region's entry of SPOTRELAY_PLACES, as JSON text that CloudFormation completes."""
        subnets = ",".join(f'"{zone}":"{subnet}"' for zone, subnet in self.ground.subnets)
        version = self.template.attr_latest_version_number
        return f'{{"launch_template":"{self.template.ref}","version":"{version}","subnets":{{{subnets}}}}}'

    def _launch_template(
        self, config: Config, facts: Facts, instance_profile: str, image: str, boots_from: str
    ) -> aws_ec2.CfnLaunchTemplate:
        kind = aws_ec2.CfnLaunchTemplate
        tags = [CfnTag(key=MANAGED, value=config.stack), *(CfnTag(key=k, value=v) for k, v in config.tags.items())]
        return kind(
            self,
            "Template",
            launch_template_data=kind.LaunchTemplateDataProperty(
                image_id=image_id(self, image),
                user_data=Fn.base64(user_data(facts)),
                iam_instance_profile=kind.IamInstanceProfileProperty(name=instance_profile),
                security_group_ids=[self.ground.security_group],
                instance_initiated_shutdown_behavior="terminate",
                metadata_options=kind.MetadataOptionsProperty(
                    http_endpoint="enabled",
                    http_tokens="required",
                    http_put_response_hop_limit=2,  # one more than a container is away
                    instance_metadata_tags="enabled",
                ),
                block_device_mappings=[
                    kind.BlockDeviceMappingProperty(
                        device_name=boots_from,
                        ebs=kind.EbsProperty(
                            volume_size=config.volume_gib,
                            volume_type="gp3",
                            encrypted=True,
                            delete_on_termination=True,
                        ),
                    )
                ],
                tag_specifications=[
                    kind.TagSpecificationProperty(resource_type=what, tags=tags)
                    for what in ("instance", "volume", "network-interface")
                ],
            ),
        )

    @property
    def pad(self) -> Pad:
        """What a grant must name."""
        subnets = tuple(subnet for _, subnet in self.ground.subnets)
        return Pad(Stack.of(self).region, self.template.ref, subnets, self.ground.security_group)


def user_data(facts: Facts) -> str:
    """The resume script with its static values, each quoted for the shell.

    Raises:
        UserDataTooLong: EC2 would refuse the launch template.
    """
    values = {
        "AGENT_BUCKET": facts.agent_bucket,
        "AGENT_KEY": facts.agent_key,
        "AGENT_SHA256": facts.agent_sha256,
        "TABLE": facts.table,
        "BUCKET": facts.bucket,
        "BUS": facts.bus,
        "HOME_REGION": facts.home_region,
        "STACK": facts.stack,
        "PYTHON": facts.python,
        "TIME_SCALE": facts.time_scale,
    }
    script = RESUME_SCRIPT.read_text()
    for name, value in values.items():
        script = script.replace(f"@{name}@", shlex.quote(value))
    size = len(script.encode()) + RESOLVED_GROWTH * len(values)
    if size > USER_DATA_MOST:
        raise UserDataTooLong(f"user data of about {size} bytes: EC2 takes {USER_DATA_MOST}. Shorten resume.sh")
    return script


def image_id(scope: Construct, image: str) -> str:
    """The AMI: as given, or what the parameter says at each deployment, which pins it until the next."""
    if image.startswith("ami-"):
        return image
    parameter = CfnParameter(
        Stack.of(scope),
        IMAGE_PARAMETER,
        type="AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        default=image,
        description="SSM parameter that names the AMI of the instances.",
    )
    return parameter.value_as_string
