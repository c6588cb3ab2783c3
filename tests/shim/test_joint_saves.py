"""A save of several ranks is committed when every one has acknowledged it, and only what all of them saved alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from spotrelay.core.checkpoint import Health, SaveReason, decode_manifest
from spotrelay.core.errors import Fenced
from spotrelay.core.health import Judgement
from spotrelay.testing import MemoryObjects, MemoryPublisher, MemoryStore
from tests.shim.thread_ranks import ThreadRanks, crew, on_all
from tests.shim.world import RUN, new_run
from trainer_shim.acknowledging import Acknowledgement, NotAcknowledged, join
from trainer_shim.base import Memory
from trainer_shim.entry import newest_number
from trainer_shim.environment import Identity
from trainer_shim.joint import Joint, JointFlight
from trainer_shim.shards import read
from trainer_shim.sharing import Place, share
from trainer_shim.snapshot import Cargo, Snapshot
from trainer_shim.tree import Leaf
from trainer_shim.uploading.carrier import CarrierHere
from trainer_shim.views import view
from trainer_shim.wiring import Ports

WORLD = 3
IDENTITY = Identity(RUN, 1, "i-1", "table", "bucket", "bus", "us-east-1", 0.02)


def leaves(rank: int) -> list[Leaf]:
    """Five arrays that all ranks hold alike, one that only rank 0's copy counts of, one for each rank."""
    common = [Leaf(f"models/m/{n}", "uint8", (50,), 50, bytes([n]) * 50) for n in range(5)]
    return [
        *common,
        Leaf("models/m/mean", "uint8", (8,), 8, bytes(8)),
        Leaf("random/x", "uint8", (4,), 4, bytes([rank]) * 4),
    ]


def place(name: str) -> Place:
    if name.endswith("mean"):
        return Place.FIRST
    return Place.ANY if name.startswith("models") else Place.EACH


class Alike:
    """A framework's word on what is alike."""

    def __init__(self, witness: str = "same") -> None:
        self._witness = witness

    def place(self, name: str) -> Place:
        return place(name)

    def own(self, tree: dict[str, Any]) -> dict[str, Any]:
        return {"models": {"m": {}}, "random": tree["random"]}

    def witness(self, leaves: Any, turn: int) -> str:
        return self._witness


class Bench:
    """Ports in memory, and the ranks of one attempt that holds the lease."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = MemoryObjects()
        self.publisher = MemoryPublisher()
        self.store.create(new_run())
        self.lease = self.store.take_lease(RUN, 1, "i-1")
        self.ports = Ports(self.store, self.objects, self.publisher)

    def save(self, ranks: ThreadRanks, ports: Ports | None = None, **different: Any) -> JointFlight:
        """One rank's side of the first save, from its snapshot to its end."""
        joint = Joint(ranks, Alike(different.get("witness", "same")))
        mine = leaves(ranks.rank)
        plan = joint.plan(mine, None)
        bodies = [
            each.header + b"".join(mine[p.leaf].value[p.start : p.start + p.size] for p in each.pieces)
            for each in plan.shards
        ]
        models = {name: {"$": "array", "name": f"models/m/{name}"} for name in ("0", "1", "2", "3", "4", "mean")}
        state = {"models": {"m": models}, "random": {"$": "array", "name": "random/x"}}
        ports = ports or self.ports
        cargo = Cargo(CarrierHere(ports.objects, bodies.__getitem__), plan, lambda shard: ())
        cargo.complete()
        verdict = different.get("judgement", Judgement(Health.HEALTHY))
        snapshot = Snapshot(7, SaveReason.CADENCE, joint.tree(state, mine, 1), cargo, verdict, 0.0, 1)
        flight = joint.flight(ports, IDENTITY, snapshot, 1, Memory(self.store, RUN).base())
        flight.fly()
        return flight

    def restored(self, rank: int) -> dict[str, bytes]:
        """Every array as a rank of this number gets it back."""
        commit = self.store.checkpoints(RUN)[0].commit
        manifest = decode_manifest(self.objects.get(commit.manifest_key, commit.manifest_version))
        mine = view(manifest.tree, rank)
        needed = {shard for each in mine.arrays.values() for shard, *_ in each["at"]}
        assert len(needed) < len(manifest.shards)
        bodies = {n: read(memoryview(self.objects.get(manifest.shards[n].key)), "s") for n in needed}
        return {name: b"".join(bodies[s][e] for s, e, _ in each["at"]) for name, each in mine.arrays.items()}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("trainer_shim.shards.LIMIT", 60)
    yield Bench()


def test_every_array_is_in_one_shard_of_one_rank_and_every_rank_gets_its_own_back(bench: Bench) -> None:
    flights = on_all(crew(WORLD), bench.save)

    assert {flight.commit.id for flight in flights} == {bench.store.checkpoints(RUN)[0].id}
    commit = bench.store.checkpoints(RUN)[0].commit
    manifest = decode_manifest(bench.objects.get(commit.manifest_key, commit.manifest_version))
    assert (manifest.world_size, [shard.rank for shard in manifest.shards]) == (3, [0, 1, 2, 0, 1, 0, 1, 2])
    for rank in range(WORLD):
        arrays = bench.restored(rank)
        assert {name: arrays[name] for name in arrays if name.startswith("models/m/")} == {
            leaf.name: leaf.value for leaf in leaves(0)[:6]
        }
        assert arrays["random/x"] == bytes([rank]) * 4


