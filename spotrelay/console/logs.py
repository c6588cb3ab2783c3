"""`spotrelay logs`: what the program printed, chunk by chunk as the machines shipped it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from spotrelay.console.wiring import Services
from spotrelay.core.errors import Missing

POLL_S = 2.0


@dataclass(frozen=True)
class Chunk:
    """A piece of an attempt's log."""

    attempt: int
    sequence: int
    text: str
    node: int = 0  # rank of the machine in its gang


def chunks(
    services: Services, run_id: str, attempt: int | None, follow: bool, pause_s: float = POLL_S
) -> Iterator[Chunk]:
    """Chunks in order, attempt by attempt; with `follow` later ones too, until the run has ended.

    Raises:
        UnknownRun: there is no such run.
    """
    seen: set[str] = set()
    while True:
        run = services.runs.load(run_id)  # before the listing: the last chunk is shipped before the run ends
        for key in _keys(services, run_id, attempt):
            if key not in seen:
                seen.add(key)
                yield _chunk(services, key)
        if not follow or run.status.final:
            return
        time.sleep(pause_s)


def _keys(services: Services, run_id: str, attempt: int | None) -> list[str]:
    folder = f"runs/{run_id}/logs/" + (f"{attempt:06d}/" if attempt is not None else "")
    return sorted({found.key for found in services.objects.list_versions(folder)})


def _chunk(services: Services, key: str) -> Chunk:
    generation, name = key.split("/")[-2:]
    try:
        text = services.objects.get(key).decode(errors="replace")
    except Missing:
        text = f"({key} was removed)\n"
    sequence, _, node = name.removesuffix(".log").partition("-")
    return Chunk(int(generation), int(sequence), text, int(node or 0))
