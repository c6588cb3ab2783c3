"""A run and its attempts: the values, the table of legal moves, and how a fact changes them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from spotrelay.core.checkpoint import Checkpoint
from spotrelay.core.errors import IllegalTransition
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport, Heartbeat
from spotrelay.core.placement import Pool, Refusal
from spotrelay.core.replica import Replica
from spotrelay.core.retention import Upkeep
from spotrelay.core.spec import Spec


class AttemptState(Enum):
    """Where one attempt stands."""

    RESERVED = "reserved"  # has a generation, no machine yet
    BOOTING = "booting"  # has a machine, not yet the lease
    RUNNING = "running"  # has taken the lease
    DRAINING = "draining"  # its machine is being taken back
    ENDED = "ended"


class RunStatus(Enum):
    """Where a run stands."""

    WAITING = "waiting"  # for its next launch
    LAUNCHING = "launching"  # a launch is under way, no machine is alive
    STARTING = "starting"  # the machine boots
    RUNNING = "running"  # the newest attempt holds the lease
    PAUSING = "pausing"  # a person wants it to rest: its machines save and are ended
    PAUSED = "paused"  # it rests without a machine until a person resumes it
    HANDOVER = "handover"  # an older attempt still lives while the next one is prepared
    STOPPING = "stopping"  # the outcome is known, machines are being ended
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL


PAUSE = "pause"  # who told an attempt to drain, where it was no notice
FOR_SPOT = "back to Spot"
FOR_ON_DEMAND = "on-demand in time"
FOR_MONEY = "no money of the account"
FOR_LIMIT = "limits.max_dollars"
LETTING_GO = frozenset({PAUSE, FOR_SPOT, FOR_ON_DEMAND, FOR_MONEY, FOR_LIMIT})

FINAL = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})

ATTEMPT_MOVES: dict[tuple[AttemptState, AttemptState], str] = {
    (AttemptState.RESERVED, AttemptState.BOOTING): "EC2 gave a machine",
    (AttemptState.RESERVED, AttemptState.ENDED): "the run ended first",
    (AttemptState.BOOTING, AttemptState.RUNNING): "took the lease",
    (AttemptState.BOOTING, AttemptState.DRAINING): "notice",
    (AttemptState.BOOTING, AttemptState.ENDED): "lost before it took the lease",
    (AttemptState.RUNNING, AttemptState.DRAINING): "notice, or asked to",
    (AttemptState.RUNNING, AttemptState.ENDED): "lost, exited or fenced",
    (AttemptState.DRAINING, AttemptState.ENDED): "EC2 took the machine, or we ended it",
}

_S = RunStatus
RUN_MOVES: dict[tuple[RunStatus, RunStatus], str] = {
    (_S.WAITING, _S.LAUNCHING): "launch reserved",
    (_S.WAITING, _S.STOPPING): "outcome known",
    (_S.WAITING, _S.CANCELLED): "cancelled before any machine",
    (_S.WAITING, _S.FAILED): "limit reached or spec impossible",
    (_S.WAITING, _S.SUCCEEDED): "finished, no machine left",
    (_S.LAUNCHING, _S.WAITING): "EC2 refused",
    (_S.LAUNCHING, _S.STARTING): "EC2 gave a machine",
    (_S.LAUNCHING, _S.STOPPING): "outcome known while a launch is open",
    (_S.LAUNCHING, _S.FAILED): "EC2 cannot launch it as configured",
    (_S.STARTING, _S.RUNNING): "took the lease",
    (_S.STARTING, _S.WAITING): "lost while booting",
    (_S.STARTING, _S.HANDOVER): "notice",
    (_S.STARTING, _S.STOPPING): "outcome known",
    (_S.STARTING, _S.FAILED): "outcome known, machine gone",
    (_S.STARTING, _S.CANCELLED): "outcome known, machine gone",
    (_S.STARTING, _S.SUCCEEDED): "outcome known, machine gone",
    (_S.RUNNING, _S.HANDOVER): "notice",
    (_S.RUNNING, _S.WAITING): "lost without notice",
    (_S.RUNNING, _S.STOPPING): "outcome known",
    (_S.RUNNING, _S.SUCCEEDED): "outcome known, machine gone",
    (_S.RUNNING, _S.FAILED): "outcome known, machine gone",
    (_S.RUNNING, _S.CANCELLED): "outcome known, machine gone",
    (_S.HANDOVER, _S.RUNNING): "the next attempt took the lease",
    (_S.HANDOVER, _S.STARTING): "the old machine is gone, the next one boots",
    (_S.HANDOVER, _S.LAUNCHING): "the old machine is gone, a launch is open",
    (_S.HANDOVER, _S.WAITING): "the old machine is gone, no launch is open",
    (_S.HANDOVER, _S.STOPPING): "outcome known",
    (_S.HANDOVER, _S.SUCCEEDED): "outcome known, machines gone",
    (_S.HANDOVER, _S.FAILED): "outcome known, machines gone",
    (_S.HANDOVER, _S.CANCELLED): "outcome known, machines gone",
    (_S.STOPPING, _S.SUCCEEDED): "machines gone",
    (_S.STOPPING, _S.FAILED): "machines gone",
    (_S.STOPPING, _S.CANCELLED): "machines gone",
    (_S.WAITING, _S.PAUSED): "a person pauses it",
    (_S.WAITING, _S.PAUSING): "a person pauses it, a machine is being ended",
    (_S.LAUNCHING, _S.PAUSING): "a person pauses it, a launch is open",
    (_S.STARTING, _S.PAUSING): "a person pauses it",
    (_S.RUNNING, _S.PAUSING): "a person pauses it",
    (_S.HANDOVER, _S.PAUSING): "a person pauses it",
    (_S.PAUSING, _S.PAUSED): "machines gone",
    (_S.PAUSING, _S.STOPPING): "outcome known",
    (_S.PAUSING, _S.WAITING): "resumed, its machine is being ended",
    (_S.PAUSING, _S.LAUNCHING): "resumed, its launch is still open",
    (_S.PAUSING, _S.STARTING): "resumed, its machine still boots",
    (_S.PAUSING, _S.RUNNING): "resumed, its attempt was not asked to drain yet",
    (_S.PAUSING, _S.HANDOVER): "resumed, its attempt drains",
    (_S.PAUSED, _S.WAITING): "a person resumes it",
    (_S.PAUSED, _S.CANCELLED): "cancelled without any machine",
    (_S.PAUSED, _S.FAILED): "its dollars are used up",
    (_S.FAILED, _S.WAITING): "a person retries it",
    (_S.CANCELLED, _S.WAITING): "a person retries it",
}


@dataclass(frozen=True)
class Member:
    """One machine of an attempt, and what became of it."""

    instance_id: str
    launched_at: datetime | None = None
    beating_at: datetime | None = None  # first heartbeat seen
    deadline: datetime | None = None  # of the notice that it got
    ending_at: datetime | None = None  # EC2 says that it is shutting down or stopping
    machine_gone_at: datetime | None = (
        None  # EC2 says that it is no longer running, or it went over to the next attempt
    )
    terminate_asked_at: datetime | None = None
    observed_at: datetime | None = None  # EC2 was last asked about it

    @property
    def live(self) -> bool:
        """Whether it may still run our process."""
        return self.machine_gone_at is None


OF_A_MACHINE = tuple(f.name for f in fields(Member))  # an attempt of one machine has all of these itself


@dataclass(frozen=True)
class Attempt:
    """One try, on one machine or on a gang of them. Its generation is the fencing token."""

    generation: int  # starts at 1
    state: AttemptState = AttemptState.RESERVED
    instance_id: str | None = None
    pool: Pool | None = None
    price: float | None = None  # dollars an hour as recorded at launch
    reserved_at: datetime | None = None
    launched_at: datetime | None = None
    beating_at: datetime | None = None  # first heartbeat seen
    running_at: datetime | None = None  # lease seen taken
    first_step_at: datetime | None = None  # first new step seen
    rebalance_at: datetime | None = None
    noticed_at: datetime | None = None
    deadline: datetime | None = None  # of the notice
    noticed_by: str = ""
    drained_at: datetime | None = None
    ended_at: datetime | None = None
    ended_why: str = ""
    crashed: bool = False  # the user's program or the boot failed, rather than the machine
    ending_at: datetime | None = None  # EC2 says that it is shutting down or stopping
    machine_gone_at: datetime | None = None  # EC2 says that it is no longer running
    terminate_asked_at: datetime | None = None
    observed_at: datetime | None = None  # EC2, or its host, was last asked about the machine
    unreachable_since: datetime | None = None  # its host gave no answer, then and ever since
    resumed_from: int | None = None  # step
    resumed_checkpoint: str = ""
    last_step: int = 0  # newest step seen
    # Of several machines, by rank; `instance_id` is the first one's. What is said above of one machine is then the
    # first beat of any, the earliest deadline, and the end of the last. Empty with one machine.
    members: tuple[Member, ...] = ()
    asked_at: datetime | None = None  # it was asked to drain, since a person wants its host empty
    parted_at: datetime | None = None  # its ranks said that they have lost each other
    hung_at: datetime | None = None  # it got nowhere and was asked for its stacks
    paid_until: datetime | None = None  # its time is set aside in the account's books up to then
    transfer: float = 0.0  # dollars for fetching the checkpoint from another region

    @property
    def live(self) -> bool:
        """Whether a machine of it may still run our process."""
        return self.instance_id is not None and self.machine_gone_at is None

    @property
    def machines(self) -> tuple[Member, ...]:
        """Each machine of it, by rank."""
        if self.members or self.instance_id is None:
            return self.members
        return (Member(**{name: getattr(self, name) for name in OF_A_MACHINE}),)

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Each machine's id, by rank."""
        return tuple(machine.instance_id for machine in self.machines)

    @property
    def over(self) -> bool:
        return self.state is AttemptState.ENDED

    @property
    def let_go(self) -> bool:
        """Whether it ends because we asked it to, for a pause or for money: no loss, and no failure."""
        return self.noticed_by in LETTING_GO


