"""Loss against step with the reclaims marked: a PNG, and the same in the terminal."""

from __future__ import annotations

from pathlib import Path

from spotrelay.console.demo.evidence import Evidence


def save_png(evidence: Evidence, path: Path) -> None:
    """Draw it into a file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5))
    reference = sorted(evidence.losses_reference.items())
    axes.plot(*_columns(reference), color="0.75", linewidth=5, label="uninterrupted run")
    for generation, losses in sorted(evidence.losses.items()):
        axes.plot(*_columns(sorted(losses.items())), linewidth=1.2, label=f"attempt {generation}")
    for reclaim in evidence.reclaims:
        axes.axvline(reclaim.step, color="tab:red", linestyle=":", linewidth=1)
        axes.annotate(f"({reclaim.letter})", (reclaim.step, axes.get_ylim()[1]), color="tab:red", va="top")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title("One run on several machines: loss against step, reclaims marked")
    axes.legend(ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def in_terminal(evidence: Evidence, width: int = 100) -> str:
    """Draw it in characters."""
    import plotext

    kept: dict[int, float] = {}
    for _, losses in sorted(evidence.losses.items()):
        kept.update(losses)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(min(width, 120), 18)
    figure.title("loss against step; each vertical line is a reclaim")
    curve = figure.signal(*_columns(sorted(kept.items())), marker="braille")
    curve.lines()
    figure.draw(curve)
    for reclaim in evidence.reclaims:
        figure.line(reclaim.step, "vertical")
    return str(plotext.uncolorize(str(figure.build())))


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]
