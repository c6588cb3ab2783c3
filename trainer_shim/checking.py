"""The script's own check of its training state, asked at a save and never waited for without bound."""

from __future__ import annotations

import threading
from collections.abc import Callable

from spotrelay.core.checkpoint import Health
from spotrelay.core.health import MOST_REASON, Judgement, said

Ask = Callable[[int], bool | str | None]  # from the steps finished to a verdict
BOUND_S = 10.0  # for one answer; training waits for it


class Check:
    """Asks in a thread of its own, so that one that hangs costs its bound once and is not asked again."""

    def __init__(self, ask: Ask, bound_s: float = BOUND_S) -> None:
        self._ask = ask
        self._bound_s = bound_s
        self._pending: threading.Thread | None = None

    def judge(self, step: int) -> Judgement:
        """What the script says of the state after this step. An error or no answer makes it suspect, not bad."""
        if self._pending is not None and self._pending.is_alive():
            return Judgement(Health.SUSPECT, "the script's check has not come back from an earlier call")
        found: list[Judgement] = []
        thread = threading.Thread(target=lambda: found.append(self._asked(step)), name="spotrelay-check", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be had
            return Judgement(Health.SUSPECT, f"the script's check could not be asked: {error}")
        self._pending = thread
        thread.join(self._bound_s)
        if not found:
            return Judgement(Health.SUSPECT, f"the script's check gave no answer within {self._bound_s:g} s")
        return found[0]

    def _asked(self, step: int) -> Judgement:
        try:
            return said(self._ask(step))
        except BaseException as error:  # noqa: BLE001 - a broken check must not end the training
            text = f"the script's check failed: {type(error).__qualname__}: {error}"
            return Judgement(Health.SUSPECT, text[:MOST_REASON])
