"""Measures, and writes what was measured into the pages of docs/, so that no figure is copied by hand.

A block between `<!-- measured: NAME -->` and `<!-- end -->` belongs to this program. Usage:
    python -m benchmarks.page                    every benchmark, one after the other
    python -m benchmarks.page storm cold-start   some of them
    python -m benchmarks.page storm --from FILE  the output of a benchmark that has run already
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import tables as checkpoint

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
PEERS = DOCS.parent / ".venv-bench" / "bin" / "python"  # `make bench-checkpoint` makes it
BLOCK = re.compile(r"(<!-- measured: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]
Row = tuple[object, ...]


class NotMeasured(Exception):
    """A benchmark did not print its result; the text ends with what it said. The page is as it was."""


@dataclass(frozen=True)
class Benchmark:
    """One program, and how its last line is shown."""

    module: str
    rows: Callable[[Result], list[Row]]  # the first one is the head; an empty one ends a table
    peers: bool = False  # whether it needs other libraries, and so an environment of its own
    page: Path = PAGE


def event_to_launch(result: Result) -> list[Row]:
    """Times from an event to the launch call, and the ratio."""
    names = {
        "from the event to the request's arrival at EC2, ms": "to_ec2_ms",
        "the same of a bare function, ms": "bare_to_ec2_ms",
        "ratio": "ratio_to_bare",
        "inside the handler, as it reports itself, ms": "inside_ms",
    }
    head = (f"{result['events']} events, taking turns with as many bare calls", "p50", "p95")
    return [head, *((text, result[key]["p50"], result[key]["p95"]) for text, key in names.items())]


def cold_start(result: Result) -> list[Row]:
    """What each start costs."""
    head = ("process", "million instructions", "to bare Python", "to `import boto3` and a DynamoDB client")
    return [
        head,
        *(
            (name, f"{row.get('million_instructions', 0):,.0f}", row["to_bare_python"], row["to_boto3_with_client"])
            for name, row in result["cold_start"].items()
        ),
    ]


def as_pairs(result: Result) -> list[Row]:
    """Every figure by its own name."""
    rows: list[Row] = [("figure", "value")]
    for name, value in result.items():
        parts = value if isinstance(value, dict) else {"": value}
        rows += [(f"{name.replace('_', ' ')} {part}".strip(), number) for part, number in parts.items()]
    return rows


def s3_clients(result: Result) -> list[Row]:
    """What each client moves and costs."""
    head = (
        f"{result['size']} MiB in objects of {result['part']} MiB, {result['connections']} connections",
        "put, GB/s",
        "get, GB/s",
        "put, CPU s/GB",
        "get, CPU s/GB",
        "copies put / get",
        "create-only",
        "tells the version",
        "checksum that S3 compares",
    )
    keys = ("put_gb_s", "get_gb_s", "put_cpu_s", "get_cpu_s", "copies")
    return [
        head,
        *(
            (
                name,
                *(row[key] for key in keys),
                *(_yes(row[key]) for key in ("create_only", "version")),
                row["checksum"],
            )
            for name, row in result["clients"].items()
            if "failed" not in row
        ),
    ]


def scale(result: Result) -> list[Row]:
    """Requests of idle runs, of a storm, and the bill."""
    idle, storm, bill = result["idle"], result["storm"], result["million_idle_run_minutes"]
    services = ("dynamodb", "ec2", "sqs")
    sweeps = {f"{due} due": counts for due, counts in idle["requests_of_a_sweep_by_runs_due"].items()}
    sweeps["one in ten"] = idle["requests_of_the_sweep_in_ten_that_looks_at_every_machine"]
    return [
        (f"one sweep over {idle['runs']:,} runs", *services),
        *((name, *(counts[service] for service in services)) for name, counts in sweeps.items()),
        (),
        ("one healthy minute of a run", "value"),
        *as_pairs(idle["healthy_minute"])[1:],
        (),
        (f"a storm of {storm['runs']:,} notices, each twice", "value"),
        *as_pairs({name: value for name, value in storm.items() if name != "runs"})[1:],
        (),
        ("a million healthy run-minutes", "dollars"),
        *as_pairs({name: value for name, value in bill.items() if name not in ("as_of", "dollars")})[1:],
        ("together", bill["dollars"]),
    ]


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


BENCHMARKS = {
    "event-to-launch": Benchmark("benchmarks.event_to_launch", event_to_launch),
    "cold-start": Benchmark("benchmarks.cold_start", cold_start),
    "storm": Benchmark("benchmarks.storm", as_pairs),
    "scale": Benchmark("benchmarks.scale", scale, page=DOCS / "scale.md"),
    "storm-http": Benchmark("benchmarks.storm_http", as_pairs),
    "checkpoint": Benchmark("benchmarks.checkpoint", checkpoint.rows, peers=True),
    "s3-clients": Benchmark("benchmarks.s3_clients", s3_clients, peers=True),
}


def block(name: str, result: Result, load: str, at: datetime) -> str:
    """What the page shows of one result."""
    benchmark = BENCHMARKS[name]
    lines = [f"`python -m {benchmark.module}`, {at:%Y-%m-%d}, {machine()}, {load}:", "", *table(benchmark.rows(result))]
    return "\n".join(lines) + "\n"


def table(rows: list[Row]) -> list[str]:
    """Rows as Markdown; an empty one begins a new table."""
    if () in rows:
        at = rows.index(())
        return [*table(rows[:at]), "", *table(rows[at + 1 :])]
    head, *body = (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    return [head, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *body]


def machine() -> str:
    """What it was measured on, in words."""
    return f"{os.cpu_count()} cores of a {platform.machine()} machine, Python {platform.python_version()}"


def busy() -> str:
    """How busy the machine is, in words."""
    return f"load average {os.getloadavg()[0]:.1f} before"


def measure(name: str) -> Result:
    """Run a benchmark; the object on its last line.

    Raises:
        NotMeasured: it failed.
    """
    benchmark = BENCHMARKS[name]
    python = str(PEERS) if benchmark.peers and PEERS.exists() else sys.executable
    done = subprocess.run([python, "-m", benchmark.module], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout[-1500:] + done.stderr[-1500:]).strip()
        raise NotMeasured(f"{BENCHMARKS[name].module} ended with status {done.returncode}:\n{said}")
    return last_object(done.stdout)


def last_object(output: str) -> Result:
    """The JSON object on the last line.

    Raises:
        NotMeasured: there is none.
    """
    lines = output.strip().splitlines() or [""]
    try:
        found = json.loads(lines[-1])
    except ValueError as error:
        raise NotMeasured(f"the last line is no JSON: {lines[-1][:500]}") from error
    if not isinstance(found, dict):
        raise NotMeasured(f"the last line is no object: {lines[-1][:500]}")
    return found


def renewed(text: str, name: str, content: str) -> str:
    """The page with this block in place of the old one."""
    return BLOCK.sub(lambda m: m.group(1) + content + m.group(3) if m.group("name") == name else m.group(0), text)


def write(name: str, result: Result, load: str) -> None:
    """Put a result into the page."""
    page = BENCHMARKS[name].page
    page.write_text(renewed(page.read_text(), name, block(name, result, load, datetime.now(UTC))))


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all when empty")
    parser.add_argument("--from", dest="output", type=Path, help="output of the one benchmark named, instead of a run")
    arguments = parser.parse_args()
    names = arguments.names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    if arguments.output and len(names) != 1:
        parser.error("--from goes with one benchmark")
    for name in names:
        load = "load not recorded" if arguments.output else busy()
        result = last_object(arguments.output.read_text()) if arguments.output else measure(name)
        write(name, result, load)
        print(json.dumps({name: result}), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotMeasured as error:
        sys.exit(f"benchmarks.page: {error}")
