"""Steps of DistributedDataParallel on one host: the backend "pyccl" beside Gloo.

A perceptron of as many layers as wide ones, so that there is much to reduce and little to compute:
8 layers of 2500 x 2500 are 50 million parameters, 200 MB of gradients a step. A step is forward,
backward, during which DDP reduces the gradients in buckets, and plain SGD.

Each backend has processes of its own, one per rank with one thread to compute, that live as long as
all rounds with that many ranks; they take turns, A B A B, while the other one's wait. A sample is a
batch of steps between barriers, of a model that has been warmed up; the mean at the slowest rank
counts. A figure is the median over the rounds, with the least and the most. "without" are the same
steps of both backends' ranks with no communication at all, which no backend can go below.

Gradients are freed and allocated anew in each step. Whether the allocator gives their memory back
to the system in between is a matter of luck, and changes a step by a third; here it keeps it.

The first step's gradients are held against the mean of what the ranks compute by themselves, and
behind each sample all ranks must hold the same parameters, to the last bit.

    python bench/torch_ddp.py --ranks 2,4 --rounds 5 --json out.json
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from command_line import FILE, console_of, list_of, peers_of, write
from crew import RankError
from numpy.typing import NDArray
from rich.table import Table
from synchronizing.tables import spread
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_ranks import Ranks

BACKENDS = ("pyccl", "gloo")
BOUND = 0.95
"""Of Gloo's time, at most."""

_RATE = 1e-4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MMAP_THRESHOLD_MAX = 32 << 20
_PROBED = 9973  # every so many elements of a gradient are looked at; a prime, to fall anywhere


class Net(NamedTuple):
    """What is trained, and on how much at once."""

    layers: int
    width: int
    batch: int

    @property
    def parameters(self) -> int:
        return self.layers * self.width * (self.width + 1)


class Checked(NamedTuple):
    """What one rank has found of its first step."""

    own: NDArray[np.float32]
    """Some elements of the gradients of this rank's batch alone."""
    seen: NDArray[np.float32]
    """The same elements as DDP gives them: the mean over all ranks."""


class Trained(NamedTuple):
    """One sample at one rank."""

    seconds: float
    """Of a step."""
    seconds_without: float
    """Of a step with no communication."""
    checksum: int
    """Of all parameters at the end."""


@dataclass
class Row:
    """Both backends with so many ranks; seconds of a step at the slowest rank."""

    ranks: int
    samples: dict[str, list[float]] = field(default_factory=lambda: {one: [] for one in BACKENDS})
    without: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """pyccl's time over Gloo's."""
        ours, gloo = (self.samples[one] for one in BACKENDS)
        return statistics.median(ours) / statistics.median(gloo) if ours and gloo else None


class Trainer:
    """What one rank trains, from the first order on."""

    def __init__(self, net: Net, rank: int) -> None:
        torch.manual_seed(0)
        layers: list[torch.nn.Module] = []
        for _ in range(net.layers):
            layers += [torch.nn.Linear(net.width, net.width), torch.nn.ReLU()]
        self._module = torch.nn.Sequential(*layers)
        self._x = torch.randn(net.batch, net.width, generator=torch.Generator().manual_seed(rank))
        self._module(self._x).square().sum().backward()
        own = self._probe()
        self._model = DistributedDataParallel(self._module)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=_RATE)
        self.step()
        self.checked = Checked(own, self._probe())
        self.step()  # of buckets that DDP makes behind the first one

    def step(self) -> None:
        self._optimizer.zero_grad()
        self._model(self._x).square().sum().backward()
        self._optimizer.step()

    @contextlib.contextmanager
    def without(self) -> Iterator[None]:
        """Steps in here communicate nothing. They change nothing either, or the ranks would part;
        that takes the same time."""
        group = self._optimizer.param_groups[0]
        group["lr"] = 0.0
        with self._model.no_sync():
            yield
        group["lr"] = _RATE

    def checksum(self) -> int:
        known = 0
        for one in self._module.parameters():
            known = zlib.crc32(one.detach().numpy().reshape(-1).view(np.uint8), known)
        return known

    def _probe(self) -> NDArray[np.float32]:
        gradients = [one.grad.reshape(-1) for one in self._module.parameters()]
        return np.concatenate([one[::_PROBED].numpy().copy() for one in gradients])


_trainers: list[Trainer] = []
"""That of this process, once there is one."""


def prepare_here(rank: int, _: int, net: Net) -> Checked:
    _keep_memory()
    _trainers.append(Trainer(net, rank))
    return _trainers[0].checked


