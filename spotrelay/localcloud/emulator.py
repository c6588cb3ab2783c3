"""The one place that knows MiniStack from within.

MiniStack 1.5.33 is hosted as a library. Whatever its HTTP APIs do not offer is reached here through its private
names, each behind a function that says what it is for; `tests/localcloud/test_emulator_names.py` fails when a
release renames one. Nothing is imported from it before `load`, because it reads its settings when imported.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from spotrelay.localcloud import conditions

VERSION = "1.5.33"
ACCOUNT = "000000000000"
HOME_REGION = "us-east-1"
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

CREDENTIAL_LIFETIME_S = 6 * 3600
_WORKER_WAIT_S = 60.0
_WORKER_POLL_S = 0.01
_ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class EmulatorMismatch(Exception):
    """The installed MiniStack is not the version that this package was written against."""


class UnknownResource(Exception):
    """The emulated account has no such resource."""


@dataclass(frozen=True)
class Caller:
    """Who signed a request."""

    arn: str
    access_key: str


@dataclass(frozen=True)
class Refusal:
    """Why a request's credentials were not accepted."""

    code: str
    message: str


@dataclass(frozen=True)
class Wire:
    """A request as it arrived, complete, before anything decoded it."""

    method: str
    path: str
    raw_path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes


def configure(home: Path, port: int, access_key: str, secret_key: str) -> None:
    """Set the environment that MiniStack reads when it is imported: loopback, its folder, enforced policies."""
    os.environ.update(
        {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_REGION": HOME_REGION,
            "AWS_DEFAULT_REGION": HOME_REGION,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "MINISTACK_REGION": HOME_REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent/docker.sock",
            "S3_DATA_DIR": str(home / "s3"),
            "STATE_DIR": str(home / "state"),
            "LAMBDA_ACCOUNT_CONCURRENCY": "0",
            "LOG_LEVEL": "WARNING",
        }
    )


def load() -> ASGIApp:
    """Import MiniStack's application; `configure` must have been called.

    Raises:
        EmulatorMismatch: another version is installed; install the pinned one.
    """
    from importlib.metadata import version

    if version("ministack") != VERSION:
        raise EmulatorMismatch(f"ministack {version('ministack')} is installed, {VERSION} is needed")
    app: ASGIApp = importlib.import_module("ministack.app").app
    return app


def quicken_checksums() -> None:
    """Replace S3's CRC32C and CRC64NVME, computed byte by byte in Python, by the AWS runtime's."""
    from awscrt import checksums

    s3: Any = _service("s3")
    s3._crc32c = checksums.crc32c
    s3._crc64nvme = checksums.crc64nvme
    if struct.pack(">I", s3._crc32c(b"123456789")) != b"\xe3\x06\x92\x83":
        raise EmulatorMismatch("the CRC32C of awscrt does not give the algorithm's published check value")


