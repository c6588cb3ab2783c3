"""What the core needs from the world. In memory in `spotrelay.testing`, on AWS in `spotrelay.aws`.

Every port raises only errors of `spotrelay.core.errors`; each docstring names those that a caller
has to expect besides `Unavailable`, which any of them may raise.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, Verdict
from spotrelay.core.experience import Experience
from spotrelay.core.hosts import Host
from spotrelay.core.lease import Lease
from spotrelay.core.lessons import Lesson
from spotrelay.core.line import Turn
from spotrelay.core.live import ExitReport, Heartbeat
from spotrelay.core.notice import InstanceState
from spotrelay.core.outlook import Outlook, Question, ZoneScore
from spotrelay.core.placement import Pool, Refusal, Rung
from spotrelay.core.run import Entry, Run

EVERY = 1_000_000  # as a limit: all of them
CROWD = 200  # machines of one region; where there are more, a sweep looks at them only when it is the region's turn


class Clock(Protocol):
    """The control plane's one clock."""

    def now(self) -> datetime:
        """The time, aware, UTC."""
        ...


class RunStore(Protocol):
    """The rows that only the control plane (and `submit`) writes."""

    def create(self, run: Run) -> None:
        """Write a new run at version 1, due at once, with its empty lease.

        Raises:
            AlreadyExists: the id is taken; nothing was written.
        """
        ...

    def load(self, run_id: str) -> Run:
        """The run with its lease, newest heartbeats, reports and checkpoints, all read consistently.

        Raises:
            UnknownRun: there is none.
            UnknownFormat: a newer version wrote it.
        """
        ...

    def save(self, before: Run, after: Run) -> Run:
        """Write `after` and its news if the row still has `before`'s version; index new machines.

        Returns `after` at its new version, with empty news.

        Raises:
            LostRace: somebody wrote since `before` was read; load and decide again.
            OutcomeUnknown: the reply was lost; load and look.
            Contention: nothing was written; try again.
        """
        ...

    def fence(self, run_id: str, floor: int) -> Lease:
        """Shut every generation below `floor` out of the lease, for good. Repeating it is harmless."""
        ...

    def ask(self, run_id: str, generation: int, word: str) -> None:
        """Leave a word for an attempt, which finds it in the answer to its next heartbeat and to every later one.

        A newer word takes the place of the one before. An attempt that never sent a heartbeat is asked nothing.
        """
        ...

    def record_verdict(self, run_id: str, verdict: Verdict) -> None:
        """Write what a verification found. A condemned checkpoint never becomes verified again."""
        ...

    def checkpoints(self, run_id: str, limit: int = 20) -> tuple[Checkpoint, ...]:
        """The newest checkpoints with what is known about them, newest first, read consistently."""
        ...

    def retire(self, run_id: str, checkpoint: Checkpoint, at: datetime) -> bool:
        """Let nothing use this checkpoint from now on: no commit that builds on it succeeds once this returns.

        Returns whether it is retired. It is not when it was promoted since it was read, unless it is
        condemned, or when it is not there any more. The first date stays.
        """
        ...

    def forget(self, run_id: str, checkpoint: CheckpointId) -> None:
        """Take a retired checkpoint out of the table, with its verdict. Harmless when it is gone, or not retired."""
        ...

    def run_of(self, instance_id: str) -> str | None:
        """The run that this machine belongs to: one indexed read; None for every machine not ours."""
        ...

    def owners(self, instance_ids: Sequence[str]) -> dict[str, Run]:
        """The rows of the runs that these machines belong to, by machine, without what is read beside a row.

        A hundred of them cost two requests. Read at best effort: a machine that is left out, or a
        row that speaks against it, is a reason to look again with `load`, never to act.
        """
        ...

    def due(self, now: datetime, limit: int = 100) -> list[str]:
        """Ids of runs whose due time has come, longest overdue first."""
        ...

    def all_runs(self) -> Iterator[Run]:
        """Every run's row, newest first, without what is read beside it. For people, never for a handler."""
        ...

    def timeline(self, run_id: str) -> list[Entry]:
        """Every line written about the run, oldest first."""
        ...


