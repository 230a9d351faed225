"""The table as nccl-tests prints it, the same as JSON, and the progress of a long run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from pyccl.cli.bench.measure import Figures, Line, Plan
from pyccl.cli.bench.moved import Moved, Tell

TIMING = "mean over the iterations at the slowest peer"
_PLACEMENTS = ("out", "in")
_PLACEMENT_NAMES = {"out": "out-of-place", "in": "in-place"}
_FIGURES_WIDTH = 37


def heading(collective: str) -> list[str]:
    """The lines above the figures of one collective."""
    blank = " " * 50
    names = "".join(f"{_PLACEMENT_NAMES[place]:^{_FIGURES_WIDTH}}" for place in _PLACEMENTS)
    columns = f"{'size':>12}  {'count':>12}  {'type':>8}  {'redop':>6}  {'root':>6}"
    units = f"{'(B)':>12}  {'(elements)':>12}" + " " * 26
    return [
        f"# {collective}",
        "#" + (blank + names)[1:].rstrip(),
        "#" + (columns + 2 * f"  {'time':>9}  {'algbw':>7}  {'busbw':>7}  {'#wrong':>5}")[1:],
        "#" + (units + 2 * f"  {'(us)':>9}  {'(GB/s)':>7}  {'(GB/s)':>7}  {'':>6}")[1:].rstrip(),
    ]


def row(line: Line) -> str:
    """One line of figures."""
    fixed = f"{line.size:12}  {line.count:12}  {line.dtype:>8}  {line.op:>6}  {line.root:6}"
    places = (line.figures.get(place) for place in _PLACEMENTS)  # type: ignore[call-overload]
    return (fixed + "".join(_figures(line, one) for one in places)).rstrip()


def _figures(line: Line, one: Figures | None) -> str:
    if one is None:
        return " " * _FIGURES_WIDTH
    wrong = "N/A" if one.wrong is None else str(one.wrong)
    speed = f"{one.algbw:7.3f}  {one.busbw:7.3f}" if line.size else f"{'-':>7}  {'-':>7}"
    return f"  {_microseconds(one.seconds):>9}  {speed}  {wrong:>6}"


def _microseconds(seconds: float) -> str:
    """As many digits as mean something."""
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 10000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def summary(lines: Iterable[Line], plan: Plan) -> list[str]:
    """What stands below the tables."""
    known = list(lines)
    busbw = [one.busbw for line in known if line.size for one in line.figures.values()]
    wrong = wrong_of(known)
    verdict = f"{wrong} {'OK' if wrong == 0 else 'WRONG'}" if plan.check else "not checked"
    texts = [f"# Wrong values        : {verdict}"]
    if busbw:
        texts.append(f"# Avg bus bandwidth   : {sum(busbw) / len(busbw):.3f} GB/s")
    if plan.quantization and known:
        # Of the last size: short arrays pay for whole blocks.
        ratio = max(one.wire_ratio for one in known[-1].figures.values())
        texts.append(f"# Last wire ratio     : {ratio:.3f} of unquantized {plan.dtype}")
    return texts


def wrong_of(lines: Iterable[Line]) -> int:
    return sum(line.wrong for line in lines)


def to_json(lines: list[Line], plan: Plan, run: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a run; `run` says how it was made."""
    return {
        **run,
        "iters": plan.iters,
        "warmup": plan.warmup,
        "algorithm": plan.algorithm or "auto",
        "quantization": plan.quantization,
        "check": plan.check,
        "same": plan.same,
        "timing": TIMING,
        "wrong": wrong_of(lines),
        "rows": [
            {
                "collective": line.collective,
                "size": line.size,
                "count": line.count,
                "dtype": line.dtype,
                "op": line.op,
                "root": line.root,
                "placement": _PLACEMENT_NAMES[place],
                "time_us": one.seconds * 1e6,
                "algbw": one.algbw,
                "busbw": one.busbw,
                "wrong": one.wrong,
                "wire_ratio": one.wire_ratio,
            }
            for line in lines
            for place, one in line.figures.items()
        ],
    }


class Screen:
    """Prints lines as they come, below which a bar shows how far the run is: on standard error,
    and only if that is a terminal."""

    def __init__(self, total: int, out: TextIO, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._collective = ""
        self._progress: Any = None
        if sys.stderr.isatty() and not quiet:
            self._progress = _progress_bar()
            self._task = self._progress.add_task("starting", total=total)
            self._moved = self._progress.add_task("MiB moved", visible=False)

    def __enter__(self) -> Screen:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def add(self, line: Line) -> None:
        if line.collective != self._collective:
            self.say(*([""] if self._collective else []), *heading(line.collective))
            self._collective = line.collective
        self.say(row(line))
        if self._progress is not None:
            self._progress.update(
                self._task, advance=1, description=f"{line.collective} {line.size} B"
            )
            self._progress.update(self._moved, visible=False)

    @property
    def tell(self) -> Tell:
        """Shows how far a sync is, where anybody could see it."""
        return None if self._progress is None else self._show_moved

    def _show_moved(self, moved: Moved) -> None:
        done, total = (size >> 20 for size in moved)
        self._progress.update(self._moved, completed=done, total=total, visible=True)

    def say(self, *texts: str) -> None:
        if self._quiet:
            return
        for text in texts:
            if self._progress is not None and self._out.isatty():
                # Above the bar, which would otherwise be printed over.
                self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._out, flush=True)


def _progress_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=2,  # it shares the processors with what is measured
        # What goes to a file must not land on the terminal.
        redirect_stdout=False,
        redirect_stderr=False,
    )