@dataclass(frozen=True)
class Intent:
    """A launch that was promised before it was asked for: the exact request, to be sent again."""

    generation: int
    launch: int  # sequence number within the run; never repeats
    request: dict[str, Any]  # the exact CreateFleet request, its ClientToken in it
    pools: tuple[Pool, ...]
    reserved_at: datetime
    sent: int = 0  # times that the sending was begun
    due_at: datetime | None = None  # when it may be sent again
    why: str = ""
    nodes: int = 1  # machines asked for; all of them or none
    keeps: tuple[str, ...] = ()  # machines of the gang before that go over to this attempt
    turn_at: datetime | None = None  # its place in the line of throttled launches, once it has one
    rate: float | None = None  # dollars an hour of the dearest pool, where that was known
    transfer: float = 0.0  # dollars for fetching the checkpoint from another region


@dataclass(frozen=True)
class Silence:
    """How long a heartbeat has stood still, counted over successful looks only."""

    generation: int
    counter: int
    since: datetime
    last_look: datetime
    looks: int = 1
    node: int = 0  # rank of the machine


@dataclass(frozen=True)
class Progress:
    """How long a program has shown no sign of getting on, counted over successful looks only."""

    generation: int
    signs: int
    since: datetime
    last_look: datetime
    looks: int = 1