def know_ways_in() -> None:
    """Teach the templates' machinery `AWS::EC2::SecurityGroupIngress`, which a group cannot hold about itself."""
    provisioners: Any = importlib.import_module("ministack.services.cloudformation.provisioners")
    groups: Any = _service("ec2")._security_groups

    def create(logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        (permission,) = provisioners._ec2_sg_permissions([properties])
        group = groups[properties["GroupId"]]
        group["IpPermissions"] = [*group["IpPermissions"], permission]
        rule = f"{properties['GroupId']}|{json.dumps(permission, sort_keys=True)}"
        return rule, {"Id": rule}

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        group = groups.get(properties["GroupId"])
        if group is not None:
            (gone,) = provisioners._ec2_sg_permissions([properties])
            group["IpPermissions"] = [each for each in group["IpPermissions"] if each != gone]

    provisioners._RESOURCE_HANDLERS["AWS::EC2::SecurityGroupIngress"] = {"create": create, "delete": delete}


def run_lambdas_with(worker: Callable[[str, dict[str, Any], bytes], Any], most: int) -> None:
    """Have every Python function run on `worker`s, at most `most` for each function; further calls wait for one."""
    runtime: Any = importlib.import_module("ministack.core.lambda_runtime")
    service: Any = _service("lambda_svc")
    chosen = runtime._worker_class_for
    lease = runtime.acquire_worker
    concurrency = service._sqs_esm_concurrency

    def worker_for(config: dict[str, Any]) -> Any:
        return worker if str(config.get("Runtime", "")).startswith("python") else chosen(config)

    def batches_at_once(*asked: Any) -> int:
        return min(most, int(concurrency(*asked)))

    def lease_or_wait(name: str, config: dict[str, Any], code: bytes, **how: Any) -> Any:
        deadline = time.monotonic() + _WORKER_WAIT_S
        while True:
            leased = lease(name, config, code, **{**how, "max_concurrency": most})
            if leased[0] is not None or time.monotonic() > deadline:
                return leased
            time.sleep(_WORKER_POLL_S)

    runtime._worker_class_for = worker_for
    service.acquire_worker = lease_or_wait
    service._sqs_esm_concurrency = batches_at_once


def complete_conditions() -> None:
    """Give the policy evaluator what it does not read itself: condition keys of DynamoDB and EventBridge, and that a
    batch to a queue needs the same right as a single message.
    """
    actions: Any = importlib.import_module("ministack.core.iam_actions")
    of_dynamodb, of_tags = actions.dynamodb_service_context, actions.request_tag_context
    of_request = actions.extract_iam_action

    def dynamodb_context(body: bytes) -> dict[str, Any]:
        keys = conditions.leading_keys(body, index_key)
        return {**of_dynamodb(body), **({"dynamodb:LeadingKeys": keys} if keys else {})}

    def common_context(service: str, action: str, body: bytes, query: Any) -> dict[str, Any]:
        told = conditions.event_context(body) if action == "events:PutEvents" else {}
        return {**of_tags(service, action, body, query), **told}

    def permission(service: str, *request: Any) -> str | None:
        found: str | None = of_request(service, *request)
        return found.removesuffix("Batch") if found and service == "sqs" else found

    actions.extract_iam_action = permission
    actions.dynamodb_service_context = dynamodb_context
    actions.request_tag_context = common_context


def know_machines(arn_of: Callable[[str], str | None]) -> None:
    """Give the policy evaluator `ec2:SourceInstanceARN`: the instance to which an access key was given."""
    evaluator: Any = importlib.import_module("ministack.core.iam_evaluator")
    judged = evaluator.enforce

    def enforce(
        access_key: str, action: str, service: str, region: str, resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        arn = arn_of(access_key)
        told = {"ec2:SourceInstanceARN": arn} if arn else {}
        return judged(access_key, action, service, region, resource_arn, {**(service_context or {}), **told})

    evaluator.enforce = enforce


def replicate_as_s3() -> None:
    """Let a copy have the version id of its source; MiniStack gives it one of its own."""
    s3: Any = _service("s3")
    recorded = s3._record_object_version

    def record(bucket: str, key: str, prior: Any, stored: dict[str, Any], data: Any) -> str | None:
        version: str | None = recorded(bucket, key, prior, stored, data)
        if version and "_replica" in stored:
            copy, its_own, account = stored["_replica"]
            with s3._in_account(account):
                entries = [e for e in s3._object_versions[(copy, key)] if e["version_id"] == its_own]
                for each in (*entries, s3._buckets[copy]["objects"][key]):
                    each["version_id"] = version
            stored["_replica"] = (copy, version, account)
        return version

    s3._record_object_version = record


def forward_across_regions() -> None:
    """Let a rule's target be an event bus in another region; the event keeps the region in which it happened."""
    bridge: Any = _service("eventbridge")
    within = bridge._dispatch_to_event_bus

    def forward(spec: Any, event: dict[str, Any], rule: Any, path: Any, payload: str | None = None) -> None:
        if spec.region == event["Region"] or not spec.resource.startswith("event-bus/"):
            within(spec, event, rule, path, payload)
            return
        bus = spec.resource.removeprefix("event-bus/")
        detail = event["Detail"] if payload is None else payload
        with _scope(spec.region):
            bridge._dispatch_event({**event, "EventBusName": bus, "Detail": detail})

    bridge._dispatch_to_event_bus = forward


def stop_lambdas() -> None:
    """End every function's processes."""
    importlib.import_module("ministack.core.lambda_runtime").reset()


def function_credentials(config: dict[str, Any]) -> dict[str, str]:
    """Environment variables with the credentials of a function's role."""
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    credentials: dict[str, str] = runtime.execution_credentials(config)
    return credentials


def authenticate(wire: Wire) -> Caller | Refusal:
    """Check a request's signature, time and token, and say who sent it."""
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    access_key = access_key_of(wire)
    if is_root_key(access_key):
        return check_root(wire) or Caller(f"arn:aws:iam::{ACCOUNT}:root", access_key)
    evaluator.pin_signed_request(wire.method, wire.raw_path, wire.query, wire.raw_headers)
    evaluator.pin_signed_body(wire.body)
    checked = evaluator.authenticate(access_key, ACCOUNT)
    if isinstance(checked, evaluator.AuthError):
        return Refusal(checked.code, checked.message)
    if checked is None:
        return Refusal("MissingAuthenticationToken", "The request is missing a verifiable signature.")
    return Caller(checked.principal_arn, access_key)


def check_root(wire: Wire) -> Refusal | None:
    """Check the signature of a request made with a root key, which MiniStack takes unread; None when it is right."""
    if access_key_of(wire) != os.environ["AWS_ACCESS_KEY_ID"]:
        return Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    sigv4 = importlib.import_module("ministack.core.sigv4")
    presigned = not wire.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256")
    signature = sigv4.parse_query_signature(wire.query) if presigned else sigv4.parse_header_signature(wire.headers)
    if isinstance(signature, tuple):
        return Refusal(*signature)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    failure = sigv4.header_signature_failure(
        signature, secret, wire.method, wire.raw_path, wire.query, wire.headers, wire.body, presigned=presigned
    )
    return Refusal(failure[0], failure[1]) if failure else None


def is_root_key(access_key: str) -> bool:
    """Whether MiniStack would take this key for the account's root without looking at the signature."""
    verdict: bool = importlib.import_module("ministack.core.iam_evaluator").is_root_access_key(access_key)
    return verdict


def access_key_of(wire: Wire) -> str:
    """The access key that a request names; empty for an unsigned one."""
    key: str = importlib.import_module("ministack.core.router").extract_access_key_id(wire.headers, wire.query)
    return key


def caller_of(access_key: str) -> str:
    """The ARN behind an access key; empty for an unknown one."""
    identity = importlib.import_module("ministack.core.iam_evaluator").resolve_caller_identity(access_key)
    return str(identity["userArn"]) if identity else ""


def service_of(wire: Wire) -> str:
    """Name of the service that a request is for, as MiniStack routes it."""
    name: str = importlib.import_module("ministack.core.router").detect_service(
        wire.method, wire.path, wire.headers, wire.query
    )
    return name


def region_of(wire: Wire) -> str:
    """The region that a request is signed for."""
    region: str = importlib.import_module("ministack.core.router").extract_region(wire.headers, wire.query)
    return region


def rest_action(service: str, wire: Wire) -> str:
    """Name of the API call behind a REST request; empty where MiniStack knows none."""
    actions = importlib.import_module("ministack.core.iam_actions")
    action = actions.extract_iam_action(service, wire.method, wire.path, wire.headers, wire.body, wire.query)
    return str(action).partition(":")[2] if action else ""


def table_key(table: str) -> list[str]:
    """Attribute names of a table's key, partition key first; empty for an unknown table."""
    return index_key(table, "")


def index_key(table: str, index: str) -> list[str]:
    """Attribute names of the key of a table's index, or of the table itself; empty for an unknown one."""
    for found in _everywhere(_service("dynamodb")._tables, table.rsplit("/", 1)[-1]):
        indexes = found.get("GlobalSecondaryIndexes") or []
        holder = next((i for i in indexes if i["IndexName"] == index), None) if index else found
        return [part["AttributeName"] for part in holder["KeySchema"]] if holder else []
    return []


def launch_template(id_or_name: str, version: str) -> dict[str, Any]:
    """LaunchTemplateData of one version ("$Default" and "$Latest" too) of a template in any region.

    Raises:
        UnknownResource: no such template, or no such version of it.
    """
    for template in _all(_service("ec2")._launch_templates):
        if id_or_name not in (template["LaunchTemplateId"], template["LaunchTemplateName"]):
            continue
        aliases = {"$Default": template["DefaultVersionNumber"], "$Latest": template["LatestVersionNumber"]}
        wanted = str(aliases.get(version or "$Default", version))
        for candidate in template["Versions"]:
            if str(candidate["VersionNumber"]) == wanted:
                return dict(candidate["LaunchTemplateData"])
        raise UnknownResource(f"launch template {id_or_name} has no version {version}")
    raise UnknownResource(f"there is no launch template {id_or_name}")


def subnet(subnet_id: str) -> dict[str, str]:
    """A subnet's id, zone and VPC.

    Raises:
        UnknownResource: no region has such a subnet.
    """
    for found in _everywhere(_service("ec2")._subnets, subnet_id):
        return {name: str(found[name]) for name in ("SubnetId", "AvailabilityZone", "VpcId")}
    raise UnknownResource(f"there is no subnet {subnet_id}")


def publish(event: Mapping[str, Any], region: str) -> None:
    """Put an event, envelope and all, on its region's default bus; services' own sources are allowed here."""
    bridge = _service("eventbridge")

    record = {
        "EventId": event["id"],
        "Source": event["source"],
        "DetailType": event["detail-type"],
        "Detail": json.dumps(event["detail"]),
        "EventBusName": "default",
        "Time": event["time"],
        "Resources": event.get("resources", []),
        "Account": event.get("account", ACCOUNT),
        "Region": region,
    }
    with _scope(region):
        bridge._dispatch_event(record)


def instance_role(instance_profile: str) -> str:
    """Name of the role in an instance profile, given by name or ARN.

    Raises:
        UnknownResource: no such profile, or it has no role.
    """
    name = instance_profile.rsplit("/", 1)[-1]
    for found in _everywhere(_service("iam")._instance_profiles, name):
        for role in found["Roles"]:
            return str(role["RoleName"] if isinstance(role, dict) else role).rsplit("/", 1)[-1]
    raise UnknownResource(f"instance profile {instance_profile} does not exist or holds no role")


def role_arn(role: str) -> str:
    """ARN of a role.

    Raises:
        UnknownResource: there is no such role.
    """
    for found in _everywhere(_service("iam")._roles, role):
        return str(found["Arn"])
    raise UnknownResource(f"there is no role {role}")


def open_session(role: str, session_name: str, lifetime_s: float = CREDENTIAL_LIFETIME_S) -> dict[str, Any]:
    """Fresh temporary credentials of a role, known to MiniStack: keys of STS, Expiration in epoch seconds."""
    known = _everywhere(_service("iam")._roles, role)
    record = next(known, None)
    if record is None:
        raise UnknownResource(f"there is no role {role}")
    credentials = {
        "AccessKeyId": "ASIA" + secrets.token_hex(8).upper(),
        "SecretAccessKey": secrets.token_urlsafe(30),
        "Token": secrets.token_urlsafe(60),
        "Expiration": time.time() + lifetime_s,
    }
    _service("sts").register_session(
        credentials["AccessKeyId"],
        {
            "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session_name}",
            "UserId": f"{record['RoleId']}:{session_name}",
            "SecretAccessKey": credentials["SecretAccessKey"],
            "SessionToken": credentials["Token"],
            "Expiration": credentials["Expiration"],
        },
    )
    return credentials


def expire_session(access_key: str) -> None:
    """Let temporary credentials end now."""
    session = _service("sts")._sessions.get(access_key)
    if session is not None:
        session["Expiration"] = time.time() - 1.0


def policies_of(caller: str) -> list[dict[str, Any]]:
    """Identity policy documents of a principal's ARN: a role, a session of one, a user, or the account's root."""
    if caller.endswith(":root"):
        return [_ALLOW_ALL]
    kind, _, name = caller.split(":", 5)[5].partition("/")
    iam = _service("iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    if kind == "user":
        holder = next(_everywhere(iam._users, name.rsplit("/", 1)[-1]), None)
        inline = next(_everywhere(iam._user_inline_policies, name.rsplit("/", 1)[-1]), None) or {}
    else:
        role = name.split("/")[0] if kind == "assumed-role" else name.rsplit("/", 1)[-1]
        holder = next(_everywhere(iam._roles, role), None)
        inline = (holder or {}).get("InlinePolicies") or {}
    if holder is None:
        return []
    attached = [
        evaluator._resolve_managed_policy_document(arn, ACCOUNT) for arn in holder.get("AttachedPolicies") or []
    ]
    return [_document(policy) for policy in (*inline.values(), *attached) if policy]


def schedule(group: str, name: str) -> dict[str, Any]:
    """A schedule of EventBridge Scheduler as it was created.

    Raises:
        UnknownResource: no region has such a schedule.
    """
    for found in _all(_service("scheduler")._schedules):
        if found["Name"] == name and found.get("GroupName", "default") == group:
            return dict(found)
    raise UnknownResource(f"there is no schedule {group}/{name}")


def _document(policy: Any) -> dict[str, Any]:

    return dict(json.loads(policy)) if isinstance(policy, str) else dict(policy)


@contextmanager
def _scope(region: str) -> Iterator[None]:
    with importlib.import_module("ministack.core.responses").request_scope(ACCOUNT, region):
        yield


def _everywhere(store: Any, name: str) -> Iterator[dict[str, Any]]:
    """Entries called `name` in all accounts and regions of one of MiniStack's stores."""
    for key, value in list(store._data.items()):
        if key[-1] == name:
            yield value


def _all(store: Any) -> list[dict[str, Any]]:
    return list(store._data.values())


def _service(name: str) -> ModuleType:
    return importlib.import_module(f"ministack.services.{name}")
