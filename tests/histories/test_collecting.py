"""Random histories of saves, reuse, losses, zombies, condemnations and failures, with the collector in between.

Whatever happens: nothing that a usable checkpoint names is ever deleted, also when that checkpoint
was committed after the collector had looked; and in the end nothing is left that none names.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.control import ControlPlane
from handlers.sweep import SweepFailed
from spotrelay.core.checkpoint import CheckpointId, Commit, Shard
from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import AlreadyExists, Fenced, Missing, Retired
from spotrelay.core.lease import settled
from spotrelay.core.live import EXIT_DONE
from spotrelay.core.notice import InstanceState
from spotrelay.core.spec import Keep, Limits
from spotrelay.testing import Crash, Fault, faulty
from spotrelay.testing.strategies import faults
from tests.handlers.checkpoints import put_checkpoint
from tests.handlers.plane import SPEC, World

RUN = "run-1"
GRACE = Timings().grace
LIMITS = Limits(max_launches=100, max_failures=1000)


@dataclass
class Save:
    """A save under way: what was uploaded, and the commit that may never be sent."""

    commit: Commit
    named: tuple[Shard, ...]


@dataclass
class Writer:
    """One attempt's process, alive or a zombie. What it knows of the checkpoints may be long out of date."""

    generation: int
    machine: str
    saves: int = 0
    under_way: list[Save] = field(default_factory=list)
    base: tuple[CheckpointId, tuple[Shard, ...]] | None = None


class History:
    """A run, its writers, and the control plane with its faults."""

    def __init__(self, keep: Keep) -> None:
        self.world = World()
        self.world.start(spec=replace(SPEC, keep=keep, limits=LIMITS))
        self.named: dict[CheckpointId, tuple[Shard, ...]] = {}  # by every commit that was accepted
        self.writers = [self._met()]
        self._steps = 0

    def _met(self) -> Writer:
        current = self.world.run().current
        assert current is not None and current.instance_id is not None
        return Writer(current.generation, current.instance_id)

    def plane(self, drawn: list[Fault]) -> ControlPlane:
        script = iter(drawn)

        def draw(method: str) -> Fault:
            fault = next(script, Fault.NONE)
            return Fault.NONE if fault is Fault.STALE else fault

        world = self.world
        return replace(world.plane, store=faulty(world.store, draw), objects=faulty(world.objects, draw))

    # what writers do

    def learn(self, writer: Writer, drawn: list[Fault]) -> None:
        """Look at the table for something to build on."""
        sound = [c for c in self.world.store.checkpoints(RUN) if c.verified and c.usable]
        if sound:
            writer.base = (sound[0].id, self.named[sound[0].id])

    def begin(self, writer: Writer, drawn: list[Fault]) -> None:
        """Upload everything of a save, the manifest included, and commit nothing yet."""
        writer.saves += 1
        self._steps += 1
        elder = writer.base[1][:2] if writer.base else ()
        bodies = (b"%d.%d" % (writer.generation, writer.saves),)
        where = (self.world.objects, RUN, writer.generation, writer.saves, self._steps)
        commit, manifest = put_checkpoint(*where, bodies=bodies, elder=elder)
        commit = replace(commit, builds_on=(writer.base[0],) if writer.base and elder else ())
        writer.under_way.append(Save(commit, manifest.shards))

    def commit(self, writer: Writer, drawn: list[Fault]) -> None:
        """Send the commit of the save under way, however long ago it was uploaded."""
        if not writer.under_way:
            return
        save = writer.under_way.pop()
        try:
            self.world.store.commit(save.commit, writer.machine)
        except (Fenced, AlreadyExists):
            return
        except Retired:
            writer.base = None
            return
        self.named[save.commit.id] = save.named
        assert not self._missing(save.named), f"{save.commit.id} was committed without all of its shards"
        self.look(writer, drawn)

    def promote(self, writer: Writer, drawn: list[Fault]) -> None:
        """Call the oldest usable checkpoint good."""
        usable = [c for c in self.world.store.checkpoints(RUN) if c.usable]
        if usable:
            with contextlib.suppress(Fenced):
                self.world.store.promote(RUN, usable[-1].id, writer.machine)

    def find_damaged(self, writer: Writer, drawn: list[Fault]) -> None:
        """A reader reports the newest checkpoint's oldest shard; the event comes back until it is answered."""
        verified = [c for c in self.world.store.checkpoints(RUN) if c.verified and c.usable]
        if not verified:
            return
        shard = self.named[verified[0].id][0]
        about = {"run_id": RUN, "generation": verified[0].id.generation, "save": verified[0].id.save}
        for plane in (self.plane(drawn), self.world.plane):
            with contextlib.suppress(Crash):
                self.world.tell("Checkpoint Damaged", plane=plane, **about, key=shard.key, version=shard.version_id)
        for checkpoint in self.world.store.checkpoints(RUN):
            assert not (checkpoint.usable and shard in self.named[checkpoint.id])

    def lose(self, writer: Writer, drawn: list[Fault]) -> None:
        """The newest machine is gone for EC2; its process may wake again as a zombie."""
        self.world.change(self.writers[-1].machine, InstanceState.TERMINATED)
        self.world.settle(2)
        self.world.train()
        self.writers.append(self._met())

    def look(self, writer: Writer, drawn: list[Fault]) -> None:
        """The control plane looks at the run, with whatever fails at it."""
        with contextlib.suppress(Crash, SweepFailed):
            self.world.sweep(plane=self.plane(drawn))
        with contextlib.suppress(SweepFailed):
            self.world.sweep(timedelta(minutes=1))

    def wait(self, writer: Writer, drawn: list[Fault]) -> None:
        """Hours pass."""
        for part in range(3):
            self.world.beat(RUN, self.writers[-1].generation)
            self.world.clock.advance(timedelta(minutes=40))
            self.look(writer, drawn if part == 0 else [])

    # what is true

    def check(self) -> None:
        """Every checkpoint is whole until a grace after its retirement; so is what may still be committed."""
        for checkpoint in self.world.store.checkpoints(RUN):
            if not checkpoint.retired_at or self.world.clock.now() - checkpoint.retired_at < GRACE:
                assert not self._missing(self.named[checkpoint.id]), f"{checkpoint.id} lost a shard"
        lease = self.world.store.read_lease(RUN)
        for writer in self.writers:
            for save in writer.under_way:
                if save.commit.id > settled(lease) and self._may_be_committed(save):
                    assert not self._missing(save.named), f"{save.commit.id} lost a shard before its commit"

    def _may_be_committed(self, save: Save) -> bool:
        there = {c.id: c for c in self.world.store.checkpoints(RUN)}
        return all(base in there and not there[base].retired for base in save.commit.builds_on)

    def _missing(self, named: tuple[Shard, ...]) -> list[str]:
        missing = []
        for shard in named:
            try:
                self.world.objects.head(shard.key, shard.version_id)
            except Missing:
                missing.append(shard.key)
        return missing

    def end(self) -> None:
        """The run finishes; then only what its last checkpoints name is left, and nobody looks any more."""
        last = self.writers[-1]
        self.world.exit(RUN, last.generation, EXIT_DONE)
        self.world.change(last.machine, InstanceState.TERMINATED)
        self.world.settle(40, every=timedelta(minutes=30))
        assert self.world.run().due_at is None
        left = self.world.store.checkpoints(RUN)
        wanted = {s.key for c in left for s in self.named[c.id]} | {c.commit.manifest_key for c in left}
        assert {o.key for o in self.world.objects.list_versions(f"runs/{RUN}/")} == wanted
        assert len(left) <= 2 or self.world.run().spec.keep.every_steps
        assert not [c for c in left if c.retired]


