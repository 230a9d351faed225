"""What an outer optimizer adds to an inner step behind which nothing is due.

Steps with it and steps of the inner optimizer alone take turns, at one peer with one thread, while
the other one waits. That difference is far below what steps differ by anyhow, so there is also what
is added where the inner optimizer has no gradients, and so next to nothing to do.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from rich.table import Table
from synchronizing.tables import figures

import pyccl
import pyccl.optim
from pyccl.testing import LocalCluster

NAMES = ("DiLoCo", "StreamingDiLoCo", "DelayedDiLoCo", "NoLoCo", "EDiT", "CO2")
_SYNC_EVERY = 500
_LIMIT_SECONDS = 500.0
_IDLE_STEPS = 200


def name_of(text: str) -> str:
    if text not in NAMES:
        raise ValueError(f"there is no optimizer {text!r}; there are {', '.join(NAMES)}")
    return text


class Job(NamedTuple):
    name: str
    layers: int = 10
    width: int = 1000
    batch: int = 32
    pairs: int = 50

    @property
    def parameters(self) -> int:
        return self.layers * self.width * (self.width + 1)


class Found(NamedTuple):
    """Seconds."""

    alone: list[float]
    wrapped: list[float]
    idle: float
    """Added to a step with no gradients: the median."""

    @property
    def step(self) -> float:
        return statistics.median(self.alone)

    @property
    def added(self) -> tuple[float, float]:
        """To a step: the median over pairs, and its standard error by the quartiles."""
        added = [b - a for a, b in zip(self.alone, self.wrapped, strict=True)]
        low, middle, high = statistics.quantiles(added)
        return middle, 0.93 * (high - low) / math.sqrt(len(added))


def measure(job: Job) -> Found:
    connect = {"operation_timeout": _LIMIT_SECONDS}
    with LocalCluster(2, train_here, (job,), connect=connect, timeout=_LIMIT_SECONDS) as cluster:
        return Found(*cluster.results()[0])


def train_here(comm: pyccl.Communicator, index: int, job: Job) -> Any:
    """At one peer. Plain tuples: this module may have another name where it was started."""
    training = Training(Job(*job), comm)
    found = tuple(training.compare()) if index == 0 else None
    comm.barrier()
    return found


class Training:
    """A perceptron, what trains it, and the outer optimizer around that."""

    def __init__(self, job: Job, comm: pyccl.Communicator | None) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(job.layers):
            layers += [torch.nn.Linear(job.width, job.width), torch.nn.ReLU()]
        self._pairs = job.pairs
        self._x = torch.randn(job.batch, job.width)
        self._model = torch.nn.Sequential(*layers)
        self._inner = torch.optim.AdamW(self._model.parameters(), lr=1e-4)
        kind = getattr(pyccl.optim, job.name)
        self._outer = kind(
            self._model.named_parameters(), self._inner, comm, sync_every=_SYNC_EVERY
        )

    def compare(self) -> Found:
        alone, wrapped = self._in_turn(self._train, self._pairs)
        self._inner.zero_grad()
        bare, covered = (statistics.median(one) for one in self._in_turn(_step, _IDLE_STEPS))
        return Found(alone, wrapped, covered - bare)

    def _train(self, optimizer: Any) -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        self._model(self._x).square().sum().backward()
        optimizer.step()
        return time.perf_counter() - began

    def _in_turn(self, step: Callable[[Any], float], pairs: int) -> tuple[list[float], list[float]]:
        """The first pair warms up; who comes first in a pair takes turns, too."""
        took: tuple[list[float], list[float]] = [], []
        for turn in range(pairs + 1):
            self._outer.inner_steps = 0  # nothing ever gets due
            for which in (0, 1) if turn % 2 else (1, 0):
                seconds = step((self._inner, self._outer)[which])
                if turn:
                    took[which].append(seconds)
        return took


def _step(optimizer: Any) -> float:
    began = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - began


def table_of(found: dict[str, list[Found]], job: Job) -> Table:
    table = Table("", title=f"{job.parameters / 1e6:.3g} M parameters, sync_every={_SYNC_EVERY}")
    for header in ("ms a step alone", "added, %", "added by itself, us", "%"):
        table.add_column(header, justify="right")
    for name, launches in found.items():
        added = [
            f"{100 * middle / one.step:.2f} +- {100 * error / one.step:.2f}"
            for one in launches
            for middle, error in [one.added]
        ]
        step = statistics.median(one.step for one in launches)
        idle = statistics.median(one.idle for one in launches)
        table.add_row(
            name,
            figures(1e3 * one.step for one in launches),
            "; ".join(added),
            figures(1e6 * one.idle for one in launches),
            f"{100 * idle / step:.2g}",
        )
    return table
