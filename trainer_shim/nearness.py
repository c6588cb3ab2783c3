"""Where a checkpoint is read: in the machine's own region if all of it is there, else at home."""

from __future__ import annotations

from dataclasses import replace

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.nearest import Nearest, nearest
from spotrelay.core.replica import Replica
from trainer_shim.voice import say
from trainer_shim.wiring import Ports

LONGEST = 300  # characters of what is told


class Source:
    """The ports to read one checkpoint with, and what became of that."""

    def __init__(self, ports: Ports, replica: Replica | None) -> None:
        self.ports = ports
        self._region = replica.region if replica is not None else ""
        self._why = replica.problem if replica is not None else ""
        self._nearest: Nearest | None = None
        try:
            self._nearest = nearest(replica, ports.nearby, ports.objects, say)
        except SpotrelayError as error:
            self._why = str(error)
        if self._nearest is not None:
            self.ports = replace(ports, objects=self._nearest)

    @property
    def told(self) -> str:
        """For a person: where it was read, and why not nearby; empty where there is no other place than home."""
        if not self._region:
            return ""
        if self._nearest is None:
            return f"home, since the replica in {self._region} is not complete: {self._why}"[:LONGEST]
        trouble = self._nearest.trouble
        return f"the replica in {self._region}" + (f", in part from home: {trouble}"[:LONGEST] if trouble else "")
