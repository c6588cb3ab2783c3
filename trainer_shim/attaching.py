"""How a script becomes an attempt of a run: the environment, the framework, the session."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from spotrelay.core.errors import InvalidInput, Unavailable
from trainer_shim import wiring
from trainer_shim.environment import Identity, read_identity
from trainer_shim.framework import Framework
from trainer_shim.patience import JITTER
from trainer_shim.ranks import Alone, Ranks
from trainer_shim.run import Run
from trainer_shim.session import Session
from trainer_shim.taking import PLAIN, Wishes
from trainer_shim.voice import say, speak_as

if TYPE_CHECKING:
    from trainer_shim.frameworks.torch import TorchFramework

LEAST_STAGING = 2**20  # bytes


def attach(
    model: Any,
    optimizer: Any,
    scheduler: Any,
    loader: Any,
    scaler: Any,
    extra: Any,
    lazy: bool,
    staging_bytes: int | None,
) -> Run:
    """See `trainer_shim.attach`."""
    if staging_bytes is not None and staging_bytes < LEAST_STAGING:
        raise InvalidInput(f"attach(staging_bytes={staging_bytes}): give at least {LEAST_STAGING}, or None")
    framework = _framework(model, optimizer, scheduler, scaler, extra)
    return Run(framework, _entered(framework, Wishes(lazy, staging_bytes), framework), loader, extra)


def resume(trainer: Any) -> str | bool:
    """See `trainer_shim.resume`."""
    if "transformers" not in sys.modules:
        raise InvalidInput(f"resume({type(trainer).__qualname__}): give a transformers.Trainer")
    if read_identity(os.environ) is None:
        _say_alone()
        return False
    from trainer_shim.frameworks import huggingface

    huggingface.check(trainer)
    framework = huggingface.TrainerFramework(trainer)
    session = _entered(framework)
    assert session is not None
    atexit.register(session.close)
    return huggingface.follow(trainer, session, framework)


def _entered(framework: Framework, wishes: Wishes = PLAIN, replicated: TorchFramework | None = None) -> Session | None:
    identity = read_identity(os.environ)
    if identity is None:
        _say_alone()
        return None
    ranks: Ranks = Alone() if replicated is None else replicated.ranks()
    speak_as(ranks.rank)
    replicas = replicated.replicas if replicated is not None and ranks.size > 1 else None
    session = Session(identity, _connect(identity), framework, wishes, ranks, replicas)
    session.enter()
    return session


@cache
def _say_alone() -> None:
    speak_as(int(os.environ.get("RANK") or "0"))
    say("no run in the environment: training goes on without checkpoints (`spotrelay submit` adds them)")


def _framework(model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> TorchFramework:
    torch = sys.modules.get("torch")
    models = model.values() if isinstance(model, Mapping) else model if isinstance(model, (list, tuple)) else [model]
    if torch is None or not _all_modules(torch, models):
        raise InvalidInput(
            f"attach(model={type(model).__qualname__}): give a torch.nn.Module, or several in a list or dictionary"
        )
    from trainer_shim.frameworks.torch import TorchFramework

    return TorchFramework(model, optimizer, scheduler, scaler, extra)


def _all_modules(torch: Any, models: Iterable[Any]) -> bool:
    return all(isinstance(each, torch.nn.Module) for each in models)


def _connect(identity: Identity) -> wiring.Ports:
    deadline = time.monotonic() + identity.timings.boot.total_seconds()
    while True:
        try:
            return wiring.connect(identity)
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            say(f"AWS is not reachable yet: {error}")
        time.sleep(JITTER.uniform(1.0, 2.0))
