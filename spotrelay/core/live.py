"""What an attempt writes about itself: counters and durations, never instants."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """How far an attempt has come."""

    BOOT = "boot"
    SETUP = "setup"
    WAITING = "waiting"  # for the lease, for a verification, or for the gang's other machines
    RESTORING = "restoring"
    TRAINING = "training"
    DRAINING = "draining"
    DRAINED = "drained"
    DONE = "done"


@dataclass(frozen=True)
class Heartbeat:
    """The latest sign of life of one attempt."""

    run_id: str
    generation: int
    counter: int  # grows with every beat; it, not a time, shows life
    phase: Phase
    step: int = 0  # steps finished by the run, not by the attempt
    total: int = 0  # steps asked for; 0 when unknown
    loss: float | None = None
    resumed_from: int | None = None  # step of the checkpoint it restored; None before, or from zero
    resumed_checkpoint: str = ""  # that checkpoint's id, "generation.save"
    resumed_via: str = ""  # where it was read, and why there; empty: at home, and there is no other place
    first_step: bool = False  # whether a new step has been finished by this attempt
    trouble: str = ""  # what does not work at present: a bucket that refuses, say
    signs: int = 0  # of progress: grows with every step, and with what else shows that the program gets on; 0: unknown
    longest_s: float = 0.0  # seconds between two of them, at most so far
    schema: int = 1
    node: int = 0  # rank of the machine that beats; what the program tells stands in the first one's
    address: str = ""  # at which a gang's other machines reach this one


@dataclass(frozen=True)
class ExitReport:
    """How an attempt's program ended, as the machine's agent saw it."""

    run_id: str
    generation: int
    code: int  # the program's exit status; negative: killed by that signal
    stage: str  # "host", "boot" or "program": the machine itself is bad, or which part of us or of the user ended
    tail: str = ""  # end of the log, at most 4 KiB
    schema: int = 1
    node: int = 0  # rank of the machine


EXIT_DONE = 0
EXIT_DRAINED = 75  # the program drained before an interruption; the machine idles until EC2 takes it
EXIT_FENCED = 76  # the attempt has been replaced; the machine may go
EXIT_PARTED = 77  # the ranks on a gang's machines have lost each other; the cause is elsewhere

ASK_DRAIN = "drain"  # words that an attempt finds in the answer to its heartbeat: save, give the lease back, end
ASK_STACKS = "stacks"  # and a number: write the stacks of all threads into the log

ENDING = "ending"  # file there: generation, monotonic deadline and reason, when another machine of a gang is taken
LEFT = "left"  # file in the agent's state folder: generation and status of a program that a launcher hides
