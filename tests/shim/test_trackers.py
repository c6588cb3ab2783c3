"""TensorBoard and Weights & Biases show each step once, though a killed attempt had logged some of them already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from wandb.proto import wandb_internal_pb2

from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster
from tests.shim.examples import DYING, STEPS, begin, ended, killed

SCRIPT = "trackers_stdlib.py"
BLOCK = 32768  # bytes; records of a W&B file do not cross its blocks in one piece


def board_of(folder: Path) -> tuple[list[int], list[int]]:
    """Steps that TensorBoard shows, and steps as they stand in its files."""
    shown = EventAccumulator(str(folder)).Reload().Scalars("loss")
    files = sorted(folder.glob("events*"))
    written = [event.step for file in files for event in EventFileLoader(str(file)).Load() if event.summary.value]
    return [each.step for each in shown], written


def rows_of(file: Path) -> Iterator[tuple[int, float]]:
    """Steps and losses in a W&B file."""
    for body in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(body)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            yield record.history.step.num, items["loss"]


def _records(data: bytes) -> Iterator[bytes]:
    # LevelDB's log: after a header of seven bytes, pieces with checksum, length and kind (whole, first, middle, last).
    at, body = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        body += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield body
            body = b""


def test_each_step_is_shown_once_with_the_loss_of_an_uninterrupted_run(cluster: Cluster, tmp_path: Path) -> None:
    cluster.change(Cadence(every_steps=3))
    alone = begin(SCRIPT, tmp_path / "alone", {})

    killed(begin(SCRIPT, tmp_path / "lost", cluster.environment(1), DYING))
    cluster.hand_over(2)
    resumed = ended(begin(SCRIPT, tmp_path / "lost", cluster.environment(2)))

    losses = {line["step"]: line["loss"] for line in map(json.loads, ended(alone))}
    shown, written = board_of(tmp_path / "lost" / "tensorboard")
    (file,) = (tmp_path / "lost" / "wandb" / "latest-run").glob("*.wandb")
    assert json.loads(resumed[0])["step"] == 3
    assert len(written) > STEPS  # both attempts have logged some of them
    assert shown == list(range(STEPS))
    assert list(rows_of(file)) == list(losses.items())
