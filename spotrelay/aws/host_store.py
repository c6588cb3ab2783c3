"""The registered hosts of one's own in DynamoDB: one item each, in a partition of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spotrelay.aws.layout import Item, key
from spotrelay.aws.table import ABSENT, Condition, ConditionFailed, Table
from spotrelay.core.errors import AlreadyExists, Contention, Missing
from spotrelay.core.hosts import Host
from spotrelay.core.row import SCHEMA, check_schema, decode_value, encode_value

PARTITION = "HOSTS"
TRIES = 5  # against others who change the same host


class DynamoHosts:
    """A `HostStore` over the table of our layout."""

    def __init__(self, client: Any, table: str) -> None:
        self._table = Table(client, table)

    def hosts(self) -> tuple[Host, ...]:
        """All of them, by name; a host that was added a moment ago is among them."""
        found: Iterable[Item] = self._table.query("pk = :pk", {":pk": PARTITION}, "reading the hosts")
        return tuple(_read(item) for item in found)

    def add(self, host: Host) -> None:
        """Register a host."""
        try:
            self._table.put(_item(host), f"registering host {host.name}", ABSENT)
        except ConditionFailed as error:
            raise AlreadyExists(f"host {host.name} is registered already: remove it first") from error

    def drain(self, name: str, draining: bool = True) -> Host:
        """Let nothing start there any more, or let it again; the host as it stands then."""
        doing = f"changing host {name}"
        for _ in range(TRIES):
            item = self._table.get(PARTITION, name, doing)
            if item is None:
                raise Missing(f"no host {name} is registered: spotrelay hosts list")
            after = replace(_read(item), draining=draining)
            same = Condition("#body = :body", {":body": item["body"]})
            try:
                self._table.put(_item(after), doing, same)
                return after
            except ConditionFailed:
                continue
        raise Contention(f"{doing}: others were faster {TRIES} times in a row")

    def remove(self, name: str) -> None:
        """Forget a host."""
        self._table.delete(PARTITION, name, f"removing host {name}")


def _item(host: Host) -> Item:
    return key(PARTITION, host.name) | {"body": {"S": encode_value(host)}, "schema": {"N": str(SCHEMA)}}


def _read(item: Item) -> Host:
    what = f"host {item['sk']['S']}"
    check_schema(int(item["schema"]["N"]), what)
    return decode_value(Host, item["body"]["S"], what)
