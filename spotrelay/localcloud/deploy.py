"""Deploys a CDK cloud assembly as the CDK CLI does: assets to the bootstrap bucket, then the template."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any, Protocol

from spotrelay.localcloud import patches

_ACCOUNT = "000000000000"
_BOOTSTRAP_VERSION = "30"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_STACK_S = 180.0
_POLL_S = 0.1
_LONGEST_REASON = 500
_PLACEHOLDER_IMAGE = "ami-0123456789abcdef0"
_DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


class DeployFailed(Exception):
    """A stack could not be deployed; the message names the resource or the file, and the reason."""


class Target(Protocol):
    """The cloud that is deployed to."""

    time_scale: float

    @property
    def region(self) -> str:
        """Home region, for stacks that do not name one."""

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client of its administrator."""

    def pace_schedule(self, group: str, name: str, every_s: float) -> None:
        """Call a schedule's target every so many seconds."""


def deploy_assembly(cloud: Target, assembly: Path, wanted: str | None = None) -> dict[str, str]:
    """Deploy every stack of an assembly in its order, patch what was deployed, return a stack's outputs.

    Raises:
        DeployFailed: no such assembly or stack, or a stack failed.
    """
    manifest_path = assembly / "manifest.json"
    if not manifest_path.exists():
        raise DeployFailed(f"{assembly} is no cloud assembly: it has no manifest.json; synthesise the app first")
    artifacts = json.loads(manifest_path.read_text())["artifacts"]
    outputs: dict[str, dict[str, str]] = {}
    name = wanted
    for artifact_id in _in_order(artifacts):
        stack = _Stack(cloud, assembly, artifact_id, artifacts)
        stack.upload_assets()
        stack.provide_parameters()
        outputs[stack.name] = stack.create_or_update()
        if stack.region == cloud.region:
            name = wanted or stack.name
        _patch(cloud, stack)
    if name is None or name not in outputs:
        raise DeployFailed(f"the assembly has no stack {wanted}; it has {', '.join(outputs) or 'none at all'}")
    return outputs[name]


