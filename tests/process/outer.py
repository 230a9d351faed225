"""Peers that take outer steps while others come and die, and what must come of that. Loaded by file
in the peers' processes."""

from __future__ import annotations

import itertools
import time
from typing import Any, NamedTuple

import numpy as np
from process.jobs import order

import pyccl
from pyccl.optim.numpy import DiLoCo
from pyccl.testing import report

Array = np.ndarray[Any, Any]

RATES = {"outer_lr": 0.7, "outer_momentum": 0.9}


class Step(NamedTuple):
    """An outer step as one peer has seen it: all of them must have seen the same."""

    number: int
    applied: bool
    contributors: int
    hash: str


def weights_at_start(size: int) -> dict[str, Array]:
    first = np.random.default_rng(0).standard_normal(size, np.float32)
    return {"w": first, "b": np.arange(3, dtype=np.float32)}


def learn(weights: dict[str, Array], index: int, number: int) -> None:
    """What a window of this peer changes: something else for each peer and each step."""
    chance = np.random.default_rng([index, number])
    for one in weights.values():
        one -= chance.standard_normal(one.shape, np.float32)


def train(comm: pyccl.Communicator, index: int, size: int) -> str:
    weights = weights_at_start(size)
    if index > 1:  # not those of the start, which two of the first three have
        for one in weights.values():
            one += index
    outer = DiLoCo(weights, comm, **RATES)  # type: ignore[arg-type]
    while True:
        ending = np.array([order() == "end"], np.uint8)
        comm.all_reduce(ending, op="max")
        if ending[0]:
            return "ended"
        outer.begin_window(weights)
        learn(weights, index, outer.steps)
        time.sleep(0.02)
        found = outer.end_window(weights)
        report(Step(outer.steps, found.applied, found.contributors, found.hash))


class Replay:
    """The same run in numpy, step by step, without any communication."""

    def __init__(self, size: int) -> None:
        self.state = DiLoCo(weights_at_start(size), **RATES).state  # type: ignore[arg-type]

    def step(self, found: Step, likely: set[int], others: set[int]) -> tuple[int, ...]:
        """Takes the one step of so many of these peers that gives the bits which were found: of
        those that are likely alone, or with one of the others. Returns who they were, in the order
        in which their deltas were added up."""
        before = self.state.export()
        deltas = {index: self._delta(index) for index in likely | others}
        for more in [(), *((one,) for one in sorted(others))]:
            for order_of_ranks in itertools.permutations(
                (*sorted(likely), *more), found.contributors
            ):
                self.state.import_(before)
                self.state.apply(self._mean([deltas[index] for index in order_of_ranks]))
                if self.state.hash() == found.hash:
                    return order_of_ranks
        raise AssertionError(
            f"{found} is the step of no {found.contributors} of {likely}, {others}"
        )

    def _delta(self, index: int) -> Array:
        weights = {name: one.copy() for name, one in self.state.views.items()}
        learn(weights, index, self.state.step)
        return self.state.delta(list(weights.values()))

    @staticmethod
    def _mean(deltas: list[Array]) -> Array:
        total: Array = deltas[0].copy()
        for one in deltas[1:]:
            total += one
        mean: Array = total / np.float32(len(deltas))
        return mean
