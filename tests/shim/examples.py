"""The examples as processes: left alone, killed without a word, resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DYING = Path(__file__).parent / "dying"
STEPS = 12
QUIET = {"HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def begin(script: str, out: Path, environment: dict[str, str], *path: Path, ranks: int = 0) -> subprocess.Popen[str]:
    """The script as a process of its own, with a group of its own and these folders first on its path.

    Args:
        ranks: under torchrun, with so many of them; 0 without it.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPOTRELAY_")}
    folders = os.pathsep.join(map(str, [*path, ROOT]))
    return subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / "examples" / script), "--steps", str(STEPS), "--out", str(out)],
        env={**clean, **QUIET, "PYTHONPATH": folders, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    """What a script has printed that came to its own end."""
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    return printed.splitlines()


def killed(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a script that is killed before its second commit."""
    process.communicate(timeout=200)
    assert process.returncode == -9


def without_torch(folder: Path) -> Path:
    """A folder in which an import of torch finds something that fails."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('no torch for this test')\n")
    return folder
