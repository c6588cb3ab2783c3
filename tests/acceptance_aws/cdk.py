"""The stack through the pinned CDK command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from tests.acceptance_aws.failure import AcceptanceFailed, NotReady
from tests.acceptance_aws.options import Options
from tests.acceptance_aws.workload import ROOT

DEPLOY_S = 1800.0
DESTROY_S = 1800.0


class Deployment(Protocol):
    """Brings the stack up and down."""

    def deploy(self) -> None:
        """Bring it up.

        Raises:
            AcceptanceFailed: it did not come up; parts of it may be there.
        """
        ...

    def destroy(self) -> None:
        """Bring it down; harmless when there is none.

        Raises:
            AcceptanceFailed: it did not go.
        """
        ...


class CdkDeployment:
    """`npx --no-install cdk …` in the repository's root."""

    def __init__(self, options: Options, region: str, scratch: Path) -> None:
        self._options = options
        self._environment = {
            **os.environ,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self._context = context(options, region)
        self._out = scratch / "cdk.out"

    def deploy(self) -> None:
        """See `Deployment`."""
        self._run(deploy_command(self._options.stack, self._context, self._out), DEPLOY_S)

    def destroy(self) -> None:
        """See `Deployment`."""
        self._run(destroy_command(self._options.stack, self._context, self._out), DESTROY_S)

    def _run(self, command: list[str], patience_s: float) -> None:
        """In a session of its own: Ctrl-C must not reach a deletion under way."""
        what = " ".join(command[:4])
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        try:
            code = child.wait(patience_s)
        except subprocess.TimeoutExpired as error:
            raise AcceptanceFailed(f"`{what}` was not over after {patience_s:.0f} s") from error
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if code != 0:
            raise AcceptanceFailed(f"`{what}` ended with status {code}; its output is above")


def check_cdk() -> None:
    """Raises:
    NotReady: the pinned command line is not installed.
    """
    if not (ROOT / "node_modules" / ".bin" / "cdk").exists():
        raise NotReady("the pinned CDK command line is not installed: run `npm ci` in the repository")


def context(options: Options, region: str) -> dict[str, str]:
    """The context of this deployment: small, unprotected, on a plain image."""
    return {
        "spotrelay:stack": options.stack,
        "spotrelay:home_region": region,
        "spotrelay:protected": "false",
        "spotrelay:image": options.image,
        "spotrelay:root_device": "/dev/sda1",  # of every Ubuntu image
        "spotrelay:instance_python": options.instance_python,
        "spotrelay:volume_gib": str(options.volume_gib),
        "spotrelay:log_retention_days": "1",
    }


def deploy_command(stack: str, with_context: dict[str, str], out: Path) -> list[str]:
    """The argument list that deploys."""
    return ["npx", "--no-install", "cdk", "deploy", stack, "--require-approval", "never", *_rest(with_context, out)]


def destroy_command(stack: str, with_context: dict[str, str], out: Path) -> list[str]:
    """The argument list that destroys."""
    return ["npx", "--no-install", "cdk", "destroy", stack, "--force", *_rest(with_context, out)]


def _rest(with_context: dict[str, str], out: Path) -> list[str]:
    pairs = [part for key, value in with_context.items() for part in ("--context", f"{key}={value}")]
    return ["--output", str(out), "--ci", *pairs]
