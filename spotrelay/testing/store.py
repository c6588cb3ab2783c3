"""Both stores over one shared memory, with the conditions that the real table enforces."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from spotrelay.core import lease as rules
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, Verdict, resume_candidate, unpromotable
from spotrelay.core.errors import AlreadyExists, Fenced, InvalidInput, LostRace, Missing, Retired, UnknownRun
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport, Heartbeat
from spotrelay.core.row import decode_run, decode_value, encode_run, encode_value
from spotrelay.core.run import Entry, Run

Place = tuple[int, int]  # generation and node
K = TypeVar("K", Place, CheckpointId)
V = TypeVar("V")

NEWEST = 20  # checkpoints read with a run
FAR_BACK = 1000  # when none of those can be resumed from
SIGNS = 8  # heartbeats and reports read with a run, of each machine of an attempt


class MemoryStore:
    """A `RunStore` and a `LiveStore`: give the same object to both sides.

    Rows are kept as text, so that nobody can change one through a reference; everything else has
    been text once, so that what has no JSON form is found here and not on AWS.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rows: dict[str, tuple[int, str]] = {}  # version and text
        self._due: dict[str, datetime] = {}
        self._created: dict[str, datetime] = {}
        self._leases: dict[str, Lease] = {}
        self._entries: dict[str, list[str]] = {}
        self._verdicts: defaultdict[str, dict[CheckpointId, Verdict]] = defaultdict(dict)
        self._commits: defaultdict[str, dict[CheckpointId, Commit]] = defaultdict(dict)
        self._promoted: defaultdict[str, set[CheckpointId]] = defaultdict(set)
        self._retired: defaultdict[str, dict[CheckpointId, datetime]] = defaultdict(dict)
        self._beats: defaultdict[str, dict[Place, Heartbeat]] = defaultdict(dict)
        self._words: dict[tuple[str, int], str] = {}  # asked of attempts
        self._reports: defaultdict[str, dict[Place, ExitReport]] = defaultdict(dict)
        self._machines: dict[str, str] = {}

    # as a RunStore

    def create(self, run: Run) -> None:
        """Write a new run at version 1, due at once, with its empty lease."""
        with self._lock:
            if run.run_id in self._rows:
                raise AlreadyExists(f"there is a run {run.run_id} already: choose another id")
            self._entries[run.run_id] = []
            self._leases[run.run_id] = Lease(run.run_id)
            self._created[run.run_id] = run.created_at
            self._write(replace(run, version=1, due_at=run.due_at or run.created_at))

    def load(self, run_id: str) -> Run:
        """The run with everything that is read beside it."""
        with self._lock:
            run = self._read(run_id)
            signs = SIGNS * run.spec.nodes
            return replace(
                run,
                lease=self._leases[run_id],
                heartbeats=_newest(self._beats[run_id], signs),
                reports=_newest(self._reports[run_id], signs),
                checkpoints=self._far_enough(run_id),
            )

    def save(self, before: Run, after: Run) -> Run:
        """Write `after` and its news if the row still has `before`'s version."""
        with self._lock:
            version = self._version(before.run_id)
            if version != before.version:
                raise LostRace(f"run {before.run_id} is at version {version}, not {before.version}: read it again")
            saved = replace(after, version=version + 1)
            self._write(saved)
            return replace(saved, news=())

    def fence(self, run_id: str, floor: int) -> Lease:
        """Shut every generation below `floor` out of the lease, for good."""
        return self._change(run_id, lambda lease: rules.fence(lease, floor))

    def ask(self, run_id: str, generation: int, word: str) -> None:
        """Leave a word for an attempt that has sent a heartbeat."""
        with self._lock:
            self._version(run_id)
            if (generation, 0) in self._beats[run_id]:
                self._words[run_id, generation] = word

    def record_verdict(self, run_id: str, verdict: Verdict) -> None:
        """Write what a verification found; a condemned checkpoint stays condemned."""
        with self._lock:
            self._version(run_id)
            old = self._verdicts[run_id].get(verdict.id)
            if old is None or old.ok or not verdict.ok:
                self._verdicts[run_id][verdict.id] = _wired(verdict)

    def retire(self, run_id: str, checkpoint: Checkpoint, at: datetime) -> bool:
        """Let nothing use this checkpoint from now on."""
        with self._lock:
            self._version(run_id)
            if checkpoint.id not in self._commits[run_id]:
                return False
            if checkpoint.id in self._retired[run_id]:
                return True
            promoted_since = checkpoint.id in self._promoted[run_id] and not checkpoint.promoted
            if promoted_since and not checkpoint.condemned:
                return False
            self._retired[run_id][checkpoint.id] = at
            return True

    def forget(self, run_id: str, checkpoint: CheckpointId) -> None:
        """Take a retired checkpoint out of the table, with its verdict."""
        with self._lock:
            if checkpoint in self._retired[run_id]:
                for kept in (self._commits, self._verdicts, self._retired):
                    kept[run_id].pop(checkpoint, None)
                self._promoted[run_id].discard(checkpoint)

    def run_of(self, instance_id: str) -> str | None:
        """The run that this machine belongs to."""
        with self._lock:
            return self._machines.get(instance_id)

    def owners(self, instance_ids: Sequence[str]) -> dict[str, Run]:
        """The rows of the runs that these machines belong to, by machine."""
        with self._lock:
            known = {i: self._machines[i] for i in instance_ids if i in self._machines}
            return {instance_id: self._read(run_id) for instance_id, run_id in known.items()}

    def due(self, now: datetime, limit: int = 100) -> list[str]:
        """Ids of runs whose due time has come, longest overdue first."""
        with self._lock:
            ripe = sorted((at, run_id) for run_id, at in self._due.items() if at <= now)
        return [run_id for _, run_id in ripe[:limit]]

    def all_runs(self) -> Iterator[Run]:
        """Every run's row, newest first."""
        with self._lock:
            newest = sorted(self._rows, key=lambda run_id: (self._created[run_id], run_id), reverse=True)
            runs = [self._read(run_id) for run_id in newest]
        return iter(runs)

    def timeline(self, run_id: str) -> list[Entry]:
        """Every line written about the run, oldest first."""
        with self._lock:
            return [decode_value(Entry, text, "entry") for text in self._entries.get(run_id, [])]

    # as a LiveStore

    def read_run(self, run_id: str) -> Run:
        """As `load`."""
        return self.load(run_id)

    def read_lease(self, run_id: str) -> Lease:
        """The lease as it stands."""
        with self._lock:
            self._version(run_id)
            return self._leases[run_id]

    def take_lease(self, run_id: str, generation: int, holder: str) -> Lease:
        """Take the lease, or see that one has it already."""
        return self._change(run_id, lambda lease: rules.take(lease, generation, holder))

    def release_lease(self, run_id: str, generation: int, holder: str) -> None:
        """Give the lease back."""
        self._change(run_id, lambda lease: rules.release(lease, generation, holder))

    def commit(self, commit: Commit, holder: str) -> None:
        """Make a checkpoint exist, if `holder` has the lease."""
        with self._lock:
            lease = self.read_lease(commit.run_id)
            existing = self._commits[commit.run_id].get(commit.id)
            if existing == commit:
                return
            if existing is not None:
                raise AlreadyExists(f"run {commit.run_id}: another checkpoint was committed as {commit.id}")
            if not rules.may_commit(lease, commit.generation, holder):
                raise Fenced(
                    f"run {commit.run_id}: attempt {commit.generation} does not hold the lease, "
                    f"checkpoint {commit.id} was not committed"
                )
            if commit.save <= lease.save:
                raise AlreadyExists(
                    f"run {commit.run_id}: checkpoint {commit.generation}.{lease.save} was committed before {commit.id}"
                )
            gone = [base for base in commit.builds_on if not self._may_be_built_on(commit.run_id, base)]
            if gone:
                raise Retired(f"run {commit.run_id}: {commit.id} builds on {gone[0]}, which was retired: save whole")
            self._commits[commit.run_id][commit.id] = _wired(commit)
            self._leases[commit.run_id] = replace(lease, save=commit.save)

    def promote(self, run_id: str, checkpoint: CheckpointId, holder: str) -> None:
        """Say that the steps after this checkpoint stayed healthy, if `holder` has the lease."""
        with self._lock:
            lease = self.read_lease(run_id)
            commit = self._commits[run_id].get(checkpoint)
            if commit is None:
                raise Missing(f"run {run_id}: there is no checkpoint {checkpoint}")
            if why_not := unpromotable(commit):
                raise InvalidInput(f"run {run_id}: {why_not}")
            if checkpoint in self._promoted[run_id]:
                return
            if checkpoint in self._retired[run_id]:
                raise Retired(f"run {run_id}: {checkpoint} is retired")
            if not rules.may_promote(lease, checkpoint.generation, holder):
                raise Fenced(f"run {run_id}: {holder} does not hold the lease, {checkpoint} was not promoted")
            self._promoted[run_id].add(checkpoint)

    def checkpoints(self, run_id: str, limit: int = NEWEST) -> tuple[Checkpoint, ...]:
        """The newest checkpoints with what is known about them, newest first."""
        with self._lock:
            return tuple(self._known(commit) for commit in _newest(self._commits[run_id], limit))

    def beat(self, heartbeat: Heartbeat) -> str:
        """Write the newest sign of life; what was asked of the attempt."""
        with self._lock:
            self._beats[heartbeat.run_id][heartbeat.generation, heartbeat.node] = _wired(heartbeat)
            return "" if heartbeat.node else self._words.get((heartbeat.run_id, heartbeat.generation), "")

    def report(self, report: ExitReport) -> None:
        """Write how the program ended; the first report of an attempt stays."""
        with self._lock:
            self._reports[report.run_id].setdefault((report.generation, report.node), _wired(report))

    # what only a test asks

    def size(self, run: Run) -> int:
        """Characters of this run's row as it is stored now."""
        with self._lock:
            return len(self._rows[run.run_id][1])

    # beneath both

    def _version(self, run_id: str) -> int:
        if run_id not in self._rows:
            raise UnknownRun(f"there is no run {run_id}")
        return self._rows[run_id][0]

    def _read(self, run_id: str) -> Run:
        self._version(run_id)
        return decode_run(self._rows[run_id][1], run_id)

    def _write(self, run: Run) -> None:
        self._rows[run.run_id] = (run.version, encode_run(run))
        self._entries[run.run_id] += [encode_value(entry) for entry in run.news]
        self._machines.update({instance_id: run.run_id for a in run.attempts for instance_id in a.instance_ids})
        if run.due_at is None:
            self._due.pop(run.run_id, None)
        else:
            self._due[run.run_id] = run.due_at

    def _may_be_built_on(self, run_id: str, checkpoint: CheckpointId) -> bool:
        return checkpoint in self._commits[run_id] and checkpoint not in self._retired[run_id]

    def _known(self, commit: Commit) -> Checkpoint:
        run_id = commit.run_id
        promoted = commit.id in self._promoted[run_id]
        return Checkpoint(commit, self._verdicts[run_id].get(commit.id), promoted, self._retired[run_id].get(commit.id))

    def _far_enough(self, run_id: str) -> tuple[Checkpoint, ...]:
        found = self.checkpoints(run_id, NEWEST)
        hidden = len(found) == NEWEST and resume_candidate(found) is None
        return self.checkpoints(run_id, FAR_BACK) if hidden else found

    def _change(self, run_id: str, rule: Callable[[Lease], Lease]) -> Lease:
        with self._lock:
            self._leases[run_id] = rule(self.read_lease(run_id))
            return self._leases[run_id]


def _newest(items: Mapping[K, V], limit: int) -> tuple[V, ...]:
    return tuple(items[key] for key in sorted(items, reverse=True)[:limit])


def _wired(value: V) -> V:
    return decode_value(type(value), encode_value(value), type(value).__name__)
