"""What a run's row can hold: it names every attempt and every machine, and an item of the table has a bound."""

from __future__ import annotations

from spotrelay.core.run import Run

ATTEMPT_BYTES, MEMBER_BYTES = 600, 115  # at their longest, packed; `tests/aws/test_row_size.py` measures them
ROW_BYTES = 280_000  # of the 400 KB that an item holds; the rest is for everything else, and for fields to come


def bytes_for(attempts: int, members: int) -> int:
    """What so many attempts take up, which are so many machines of gangs together."""
    return ATTEMPT_BYTES * attempts + MEMBER_BYTES * members


def room_left(run: Run) -> int:
    """Bytes of a run's row that further attempts may take up; below zero where one did not fit any more."""
    return ROW_BYTES - bytes_for(len(run.attempts), sum(len(a.members) for a in run.attempts))


def size_of_one(run: Run) -> int:
    """Bytes that one more attempt of this run takes up."""
    return bytes_for(1, run.spec.nodes if run.spec.nodes > 1 else 0)


def why_full(run: Run) -> str:
    """Why this run can have no further attempt; empty while its row has room for one."""
    if size_of_one(run) <= room_left(run):
        return ""
    return f"it has had {len(run.attempts)} attempts, as many as its record can hold: submit it anew"
