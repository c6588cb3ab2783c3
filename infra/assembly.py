"""Writes the cloud assembly (template and assets) that the embedded cloud deploys, without the CDK command line.

    python -m infra.assembly --out spotrelay/_assembly --if-stale
    python -m infra.assembly --out spotrelay/_assembly --check

Prints one JSON line. Freshness is a hash over sources, lock files and choices, kept beside the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.fingerprint import fingerprint
from infra.host import ROOT, host_architecture, host_python

STAMP = "spotrelay-assembly.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or check, an assembly; 0 when it is there and fresh afterwards."""
    options = _parser().parse_args(arguments)
    choices = _choices(options.arch, options.python, options.context)
    started = time.monotonic()
    fresh = is_fresh(options.out, choices)
    built = False
    if not options.check and not (fresh and options.if_stale):
        from infra.assets import BuildFailed  # a check needs nothing installed
        from infra.config import BadConfig

        try:
            write_assembly(options.out, choices)
        except (BadConfig, BuildFailed) as error:
            print(f"spotrelay: {error}", file=sys.stderr)  # noqa: T201
            return 2
        fresh = built = True
    answer = {"assembly": str(options.out), "fresh": fresh, "built": built, **choices}
    print(json.dumps({**answer, "seconds": round(time.monotonic() - started, 2)}))  # noqa: T201
    return 0 if fresh else 1


def is_fresh(out: Path, choices: dict[str, Any]) -> bool:
    """Whether the assembly there was made from just these sources and choices."""
    try:
        stamp = json.loads((out / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp.get("fingerprint") == fingerprint(choices)) and (out / "manifest.json").is_file()


def write_assembly(out: Path, choices: dict[str, Any]) -> None:
    """Synthesise into `out`; whatever was there before stays until the new one is whole.

    Raises:
        BadConfig: the context cannot work.
        BuildFailed: an asset could not be built.
    """
    os.environ["CDK_VALIDATION"] = "false"  # CI checks the template once; here it would cost seconds
    from infra.app import build_app  # importing it starts Node

    stamp = fingerprint(choices)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        build_app(_context(choices), outdir=partial, validate=False).synth()
        (partial / STAMP).write_text(json.dumps({"fingerprint": stamp, **choices}, indent=1, sort_keys=True) + "\n")
        partial.chmod(0o755)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _choices(architecture: str, python: str, context: Sequence[str]) -> dict[str, Any]:
    chosen = dict(entry.partition("=")[::2] for entry in context)
    return {
        "architecture": host_architecture() if architecture == "host" else architecture,
        "python": host_python() if python == "host" else python,
        "system": sys.platform,
        "context": chosen,
    }


def _context(choices: dict[str, Any]) -> dict[str, Any]:
    from infra.config import KEY

    own = {f"{KEY}:architecture": choices["architecture"], f"{KEY}:python": choices["python"]}
    return {**own, **{f"{KEY}:{name}": value for name, value in choices["context"].items()}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.assembly", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "spotrelay" / "_assembly", help="where to write it")
    parser.add_argument("--arch", default="host", choices=("host", "arm64", "x86_64"), help="of the functions")
    parser.add_argument("--python", default="host", help="of the functions, such as 3.13, or host")
    parser.add_argument(
        "-c", "--context", action="append", default=[], metavar="KEY=VALUE", help="a key of the context `spotrelay`"
    )
    parser.add_argument("--if-stale", action="store_true", help="do nothing when it is fresh")
    parser.add_argument("--check", action="store_true", help="build nothing; exit 1 when it is not fresh")
    return parser


if __name__ == "__main__":
    sys.exit(main())
