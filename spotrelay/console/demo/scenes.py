"""The five reclaims, each begun only when the run has made new progress, each reacting to what it sees."""

from __future__ import annotations

import time
from dataclasses import dataclass

from spotrelay.console.demo.stage import Stage
from spotrelay.core.checkpoint import Manifest, decode_manifest
from spotrelay.core.run import Attempt, Run

SHARD = r"/shards/"
MANIFEST = r"/manifests/"
COMMIT = r"Put \S+ LIVE#\S+ COMMIT#"  # not a promotion
NO_CAPACITY = "InsufficientInstanceCapacity"
GONE_S = 150.0  # for the last process of a machine to end


@dataclass
class Reclaim:
    """What the demo did to one machine: the outside's own record of it."""

    letter: str
    how: str  # for a person
    instance_id: str
    generation: int
    step: int  # steps finished, as last seen before
    pool: str
    at_s: float = 0.0  # epoch seconds, when the machine was reclaimed
    noticed: bool = False
    partial: str = ""  # checkpoint whose upload was cut off
    damaged: str = ""  # checkpoint that an outside hand harmed
    zombie: str = ""  # stopped "before" or "after" its commit was applied
    woken_at_s: float = 0.0
    refused_in_fleets: tuple[str, ...] = ()  # instance types that fleets' answers refused
    refused_by_5xx: str = ""  # the type for which launches failed as a whole


def play(stage: Stage, types: tuple[str, ...]) -> list[Reclaim]:
    """All of them in order.

    Raises:
        DemoFailed: one of them did not come to its end.
    """
    done: list[Reclaim] = []
    lost = 0
    for scene in (notice_twice, killed_in_an_upload, notice_without_capacity, damaged_checkpoint):
        done.append(scene(stage, lost, types))
        lost = done[-1].generation
    for moment in ("before", "after"):
        done.append(zombie(stage, lost, moment))
        lost = done[-1].generation
    stage.progress(lost)
    return done


def notice_twice(stage: Stage, lost: int, types: tuple[str, ...]) -> Reclaim:
    """(a) A notice, delivered twice and out of order with the state change."""
    attempt, _ = stage.progress(lost)
    reclaim = _begin(stage, "a", "a notice, delivered twice and out of order", attempt)
    reclaim.noticed = True
    stage.cloud.interrupt(reclaim.instance_id, duplicate=2, shuffle=True)
    stage.over(attempt.generation)
    return reclaim


def killed_in_an_upload(stage: Stage, lost: int, types: tuple[str, ...]) -> Reclaim:
    """(b) SIGKILL without notice, in the middle of a checkpoint: a shard is there, its manifest is not."""
    attempt, _ = stage.progress(lost)
    reclaim = _begin(stage, "b", "killed without notice in the middle of a checkpoint upload", attempt)
    trigger = stage.cloud.when(
        {"service": "s3", "action": "PutObject", "instance_id": reclaim.instance_id, "path": SHARD},
        {"what": "kill-group", "moment": "after"},
    )
    request = stage.fired(trigger, "the upload of a shard")
    reclaim.at_s, reclaim.partial = time.time(), _checkpoint_in(str(request["path"]))
    stage.view.scene(f"(b) killed while checkpoint {reclaim.partial} was being uploaded")
    stage.over(attempt.generation)
    return reclaim


def notice_without_capacity(stage: Stage, lost: int, types: tuple[str, ...]) -> Reclaim:
    """(c) A notice while fleets refuse two types in every zone in their answers, and launches of a third fail with 5xx.

    Two, since the ladder leaves out the first as long as all its zones were lost lately.
    """
    attempt, _ = stage.progress(lost)
    in_fleets, by_5xx = types[:2], types[2]
    none_left = f"a notice, with no {' and no '.join(in_fleets)} in any zone and a 5xx for {by_5xx}"
    reclaim = _begin(stage, "c", none_left, attempt)
    reclaim.noticed, reclaim.refused_in_fleets, reclaim.refused_by_5xx = True, in_fleets, by_5xx
    for each in in_fleets:
        stage.cloud.refuse({"instance_type": each}, NO_CAPACITY, form="fleet")
    stage.cloud.refuse({"instance_type": by_5xx}, NO_CAPACITY, form="exception")
    stage.cloud.interrupt(reclaim.instance_id)
    stage.over(attempt.generation)
    stage.trains(attempt.generation)
    stage.cloud.allow({})
    return reclaim


