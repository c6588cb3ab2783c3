"""What each look at a run says for the alarms: numbers for CloudWatch, and a line that names the run."""

from __future__ import annotations

from handlers.control import ControlPlane
from handlers.settings import CHECKPOINTS_OVERDUE, MACHINES_TOO_MANY, NO_PROGRESS
from spotrelay.core.overdue import overdue_since
from spotrelay.core.run import Run
from spotrelay.core.suspicion import surplus, without_progress


def tell_of(run: Run, plane: ControlPlane) -> None:
    """Count and name what a person should hear of this run; nothing when all is well."""
    now, site, telemetry = plane.clock.now(), plane.site, plane.telemetry
    beat = run.heartbeat(run.attempts[-1].generation) if run.attempts else None
    about = {"run_id": run.run_id, "trouble": beat.trouble if beat is not None else ""}
    since = overdue_since(run, now, site.timings.scale)
    if since is not None:
        telemetry.count(CHECKPOINTS_OVERDUE)
        telemetry.warning("no new verified checkpoint", since=since.isoformat(), **about)
    lasts = without_progress(run, now, site)
    if lasts is not None:
        telemetry.count(NO_PROGRESS)
        telemetry.warning("alive without progress", seconds=round(lasts.total_seconds()), **about)
    extra = surplus(run, now, site)
    if extra:
        telemetry.count(MACHINES_TOO_MANY, len(extra))
        machines = ", ".join(name for attempt in extra for name in attempt.instance_ids)
        telemetry.error("a machine lives that should be gone", machines=machines, **about)
