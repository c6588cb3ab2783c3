"""The commands and their options. Each one says here what it takes, and elsewhere what it does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spotrelay.console import exits, hosts_app, wiring
from spotrelay.console.options import JsonOption, RegionOption, StackOption
from spotrelay.console.output import as_json, aside, entry_line, tell
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.run import Run, RunStatus

EPILOG = (
    "Exit codes: 0 done · 1 the run or a check failed · 2 wrong option, spec or code directory · 3 unknown run · "
    "4 no credentials, stack or table · 5 refused, the run has ended or the id is taken · "
    "6 AWS did not answer, try again · 130 interrupted"
)
app = typer.Typer(
    help="Training runs that outlive EC2 Spot machines.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(hosts_app.app, name="hosts")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")]


@app.command()
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The run's spec.")],
    code: Annotated[Path | None, typer.Option("--code", help="Directory to pack, upload and run in.")] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Id of the run; made from the file's name.")] = None,
    failover: Annotated[bool, typer.Option("--failover/--no-failover", help="Go on elsewhere after a loss.")] = True,
    keep_failed: Annotated[
        float | None, typer.Option("--keep-failed", metavar="MINUTES", help="A failed machine stays so long.")
    ] = None,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a run."""
    from spotrelay.console import submit as work

    submission = work.prepare(spec, code, run_id, failover, keep_failed)
    run = work.send(submission, wiring.connect(wiring.Where(stack, region)))
    files = len(submission.bundle.files) if submission.bundle else 0
    if json:
        tell(as_json({"run_id": run.run_id, "status": run.status.value, "code_key": run.spec.code_key, "files": files}))
        return
    sent = f" with {files} files of code" if files else ""
    tell(f"run {run.run_id} is submitted{sent}. {_watch(run.run_id)}")


