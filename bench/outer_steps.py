"""Outer optimizers: what they send, what time they leave to train, what they cost by themselves.

`links`: peers in network namespaces (needs root) train a small model in several ways, over links
without limits, where bytes are counted by the network devices, and over narrow ones with a delay.
"kB a step" are all that the peer sends which sends most; "kB in busiest" those within the busiest
time of the length of a step, which a link has to bear if nobody shall wait: the peak rate. Beside
them, how many times as many DDP and DiLoCo have, and DiLoCo with the same quantization.
"% training" is the time that steps take which wait for nobody, to what they all take. "late"
says by how much a packet of the narrow links was late at most: how busy the machine was.
A step's own time is that of an accelerator that is not there: layers sleep, and DDP may hide what
it can behind their backward passes.
`overhead`: what a step is longer with an outer optimizer around it, when nothing is due.
`pairs`: exchanges of pairs and all-reduces among more and more peers, in the simulator.

    python bench/outer_steps.py links --turns 3 --json links.json
    python bench/outer_steps.py overhead
    python bench/outer_steps.py pairs
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from command_line import FILE, console_of, list_of, peers_of, write
from namespaces import NoNamespacesError
from optimizing import links as over_links
from optimizing import overhead as of_overhead
from optimizing import pairs as of_pairs
from optimizing.training import WAYS, Net
from optimizing.wire import Link

_JSON = click.option("--json", "file", type=FILE, metavar="FILE", help="Write all samples there.")
_MIB = 1 << 20


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    pass


@main.command()
@click.option("--peers", type=click.IntRange(2, 32), default=2, show_default=True)
@click.option("--mbit", type=click.FloatRange(1), default=100, show_default=True)
@click.option(
    "--delay-ms", type=click.FloatRange(0), default=50, show_default=True, help="One way."
)
@click.option("--layers", type=click.IntRange(1), default=8, show_default=True, help="Fragments.")
@click.option("--width", type=click.IntRange(1), default=512, show_default=True)
@click.option("--step-ms", type=click.FloatRange(1), default=100, show_default=True)
@click.option("--sync-every", type=click.IntRange(1), default=100, show_default=True)
@click.option("--overlap", type=click.IntRange(0), default=5, show_default=True)
@click.option("--windows", type=click.IntRange(1), default=2, show_default=True)
@click.option("--each-steps", type=click.IntRange(1), default=10, show_default=True, help="Of DDP.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True)
@_JSON
def links(
    peers: int, mbit: float, delay_ms: float, layers: int, width: int, step_ms: float, turns: int,
    file: Path | None, **steps: int,
) -> None:  # fmt: skip
    """What is sent, and what time is left to train."""
    load = os.getloadavg()
    plan = over_links.Plan(Net(layers, width, step_ms), Link(mbit, delay_ms), peers, **steps)
    print(
        f"{plan.net.parameters / 1e6:.3g} M parameters, {step_ms:g} ms a step; their gradients "
        f"need {plan.least_ms:.0f} ms of the narrow link. sync_every={plan.sync_every}, "
        f"{layers} fragments, overlap={plan.overlap}"
    )
    rows = [over_links.Row(way, [], []) for way in WAYS]
    for turn in range(turns):
        for row in rows:
            _say(f"turn {turn + 1} of {turns}: {row.way.name}")
            try:
                row.free.append(over_links.measure(plan, row.way, Link()))
                row.narrow.append(over_links.measure(plan, row.way, plan.link))
            except NoNamespacesError as error:
                raise click.ClickException(str(error)) from error
    _end(over_links.table_of(rows, plan), load)
    write(file, {"load_before": load[0], "ways": [row.to_json() for row in rows]})


@main.command()
@click.option(
    "--names", default=",".join(of_overhead.NAMES), show_default=True,
    callback=list_of(of_overhead.name_of), help="Of optimizers, between commas.",
)  # fmt: skip
@click.option("--layers", type=click.IntRange(1), default=10, show_default=True)
@click.option("--width", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--pairs", type=click.IntRange(2), default=50, show_default=True, help="Of steps.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True)
@_JSON
def overhead(
    names: list[str], layers: int, width: int, pairs: int, turns: int, file: Path | None
) -> None:
    """What is added to a step when nothing is due."""
    load = os.getloadavg()
    found: dict[str, list[of_overhead.Found]] = {name: [] for name in names}
    job = of_overhead.Job("", layers, width, pairs=pairs)
    for turn in range(turns):
        for name, launches in found.items():
            _say(f"turn {turn + 1} of {turns}: {name}")
            launches.append(of_overhead.measure(job._replace(name=name)))
    _end(of_overhead.table_of(found, job), load)
    content = {name: [one._asdict() for one in launches] for name, launches in found.items()}
    write(file, {"load_before": load[0], "optimizers": content})


@main.command()
@click.option("--peers", default="2,4,8,16,32", show_default=True, callback=list_of(peers_of))
@click.option("--bytes", "size", type=click.IntRange(4), default=_MIB, show_default=True)
@click.option("--mbit", type=click.FloatRange(1), default=1000, show_default=True)
@click.option(
    "--delay-ms", type=click.FloatRange(0), default=50, show_default=True, help="One way."
)
@click.option("--simulator", type=FILE, help="pyccl_sim; else the newest of the build folders.")
@_JSON
def pairs(
    peers: list[int], size: int, mbit: float, delay_ms: float, simulator: Path | None,
    file: Path | None,
) -> None:  # fmt: skip
    """Exchanges of pairs beside all-reduces."""
    program = simulator or of_pairs.simulator()
    if program is None:
        raise click.ClickException("pyccl_sim is not built: configure with -DPYCCL_TESTS=ON")
    took = {
        way: {one: of_pairs.measure(program, way, one, size, delay_ms, mbit) for one in peers}
        for way in of_pairs.WAYS
    }
    title = f"{size} bytes, {mbit:g} Mbit/s and {delay_ms:g} ms one way"
    console_of(120).print(of_pairs.table_of(took, title))
    rows = {way: {n: one._asdict() for n, one in found.items()} for way, found in took.items()}
    write(file, {"bytes": size, "ways": rows})


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _end(table: Any, load: tuple[float, float, float]) -> None:
    console_of(140).print(table)
    print(f"load average before {load[0]:.2f}, after {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
