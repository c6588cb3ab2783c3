"""What the functions say about themselves: structured lines and metrics."""

from __future__ import annotations

from typing import Any, Protocol

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit


class Telemetry(Protocol):
    """Where lines and numbers go."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        ...

    def milliseconds(self, name: str, value: float) -> None:
        """Add one measured duration."""
        ...

    def info(self, message: str, **fields: Any) -> None:
        """One line for whoever follows a run."""
        ...

    def warning(self, message: str, **fields: Any) -> None:
        """One line for whoever looks for what went wrong, and was dealt with."""
        ...

    def error(self, message: str, **fields: Any) -> None:
        """One line about something that a person has to see."""
        ...


class PowertoolsTelemetry:
    """JSON lines through Powertools' Logger, metrics in CloudWatch's embedded format."""

    def __init__(self, logger: Logger, metrics: Metrics) -> None:
        self.logger = logger
        self.metrics = metrics

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.metrics.add_metric(name=name, unit=MetricUnit.Count, value=amount)

    def milliseconds(self, name: str, value: float) -> None:
        """Add one measured duration."""
        self.metrics.add_metric(name=name, unit=MetricUnit.Milliseconds, value=value)

    def info(self, message: str, **fields: Any) -> None:
        """One line for whoever follows a run."""
        self.logger.info(message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        """One line for whoever looks for what went wrong, and was dealt with."""
        self.logger.warning(message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        """One line about something that a person has to see."""
        self.logger.error(message, **fields)
