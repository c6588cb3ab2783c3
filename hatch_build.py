"""Build hook: a wheel carries the synthesised stack, so that `spotrelay demo` needs neither CDK nor Node.

An editable install goes without: there the stack is made from the working tree (`make assembly`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASSEMBLY = "spotrelay/_assembly"
NEEDED = ("boto3", "pydantic")  # of the project's own dependencies
GROUPS = ("deploy", "node")  # of its optional ones


class AssemblyHook(BuildHookInterface[Any]):
    """Synthesises for the machine that builds; the wheel is tagged for just that Python and platform."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build environment needs; nothing where no synthesis will happen."""
        if _is_editable(sys.argv) or self._is_fresh():
            return []
        core = self.metadata.core
        own = [line for line in core.dependencies if line.startswith(NEEDED)]
        return ["pip", *own, *(line for group in GROUPS for line in core.optional_dependencies[group])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the assembly into a standard wheel.

        Raises:
            RuntimeError: it could not be synthesised; the text says why. No wheel is made without it.
        """
        if version != "standard":
            return
        if not self._is_fresh():
            self._run("--out", ASSEMBLY)
        build_data["pure_python"] = False  # the functions carry native code for this Python
        build_data["infer_tag"] = True
        files = (path for path in sorted(Path(self.root, ASSEMBLY).rglob("*")) if path.is_file())
        build_data["force_include"].update({str(path): path.relative_to(self.root).as_posix() for path in files})

    def _is_fresh(self) -> bool:
        done = subprocess.run(
            self._command("--out", ASSEMBLY, "--check"), cwd=self.root, capture_output=True, check=False
        )
        return done.returncode == 0

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(self._command(*arguments), cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"the stack could not be synthesised for the wheel:\n{(done.stderr or done.stdout)[-4000:]}"
            )
        self.app.display_info(f"assembly: {json.loads(done.stdout.splitlines()[-1])['assembly']}")

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "infra.assembly", *arguments]


def _is_editable(arguments: list[str]) -> bool:
    """Whether a front end asks on behalf of an editable install; PEP 517 does not tell a hook."""
    return any(argument in ("get_requires_for_build_editable", "build_editable") for argument in arguments)
