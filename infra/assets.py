"""How what is uploaded is built, and the Lambda bundles: without docker, equal bytes from equal input.

Each build goes into a cache outside the working tree, under a name that hashes everything it
depends on: our sources, the lock file, the target and this builder itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.host import ROOT, host_architecture, host_python
from infra.models import trimmed_ec2_model

LAMBDA_LOCK = ROOT / "infra" / "requirements" / "lambda.lock"
HOSTS_LOCK = ROOT / "infra" / "requirements" / "hosts.lock"
LAMBDA_SOURCES = ("handlers", "spotrelay/__init__.py", "spotrelay/core", "spotrelay/aws")
HOSTS_SOURCES = (*LAMBDA_SOURCES, "spotrelay/hosts")
BUILDERS = ("infra/assets.py", "infra/agent.py", "infra/models.py")

PLATFORMS = {"arm64": "manylinux2014_aarch64", "x86_64": "manylinux2014_x86_64"}
KEPT_S = 3 * 86400  # a build in the cache, since its last use
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold
MODELS = "models"  # in the bundle; where AWS_DATA_PATH points


class BuildFailed(Exception):
    """An asset could not be built. Its text says which step, and what it printed."""


@dataclass(frozen=True)
class Target:
    """What a Lambda bundle is for."""

    architecture: str  # arm64 or x86_64
    python: str  # such as 3.13

    @property
    def is_host(self) -> bool:
        """Whether this very interpreter can load the bundle's native code."""
        return (self.architecture, self.python) == (host_architecture(), host_python())


@dataclass(frozen=True)
class Bundle:
    """What a Lambda function is made of."""

    tree: Path  # the files
    archive: Path  # the same, zipped
    digest: str  # of the files
    compiled: bool  # whether it carries byte code for its Python


def lambda_bundle(target: Target) -> Bundle:
    """The handlers with what they need at run time besides boto3, which Lambda has."""
    return _bundle("lambda", LAMBDA_SOURCES, LAMBDA_LOCK, target)


def hosts_bundle(target: Target) -> Bundle:
    """The same with an SSH library and what uses it: for one function, so that the others start without."""
    return _bundle("hosts", HOSTS_SOURCES, HOSTS_LOCK, target)


def _bundle(kind: str, sources: tuple[str, ...], lock: Path, target: Target) -> Bundle:
    compiler = interpreter(target.python)
    what = {"target": [target.architecture, target.python, platform.system() if target.is_host else "Linux"]}
    inputs = input_digest(sources, (lock,), {**what, "compiled": compiler is not None, "sdk": _sdk()})

    def build(out: Path) -> None:
        tree = out / "tree"
        here = target.is_host and platform.system() != "Linux"
        install(lock, tree, [] if here else on_linux(target))
        copy_sources(sources, tree)
        _write_models(tree / MODELS)
        prune(tree)
        if compiler is not None:
            _compile(compiler, tree)
        write_zip(tree, out / "bundle.zip")

    name = f"{kind}-{target.architecture}-{target.python.replace('.', '')}-{inputs[:24]}"
    path = cached(name, build)
    return Bundle(path / "tree", path / "bundle.zip", tree_digest(path / "tree"), compiler is not None)


def input_digest(sources: Iterable[str], files: Iterable[Path], what: object) -> str:
    """One hash over our own sources, other files, the builders and anything else that matters."""
    paths = [p for s in (*sources, *BUILDERS) for p in source_files(ROOT / s)]
    return _digest_files([*paths, *files], ROOT, json.dumps(what, sort_keys=True))


def source_files(path: Path) -> list[Path]:
    """The files of a source directory that belong into an asset, sorted; or the one file itself."""
    if path.is_file():
        return [path]
    found = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return sorted(p for p in found if p.suffix in (".py", ".json", ".sh", ".typed"))


def tree_digest(path: Path) -> str:
    """One hash over every file below a directory."""
    return _digest_files((p for p in path.rglob("*") if p.is_file()), path, "")


def cache_directory() -> Path:
    """Where builds are kept; outside the working tree."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "spotrelay" / "assets"


def interpreter(version: str) -> str | None:
    """A Python of this version that really runs, or None: then the bundle goes without byte code."""
    if version == host_python():
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    return next((str(c) for c in candidates if c is not None and _reports(str(c), version)), None)


def write_zip(tree: Path, target: Path) -> None:
    """Pack a directory so that equal contents give equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(p for p in tree.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), date_time=EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def _reports(python: str, version: str) -> bool:
    command = [python, "-Ic", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def _sdk() -> str:
    import botocore  # only the builder needs it, not the freshness check

    return str(botocore.__version__)


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The finished build of this name, made now if it is not there; whole or not at all."""
    final = cache_directory() / name
    if final.is_dir():
        os.utime(final)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    _forget_unused(final.parent)
    partial = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=final.parent))
    try:
        build(partial)
        partial.chmod(0o755)
        partial.rename(final)
    except OSError:
        if not final.is_dir():  # nobody else finished the same build meanwhile
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _forget_unused(cache: Path) -> None:
    """Remove builds that nobody has asked for in days: each change of a source leaves one behind."""
    for build in cache.iterdir():
        if build.stat().st_mtime < time.time() - KEPT_S:
            shutil.rmtree(build, ignore_errors=True)


def install(lock: Path, out: Path, options: Sequence[str] = ()) -> None:
    """Put locked wheels into a directory; without options, such as run on any platform."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(out), "-r", str(lock)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BuildFailed(f"pip could not install {lock.relative_to(ROOT)} (network? package index?):\n{said}")


def on_linux(target: Target) -> list[str]:
    """Options of pip: wheels for this Python and architecture on Linux, wherever they are fetched."""
    platform_tag = PLATFORMS[target.architecture]
    return ["--platform", platform_tag, "--implementation", "cp", "--python-version", target.python]


def copy_sources(sources: Iterable[str], out: Path) -> None:
    for source in sources:
        for path in source_files(ROOT / source):
            target = out / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _write_models(out: Path) -> None:
    """A small EC2 model beside the code: boto3 then makes its EC2 client in a fraction of the time."""
    for name, text in trimmed_ec2_model().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def prune(out: Path) -> None:
    """Drop what is never run: scripts, stubs, installer records, test data and a Swagger page."""
    shutil.rmtree(out / "bin", ignore_errors=True)
    for path in sorted(out.rglob("*"), reverse=True):
        inside_info = path.parent.suffix == ".dist-info" and path.name != "METADATA"
        if path.is_dir():
            if path.name in ("__pycache__", "swagger_ui", "examples") or (inside_info and path.is_dir()):
                shutil.rmtree(path)
        elif inside_info or path.suffix in (".pyi", ".pyc"):
            path.unlink()


def _compile(python: str, out: Path) -> None:
    """Byte code that Lambda loads without looking at times: its file system has none worth looking at."""
    command = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(
        [*command, "-s", str(out), "-p", "/var/task", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    if done.returncode != 0:
        raise BuildFailed(f"compiling the Lambda bundle failed:\n{(done.stdout + done.stderr)[-2000:]}")


def _digest_files(paths: Iterable[Path], root: Path, salt: str) -> str:
    total = hashlib.sha256(salt.encode())
    for path in sorted(paths):
        total.update(f"\n{path.relative_to(root).as_posix()}\n{path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()
