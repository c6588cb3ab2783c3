"""What may end the attempt from outside: the metadata service's notice, and SIGTERM.

Both are latched beside the training loop; nothing that the loop does can make them be missed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

from spotrelay.core.live import ENDING
from spotrelay.core.ports import Publisher
from trainer_shim.environment import Identity
from trainer_shim.herald import publish
from trainer_shim.metadata import Metadata, NoMetadata, monotonic_deadline
from trainer_shim.patience import JITTER
from trainer_shim.voice import say

TERM_SHARE = 0.25  # of a notice's lead: how long after SIGTERM a machine still lets us work

TORCHRUN_LEAVES = timedelta(seconds=20)  # of the 30 s after which it kills, enough to say good-bye in the rest


@dataclass(frozen=True)
class Ending:
    """The attempt has to be over by then."""

    deadline: float  # monotonic
    why: str


class Watcher:
    """Latches the first word of an ending, and of a rebalance recommendation."""

    def __init__(self, identity: Identity, publisher: Publisher, asks: bool = True) -> None:
        self._identity = identity
        self._publisher = publisher
        self._lead = identity.timings.notice
        self._every_s = identity.timings.poll.total_seconds()
        self._metadata = Metadata(identity.metadata) if identity.metadata and asks else None
        self._in_gang = asks and identity.nodes > 1
        self._heeded = False  # what the agent says of other machines
        self._noticed = False
        self._ending: Ending | None = None
        self._rebalance = ""  # when the newest recommendation was made
        self._taken = ""  # the one that was acted on
        self._stopped = threading.Event()
        self._before: Any = None
        self._pid = os.getpid()

    @property
    def ending(self) -> Ending | None:
        """Set once the attempt has to end."""
        return self._ending

    def take_rebalance(self) -> bool:
        """Whether a recommendation has come that was not taken yet; takes it."""
        fresh = bool(self._rebalance) and self._rebalance != self._taken
        self._taken = self._rebalance
        return fresh

    def start(self) -> None:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_term)
        else:
            say("attach() was called outside the main thread: SIGTERM is not watched")
        if self._metadata is not None or self._in_gang:
            threading.Thread(target=self._run, name="spotrelay-watcher", daemon=True).start()

    def stop(self) -> None:
        """Listen no more; SIGTERM does again what it did before."""
        self._stopped.set()
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def end(self, left: timedelta, why: str) -> None:
        """Latch an ending. The first deadline stays, unless the new one is nearer."""
        ending = Ending(monotonic_deadline(left), why)
        if self._ending is None or ending.deadline < self._ending.deadline:
            self._ending = ending  # nothing but an assignment: a signal handler may have called

    def look(self) -> None:
        """Ask the metadata service once.

        Raises:
            NoMetadata: it does not answer.
        """
        assert self._metadata is not None
        action = None if self._noticed else self._metadata.action(self._lead)
        if action is not None:
            self._noticed = True
            self.end(action.left, f"EC2 is going to {action.action} this machine")
            self._publish(
                "Interruption Notice Seen", {"action": action.action, "deadline": action.deadline.isoformat()}
            )
        rebalance = self._metadata.rebalance()
        if rebalance and rebalance != self._rebalance:
            self._rebalance = rebalance
            self._publish("Rebalance Recommendation Seen", {})

    def heed(self) -> None:
        """See whether the machine's agent has left word that another machine of the gang is being taken."""
        state = self._identity.state
        if state is None or self._heeded:
            return
        try:
            generation, deadline, why = (state / ENDING).read_text().strip().split(" ", 2)
            about, left_s = int(generation), float(deadline) - time.monotonic()
        except (OSError, ValueError):
            return
        if about == self._identity.generation:
            self._heeded = True
            self.end(timedelta(seconds=left_s), why)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process that the script has forked ends as it would without us
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        launched = "TORCHELASTIC_RUN_ID" in os.environ
        left = min(self._lead * TERM_SHARE, TORCHRUN_LEAVES) if launched else self._lead * TERM_SHARE
        self.end(left, "the machine is shutting down (SIGTERM)")

    def _run(self) -> None:
        misses = 0
        while not self._stopped.is_set():
            if self._in_gang:
                self.heed()
            try:
                if self._metadata is not None:
                    self.look()
                misses = 0
            except NoMetadata as error:
                misses += 1
                if misses == 10:
                    say(f"the metadata service does not answer, so a notice may go unseen; training goes on: {error}")
            self._stopped.wait(self._every_s * JITTER.uniform(0.8, 1.2) * min(2 ** max(misses - 1, 0), 4))

    def _publish(self, kind: str, detail: dict[str, str]) -> None:
        identity = self._identity
        whole = {"run_id": identity.run_id, "generation": identity.generation, "instance-id": identity.instance_id}
        publish(self._publisher, kind, {**whole, **detail})
