"""Trainings whose every number is known: in numpy, written out operation by operation, and the same
ones by way of pyccl.optim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Gradient = Callable[[int, int, Array], Array]
"""Of a peer, at an inner step, in a place."""
History = list[tuple[Array, Array]]
"""phi and momentum behind each outer step."""


class Plan(NamedTuple):
    """start: phi at the start, fp32. rate: of the inner SGD; with a power of two, what torch does
    in one rounding and numpy in two is the same."""

    start: Array
    gradient: Gradient
    rounds: int = 4
    every: int = 2
    rate: float = 0.25
    lr: float = 0.7
    mu: float = 0.9
    nesterov: bool = True

    @property
    def outer(self) -> dict[str, Any]:
        return {"outer_lr": self.lr, "outer_momentum": self.mu, "nesterov": self.nesterov}


def mean_of(deltas: Sequence[Array], weights: Sequence[float] | None = None) -> Array:
    """In the order of ranks, as the reduction does it: the sum first, then what divides it."""
    given = [1.0] * len(deltas) if weights is None else weights
    number = deltas[0].dtype.type
    total = number(given[0]) * deltas[0]
    for weight, delta in zip(given[1:], deltas[1:], strict=True):
        total = total + number(weight) * delta
    return np.asarray(total / number(sum(given)))


class Twin:
    """The outer optimizer in any floating type, each operation rounded by itself."""

    def __init__(
        self, start: Array, lr: float, mu: float, nesterov: bool = True, dtype: Any = np.float32
    ) -> None:
        self.phi = start.astype(dtype)
        self.momentum = np.zeros_like(self.phi)
        self.rates = self.phi.dtype.type(lr), self.phi.dtype.type(mu)
        self.nesterov = nesterov

    def apply(self, mean: Array) -> None:
        lr, mu = self.rates
        kept = mu * self.momentum
        self.momentum = kept + mean
        ahead = mu * self.momentum
        whole = mean + ahead if self.nesterov else self.momentum
        scaled = lr * whole
        self.phi = self.phi - scaled

    def meet(self, thetas: Sequence[Array], weights: Sequence[float] | None = None) -> None:
        self.apply(mean_of([self.phi - one for one in thetas], weights))


def window(plan: Plan, peer: int, begin: int, theta: Array, steps: int | None = None) -> Array:
    """What `steps` inner steps of SGD make of theta, from the step `begin` on."""
    rate = theta.dtype.type(plan.rate)
    for step in range(begin, begin + (plan.every if steps is None else steps)):
        theta = theta - rate * plan.gradient(peer, step, theta)
    return theta


def twin_run(plan: Plan, peers: Sequence[int], dtype: Any = np.float32) -> History:
    twin = Twin(plan.start, plan.lr, plan.mu, plan.nesterov, dtype)
    history: History = []
    for t in range(plan.rounds):
        twin.meet([window(plan, peer, t * plan.every, twin.phi) for peer in peers])
        history.append((twin.phi, twin.momentum))
    return history


def numbers(state: Any) -> tuple[Array, Array]:
    """phi and momentum of an OuterState, as copies."""
    return state.params.copy(), state.momentum.copy()


def torch_run(
    family: Any, plan: Plan, comm: Any, peer: int = 0, inner: Any = None, **options: Any
) -> History:
    """inner(parameters): the optimizer; else it is SGD at the rate of the plan."""
    import torch

    weight = torch.nn.Parameter(torch.from_numpy(plan.start.copy()))
    make = inner or (lambda given: torch.optim.SGD(given, lr=plan.rate))
    opt = family.DiLoCo(
        [weight], make([weight]), comm, **{"sync_every": plan.every, **plan.outer, **options}
    )
    return [
        numbers(opt.outer)
        for _ in steps_of(opt, weight, plan, peer, range(plan.rounds * plan.every))
        if opt.last_sync.fresh
    ]


def steps_of(opt: Any, weight: Any, plan: Plan, peer: int, steps: range) -> Iterator[int]:
    """Takes these inner steps, and says each when it is done."""
    import torch

    for step in steps:
        here = weight.detach().numpy()
        weight.grad = torch.from_numpy(plan.gradient(peer, step, here).astype(here.dtype))
        opt.step()
        yield step


def array_run(
    family: Any, plan: Plan, comm: Any, peer: int = 0, name: str = "w", **options: Any
) -> History:
    """By begin_window() and end_window()."""
    theta = {name: plan.start.copy()}
    outer = family.ArrayDiLoCo(theta, comm, **{**plan.outer, **options})
    history: History = []
    for t in range(plan.rounds):
        outer.begin_window(theta)
        theta[name][...] = window(plan, peer, t * plan.every, theta[name])
        outer.end_window(theta)
        history.append(numbers(outer.state))
    return history


def same_bits(found: History, expected: History) -> None:
    assert len(found) == len(expected)
    for t, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name, a, b in zip(("phi", "momentum"), one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.ravel(), b.ravel(), err_msg=f"{name}, round {t}")


def bowl(minima: Array, curvature: float | Array = 1.0) -> Gradient:
    """Of half the curvature times the squared distance from a peer's minimum."""

    def gradient(peer: int, _: int, here: Array) -> Array:
        number = here.dtype.type
        scale = np.asarray(curvature)
        own = scale if scale.ndim == 0 else scale[peer]
        return number(own) * (here - minima[peer].astype(here.dtype))

    return gradient


def noisy(seed: int, size: int) -> Gradient:
    """Other data at each step of each peer, with curvatures of its own."""

    def gradient(peer: int, step: int, here: Array) -> Array:
        rng = np.random.default_rng((seed, peer, step))
        minimum, curvature = rng.standard_normal(size), rng.uniform(0.5, 1.5, size)
        flat = curvature.astype(here.dtype) * (here.ravel() - minimum.astype(here.dtype))
        return np.asarray(flat.reshape(here.shape))

    return gradient


def whole(seed: int, size: int) -> Gradient:
    """As noisy(), of whole numbers: with rates of powers of two all sums are exact."""

    def gradient(peer: int, step: int, here: Array) -> Array:
        minimum = np.random.default_rng((seed, peer, step)).integers(-8, 8, size)
        return here - minimum.reshape(here.shape).astype(here.dtype)

    return gradient
