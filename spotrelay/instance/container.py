"""The other way to pin what runs: a container image by digest."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from spotrelay.core.spec import Spec
from spotrelay.instance import shim
from spotrelay.instance.environment import meeting_environment, own_environment
from spotrelay.instance.identity import Identity

SDK = (  # how AWS's libraries find their endpoints; passed on where the machine has them
    "AWS_ENDPOINT_URL",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CA_BUNDLE",
)


NOT_STARTED = (125, 126, 127)  # as docker and shells say that a program never ran
INSPECT_S = 60.0


def docker_command(spec: Spec, me: Identity, machine: Iterable[str], gpus: bool, purpose: str = "") -> list[str]:
    """The argument list that runs the spec's command in its image.

    Variables are passed by name, so that no value appears among the arguments. The host's network
    is used because the metadata service is one hop away; the host's IPC because data loaders need
    more shared memory than a container gets.
    """
    ours = {*own_environment(me), *meeting_environment(me, "")}
    brought = ("PYTHONPATH",) if spec.bring_shim else ()
    names = sorted({*ours, *brought, *spec.env, *spec.secrets, *(n for n in SDK if n in set(machine))})
    command = ["docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host"]
    command += ["--name", f"spotrelay-{me.run_id}-{me.generation}{purpose}"]
    command += ["--gpus", "all"] if gpus else []
    for folder in (me.cache, me.state):
        command += ["--volume", f"{folder}:{folder}"]
    for folder in shim.folders() if spec.bring_shim else []:
        command += ["--volume", f"{folder}:{folder}:ro"]
    for name in names:
        command += ["--env", name]
    return [*command, spec.image, *spec.command]


def path_in(image: str, environment: Mapping[str, str]) -> str:
    """The PYTHONPATH that a pulled image sets by itself, which ours must not take the place of; empty without one."""
    command = ["docker", "image", "inspect", "--format", "{{json .Config.Env}}", image]
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=INSPECT_S, check=False
        )
        lines = json.loads(done.stdout) or []
    except (OSError, ValueError, subprocess.TimeoutExpired):  # the run itself will say what is wrong with docker
        return ""
    return next((line.partition("=")[2] for line in lines if line.startswith("PYTHONPATH=")), "")


def has_gpus() -> bool:
    """Whether this machine has a GPU that docker can hand over."""
    return Path("/dev/nvidia0").exists() and shutil.which("nvidia-smi") is not None
