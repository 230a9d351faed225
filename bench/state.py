"""Shared state: how fast it is hashed, brought to a newcomer, and found to be the same.

All that stands in one table is measured in one run and takes turns; figures are the median with the
least and the most. Buffers have been written to before, as those of a program that trains.

`hash`: GB/s of state.digest() beside `xxhsum -H2` of the same bytes in a file that is in memory,
and beside mere reading of the same memory (compiled here, -O3 -march=native) by as many threads.
`join`: peers of which the last one lacks everything, by each transport, beside the same peers when
nobody lacks anything (all have to hash and to agree), and beside one plain socket over loopback.
The time is that of comm.sync() at the joiner; fresh processes for each sample, after a sync to warm
up. "CPU s" are those of all processes.
`same`: identical states, states of which one has one other number, and 10 000 tensors of 256 bytes.
`links`: holders behind shaped links (network namespaces; needs root) and one joiner that has no
such limit: three that send, one that sends, unlike links. "at least" is the time that the links
need for the state alone.

    python bench/state.py join --mib 1024 --turns 5 --json join.json
    python bench/state.py links --mib 64
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from namespaces import NoNamespacesError
from rich.console import Console
from rich.table import Table
from synchronizing import copying, hashing, links, peers
from synchronizing.tables import Row, table_of

_SMALL_TENSORS = 10_000
_SMALL_BYTES = 256
_COPY = "socket copy"
Command = TypeVar("Command", bound=Callable[..., Any])
_WAYS = (
    links.Way((500, 500, 500), 3),
    links.Way((500, 500, 500), 1),
    links.Way((500, 500, 100), 3),
    links.Way((500, 500, 100), 2),
)


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    pass


def _mib(default: str, *, many: bool = False) -> Callable[[Command], Command]:
    def parse(_: click.Context, __: click.Parameter, text: str) -> Any:
        try:
            sizes = [int(part) << 20 for part in text.split(",")]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no number of MiB") from error
        if min(sizes) < 1 or (len(sizes) > 1 and not many):
            raise click.BadParameter(f"{text!r} is no size")
        return sizes if many else sizes[0]

    help_text = "Of the state; several between commas." if many else "Of the state."
    return click.option(
        "--mib", "size", default=default, show_default=True, callback=parse, help=help_text
    )


_TURNS = click.option("--turns", type=click.IntRange(1), default=5, show_default=True)
_PEERS = click.option("--peers", "world", type=click.IntRange(2), default=4, show_default=True)
_JSON = click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write all samples there.",
)  # fmt: skip


@main.command("hash")
@_mib("1024")
@_TURNS
@_JSON
def hash_(size: int, turns: int, file: Path | None) -> None:
    """Digests beside xxhsum and reading."""
    load = os.getloadavg()
    rows = hashing.measure(size, turns)
    _show(hashing.table_of(rows), load)
    _write(file, load, {"rows": [row.to_json() for row in rows]})


@main.command()
@_mib("1024")
@_PEERS
@_TURNS
@_JSON
def join(size: int, world: int, turns: int, file: Path | None) -> None:
    """One peer that lacks everything, beside a socket."""
    load = os.getloadavg()
    names = {"auto": "default", "tcp": "tcp"}
    rows = {
        (transport, lacking): Row(f"{what}, {names[transport]}", size)
        for lacking, what in ((peers.ALL, "join"), (peers.NOTHING, "nobody lacks anything"))
        for transport in names
    }
    plain = Row(_COPY, size)
    job = peers.Job(size, 1, (peers.ALL, peers.NOTHING))
    for turn in range(turns):
        _say(f"turn {turn + 1} of {turns}")
        for transport in names:
            for lacking, samples in peers.launch(job, world, transport).items():
                rows[transport, lacking].samples += samples
        plain.samples.append(copying.copy(size))
    known = [*rows.values(), plain]
    _show(table_of(f"{world} peers, {size >> 20} MiB", known, _COPY), load)
    _write(file, load, {"peers": world, "rows": [row.to_json() for row in known]})


@main.command()
@_mib("256,1024", many=True)
@_PEERS
@_TURNS
@click.option("--transport", type=click.Choice(["auto", "tcp"]), default="auto", show_default=True)
@_JSON
def same(size: list[int], world: int, turns: int, transport: str, file: Path | None) -> None:
    """States that are alike, or nearly."""
    load = os.getloadavg()
    both = (peers.NOTHING, peers.ONE)
    jobs = {f"{one >> 20} MiB": peers.Job(one, 1, both) for one in size}
    small = peers.Job(_SMALL_TENSORS * _SMALL_BYTES, _SMALL_TENSORS, both)
    jobs[f"{_SMALL_TENSORS} x {_SMALL_BYTES} B"] = small
    texts = {peers.NOTHING: "identical", peers.ONE: "one number"}
    rows = {
        (name, lacking): Row(f"{name}, {texts[lacking]}", job.size)
        for name, job in jobs.items()
        for lacking in both
    }
    for turn in range(turns):
        _say(f"turn {turn + 1} of {turns}")
        for name, job in jobs.items():
            for lacking, samples in peers.launch(job, world, transport).items():
                rows[name, lacking].samples += samples
    _show(table_of(f"{world} peers, {transport}", list(rows.values())), load)
    _write(file, load, {"peers": world, "rows": [row.to_json() for row in rows.values()]})


@main.command("links")
@_mib("256")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True)
@click.option("--syncs", type=click.IntRange(1), default=3, show_default=True, help="Per launch.")
@_JSON
def links_(size: int, turns: int, syncs: int, file: Path | None) -> None:
    """From several holders over shaped links."""
    load = os.getloadavg()
    taken: dict[links.Way, list[links.Taken]] = {way: [] for way in _WAYS}
    for turn in range(turns):
        for way, launches in taken.items():
            _say(f"turn {turn + 1} of {turns}: {way.name}")
            try:
                launches.append(links.measure(way, size, syncs))
            except NoNamespacesError as error:
                raise click.ClickException(str(error)) from error
    _show(links.table_of(taken, size), load)
    ways = [
        {**way._asdict(), "launches": [one._asdict() for one in launches]}
        for way, launches in taken.items()
    ]
    _write(file, load, {"bytes": size, "ways": ways})


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _show(table: Table, load: tuple[float, float, float]) -> None:
    # A file has no width to fit into.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table)
    print(f"load average before {load[0]:.2f}, after {os.getloadavg()[0]:.2f}")


def _write(file: Path | None, load: tuple[float, float, float], content: dict[str, Any]) -> None:
    if file is not None:
        about = {"processors": os.cpu_count(), "load_before": load[0]}
        text = json.dumps({**about, **content}, indent=1)
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
