"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spotrelay.core.errors import InvalidInput
from spotrelay.simulation.comparison import SPOTRELAY, Comparison

OURS, OTHERS = "#d9480f", "#8794a1"


def draw(comparison: Comparison, path: Path, title: str) -> None:
    """Write the picture to this file; its suffix says the kind, such as .png or .svg.

    Raises:
        InvalidInput: matplotlib is not there, or it cannot write such a file.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InvalidInput("--plot needs matplotlib: pip install 'spotrelay[demo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "productive time, %": {n: 100 * f.productive for n, f in comparison.policies.items()},
        "launches a run": {n: f.launches for n, f in comparison.policies.items()},
        "$ a productive hour": {n: f.cost_per_productive_hour or 0.0 for n, f in comparison.policies.items()},
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.4), sharey=True, layout="constrained")
    for axis, (heading, values) in zip(axes, panels.items(), strict=True):
        _bars(axis, heading, values)
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: the plot cannot be written: {error}") from error
    finally:
        pyplot.close(figure)


def _bars(axis: Any, heading: str, values: dict[str, float]) -> None:
    names = list(values)
    bars = axis.barh(names, list(values.values()), color=[OURS if n == SPOTRELAY else OTHERS for n in names])
    axis.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
    axis.set_title(heading, fontsize=9)
    axis.margins(x=0.18)
    axis.spines[["top", "right"]].set_visible(False)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
