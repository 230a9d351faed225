"""Replicas for tests of NoLoCo: a step of all that is made of the parts under test, which come as
an argument where mutants of them are tried too; and many worlds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyccl.optim import gossip
from pyccl.optim.gossip import groups, noloco_step

Array = np.ndarray[Any, Any]
Groups = Sequence[Sequence[int]]


def vector(*values: float) -> Array:
    return np.array(values, np.float32)


def state_of(phi: Array, g: Any = gossip, **options: Any) -> Any:
    return g.NoLoCoState(["w"], [phi], **options)


def bits(one: Any) -> tuple[int, bytes, bytes]:
    return one.step, one.params.tobytes(), one.momentum.tobytes()


def meet(states: list[Any], thetas: list[Array], cut: Groups) -> None:
    """One outer step of all replicas; peer ids are positions."""
    phis = [one.params.copy() for one in states]
    for group in cut:
        order = sorted(group)
        for i in group:
            needed = [phis[j] for j in order] if states[i].needs_phis else None
            states[i].apply([thetas[j] for j in order], needed)


def meet64(g: Any, phi: Array, delta: Array, theta: Array, cut: Groups, *abc: float) -> None:
    """The same in fp64 and the form with phis; rows are replicas."""
    before = phi.copy()
    for group in cut:
        order = sorted(group)
        mean_theta = g.mean_in_order([theta[j] for j in order])
        mean_phi = g.mean_in_order([before[j] for j in order])
        for i in group:
            phi[i], delta[i] = g.noloco_step(before[i], delta[i], mean_theta, mean_phi, *abc)


class Twin:
    """As many worlds of replicas as there are runs, each with pairs of its own, all at once."""

    def __init__(self, shape: tuple[int, int, int], dtype: Any = np.float64) -> None:
        self.phi, self.delta = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.runs, self.replicas, _ = shape
        self.t = 0

    def step(self, theta: Array, alpha: float, beta: float, gamma: float) -> None:
        other = np.empty((self.runs, self.replicas), int)
        for run in range(self.runs):
            for a, b in groups(range(self.replicas), run, self.t):
                other[run, a], other[run, b] = b, a
        rows = np.arange(self.runs)[:, None]
        half = theta.dtype.type(2)
        mean_theta = (theta + theta[rows, other]) / half
        mean_phi = None if beta == gamma else (self.phi + self.phi[rows, other]) / half
        self.phi, self.delta = noloco_step(
            self.phi, self.delta, mean_theta, mean_phi, alpha, beta, gamma
        )
        self.t += 1

    def variance(self) -> float:
        return float(np.square(self.phi - self.phi.mean(1, keepdims=True)).mean())