def test_only_one_rank_tells_of_a_commit(bench: Bench) -> None:
    on_all(crew(WORLD), bench.save)

    assert len(bench.publisher.of("Checkpoint Committed")) == 1


class Held:
    """A bucket that keeps the requests of one rank waiting."""

    def __init__(self, objects: MemoryObjects) -> None:
        self._objects = objects
        self.go_on = threading.Event()
        self.asked = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def put(self, key: str, body: Any, checksum: str = "") -> Any:
        self.asked.set()
        assert self.go_on.wait(20)
        return self._objects.put(key, body, checksum)


def test_nothing_is_committed_before_the_last_rank_has_acknowledged(bench: Bench) -> None:
    held = Held(bench.objects)
    slow = Ports(bench.store, held, bench.publisher)  # type: ignore[arg-type]  # the rest is passed through
    flights: list[Any] = []
    saving = threading.Thread(
        target=lambda: flights.extend(on_all(crew(WORLD), lambda r: bench.save(r, slow if r.rank == 1 else None)))
    )

    saving.start()
    assert held.asked.wait(20)
    others = [f"runs/{RUN}/shards/000001/000001/000{rank}-" for rank in (0, 2)]
    while not all(list(bench.objects.list_versions(prefix)) for prefix in others):
        assert saving.is_alive()
    before = bench.store.checkpoints(RUN), list(bench.objects.list_versions(f"runs/{RUN}/manifests/"))
    held.go_on.set()
    saving.join(20)

    assert before == ((), [])
    assert [flight.failure for flight in flights] == [None] * WORLD
    assert len(bench.store.checkpoints(RUN)) == 1


def test_a_rank_that_fails_fails_the_save_of_all(bench: Bench) -> None:
    class Refusing(Held):
        def put(self, key: str, body: Any, checksum: str = "") -> Any:
            raise PermissionError("no way in")

    broken = Ports(bench.store, Refusing(bench.objects), bench.publisher)  # type: ignore[arg-type]  # passed through

    flights = on_all(crew(WORLD), lambda ranks: bench.save(ranks, broken if ranks.rank == 2 else None))

    assert [str(flight.failure) for flight in flights] == ["rank 2: no way in"] * WORLD
    assert bench.store.checkpoints(RUN) == ()


def test_a_rank_that_has_drifted_away_fails_the_save(bench: Bench) -> None:
    flights = on_all(crew(2), lambda ranks: bench.save(ranks, witness=f"of {ranks.rank}"))

    assert all("rank 1 differs from rank 0's" in str(flight.failure) for flight in flights)
    assert bench.store.checkpoints(RUN) == ()


def test_bad_on_one_rank_is_bad(bench: Bench) -> None:
    def save(ranks: ThreadRanks) -> JointFlight:
        sick = Judgement(Health.BAD, "the loss is nan") if ranks.rank == 1 else Judgement(Health.HEALTHY)
        return bench.save(ranks, judgement=sick)

    on_all(crew(WORLD), save)

    commit = bench.store.checkpoints(RUN)[0].commit
    manifest = decode_manifest(bench.objects.get(commit.manifest_key))
    assert (commit.health, manifest.why) == (Health.BAD, "rank 1: the loss is nan")


def test_a_commit_that_is_refused_is_fenced_on_every_rank(bench: Bench) -> None:
    bench.store.fence(RUN, 2)

    flights = on_all(crew(2), bench.save)

    assert [type(flight.failure) for flight in flights] == [Fenced, Fenced]


def test_ranks_that_are_started_again_use_no_number_twice(bench: Bench) -> None:
    bench.objects.put(f"runs/{RUN}/manifests/000001/000001.json", b"lost before its commit")

    gate: Any = SimpleNamespace(ports=bench.ports, call=lambda request: request())

    assert newest_number(gate, bench.lease) == 1


def acks(**changes: Any) -> list[Acknowledgement]:
    first = Acknowledgement(RUN, 1, 4, 20, 0, layout="x", witness="w")
    return [first, replace(first, **{"rank": 1, **changes})]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"save": 3}, "another save"),
        ({"generation": 2}, "another save"),
        ({"step": 19}, "another save"),
        ({"run_id": "run-2"}, "another save"),
        ({"rank": 0}, "another save"),
        ({"layout": "y"}, "other arrays"),
        ({"numbers": (1,)}, "do not add up"),
        ({"failure": "disk full"}, "rank 1: disk full"),
    ],
)
def test_an_acknowledgement_of_anything_else_is_not_joined(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(NotAcknowledged, match=told):
        join(acks(**changes), {}, {})


def test_a_state_smaller_than_a_shard_is_still_shared_out_among_all_ranks() -> None:
    big = [Leaf(f"models/m/{n}", "uint8", (2**21,), 2**21, b"") for n in range(8)]

    parts = [share(big, place, rank, 4, None) for rank in range(4)]

    assert [sum(piece.size for each in part.plan.shards for piece in each.pieces) for part in parts] == [2**22] * 4
    assert sorted(number for part in parts for number in part.numbers) == list(range(4))
