"""`spotrelay hosts …`: the commands about machines of one's own, and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from spotrelay.console import wiring
from spotrelay.console.options import JsonOption, RegionOption, StackOption
from spotrelay.console.output import as_json, aside, tell

app = typer.Typer(
    help="Machines of your own, reached by SSH: a lab's box, or any rented host.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the host.")]


@app.command()
def add(
    name: NameArgument,
    target: Annotated[str, typer.Argument(metavar="SSH://USER@HOST[:PORT]", help="Where it is reached from AWS.")],
    key_secret: Annotated[
        str,
        typer.Option(
            "--key-secret", help="Its private key: ssm:/spotrelay-hosts/… or secretsmanager:spotrelay-hosts/…"
        ),
    ],
    host_key: Annotated[
        str, typer.Option("--host-key", help="Its public key, as /etc/ssh/ssh_host_ed25519_key.pub on it says.")
    ],
    kind: Annotated[str, typer.Option("--kind", help="What it is, such as rtx4090; specs choose by it.")] = "own",
    slots: Annotated[int, typer.Option("--slots", min=1, help="Runs at once.")] = 1,
    python: Annotated[str, typer.Option("--python", help="Python ≥ 3.11 on it; first on the program's PATH.")] = "",
    folder: Annotated[str, typer.Option("--folder", help="Where it keeps runs; below home, or whole.")] = ".spotrelay",
    price: Annotated[float, typer.Option("--price", min=0.0, help="Dollars an hour, if it costs any.")] = 0.0,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Connect to it before it is registered.")] = True,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Register a host. Runs use it whose spec says own_machines: first, or last."""
    from spotrelay.console import hosts as work

    wanted = work.read_host(name, target, key_secret, host_key, kind, slots, python, folder, price)
    said = work.add(work.connect(wiring.Where(stack, region)), wanted, check)
    if json:
        tell(as_json({"host": wanted, "check": said}))
        return
    tell(f"host {name} is registered as {wanted.kind}" + (f": {work.about(said)}" if said else ""))


@app.command("list")
def list_hosts(
    stack: StackOption = wiring.DEFAULT_STACK, region: RegionOption = None, json: JsonOption = False
) -> None:
    """The registered hosts, and the runs on them."""
    from spotrelay.console import hosts as work

    rows = work.listed(work.connect(wiring.Where(stack, region)))
    if json:
        tell(as_json(rows))
    else:
        work.show(rows)


@app.command()
def check(
    name: NameArgument, stack: StackOption = wiring.DEFAULT_STACK, region: RegionOption = None, json: JsonOption = False
) -> None:
    """Connect to a host as the control plane does, and say what was found. Exit code 6 if it does not answer."""
    from spotrelay.console import hosts as work

    said = work.connect(wiring.Where(stack, region)).reach.check(name)
    tell(as_json(said) if json else f"host {name} answers: {work.about(said)}")


@app.command()
def drain(
    name: NameArgument, stack: StackOption = wiring.DEFAULT_STACK, region: RegionOption = None, json: JsonOption = False
) -> None:
    """Empty a host: nothing starts there any more, and what runs there saves and goes on elsewhere."""
    from spotrelay.console import hosts as work

    moved = work.drain(work.connect(wiring.Where(stack, region)), name)
    if json:
        tell(as_json({"host": name, "draining": True, "runs": moved}))
        return
    tell(f"host {name} takes no run any more" + (f"; on their way: {', '.join(moved)}" if moved else ""))


@app.command("open")
def open_host(
    name: NameArgument, stack: StackOption = wiring.DEFAULT_STACK, region: RegionOption = None, json: JsonOption = False
) -> None:
    """Let a drained host take runs again."""
    from spotrelay.console import hosts as work

    work.connect(wiring.Where(stack, region)).hosts.drain(name, draining=False)
    tell(as_json({"host": name, "draining": False}) if json else f"host {name} takes runs again")


@app.command()
def remove(
    name: NameArgument,
    lost: Annotated[bool, typer.Option("--lost", help="It is gone for good, with what runs on it.")] = False,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Forget a host. Exit code 5 while runs are on it, unless it is lost."""
    from spotrelay.console import hosts as work

    still = work.remove(work.connect(wiring.Where(stack, region)), name, lost)
    if still:
        aside(f"its machines count as gone: {', '.join(still)} will go on elsewhere")
    tell(as_json({"host": name, "removed": True, "runs": still}) if json else f"host {name} is removed")
