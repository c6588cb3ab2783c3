"""What a training script holds: its run."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from trainer_shim.framework import Feed, Framework
from trainer_shim.leaving import on_purpose
from trainer_shim.session import Session
from trainer_shim.voice import say


class Run:
    """A run as its script sees it; outside Spotrelay the same, without checkpoints.

    Use it as a context manager, or let the end of the process close it.
    """

    def __init__(self, framework: Framework, session: Session | None, loader: Any, extra: Any) -> None:
        restored = session.restored if session is not None else None
        self.extra = extra
        self.id: str | None = session.identity.run_id if session is not None else None
        self.generation: int = session.identity.generation if session is not None else 0
        self.resumed_from: int | None = restored.manifest.step if restored is not None else None
        self.step_number: int = self.resumed_from or 0  # steps finished
        self._framework = framework
        self._session = session
        self._loader = loader
        self._awaited = restored.state if restored is not None else None  # its data position is still to be taken
        self._stage = -1  # calls of steps() so far, counted from 0
        self._feed: Feed | None = None
        self._open = False  # a batch was given out and its step is not finished
        self._report: tuple[Any, bool, Any] = (None, True, None)
        self._leaving: BaseException | None = None  # met while a loop was broken off, where nothing can be raised
        self._pid = os.getpid()
        atexit.register(self._at_exit)

    def steps(self, loader: Any = None, total: int | None = None) -> Iterator[tuple[int, Any]]:
        """Batches with their step numbers, from where the run stands, epoch after epoch.

        Everything in the loop's body belongs to the step: checkpoints are taken after it. When the
        steps are exhausted the last state is saved, and the loop ends once it is committed; the same
        when the body leaves it by `break` or `return`. An error in the body saves nothing.

        Args:
            loader: as given to `attach` when left out.
            total: the run's number of steps, those before a resume included; None for one pass
                over the loader.

        Raises:
            SystemExit: the attempt has drained or was replaced.
            ValueError: there is no loader, or it has no batch.
            RuntimeError: `step` was not called for a batch.
        """
        self._raise_leaving()
        loader = self._loader if loader is None else loader
        if loader is None:
            raise ValueError("run.steps() needs a loader: give one here or to attach()")
        self._stage += 1
        position = self._position()
        if position == _BEHIND:
            return
        feed = self._framework.feed(loader, total is not None, self._session is not None, position, self._settle)
        self._feed = feed
        try:
            if self._session is not None:
                self._session.begin_steps(total, self.step_number)
            while total is None or self.step_number < total:
                batch = self._next(feed, total)
                if batch is _END:
                    break
                self._open = True
                yield self.step_number, batch
                self._finish_step()
            self._finish()
        except GeneratorExit:
            if self._feed is feed and os.getpid() == self._pid:  # otherwise `close` has broken it off before
                self._left(on_purpose(sys._getframe(1)))
            raise
        finally:
            self._feed = None
            self._open = False
            feed.close()

    @property
    def state(self) -> Any:
        """The newest state of a script that attached one; None where what was attached changes in place."""
        return self._framework.state

    def step(self, loss: Any = None, *, state: Any = None, accumulating: bool = False, grad_norm: Any = None) -> None:
        """Finish a step; call it once for each batch.

        Inside `steps` the decision to save or to drain is carried out when the loop's body has
        ended; in a loop of one's own, here.

        Args:
            loss: a number or a tensor with one element, for the health gate and the display.
            state: what the step has made of `run.state`, for a script that attached one. An earlier one is not
                touched any more and may be donated.
            accumulating: gradients of this batch still wait for the optimizer's step, so that no
                checkpoint may be taken after it.
            grad_norm: what `clip_grad_norm_` returned, for the health gate; left out, gradients are looked at
                only where a checkpoint is taken.

        Raises:
            InvalidInput: the new state is missing, or has another structure than the one attached.
        """
        self._check_process()
        self._raise_leaving()
        self._framework.renew(state)
        if self._feed is None:
            self.step_number += 1
            if self._session is not None:
                self._session.boundary(self.step_number, loss, dict, not accumulating, grad_norm)
            return
        if not self._open:
            raise RuntimeError("run.step() was called twice for one batch: call it once per batch of run.steps()")
        self._open = False
        self._report = (loss, not accumulating, grad_norm)

    def alive(self) -> None:
        """Say that the program is at work between two steps, as in a long validation; call it as often as you like.

        A program that shows no sign of progress for very long is taken for hung and replaced. Outside Spotrelay this
        does nothing.
        """
        if self._session is not None and os.getpid() == self._pid:
            self._session.alive()

    def close(self) -> None:
        """End the run's threads. Harmless when repeated.

        A loop that is still open, because a variable or a progress bar keeps its iterator, is broken off first,
        unless an error is being handled.

        Raises:
            SystemExit: the attempt has drained or was replaced while its loop was broken off.
        """
        self._close(sys.exc_info()[0] is not None)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kind is not None)

    def _at_exit(self) -> None:
        try:
            self._close(getattr(sys, "last_type", None) is not None)
        except (Exception, SystemExit) as leaving:  # noqa: BLE001 - the status must not lie
            # Python would end with the script's own status all the same, which may say: succeeded.
            if not isinstance(leaving, SystemExit):
                traceback.print_exception(leaving)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(leaving.code if isinstance(leaving, SystemExit) and isinstance(leaving.code, int) else 1)

    def _close(self, failed: bool) -> None:
        if self._session is None or os.getpid() != self._pid:
            return
        if self._feed is not None:
            self._left(not failed)
            self._feed = None
        self._session.close()
        if not failed:
            self._raise_leaving()

    def _raise_leaving(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            raise leaving

    def _next(self, feed: Feed, total: int | None) -> Any:
        try:
            return feed.next()
        except StopIteration:
            if total is not None:
                raise ValueError("the loader has no batch, so run.steps() cannot make any step") from None
            return _END

    def _finish(self) -> None:
        if self._session is not None:
            self._session.finish(self.step_number, self._data)

    def _left(self, purposely: bool) -> None:
        """A loop ends early: finish the body's step, if it was one, and save the last state.

        What that raises waits for `close`: from a closing generator it would be dropped.
        """
        if not purposely:
            self._tell_what_is_lost()
            return
        try:
            if not self._open:
                self._finish_step()
            self._finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - raised by `close`
            self._leaving = error

    def _tell_what_is_lost(self) -> None:
        if self._session is not None:
            say(
                f"the loop over run.steps() was left in step {self.step_number} by an error, or in another way than "
                "by break or return: its last state is not saved"
            )

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("run.step() was called in a forked process: only the one that attached may call it")

    def _finish_step(self) -> None:
        self._check_process()
        if self._open:
            raise RuntimeError(
                f"run.step(loss) was not called for step {self.step_number}: call it once for every batch of "
                "run.steps(), also for one that you skip"
            )
        self.step_number += 1
        if self._session is not None:
            loss, settled, norm = self._report
            self._session.boundary(self.step_number, loss, self._data, settled, norm)

    def _data(self) -> dict[str, Any]:
        assert self._feed is not None
        return {"stage": self._stage, "position": self._feed.position()}

    def _position(self) -> Any:
        """Where this call of `steps` continues; None at its beginning."""
        if self._awaited is None:
            return None
        data = self._awaited["data"]
        if not data:
            return None
        if self._stage < data["stage"]:
            return _BEHIND
        return data["position"] if self._stage == data["stage"] else None

    def _settle(self) -> None:
        """Put the process's generators where the checkpoint has them: the next batch is drawn from them."""
        if self._awaited is not None:
            self._framework.apply_randomness(self._awaited)
            self._awaited = None


_BEHIND = "behind"  # an earlier call of steps(), finished before the checkpoint
_END = object()
