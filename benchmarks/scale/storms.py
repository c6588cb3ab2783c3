"""A storm of notices with every request counted: whether it drains exactly, and which partition is hottest."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from benchmarks.scale.counting import Tally, counted
from benchmarks.storm import Storm, is_right, parser, raged
from handlers.control import ControlPlane
from spotrelay.testing import MemoryExperience

MOST_WRITES = 1000  # units a second that one partition of a table or index takes
MOST_READS = 3000


class CountedStorm(Storm):
    """A storm that counts, through an account that learns."""

    @cached_property
    def tally(self) -> Tally:
        return Tally(self.world.clock.now)

    @cached_property
    def experience(self) -> MemoryExperience:
        return MemoryExperience()

    def process(self) -> ControlPlane:
        """One process of a function, its requests counted."""
        return counted(replace(super().process(), experience=self.experience), self.tally)


def measure(runs: int, *options: str) -> dict[str, Any]:
    """So many runs lose their machines in one second; each event comes twice."""
    storm = CountedStorm(parser().parse_args(["--runs", str(runs), *options]))
    result = raged(storm)
    tally = storm.tally
    reads, writes = tally.hottest(0), tally.hottest(1)
    return {
        **{name: result[name] for name in KEPT},
        "exact": is_right(result),
        "dynamodb_requests_each": round(tally.calls("dynamodb") / runs, 1),
        "hottest_partitions_writes_a_second": writes,
        "hottest_partitions_reads_a_second": reads,
        "share_of_what_a_partition_takes": {
            "writes": round(max(writes.values(), default=0) / MOST_WRITES, 3),
            "reads": round(max(reads.values(), default=0) / MOST_READS, 3),
        },
    }


KEPT = (
    "runs",
    "events_received",
    "replacements",
    "runs_with_one_replacement",
    "runs_lost",
    "orphans",
    "launch_calls_each",
    "launch_calls_throttled",
    "peak_calls_a_second_after_the_first_minute",
    "ec2_launches_a_second",
    "least_possible_s",
    "simulated_s",
    "notice_to_launch_s",
)
