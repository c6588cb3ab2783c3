"""`spotrelay demo`, from an empty folder to the verdict, and back to nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from spotrelay.console import exits
from spotrelay.console.bundle import pack
from spotrelay.console.demo import plots
from spotrelay.console.demo.evidence import Evidence, collect
from spotrelay.console.demo.failure import DemoFailed, Told
from spotrelay.console.demo.folder import Folder, built_assembly, require, training_script
from spotrelay.console.demo.processes import living_in
from spotrelay.console.demo.reference import Reference
from spotrelay.console.demo.scenes import Reclaim, play
from spotrelay.console.demo.stage import Stage
from spotrelay.console.demo.verdict import Finding, judge, summary
from spotrelay.console.demo.view import Shown, View, view_for
from spotrelay.console.output import as_json, tell
from spotrelay.console.submit import Submission, send
from spotrelay.console.wiring import Services
from spotrelay.core.spec import parse_spec

NEEDED = ("ministack", "awslambdaric", "torch", "matplotlib", "plotext")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TYPES = ("g5.xlarge", "g5.2xlarge", "g6.xlarge", "g6.2xlarge")
RUN_ID = "demo"
FINISH_S = 900.0  # for the rest of the training, once the last reclaim is survived
END_S = 60.0  # for the last machine to end


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    home: Path
    steps: int | None
    fast: bool
    keep: bool
    json: bool


@dataclass(frozen=True)
class Pace:
    """How long, and how fast."""

    steps: int
    every_steps: int  # between checkpoints
    scale: float  # of every waiting time of production


def pace_of(options: Options) -> Pace:
    """The pace that the options ask for."""
    pace = Pace(steps=150, every_steps=6, scale=0.05) if options.fast else Pace(steps=400, every_steps=20, scale=0.1)
    return replace(pace, steps=options.steps or pace.steps)


def run(options: Options) -> int:
    """Play the demo; the exit code."""
    started = time.monotonic()
    require(NEEDED)
    assembly, script, folder = built_assembly(), training_script(), Folder(options.home)
    folder.open()
    outcome: tuple[Evidence, str] | None = None
    try:
        with _signals_end_it():
            try:
                outcome = _played(options, folder, assembly, script)
            finally:
                folder.close(options.keep)
    except Told as told:
        sys.stderr.write(f"spotrelay: ended by {signal.Signals(told.signum).name}; nothing is left running\n")
        return 128 + told.signum
    evidence, terminal_plot = outcome
    evidence.processes += [f"{pid} {name}" for pid, name in living_in(folder.home).items()]
    findings = judge(evidence)
    result = summary(evidence, findings, time.monotonic() - started)
    folder.write("verdict.json", {**result, "findings": [{"rule": f.rule, "problems": f.problems} for f in findings]})
    _tell_result(options, folder, findings, result, terminal_plot)
    return exits.OK if all(f.ok for f in findings) else exits.FAILED


def _played(options: Options, folder: Folder, assembly: Path, script: Path) -> tuple[Evidence, str]:
    from spotrelay.localcloud.client import LocalCloud

    pace = pace_of(options)
    with ExitStack() as stack, _environment(folder), _cloud_speaks_plainly():
        view = stack.enter_context(Shown(view_for(options.json)))
        lead = 120 * pace.scale
        view.scene(f"every waiting time is multiplied by {pace.scale:g}: a notice of two minutes is {lead:g} s here")
        cloud = stack.enter_context(LocalCloud(folder.cloud, pace.scale))
        services, bucket = _deployed(cloud, assembly, view)
        reference = stack.enter_context(Reference(script, pace.steps, folder.reference, folder.scratch))
        shutil.copyfile(script, folder.code / script.name)
        send(_submission(folder, script, pace), services)
        stage = Stage(cloud, services, bucket, reference, view, RUN_ID)
        reclaims = play(stage, TYPES)
        _finish(stage, reclaims)
        evidence = collect(stage, reclaims, folder.cloud)
        plots.save_png(evidence, folder.plot)
        return evidence, "" if options.json else plots.in_terminal(evidence, shutil.get_terminal_size().columns)


def _deployed(cloud: Any, assembly: Path, view: View) -> tuple[Services, str]:
    from spotrelay.aws.stack import find_stack
    from spotrelay.console.wiring import services_of

    view.scene(f"the embedded cloud answers at {cloud.endpoint}; deploying the stack to it")
    cloud.deploy(assembly)
    stack = find_stack(cloud.client("cloudformation"))
    view.scene(f"stack {stack.name} is deployed, with machines in {', '.join(z for _, z in stack.places.zones)}")
    return services_of(cloud, stack), stack.bucket


def _submission(folder: Folder, script: Path, pace: Pace) -> Submission:
    bundle = pack(folder.code)
    spec = parse_spec(
        {
            "command": [sys.executable, script.name, "--steps", str(pace.steps)],
            "instance_types": list(TYPES),
            "code_key": bundle.key,
            "code_digest": bundle.digest,
            "env": {"PYTHONDONTWRITEBYTECODE": "1"},
            "cadence": {"every_steps": pace.every_steps},
        }
    )
    return Submission(RUN_ID, spec, bundle)


def _finish(stage: Stage, reclaims: list[Reclaim]) -> None:
    """Wait for the end of the run, of its last machine, and of the uninterrupted run."""
    stage.view.scene("every reclaim is survived; training on to the end")
    stage.until(lambda run: run.status.final, "the end of the run", FINISH_S)
    deadline = time.monotonic() + FINISH_S
    while stage.reference.running:
        stage.look()
        if time.monotonic() > deadline:
            raise DemoFailed("the uninterrupted run does not come to its end")
        time.sleep(1.0)
    deadline = time.monotonic() + END_S
    while living_in(stage.cloud.home / "instances") and time.monotonic() < deadline:
        time.sleep(0.25)


def _tell_result(options: Options, folder: Folder, findings: list[Finding], result: dict[str, Any], plot: str) -> None:
    if not options.json:
        tell(plot)
        for finding in findings:
            tell(f"{'ok    ' if finding.ok else 'FAILED'} {finding.rule}")
            for problem in finding.problems:
                tell(f"       {problem}")
        tell(f"plot: {folder.plot}")
    else:
        for finding in findings:
            tell(as_json({"kind": "finding", "rule": finding.rule, "problems": finding.problems}))
    tell(json.dumps(result))


@contextmanager
def _cloud_speaks_plainly() -> Iterator[None]:
    """Within, what the embedded cloud raises becomes an error for a person."""
    from spotrelay.localcloud.client import CloudFailed
    from spotrelay.localcloud.deploy import DeployFailed

    try:
        yield
    except (CloudFailed, DeployFailed) as error:
        raise DemoFailed(f"the embedded cloud: {error}") from error


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Within, a signal unwinds everything that was started; a second one does not disturb the unwinding."""

    def on_signal(signum: int, frame: FrameType | None) -> NoReturn:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Told(signum)

    heard = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {each: signal.signal(each, on_signal) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _environment(folder: Folder) -> Iterator[None]:
    """Within, whatever this process starts writes temporary files and caches into the folder."""
    ours = {"TMPDIR": str(folder.scratch), "MPLCONFIGDIR": str(folder.scratch / "matplotlib")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
