"""Options that every command has."""

from __future__ import annotations

from typing import Annotated

import typer

StackOption = Annotated[str, typer.Option("--stack", envvar="SPOTRELAY_STACK", help="Name of the deployed stack.")]
RegionOption = Annotated[str | None, typer.Option("--region", help="The stack's home region; else AWS_REGION.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for scripts, with stable keys.")]
