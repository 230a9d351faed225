"""How well optimizers that hardly communicate train, beside the least loss that there is.

A small language model learns a Markov chain of order 2 (see bench/markov/chain.py), of which the
entropy rate is known: no model comes below it. Each peer is a process with data of its own, and
they meet through a coordinator, as anywhere else. What counts is the expected loss of the outer
parameters over the whole chain, which has no noise of a sample in it. Behind a run peers must hold
the same bits, and each step must have been of the right number of them.

The bands at the end are what has to come out of whole runs; one that does not makes the exit status
1. Shorter ones are not judged.

    python bench/markov_lm.py --json out.json --plot out.png
    python bench/markov_lm.py --only diloco-20,data-parallel,alone --seeds 1
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click
from command_line import FILE, console_of, list_of, write
from crew import Crew, RankError
from markov.chain import Chain
from markov.figures import Row, bands_table, judged, plot, run_of, table_of, to_json
from markov.methods import METHODS
from markov.training import Task, train_here

import pyccl
from pyccl.cli.bench.plot import PlotUnavailableError, require_matplotlib

STEPS = 2000
BATCH = 128
LIMIT_SECONDS = 300.0

_ADDRESS = "127.0.0.1:0"
_NAMES = [method.name for method in METHODS]


def name_of(text: str) -> str:
    if text not in _NAMES:
        raise ValueError(f"there is no row {text!r}; there are {', '.join(_NAMES)}")
    return text


def run_all(rows: list[Row], chain: Chain, seeds: int, steps: int) -> list[str]:
    """Fills the rows; returns what failed."""
    faults: list[str] = []
    with ExitStack() as stack:
        crews = {
            peers: stack.enter_context(Crew(f"{peers} peers", peers, LIMIT_SECONDS))
            for peers in sorted({row.method.peers for row in rows})
        }
        for row in rows:
            method = row.method
            for seed in range(seeds):
                print(f"{method.name}, seed {seed + 1} of {seeds}", file=sys.stderr)
                with pyccl.Coordinator(_ADDRESS) as coordinator:
                    found = crews[method.peers].run(
                        train_here,
                        Task(method, seed, steps, BATCH),
                        coordinator.address,
                        doomed=range(method.peers) if method.dies else (),
                    )
                run, wrong = run_of(method, chain, found)
                row.runs.append(run)
                faults += [f"{method.name}, seed {seed}: {one}" for one in wrong]
    return faults


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--only", callback=list_of(name_of), metavar="ROW,...", default=",".join(_NAMES))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Inner ones of a run."
)
@click.option("--json", "file", type=FILE, metavar="FILE", help="Write all figures there.")
@click.option("--plot", "picture", type=FILE, metavar="FILE.png", help="Draw losses over steps.")
def main(only: list[str], seeds: int, steps: int, file: Path | None, picture: Path | None) -> None:
    if picture is not None:
        try:
            require_matplotlib()
        except PlotUnavailableError as error:
            raise click.ClickException(str(error)) from error
    began = time.monotonic()
    chain = Chain()
    rows = [Row(method) for method in METHODS if method.name in only]
    for row in rows:
        if row.method.missing:
            print(f"{row.method.name} is left out: pyccl.optim has no {row.method.kind}")
    rows = [row for row in rows if not row.method.missing]
    try:
        faults = run_all(rows, chain, seeds, steps)
    except RankError as error:
        faults = [str(error)]
    except KeyboardInterrupt:
        faults = ["interrupted"]
    rows = [row for row in rows if row.runs]
    console = console_of(120)
    console.print(table_of(rows, chain, steps))
    bands = []
    if steps >= STEPS:
        bands = judged({row.method.name: row.mean for row in rows})
    if bands:
        console.print(bands_table(bands))
    seconds = time.monotonic() - began
    print(f"{seconds:.0f} s in all")
    for fault in faults:
        print(fault, file=sys.stderr)
    about = {
        "processors": os.cpu_count(), "steps": steps, "seeds": seeds, "batch": BATCH,
        "entropy_rate": chain.entropy_rate, "unigram_entropy": chain.unigram_entropy,
        "seconds": seconds,
    }  # fmt: skip
    write(file, {**about, "rows": [to_json(row) for row in rows], "bands": bands, "faults": faults})
    if picture is not None:
        plot(rows, chain, picture)
    if faults or not all(one["holds"] for one in bands):
        sys.exit(1)


if __name__ == "__main__":
    main()
