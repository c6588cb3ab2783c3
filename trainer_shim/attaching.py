"""How a script becomes an attempt of a run: the environment, the framework, the session."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from spotrelay.core.errors import InvalidInput, Unavailable
from trainer_shim import needs, wiring
from trainer_shim.checking import Ask, Check
from trainer_shim.environment import Identity, read_identity
from trainer_shim.framework import Framework, Replicas
from trainer_shim.patience import JITTER
from trainer_shim.ranks import Alone, Ranks, expect
from trainer_shim.run import Run
from trainer_shim.session import Session
from trainer_shim.taking import PLAIN, Wishes
from trainer_shim.voice import say, speak_as

LEAST_STAGING = 2**20  # bytes


def attach(
    model: Any,
    optimizer: Any,
    scheduler: Any,
    loader: Any,
    scaler: Any,
    extra: Any,
    state: Any,
    lazy: bool,
    staging_bytes: int | None,
    check: Ask | None,
) -> Run:
    """See `trainer_shim.attach`."""
    if staging_bytes is not None and staging_bytes < LEAST_STAGING:
        raise InvalidInput(f"attach(staging_bytes={staging_bytes}): give at least {LEAST_STAGING}, or None")
    if check is not None and not callable(check):
        raise InvalidInput(f"attach(check={type(check).__qualname__}): give a function that takes the step")
    if read_identity(os.environ) is not None:
        needs.demand()
    framework = _framework(model, optimizer, scheduler, scaler, extra, state)
    asked = None if check is None else Check(check)
    return Run(framework, _entered(framework, Wishes(lazy, staging_bytes), asked), loader, extra)


def resume(trainer: Any) -> str | bool:
    """See `trainer_shim.resume`."""
    if "transformers" not in sys.modules:
        raise InvalidInput(f"resume({type(trainer).__qualname__}): give a transformers.Trainer")
    if read_identity(os.environ) is None:
        _say_alone()
        return False
    needs.demand()
    from trainer_shim.frameworks import huggingface, huggingface_check

    huggingface_check.check(trainer)
    framework = huggingface.TrainerFramework(trainer)
    session = _entered(framework)
    assert session is not None
    atexit.register(session.close)
    return huggingface.follow(trainer, session, framework)


def _entered(framework: Framework, wishes: Wishes = PLAIN, check: Check | None = None) -> Session | None:
    identity = read_identity(os.environ)
    if identity is None:
        _say_alone()
        return None
    ranks, replicas = _ranks_of(framework)
    speak_as(ranks.rank)
    needs.compare(identity.stack_version)
    expect(ranks, identity.nodes)
    session = Session(identity, _connect(identity), framework, wishes, check, ranks, replicas)
    session.enter()
    return session


def _ranks_of(framework: Framework) -> tuple[Ranks, Replicas | None]:
    """The processes that train together, and what they hold alike; each of them has to ask."""
    torch = sys.modules.get("trainer_shim.frameworks.torch")
    if torch is None or not isinstance(framework, torch.TorchFramework):
        return Alone(), None
    ranks: Ranks = framework.ranks()
    return ranks, framework.replicas if ranks.size > 1 else None


@cache
def _say_alone() -> None:
    speak_as(int(os.environ.get("RANK") or "0"))
    say("no run in the environment: training goes on without checkpoints (`spotrelay submit` adds them)")


def _framework(model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any, state: Any) -> Framework:
    """The framework that the script has imported and whose objects it gives."""
    if state is not None:
        return _of_jax(state, extra, {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler})
    models = model.values() if isinstance(model, Mapping) else model if isinstance(model, (list, tuple)) else [model]
    torch = sys.modules.get("torch")
    if torch is not None and all(isinstance(each, torch.nn.Module) for each in models):
        from trainer_shim.frameworks.torch import TorchFramework

        return TorchFramework(model, optimizer, scheduler, scaler, extra)
    if "flax.nnx" in sys.modules:
        from trainer_shim.frameworks import flax_nnx

        if flax_nnx.are_objects(models):
            return flax_nnx.NnxFramework(model, optimizer, scheduler, scaler, extra)
    raise InvalidInput(
        f"attach(model={type(model).__qualname__}): give a torch.nn.Module or a Flax NNX module, or several in a list "
        "or dictionary; for a tree of JAX arrays give attach(state=...)"
    )


def _of_jax(state: Any, extra: Any, others: Mapping[str, Any]) -> Framework:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InvalidInput(f"attach(state=..., {given[0]}=...): put it all into the state, or leave the state out")
    if "jax" not in sys.modules:
        raise InvalidInput(f"attach(state={type(state).__qualname__}): state is for JAX, which was not imported")
    from trainer_shim.frameworks.jax import JaxFramework

    return JaxFramework(state, extra)


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