def train_here(_: int, __: int, steps: int) -> Trained:
    trainer = _trainers[0]
    seconds = _timed(trainer.step, steps)
    checksum = trainer.checksum()
    with trainer.without():
        without = _timed(trainer.step, steps)
    return Trained(seconds, without, checksum)


def wrong_step(found: list[Checked]) -> str | None:
    """What is wrong with the ranks' first steps, if anything is."""
    mean = np.mean([one.own for one in found], axis=0, dtype=np.float64)
    tolerance = 1e-6 * float(np.max(np.abs(mean)))
    for rank, one in enumerate(found):
        if not np.allclose(one.seen, mean, rtol=1e-4, atol=tolerance):
            return f"the gradients at rank {rank} are not the mean of all"
    return None


def wrong_end(found: list[Trained]) -> str | None:
    """What is wrong behind a sample, if anything is."""
    alike = len({one.checksum for one in found}) == 1
    return None if alike else "the ranks hold different parameters"


def _keep_memory() -> None:
    """Has the allocator keep what is freed; does nothing where it is not that of glibc."""
    with contextlib.suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_MAX)
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)


def _timed(step: Callable[[], None], steps: int) -> float:
    """Seconds of one of so many steps."""
    dist.barrier()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def run_all(rows: list[Row], net: Net, steps: int, rounds: int, limit: float) -> list[str]:
    """Fills the rows; returns what failed, which ends the rounds with that many ranks. limit:
    seconds that one sample may take."""
    faults = []
    for row in rows:
        try:
            with contextlib.ExitStack() as stack:
                groups = {
                    backend: stack.enter_context(Ranks(backend, row.ranks, limit))
                    for backend in BACKENDS
                }
                for backend, group in groups.items():
                    _refuse(backend, wrong_step(group.run(prepare_here, net)))
                for turn in range(rounds):
                    for backend, group in groups.items():
                        text = f"{row.ranks} ranks, round {turn + 1} of {rounds}: {backend}"
                        print(text, file=sys.stderr)
                        found: list[Trained] = group.run(train_here, steps)
                        _refuse(backend, wrong_end(found))
                        row.samples[backend].append(max(one.seconds for one in found))
                        row.without.append(max(one.seconds_without for one in found))
        except RankError as error:
            faults.append(f"{row.ranks} ranks: {error}")
            print(faults[-1], file=sys.stderr)
    return faults


def _refuse(backend: str, fault: str | None) -> None:
    if fault is not None:
        raise RankError(f"{backend}: {fault}")


def table_of(rows: list[Row], net: Net) -> Table:
    million = net.parameters / 1e6
    title = (
        f"DDP, {net.layers} layers of {net.width}, {million:.3g} M parameters, batch {net.batch}"
    )
    table = Table("ranks", title=title)
    for header in ("pyccl", "Gloo", "without"):
        table.add_column(f"{header} ms: median (min-max)", justify="right")
    for header in ("x Gloo", "bound", ""):
        table.add_column(header, justify="right")
    for row in rows:
        times = [spread(1e3 * one for one in known) if known else "-" for known in _known(row)]
        ratio = row.ratio
        table.add_row(
            str(row.ranks),
            *times,
            "-" if ratio is None else f"{ratio:.3f}",
            f"{BOUND:g}",
            "" if ratio is None else "met" if ratio <= BOUND else "missed",
        )
    return table


def _known(row: Row) -> list[list[float]]:
    return [*row.samples.values(), row.without]


def to_json(row: Row) -> dict[str, Any]:
    return {
        "ranks": row.ranks,
        "seconds": row.samples,
        "seconds_without": row.without,
        "ratio": row.ratio,
        "bound": BOUND,
    }


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--ranks", callback=list_of(peers_of), default="2,4", show_default=True)
@click.option("--layers", type=click.IntRange(1), default=8, show_default=True)
@click.option("--width", type=click.IntRange(1), default=2500, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Of a rank.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Of a sample.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True,
    help="Seconds that one sample may take.",
)  # fmt: skip
@click.option("--json", "file", type=FILE, metavar="FILE", help="Write all samples there.")
def main(
    ranks: list[int],
    layers: int,
    width: int,
    batch: int,
    steps: int,
    rounds: int,
    timeout: float,
    file: Path | None,
) -> None:
    net = Net(layers, width, batch)
    rows = [Row(count) for count in ranks]
    try:
        faults = run_all(rows, net, steps, rounds, timeout)
    except KeyboardInterrupt:
        # What is known by then is worth a table.
        faults = ["interrupted"]
    console_of(140).print(table_of(rows, net))
    about = {"processors": os.cpu_count(), **net._asdict(), "parameters": net.parameters}
    write(file, {**about, "rows": [to_json(row) for row in rows], "faults": faults})
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
