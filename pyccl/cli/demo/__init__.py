"""`pyccl demo`: real training, on real data, over peers that come, go and crash."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np

from pyccl.cli.demo.supervisor import Supervisor
from pyccl.cli.demo.training import Floats, Labels, Settings
from pyccl.cli.demo.view import PlainView, TableView, verdict

_SECONDS_MAX = 85.0
_HELD_OUT = 0.2


@click.command()
@click.option("--peers", type=click.IntRange(3, 16), default=4, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(20, 1000), default=40, show_default=True,
    help="At least so many; more if the script takes longer.",
)  # fmt: skip
@click.option(
    "--pace", type=click.FloatRange(0.02, 5.0), default=0.2, show_default=True, metavar="S",
    help="Seconds between rounds, so that one can watch.",
)  # fmt: skip
@click.option("--plain", is_flag=True, help="Lines instead of a table that changes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the record here.")
def command(peers: int, rounds: int, pace: float, plain: bool, json_file: Path | None) -> None:
    """Train over peers that come, go and crash.

    A coordinator and some peers, each a process of its own, train a classifier of handwritten
    digits: local steps on shards of their own, then an average over all. Meanwhile a peer is killed
    in mid operation, a new one joins, the coordinator is killed and started again, and a peer
    leaves. Ends with status 0 if all held the same bits after every round, the classifier is good
    and nobody hung.
    """
    shards, held_out = _digits(peers + 1)
    settings = [Settings(shard, held_out, pace) for shard in shards]
    settings[-1].newcomer = True
    view = PlainView() if plain or not sys.stdout.isatty() else TableView()
    with view:
        record = Supervisor(settings, rounds, view, _SECONDS_MAX).run()
    faults = record.judge(rounds)
    click.echo(verdict(record, faults))
    if json_file is not None:
        json_file.write_text(json.dumps(record.to_json(faults), indent=2) + "\n")
    sys.exit(1 if faults else 0)


def _digits(count: int) -> tuple[list[tuple[Floats, Labels]], tuple[Floats, Labels]]:
    """scikit-learn's bundled digits: so many disjoint shards, and what is held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise click.ClickException(
            "the demo needs scikit-learn: pip install 'pyccl-ft[demo]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    x, y = (pixels / 16).astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    held_out = round(len(x) * _HELD_OUT)
    test, train = order[:held_out], order[held_out:]
    return [(x[part], y[part]) for part in np.array_split(train, count)], (x[test], y[test])