@dataclass(frozen=True)
class Entry:
    """One line of the run's timeline."""

    kind: str  # a short fixed word: "notice", "launch", "refused", "verified" …
    text: str  # for a person, with the reason
    at: datetime
    generation: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Everything known about a run. `version` makes each save conditional on what was read."""

    run_id: str
    spec: Spec
    created_at: datetime
    version: int = 0
    status: RunStatus = RunStatus.WAITING
    attempts: tuple[Attempt, ...] = ()
    launches: int = 0  # launch sequence numbers given out
    intent: Intent | None = None
    refusals: tuple[Refusal, ...] = ()
    outcome: RunStatus | None = None
    outcome_why: str = ""
    cancel_why: str | None = None
    retry_at: datetime | None = None  # no launch before this
    backoffs: int = 0  # waits in a row because every pool refused
    failures: int = 0  # crashes in a row without a new step
    silence: Silence | None = None  # of the first machine
    silences: tuple[Silence, ...] = ()  # of a gang's further machines
    progress: Progress | None = None  # of the program that trains
    recheck_after: datetime | None = None  # verdicts older than this do not count for a resume
    verify_at: datetime | None = None  # S3 gave no answer: no verification before this
    noted_commit: str = ""  # id of the newest commit that the timeline shows
    noted_whole: str = ""  # id of the checkpoint of which the timeline said last that it is whole
    broke_until: datetime | None = None  # the account had no money left: it is not asked for before this
    ended_at: datetime | None = None
    due_at: datetime | None = None
    upkeep: Upkeep = field(default_factory=Upkeep)
    replicas: tuple[Replica, ...] = ()  # what was last found in each, one for each region that has one
    paused_at: datetime | None = None  # a person wants it to rest, since then
    pause_why: str = ""
    paused_for: timedelta = timedelta(0)  # in pauses that are over, and between an end and a retry
    hours_from: datetime | None = None  # limits.max_hours counts from here; None: from the submission
    opened_after: int = 0  # highest generation at the newest retry: limits.max_launches counts those above
    excused: int = 0  # highest generation whose end was a person's wish: `failover: false` allows one more
    schema: int = 1
    # read together with the row, never written with it
    lease: Lease | None = field(default=None, compare=False)
    heartbeats: tuple[Heartbeat, ...] = field(default=(), compare=False)  # newest generations first
    reports: tuple[ExitReport, ...] = field(default=(), compare=False)
    checkpoints: tuple[Checkpoint, ...] = field(default=(), compare=False)  # newest first, bounded
    news: tuple[Entry, ...] = field(default=(), compare=False)  # timeline lines to write with the row

    @property
    def paused(self) -> bool:
        """Whether a person wants it to rest."""
        return self.paused_at is not None

    @property
    def current(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live(self) -> tuple[Attempt, ...]:
        """Attempts whose machine may still run our process, oldest first."""
        return tuple(a for a in self.attempts if a.live)

    def attempt(self, generation: int) -> Attempt | None:
        """The attempt with this generation."""
        return next((a for a in self.attempts if a.generation == generation), None)

    def attempt_on(self, instance_id: str) -> Attempt | None:
        """The attempt that has this machine."""
        return next((a for a in reversed(self.attempts) if instance_id in a.instance_ids), None)

    def heartbeat(self, generation: int, node: int = 0) -> Heartbeat | None:
        """The newest sign of life of an attempt's machine."""
        return next((h for h in self.heartbeats if (h.generation, h.node) == (generation, node)), None)


