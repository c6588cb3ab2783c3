"""The one place where the shim's ports become AWS clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spotrelay.core.ports import LiveStore, ObjectStore, Publisher
from trainer_shim.environment import Identity
from trainer_shim.uploading.process import UploadProcess


@dataclass(frozen=True)
class Ports:
    """Everything of the world that a session touches, apart from the metadata service."""

    store: LiveStore
    objects: ObjectStore
    publisher: Publisher
    uploader: UploadProcess | None = None  # sends shards from the staging buffer; without it, `objects` does
    nearby: Callable[[str], ObjectStore] | None = None  # a bucket in the machine's own region, by its name


def connect(identity: Identity) -> Ports:
    """Clients for the attempt's own region. Opens no connection yet.

    Raises:
        Unavailable: there are no credentials yet.
    """
    from spotrelay.aws.clients import Clients, nearby
    from spotrelay.aws.live_store import DynamoLiveStore
    from spotrelay.aws.object_store import S3ObjectStore
    from spotrelay.aws.publisher import BusPublisher

    clients = Clients(identity.region, attempts=1)  # the SDK's own retries would draw from the script's generators
    return Ports(
        DynamoLiveStore(clients.client("dynamodb"), identity.table),
        S3ObjectStore(clients.client("s3"), identity.bucket),
        BusPublisher(clients.client("events"), identity.bus),
        UploadProcess(identity.region, identity.bucket),
        lambda bucket: S3ObjectStore(nearby(identity.here).client("s3"), bucket),
    )
