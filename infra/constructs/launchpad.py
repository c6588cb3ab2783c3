"""What a machine is started from in one region: network, launch template, and who may use them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from aws_cdk import CfnParameter, CfnTag, Fn, Stack, aws_ec2, aws_iam
from constructs import Construct

from infra.config import ROOT, Config, Network
from infra.constructs.acknowledge import acknowledge
from infra.constructs.network import Ground

RESUME_SCRIPT = ROOT / "spotrelay" / "instance" / "resume.sh"
IMAGE_PARAMETER = "InstanceImage"  # of the template; its value is the name of an SSM parameter
MANAGED = "spotrelay:managed"  # tag; its value is the stack's name
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
        zones: int,
        network: Network | None,
    ) -> None:
        super().__init__(scope, name)
        self._stack_name = config.stack
        self.ground = Ground(
            self,
            "Ground",
            stack_name=config.stack,
            cidr=config.cidr,
            zones=zones,
            given=network,
            flow_logs=config.flow_logs,
        )
        self.template = self._launch_template(config, facts, instance_profile, image)
        self.arn = _arn(self, "launch-template", self.template.ref)

    def place(self) -> str:
        """This region's entry of SPOTRELAY_PLACES, as JSON text that CloudFormation completes."""
        subnets = ",".join(f'"{zone}":"{subnet}"' for zone, subnet in self.ground.subnets)
        version = self.template.attr_latest_version_number
        return f'{{"launch_template":"{self.template.ref}","version":"{version}","subnets":{{{subnets}}}}}'

    def _launch_template(
        self, config: Config, facts: Facts, instance_profile: str, image: str
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
                        device_name="/dev/sda1" if "ubuntu" in image else "/dev/xvda",
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

    def grant_launch(self, role: aws_iam.Role, instance_role_arn: str) -> None:
        """Start machines from this template, with our tag, under the one role; nothing else.

        Four things must agree for a launch: our template for every part of the machine, image and
        group from the template and not from the request, a subnet of ours, and our tag on it.
        """
        ours = {"ArnEquals": {"ec2:LaunchTemplate": self.arn}}
        tagged = {"StringEquals": {f"aws:RequestTag/{MANAGED}": self._stack_name}}
        from_template = {**ours, "Bool": {"ec2:IsLaunchTemplateResource": "true"}}
        subnets = [_arn(self, "subnet", subnet) for _, subnet in self.ground.subnets]
        group = _arn(self, "security-group", self.ground.security_group)
        parts = [_arn(self, kind, "*") for kind in ("volume", "network-interface", "spot-instances-request")]
        image = _arn(self, "image", "*", account="")
        machine = _arn(self, "instance", "*")
        fleet = _arn(self, "fleet", "*")
        for sid, actions, resources, conditions in (
            ("AskForMachines", ["ec2:CreateFleet"], [fleet, self.arn, *subnets], {}),
            ("AskForTaggedMachines", ["ec2:CreateFleet"], [machine], tagged),
            ("StartTaggedMachines", ["ec2:RunInstances"], [machine], {**ours, **tagged}),
            ("StartTheirParts", ["ec2:RunInstances"], [*parts, self.arn, *subnets], ours),
            ("StartAsTheTemplateSays", ["ec2:RunInstances"], [image, group], from_template),
        ):
            role.add_to_policy(
                aws_iam.PolicyStatement(sid=sid, actions=actions, resources=resources, conditions=conditions)
            )
        self._grant_tagging(role, [machine, *parts])
        grant_pass_role(role, instance_role_arn)

    def _grant_tagging(self, role: aws_iam.Role, resources: list[str]) -> None:
        """Tag machines while they are being created, never afterwards: a tag decides who may end them."""
        role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="TagAtLaunch",
                actions=["ec2:CreateTags"],
                resources=resources,
                conditions={"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}},
            )
        )

    def grant_terminate(self, role: aws_iam.Role) -> None:
        """End machines that carry this stack's tag."""
        role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="EndOurMachines",
                actions=["ec2:TerminateInstances"],
                resources=[_arn(self, "instance", "*")],
                conditions={"StringEquals": {f"aws:ResourceTag/{MANAGED}": self._stack_name}},
            )
        )


def grant_pass_role(role: aws_iam.Role, instance_role_arn: str) -> None:
    """Give machines the instance role: this one, and to EC2 only."""
    role.add_to_policy(
        aws_iam.PolicyStatement(
            sid="PassInstanceRole",
            actions=["iam:PassRole"],
            resources=[instance_role_arn],
            conditions={"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}},
        )
    )


def grant_describe(role: aws_iam.Role) -> None:
    """Look at machines and prices; EC2 knows no narrower resource for this than all."""
    role.add_to_policy(
        aws_iam.PolicyStatement(
            sid="Look", actions=["ec2:DescribeInstances", "ec2:DescribeSpotPriceHistory"], resources=["*"]
        )
    )


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


def _arn(scope: Construct, kind: str, name: str, account: str | None = None) -> str:
    stack = Stack.of(scope)
    owner = stack.account if account is None else account
    return f"arn:{stack.partition}:ec2:{stack.region}:{owner}:{kind}/{name}"
