"""A table and a bucket as the stack lays them out, in an emulated account."""

from __future__ import annotations

import secrets

from spotrelay.aws.clients import Clients
from spotrelay.aws.layout import table_definition


def new_table(clients: Clients) -> str:
    """Make an empty table; returns its name."""
    name = f"spotrelay-{secrets.token_hex(4)}"
    clients.client("dynamodb").create_table(**table_definition(name))
    return name


def new_bucket(clients: Clients) -> str:
    """Make an empty, versioned bucket; returns its name."""
    name = f"spotrelay-{secrets.token_hex(6)}"
    s3 = clients.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name
