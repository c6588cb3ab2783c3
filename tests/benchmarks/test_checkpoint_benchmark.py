"""The checkpoint benchmark: one round of it end to end, and what it makes of what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from benchmarks import page
from benchmarks.checkpoint import occupied, tables
from benchmarks.checkpoint.rounds import Measured, Scale, outcome
from benchmarks.checkpoint.sink import ROOT
from benchmarks.checkpoint.summary import summary
from benchmarks.checkpoint.workload import SHAPES, build

KEYS = {
    "stall_vs_memcpy",
    "stall_vs_dcp_async",
    "stall_lazy_vs_dcp_async",
    "durable_vs_floor",
    "durable_vs_dcp",
    "restore_vs_floor",
    "restore_vs_dcp",
    "extra_memory_save",
    "extra_memory_restore",
    "flips_found",
}
SCALE = Scale(("0.5 GB",), rounds=1, pairs=1, damage="0.1 GB", memory=1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SHAPES, "tiny", (64, 1))
    return "tiny"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_round_measures_our_shim_and_finds_what_it_restores_bitwise_equal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.checkpoint", "--quick", "--systems=floor,ours,ours-lazy"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=580,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() >= KEYS
    assert result["absent"] == {}, "a system whose bits differ after the restore is named there"
    assert {"ours", "ours-lazy", "floor"} == set(result["sizes"]["0.1 GB"])
    assert result["flips_found"] == 1.0 and "silent" not in str(result["damages"])
    assert result["frozen_uploaded_share"] > 0 and result["emergency_vs_normal"] > 0
    assert all(len(row) == len(table[0]) for table in _tables(tables.rows(result)) for row in table)


def test_every_element_of_the_state_changes_in_a_step(tiny: str) -> None:
    training = build(tiny)
    training.step()
    before = [tensor.clone() for tensor in training.tensors()]

    training.step()

    after = training.tensors()
    changed = sum(int((one != two).sum()) for one, two in zip(before, after, strict=True))
    assert changed > 0.99 * sum(tensor.numel() for tensor in after)


def test_the_digest_sees_a_single_bit(tiny: str) -> None:
    training = build(tiny)
    training.step()
    before = training.digest()
    moment = training.optimizer.state[next(training.model.parameters())]["exp_avg"]

    moment.view(torch.int32)[0, 0] ^= 1

    assert training.digest() != before


def test_a_fine_tune_trains_no_more_than_its_share(tiny: str) -> None:
    training = build(tiny, frozen=0.99)

    whole = sum(parameter.numel() for parameter in training.model.parameters())
    trained = sum(parameter.numel() for parameter in training.model.parameters() if parameter.requires_grad)

    assert 0 < trained <= 0.01 * whole


def test_the_peak_counts_children_and_forgets_what_was_before() -> None:
    held = bytearray(os.urandom(1)) * (64 * 2**20)
    del held
    occupied.forget_peak()
    before = occupied.peak()

    held = bytearray(os.urandom(1)) * (32 * 2**20)
    grown = occupied.peak() - before
    hungry = "x = bytearray(b'1') * (48 * 2**20); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", hungry], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    with_child = occupied.peak() - before
    child.communicate(b"\n")

    assert 30 * 2**20 < grown < 48 * 2**20
    assert with_child > grown + 48 * 2**20
    assert len(held) == 32 * 2**20


@pytest.mark.parametrize(
    ("restored", "said"),
    [
        ({"error": "Damaged: ..."}, "found"),
        ({"digest": "old"}, "found, the one before it taken"),
        ({"digest": "new"}, "harmless"),
        ({"digest": "neither"}, "silent"),
    ],
)
def test_what_came_of_a_damage_is_told_by_what_was_restored(restored: dict[str, Any], said: str) -> None:
    assert outcome(restored, ["old", "new"]) == said


def test_ratios_are_of_medians_and_a_peer_that_is_not_there_leaves_them_empty() -> None:
    measured = Measured()
    for name, stalls in {"floor": (0.1, 0.3, 0.1), "ours": (0.2, 0.1, 0.12), "dcp-async": (0.2, 0.2, 9.0)}.items():
        measured.saves["0.5 GB", name] = [_saved(stalls)]
        measured.restores["0.5 GB", name] = [{"load_s": 1.0, "first_step_s": 2.0, "extra_bytes": 50}]
    measured.damages["ours"] = {"manifest": "found", "shard": "silent"}

    result = summary(measured, SCALE)

    assert result["stall_vs_memcpy"] == 1.2 and result["stall_vs_dcp_async"] == 0.6
    assert result["durable_vs_dcp"] is None and result["stall_lazy_vs_dcp_async"] is None
    assert result["durable_vs_floor"] == round(1.0 / (0.1 + 0.4), 2), "the fastest client is the floor"
    assert result["extra_memory_restore"] == 0.5 and result["flips_found"] == 0.5


def test_tables_are_parted_on_the_page() -> None:
    assert page.table([("a", "b"), (1, 2), (), ("c",), (3,)]) == [
        "| a | b |",
        "|---|---:|",
        "| 1 | 2 |",
        "",
        "| c |",
        "|---|",
        "| 3 |",
    ]


def _saved(stalls: tuple[float, ...]) -> dict[str, Any]:
    return {
        "saves": [{"beside": index == 0, "stall": s, "durable": 1.0, "lost": s} for index, s in enumerate(stalls)],
        "step_s": 0.5,
        "state_bytes": 100,
        "extra_bytes": 100,
        "clients": {"slow": [0.6, 0.9, 0.8], "fast": [0.4, 0.4, 5.0]},
    }


def _tables(rows: list[tuple[object, ...]]) -> list[list[tuple[object, ...]]]:
    found: list[list[tuple[object, ...]]] = [[]]
    for row in rows:
        if row:
            found[-1].append(row)
        else:
            found.append([])
    return found