class LiveStore(Protocol):
    """What an attempt may read and write: its run's row to read; lease, heartbeat, commits to write."""

    def read_run(self, run_id: str) -> Run:
        """As `RunStore.load`."""
        ...

    def read_lease(self, run_id: str) -> Lease:
        """The lease as it stands.

        Raises:
            UnknownRun: there is no such run.
        """
        ...

    def take_lease(self, run_id: str, generation: int, holder: str) -> Lease:
        """Take the lease, or see that one has it already. See `spotrelay.core.lease.take`.

        Raises:
            Fenced: replaced; stop for good.
            LeaseHeld: an earlier attempt still holds it; wait.
        """
        ...

    def release_lease(self, run_id: str, generation: int, holder: str) -> None:
        """Give the lease back. Harmless when it is not held any more."""
        ...

    def commit(self, commit: Commit, holder: str) -> None:
        """Make a checkpoint exist, in one transaction that requires the lease.

        A repeated commit of the very same row succeeds: a lost reply is answered by sending it
        again, and the outcome read back is the true one, also when the lease is gone by then.

        Raises:
            Fenced: the lease is another's, and this checkpoint was not committed.
            AlreadyExists: another checkpoint was committed under this generation and save.
            Retired: what it builds on may not be used any more; save whole.
            Contention: nothing was written; send it again.
            OutcomeUnknown: the reply was lost; send it again, or read back.
        """
        ...

    def promote(self, run_id: str, checkpoint: CheckpointId, holder: str) -> None:
        """Say that the steps after this checkpoint stayed healthy, under the lease. Repeating it is harmless.

        It may be one of an earlier attempt, such as the one that was resumed from.

        Raises:
            InvalidInput: it was taken in a notice, or is not healthy: it can never be promoted.
            Missing: there is no such checkpoint, or no more.
            Retired: it is about to be deleted.
            Fenced: the lease is another's, and this checkpoint was not promoted.
            Contention: nothing was written; send it again.
            OutcomeUnknown: the reply was lost; send it again, or read back.
        """
        ...

    def checkpoints(self, run_id: str, limit: int = 20) -> tuple[Checkpoint, ...]:
        """The newest checkpoints with what is known about them, newest first, read consistently."""
        ...

    def beat(self, heartbeat: Heartbeat) -> str:
        """Write the newest sign of life. Never touches what a claim or a commit depends on.

        Returns what the control plane has asked of this attempt (`spotrelay.core.live`), or an empty text.
        """
        ...

    def report(self, report: ExitReport) -> None:
        """Write how the program ended. The first report of an attempt stays."""
        ...


@dataclass(frozen=True)
class StoredObject:
    """One version of one object, as a listing shows it."""

    key: str
    version_id: str
    size: int  # bytes
    etag: str  # without quotes
    latest: bool = True
    checksum: str = ""  # "crc32c:<base64>"; empty in listings


Body = bytes | memoryview | Sequence[memoryview]  # of an object: in one piece, or in several that follow each other


def parts_of(body: Body) -> Sequence[bytes | memoryview]:
    """The pieces of a body, in their order."""
    return (body,) if isinstance(body, (bytes, bytearray, memoryview)) else body


def size_of(body: Body) -> int:
    """Bytes of a body."""
    return sum(memoryview(part).nbytes for part in parts_of(body))


class Stream(Protocol):
    """The bytes of one object on their way here. A context manager; leaving it early costs the connection."""

    @property
    def size(self) -> int:
        """Bytes of the whole object, wherever the stream began."""
        ...

    def fill(self, view: memoryview) -> None:
        """Put the next bytes straight into this memory, all of it.

        Raises:
            Unavailable: the answer broke off, or ended; open another stream where this view begins.
        """
        ...

    def __enter__(self) -> Stream: ...

    def __exit__(self, *failure: object) -> None: ...


class ObjectStore(Protocol):
    """One versioned bucket."""

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        """Create an object; nothing is ever overwritten.

        Args:
            body: views of bytes are sent as they are, without a copy; they must not change meanwhile.
            checksum: what `spotrelay.aws.checksums` makes of the body; empty to have it computed. Bytes that
                do not match it are refused.

        Raises:
            AlreadyExists: the key is taken; read it, it may be your own earlier try.
        """
        ...

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The bytes of one version.

        Raises:
            Missing: no such object or version.
            Damaged: what arrived does not match S3's own checksum.
        """
        ...

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> Stream:
        """The bytes of one version as they arrive, compared with nothing: the caller knows their digest.

        Args:
            start: the first byte wanted.

        Raises:
            Missing: no such object or version.
            Damaged: it has no byte there.
        """
        ...

    def head(self, key: str, version_id: str | None = None) -> StoredObject:
        """Size, ETag, version and checksum.

        Raises:
            Missing: no such object or version.
        """
        ...

    def delete(self, key: str, version_id: str) -> None:
        """Take one version out of the bucket for good; for the control plane alone. Harmless when it is gone."""
        ...

    def list_versions(self, prefix: str) -> Iterator[StoredObject]:
        """Every version under a prefix that is not a delete marker; 1,000 a request."""
        ...


@dataclass(frozen=True)
class LaunchAnswer:
    """What a provider said to a launch. Both fields may be filled: refused pools, then a machine."""

    instance_id: str | None
    pool: Pool | None
    refusals: tuple[Refusal, ...] = ()
    others: tuple[str, ...] = ()  # ids of a gang's further machines, all of the same pool

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Every machine that was given."""
        return () if self.instance_id is None else (self.instance_id, *self.others)


