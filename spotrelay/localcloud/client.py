"""The embedded cloud from the outside: start it, deploy to it, reclaim its machines, read its log, stop it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
from botocore.config import Config

import spotrelay
from spotrelay.localcloud import requestlog
from spotrelay.localcloud.deploy import deploy_assembly
from spotrelay.localcloud.front import CONTROL_HEADER, CONTROL_PREFIX

_START_S = 60.0
_STOP_S = 20.0
_CALL_S = 120.0


class CloudFailed(Exception):
    """The embedded cloud did not start, or refused a control call; the message says which and why."""


class LocalCloud:
    """One embedded cloud: `with LocalCloud(Path(".spotrelay/demo")) as cloud: …`.

    Args:
        home: the only folder in which it writes; made when missing, left there at the end for whoever reads the logs;
            the request log begins anew with each cloud.
        time_scale: how much of each real waiting time is waited; 1 is real time, 0.1 ten times as fast.
        way_in: URL at which functions, machines and the scheduler find this cloud: a proxy's, for tests that break the
            way; its own unless told.
    """

    def __init__(self, home: Path, time_scale: float = 1.0, way_in: str | None = None) -> None:
        self.home = home.resolve()
        self.time_scale = time_scale
        self._way_in = way_in
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> LocalCloud:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the cloud and wait until it answers.

        Raises:
            CloudFailed: it did not come up; the message ends with the tail of its log.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        options = ["--home", str(self.home), "--time-scale", str(self.time_scale), "--parent", str(os.getpid())]
        if self._way_in is not None:
            options += ["--way-in", self._way_in]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spotrelay.localcloud.server", *options],
            env={**os.environ, "PYTHONPATH": _import_path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        line = _first_line(self._process, _START_S)
        if line is None:
            self.close()
            raise CloudFailed(f"the embedded cloud did not start; its log says:\n{self._log_tail()}")
        self._ready = json.loads(line)

    def close(self) -> None:
        """Stop the cloud and everything in it; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()

    @property
    def pid(self) -> int:
        """Process id of the cloud's outermost process; everything of it descends from there."""
        if self._process is None:
            raise CloudFailed("the embedded cloud is not running")
        return self._process.pid

    @property
    def endpoint(self) -> str:
        """Where it answers: http://127.0.0.1:PORT."""
        return str(self._told("endpoint"))

    @property
    def region(self) -> str:
        """Its home region."""
        return str(self._told("region"))

    def environment(self) -> dict[str, str]:
        """Environment variables with which any AWS SDK talks to this cloud as its administrator, and to no other."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": str(self._told("access_key")),
            "AWS_SECRET_ACCESS_KEY": str(self._told("secret_key")),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str, region: str | None = None, **how: Any) -> Any:
        """A boto3 client of this cloud, as its administrator or with the credentials given in `how`."""
        credentials = {
            "aws_access_key_id": str(self._told("access_key")),
            "aws_secret_access_key": str(self._told("secret_key")),
        }
        config = how.pop("config", Config(retries={"max_attempts": 3, "mode": "standard"}))
        return boto3.client(  # type: ignore[call-overload]
            service,
            region_name=region or self.region,
            endpoint_url=self.endpoint,
            config=config,
            **{**credentials, **how},
        )

    def deploy(self, assembly: Path, stack: str | None = None) -> dict[str, str]:
        """Deploy a CDK cloud assembly (`cdk.out`) and apply the patches of `patches.py`.

        Args:
            assembly: the folder with `manifest.json`.
            stack: whose outputs are returned; the last one in the home region unless told.

        Returns:
            The stack's outputs.

        Raises:
            DeployFailed: the assembly is incomplete, or a resource could not be made; the message says which.
        """
        return deploy_assembly(self, assembly, stack)

    def requests(self) -> list[dict[str, Any]]:
        """Every request that the cloud has seen, oldest first; `requestlog.py` explains the fields."""
        return requestlog.read(self.home / "requests.jsonl")

    def when(self, match: dict[str, Any], do: dict[str, Any]) -> int:
        """Set a one-shot trigger and return its number; `triggers.Triggers.add` explains the words."""
        return int(self.call("when", match=match, do=do))

    def trigger(self, number: int) -> dict[str, Any]:
        """State of a trigger: `fired`, and the request that it fired on."""
        return dict(self.call("trigger", number=number))

    def await_trigger(self, number: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until a trigger fires, or the time is up; its state, of which `fired` says which it was."""
        return dict(self.call("await_trigger", number=number, timeout_s=timeout_s))

    def cancel_trigger(self, number: int) -> None:
        """Take a trigger back."""
        self.call("cancel_trigger", number=number)

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was ever launched."""
        return list(self.call("instances"))

    def interrupt(self, instance_id: str, **how: Any) -> Any:
        """Reclaim a Spot instance with a notice (notice_s, duplicate, shuffle, rebalance_first)."""
        return self.call("interrupt", instance_id=instance_id, **how)

    def kill(self, instance_id: str) -> Any:
        """Reclaim an instance without any notice."""
        return self.call("kill", instance_id=instance_id)

    def recommend_rebalance(self, instance_id: str) -> Any:
        """Send a rebalance recommendation."""
        return self.call("recommend_rebalance", instance_id=instance_id)

    def refuse(
        self, match: dict[str, str], code: str, form: str = "fleet", times: int | None = None, after: int = 0
    ) -> Any:
        """Have capacity pools answer with an error code, in a fleet's answer or as an exception.

        Args:
            after: machines that they still give before that.
        """
        return self.call("refuse", match=match, code=code, form=form, times=times, after=after)

    def allow(self, match: dict[str, str] | None = None) -> Any:
        """End the refusals of some pools, or all of them."""
        return self.call("allow", match=match)

    def zombify(self, instance_id: str) -> Any:
        """Stop an instance's processes while EC2 says that it is terminated."""
        return self.call("zombify", instance_id=instance_id)

    def wake(self, instance_id: str) -> Any:
        """Let a zombie run on."""
        return self.call("wake", instance_id=instance_id)

    def stop_group(self, instance_id: str) -> Any:
        """SIGSTOP an instance's processes."""
        return self.call("stop_group", instance_id=instance_id)

    def continue_group(self, instance_id: str) -> Any:
        """SIGCONT an instance's processes."""
        return self.call("continue_group", instance_id=instance_id)

    def break_metadata(self, instance_id: str, status: int | None = 503) -> Any:
        """Have an instance's metadata service answer everything with an HTTP status; None mends it."""
        return self.call("break_metadata", instance_id=instance_id, status=status)

    def set_quota(self, market: str, family: str, vcpus: int | None, region: str = "*") -> Any:
        """Limit the vCPUs of a market and instance family; None lifts the limit."""
        return self.call("set_quota", market=market, family=family, vcpus=vcpus, region=region)

    def limit_requests(self, per_second: float | None, burst: float | None = None) -> Any:
        """Limit EC2's rate of each action in each region; None lifts the limit."""
        return self.call("limit_requests", per_second=per_second, burst=burst)

    def console(self, instance_id: str) -> str:
        """What an instance has written to its console."""
        return str(self.call("console", instance_id=instance_id))

    def expire_credentials(self, instance_id: str) -> Any:
        """Let an instance's current role credentials end now."""
        return self.call("expire_credentials", instance_id=instance_id)

    def pace_schedule(self, group: str, name: str, every_s: float) -> None:
        """Call a schedule's target every `every_s` seconds."""
        self.call("pace_schedule", group=group, name=name, every_s=every_s)

    def schedules(self) -> list[dict[str, Any]]:
        """State of the paced schedules: calls and failures so far."""
        return list(self.call("schedules"))

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a control method of the cloud.

        Raises:
            CloudFailed: it was refused, or nobody answered.
        """
        request = urllib.request.Request(
            self.endpoint + CONTROL_PREFIX + method,
            data=json.dumps(arguments).encode(),
            headers={CONTROL_HEADER: str(self._told("token")), "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_S + float(arguments.get("timeout_s", 0))) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as refused:
            told = json.loads(refused.read() or b"{}")
            raise CloudFailed(f"{method}: {told.get('kind', refused.code)}: {told.get('error', '')}") from refused
        except OSError as unreachable:
            raise CloudFailed(f"{method}: the embedded cloud does not answer ({unreachable})") from unreachable

    def _told(self, name: str) -> Any:
        if name not in self._ready:
            raise CloudFailed("the embedded cloud is not running; use it in a `with` block")
        return self._ready[name]

    def _log_tail(self) -> str:
        log = self.home / "server.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "(nothing)"


def _import_path() -> str:
    """PYTHONPATH with which a new interpreter finds this very package."""
    ours = str(Path(spotrelay.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return ours if not inherited else ours + os.pathsep + inherited


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """The first whole line that a process prints; None when it ends or stays silent."""
    assert process.stdout is not None
    descriptor, deadline, text = process.stdout.fileno(), time.monotonic() + timeout_s, b""
    while b"\n" not in text:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, 65536)
        if not part:
            return None
        text += part
    return text.split(b"\n", 1)[0]
