"""Ways to train over links: what each sends in all and at once, and what time it leaves to train.

Bytes are counted on links without limits, where a burst is a burst, and time is taken on a narrow
one.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from typing import Any, NamedTuple

from namespaces import in_space
from rich.table import Table
from synchronizing.tables import figures

from optimizing.training import COORDINATOR_PORT, Net, Order, Trained, Way
from optimizing.wire import Link, Passed, address_of, sites
from pyccl.testing.process import python

_LIMIT_SECONDS = 400.0


class Plan(NamedTuple):
    """What is measured."""

    net: Net
    link: Link
    """The narrow one. Bytes are counted on one without limits."""
    peers: int = 2
    sync_every: int = 100
    overlap: int = 5
    windows: int = 2
    """Of sync_every steps."""
    each_steps: int = 10
    """Where gradients are reduced in each step."""

    def steps(self, way: Way) -> int:
        return self.each_steps if way.each_step else self.windows * self.sync_every

    @property
    def least_ms(self) -> float:
        """What the narrow link needs for all gradients of a peer at least."""
        share = 2 * (self.peers - 1) / self.peers
        return share * self.net.parameters * 4 * 8 / self.link.mbit / 1e3


class Launch(NamedTuple):
    """Fresh processes, one way and one link."""

    peers: list[Trained]
    steps: int
    passed: Passed

    @property
    def utilisation(self) -> float:
        """The share of the time in which peers train, where they do so least."""
        return min(self.steps * one.alone / one.seconds for one in self.peers)

    @property
    def step_ms(self) -> float:
        return max(1e3 * one.seconds / self.steps for one in self.peers)

    @property
    def sent_per_step(self) -> float:
        """Bytes, of the peer that sends most."""
        return max(one.sent for one in self.peers) / self.steps

    @property
    def busiest(self) -> int:
        return max(one.busiest for one in self.peers)

    def to_json(self) -> dict[str, Any]:
        peers = [one._asdict() for one in self.peers]
        return {"steps": self.steps, "peers": peers, "passed": self.passed._asdict()}


def measure(plan: Plan, way: Way, link: Link) -> Launch:
    """Raises NoNamespacesError where there are none."""
    hub, steps = plan.peers, plan.steps(way)
    with tempfile.TemporaryDirectory() as folder, sites(plan.peers + 1, link) as passed:
        bind = f"{address_of(hub)}:{COORDINATOR_PORT}"
        coordinator = ("coordinator", "--plain", "--bind", bind, "--state", f"{folder}/state")
        processes = [in_space(hub, *python("pyccl.cli", *coordinator)[1:])]
        try:
            for peer in range(plan.peers):
                order = Order(peer, plan.peers, way, plan.net, steps, plan.sync_every, plan.overlap)
                command = python("optimizing.training", json.dumps(order))
                processes.append(in_space(peer, *command[1:]))
            said = [peer.communicate(timeout=_LIMIT_SECONDS)[0] for peer in processes[1:]]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if any(process.returncode != 0 for process in processes[1:]):
        raise RuntimeError("\n".join(said))
    trained = [Trained(**json.loads(text.splitlines()[-1])) for text in said]
    return Launch(trained, steps, passed[0])


class Row(NamedTuple):
    """One way; the launches of all turns."""

    way: Way
    free: list[Launch]
    """Without limits."""
    narrow: list[Launch]

    @property
    def sent(self) -> float:
        return statistics.median(one.sent_per_step for one in self.free)

    @property
    def busiest(self) -> float:
        return statistics.median(one.busiest for one in self.free)

    def to_json(self) -> dict[str, Any]:
        found = {
            name: [one.to_json() for one in getattr(self, name)] for name in ("free", "narrow")
        }
        return {"way": self.way._asdict(), **found}


def table_of(rows: list[Row], plan: Plan) -> Table:
    link = plan.link
    table = Table(
        "", title=f"{plan.peers} peers, {link.mbit:g} Mbit/s and {link.delay_ms:g} ms one way"
    )
    for header in (
        "kB a step", "DDP has", "kB in busiest", "DiLoCo has", "of same bits", "ms a step",
        "% training", "late, ms",
    ):  # fmt: skip
        table.add_column(header, justify="right")
    by_name = {row.way.name: row for row in rows}
    for row in rows:
        bursts = [
            one
            for one in rows
            if one.way.kind == "diloco" and one.way.quantization == row.way.quantization
        ]
        table.add_row(
            row.way.name,
            f"{row.sent / 1e3:.4g}",
            _ratio(by_name.get("DDP, Gloo"), row, "sent"),
            f"{row.busiest / 1e3:.4g}",
            _ratio(by_name.get("DiLoCo"), row, "busiest"),
            _ratio(bursts[0] if bursts else None, row, "busiest"),
            figures(one.step_ms for one in row.narrow),
            figures(100 * one.utilisation for one in row.narrow),
            f"{max(one.passed.late_us for one in row.narrow) / 1e3:.1f}",
        )
    return table


def _ratio(beside: Row | None, row: Row, what: str) -> str:
    return "" if beside is None else f"{getattr(beside, what) / getattr(row, what):.3g}"
