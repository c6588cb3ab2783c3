"""A host whose GPUs do not compute is told from one that has none, or tells nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from spotrelay.instance.gpus import NO_TORCH, PRODUCT, TIMEOUT_S, WRONG, Answer, ask, trouble

NOTHING = Answer(0, "")
GOOD = Answer(0, "0, 0\n1, 0")
XID = "[  12.3] NVRM: Xid (PCI:0000:00:1e): {}, pid=77, name=python\n"


def told(smi: Answer = GOOD, dmesg: Answer = NOTHING, product: Answer = NOTHING) -> str:
    def asked(command: Sequence[str]) -> Answer:
        return {"nvidia-smi": smi, "dmesg": dmesg}.get(command[0], product)

    return trouble(asked)


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"smi": Answer(9, "couldn't communicate with the NVIDIA driver")}, "communicate with the NVIDIA driver"),
        ({"smi": Answer(124, "no answer within 120 s")}, "no answer"),
        ({"smi": Answer(0, "0, 0\n1, 3")}, "GPU 1 has 3 uncorrected"),
        ({"dmesg": Answer(0, XID.format(79))}, "Xid 79 at PCI:0000:00:1e"),
        ({"product": Answer(WRONG, "GPU 2 computes a wrong product")}, "GPU 2 computes a wrong product"),
        ({"product": Answer(1, "RuntimeError: CUDA error: unspecified launch failure")}, "launch failure"),
        ({"product": Answer(124, "no answer")}, "status 124"),
    ],
)
def test_a_bad_host_is_told_with_what_is_wrong(answers: dict[str, Answer], named: str) -> None:
    assert named in told(**answers)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"smi": Answer(127, "not found")},  # no GPU
        {"smi": Answer(0, "0, [N/A]")},  # a driver that tells nothing of ECC
        {"dmesg": Answer(1, "Operation not permitted")},
        {"dmesg": Answer(0, XID.format(43))},  # a program's own fault
        {"product": Answer(NO_TORCH, "")},
    ],
)
def test_what_cannot_be_asked_makes_no_host_bad(answers: dict[str, Answer]) -> None:
    assert told(**answers) == ""


def test_a_machine_without_a_gpu_is_asked_nothing() -> None:
    assert trouble() == ""


def test_the_product_runs_and_passes_over_a_machine_without_cuda() -> None:
    done = subprocess.run([sys.executable, "-c", PRODUCT], capture_output=True, timeout=TIMEOUT_S, check=False)

    assert done.returncode in (0, NO_TORCH), done.stderr.decode()


def test_a_program_that_is_not_there_is_no_answer() -> None:
    assert ask(("no-such-program-here",)).code == 127
