"""Quantized all-reduces: how exact they are, and how fast.

`errors` averages N(0, 1) contributions of 2 to 16 peers by direct, which rounds each contribution
and the result once, and by pyccl's ring, which rounds the result alone and sends its sums in f32.
Beside them stands a ring that quantizes again at every hop, simulated with the same codecs. All are
held against the average in float64. The average of n independent contributions shrinks like
1 / sqrt(n), and with it the scales of its blocks: so errors are given relative to its rms, and as
multiples of what a single rounding of it costs. A sum has the same relative errors. With
`--alike 0.9` contributions are correlated: the average does not shrink, the errors still do.

`speed` times all-reduces of f32 and of codecs in turn, among the same processes of this machine.
"x f32" says how many times as fast as f32; "CPU s/GB" are the processor seconds, user and system,
of all peers per 1e9 bytes that f32 would have moved. Loopback and memory are faster than most
networks: what fewer bytes save there is less than elsewhere.

    python bench/quantization.py errors --json errors.json --plot errors.png
    python bench/quantization.py speed --codec int8 --sizes 1M,16M --zstd --json speed.json
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from command_line import FILE, console_of, list_of, parsed, peers_of, write
from rounding import errors as exactness
from rounding import speed as timing

from pyccl import _core
from pyccl.cli.bench import size_of
from pyccl.cli.bench.plot import PlotUnavailableError, require_matplotlib
from pyccl.testing import PeerProcessError

_CODECS = click.Choice(list(_core.codecs))


def _transport(name: str) -> str:
    if name not in ("tcp", "auto"):
        raise ValueError(f"{name!r} is no transport; there are tcp and auto")
    return name


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    pass


@main.command()
@click.option("--codec", "codecs", type=_CODECS, multiple=True, help="May be repeated. All.")
@click.option("--peers", callback=list_of(peers_of), default="2,4,8,16", show_default=True)
@click.option("--elements", callback=parsed(size_of), default="1M", show_default=True)
@click.option(
    "--alike", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
    help="The part of the variance that all contributions share.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write all figures there.")
@click.option("--plot", "plot_file", type=FILE, metavar="FILE.png", help="Draw error over peers.")
def errors(
    codecs: tuple[str, ...],
    peers: list[int],
    elements: int,
    alike: float,
    seed: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Errors of quantized averages over the number of peers."""
    if plot_file is not None:
        try:
            require_matplotlib()
        except PlotUnavailableError as error:
            raise click.ClickException(str(error)) from error
    codecs = codecs or tuple(_core.codecs)
    found = []
    for number in peers:
        print(f"{number} peers", file=sys.stderr)
        found += exactness.measure(codecs, number, elements, alike, seed)
    found.sort(key=lambda one: codecs.index(one.codec))
    console = console_of(140)
    console.print(exactness.relative_table(found))
    console.print(exactness.absolute_table(found))
    run = {"elements": elements, "alike": alike, "seed": seed}
    write(json_file, {**run, "errors": [one.to_json() for one in found]})
    if plot_file is not None:
        exactness.draw(found, plot_file)


@main.command()
@click.option(
    "--codec", "codecs", type=_CODECS, multiple=True, show_default=True,
    default=["int8", "fp4_e3m0", "int4", "fp8_e4m3"], help="May be repeated.",
)  # fmt: skip
@click.option(
    "--sizes", callback=list_of(size_of), default="1M,16M,256M", show_default=True,
    help="Of the f32 array of each peer.",
)  # fmt: skip
@click.option("--peers", callback=list_of(peers_of), default="2,4", show_default=True)
@click.option(
    "--transport", "transports", callback=list_of(_transport), default="tcp,auto",
    show_default=True, help="auto: memory, here.",
)  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--zstd/--no-zstd", default=False, help="Each codec with zstd, too.")
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write all samples there.")
def speed(
    codecs: tuple[str, ...],
    sizes: list[int],
    peers: list[int],
    transports: list[str],
    repeats: int,
    zstd: bool,
    json_file: Path | None,
) -> None:
    """Times, bytes and processor seconds of all-reduces, beside plain f32."""
    ways = timing.ways_of(codecs, zstd)
    cells: list[timing.Cell] = []
    ended_early = False
    try:
        for number in peers:
            for transport in transports:
                for size in sizes:
                    print(f"{number} peers, {transport}, {size} B", file=sys.stderr)
                    cells += timing.measure(ways, number, transport, size, repeats)
    except (KeyboardInterrupt, PeerProcessError) as error:
        # What is known by then is worth a table.
        print(f"ended early: {error or 'interrupted'}", file=sys.stderr)
        ended_early = True
    console = console_of(140)
    for number, transport in dict.fromkeys((cell.peers, cell.transport) for cell in cells):
        console.print(timing.table_of(cells, number, transport))
    cores = {"processors": os.cpu_count()}
    write(json_file, {**cores, "cells": [cell.to_json() for cell in cells]})
    if ended_early:
        sys.exit(1)


if __name__ == "__main__":
    main()
