"""busbw over size as a picture. matplotlib is no dependency: `pip install pyccl-ft[plot]`."""

from __future__ import annotations

from pathlib import Path

from pyccl.cli.bench.measure import Line


class PlotUnavailableError(Exception):
    """matplotlib is not installed; the text says what to do."""


def require_matplotlib() -> None:
    """Called before a run, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotUnavailableError("--plot needs matplotlib: pip install pyccl-ft[plot]") from error


def curves(lines: list[Line]) -> dict[str, list[tuple[int, float]]]:
    """(size, busbw) by what stands in the legend. Logarithmic axes have no place for zeros."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for place, one in line.figures.items():
            name = line.collective + (", in place" if place == "in" else "")
            if line.size > 0 and one.busbw > 0:
                found.setdefault(name, []).append((line.size, one.busbw))
    return found


def draw(lines: list[Line], title: str, file: Path) -> None:
    """Writes the picture."""
    import matplotlib

    matplotlib.use("Agg")  # no window, no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, points in curves(lines).items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("size, bytes")
    axes.set_ylabel("busbw, GB/s")
    axes.set_title(title)
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
