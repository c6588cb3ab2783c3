"""Replicated objects over HTTP: same versions and checksums, compared and read by the adapters that AWS gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from handlers.verify import verify
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.core.errors import Missing
from spotrelay.core.nearest import Nearest
from spotrelay.localcloud.client import LocalCloud
from tests.handlers.checkpoints import put_checkpoint
from tests.localcloud.kit import role

pytestmark = pytest.mark.loop

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
AWAY = "us-west-2"


@dataclass(frozen=True)
class Copied:
    """A bucket whose runs are replicated into another region."""

    home: S3ObjectStore
    copy: S3ObjectStore


@pytest.fixture
def copied(cloud: LocalCloud, name: str) -> Iterator[Copied]:
    here, there, copy = cloud.client("s3"), cloud.client("s3", AWAY), f"{name}-copy"
    here.create_bucket(Bucket=name)
    there.create_bucket(Bucket=copy, CreateBucketConfiguration={"LocationConstraint": AWAY})
    for client, bucket in ((here, name), (there, copy)):
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {
        "ID": AWAY,
        "Priority": 1,
        "Status": "Enabled",
        "Filter": {"Prefix": "runs/"},
        "DeleteMarkerReplication": {"Status": "Enabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{copy}"},
    }
    replicator = role(cloud, name, "s3.amazonaws.com")
    here.put_bucket_replication(Bucket=name, ReplicationConfiguration={"Role": replicator, "Rules": [rule]})
    yield Copied(S3ObjectStore(here, name), S3ObjectStore(there, copy))


def test_a_checkpoint_that_was_replicated_is_whole_there_by_the_comparison_of_home(copied: Copied) -> None:
    commit, manifest = put_checkpoint(copied.home)

    assert verify(commit, copied.home, NOW).ok
    assert verify(commit, copied.copy, NOW) == verify(commit, copied.home, NOW)
    shard = manifest.shards[0]
    assert copied.copy.head(shard.key, shard.version_id) == copied.home.head(shard.key, shard.version_id)


def test_a_shard_that_is_missing_there_is_named_and_read_at_home(copied: Copied) -> None:
    commit, manifest = put_checkpoint(copied.home, bodies=(b"weights", b"optimizer"))
    shard = manifest.shards[1]
    copied.copy.delete(shard.key, shard.version_id)
    said: list[str] = []

    verdict = verify(commit, copied.copy, NOW)
    body = Nearest(copied.copy, copied.home, said.append).get(shard.key, shard.version_id)

    assert (verdict.ok, shard.key in verdict.problem) == (False, True)
    assert (body, len(said)) == (b"optimizer", 1)
    assert verify(commit, copied.home, NOW).ok


def test_the_deletion_of_a_version_stays_at_home(copied: Copied) -> None:
    stored = copied.home.put("runs/run-1/shards/a", b"weights")

    copied.home.delete(stored.key, stored.version_id)

    assert copied.copy.get(stored.key, stored.version_id) == b"weights", "why a replica is collected by itself"
    with pytest.raises(Missing):
        copied.home.get(stored.key, stored.version_id)


def test_what_is_no_runs_is_not_copied(copied: Copied) -> None:
    copied.home.put("code/bundle", b"code")

    assert list(copied.copy.list_versions("")) == []
