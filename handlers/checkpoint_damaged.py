"""An attempt could not restore a checkpoint: its bytes are not those that its manifest promised.

Listing a bucket cannot show that, so the reader's word condemns the checkpoint. The price of a
wrong word is the progress since the checkpoint before; the price of not believing a right one
would be a run that never starts again. Where the reader names the shard, every checkpoint that
names it too is condemned with it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict, StrictStr

from handlers.events import Envelope, RunDetail
from handlers.signals import Arrival, Signal
from spotrelay.core.facts import Verified

KIND = "Checkpoint Damaged"
Text = Annotated[str, Strict(), Field(max_length=1024)]
Number = Annotated[int, Strict(), Field(ge=1, le=10**9)]


class Damaged(RunDetail):
    """The detail: which checkpoint, and what is wrong with it."""

    generation: Number
    save: Number
    problem: StrictStr = ""
    key: Text = ""  # of the shard that is damaged
    version: Text = ""  # of that shard


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """The verdict, for its run."""
    detail = Damaged.model_validate(envelope.detail)
    problem = f"could not be restored: {detail.problem[:500] or 'its bytes are damaged'}"
    verdict = Verified(detail.generation, detail.save, False, problem, detail.key, detail.version)
    return Signal(KIND, (verdict,), run_id=detail.run_id)
