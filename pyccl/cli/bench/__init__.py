"""`pyccl bench`: how fast the collectives are here, in the table that nccl-tests made known."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

import pyccl
from pyccl import _core
from pyccl.cli.bench.collectives import COLLECTIVES, collective_of
from pyccl.cli.bench.data import DTYPES, SHORT_DTYPES
from pyccl.cli.bench.local import LocalRunError, run_local
from pyccl.cli.bench.measure import Line, Plan, measure
from pyccl.cli.bench.moved import Tell
from pyccl.cli.bench.plot import PlotUnavailableError, draw, require_matplotlib
from pyccl.cli.bench.report import TIMING, Screen, summary, to_json, wrong_of
from pyccl.errors import InvalidArgumentError, PycclError
from pyccl.quantization import Codec

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_LOCAL_PEERS = 2
_FILE = click.Path(dir_okay=False, path_type=Path)


def size_of(text: str) -> int:
    """Bytes of "8", "64K", "1.5M" or "1GiB": units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size; write 8, 64K, 1M or 2G")
    return size


def _size(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        return size_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _dtype(_: click.Context, __: click.Parameter, name: str) -> str:
    return SHORT_DTYPES.get(name, name)


def _collectives(
    context: click.Context, _: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    if "all" in names:
        quantized = context.params.get("quantization") is not None
        return tuple(one.name for one in COLLECTIVES.values() if one.roundings or not quantized)
    try:
        return tuple(collective_of(name).name for name in names or ("all_reduce",))
    except InvalidArgumentError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("collectives", nargs=-1, metavar="[COLLECTIVE]...", callback=_collectives)
@click.option(
    "--local", type=click.IntRange(1, 64), metavar="N",
    help=f"Start a coordinator and N peers here; {_LOCAL_PEERS} by default.",
)  # fmt: skip
@click.option(
    "--coordinator", metavar="HOST:PORT",
    help="Be one peer of a run: call the same command once for each of --world peers.",
)  # fmt: skip
@click.option(
    "--world", type=click.IntRange(1), metavar="N", help="Peers to wait for with --coordinator."
)
@click.option(
    "-b", "--min-bytes", default="8", show_default=True, callback=_size, metavar="SIZE",
    help="The first size; 64K is 65536.",
)  # fmt: skip
@click.option(
    "-e", "--max-bytes", default="128M", show_default=True, callback=_size, metavar="SIZE",
    help="The last one.",
)  # fmt: skip
@click.option(
    "-f", "--step-factor", type=click.IntRange(2), default=2, show_default=True,
    help="From one size to the next.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice([*DTYPES, *SHORT_DTYPES]), default="float32", show_default=True,
    callback=_dtype, metavar="TYPE",
    help=f"{', '.join(DTYPES)}; also {', '.join(list(SHORT_DTYPES)[:4])} and so on.",
)  # fmt: skip
@click.option(
    "--op", type=click.Choice(list(_core.reduce_ops)), default="sum", show_default=True,
    help="What a reduction does.",
)  # fmt: skip
@click.option(
    "--root", type=click.IntRange(0), default=0, show_default=True, metavar="RANK",
    help="Of broadcast, reduce, gather and scatter.",
)  # fmt: skip
@click.option(
    "--placement", type=click.Choice(["both", "out", "in"]), default="both", show_default=True,
    help="Where a collective can write its result: out of place, in place.",
)  # fmt: skip
@click.option(
    "--iters", type=click.IntRange(1), default=20, show_default=True, help="Timed calls per size."
)
@click.option(
    "--warmup", type=click.IntRange(0), default=5, show_default=True, help="Calls before them."
)
@click.option(
    "--algorithm", type=click.Choice(list(_core.algorithms)),
    help="Instead of the library's own choice.",
)  # fmt: skip
@click.option(
    "--quantization", type=click.Choice(get_args(Codec)), metavar="CODEC",
    # So that "all" knows of it: those that can be quantized.
    is_eager=True,
    help=f"Send numbers in fewer bits: {', '.join(get_args(Codec))}.",
)  # fmt: skip
@click.option("--transport", type=click.Choice(["auto", "tcp"]), help="auto: shared memory, too.")
@click.option("--connections", type=click.IntRange(1, 64), help="Per pair of peers.")
@click.option(
    "--spin-us", type=click.IntRange(0), metavar="US",
    help="Poll so many microseconds before going to sleep.",
)  # fmt: skip
@click.option(
    "--same", is_flag=True,
    help="A sync finds the same state everywhere. Else the last peer lacks all of it.",
)  # fmt: skip
@click.option(
    "--check/--no-check", default=True, show_default=True,
    help="Compare the results with numpy's, element by element. Quantized: with what the codec "
    "makes of the numbers, and none may be farther from numpy's than half a step per rounding.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=300.0, show_default=True,
    metavar="S", help="Seconds that joining, and each operation, may take.",
)  # fmt: skip
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the figures there; -: to standard output, "
    "where the table then goes to standard error.",
)  # fmt: skip
@click.option("--plot", "plot_file", type=_FILE, metavar="FILE.png", help="Draw busbw over size.")
def command(
    local: int | None,
    coordinator: str | None,
    world: int | None,
    json_file: str | None,
    plot_file: Path | None,
    timeout: float,
    **options: Any,
) -> None:
    """Measure collectives between peers.

    COLLECTIVE is one or several of all_reduce (the default), all_gather, reduce_scatter,
    all_to_all, broadcast, reduce, gather, scatter, send_recv, exchange, sync, barrier, or all.

    Prints size, count, time, algbw and busbw as nccl-tests defines them. The time is the mean over
    the iterations at the slowest peer. #wrong counts elements that differ from what numpy computes.
    Ends with status 1 if there are any, or if a peer fails. With --quantization, bandwidths count
    the bytes that the numbers have at both ends, and --json has their ratio on the wire. The size
    of a sync is that of the state, which the last peer lacks each time; its digest is checked, too.
    """
    plan = Plan(**{one.name: options.pop(one.name) for one in fields(Plan)})
    if plan.min_bytes > plan.max_bytes:
        raise click.UsageError("--min-bytes is more than --max-bytes")
    if coordinator is not None and (local is not None or world is None):
        raise click.UsageError("--coordinator goes with --world, and not with --local")
    if coordinator is None and world is not None:
        raise click.UsageError("--world goes with --coordinator")
    # What is not named here is the library's own choice.
    connect = {name: value for name, value in options.items() if value is not None}
    limits = {"timeout": timeout, "operation_timeout": timeout}
    peers = world or local or _LOCAL_PEERS
    try:
        plan.steps(peers)
        _prepare_files(json_file, plot_file)
        with _run(coordinator, peers, plan, {**limits, **connect}) as (lines_of, leads):
            out = sys.stderr if json_file == "-" else sys.stdout
            with Screen(len(plan.steps(peers)), out, quiet=not leads) as screen:
                screen.say(*_opening(peers, plan, connect))
                known = _collect(lines_of(screen.tell), screen)
                screen.say("#", *summary(known, plan))
    except (PycclError, LocalRunError, PlotUnavailableError) as error:
        raise click.ClickException(str(error)) from error
    if leads:
        run = {"pyccl": pyccl.__version__, "peers": peers, "connect": connect}
        _write(known, plan, run, json_file, plot_file)
    sys.exit(1 if wrong_of(known) else 0)


@contextlib.contextmanager
def _run(
    coordinator: str | None, peers: int, plan: Plan, connect: dict[str, Any]
) -> Iterator[tuple[Callable[[Tell], Iterator[Line]], bool]]:
    """Gives the lines as they come, and says whether it is this process that shows them."""
    if coordinator is None:
        with contextlib.ExitStack() as closed:
            yield (
                lambda tell: closed.enter_context(
                    contextlib.closing(run_local(peers, plan, connect, tell))
                ),
                True,
            )
        return
    print(f"waiting for {peers} peers at {coordinator}", file=sys.stderr)
    with pyccl.connect(coordinator, world_size_min=peers, **connect) as comm:
        if comm.world_size != peers:
            raise InvalidArgumentError(f"{comm.world_size} peers came, where --world is {peers}")
        yield functools.partial(measure, comm, plan), comm.rank == 0


def _collect(lines: Iterator[Line], screen: Screen) -> list[Line]:
    known = []
    for line in lines:
        known.append(line)
        screen.add(line)
    return known


def _opening(peers: int, plan: Plan, connect: dict[str, Any]) -> list[str]:
    settings = "".join(f", {name.replace('_', '-')} {value}" for name, value in connect.items())
    for name in ("algorithm", "quantization"):
        if (value := getattr(plan, name)) is not None:
            settings += f", {name} {value}"
    return [
        f"# pyccl {pyccl.__version__}, {peers} peer{'s' * (peers > 1)}{settings}",
        f"# iterations {plan.iters}, warm-up {plan.warmup}; time: {TIMING}",
        "#",
    ]


def _prepare_files(json_file: str | None, plot_file: Path | None) -> None:
    """What can't be written is said before the run, not after it."""
    if plot_file is not None:
        require_matplotlib()
    for file in (json_file, plot_file):
        if file not in (None, "-") and not Path(str(file)).absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder for {file}")


def _write(
    lines: list[Line], plan: Plan, run: dict[str, Any], json_file: str | None,
    plot_file: Path | None,
) -> None:  # fmt: skip
    try:
        if json_file is not None:
            text = json.dumps(to_json(lines, plan, run), indent=1)
            if json_file == "-":
                click.echo(text)
            else:
                Path(json_file).write_text(text + "\n", encoding="utf-8")
        if plot_file is not None:
            draw(lines, f"pyccl, {run['peers']} peers, {plan.dtype}", plot_file)
    except (OSError, ValueError) as error:  # ValueError: matplotlib knows no such format
        raise click.ClickException(f"can't write the figures: {error}") from error
