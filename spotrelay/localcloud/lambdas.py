"""Lambda functions under AWS's own runtime client: `python -m awslambdaric HANDLER` against a Runtime API of ours.

MiniStack decides when a function runs, with which event, and what follows from the answer. What it calls a worker is
one execution environment; `Environment` is ours. The process sees the asset, Python's standard library, and what AWS's
managed runtime brings along (boto3 and the runtime client), nothing else of this machine's packages: a dependency
that was not bundled is missing here as it would be there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from spotrelay.localcloud.runtime_api import Invocation, RuntimeApi

MANAGED = (
    "awslambdaric",
    "runtime_client",
    "snapshot_restore_py",
    "simplejson",
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "dateutil",
    "six",
    "urllib3",
)
"""Import names that the managed runtime provides: boto3 with what it needs, and the runtime client."""

_TASK_ROOT = "/var/task"
_INIT_S = 30.0
_EXIT_S = 0.5
_CHECK_S = 0.02
_unpacking = threading.Lock()


class Environments:
    """What all execution environments of this cloud share: folders, and how a role becomes credentials."""

    def __init__(self, home: Path, endpoint: str, credentials: Callable[[dict[str, Any]], dict[str, str]]) -> None:
        self.logs = home / "logs"
        self.code = home / "lambda"
        self.runtime = self.code / "runtime"
        self.endpoint = endpoint
        self.credentials = credentials
        self._processes: Counter[str] = Counter()
        self._numbering = threading.Lock()
        self.logs.mkdir(parents=True, exist_ok=True)
        _link_managed_runtime(self.runtime)

    def __call__(self, name: str, config: dict[str, Any], code: bytes) -> Environment:
        """A new execution environment for a function; its process starts with the first invocation."""
        return Environment(self, name, config, code)

    def new_log(self, function: str) -> Path:
        """A log file of its own for one process of a function; numbered, the first is 1."""
        with self._numbering:
            self._processes[function] += 1
            return self.logs / f"lambda-{function}.{self._processes[function]}.log"

    def unpack(self, code: bytes) -> Path:
        """Folder with an asset's files, unpacked once for all environments that run it."""
        folder = self.code / hashlib.sha256(code).hexdigest()[:32]
        with _unpacking:
            if not folder.exists():
                archive = folder.with_suffix(".zip")
                archive.write_bytes(code)
                fresh = folder.with_suffix(".new")
                shutil.rmtree(fresh, ignore_errors=True)
                with zipfile.ZipFile(archive) as opened:
                    opened.extractall(fresh)
                archive.unlink()
                fresh.rename(folder)
        return folder


