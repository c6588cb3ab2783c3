"""How likely a Spot machine is to be taken, by its age: a prior by instance family, then what the run has seen.

Lives of Spot machines are heavy-tailed: many end within the hour, some last for days, and one that has lasted long
lasts longer. So the hazard falls with age. Three such laws (Lomax, with a knee after minutes, hours and a day) are
weighed by how well they explain the lives seen so far; each has one number to learn, which has a closed form.
All numbers are seconds. Nothing here looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

HOUR_S = 3600.0
KNEES_S = (0.25 * HOUR_S, 2 * HOUR_S, 24 * HOUR_S)  # ages from which on the hazard of a law falls
MEAN_LIFE_S = 12 * HOUR_S  # of a machine of a type that the table does not name
MEAN_LIVES_S = {  # guesses, each soon outweighed: scarce accelerators are taken within hours
    "p": 2 * HOUR_S,
    "trn": 2 * HOUR_S,
    "dl": 2 * HOUR_S,
    "g": 4 * HOUR_S,
    "gr": 4 * HOUR_S,
    "inf": 4 * HOUR_S,
    "vt": 4 * HOUR_S,
}


@dataclass(frozen=True)
class Life:
    """How long one machine was at our disposal."""

    seconds: float
    lost: bool  # taken from us; False: it still lives, or we ended it


@dataclass(frozen=True)
class Law:
    """A hazard of `shape / (age + knee)`."""

    weight: float  # share of belief in it, for a fresh machine
    shape: float
    knee_s: float

    def survival(self, age_s: float) -> float:
        """The probability of living this long."""
        return math.exp(-self.shape * math.log1p(age_s / self.knee_s))


@dataclass(frozen=True)
class Hazard:
    """Losses to be expected, as a mixture of laws."""

    laws: tuple[Law, ...]

    def rate(self, age_s: float) -> float:
        """Losses a second of a machine of this age; an old one is more likely to be of a lasting kind."""
        left = [law.weight * law.survival(age_s) for law in self.laws]
        losses = sum(share * law.shape / (age_s + law.knee_s) for share, law in zip(left, self.laws, strict=True))
        total = sum(left)
        return losses / total if total > 0 else min(law.shape / (age_s + law.knee_s) for law in self.laws)


def mean_life(instance_type: str) -> float:
    """What a machine of this type is supposed to live, before anything is known of this run."""
    family = instance_type.partition(".")[0]
    letters = family[: next((i for i, char in enumerate(family) if not char.isalpha()), len(family))]
    return MEAN_LIVES_S.get(letters, MEAN_LIFE_S)


def learned(lives: Iterable[Life], prior_s: float) -> Hazard:
    """The hazard after these lives: the prior counts as one loss, at its mean life.

    Each law's shape has a Gamma prior, so that its posterior and the evidence for the law have closed forms.
    """
    seen = [Life(max(life.seconds, 0.0), life.lost) for life in lives]
    losses = 1.0 + sum(life.lost for life in seen)
    beliefs, shapes = [], []
    for knee in KNEES_S:
        before = 1.0 / (1.0 + knee / prior_s)  # the exposure at which a law's mean life is the prior's
        exposure = before + sum(math.log1p(life.seconds / knee) for life in seen)
        lateness = sum(math.log(life.seconds + knee) for life in seen if life.lost)
        beliefs.append(math.log(before) - losses * math.log(exposure) - lateness)
        shapes.append(losses / exposure)
    top = max(beliefs)
    shares = [math.exp(belief - top) for belief in beliefs]
    laws = zip(shares, shapes, KNEES_S, strict=True)
    return Hazard(tuple(Law(share / sum(shares), shape, knee) for share, shape, knee in laws))


UNKNOWN = learned((), MEAN_LIFE_S)
