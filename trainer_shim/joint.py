"""A save that all ranks make together: every rank its shards, rank 0 the manifest and the commit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from spotrelay.core.checkpoint import Commit, Health, SaveReason
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import Fenced
from spotrelay.core.health import Judgement, joined
from trainer_shim.acknowledging import Acknowledgement, NotAcknowledged, join
from trainer_shim.agreement import PATIENCE_S
from trainer_shim.base import Base, Memory
from trainer_shim.environment import Identity
from trainer_shim.framework import Replicas
from trainer_shim.patience import Cancelled
from trainer_shim.ranks import Ranks
from trainer_shim.saving import Flight
from trainer_shim.shards import Plan
from trainer_shim.sharing import Share, share
from trainer_shim.snapshot import Cargo, Snapshot, Torn
from trainer_shim.tree import Leaf
from trainer_shim.uploading.carrier import CarrierHere
from trainer_shim.wiring import Ports


class Joint:
    """How this rank takes part in the saves of all."""

    def __init__(self, ranks: Ranks, replicas: Replicas) -> None:
        self._ranks = ranks
        self._crew = ranks.beside()
        self._replicas = replicas
        self._share: Share | None = None

    def plan(self, leaves: list[Leaf], most: int | None) -> Plan:
        """What of these arrays this rank stages."""
        ranks = self._ranks
        self._share = share(leaves, self._replicas.place, ranks.rank, ranks.size, most)
        return self._share.plan

    def tree(self, tree: dict[str, Any], leaves: list[Leaf], save: int) -> dict[str, Any]:
        """What a snapshot says besides its arrays."""
        assert self._share is not None
        # The number of the save is the same on every rank, so all look at the same arrays.
        witness = self._replicas.witness([leaves[index] for index in self._share.indices], save)
        return {"state": tree, "own": self._replicas.own(tree), "witness": witness}

    def flight(self, ports: Ports, identity: Identity, snapshot: Snapshot, save: int, base: Base) -> JointFlight:
        """A save of this snapshot."""
        return JointFlight(ports, identity, snapshot, save, base, self._crew, self._share)

    def refusal(
        self, ports: Ports, identity: Identity, save: int, step: int, reason: SaveReason, why: str
    ) -> JointFlight:
        """In place of a save whose snapshot could not be taken: the other ranks have to hear of it."""
        cargo = Cargo(CarrierHere(ports.objects, lambda part: memoryview(b"")), Plan((), 1, {}), lambda part: ())
        snapshot = Snapshot(step, reason, {"failure": why}, cargo, Judgement(Health.HEALTHY), time.monotonic(), 0)
        base = Memory(ports.store, identity.run_id).base()
        return JointFlight(ports, identity, snapshot, save, base, self._crew, None)


class JointFlight(Flight):
    """One rank's side of a save. Its end is the same on every rank.

    Every rank speaks exactly twice, whatever happens to it: first it acknowledges, or says that it never will;
    then it hears from rank 0 what became of the whole.
    """

    patience_s = PATIENCE_S / 4  # the others wait for a word, and not for ever

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        snapshot: Snapshot,
        save: int,
        base: Base,
        crew: Ranks,
        share: Share | None,
    ) -> None:
        super().__init__(ports, identity, snapshot, save, base)
        self.rank = crew.rank
        self._crew = crew
        self._share = share  # None: this rank has nothing to save
        self._torn: Torn | None = None  # this rank's own snapshot is void

    def _persist(self) -> Commit:
        mine = self._acknowledgement()
        acks = [from_json(Acknowledgement, each) for each in self._crew.gather(to_json(mine), PATIENCE_S)]
        end = self._decided(acks) if self.rank == 0 else {}
        said = self._crew.gather(end, PATIENCE_S)[0]
        if "fenced" in said:
            raise Fenced(said["fenced"])
        if "failed" in said:
            raise self._torn or NotAcknowledged(said["failed"])
        commit = from_json(Commit, said["commit"])
        self._base.remember(commit.id, mine.shards)
        return commit

    def _announce(self, commit: Commit) -> None:
        if self.rank == 0:
            super()._announce(commit)

    def _acknowledgement(self) -> Acknowledgement:
        about, snapshot = self._identity, self.snapshot
        empty = Acknowledgement(about.run_id, about.generation, self.save, snapshot.step, self.rank)
        if self._share is None:
            return replace(empty, failure=snapshot.tree["failure"])
        try:
            stored, broken = self._store_shards(self.save)
        except Cancelled:
            return replace(empty, failure="it was given up for a newer one")
        except Torn as error:
            self._torn = error
            return replace(empty, failure=str(error))
        except Exception as error:  # noqa: BLE001 - the other ranks wait for a word, whatever happened
            return replace(empty, failure=str(error) or type(error).__name__)
        self.judgement = joined(snapshot.known, broken)
        return replace(
            empty,
            layout=self._share.layout,
            witness=snapshot.tree["witness"],
            numbers=self._share.numbers,
            shards=stored,
            arrays=self._share.own,
            state=snapshot.tree["own"],
            health=self.judgement.health,
            why=self.judgement.reason,
            stall_s=snapshot.stall_s,
            builds_on=self._base.builds_on,
        )

    def _decided(self, acks: list[Acknowledgement]) -> dict[str, Any]:
        """Rank 0: commit what all have acknowledged; what became of it, for all."""
        try:
            common = self._share.common if self._share is not None else {}
            whole = join(acks, common, self.snapshot.tree.get("state", {}))
            self.judgement = whole.judgement
            self.snapshot.cargo.stall_s = whole.stall_s
            durable_s = time.monotonic() - self.snapshot.taken_at
            bases = tuple(sorted({base for ack in acks for base in ack.builds_on}))
            commit = self._conclude(self.save, whole.shards, whole.tree, durable_s, bases, len(acks))
            return {"commit": to_json(commit)}
        except Fenced as error:
            return {"fenced": str(error)}
        except Cancelled:
            return {"failed": "it was given up"}
        except Exception as error:  # noqa: BLE001 - the other ranks wait for a word, whatever happened
            return {"failed": str(error) or type(error).__name__}