class Environment:
    """One execution environment: a process of a function that answers one event after the other.

    Public names without underscore, and `_proc`, `_lock`, `_cold`, `_spawn` and `_discard_tmpdir`, are those that
    MiniStack's pool of workers uses.
    """

    def __init__(self, shared: Environments, name: str, config: dict[str, Any], code: bytes) -> None:
        self.func_name = name
        self.config = config
        self.in_use = False
        self.last_used = time.time()
        self._shared = shared
        self._code = code
        self._lock = threading.Lock()
        self._cold = True
        self._proc: subprocess.Popen[bytes] | None = None
        self._api: RuntimeApi | None = None
        self._log: BinaryIO | None = None
        self._read_from = 0

    def invoke(
        self,
        event: Any,
        request_id: str,
        *,
        trace_id: str | None = None,
        invoked_function_arn: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Run the handler once; MiniStack's form of the outcome: status, result or error, log, cold_start."""
        with self._lock:
            cold = self._proc is None or self._proc.poll() is not None
            if cold:
                failure = self._spawn()
                if failure is not None:
                    return self._failed(failure, cold)
            timeout = float(self.config.get("Timeout", 3))
            invocation = Invocation(
                request_id=request_id,
                payload=json.dumps(event).encode(),
                deadline_ms=int((time.time() + timeout) * 1000),
                function_arn=invoked_function_arn or self.config.get("FunctionArn", ""),
                trace_id=trace_id,
            )
            assert self._api is not None
            self._api.offer(invocation)
            finished = self._await(invocation.finished, time.monotonic() + timeout)
            if not finished:
                return self._failed(self._why_unfinished(timeout), cold)
            outcome: dict[str, Any] = {"log": self._new_log(), "cold_start": cold}
            if invocation.error is not None:
                message = str(invocation.error.get("errorMessage", ""))
                return {**outcome, "status": "error", "error": message, "trace": json.dumps(invocation.error)}
            return {**outcome, "status": "ok", "result": json.loads(invocation.result or b"null")}

    def kill(self) -> None:
        """End the process at once."""
        self._end()

    def _spawn(self) -> str | None:
        """Start the process and wait until it asks for work; what went wrong, if it does not."""
        self._end()
        task_root = self._shared.unpack(self._code)
        self._api = RuntimeApi()
        self._log = self._shared.new_log(self.func_name).open("ab")
        self._read_from = self._log.tell()
        command = [sys.executable, "-S", "-s", "-m", "awslambdaric", str(self.config.get("Handler", ""))]
        self._proc = subprocess.Popen(
            command,
            cwd=task_root,
            env=self._variables(task_root, self._api.address),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._cold = False
        if not self._await(self._api.settled, time.monotonic() + _INIT_S):
            return f"Runtime exited or said nothing during init{self._exit_text()}"
        if self._api.init_error is not None:
            return f"{self._api.init_error.get('errorType')}: {self._api.init_error.get('errorMessage')}"
        return None

    def _variables(self, task_root: Path, api: str) -> dict[str, str]:
        """The environment of AWS's managed runtime, and the endpoint of this cloud."""
        config = self.config
        region = str(config.get("FunctionArn", "")).split(":")[3]
        runtime = str(config.get("Runtime", "python3.13"))
        given = (config.get("Environment") or {}).get("Variables") or {}
        return {
            "PATH": os.defpath,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PYTHONPATH": f"{task_root}{os.pathsep}{self._shared.runtime}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_ENDPOINT_URL": self._shared.endpoint,
            **{name: _placed(str(value), task_root) for name, value in given.items()},
            **self._shared.credentials(config),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": str(config.get("FunctionName", "")),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
            "AWS_LAMBDA_FUNCTION_VERSION": str(config.get("Version", "$LATEST")),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.get('FunctionName', '')}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"local/{os.urandom(8).hex()}",
            "AWS_LAMBDA_RUNTIME_API": api,
            "LAMBDA_TASK_ROOT": str(task_root),
            "LAMBDA_RUNTIME_DIR": str(self._shared.runtime),
            "_HANDLER": str(config.get("Handler", "")),
        }

    def _await(self, event: threading.Event, deadline: float) -> bool:
        """Wait for `event`; False when the process ended or the time is up first."""
        while not event.wait(_CHECK_S):
            if self._proc is None or self._proc.poll() is not None:
                return event.wait(_CHECK_S)
            if time.monotonic() >= deadline:
                return False
        return True

    def _why_unfinished(self, timeout: float) -> str:
        if self._proc is not None and self._proc.poll() is None:
            return f"Task timed out after {timeout:.2f} seconds"
        return f"Runtime exited without providing a reason{self._exit_text()}"

    def _exit_text(self) -> str:
        status = self._proc.poll() if self._proc is not None else None
        return "" if status is None else f" (exit status {status})"

    def _failed(self, error: str, cold: bool) -> dict[str, Any]:
        log = self._new_log()
        self._end()
        return {"status": "error", "error": error, "trace": error, "log": log, "cold_start": cold}

    def _new_log(self) -> str:
        """What the process has written since the last call; all of it, because it writes before it answers."""
        if self._log is None:
            return ""
        with Path(self._log.name).open("rb") as written:
            written.seek(self._read_from)
            text = written.read()
        self._read_from += len(text)
        return text.decode("utf-8", "replace").rstrip("\n")

    def _end(self) -> None:
        process, self._proc = self._proc, None
        if process is not None:
            _kill_group(process)
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _discard_tmpdir(self) -> None:
        self._end()


def _placed(value: str, task_root: Path) -> str:
    """A variable's value; where it names a path below /var/task, the one that is there on this machine."""
    return f"{task_root}{value.removeprefix(_TASK_ROOT)}" if value.startswith(_TASK_ROOT) else value


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait(_EXIT_S * 10)


def _link_managed_runtime(folder: Path) -> None:
    """Fill `folder` with links to the packages that the managed runtime provides, taken from this installation."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MANAGED:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name} is needed to run Lambda functions: pip install 'spotrelay[demo]'")
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        link = folder / source.name
        if not link.exists():
            link.symlink_to(source)
