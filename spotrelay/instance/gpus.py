"""Whether this machine's GPUs compute: asked of the driver, and tried with a small product, before a run may use them.

Everything that cannot be asked is passed over: a machine without a GPU, a driver that tells nothing of ECC, a Python
without torch. Only a definite answer makes a host bad.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ECC = ("nvidia-smi", "--query-gpu=index,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader,nounits")
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
BROKEN = frozenset({48, 64, 74, 79, 92, 94, 95})  # memory beyond repair, NVLink, off the bus
TIMEOUT_S = 120.0  # a first use of CUDA may take a minute; a GPU that hangs takes for ever
NO_TORCH, WRONG = 10, 11
PRODUCT = f"""
import sys
try:
    import torch
except ImportError:
    sys.exit({NO_TORCH})
if not torch.cuda.is_available():
    sys.exit({NO_TORCH})
a, b = (torch.randint(-3, 4, (1024, 1024), generator=torch.Generator().manual_seed(n)).float() for n in (1, 2))
expected = a @ b  # whole numbers: exact in any order and any precision that a GPU uses for floats
for number in range(torch.cuda.device_count()):
    there = torch.device("cuda", number)
    for _ in range(3):
        if not torch.equal((a.to(there) @ b.to(there)).cpu(), expected):
            print(f"GPU {{number}} computes a wrong product")
            sys.exit({WRONG})
"""


class BadHost(Exception):
    """This machine does not compute as it should: the run has to go elsewhere."""


@dataclass(frozen=True)
class Answer:
    """What a program said."""

    code: int
    text: str


Ask = Callable[[Sequence[str]], Answer]


def ask(command: Sequence[str]) -> Answer:
    """Run a program; one that does not end in time has code 124, one that is not there 127."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(124, f"no answer within {TIMEOUT_S:.0f} s")
    except OSError as error:
        return Answer(127, str(error))
    return Answer(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace").strip())


def trouble(asked: Ask = ask, python: str = sys.executable) -> str:
    """What is wrong with this machine's GPUs; empty where nothing is, or there is none."""
    if asked is ask and shutil.which(ECC[0]) is None:
        return ""
    told = asked(ECC)
    if told.code == 127:
        return ""
    if told.code != 0:
        return f"nvidia-smi ended with status {told.code}: {told.text[-200:]}"
    return _ecc(told.text) or _xid(asked(("dmesg",))) or _product(asked((python, "-c", PRODUCT)))


def _ecc(text: str) -> str:
    for line in text.splitlines():
        index, _, errors = (part.strip() for part in line.partition(","))
        if errors.isdecimal() and int(errors) > 0:
            return f"GPU {index} has {errors} uncorrected memory errors"
    return ""


def _xid(told: Answer) -> str:
    for where, number in XID.findall(told.text) if told.code == 0 else ():
        if int(number) in BROKEN:
            return f"the driver reported Xid {number} at {where}"
    return ""


def _product(told: Answer) -> str:
    if told.code in (0, NO_TORCH, 127):
        return ""
    last = told.text.splitlines()[-1] if told.text else ""
    return f"a product on its GPUs failed (status {told.code}): {last[:200]}"
