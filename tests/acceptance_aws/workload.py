"""What is trained: the example of the repository, with all that a bare Ubuntu machine needs for it."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from spotrelay.console.bundle import pack
from spotrelay.console.submit import Submission
from spotrelay.core.spec import parse_spec
from tests.acceptance_aws.options import Options

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "gpt_stdlib.py"
LIBRARIES = "/opt/acceptance"  # on the machine
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDS = ("numpy",)  # of the shim; the rest of it the agent brings
MAX_HOURS = 1.5


def make_code(folder: Path) -> Path:
    """Fill a folder with the script, and pip, which the image has not."""
    shutil.copytree(_pip(), folder / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(SCRIPT, folder / SCRIPT.name)
    return folder


def submission(options: Options, run_id: str, code: Path) -> Submission:
    """A run, ready to send. Its own limits hold as well, should this program die."""
    bundle = pack(code)
    spec = parse_spec(
        {
            "command": [options.instance_python, SCRIPT.name, "--steps", str(options.steps)],
            "instance_types": list(options.types),
            "code_key": bundle.key,
            "code_digest": bundle.digest,
            "env": {"PYTHONPATH": LIBRARIES, "PYTHONDONTWRITEBYTECODE": "1"},
            "setup": setup(options.instance_python),
            "cadence": {"every_steps": options.every_steps},
            "limits": {"max_launches": 6, "max_failures": 2, "max_hours": MAX_HOURS, "max_dollars": options.dollars},
        }
    )
    return Submission(run_id, spec, bundle)


def setup(python: str) -> list[list[str]]:
    """Install torch for the CPU, then what the shim needs beside it, at this repository's own versions."""
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    install += ["--target", LIBRARIES]
    return [
        [*install, "--index-url", TORCH_INDEX, pinned("torch")],
        [*install, "--upgrade", *map(pinned, NEEDS)],
    ]


def pinned(name: str) -> str:
    """The requirement as `constraints.txt` has it."""
    found = re.search(rf"^{re.escape(name)}==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"constraints.txt does not pin {name}")
    return found.group(0)


def _pip() -> Path:
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise LookupError("this environment has no pip to send along: run `make install`")
    return Path(spec.origin).parent
