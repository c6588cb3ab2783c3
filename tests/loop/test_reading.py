"""What the verdict reads: what the script printed, and the weights in a checkpoint's bytes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from spotrelay.console.demo.folder import training_script
from spotrelay.console.demo.reference import digest_in, losses_in
from spotrelay.console.demo.weights import weights_digest
from spotrelay.core.checkpoint import Manifest, Shard


def test_a_step_done_twice_counts_as_last_printed_and_a_cut_line_is_left_out() -> None:
    text = 'spotrelay: goes on\n{"step": 3, "loss": 1.5}\n{"step": 3, "loss": 1.25}\n{"step": 4, "lo'

    assert losses_in(text) == {3: 1.25}


def test_the_digest_is_read_from_the_last_line_only_when_it_is_there() -> None:
    assert digest_in('{"step": 3, "loss": 1.5}\n{"digest": "abc", "steps": 4}\n') == "abc"
    assert digest_in('{"step": 3, "loss": 1.5}\n') == ""


def test_the_digest_of_stored_weights_is_the_one_that_the_script_prints() -> None:
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    body, manifest = stored(model)

    found = weights_digest(manifest, lambda key, version: {("shard", "v1"): body}[key, version])

    assert found == script().digest(model)


def test_another_bit_is_another_digest() -> None:
    torch: Any = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    body, manifest = stored(model)
    harmed = body[:-1] + bytes([body[-1] ^ 1])

    assert weights_digest(manifest, lambda key, version: harmed) != weights_digest(manifest, lambda key, version: body)


def stored(model: Any) -> tuple[bytes, Manifest]:
    """The model in one shard, written here by hand in safetensors format."""
    table, data, arrays, names = {}, b"", {}, {}
    for name, value in model.state_dict().items():
        raw, entry = value.contiguous().reshape(-1).numpy().tobytes(), f"models/model/{name}"
        table[entry] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        arrays[entry] = {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "at": [[0, entry]],
        }
        names[name] = {"$": "array", "name": entry}
        data += raw
    header = json.dumps(table).encode()
    body = len(header).to_bytes(8, "little") + header + data
    shard = Shard("shard", "v1", len(body), "etag", "0" * 32, "")
    return body, Manifest("r", 1, 1, 5, (shard,), {"arrays": arrays, "state": {"models": {"model": names}}})


def script() -> Any:
    path: Path = training_script()
    spec = importlib.util.spec_from_file_location("gpt_stdlib", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
