"""Checkpoints: what a manifest says, what the control plane found, and which one to resume from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from spotrelay.core.codec import from_json, strict_json, to_json
from spotrelay.core.errors import InvalidInput, UnknownFormat

FORMAT = 1  # of manifests and shards; a reader refuses a higher one by name


class Health(Enum):
    """The gate's judgement of the training state at the moment of the save."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"  # outside its recent band: resumed from, never promoted
    BAD = "bad"  # not finite: never resumed from


class SaveReason(Enum):
    """Why this checkpoint was taken."""

    FIRST = "first"
    CADENCE = "cadence"
    REBALANCE = "rebalance"
    NOTICE = "notice"
    REQUESTED = "requested"
    FINAL = "final"


@dataclass(frozen=True, order=True)
class CheckpointId:
    """Order of ids is order of commits: a later generation commits only after an earlier one."""

    generation: int  # starts at 1
    save: int  # starts at 1 in each generation

    def __str__(self) -> str:
        return f"{self.generation}.{self.save}"

    @staticmethod
    def of(text: str) -> CheckpointId:
        """The id in a text that `str` made of one; an empty text comes before every id."""
        generation, _, save = text.partition(".")
        return CheckpointId(int(generation or 0), int(save or 0))


@dataclass(frozen=True)
class Shard:
    """One object of a checkpoint, at one version."""

    key: str
    version_id: str
    size: int  # bytes
    etag: str  # as S3 lists it, without quotes
    digest: str  # xxh3-128 of the bytes, 32 hexadecimal digits
    checksum: str  # S3's own, "crc32c:<base64>" or "crc32:<base64>"
    rank: int = 0


@dataclass(frozen=True)
class Rollback:
    """A return to an earlier checkpoint within an attempt, after the run had diverged."""

    step: int  # steps finished when it happened; the count goes on from there
    to_step: int  # of the checkpoint whose state came back; the data in between is skipped
    checkpoint: str  # its id
    why: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything a restore needs, and everything a verification compares."""

    run_id: str
    generation: int
    save: int
    step: int  # steps finished; training goes on with this step number (0-based)
    shards: tuple[Shard, ...]
    tree: dict[str, Any] = field(default_factory=dict)  # state: arrays by name to shard, plus JSON
    world_size: int = 1
    threads: int = 0  # torch's intra-op threads: another count may change the bits
    health: Health = Health.HEALTHY
    why: str = ""  # the reason for that verdict
    losses: tuple[float, ...] = ()  # the band of recent losses, oldest first
    rollbacks: tuple[Rollback, ...] = ()  # newest last, as many as its rules count
    reason: SaveReason = SaveReason.CADENCE
    versions: dict[str, str] = field(default_factory=dict)  # python, torch, spotrelay …
    code: str = ""  # digest of the pinned code bundle or image
    format: int = FORMAT

    @property
    def id(self) -> CheckpointId:
        return CheckpointId(self.generation, self.save)

    def encode(self) -> bytes:
        """Canonical bytes: equal manifests are equal bytes, so the digest names them."""
        told = to_json(replace(self, tree={}))  # the tree is JSON already, and long
        return json.dumps({**told, "tree": self.tree}, sort_keys=True, separators=(",", ":")).encode()


def digest_of(manifest_bytes: bytes) -> str:
    """SHA-256 of a manifest's bytes in hexadecimal; what the commit record holds."""
    return hashlib.sha256(manifest_bytes).hexdigest()


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes.

    Raises:
        UnknownFormat: written by a newer version; upgrade, nothing was touched.
        InvalidInput: these bytes are no manifest; fall back one checkpoint.
    """
    try:
        value = strict_json(data)
    except ValueError as error:
        raise InvalidInput(f"not a manifest: {error}") from error
    written = value.get("format") if isinstance(value, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UnknownFormat(
            f"this manifest has format {written}, this version of Spotrelay reads up to {FORMAT}: upgrade it"
        )
    return from_json(Manifest, value, "manifest")


@dataclass(frozen=True)
class Commit:
    """The row that makes a checkpoint exist: written once, by its writer, under the lease."""

    run_id: str
    generation: int
    save: int
    step: int
    manifest_key: str
    manifest_version: str
    manifest_digest: str  # SHA-256 of the manifest's bytes
    size: int  # bytes of all shards together
    health: Health = Health.HEALTHY
    reason: SaveReason = SaveReason.CADENCE
    stall_s: float = 0.0  # training blocked, seconds
    durable_s: float = 0.0  # from snapshot to the last shard durable, seconds
    why: str = ""  # the reason for its health, or for a rollback
    back_to: str = ""  # id of the checkpoint that was rolled back to; those in between are left behind
    builds_on: tuple[CheckpointId, ...] = ()  # whose shards its manifest names beside its own
    schema: int = 1

    @property
    def id(self) -> CheckpointId:
        return CheckpointId(self.generation, self.save)


@dataclass(frozen=True)
class Verdict:
    """What the control plane found when it compared a checkpoint with S3 itself."""

    generation: int
    save: int
    ok: bool
    problem: str = ""  # what was wrong, naming the object; empty when ok
    checked_at: datetime | None = None  # by the control plane's clock

    @property
    def id(self) -> CheckpointId:
        return CheckpointId(self.generation, self.save)


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint with what is known about it."""

    commit: Commit
    verdict: Verdict | None = None
    promoted: bool = False  # its attempt saw the steps after it stay healthy
    retired_at: datetime | None = None  # nothing may use it from then on; by the control plane's clock

    @property
    def id(self) -> CheckpointId:
        return self.commit.id

    @property
    def verified(self) -> bool:
        return self.verdict is not None and self.verdict.ok

    @property
    def condemned(self) -> bool:
        return self.verdict is not None and not self.verdict.ok

    @property
    def pending(self) -> bool:
        """Committed, and not yet compared with S3."""
        return self.verdict is None

    @property
    def usable(self) -> bool:
        """Whether a run may ever be resumed from it, once it is verified."""
        return not self.condemned and not self.retired and self.commit.health is not Health.BAD

    @property
    def retired(self) -> bool:
        """Whether its objects are about to be deleted, or are deleted already."""
        return self.retired_at is not None

    def is_stale(self, recheck_after: datetime | None) -> bool:
        """Whether a machine was lost since it was last compared with S3: then it is compared again first."""
        checked_at = self.verdict.checked_at if self.verdict else None
        return recheck_after is not None and (checked_at is None or checked_at <= recheck_after)

    @property
    def state(self) -> str:
        """One word for a person: condemned, retired, verified or committed."""
        if self.condemned or self.retired:
            return "condemned" if self.condemned else "retired"
        return "verified" if self.verified else "committed"


