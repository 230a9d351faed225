"""DiLoCo a window late: the order of what it does, and the rates that it bears."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .training import Plan, Twin, mean_of, noisy, numbers, same_bits, steps_of, window

torch = pytest.importorskip("torch")


def model_of(comm: Any, start: float, family: Family = REAL, **options: Any) -> tuple[Any, Any]:
    weight = torch.nn.Parameter(torch.full((3,), start))
    inner = torch.optim.SGD([weight], lr=0.5)
    options = {"sync_every": 2, "outer_lr": 0.5, "outer_momentum": 0.5, **options}
    return weight, family.DelayedDiLoCo([weight], inner, comm, **options)


def train(weight: Any, opt: Any, steps: int, optimum: float) -> None:
    """Of the half square of the distance to an optimum."""
    for _ in range(steps):
        weight.grad = weight.detach() - optimum
        opt.step()


# --- Checks ---------------------------------------------------------------------------------------


def check_golden(family: Family, peers: Peers) -> None:
    """A-G1, exact: two peers whose optima are 0 and 4."""

    def run(comm: Any) -> Any:
        weight, opt = model_of(comm, 8.0, family)
        found = []
        for _ in range(5):
            train(weight, opt, 2, 4.0 * comm.rank)
            found.append((opt.outer.params[0] * 1.0, opt.outer.momentum[0] * 1.0))
            assert weight[0].item() == opt.outer.params[0]
        return found

    phi = [8, 37 / 8, 11 / 16, -209 / 128, -25 / 16]
    momentum = [0, 9 / 2, 27 / 4, 171 / 32, 27 / 16]
    assert peers.run(2, run) == [list(zip(phi, momentum, strict=True))] * 2


def check_numpy(family: Family, peers: Peers) -> None:
    """A-1: phi of t is the outer step of phi of t - 1 with the mean of what was learned from phi
    of t - 2, bit for bit."""
    start = np.random.default_rng(0).standard_normal(9).astype(np.float32)
    plan = Plan(start, noisy(0, 9), rounds=8, every=3, lr=0.4, mu=0.5)

    def run(comm: Any) -> Any:
        weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
        inner = torch.optim.SGD([weight], lr=plan.rate)
        opt = family.DelayedDiLoCo([weight], inner, comm, sync_every=plan.every, **plan.outer)
        steps = range(plan.rounds * plan.every)
        return [
            numbers(opt.outer)
            for _ in steps_of(opt, weight, plan, comm.rank, steps)
            if opt.last_sync.fresh
        ]

    twin, expected, sent = Twin(start, plan.lr, plan.mu), [], None
    for t in range(plan.rounds):
        thetas = [window(plan, m, t * plan.every, twin.phi) for m in range(3)]
        learned = mean_of([twin.phi - one for one in thetas])
        if sent is not None:
            twin.apply(sent)
        sent = learned
        expected.append((twin.phi, twin.momentum))
    for found in peers.run(3, run):
        same_bits(found, expected)


def check_bounds(family: Family, _: Peers) -> None:
    """A-2: what lies below its bound comes to the optimum, what lies above it goes away."""
    for lr, mu, nesterov, near, far in (
        (0.7, 0.9, True, 0.30, 0.42), (0.7, 0.5, True, 0.7, 0.9), (0.7, 0.0, True, 1.0, 1.5),
        (0.7, 0.9, False, 0.10, 0.17), (0.7, 0.5, False, 0.65, 0.78),
    ):  # fmt: skip
        for kappa, bounded in ((near, True), (far, False)):
            weight, opt = model_of(
                None, 1.0, family, outer_lr=lr, outer_momentum=mu, nesterov=nesterov,
                sync_every=1, allow_unstable=True,
            )  # fmt: skip
            for _ in range(400):
                # One inner step that closes the share kappa of the distance.
                weight.grad = weight.detach() * 2 * kappa
                opt.step()
                if not np.isfinite(opt.outer.params).all() or abs(opt.outer.params[0]) > 1e6:
                    break
            assert (abs(opt.outer.params[0]) < 1e-2) == bounded, (lr, mu, kappa)


def check_drained(family: Family, _: Peers) -> None:
    """What is on its way comes in, and what was learned since is kept."""
    weight, opt = model_of(None, 8.0, family, outer_momentum=0.0)
    train(weight, opt, 2, 0.0)
    assert not opt.last_sync.applied
    train(weight, opt, 1, 0.0)
    assert weight[0].item() == 4.0  # half of the way from phi
    report = opt.drain()
    assert report.applied
    assert opt.outer.params[0] == 8 - 0.5 * 6
    assert weight[0].item() == 5 - 4
    assert opt.drain().applied is False


CHECKS = [check_golden, check_numpy, check_bounds, check_drained]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_delayed(check: Any, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Any]]] = {
    "learned behind the step": (
        "delayed",
        "learned, sent = self._learned(), self._sent\n"
        "        report = self._finish(agree)\n",
        "sent = self._sent\n"
        "        report = self._finish(agree)\n        learned = self._learned()\n",
        [check_golden, check_numpy],
    ),
    "no delay": (
        "delayed", "        self._send(learned, self.weight)\n        return report",
        "        self._send(learned, self.weight)\n        report = self._finish('now')\n"
        "        self._send_nothing()\n        return report",
        [check_golden, check_numpy, check_bounds],
    ),
    "heavy ball": (
        "outer", "rate, factor, self._nesterov,", "rate, factor, False,",
        [check_golden, check_numpy, check_bounds],
    ),
    "Nesterov always": (
        "outer", "rate, factor, self._nesterov,", "rate, factor, True,", [check_bounds],
    ),
    "theta goes on from itself": (
        "delayed", "        self._write_outer()\n", "", [check_golden, check_numpy],
    ),
    "what was learned is dropped": (
        "delayed", "self._parameters.write(self.outer.cut(start))", "self._write_outer()",
        [check_drained],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, InvalidArgumentError)):
            check(mutant, peers)


# --- Others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "nesterov", "bound"),
    [
        (0.9, True, 0.253), (0.7, True, 0.419), (0.5, True, 0.562), (0.3, True, 0.718),
        (0.0, True, 1.0), (0.0, False, 1.0), (0.9, False, 0.1), (0.5, False, 0.5),
    ],
)  # fmt: skip
def test_bounds(momentum: float, nesterov: bool, bound: float) -> None:
    assert pyccl.optim.delayed_lr_max(momentum, nesterov) == pytest.approx(bound, abs=5e-4)


def test_what_would_diverge_is_refused() -> None:
    for options in ({"outer_lr": 0.7, "outer_momentum": 0.9}, {"outer_lr": 1.0}):
        given = {"outer_momentum": 0.0, **options}
        with pytest.raises(InvalidArgumentError, match="must be below"):
            model_of(None, 0.0, **given)
        model_of(None, 0.0, allow_unstable=True, **given)
    with pytest.raises(InvalidArgumentError, match=r"outer_momentum is 1\.0"):
        model_of(None, 0.0, outer_momentum=1.0)
    for name in ("outer_lr", "outer_momentum"):
        with pytest.raises(InvalidArgumentError, match=f"{name} is '0.5', but must be"):
            model_of(None, 0.0, **{name: "0.5"})
    opt = pyccl.optim.DelayedDiLoCo([torch.nn.Parameter(torch.ones(1))], torch.optim.SGD)
    assert (opt.outer_lr, opt.outer_momentum) == (pytest.approx(0.7), 0.0)


def test_a_newcomer_takes_part_in_what_is_under_way(peers: Peers) -> None:
    came = threading.Event()

    def windows(opt: Any, weight: Any) -> list[tuple[int, int, str]]:
        found = []
        while opt.outer.step < 9:
            train(weight, opt, 2, 1.0)
            found.append((opt.last_sync.step, opt.last_sync.contributors, opt.last_sync.hash))
        return found

    late: list[Any] = []

    def newcomer() -> None:
        with pyccl.connect(peers.address) as comm:
            weight, opt = model_of(comm, 77.0)
            came.set()
            assert weight[0].item() == opt.outer.params[0] != 77.0
            late.append(windows(opt, weight))
            opt.leave()

    thread = threading.Thread(target=newcomer, daemon=True)

    def run(comm: Any) -> Any:
        weight, opt = model_of(comm, 8.0)
        train(weight, opt, 4, 1.0)
        if comm.rank == 0:
            thread.start()
        while comm.world_size == 2:
            train(weight, opt, 2, 1.0)
            if opt.outer.step > 4:  # slowly: it has to come before the end
                came.wait(0.2)
        found = windows(opt, weight)
        opt.leave()
        return found

    one, other = peers.run(2, run)
    thread.join(LIMIT_SECONDS)
    assert one == other == late[0]
    # The step under way as it came is without it, and those of its own windows are with it.
    assert [count for _, count, _ in one] == [2] + [3] * (len(one) - 1)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_checkpoint(at: int) -> None:
    weight, opt = model_of(None, 8.0)
    train(weight, opt, 4 + at, 1.0)
    state, value = opt.state_dict(), weight.detach().clone()
    train(weight, opt, 5, 1.0)
    other, again = model_of(None, -3.0)
    with torch.no_grad():
        other.copy_(value)
    again.load_state_dict(state)
    train(other, again, 5, 1.0)
    assert torch.equal(other, weight)
    assert again.outer.hash() == opt.outer.hash()
