"""The control plane's clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The time, aware, UTC."""
        return datetime.now(UTC)
