"""Which instance types share one of EC2's Spot quotas. A quota is counted in vCPUs, by region.

Source: Amazon EC2 User Guide, "Spot Instance quotas". On-demand machines have quotas of their own,
along the same lines but for P, where all generations share one: taking p5 apart there too costs a
refused request at most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TYPE = re.compile(r"^(?P<letters>[a-z]+)(?P<generation>\d*)")


@dataclass(frozen=True)
class SpotQuota:
    """One quota, with the types that draw on it."""

    name: str
    code: str  # of Service Quotas, service `ec2`
    letters: frozenset[str]  # that open the names of its types
    generations: frozenset[str] = frozenset()  # that follow the letters; empty: any

    def covers(self, letters: str, generation: str) -> bool:
        """Whether types whose names open like this draw on it."""
        return letters in self.letters and (not self.generations or generation in self.generations)


def _quota(name: str, code: str, letters: str, generations: str = "") -> SpotQuota:
    return SpotQuota(name, code, frozenset(letters.split()), frozenset(generations))


SPOT_QUOTAS: tuple[SpotQuota, ...] = (
    _quota("standard (a, c, d, h, i, m, r, t, z)", "L-34B43A08", "a c d h i im is m r t z"),
    _quota("g and vt", "L-3819A6DF", "g gr vt"),
    _quota("p2, p3 and p4", "L-7212CCBC", "p", "234"),
    _quota("p5", "L-C4BD4855", "p", "5"),
    _quota("inf", "L-B5D1601B", "inf"),
    _quota("trn", "L-6B0D517C", "trn"),
    _quota("x", "L-E3A00192", "x"),
    _quota("f", "L-88CF9481", "f"),
    _quota("dl", "L-85EED4F7", "dl"),
)


def family_of(instance_type: str) -> str:
    """Name of the quota that this type draws on.

    A type of no listed quota, such as high memory (`u`), HPC or a generation of P to come, is taken
    to share one with its own kind only.
    """
    found = _TYPE.match(instance_type)
    if found is None:
        return instance_type
    letters, generation = found["letters"], found["generation"]
    known = next((quota.name for quota in SPOT_QUOTAS if quota.covers(letters, generation)), None)
    return known or (letters + generation if letters == "p" else letters)
