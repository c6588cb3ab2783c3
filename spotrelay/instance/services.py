"""Everything that the agent talks to, as ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spotrelay.core.ports import LiveStore, ObjectStore, Publisher
from spotrelay.instance.metadata import Metadata
from spotrelay.instance.secrets import SecretSource


@dataclass(frozen=True)
class Services:
    """What a test replaces as one."""

    live: LiveStore
    objects: ObjectStore
    publisher: Publisher
    secrets: SecretSource
    metadata: Metadata
    nearby: Callable[[str], ObjectStore] | None = None  # a bucket in the machine's own region, by its name
