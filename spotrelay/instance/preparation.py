"""From a run's spec to a program that can be started: code, secrets, setup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from spotrelay import __version__
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.spec import Spec
from spotrelay.instance import shim
from spotrelay.instance.bundle import fetch_bundle
from spotrelay.instance.container import NOT_STARTED, docker_command, has_gpus, path_in
from spotrelay.instance.environment import program_environment
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.patience import StopAsked, keep_trying
from spotrelay.instance.programs import Programs
from spotrelay.instance.secrets import resolve
from spotrelay.instance.services import Services

T = TypeVar("T")

READY = "prepared"  # file in the machine's folder


@dataclass(frozen=True)
class Prepared:
    """A program, ready to start."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


class StepFailed(SpotrelayError):
    """A setup command failed; `code` is its status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Preparation:
    """The steps between the run's row and its program."""

    def __init__(
        self, me: Identity, services: Services, logbook: Logbook, programs: Programs, environ: Mapping[str, str]
    ) -> None:
        self._me = me
        self._services = services
        self._logbook = logbook
        self._programs = programs
        self._environ = environ

    def prepare(self, spec: Spec) -> Prepared:
        """Fetch the code, resolve the secrets, run the setup commands.

        Raises:
            StepFailed: a setup command ended with another status than 0.
            StopAsked: the machine is being ended.
            SpotrelayError, OSError: code or secrets cannot be had; the text says why.
        """
        ready = self._me.work / READY  # of a machine that goes over from one attempt of a gang to the next
        again = ready.exists()
        if spec.code_key and not again:
            size = self._patiently(
                lambda: fetch_bundle(self._services.objects, spec.code_key, spec.code_digest, self._me.code)
            )
            self._logbook.say(f"code {spec.code_digest[:12]} unpacked ({size} bytes packed)")
        secrets = self._patiently(lambda: resolve(spec.secrets, self._services.secrets))
        machine = shim.with_python(self._environ, sys.executable)
        environment = program_environment(machine, self._me, spec.env, secrets)
        steps = [*([("docker", "pull", spec.image)] if spec.image else []), *spec.setup] if not again else []
        for number, step in enumerate(steps, 1):
            self._run_step(step, f"setup step {number} of {len(steps)}", environment)
        if spec.bring_shim:
            environment = self._with_shim(spec, environment)
            if not again:
                self._try_shim(spec, environment)
        if self._programs.stop_asked.is_set():
            raise StopAsked
        if self._me.nodes > 1:
            ready.touch()
        command = spec.command
        if spec.image:
            command = tuple(docker_command(spec, self._me, self._environ, has_gpus()))
        return Prepared(command, environment, self._me.code)

    def _run_step(self, step: tuple[str, ...], name: str, environment: Mapping[str, str]) -> None:
        if self._programs.stop_asked.is_set():
            raise StopAsked
        self._logbook.say(f"{name}: {step[0]!r}")
        code = self._programs.run(step, environment, self._me.code)
        if self._programs.stop_asked.is_set():
            raise StopAsked
        if code != 0:
            raise StepFailed(f"{name} ({step[0]!r}) failed with status {code}; its output is above", code)

    def _with_shim(self, spec: Spec, environment: Mapping[str, str]) -> dict[str, str]:
        if not spec.image:
            return shim.with_shim(environment)
        given = {**spec.env, **spec.secrets}
        path = environment["PYTHONPATH"] if "PYTHONPATH" in given else path_in(spec.image, environment)
        return shim.with_shim({**environment, "PYTHONPATH": path})

    def _try_shim(self, spec: Spec, environment: Mapping[str, str]) -> None:
        """Learn before the program starts, and so before the lease, whether its Python can use the shim."""
        if shim.own_copy(self._me.code) is not None:
            self._logbook.say(f"the code has a {shim.NAME} of its own, which goes before this stack's {__version__}")
            return
        question = self._question(spec, environment)
        code = self._programs.run(question, environment, self._me.code) if question else 0
        if self._programs.stop_asked.is_set():
            raise StopAsked
        if code not in (0, *NOT_STARTED):
            raise StepFailed(
                f"the Python of this run's command cannot use Spotrelay's shim (status {code}); why is said above. "
                "Where the program brings a shim of its own, or needs none, write bring_shim: false into the spec",
                code,
            )

    def _question(self, spec: Spec, environment: Mapping[str, str]) -> list[str] | None:
        if not spec.image:
            return shim.question(spec.command, environment, self._me.code)
        if not shim.is_python(spec.command[0]):
            return None
        asked = replace(spec, command=tuple(shim.asked(spec.command[:1], spec.command[1:])))
        return docker_command(asked, self._me, self._environ, gpus=False, purpose="-shim")

    def _patiently(self, action: Callable[[], T]) -> T:
        timings = self._me.timings
        return keep_trying(action, timings.boot, timings.poll / 5, self._programs.stop_asked, self._logbook.say)
