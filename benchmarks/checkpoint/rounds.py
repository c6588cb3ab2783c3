"""Who runs when: systems take turns in processes of their own, which never outlive this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoint.plane import Plane
from benchmarks.checkpoint.sink import ROOT, Sink
from benchmarks.checkpoint.systems import SYSTEMS
from benchmarks.checkpoint.systems.system import BUCKET, NotHere, Place, System
from benchmarks.checkpoint.worker import EVERY

LONGEST_S = 400.0  # for one process
HEADLINE = ("floor", "ours", "ours-lazy", "dcp-async", "dcp")  # in every round and at every size; others once
STARTS = 11  # of Python, with and without the shim

Found = dict[str, Any]


class Failed(Exception):
    """A process did not end well; the text ends with what it said."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    sizes: tuple[str, ...]  # of the state
    rounds: int  # at the first size
    pairs: int  # of measured saves in one process: alone, and beside the training
    damage: str  # size for what costs no time
    memory: int  # bytes of the sink

    def changed(self, sizes: str | None, rounds: int | None) -> Scale:
        """With what the command line says."""
        return replace(self, sizes=tuple(sizes.split(",")) if sizes else self.sizes, rounds=rounds or self.rounds)


@dataclass
class Measured:
    """Everything that the processes have said."""

    saves: dict[tuple[str, str], list[Found]] = field(default_factory=dict)  # by size and system
    restores: dict[tuple[str, str], list[Found]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # systems that were not measured, and why
    damages: dict[str, dict[str, str]] = field(default_factory=dict)  # by system and kind of object
    emergency: Found = field(default_factory=dict)
    frozen: Found = field(default_factory=dict)
    import_ms: float = 0.0


class Play:
    """One run of the benchmark."""

    def __init__(self, scale: Scale, names: list[str], sink: Sink, plane: Plane, folder: Path) -> None:
        self._scale = scale
        self._names = names
        self._sink = sink
        self._plane = plane
        self._folder = folder
        self._measured = Measured()

    def run(self) -> Measured:
        """All of it."""
        for name in self._names:
            if SYSTEMS[name].missing:
                self._measured.absent[name] = f"{SYSTEMS[name].missing} is not installed"
        for index, size in enumerate(self._scale.sizes):
            for number in range(self._scale.rounds if index == 0 else 1):
                for name in self._here():
                    if name in HEADLINE or index == number == 0:
                        self._guard(name, lambda name=name, size=size: self._turn(name, size))
                print(f"{size}, round {number + 1}", flush=True)
        for name in self._here():
            if not SYSTEMS[name].options and not SYSTEMS[name].reads:  # those save and read as another one does
                self._guard(name, lambda name=name: self._damage(name), absent=False)
        if "ours" in self._here():
            self._ours_alone()
        return self._measured

    def _here(self) -> list[str]:
        return [name for name in self._names if name not in self._measured.absent]

    def _guard(self, name: str, work: Any, absent: bool = True) -> None:
        try:
            work()
        except NotHere as error:
            if absent:
                self._measured.absent[name] = str(error)
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            why = f"failed: {str(error).strip().splitlines()[-1][:200]}"
            if absent:
                self._measured.absent[name] = why
            else:
                self._measured.damages[name] = {"damage": why}

    def _turn(self, name: str, size: str) -> None:
        job = self._job(name, size)
        try:
            saved = self._process("save", job, pairs=self._scale.pairs)
            self._measured.saves.setdefault((size, name), []).append(saved)
            restored = self._restore(job)
            if restored["digest"] != saved["digests"][-1]:
                raise Failed(f"{name} at {size} did not restore what it had saved")
            self._measured.restores.setdefault((size, name), []).append(restored)
        finally:
            self._clean(job)

    def _damage(self, name: str) -> None:
        """One bit of an object of each kind is turned over; a fresh process restores."""
        job = self._job(name, self._scale.damage)
        try:
            saved = self._process("save", job, pairs=0, forget=False)
            if "run" in job:  # before the damage, as the control plane would have
                self._plane.hand_over(job["run"], job["generation"])
            system = self._system(job)
            outcomes = {}
            for kind, where in system.kinds().items():
                self._flip(where)
                outcomes[kind] = outcome(self._restore(job, damaged=True), saved["digests"])
                self._flip(where)
            self._measured.damages[name] = outcomes
        finally:
            self._clean(job)

    def _flip(self, where: str) -> None:
        """The bit in the middle of an object, or of a file of a system that writes to the disk."""
        file = Path(where)
        if file.is_absolute():
            body = bytearray(file.read_bytes())
            body[len(body) // 2] ^= 1
            file.write_bytes(body)
            return
        size = self._place("").s3().head_object(Bucket=BUCKET, Key=where)["ContentLength"]
        self._sink.flip(where, size // 2 * 8)

    def _ours_alone(self) -> None:
        for role in ("emergency", "frozen"):
            job = self._job("ours", self._scale.sizes[0])
            try:
                found = self._process(role, job)
                restored = self._restore(job) if role == "emergency" else None
                if restored is not None and restored["digest"] != found["digests"][-1]:
                    raise Failed("what was saved in an emergency is not what was restored")
                setattr(self._measured, role, found)
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"{role}: {error}", file=sys.stderr, flush=True)
            finally:
                self._clean(job)
        self._measured.import_ms = _import_ms()

    # one process

    def _job(self, name: str, size: str) -> Found:
        job: Found = {"system": name, "size": size, "endpoint": self._sink.endpoint, "folder": str(self._folder)}
        if SYSTEMS[name].module == "ours":
            run_id = self._plane.submit(EVERY)
            return {**job, "run": run_id, "generation": 1, "prefix": f"runs/{run_id}"}
        return {**job, "prefix": f"{name}-{time.monotonic_ns()}"}

    def _restore(self, job: Found, damaged: bool = False) -> Found:
        if "run" in job:
            job["generation"] += 1
            self._plane.hand_over(job["run"], job["generation"])
        reads = SYSTEMS[job["system"]].reads or job["system"]
        return self._process("restore", {**job, "system": reads}, damaged=damaged)

    def _process(self, role: str, job: Found, **more: Any) -> Found:
        given = {**job, **more, "spawned": time.time()}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.checkpoint.worker", role, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self._environment(job),
            start_new_session=True,
        )
        try:
            said, complained = process.communicate(timeout=LONGEST_S)
        finally:
            _end(process)
        print(f"  {role} {job['system']} {job['size']}: {time.time() - given['spawned']:.1f} s", flush=True)
        if process.returncode != 0 or not said.strip():
            raise Failed(f"{role} of {job['system']} ended with status {process.returncode}:\n{complained[-2000:]}")
        found: Found = json.loads(said.strip().splitlines()[-1])
        if "not_here" in found:
            raise NotHere(found["not_here"])
        return found

    def _environment(self, job: Found) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SPOTRELAY_"))}
        ours = {}
        if "run" in job:
            ours = self._plane.environment(job["run"], job["generation"])
            ours["BENCH_PLANE"] = json.dumps(self._plane.__dict__)
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin would take the cores from the upload
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self._sink.endpoint,
            **dict(SYSTEMS[job["system"]].environment),
            **ours,
        }

    def _place(self, prefix: str) -> Place:
        return Place(self._sink.endpoint, prefix, self._folder)

    def _system(self, job: Found) -> System:
        """The system in this process, to look at what it has saved."""
        os.environ.update({"BENCH_PLANE": json.dumps(self._plane.__dict__), "SPOTRELAY_RUN": job.get("run", "")})
        system = SYSTEMS[job["system"]].make(self._place(job["prefix"]))
        system.find()
        return system

    def _clean(self, job: Found) -> None:
        client = self._place("").s3()
        pages = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=job["prefix"])
        for page in pages:
            for version in page.get("Versions", []):
                client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


def outcome(restored: Found, digests: list[str]) -> str:
    if "error" in restored:
        return "found"
    if restored["digest"] == digests[-1]:
        return "harmless"
    return "found, the one before it taken" if restored["digest"] in digests else "silent"


def _end(process: subprocess.Popen[str]) -> None:
    """The process and everything that it has started."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _import_ms() -> float:
    """What `import trainer_shim` adds to the start of Python."""
    times: dict[str, list[float]] = {"pass": [], "import trainer_shim": []}
    for _ in range(STARTS):
        for statement, found in times.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT, timeout=60)
            found.append(1000 * (time.perf_counter() - begun))
    return median(times["import trainer_shim"]) - median(times["pass"])