STEPS = ("learn", "begin", "begin", "commit", "commit", "commit", "look", "wait", "promote", "find_damaged", "lose")
steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.lists(faults(), max_size=30))
keeps = st.builds(Keep, st.integers(1, 3), st.none() | st.integers(2, 6))


@settings(max_examples=60, deadline=None)
@given(keeps, st.lists(steps, min_size=5, max_size=40))
def test_nothing_that_is_named_is_ever_deleted_and_nothing_else_stays(
    keep: Keep, history: list[tuple[str, int, list[Fault]]]
) -> None:
    told = History(keep)

    for name, who, drawn in history:
        writer = told.writers[max(-1 - who, -len(told.writers))]  # the newest, or a zombie
        getattr(told, name)(writer, drawn)
        told.check()
    told.end()


def test_a_base_that_was_retired_during_a_slow_save_is_refused_and_the_next_save_is_whole() -> None:
    told = History(Keep(1))
    writer = told.writers[0]
    for name in ("begin", "commit", "learn", "begin"):
        getattr(told, name)(writer, [])
    slow = writer.under_way.pop()
    for _ in range(2):
        writer.base = None
        told.begin(writer, [])
        told.commit(writer, [])
    writer.under_way.append(replace(slow, commit=replace(slow.commit, save=9)))
    for _ in range(4):
        told.wait(writer, [])

    told.commit(writer, [])

    assert [str(c.id) for c in told.world.store.checkpoints(RUN)] == ["1.4"]
    told.begin(writer, [])
    told.commit(writer, [])
    told.check()


@pytest.mark.parametrize("moment", range(1, 40))
def test_a_commit_at_any_moment_of_a_look_loses_nothing(moment: int) -> None:
    told = History(Keep(1))
    writer = told.writers[0]
    for name in ("begin", "commit", "learn", "begin", "commit", "learn", "begin", "commit", "wait"):
        getattr(told, name)(writer, [])
    told.learn(writer, [])
    told.begin(writer, [])
    calls = 0

    def draw(method: str) -> Fault:
        nonlocal calls
        calls += 1
        if calls == moment:
            writer_commits(told, writer)
            told.begin(writer, [])
        return Fault.NONE

    world = told.world
    for _ in range(8):
        world.beat(RUN, 1)
        world.clock.advance(timedelta(minutes=40))
        world.look(
            RUN, plane=replace(world.plane, store=faulty(world.store, draw), objects=faulty(world.objects, draw))
        )
        told.check()
    assert calls > moment


def writer_commits(told: History, writer: Writer) -> None:
    """The commit alone, without a look of the control plane behind it."""
    save = writer.under_way.pop()
    told.world.store.commit(save.commit, writer.machine)
    told.named[save.commit.id] = save.named
