"""What a replica of the bucket is made of, at home and in its region, and who may do what with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers import settings
from handlers.settings import read_settings
from infra.config import BadConfig, read_config
from infra.constructs.replicas import replica_name
from spotrelay.localcloud.policy import evaluate
from tests.infra.conftest import Synthesise
from tests.infra.reading import ACCOUNT, Template

HOME = {"table": "the-table", "bucket": "the-bucket"}
PLACE = {"launch_template": "lt-0f", "version": "4", "subnets": {"eu-west-1a": "subnet-0e"}}
CONFIG: dict[str, Any] = {
    "home_region": "us-east-1",
    "home": HOME,
    "regions": {
        "eu-west-1": {"place": PLACE, "replica": True},
        "eu-north-1": {"place": PLACE, "replica": True},
        "us-west-2": {"replica": True},
    },
}
NAME = replica_name(read_config({"spotrelay": CONFIG}), "eu-west-1")
OTHER = replica_name(read_config({"spotrelay": CONFIG}), "eu-north-1")
SHARD = f"arn:aws:s3:::{NAME}/runs/r/shards/000001/000001/0000-0000-d.safetensors"
CONTROL = ("InterruptionsWorker", "RunsWorker", "SweepWorker")


@pytest.fixture(scope="module")
def stacks(synthesise: Synthesise) -> dict[str, Template]:
    return synthesise(**CONFIG)


@pytest.fixture
def home(stacks: dict[str, Template]) -> Template:
    return stacks["Spotrelay"]


@pytest.fixture
def abroad(stacks: dict[str, Template]) -> Template:
    return stacks["Spotrelay-eu-west-1"]


def may(template: Template, role: str, action: str, resource: str, **context: str) -> bool:
    return bool(evaluate(template.policies(role), action, resource, context).allowed)


def inside(region: str) -> dict[str, str]:
    return {"ec2:SourceInstanceARN": f"arn:aws:ec2:{region}:{ACCOUNT}:instance/i-0123456789abcdef0"}


# The bucket


def test_the_replica_is_guarded_like_home(home: Template, abroad: Template) -> None:
    here, there = home.one("AWS::S3::Bucket", "VaultBucket"), abroad.one("AWS::S3::Bucket", "ReplicaBucket")

    for guard in ("BucketEncryption", "PublicAccessBlockConfiguration", "OwnershipControls", "VersioningConfiguration"):
        assert there[guard] == here[guard], guard
    assert there["LoggingConfiguration"]["DestinationBucketName"].startswith("ReplicaAccessLogs")
    kept = [r for r in abroad.resources.values() if r["Type"] == "AWS::S3::Bucket"]
    assert {r["DeletionPolicy"] for r in kept} == {"Retain"}


def test_it_refuses_what_does_not_come_over_tls(abroad: Template) -> None:
    refused = [s for s in statements_of(abroad) if s["Effect"] == "Deny" and s["Action"] == "s3:*"]

    conditions = [s["Condition"] for s in refused]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
    assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


def test_nobody_but_the_replication_puts_anything_there(home: Template, abroad: Template) -> None:
    (only,) = [s for s in statements_of(abroad) if s.get("Sid") == "OnlyReplication"]

    role = home.one("AWS::IAM::Role", "ReplicationRole")["RoleName"]
    assert (only["Effect"], only["Action"], only["Principal"]) == ("Deny", "s3:PutObject", {"AWS": "*"})
    assert only["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/{role}"}}


def test_no_lifecycle_rule_ends_a_current_object_of_it(abroad: Template) -> None:
    rules = abroad.one("AWS::S3::Bucket", "ReplicaBucket")["LifecycleConfiguration"]["Rules"]

    assert not [rule for rule in rules if "ExpirationInDays" in rule or "ExpirationDate" in rule]
    (hidden,) = [rule for rule in rules if "NoncurrentVersionExpiration" in rule]
    assert hidden["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert hidden["ExpiredObjectDeleteMarker"] is True


def test_both_stacks_tell_the_same_name_and_it_fits(abroad: Template) -> None:
    assert abroad.one("AWS::S3::Bucket", "ReplicaBucket")["BucketName"] == NAME
    assert len(replica_name(read_config({"spotrelay": CONFIG}), "ap-southeast-99")) <= 63


# What home does with it


def test_home_has_s3_copy_what_runs_write_into_each_replica_beside_which_machines_run(home: Template) -> None:
    rules = home.one("AWS::S3::Bucket", "VaultBucket")["ReplicationConfiguration"]["Rules"]

    assert [rule["Destination"]["Bucket"] for rule in rules] == [f"arn:aws:s3:::{NAME}", f"arn:aws:s3:::{OTHER}"]
    assert {rule["Filter"]["Prefix"] for rule in rules} == {"runs/"}
    assert {rule["Status"] for rule in rules} == {rule["DeleteMarkerReplication"]["Status"] for rule in rules}
    assert len({rule["Priority"] for rule in rules}) == len(rules), "S3 refuses two rules of one priority"


def test_the_functions_are_told_of_it(home: Template) -> None:
    variables = home.one("AWS::Lambda::Function", "RunsWorker")["Environment"]["Variables"]

    expected = {"eu-west-1": NAME, "eu-north-1": OTHER}
    assert read_settings(variables).replicas == expected
    assert json.loads(home.outputs["Replicas"]) == expected


def test_home_is_deployed_after_the_bucket_that_it_replicates_into(
    synthesise: Synthesise, tmp_path_factory: pytest.TempPathFactory
) -> None:
    synthesise(**CONFIG)
    newest = max(tmp_path_factory.getbasetemp().glob("cdk.out*"), key=lambda path: path.stat().st_mtime)
    artifacts = json.loads((newest / "manifest.json").read_text())["artifacts"]

    assert "Spotrelay-eu-west-1" in artifacts["Spotrelay"]["dependencies"]


def test_whoever_configures_no_replica_gets_none_of_this(synthesise: Synthesise) -> None:
    regions = {name: {k: v for k, v in each.items() if k != "replica"} for name, each in CONFIG["regions"].items()}
    templates = synthesise(**{**CONFIG, "regions": regions})

    assert "ReplicationConfiguration" not in templates["Spotrelay"].one("AWS::S3::Bucket", "VaultBucket")
    for template in templates.values():
        assert "eplica" not in json.dumps(template.body).replace("ReplicationStatus", "")
    assert settings.REPLICAS not in json.dumps(templates["Spotrelay"].body)


def test_a_replica_needs_a_home_to_copy_from() -> None:
    with pytest.raises(BadConfig, match=r"regions.us-west-2.replica: name the home stack's table and bucket"):
        read_config({"spotrelay": {"home_region": "us-east-1", "regions": {"us-west-2": {"replica": True}}}})


# Who may do what


@pytest.mark.parametrize("role", CONTROL)
def test_the_control_plane_compares_and_never_writes(home: Template, role: str) -> None:
    for action in ("s3:GetObject", "s3:GetObjectVersion"):
        assert may(home, role, action, SHARD)
    assert may(home, role, "s3:ListBucketVersions", f"arn:aws:s3:::{NAME}")
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:ReplicateObject", "s3:PutBucketReplication"):
        assert not may(home, role, action, SHARD), action


@pytest.mark.parametrize("role", CONTROL)
def test_only_those_that_collect_delete_and_only_versions_of_checkpoints(home: Template, role: str) -> None:
    collects = role != "InterruptionsWorker"

    assert may(home, role, "s3:DeleteObjectVersion", SHARD) is collects
    assert not may(home, role, "s3:DeleteObjectVersion", f"arn:aws:s3:::{NAME}/runs/r/logs/000001.log")


def test_a_machine_reads_the_replica_of_its_own_region_and_no_other(home: Template) -> None:
    for action in ("s3:GetObject", "s3:GetObjectVersion"):
        assert may(home, "IdentityRole", action, SHARD, **inside("eu-west-1"))
        assert not may(home, "IdentityRole", action, SHARD, **inside("eu-north-1"))
        assert not may(home, "IdentityRole", action, SHARD, **inside("us-east-1"))
        assert not may(home, "IdentityRole", action, SHARD), "a session that is no machine's"


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:DeleteObjectVersion", "s3:DeleteObject", "s3:ReplicateObject"])
def test_a_machine_changes_nothing_in_it(home: Template, action: str) -> None:
    assert not may(home, "IdentityRole", action, SHARD, **inside("eu-west-1"))
    assert not may(home, "IdentityRole", "s3:GetObject", f"arn:aws:s3:::{NAME}/code/x.tar.gz", **inside("eu-west-1"))


def test_a_machine_on_a_host_of_ones_own_reads_no_replica(home: Template) -> None:
    assert not may(home, "HostsMachineRole", "s3:GetObject", SHARD)


def test_the_replication_may_copy_and_do_nothing_else(home: Template) -> None:
    bucket = home.arn("AWS::S3::Bucket", "VaultBucket")

    assert may(home, "ReplicationRole", "s3:GetObjectVersionForReplication", f"{bucket}/runs/r/manifests/1.json")
    assert not may(home, "ReplicationRole", "s3:GetObjectVersionForReplication", f"{bucket}/code/x.tar.gz")
    for action in ("s3:ReplicateObject", "s3:ReplicateDelete"):
        assert may(home, "ReplicationRole", action, SHARD)
        assert not may(home, "ReplicationRole", action, f"{bucket}/runs/r/manifests/1.json")
    for action in ("s3:DeleteObject", "s3:PutObject", "s3:ObjectOwnerOverrideToBucketOwner"):
        assert not may(home, "ReplicationRole", action, SHARD), action


def statements_of(template: Template) -> list[dict[str, Any]]:
    bucket = template.name("AWS::S3::Bucket", "ReplicaBucket")
    (policy,) = [p for p in template.of("AWS::S3::BucketPolicy").values() if p["Bucket"] == bucket]
    return list(policy["PolicyDocument"]["Statement"])
