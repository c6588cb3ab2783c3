"""Hugging Face's Trainer: followed from outside, resumed in the middle of its own loop.

The Trainer learns the step to continue at from a `trainer_state.json` that is made of the verified checkpoint;
everything else goes straight into its model, optimizer, schedule and generators when its loop begins. Its own
checkpoint folders are neither written nor read.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import accelerate
import transformers

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.extra import Extra
from trainer_shim.frameworks.huggingface_check import USED
from trainer_shim.frameworks.huggingface_data import FollowedLoader
from trainer_shim.frameworks.torch import TorchFramework
from trainer_shim.frameworks.torch_replicas import wraps
from trainer_shim.session import Session

STATE_FILE = "trainer_state.json"


class TrainerFramework(TorchFramework):
    """What a Trainer holds. Its optimizer exists only once its loop begins; a restored state waits until then."""

    rolls_back = False  # its loop keeps sums and counts of its own, which would not go back with the model

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer.model, None, None, None, None)
        self.extra = Extra(Progress(trainer))
        self.ready = False

    @property
    def versions(self) -> dict[str, str]:
        """Adds those of the libraries in between."""
        between = {"transformers": str(transformers.__version__), "accelerate": str(accelerate.__version__)}
        return {**super().versions, **between}

    def bind(self, trainer: Any) -> None:
        """Take what the Trainer has made for its loop."""
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate wraps it
        parts = {"optimizer": optimizer, "scheduler": trainer.lr_scheduler, "scaler": trainer.accelerator.scaler}
        wrapped = trainer.model_wrapped if wraps(trainer.model_wrapped) else trainer.model
        self.hold({"model": wrapped}, {name: each for name, each in parts.items() if each is not None})
        self.ready = True


class Progress:
    """What a Trainer knows of its own progress."""

    def __init__(self, trainer: Any) -> None:
        self.over = False  # its loop has ended
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Its state file as text, and what it has counted since it last logged."""
        trainer = self._trainer
        return {
            "trainer": json.dumps(_exported(trainer)),
            "over": self.over,
            "loss": getattr(trainer, "_tr_loss", None),
            "logged": getattr(trainer, "_globalstep_last_logged", 0),
            "operations": float(getattr(trainer, "current_flos", 0)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the counts; the state file was read by the Trainer itself."""
        trainer = self._trainer
        self.over = state["over"]
        trainer._globalstep_last_logged = state["logged"]
        trainer.current_flos = state["operations"]
        if state["loss"] is not None:
            trainer._tr_loss = state["loss"].to(trainer.args.device)
            trainer._total_loss_scalar = -trainer._tr_loss.item()  # the mean at the end is of this call's steps


class SpotrelayCallback(transformers.TrainerCallback):  # type: ignore[misc]  # looked at as untyped, for speed
    """Follows one call of `train` from its beginning to its end."""

    def __init__(self, trainer: Any, session: Session, framework: TrainerFramework) -> None:
        self._trainer = trainer
        self._session = session
        self._framework = framework
        restored = session.restored
        self._state = restored.state if restored is not None else None
        self._done = restored.manifest.step if restored is not None else 0  # steps that were reported
        self._loader: FollowedLoader | None = None
        self._folder: Path | None = None
        self._loss: Any = None  # of the newest step
        self._before: Any = None  # what the Trainer's sum of losses was when the step began

    def follow(self) -> str | None:
        """Follow the Trainer from now on; the folder to resume from, if there is something to resume."""
        trainer = self._trainer
        make_loader = trainer.get_train_dataloader
        trainer.get_train_dataloader = lambda: self._followed(make_loader())
        trainer.add_callback(self)
        if self._state is None:
            return None
        trainer._load_from_checkpoint = lambda *given, **named: None
        trainer._load_rng_state = lambda checkpoint: None
        self._folder = Path(tempfile.mkdtemp(prefix="spotrelay-"))
        (self._folder / STATE_FILE).write_text(_state_file(self._state, trainer))
        return str(self._folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the checkpoint into the Trainer."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._framework.bind(self._trainer)
        if self._state is not None:
            self._session.fit()
            if self._progress.over:
                control.should_training_stop = True
                self._follower.over = True
        self._before = self._trainer._tr_loss.detach().clone()
        self._session.begin_steps(state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of the step's loss, before the Trainer may begin a new sum."""
        self._loss = self._trainer._tr_loss.detach() - self._before

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A part of an accumulated step is done."""
        self._session.alive()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A batch of an evaluation is done."""
        self._session.alive()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Commit the last state and leave the Trainer as it was."""
        self._progress.over = True
        self._session.finish(state.global_step, self._data)
        self._trainer.remove_callback(self)
        for name in USED:
            self._trainer.__dict__.pop(name, None)

    @property
    def _progress(self) -> Progress:
        progress: Progress = self._framework.extra.value
        return progress

    @property
    def _follower(self) -> FollowedLoader:
        assert self._loader is not None, "the Trainer makes its loader before its loop begins"
        return self._loader

    def _followed(self, loader: Any) -> FollowedLoader:
        data = self._state["data"].get("loader") if self._state is not None else None
        self._loader = FollowedLoader(loader, self._boundary, data, self._settle)
        return self._loader

    def _settle(self) -> None:
        assert self._state is not None
        self._framework.apply_randomness(self._state)
        self._state = None

    def _boundary(self) -> None:
        step = self._trainer.state.global_step
        if step == self._done:
            return
        self._done = step
        self._session.boundary(step, self._loss, self._data)
        self._before = self._trainer._tr_loss.detach().clone()

    def _data(self) -> dict[str, Any]:
        return {"loader": self._follower.data()}


def follow(trainer: Any, session: Session, framework: TrainerFramework) -> str | bool:
    """Follow a Trainer for a session that was entered; what to hand to its `resume_from_checkpoint`."""
    _let_followed_loaders_skip_by_themselves()
    return SpotrelayCallback(trainer, session, framework).follow() or False


def _exported(trainer: Any) -> dict[str, Any]:
    state = dataclasses.asdict(trainer.state)
    callbacks: dict[str, Any] = {}
    for each in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(each, transformers.trainer_callback.ExportableState):
            callbacks.setdefault(type(each).__name__, []).append(each.state())
    return {**state, "stateful_callbacks": callbacks}


def _state_file(state: dict[str, Any], trainer: Any) -> str:
    extra = state["extra"]
    if not isinstance(extra, dict) or "trainer" not in extra:
        raise InvalidInput("the run's checkpoint was not written by a Trainer: submit this script as a new run")
    known = {field.name for field in dataclasses.fields(transformers.TrainerState)}
    kept = {name: value for name, value in json.loads(extra["trainer"]).items() if name in known}
    here = {  # a rank that the checkpoint does not know has rank 0's
        "is_local_process_zero": trainer.is_local_process_zero(),
        "is_world_process_zero": trainer.is_world_process_zero(),
    }
    return json.dumps({**kept, **here})


def _let_followed_loaders_skip_by_themselves() -> None:
    # A followed loader is at its position already; accelerate's function would make another loader of it.
    module = importlib.import_module("transformers.trainer")
    skip = module.skip_first_batches
    if getattr(skip, "knows_followed", False):
        return

    def skip_first_batches(loader: Any, num_batches: int = 0) -> Any:
        return loader if type(loader) is FollowedLoader else skip(loader, num_batches)

    skip_first_batches.knows_followed = True  # type: ignore[attr-defined]  # a mark on our own function
    module.skip_first_batches = skip_first_batches  # type: ignore[attr-defined]
