"""What the shim needs of the Python that runs it, and what to do where that is missing."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from spotrelay import __version__
from spotrelay.core.errors import InvalidInput
from trainer_shim.brought import HERE
from trainer_shim.voice import say


@dataclass(frozen=True)
class Need:
    """A library that the shim cannot do without inside Spotrelay."""

    name: str
    least: tuple[int, ...] = ()
    imported: bool = True  # to be sure of it; else looked for, since it takes long to import

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}>={_dotted(self.least)}" if self.least else self.name


NEEDS = (
    Need("botocore", (1, 36)),  # checksums of whole objects, and puts that create only
    Need("xxhash"),
    Need("numpy", imported=False),
)


def unmet(needs: tuple[Need, ...] = NEEDS) -> dict[str, str]:
    """What this Python lacks: the requirement, and what is wrong with it."""
    found = {need.requirement: _trouble(need) for need in needs}
    return {requirement: trouble for requirement, trouble in found.items() if trouble}


def told(lacking: dict[str, str]) -> str:
    """What to say about it, with the line of the spec that mends it."""
    install = json.dumps([[sys.executable, "-m", "pip", "install", *lacking]])
    return (
        f"{sys.executable} (Python {_dotted(sys.version_info[:3])}) lacks what Spotrelay's shim needs: "
        f"{'; '.join(lacking.values())}. Put it into the image; or, where no container is used, let each machine "
        f"install it with this line of the spec:\n  setup: {install}"
    )


def demand() -> None:
    """Go on only where everything is there: before the lease is taken, and before a framework is looked at.

    Raises:
        InvalidInput: something is missing; says what, and how to mend it.
    """
    lacking = unmet()
    if lacking:
        raise InvalidInput(told(lacking))


def compare(wanted: str) -> None:
    """Say so when this is not the version of the stack, which the agent has named."""
    if wanted and wanted != __version__:
        say(
            f"this is trainer_shim {__version__} in {HERE}, and the stack's is {wanted}: take it out of the code or "
            "the environment, and the stack's is used"
        )


def _trouble(need: Need) -> str:
    if find_spec(need.name) is None:
        return f"{need.name} is not installed"
    if not need.imported:
        return ""
    try:
        module = importlib.import_module(need.name)
    except ImportError as error:
        return f"{need.name} cannot be imported: {error}"
    version = str(getattr(module, "__version__", ""))
    return f"{need.name} {version} is older than {_dotted(need.least)}" if _numbers(version) < need.least else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