@app.command()
def status(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run; all of them without.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Runs to list.")] = 50,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, or look at one closely. Exit code 1 if that one has failed or was cancelled."""
    from spotrelay.console import status as work

    services = wiring.connect(wiring.Where(stack, region))
    now = services.clock.now()
    if run_id is None:
        runs = work.listed(services, most)
        if json:
            tell(as_json(runs))
        else:
            work.show_list(runs, now)
        return
    run = services.runs.load(run_id)
    about = work.closely(run, now)
    if json:
        tell(as_json(about))
    else:
        work.show(about, run, now)
    raise typer.Exit(exits.FAILED if work.failed(run) else exits.OK)


@app.command()
def events(
    run_id: RunArgument,
    follow: FollowOption = False,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Show the timeline of a run, each line with its reason."""
    from spotrelay.console import events as work
    from spotrelay.console.status import failed

    services = wiring.connect(wiring.Where(stack, region))
    for entry in work.entries(services, run_id, follow):
        tell(as_json(entry) if json else entry_line(entry))
    if follow:
        raise typer.Exit(exits.FAILED if failed(services.runs.load(run_id)) else exits.OK)


@app.command()
def logs(
    run_id: RunArgument,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Only this attempt.")] = None,
    follow: FollowOption = False,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the program printed, attempt by attempt."""
    from spotrelay.console import logs as work

    services = wiring.connect(wiring.Where(stack, region))
    shown: int | None = None
    for chunk in work.chunks(services, run_id, attempt, follow):
        if json:
            tell(as_json(chunk))
            continue
        if chunk.attempt != shown:
            aside(f"--- attempt {chunk.attempt}")
        shown = chunk.attempt
        sys.stdout.write(chunk.text)
        sys.stdout.flush()


@app.command()
def cancel(
    run_id: RunArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the timeline.")] = "cancelled by its user",
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """End a run; what it has committed stays. Exit code 5 if it has ended already."""
    from spotrelay.console import cancel as work

    run, news = work.cancel(wiring.connect(wiring.Where(stack, region)), run_id, reason)
    if run.status.final:
        what = "is cancelled: it had no machine"
    elif news:
        what = "is being cancelled: its machine is ended within moments"
    else:
        what = f"was asked to end before: {run.outcome_why or run.cancel_why}"
    _tell_wish(run, news, json, what)


@app.command()
def budget(
    day: Annotated[str | None, typer.Option("--day", metavar="YYYY-MM-DD", help="Another day, in UTC.")] = None,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Show what machines of all runs may cost in a day, what is set aside of it, and for which runs."""
    from spotrelay.aws.clock import SystemClock
    from spotrelay.console import budget as work

    clients, found = wiring.find(wiring.Where(stack, region))
    now = SystemClock().now()
    on = work.day_of(day, now)
    about = work.account(work.books_of(clients, found).cells(on), work.ceiling_of(found), on, now)
    if json:
        tell(as_json(about))
    else:
        work.show(about)


@app.command()
def pause(
    run_id: RunArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the timeline.")] = "paused by its user",
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Let a run save, end its machine, and rest without cost until it is resumed. Exit code 5 if it is over."""
    from spotrelay.console import wishes as work

    run, news = work.pause(wiring.connect(wiring.Where(stack, region)), run_id, reason)
    if run.status is RunStatus.PAUSED:
        what = f"is paused: it has no machine. Go on with: spotrelay resume {run_id}"
    else:
        what = f"saves and ends its machine, then it rests. {_watch(run_id)}"
    _tell_wish(run, news, json, what)


@app.command()
def resume(
    run_id: RunArgument,
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused run go on from its newest verified checkpoint. Exit code 5 if it is over."""
    from spotrelay.console import wishes as work

    run, news = work.resume(wiring.connect(wiring.Where(stack, region)), run_id)
    what = f"goes on. {_watch(run_id)}" if news else f"is not paused: it is {run.status.value}"
    _tell_wish(run, news, json, what)


@app.command()
def retry(
    run_id: RunArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the timeline.")] = "retried by its user",
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Open a run again that failed or was cancelled: failures, launches and hours count from zero, dollars go on.

    It resumes from its newest verified checkpoint. Exit code 5 if it has succeeded or is not over.
    """
    from spotrelay.console import wishes as work

    run, news = work.retry(wiring.connect(wiring.Where(stack, region)), run_id, reason)
    _tell_wish(run, news, json, f"is open again. {_watch(run_id)}")


@app.command()
def doctor(
    stack: StackOption = wiring.DEFAULT_STACK,
    region: RegionOption = None,
    json: JsonOption = False,
) -> None:
    """Check credentials, stack, template, quota, subnets, bucket, table, budget, switch, a launch of nothing, hosts."""
    from spotrelay.console import doctor as work

    checks = work.examine(wiring.Where(stack, region))
    for check in checks:
        tell(as_json(check) if json else check.line)
    raise typer.Exit(work.exit_code(checks))


@app.command()
def demo(
    home: Annotated[Path, typer.Option("--home", help="The only folder that is written to.")] = Path(".spotrelay/demo"),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Few steps of a tiny model.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cloud's files in the folder too.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a small GPT on this machine, reclaim its machine five times, and prove that nothing was lost."""
    from spotrelay.console.demo import command

    raise typer.Exit(command.run(command.Options(home, steps, fast, keep, json)))


@app.command()
def simulate(
    spec: Annotated[Path, typer.Option("--spec", metavar="SPEC.yaml", help="The run's spec.")],
    traces: Annotated[Path, typer.Option("--traces", metavar="DIR", help="<zone>_<type>_<count>.json files.")],
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs, started at random.")] = 200,
    hours: Annotated[float, typer.Option("--hours", min=0.1, help="Length of each.")] = 72.0,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other starts.")] = 0,
    restart: Annotated[float, typer.Option("--restart-minutes", min=0.0, help="From a launch to a new step.")] = 3.25,
    price: Annotated[
        float | None, typer.Option("--on-demand-price", min=0.0, help="$ an hour; else the spec's.")
    ] = None,
    share: Annotated[float, typer.Option("--spot-share", min=0.0, help="Spot's price, of on-demand's.")] = 0.35,
    alone: Annotated[bool, typer.Option("--alone", help="No run learns from another one.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Picture to write: .png, .svg.")] = None,
    json: JsonOption = False,
) -> None:
    """Replay recorded Spot capacity through the real decisions, beside simpler policies. Nothing is launched."""
    from spotrelay.console import simulate as work

    work.simulate(work.Options(spec, traces, runs, hours, seed, alone, restart * 60, price, share, plot, json))


@app.command("simulate-cadence")
def simulate_cadence(
    traces: Annotated[Path, typer.Option("--traces", metavar="DIR", help="Recorded capacity, .json files.")],
    cost: Annotated[
        list[float] | None, typer.Option("--cost", help="Seconds of training per checkpoint; may be repeated.")
    ] = None,
    announced: Annotated[
        list[float] | None, typer.Option("--announced", help="Share of losses with a notice; may be repeated.")
    ] = None,
    upload: Annotated[float, typer.Option("--upload-seconds", min=0.0, help="From the stall to the commit.")] = 10.0,
    restart: Annotated[float, typer.Option("--restart-minutes", min=0.0, help="From a launch to a new step.")] = 5.0,
    instance_type: Annotated[
        str, typer.Option("--instance-type", help="Whose life is supposed at first.")
    ] = "p3.2xlarge",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other losses announced.")] = 0,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Markdown with a block to renew.")] = None,
    json: JsonOption = False,
) -> None:
    """Replay recorded Spot capacity through the shim's cadence, beside every fixed interval of a grid."""
    from spotrelay.console import simulate_cadence as work

    options = (tuple(cost or ()), tuple(announced or ()), upload, restart * 60, instance_type, seed, json, page)
    work.simulate(work.Options(traces, *options))


def main() -> None:
    """Entry point of the `spotrelay` command."""
    try:
        app()
    except SpotrelayError as error:
        _explain(error)
        sys.exit(exits.exit_code(error))
    except BrokenPipeError:  # `spotrelay events … | head`
        sys.stderr.close()
        sys.exit(exits.OK)


def _tell_wish(run: Run, news: bool, json: bool, what: str) -> None:
    """What became of a wish, for a script or for a person."""
    told = {"run_id": run.run_id, "status": run.status.value, "news": news}
    tell(as_json(told) if json else f"run {run.run_id} {what}")


def _watch(run_id: str) -> str:
    return f"Watch it: spotrelay events {run_id} --follow"


def _explain(error: SpotrelayError) -> None:
    if "--json" in sys.argv[1:]:
        tell(as_json({"error": type(error).__name__, "message": str(error), "exit_code": exits.exit_code(error)}))
    else:
        aside(f"spotrelay: {error}")


if __name__ == "__main__":
    main()
