"""Every waiting time of the control plane, in one value, so that a demo can scale them together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from zlib import crc32


@dataclass(frozen=True)
class Timings:
    """Bounds and intervals; defaults are those of production."""

    notice: timedelta = timedelta(minutes=2)  # lead of a Spot notice
    after_deadline: timedelta = timedelta(minutes=2)  # until a noticed machine is ended by us
    watch: timedelta = timedelta(minutes=1)  # a healthy run is looked at this often
    silence: timedelta = timedelta(minutes=5)  # unchanged heartbeat: ask EC2
    hopeless: timedelta = timedelta(minutes=15)  # unchanged heartbeat, EC2 says running: terminate
    boot: timedelta = timedelta(minutes=15)  # launch to first heartbeat
    resend: timedelta = timedelta(seconds=20)  # an unclear launch is sent again
    backoff: timedelta = timedelta(seconds=30)  # first wait when every pool refused; doubles
    backoff_most: timedelta = timedelta(minutes=10)
    crash: timedelta = timedelta(seconds=10)  # before a program that failed is tried again
    verification: timedelta = timedelta(minutes=2)  # how long a resume waits for one under way
    beat: timedelta = timedelta(seconds=10)  # between heartbeats
    poll: timedelta = timedelta(seconds=5)  # between looks at the metadata service
    grace: timedelta = timedelta(hours=2)  # from the moment that nobody may use an object to its deletion
    drain: timedelta = timedelta(minutes=15)  # for a drain that nobody hurries: of a pause
    rest: timedelta = timedelta(days=1)  # a paused run is looked at this often
    rights: timedelta = timedelta(hours=1)  # what the credentials of a host's machine last, unless they are renewed
    settle: timedelta = timedelta(seconds=30)  # after a write of ours, until a sweep may redo it

    @property
    def scale(self) -> float:
        """How much faster than in production these clocks run: 1.0 there, less in a demo."""
        return self.notice / Timings.notice

    def scaled(self, factor: float) -> Timings:
        """All of them times `factor`; 0.05 makes a two-minute notice last six seconds."""
        return Timings(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


OBSERVATIONS = 3  # successful looks that must agree before silence counts


def spread(name: str) -> float:
    """From 0 to 1, another for each name and the same each time: what happens to many at once parts ways by it."""
    return crc32(name.encode()) % 1000 / 1000