LOADED_BESIDE = ("lease", "heartbeats", "reports", "checkpoints", "news")


def status_of(run: Run) -> RunStatus:
    """The status that the attempts, the intent and the outcome add up to."""
    if run.outcome is not None:
        return RunStatus.STOPPING if run.live or run.intent else run.outcome
    if run.paused:
        return RunStatus.PAUSING if run.live or run.intent else RunStatus.PAUSED
    current = run.current
    state = current.state if current else None
    if state is AttemptState.RUNNING:
        return RunStatus.RUNNING
    if current and (state is AttemptState.DRAINING or _elder_lives(run, current)):
        return RunStatus.HANDOVER
    if state is AttemptState.BOOTING:
        return RunStatus.STARTING
    return RunStatus.LAUNCHING if run.intent else RunStatus.WAITING


def _elder_lives(run: Run, current: Attempt) -> bool:
    return any(
        a.state in (AttemptState.RUNNING, AttemptState.DRAINING) and a.live
        for a in run.attempts
        if a.generation < current.generation
    )


def settle(before: Run, after: Run) -> Run:
    """`after` with the status that follows, if every move between the two is in the tables.

    Raises:
        IllegalTransition: a move that no table allows; nothing may be written.
    """
    if before.status.final and not _reopened(before, after):
        if replace(after, due_at=before.due_at, upkeep=before.upkeep) != before:
            raise IllegalTransition(f"run {before.run_id} is {before.status.value}: it does not change any more")
        return after
    for attempt in after.attempts if after.attempts is not before.attempts else ():
        _check_move(before, attempt)
    status = status_of(after)
    if status is not before.status and (before.status, status) not in RUN_MOVES:
        raise IllegalTransition(f"run {before.run_id} cannot go from {before.status.value} to {status.value}")
    return after if status is after.status else replace(after, status=status)


def _reopened(before: Run, after: Run) -> bool:
    """Whether a person has opened a run again that had ended."""
    return after.outcome is None and (before.status, status_of(after)) in RUN_MOVES


def _check_move(before: Run, attempt: Attempt) -> None:
    old = before.attempt(attempt.generation)
    if old is None or old.state is attempt.state or (old.state, attempt.state) in ATTEMPT_MOVES:
        return
    move = f"from {old.state.value} to {attempt.state.value}"
    raise IllegalTransition(f"run {before.run_id}: attempt {attempt.generation} cannot go {move}")


def with_attempt(run: Run, attempt: Attempt) -> Run:
    """The run with this attempt in place of its older self."""
    return replace(run, attempts=tuple(attempt if a.generation == attempt.generation else a for a in run.attempts))


def with_machine(attempt: Attempt, machine: Member) -> Attempt:
    """The attempt with this machine in place of its older self."""
    if not attempt.members:
        return replace(attempt, **{name: getattr(machine, name) for name in OF_A_MACHINE})
    members = tuple(machine if m.instance_id == machine.instance_id else m for m in attempt.members)
    gone = [m.machine_gone_at for m in members]
    return replace(
        attempt,
        members=members,
        beating_at=attempt.beating_at or machine.beating_at,
        machine_gone_at=None if None in gone else max(at for at in gone if at is not None),
    )


def machine_on(attempt: Attempt, instance_id: str) -> Member:
    """The machine with this id, which the attempt has."""
    return next(m for m in attempt.machines if m.instance_id == instance_id)


def silence_of(run: Run, generation: int, node: int) -> Silence | None:
    """How long a machine's heartbeat has stood still."""
    heard = (run.silence, *run.silences)
    return next((s for s in heard if s is not None and (s.generation, s.node) == (generation, node)), None)


def note(run: Run, kind: str, text: str, at: datetime, generation: int | None = None, **data: Any) -> Run:
    """The run with one more line for its timeline."""
    return replace(run, news=(*run.news, Entry(kind, text, at, generation, data)))
