"""Where this machine reads what it fetches ahead: in its own region if all of it is there, else at home."""

from __future__ import annotations

from spotrelay.core.checkpoint import resume_candidate
from spotrelay.core.comparing import replica_of
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.nearest import nearest
from spotrelay.core.ports import ObjectStore
from spotrelay.core.run import Run
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.services import Services


def bucket_for(run: Run, region: str, services: Services, logbook: Logbook) -> ObjectStore:
    """The bucket to read the newest checkpoint from, at home in the end."""
    chosen = resume_candidate(run.checkpoints)
    replica = replica_of(run, chosen, region) if chosen is not None else None
    try:
        return nearest(replica, services.nearby, services.objects, logbook.say) or services.objects
    except SpotrelayError as error:
        logbook.say(f"the replica in {region} cannot be read, home is: {error}")
        return services.objects
