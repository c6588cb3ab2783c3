"""Whether a loop was left on purpose: what a generator cannot be told when it is closed early."""

from __future__ import annotations

from opcode import opname
from types import FrameType

ON_PURPOSE = {"POP_TOP", "POP_ITER"}  # what `break` and `return` do with the iterator; neither can raise


def on_purpose(frame: FrameType | None) -> bool:
    """Whether this frame is leaving its loop by `break` or `return`, rather than by an error.

    A generator that is closed early meets the same GeneratorExit either way, and an error under way is hidden
    from it. What differs is the instruction at which the loop stands: the one that drops the iterator, or
    the one that raised. Anything else counts as an error, so that no half-done step is taken for a finished one.
    """
    return frame is not None and opname[frame.f_code.co_code[frame.f_lasti]] in ON_PURPOSE
