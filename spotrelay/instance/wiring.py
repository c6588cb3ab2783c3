"""The one place where the agent's adapters are built."""

from __future__ import annotations

from collections.abc import Mapping

from spotrelay.aws.clients import Clients, nearby
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.publisher import BusPublisher
from spotrelay.instance.aws_secrets import AwsSecrets
from spotrelay.instance.identity import Identity
from spotrelay.instance.metadata import ADDRESS, Metadata
from spotrelay.instance.services import Services


def connect(me: Identity, environ: Mapping[str, str]) -> Services:
    """The real services of this machine's stack, in its home region. Sends nothing yet.

    Credentials are those of the machine's role; botocore renews them through the metadata service
    before they expire.

    Raises:
        Unavailable: the machine has no credentials yet.
    """
    client = Clients(me.home_region).client
    return Services(
        live=DynamoLiveStore(client("dynamodb"), me.table),
        objects=S3ObjectStore(client("s3"), me.bucket),
        publisher=BusPublisher(client("events"), me.bus),
        secrets=AwsSecrets(client),
        metadata=Metadata(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ADDRESS),
        nearby=lambda bucket: S3ObjectStore(nearby(me.region).client("s3"), bucket),
    )
