"""A response's part in the account's experience. At best effort: it never holds up what a run needs."""

from __future__ import annotations

from handlers.control import ControlPlane
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.experience import Experience
from spotrelay.core.lessons import Lesson, lessons
from spotrelay.core.outlook import Outlook, question_of, renewed
from spotrelay.core.placement import Pool
from spotrelay.core.run import Run


class Learning:
    """What one response recalls, at most once, and what it has learnt by its end."""

    def __init__(self, plane: ControlPlane, run_id: str) -> None:
        self._plane = plane
        self._run_id = run_id
        self._asked = False
        self._known: Experience | None = None
        self._learnt: list[Lesson] = []
        self._wanted: Outlook | None = None

    def recall(self) -> Experience | None:
        """What the account knows of pools; None when nobody keeps it or it cannot be read."""
        if self._plane.experience is not None and not self._asked:
            self._asked = True
            try:
                self._known = self._plane.experience.recall()
            except SpotrelayError as error:
                self._warn("what is known of pools cannot be read: the spec's own order stands", error)
        return self._known

    def look_out(self, pools: tuple[Pool, ...], nodes: int) -> None:
        """Have EC2 asked, by and by, what it says of the zones that a launch chooses from."""
        question, plane = question_of(pools, nodes), self._plane
        if question is not None and plane.scores is not None and self._known is not None:
            self._wanted = renewed(self._known.outlooks, question, plane.clock.now(), plane.site.timings.scale)

    def note(self, before: Run, after: Run) -> None:
        """Keep what a saved change teaches."""
        if self._plane.experience is not None:
            self._learnt += lessons(before, after)

    def pass_on(self) -> None:
        """Tell the account. Asked when everything else is done: a launch and its record go first."""
        learnt, self._learnt = self._learnt, []
        wanted, self._wanted = self._wanted, None
        store = self._plane.experience
        if store is None:
            return
        try:
            if wanted is not None:
                store.keep(wanted)
            if learnt:
                store.learn(learnt, self._plane.site.timings.scale)
        except SpotrelayError as error:
            self._warn("a lesson about pools is lost", error)

    def _warn(self, what: str, error: SpotrelayError) -> None:
        self._plane.telemetry.warning(what, run_id=self._run_id, cause=str(error))
