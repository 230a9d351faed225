"""What was measured, as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from markov.bands import BANDS
from markov.chain import Array, Chain
from markov.methods import Method
from markov.network import loss_of
from markov.training import Trained

_REFERENCES: dict[str, dict[str, Any]] = {
    "data-parallel": {"color": "black", "linestyle": "--"},
    "alone": {"color": "black", "linestyle": ":"},
}


class Run(NamedTuple):
    """One seed of one method. Losses are expected ones, in nats."""

    at: list[int]
    losses: list[float]
    """Of the outer parameters behind as many inner steps; of several replicas, of their mean."""
    replicas: float
    """At the end: the mean of the losses of each peer's own outer parameters."""
    bytes_sent: float
    """Of a peer, on average."""
    seconds: float
    contributors: dict[int, int]


@dataclass
class Row:
    method: Method
    runs: list[Run] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """At the end, by seed."""
        return [run.losses[-1] for run in self.runs]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)


def run_of(method: Method, chain: Chain, found: Sequence[Trained | None]) -> tuple[Run, list[str]]:
    """Of what the peers have come to, and what is wrong with it."""
    there = [one for one in found if one is not None]
    faults = []
    if len(there) != method.peers - method.dies:
        faults.append(f"{len(there)} peers have come to the end")
    stacked = np.stack([one.parameters for one in there])
    if method.kind != "NoLoCo" and (stacked != stacked[0]).any():
        faults.append("the peers hold different outer parameters")
    contributors: dict[int, int] = {}
    for one in there:
        for count, steps in one.contributors.items():
            contributors[count] = contributors.get(count, 0) + steps
    if method.peers > 1 and set(contributors) != method.contributors:
        faults.append(f"contributors: {sorted(contributors)}, not {sorted(method.contributors)}")
    run = Run(
        there[0].at,
        [loss_of(one, chain.expected) for one in stacked.mean(axis=0, dtype=np.float64)],
        statistics.fmean(loss_of(one[-1], chain.expected) for one in stacked),
        statistics.fmean(one.bytes_sent for one in there),
        max(one.seconds for one in there),
        contributors,
    )
    return run, faults


def table_of(rows: Sequence[Row], chain: Chain, steps: int) -> Table:
    seeds = max((len(row.runs) for row in rows), default=0)
    known = f"the entropy rate is {chain.entropy_rate:.4f} nats"
    table = Table("", title=f"{steps} inner steps, {seeds} seeds; {known}")
    for header in ("loss: mean (min-max)", "replicas", "kB sent by a peer", "seconds"):
        table.add_column(header, justify="right")
    for row in rows:
        if not row.runs:
            continue
        losses = f"{row.mean:.4f} ({min(row.losses):.4f}-{max(row.losses):.4f})"
        replicas = statistics.fmean(run.replicas for run in row.runs)
        table.add_row(
            row.method.text,
            losses,
            f"{replicas:.4f}" if row.method.kind == "NoLoCo" else "",
            f"{statistics.fmean(run.bytes_sent for run in row.runs) / 1e3:,.0f}",
            f"{statistics.fmean(run.seconds for run in row.runs):.1f}",
        )
    return table


def judged(means: Mapping[str, float]) -> list[dict[str, Any]]:
    """The bands whose rows are there."""
    return [
        {"band": str(band), "found": band.distance(means), "holds": band.holds(means)}
        for band in BANDS
        if band.rows <= means.keys()
    ]


def bands_table(bands: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("band, of means over seeds", "found", "", title="what has to come out")
    for one in bands:
        found = f"{one['found']:+.4f}"
        table.add_row(one["band"], found, "PASS" if one["holds"] else "[red]FAIL")
    return table


def to_json(row: Row) -> dict[str, Any]:
    method = row.method._asdict()
    method["options"] = {name: str(value) for name, value in row.method.options.items()}
    return {**method, "runs": [run._asdict() for run in row.runs]}


def plot(rows: Sequence[Row], chain: Chain, file: Path) -> None:
    """Losses above the entropy over inner steps, by method; the mean over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(row for row in rows if row.runs):
        losses: Array = np.mean([run.losses for run in row.runs], axis=0) - chain.entropy_rate
        # Colours are ten.
        style: dict[str, Any] = {
            "color": f"C{place % 10}",
            "linestyle": ("-", "--", "-.")[place // 10 % 3],
        }
        style |= _REFERENCES.get(row.method.name, {})
        axes.plot(row.runs[0].at, losses, label=row.method.text, linewidth=1, **style)
    axes.set(
        xlabel="inner steps",
        ylabel=f"nats above the entropy rate, {chain.entropy_rate:.4f}",
        yscale="log",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file)
