"""An account's experience in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from spotrelay.core.experience import Experience
from spotrelay.core.lessons import Lesson, learnt
from spotrelay.core.outlook import Outlook


class MemoryExperience:
    """An `ExperienceStore` that forgets when the process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = Experience()

    def recall(self) -> Experience:
        """Everything learnt so far."""
        with self._lock:
            return self._known

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        """Add these lessons."""
        with self._lock:
            self._known = learnt(self._known, lessons, scale)

    def keep(self, outlook: Outlook) -> None:
        """Keep what EC2 was asked or is to be asked, in place of what was kept in its slot."""
        with self._lock:
            others = tuple(known for known in self._known.outlooks if known.slot != outlook.slot)
            self._known = replace(self._known, outlooks=(*others, outlook))