class _Stack:
    """One stack of an assembly on its way into the cloud."""

    def __init__(self, cloud: Target, assembly: Path, artifact_id: str, artifacts: dict[str, Any]) -> None:
        artifact = artifacts[artifact_id]
        properties = artifact["properties"]
        region = artifact["environment"].rsplit("/", 1)[-1]
        self.region = cloud.region if region == "unknown-region" else region
        self.name = str(properties.get("stackName", artifact_id))
        self.template = json.loads((assembly / properties["templateFile"]).read_text())
        self._template_file = str(properties["templateFile"])
        self._template_url = ""
        self._parameters = dict(properties.get("parameters", {}))
        self._assembly = assembly
        self._cloud = cloud
        self._asset_manifests = [
            assembly / artifacts[name]["properties"]["file"]
            for name in artifact.get("dependencies", [])
            if artifacts[name]["type"] == "cdk:asset-manifest"
        ]

    def client(self, service: str) -> Any:
        """An administrator's client in the stack's region."""
        return self._cloud.client(service, region=self.region)

    def upload_assets(self) -> None:
        """Put the file assets, the template among them, where the CDK keeps them; their bucket is made when missing.

        Raises:
            DeployFailed: an asset is missing, or the template is not among them.
        """
        s3 = self.client("s3")
        for manifest in self._asset_manifests:
            for asset in json.loads(manifest.read_text()).get("files", {}).values():
                for destination in asset["destinations"].values():
                    bucket = _filled(destination["bucketName"], self.region)
                    _ensure_bucket(s3, bucket, self.region)
                    key = _filled(destination["objectKey"], self.region)
                    s3.put_object(Bucket=bucket, Key=key, Body=_asset_body(self._assembly, asset["source"]))
                    if str(asset["source"].get("path")) == self._template_file:
                        self._template_url = f"https://s3.amazonaws.com/{bucket}/{key}"

        if not self._template_url:
            raise DeployFailed(f"stack {self.name}: its template is not among its assets; synthesise the app again")

    def provide_parameters(self) -> None:
        """Make the SSM parameters that the template reads and this account does not have."""
        ssm = self.client("ssm")
        for name, parameter in self.template.get("Parameters", {}).items():
            if not str(parameter.get("Type", "")).startswith("AWS::SSM::Parameter::Value") or name in self._parameters:
                continue
            wanted = str(parameter["Default"])
            if ssm.get_parameters(Names=[wanted])["Parameters"]:
                continue
            value = _BOOTSTRAP_VERSION if "cdk-bootstrap" in wanted else _PLACEHOLDER_IMAGE
            self._parameters[name] = wanted if not wanted.startswith("/aws/") else f"/local{wanted}"
            ssm.put_parameter(Name=self._parameters[name], Value=value, Type="String", Overwrite=True)

    def create_or_update(self) -> dict[str, str]:
        """Create the stack, or update it when it is there; its outputs."""
        formation = self.client("cloudformation")
        request = {
            "StackName": self.name,
            "TemplateURL": self._template_url,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            "Parameters": [{"ParameterKey": k, "ParameterValue": str(v)} for k, v in self._parameters.items()],
        }
        if self._exists(formation):
            try:
                formation.update_stack(**request)
            except formation.exceptions.ClientError as why:
                if "No updates are to be performed" not in str(why):
                    raise DeployFailed(f"stack {self.name} cannot be updated: {why}") from why
        else:
            self._create(formation, request)
        return self._await(formation)

    def physical_id(self, logical_id: str) -> str:
        """Name or id that the cloud gave to a resource of the template."""
        resources = self.client("cloudformation").describe_stack_resources(
            StackName=self.name, LogicalResourceId=logical_id
        )["StackResources"]
        return str(resources[0]["PhysicalResourceId"])

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Logical id → properties of the template's resources of a type."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.template.get("Resources", {}).items()
            if resource["Type"] == kind
        }

    def _exists(self, formation: Any) -> bool:
        try:
            stacks = formation.describe_stacks(StackName=self.name)["Stacks"]
        except formation.exceptions.ClientError:
            return False
        return bool(stacks) and stacks[0]["StackStatus"] not in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS")

    def _create(self, formation: Any, request: dict[str, Any]) -> None:
        try:
            formation.create_stack(**request, OnFailure="DO_NOTHING")
        except formation.exceptions.ClientError as why:
            message = str(why.response["Error"].get("Message", ""))[:_LONGEST_REASON]
            raise DeployFailed(f"stack {self.name} cannot be created: {message}") from why

    def _await(self, formation: Any) -> dict[str, str]:
        deadline = time.monotonic() + _STACK_S
        while True:
            stack = formation.describe_stacks(StackName=self.name)["Stacks"][0]
            if stack["StackStatus"] in _DONE:
                return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
            if "FAILED" in stack["StackStatus"] or "ROLLBACK" in stack["StackStatus"]:
                raise DeployFailed(f"stack {self.name} is {stack['StackStatus']}: {_failures(formation, self.name)}")
            if time.monotonic() > deadline:
                raise DeployFailed(f"stack {self.name} is still {stack['StackStatus']} after {_STACK_S:.0f} s")
            time.sleep(_POLL_S)


def _patch(cloud: Target, stack: _Stack) -> None:
    """Set what the emulator drops, and scale the clocks: the part of `patches.py` that follows a deployment."""
    for logical_id, properties in stack.resources("AWS::Lambda::Function").items():
        _patch_function(cloud, stack, logical_id, properties)
    for logical_id, properties in stack.resources("AWS::SQS::Queue").items():
        _patch_queue(cloud, stack, logical_id, properties)
    for logical_id, properties in stack.resources("AWS::S3::Bucket").items():
        if "ReplicationConfiguration" in properties:
            _patch_replication(stack, stack.physical_id(logical_id), properties["ReplicationConfiguration"])
    for kind in ("AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable"):
        for logical_id in stack.resources(kind):
            stack.client("dynamodb").update_continuous_backups(
                TableName=stack.physical_id(logical_id),
                PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
            )
    if cloud.time_scale != 1.0:
        for logical_id, properties in stack.resources("AWS::Scheduler::Schedule").items():
            _pace(cloud, stack, logical_id, properties)


def _patch_function(cloud: Target, stack: _Stack, logical_id: str, properties: dict[str, Any]) -> None:
    functions, name = stack.client("lambda"), stack.physical_id(logical_id)
    deployed = functions.get_function_configuration(FunctionName=name)
    variables = deployed.get("Environment", {}).get("Variables", {})
    change: dict[str, Any] = {}
    if patches.SCALE_VARIABLE in variables and cloud.time_scale != 1.0:
        change["Environment"] = {"Variables": {**variables, patches.SCALE_VARIABLE: repr(cloud.time_scale)}}
    dead_letter = properties.get("DeadLetterConfig", {}).get("TargetArn")
    if dead_letter and not deployed.get("DeadLetterConfig", {}).get("TargetArn"):
        change["DeadLetterConfig"] = {"TargetArn": _queue_arn(stack, dead_letter)}
    if change:
        functions.update_function_configuration(FunctionName=name, **change)
    if "ReservedConcurrentExecutions" in properties:
        functions.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=int(properties["ReservedConcurrentExecutions"])
        )


