"""A run on the screen, what has come of all of them, and the plot."""

from __future__ import annotations

import statistics
import sys
import time
from types import TracebackType

from char_gpt.run import Run

_LINE_SECONDS = 5.0
_DRAW_SECONDS = 0.1
_STYLES = {"waits": "dim", "joins": "yellow", "killed": "red", "done": "green"}


def view() -> PlainView:
    """A table where the output is a terminal, else lines."""
    return TableView() if sys.stdout.isatty() else PlainView()


class PlainView:
    """A line now and then, for files and dumb terminals."""

    pause = _LINE_SECONDS

    def __init__(self) -> None:
        self._next = 0.0

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def changed(self, run: Run) -> None:
        """Shows it, unless it has just been shown."""
        if time.monotonic() >= self._next or run.held_out is not None:
            self._next = time.monotonic() + self.pause
            self._show(run)

    def happened(self, run: Run, what: str) -> None:
        print(f"{_where(run)}: {what}", flush=True)

    def _show(self, run: Run) -> None:
        print(
            f"{_where(run)}: {_loss(run)}, {run.bytes_sent / 1e6:.2f} MB sent by a peer, "
            f"{run.seconds:.1f} s",
            flush=True,
        )


class TableView(PlainView):
    """All peers of a run, drawn again in place."""

    pause = _DRAW_SECONDS

    def __init__(self) -> None:
        from rich.live import Live

        super().__init__()
        self._live = Live(auto_refresh=False)
        self._happened: list[str] = []

    def __enter__(self) -> TableView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def happened(self, run: Run, what: str) -> None:
        self._happened.append(f"step {run.step}: {what}")
        self._show(run)

    def _show(self, run: Run) -> None:
        from rich.table import Table

        table = Table(
            "peer", "state", "inner step", "outer step", "loss", "peers", "MB sent", "sync, s",
            title=f"{_where(run)}: {_loss(run)}, {run.seconds:.1f} s", title_justify="left",
            caption="\n".join(self._happened), caption_justify="left",
        )  # fmt: skip
        for index, state in run.states.items():
            row = run.rows.get(index)
            cells = [] if row is None else [
                str(row.inner_step), str(row.outer_step), f"{row.loss:.3f}", str(row.contributors),
                f"{row.bytes_sent / 1e6:.2f}", f"{row.sync_seconds:.3f}",
            ]  # fmt: skip
            table.add_row(str(index), state, *cells, style=_STYLES.get(state))
        self._live.update(table, refresh=True)


def _where(run: Run) -> str:
    return f"{run.method}, step {run.step} of {run.steps}"


def _loss(run: Run) -> str:
    if run.held_out is not None:
        return f"held-out loss {run.held_out:.3f}"
    losses = [row.loss for index, row in run.rows.items() if run.states[index] == "trains"]
    return f"loss {statistics.fmean(losses):.3f}" if losses else "no loss yet"


def summary(runs: list[Run], entropy: float) -> str:
    """The table at the end."""
    lines = ["method     held-out loss   MB sent by a peer   seconds"]
    lines += [
        f"{run.method:9}  {run.held_out:13.3f}   {run.bytes_sent / 1e6:17.2f}   {run.seconds:7.1f}"
        for run in runs
    ]
    return "\n".join([*lines, f"(who knows only how frequent each character is: {entropy:.3f})"])


def plot_lacks() -> str | None:
    """What is missing for a plot; looked at before the runs, not behind them."""
    try:
        from matplotlib import pyplot  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def plot(runs: list[Run], entropy: float, file: str) -> None:
    """Loss over seconds, and over bytes."""
    import matplotlib

    matplotlib.use("Agg")  # no window, no display
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(11, 4.5), layout="constrained"
    )
    for run in runs:
        losses = [point.held_out for point in run.points]
        sent = [point.bytes_sent / 1e6 for point in run.points]
        left.plot([point.seconds for point in run.points], losses, label=run.method)
        right.plot(sent, losses, marker="o", markersize=3, label=run.method)
    for axes in (left, right):
        axes.axhline(entropy, color="gray", linestyle=":", label="character frequencies")
        axes.grid(visible=True, alpha=0.3)
    left.set(xlabel="seconds", ylabel="held-out loss, nats per character")
    right.set(xlabel="MB sent by a peer", xscale="log")
    left.legend()
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
