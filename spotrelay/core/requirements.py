"""Instance types by what they have instead of by name. Pure: what EC2 offers is passed in.

`submit` asks EC2 in each region and records the answer in the run, so that every later decision is one
over recorded facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from math import inf

from spotrelay.core.errors import InvalidInput

MOST_TYPES = 12  # kept: each is a rung of its own in each region
NEAREST = 3  # types named when none fits, of different families
ARCHITECTURES = ("x86_64", "arm64")


@dataclass(frozen=True)
class Requirements:
    """What a machine must have. Empty: the spec names its types."""

    gpus: int | None = None  # exactly so many
    gpu_memory_gib: float | None = None  # of each GPU, at least
    vcpus: int | None = None  # at least
    memory_gib: float | None = None  # at least
    architecture: str = "x86_64"
    max_price: float | None = None  # dollars an hour of Spot at submission

    @property
    def stated(self) -> bool:
        """Whether the spec says anything here."""
        return any(getattr(self, f.name) is not None for f in fields(self) if f.name != "architecture")


@dataclass(frozen=True)
class InstanceKind:
    """One instance type, as a region offers it."""

    name: str
    vcpus: int
    memory_gib: float
    architectures: tuple[str, ...] = ("x86_64",)
    gpus: int = 0
    gpu_memory_gib: float = 0.0  # of one
    gpu: str = ""

    @property
    def size(self) -> tuple[float, float, float, float, str]:
        """Smaller first: what fits with least to spare is mostly cheapest, and what pools hold most of."""
        return self.gpus, self.gpu_memory_gib, self.vcpus, self.memory_gib, self.name

    def __str__(self) -> str:
        gpus = f"{self.gpus} × {self.gpu} with {self.gpu_memory_gib:g} GiB, " if self.gpus else ""
        return f"{self.name} ({gpus}{self.vcpus} vCPUs, {self.memory_gib:g} GiB)"


Offers = Mapping[str, tuple[InstanceKind, ...]]  # by region
Prices = Mapping[tuple[str, str], float]  # dollars an hour by region and type: the cheapest zone


def matching(wanted: Requirements, offers: Offers, prices: Prices | None = None) -> dict[str, tuple[str, ...]]:
    """Names of the types that fit, by region, smallest first; the same few types everywhere.

    Args:
        prices: needed for a price ceiling; a type without a price does not pass one.

    Raises:
        InvalidInput: none fits anywhere; names the types that come nearest, and what each lacks.
    """
    found = {
        region: [kind for kind in kinds if not any(lacks(wanted, kind, (prices or {}).get((region, kind.name))))]
        for region, kinds in offers.items()
    }
    kept = _smallest(kind for kinds in found.values() for kind in kinds)
    if not kept:
        raise InvalidInput(_nothing_fits(wanted, offers, prices or {}))
    names = {region: {kind.name for kind in kinds} for region, kinds in found.items()}
    return {region: tuple(name for name in kept if name in there) for region, there in names.items() if there}


def lacks(wanted: Requirements, kind: InstanceKind, price: float | None = None) -> Iterator[str]:
    """What keeps this type from fitting, in words; nothing if it fits."""
    if wanted.architecture not in kind.architectures:
        yield f"is {' and '.join(kind.architectures)}"
    if wanted.gpus is not None and kind.gpus != wanted.gpus:
        yield f"has {kind.gpus} GPUs"
    if wanted.gpus is None and wanted.gpu_memory_gib is None and kind.gpus:
        yield "has GPUs that nobody asked for"
    if wanted.gpu_memory_gib is not None and kind.gpu_memory_gib < wanted.gpu_memory_gib:
        yield f"has {kind.gpu_memory_gib:g} GiB a GPU"
    if wanted.vcpus is not None and kind.vcpus < wanted.vcpus:
        yield f"has {kind.vcpus} vCPUs"
    if wanted.memory_gib is not None and kind.memory_gib < wanted.memory_gib:
        yield f"has {kind.memory_gib:g} GiB"
    if wanted.max_price is not None and (price is None or price > wanted.max_price):
        yield "has no Spot price" if price is None else f"costs {price:g} dollars an hour"


def problems(wanted: Requirements) -> Iterator[str]:
    """What of these requirements cannot be meant."""
    if wanted.architecture not in ARCHITECTURES:
        yield f"instance_requirements.architecture: {wanted.architecture!r} is none of {', '.join(ARCHITECTURES)}"
    for name in ("gpus", "gpu_memory_gib", "vcpus", "memory_gib", "max_price"):
        value = getattr(wanted, name)
        least = 0 if name == "gpus" else 1e-9
        if value is not None and not least <= value < inf:
            yield f"instance_requirements.{name} must be {'zero or more' if name == 'gpus' else 'above zero'}"
    if wanted.gpus == 0 and wanted.gpu_memory_gib is not None:
        yield "instance_requirements: gpu_memory_gib without any GPU"


def _smallest(kinds: Iterable[InstanceKind]) -> tuple[str, ...]:
    by_name = {kind.name: kind for kind in kinds}
    return tuple(sorted(by_name, key=lambda name: by_name[name].size)[:MOST_TYPES])


def _nothing_fits(wanted: Requirements, offers: Offers, prices: Prices) -> str:
    lacking: dict[InstanceKind, list[str]] = {}
    for region, kinds in offers.items():
        for kind in kinds:
            lacking.setdefault(kind, list(lacks(wanted, kind, prices.get((region, kind.name)))))
    order = sorted(lacking, key=lambda kind: (len(lacking[kind]), _distance(wanted, kind), kind.size))
    families: dict[str, InstanceKind] = {}
    for kind in order:
        families.setdefault(kind.name.partition(".")[0], kind)
    nearest = list(families.values())[:NEAREST]
    named = "; ".join(f"{kind} {', '.join(lacking[kind])}" for kind in nearest)
    where = ", ".join(sorted(offers)) or "no region"
    return f"instance_requirements: no instance type in {where} fits. Nearest: {named or 'none is offered at all'}"


def _distance(wanted: Requirements, kind: InstanceKind) -> float:
    """How far from what was wanted, each shortfall as a share of it."""
    pairs = (
        (wanted.gpus, kind.gpus),
        (wanted.gpu_memory_gib, kind.gpu_memory_gib),
        (wanted.vcpus, kind.vcpus),
        (wanted.memory_gib, kind.memory_gib),
    )
    short = sum(max(want - has, 0) / want for want, has in pairs if want)
    return short + (abs(kind.gpus - wanted.gpus) / max(wanted.gpus, 1) if wanted.gpus is not None else 0)
