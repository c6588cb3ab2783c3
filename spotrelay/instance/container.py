"""The other way to pin what runs: a container image by digest."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from spotrelay.core.spec import Spec
from spotrelay.instance.environment import meeting_environment, own_environment
from spotrelay.instance.identity import Identity

SDK = (  # how AWS's libraries find their endpoints; passed on where the machine has them
    "AWS_ENDPOINT_URL",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CA_BUNDLE",
)


def docker_command(spec: Spec, me: Identity, machine: Iterable[str], gpus: bool) -> list[str]:
    """The argument list that runs the spec's command in its image.

    Variables are passed by name, so that no value appears among the arguments. The host's network
    is used because the metadata service is one hop away; the host's IPC because data loaders need
    more shared memory than a container gets.
    """
    ours = {*own_environment(me), *meeting_environment(me, "")}
    names = sorted({*ours, *spec.env, *spec.secrets, *(n for n in SDK if n in set(machine))})
    command = ["docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host"]
    command += ["--name", f"spotrelay-{me.run_id}-{me.generation}"]
    command += ["--gpus", "all"] if gpus else []
    for folder in (me.cache, me.state):
        command += ["--volume", f"{folder}:{folder}"]
    for name in names:
        command += ["--env", name]
    return [*command, spec.image, *spec.command]


def has_gpus() -> bool:
    """Whether this machine has a GPU that docker can hand over."""
    return Path("/dev/nvidia0").exists() and shutil.which("nvidia-smi") is not None
