"""The end of a process that has attached: the lease goes back, everybody who has to is told, and it exits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NoReturn

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.live import EXIT_DRAINED, EXIT_PARTED, Phase
from trainer_shim.environment import Identity
from trainer_shim.herald import Herald
from trainer_shim.marker import Marker, exit_status
from trainer_shim.patience import Cancelled, persevere
from trainer_shim.pulse import Pulse
from trainer_shim.ranks import Parted
from trainer_shim.team import Team
from trainer_shim.voice import say
from trainer_shim.watcher import Watcher
from trainer_shim.wiring import Ports

EXIT_REFUSED = 1  # nothing can be resumed, what was found does not fit, or the ranks have lost each other
GOODBYE_S = 8.0  # for the last requests, whatever the deadline says
FLUSH_S = 2.0  # for the last reports


@dataclass(frozen=True)
class Departure:
    """What has to be told and ended when this process goes, by whatever way."""

    identity: Identity
    ports: Ports
    pulse: Pulse
    herald: Herald
    watcher: Watcher
    marker: Marker
    team: Team

    def release(self, deadline: float) -> None:
        """Give the lease back, so that the next attempt need not wait for this machine's end; rank 0 does it for all.

        Args:
            deadline: monotonic; the machine's.
        """
        if not self.team.leads:
            return
        left_s = max(deadline - time.monotonic(), GOODBYE_S)
        try:
            persevere(self._give_back, _Until(left_s), self.identity.time_scale, left_s)
        except (SpotrelayError, Cancelled) as error:
            say(f"the lease could not be given back; the control plane will take it when this machine is gone: {error}")
            return
        self.herald.report("released")

    def _give_back(self) -> None:
        identity = self.identity
        self.ports.store.release_lease(identity.run_id, identity.generation, identity.instance_id)

    def leave(self, code: int) -> NoReturn:
        """Exit, all ranks together."""
        if code == EXIT_DRAINED:
            self.pulse.set(phase=Phase.DRAINED)
            self.herald.report("drained")
        self.pulse.stop()
        self.herald.flush(FLUSH_S)
        self.watcher.stop()
        written = not self.team.ranks.watches or self.marker.leave_word(self.identity.generation, code)
        raise SystemExit(exit_status(code, self.team.part(written), self.team.size))

    def leave_alone(self, error: Parted, kept: str) -> NoReturn:
        """Nothing can be agreed on any more: exit, so that the ranks are started again together.

        Args:
            kept: what is committed, for the message.
        """
        say(f"{error}. {kept} is committed; this process ends, so that all can be started again", everywhere=True)
        self.watcher.stop()
        self.pulse.stop()
        if self.identity.nodes > 1 and self.team.ranks.watches:
            self.marker.leave_word(self.identity.generation, EXIT_PARTED)  # the cause may be on another machine
        raise SystemExit(EXIT_REFUSED)


class _Until:
    """A wait that is given up at a time, for `persevere`."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def wait(self, timeout: float) -> bool:
        time.sleep(max(min(timeout, self._end - time.monotonic()), 0.0))
        return time.monotonic() >= self._end