@dataclass(frozen=True)
class Machine:
    """One machine of the stack: an EC2 instance with our tag, or a machine on a host."""

    instance_id: str
    state: InstanceState
    run_id: str
    generation: int
    launch: int
    pool: Pool
    launched_at: datetime | None = None


class Machines(Protocol):
    """A provider of machines: EC2, or hosts of one's own. `spotrelay.core.providers` makes several of them one."""

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request, ClientToken and tags included, ready to be stored and sent. Pure."""
        ...

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Send a prepared request. The same request always means the same machine, or the same gang.

        No machine in the answer means that every pool refused, each with its scope. A rung of several nodes gives
        all of them, in one zone and of one type, or none.

        Args:
            first: nobody can have sent this request before. Only then is a region that cannot be
                reached a refusal, of scope REGION: an earlier sending may have made a machine there.

        Raises:
            OutcomeUnknown: no clear answer; send the same request again.
            Unavailable: not sent this time, and it may have been before; send the same request again.
            Contention: throttled before anything happened; send the same request later.
        """
        ...

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made, by its tags, if the provider shows one.

        Args:
            region: the one that the launch went to, where the caller knows it; no other is asked.

        Raises:
            Unavailable, Contention: none is shown, and a region that may have one did not answer.
        """
        ...

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """Every machine that this launch made, as far as EC2 shows them; for the launch of a gang.

        Raises:
            Unavailable, Contention: a region that may have more of them did not answer.
        """
        ...

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """EC2's state of each; GONE for one it does not know.

        One that may be in a region that does not answer is left out: nothing is known of it.

        Args:
            where: regions by instance id, as far as the caller knows them; no other is asked.

        Raises:
            Unavailable, Contention: nothing is known of any of them.
        """
        ...

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine with our tag that is pending or running.

        Args:
            whole: regions to list to the end. Any other region answers one request, and none of its
                machines is named if there are more than `CROWD`. None: every region.

        Raises:
            Unavailable, Contention: at the very end, naming the regions that did not answer.
        """
        ...

    def terminate(self, instance_id: str) -> None:
        """End a machine. Harmless when it is already gone."""
        ...

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour of the pools whose price is known.

        Raises:
            Unavailable, Contention: no region gave an answer.
        """
        ...


class Publisher(Protocol):
    """Our own events."""

    def publish(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Send one event of our own source to the home bus. Best effort by design: a hint."""
        ...


class Switch(Protocol):
    """The kill switch."""

    def launches_allowed(self) -> bool:
        """Whether anybody may launch at this moment."""
        ...


class LaunchLine(Protocol):
    """Where launches wait that EC2 throttled, one line for each region. Losing a turn does no harm."""

    def stands(self, region: str, now: datetime) -> bool:
        """Whether launches are known to wait there; asks nobody, so it may not know of others' yet."""
        ...

    def join(self, region: str, now: datetime, spread: float) -> Turn:
        """Take the next turn in this region.

        Args:
            spread: 0 to 1, another for each run: those for whom the line is too long come back one by one.

        Raises:
            Contention: others joined at the same moment; try again a little later.
            OutcomeUnknown: a turn may be lost; nobody launches in it.
        """
        ...


class HostStore(Protocol):
    """The hosts of one's own that the stack may use, by name."""

    def hosts(self) -> tuple[Host, ...]:
        """All of them, by name."""
        ...

    def add(self, host: Host) -> None:
        """Register a host.

        Raises:
            AlreadyExists: the name is taken; nothing was written.
        """
        ...

    def drain(self, name: str, draining: bool = True) -> Host:
        """Let nothing start there any more, or let it again; the host as it stands then.

        Raises:
            Missing: there is no such host.
        """
        ...

    def remove(self, name: str) -> None:
        """Forget a host. Harmless when it is not there."""
        ...


class ExperienceStore(Protocol):
    """What the account has learnt of pools, shared by all its runs. Losing a lesson does no harm."""

    def recall(self) -> Experience:
        """Everything learnt so far, or nearly."""
        ...

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        """Add these lessons.

        Raises:
            Contention: others learnt at the same moment; these lessons are lost, or some of them.
        """
        ...

    def keep(self, outlook: Outlook) -> None:
        """Keep what EC2 was asked or is to be asked, in place of what was kept in its slot."""
        ...


class PlacementScores(Protocol):
    """EC2's own estimate of where Spot capacity is."""

    def ask(self, question: Question) -> tuple[ZoneScore, ...]:
        """The scores of the stack's zones, as far as EC2 tells them.

        Raises:
            InvalidInput: EC2 does not answer this question, now or ever.
        """
        ...
