"""What is searched: each cell is one model, small bounds, what may go wrong in it, and perhaps a rule removed."""

from __future__ import annotations

from dataclasses import dataclass, field

from spotrelay.core.clockwork import OBSERVATIONS, Timings

PROTOCOL = "protocol.pml"
SILENCE = "silence.pml"
GANG = "gang.pml"
NOTHING = {
    "G": 2,  # generations
    "L": 2,  # launches
    "CRASHES": 0,  # of the control plane's functions, anywhere
    "FAULTS": 0,  # lost replies and requests
    "REFUSALS": 0,  # definite ones, by EC2
    "LATES": 0,  # launches that arrive when nobody waits any more
    "NOTICES": 0,
    "LOSSES": 0,  # of machines, without a notice
    "ZOMBIES": 0,  # machines that run on after EC2 called them gone
    "FAILURES": 0,  # of the program
    "HARMS": 0,  # shards deleted by an outside hand
    "CANCELS": 0,
    "PAUSES": 0,
    "RESUMES": 0,
    "RETRIES": 0,
}
NOTHING_OF_A_GANG = {
    "G": 2,
    "SHORTS": 0,  # launches that give fewer machines than were asked for
    "FAULTS": 0,  # lost replies to a launch
    "LOSSES": 0,
    "ZOMBIES": 0,
    "NOTICES": 0,
    "SHUTS": 0,  # the zone of a gang that lost a machine has no other
}
_T = Timings()
CLOCKS = {
    "LOOKS": OBSERVATIONS,
    "SILENCE": round(_T.silence / _T.watch),
    "HOPELESS": round(_T.hopeless / _T.watch),
    "GAP": 3,  # `record._absorb_silence`
    "OUTAGES": 3,
}


@dataclass(frozen=True)
class Cell:
    """One exhaustive search."""

    name: str
    model: str
    bounds: dict[str, int]
    switches: tuple[str, ...] = ()  # EVENTS, SAVES, or the rule that is removed: BUG_…
    promise: int = 0  # for a seeded bug: the promise that it breaks

    @property
    def defines(self) -> list[str]:
        return [f"-D{k}={v}" for k, v in self.bounds.items()] + [f"-D{s}" for s in self.switches]


@dataclass(frozen=True)
class _Grounds:
    model: str
    least: dict[str, int] = field(default_factory=dict)

    def cell(self, name: str, *switches: str, promise: int = 0, **more: int) -> Cell:
        return Cell(name, self.model, {**self.least, **more}, switches, promise)


_p, _s, _g = _Grounds(PROTOCOL, NOTHING), _Grounds(SILENCE, CLOCKS), _Grounds(GANG, NOTHING_OF_A_GANG)

CELLS = (
    _p.cell("launches", L=3, CRASHES=1, FAULTS=1, REFUSALS=1, LATES=1),
    _p.cell("cancelled", CANCELS=1, CRASHES=1, LATES=1, REFUSALS=1),
    _p.cell("notices", "EVENTS", NOTICES=1, CRASHES=1),
    _p.cell("drains", "SAVES", NOTICES=1, FAULTS=1),
    _p.cell("zombies", "SAVES", LOSSES=1, ZOMBIES=1, CRASHES=1),
    _p.cell("harm", "SAVES", NOTICES=1, HARMS=1),
    _p.cell("three attempts", G=3, L=3, LOSSES=1, ZOMBIES=1, NOTICES=1),
    _p.cell("programs fail", G=3, L=3, FAILURES=1, LOSSES=1, CANCELS=1),
    _p.cell("limits", REFUSALS=2, FAULTS=1),
    _p.cell("paused in a launch", PAUSES=1, RESUMES=1, LATES=1),
    _p.cell("paused in a handover", PAUSES=1, RESUMES=1, NOTICES=1),
    _p.cell("paused and cancelled", PAUSES=1, CANCELS=1, CRASHES=1, FAULTS=1),
    _p.cell("paused when a program fails", PAUSES=1, RESUMES=1, FAILURES=1, LOSSES=1),
    _p.cell("retried", RETRIES=1, CANCELS=1, REFUSALS=2, CRASHES=1),
    _p.cell("retried beside a zombie", "SAVES", RETRIES=1, CANCELS=1, ZOMBIES=1),
    _s.cell("silence"),
    _g.cell("a gang comes short", G=3, SHORTS=2, FAULTS=1),
    _g.cell("a gang loses a machine", LOSSES=1, ZOMBIES=1, FAULTS=1, SHUTS=1),
    _g.cell("a gang loses one after another", G=3, LOSSES=2, SHUTS=1),
    _g.cell("a gang is taken back", NOTICES=1, SHUTS=1),
)

BUGS = (
    _p.cell("a commit without the lease", "SAVES", "BUG_NO_FENCE_AT_COMMIT", promise=1, LOSSES=1, ZOMBIES=1),
    _p.cell("a token for each sending", "BUG_TOKEN", promise=2, FAULTS=1),
    _p.cell("an unclear launch answered by the next rung", "BUG_NEXT_RUNG", promise=2, FAULTS=1),
    _p.cell("nobody looks for orphans", "BUG_NO_ORPHANS", promise=2, LATES=1, CANCELS=1),
    _p.cell("a commit before the last shard", "SAVES", "BUG_COMMIT_FIRST", promise=3, LOSSES=1),
    _p.cell("a resume from what nobody verified", "SAVES", "BUG_UNVERIFIED", promise=3, NOTICES=1),
    _p.cell("a verdict from before the loss", "SAVES", "BUG_STALE_VERDICT", promise=3, LOSSES=1, HARMS=1),
    _p.cell("a lost attempt keeps the lease", "SAVES", "BUG_NO_FENCE", promise=5, LOSSES=1),
    _p.cell("nothing due while an event may come", "EVENTS", "BUG_TRUSTS_EVENTS", promise=5, LOSSES=1),
    _p.cell("what a pause has drained is left to EC2", "BUG_NO_LET_GO", promise=5, PAUSES=1),
    _g.cell("a survivor commits by its name alone", "BUG_HOLDER_ALONE", promise=1, LOSSES=1),
    _g.cell("a survivor stays in its old gang", "BUG_TWO_RANKS", promise=2, LOSSES=1),
    _g.cell("half a gang is kept", "BUG_HALF_A_GANG", promise=5, SHORTS=1),
    _g.cell("survivors wait for ever", "BUG_WAITS_FOR_EVER", promise=5, LOSSES=1, SHUTS=1),
    _s.cell("a hanging program is never ended", "BUG_NEVER_HOPELESS", promise=5),
    _s.cell("an outage counts as silence", "BUG_NO_GAP", promise=6),
    _s.cell("no answer from EC2 means gone", "BUG_UNKNOWN_IS_DEAD", promise=6),
)
