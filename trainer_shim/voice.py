"""What the shim says to a person: on the logger `trainer_shim`, which ends up on stderr."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("trainer_shim")


def say(text: str) -> None:
    """One line for a person. A script that has set up logging gets it there."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("spotrelay: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    logger.info(text)