def left_behind(checkpoints: tuple[Checkpoint, ...]) -> frozenset[CheckpointId]:
    """Those between a rollback's target and the checkpoint taken after it: the run had diverged there."""
    back = [(CheckpointId.of(c.commit.back_to), c.id) for c in checkpoints if c.commit.back_to]
    return frozenset(c.id for c in checkpoints if any(target < c.id < after for target, after in back))


def unpromotable(commit: Commit) -> str:
    """Why this checkpoint can never be promoted; empty when it can, once the steps after it stayed healthy."""
    if commit.reason is SaveReason.NOTICE:
        return f"checkpoint {commit.id} was taken in a notice: no steps came after it"
    if commit.health is not Health.HEALTHY:
        return f"checkpoint {commit.id} is {commit.health.value}"
    return ""


def newest_promoted(checkpoints: tuple[Checkpoint, ...]) -> Checkpoint | None:
    """What a rollback goes to: the newest checkpoint that was promoted, is verified, and may be used."""
    behind = left_behind(checkpoints)
    good = [c for c in checkpoints if c.promoted and c.verified and c.usable and c.id not in behind]
    return max(good, key=lambda c: c.id, default=None)


def resume_candidate(checkpoints: tuple[Checkpoint, ...]) -> Checkpoint | None:
    """The newest checkpoint that is verified, not bad and not left behind: the only kind a run resumes from."""
    behind = left_behind(checkpoints)
    good = [c for c in checkpoints if c.verified and c.usable and c.id not in behind]
    return max(good, key=lambda c: c.id, default=None)


def awaiting_verification(checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """Those newer than the candidate whose verification could still change the choice."""
    candidate = resume_candidate(checkpoints)
    behind = left_behind(checkpoints)
    newer = (c for c in checkpoints if (candidate is None or c.id > candidate.id) and c.id not in behind)
    return tuple(c for c in newer if c.pending and c.usable)


def last_condemned_at(checkpoints: tuple[Checkpoint, ...]) -> datetime | None:
    """When the newest verdict against one of these was reached; None when there is none."""
    verdicts = (c.verdict for c in checkpoints if c.verdict is not None and not c.verdict.ok)
    return max((v.checked_at for v in verdicts if v.checked_at is not None), default=None)


def shard_key(run_id: str, generation: int, save: int, rank: int, part: int, digest: str) -> str:
    """Where a shard lives: run, generation, save, rank, part and digest, never reused."""
    return f"runs/{run_id}/shards/{generation:06d}/{save:06d}/{rank:04d}-{part:04d}-{digest}.safetensors"


def manifest_key(run_id: str, generation: int, save: int) -> str:
    """Where a manifest lives."""
    return f"runs/{run_id}/manifests/{generation:06d}/{save:06d}.json"