def damaged_checkpoint(stage: Stage, lost: int, types: tuple[str, ...]) -> Reclaim:
    """(d) The newest checkpoint is committed; then an outside hand deletes one of its shards."""
    attempt, _ = stage.progress(lost)
    reclaim = _begin(stage, "d", "the newest checkpoint loses a shard in S3, then its machine", attempt)
    trigger = stage.cloud.when(_commits(reclaim), {"what": "stop-group", "moment": "after"})
    request = stage.fired(trigger, "a commit")
    reclaim.damaged = _committed_in(str(request["target"]))
    _harm(stage, reclaim.damaged)
    reclaim.at_s = time.time()
    stage.cloud.kill(reclaim.instance_id)
    stage.over(attempt.generation)
    return reclaim


def zombie(stage: Stage, lost: int, moment: str) -> Reclaim:
    """(e) Stopped around its commit, terminated as far as EC2 tells, replaced, then woken."""
    attempt, _ = stage.progress(lost)
    where = "between its last shard and its commit" if moment == "before" else "before it reads the reply to its commit"
    reclaim = _begin(stage, "e", f"a zombie, stopped {where}", attempt)
    reclaim.zombie = moment
    match = (
        {"service": "s3", "action": "PutObject", "instance_id": reclaim.instance_id, "path": MANIFEST}
        if moment == "before"
        else _commits(reclaim)
    )
    trigger = stage.cloud.when(match, {"what": "stop-group", "moment": "after"})
    stage.fired(trigger, "the manifest" if moment == "before" else "a commit")
    reclaim.at_s = time.time()
    stage.cloud.zombify(reclaim.instance_id)
    stage.over(attempt.generation)
    heir = stage.trains(attempt.generation)
    reclaim.woken_at_s = time.time()
    stage.view.scene(f"(e) attempt {heir.generation} trains; the zombie {reclaim.instance_id} wakes up")
    stage.cloud.wake(reclaim.instance_id)
    _await_end(stage, reclaim.instance_id)
    return reclaim


def _begin(stage: Stage, letter: str, how: str, attempt: Attempt) -> Reclaim:
    assert attempt.instance_id is not None
    stage.view.scene(f"({letter}) {how}: attempt {attempt.generation}, {attempt.instance_id} in {attempt.pool}")
    run = stage.until(lambda seen: seen, "an answer of the cloud")
    step = max([attempt.last_step, *(h.step for h in run.heartbeats)])
    return Reclaim(letter, how, attempt.instance_id, attempt.generation, step, str(attempt.pool), time.time())


def _commits(reclaim: Reclaim) -> dict[str, str]:
    return {
        "service": "dynamodb",
        "action": "TransactWriteItems",
        "instance_id": reclaim.instance_id,
        "target": COMMIT,
    }


def _harm(stage: Stage, checkpoint: str) -> None:
    """Delete one shard of a checkpoint for good: that version, as only an administrator may."""
    manifest = _manifest(stage, checkpoint)
    own = f"/shards/{manifest.generation:06d}/{manifest.save:06d}/"
    shard = next(s for s in manifest.shards if own in s.key)
    bucket = stage.bucket
    stage.cloud.client("s3").delete_object(Bucket=bucket, Key=shard.key, VersionId=shard.version_id)
    stage.view.scene(f"(d) an outside hand deletes {shard.key} of checkpoint {checkpoint}")


def _manifest(stage: Stage, checkpoint: str) -> Manifest:
    def committed(run: Run) -> Manifest | None:
        found = next((c.commit for c in run.checkpoints if str(c.id) == checkpoint), None)
        if found is None:
            return None
        return decode_manifest(stage.services.objects.get(found.manifest_key, found.manifest_version))

    return stage.until(committed, f"the commit of checkpoint {checkpoint}")


def _await_end(stage: Stage, instance_id: str) -> None:
    def ended(run: Run) -> bool:
        return not stage.processes(instance_id)

    stage.until(ended, f"the end of the last process of {instance_id}", GONE_S)


def _checkpoint_in(path: str) -> str:
    """`…/shards/000002/000003/…` is checkpoint 2.3."""
    parts = path.split("/")
    at = parts.index("shards")
    return f"{int(parts[at + 1])}.{int(parts[at + 2])}"


def _committed_in(target: str) -> str:
    """`… COMMIT#000002#000003` is checkpoint 2.3."""
    generation, save = target.split("COMMIT#")[1].split()[0].rstrip(",").split("#")
    return f"{int(generation)}.{int(save)}"
