"""From a run and its site to what an hour of progress costs in each pool."""

from __future__ import annotations

from collections.abc import Mapping

from spotrelay.core.placement import Pool, Score
from spotrelay.core.run import Run
from spotrelay.core.scoring import scores, start_of
from spotrelay.core.site import Site
from spotrelay.core.spending import price_of, way_of_checkpoint


def scored(run: Run, pools: tuple[Pool, ...], lasting: Mapping[Pool, float] | None, site: Site) -> dict[Pool, Score]:
    """Scores of these pools; prices are those asked for this launch, else those that the account was last told."""
    learnt = {r.pool: r.price for r in site.experience.records if r.price is not None} if site.experience else {}
    told = learnt | (site.prices or {})
    prices = {pool: price for pool in pools if (price := price_of(pool, run.spec.limits, told)) is not None}
    ordered = not run.spec.instance_requirements.stated
    return scores(pools, prices, lasting or {}, start_of(run), way_of_checkpoint(run, site), ordered)
