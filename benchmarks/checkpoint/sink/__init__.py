"""An S3 endpoint over HTTP on loopback that costs as little as it can: the emulators would be the bottleneck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Sink:
    """A running sink."""

    port: int

    @staticmethod
    def at(endpoint: str) -> Sink:
        """The sink that answers there."""
        return Sink(int(endpoint.rpartition(":")[2]))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def state(self) -> dict[str, Any]:
        """Free and received bytes, and when (monotonic) the first put and the first get since `mark` arrived."""
        return self._ask("state", {})

    def mark(self) -> None:
        """Forget when the first put and the first get arrived."""
        self._ask("mark", {})

    def flip(self, key: str, bit: int) -> None:
        """Damage an object: turn one bit over."""
        self._ask("flip", {"key": key, "bit": bit})

    def pace(self, bytes_per_s: float, first_byte_s: float) -> None:
        """Be as slow as this, on each connection; zeros: as fast as possible."""
        self._ask("pace", {"bytes_per_s": bytes_per_s, "first_byte_s": first_byte_s})

    def fail(self, puts: int) -> None:
        """Refuse the next puts with SlowDown."""
        self._ask("fail", {"puts": puts})

    def _ask(self, path: str, what: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.endpoint}/_sink/{path}", data=json.dumps(what).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            state: dict[str, Any] = json.load(answer)
            return state


@contextmanager
def sink(memory: int) -> Iterator[Sink]:
    """A sink with so many bytes of warm memory, for the time of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.checkpoint.sink", "--memory", str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        yield Sink(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
