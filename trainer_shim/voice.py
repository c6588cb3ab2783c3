"""What the shim says to a person: on the logger `trainer_shim`, which ends up on stderr."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("trainer_shim")
_speaker = [0]  # this process's rank


def speak_as(rank: int) -> None:
    """From now on this process is one of several: only rank 0 says what all of them have in common."""
    _speaker[0] = rank


def say(text: str, everywhere: bool = False) -> None:
    """One line for a person. A script that has set up logging gets it there.

    Args:
        everywhere: also where this is not rank 0, with its number: what concerns this rank in particular.
    """
    if _speaker[0]:
        if not everywhere:
            return
        text = f"rank {_speaker[0]}: {text}"
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("spotrelay: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    logger.info(text)