def _patch_queue(cloud: Target, stack: _Stack, logical_id: str, properties: dict[str, Any]) -> None:
    if cloud.time_scale == 1.0 or "VisibilityTimeout" not in properties:
        return
    seconds = patches.visibility_s(int(properties["VisibilityTimeout"]), cloud.time_scale)
    stack.client("sqs").set_queue_attributes(
        QueueUrl=stack.physical_id(logical_id), Attributes={"VisibilityTimeout": str(seconds)}
    )


def _patch_replication(stack: _Stack, bucket: str, wanted: dict[str, Any]) -> None:
    rules = [
        {
            "ID": rule["Id"],
            "Priority": rule["Priority"],
            "Status": rule["Status"],
            "Filter": rule["Filter"],
            "DeleteMarkerReplication": rule["DeleteMarkerReplication"],
            "Destination": {"Bucket": _arn_of_bucket(rule["Destination"]["Bucket"])},
        }
        for rule in wanted["Rules"]
    ]
    role = f"arn:aws:iam::{_ACCOUNT}:role/{stack.physical_id(wanted['Role']['Fn::GetAtt'][0])}"
    stack.client("s3").put_bucket_replication(Bucket=bucket, ReplicationConfiguration={"Role": role, "Rules": rules})


def _arn_of_bucket(value: Any) -> str:
    """A bucket's ARN, in which a template leaves the partition open."""
    if isinstance(value, str):
        return value
    return "".join(part if isinstance(part, str) else "aws" for part in value["Fn::Join"][1])


def _pace(cloud: Target, stack: _Stack, logical_id: str, properties: dict[str, Any]) -> None:
    scheduler = stack.client("scheduler")
    group, name = str(properties.get("GroupName", "default")), stack.physical_id(logical_id).rsplit("/", 1)[-1]
    found = scheduler.get_schedule(Name=name, GroupName=group)
    kept = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target", "Description")
    scheduler.update_schedule(**{key: found[key] for key in kept if key in found}, State="DISABLED")
    cloud.pace_schedule(group, name, patches.tick_every_s(found["ScheduleExpression"], cloud.time_scale))


def _queue_arn(stack: _Stack, reference: Any) -> str:
    """ARN of the queue to which a template refers by Fn::GetAtt."""
    if not isinstance(reference, dict) or "Fn::GetAtt" not in reference:
        raise DeployFailed(f"stack {stack.name}: a function's dead-letter queue is not one of the stack: {reference}")
    url = stack.physical_id(reference["Fn::GetAtt"][0])
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])


def _in_order(artifacts: dict[str, Any]) -> list[str]:
    """Ids of the stacks, each after those that it depends on."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for dependency in artifacts[name].get("dependencies", []):
            visit(dependency)
        if artifacts[name]["type"] == "aws:cloudformation:stack" and name not in ordered:
            ordered.append(name)

    for name in artifacts:
        visit(name)
    return ordered


def _filled(text: str, region: str) -> str:
    pseudo = {"${AWS::AccountId}": _ACCOUNT, "${AWS::Region}": region, "${AWS::Partition}": "aws"}
    for name, value in pseudo.items():
        text = text.replace(name, value)
    return text


def _ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    try:
        s3.head_bucket(Bucket=bucket)
    except s3.exceptions.ClientError:
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **place)


def _asset_body(assembly: Path, source: dict[str, Any]) -> bytes:
    """An asset's bytes: a file as it is, a folder as a zip that is the same each time."""
    path = assembly / str(source["path"])
    if not path.exists():
        raise DeployFailed(f"the assembly names the asset {path}, which is not there; synthesise it again")
    if source.get("packaging") != "zip" or path.is_file():
        return path.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                file = Path(folder) / name
                entry = zipfile.ZipInfo(str(file.relative_to(path)), _FIXED_TIME)
                entry.external_attr = (file.stat().st_mode & 0o777) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, file.read_bytes())
    return packed.getvalue()


def _failures(formation: Any, stack: str) -> str:
    events = formation.describe_stack_events(StackName=stack)["StackEvents"]
    return "; ".join(
        f"{event['LogicalResourceId']} ({event.get('ResourceType', '?')}): {event.get('ResourceStatusReason', '?')}"
        for event in events
        if event["ResourceStatus"].endswith("FAILED")
    )
