"""CO2: its identities, what penalty and bound do, and what it refuses."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError
from pyccl.optim.layout import norm

from .conftest import Peers
from .family import REAL, Family
from .training import (
    Array,
    History,
    Plan,
    Twin,
    mean_of,
    noisy,
    numbers,
    same_bits,
    steps_of,
    whole,
    window,
)  # fmt: skip

torch = pytest.importorskip("torch")

START = np.random.default_rng(0).standard_normal(12).astype(np.float32)
PLAN = Plan(START, noisy(0, 12), rounds=6, lr=0.5, mu=0.25)


def row(*values: float) -> Array:
    return np.array(values, np.float32)


def model_of(make: Any, comm: Any, plan: Plan, **options: Any) -> tuple[Any, Any]:
    weight = torch.nn.Parameter(torch.from_numpy(plan.start.copy()))
    given = {"sync_every": plan.every, "outer_lr": plan.lr, "outer_momentum": plan.mu, **options}
    return weight, make([weight], torch.optim.SGD([weight], lr=plan.rate), comm, **given)


def history_of(make: Any, comm: Any, plan: Plan, **options: Any) -> History:
    weight, opt = model_of(make, comm, plan, **options)
    rank = 0 if comm is None else comm.rank
    return [
        numbers(opt.outer)
        for _ in steps_of(opt, weight, plan, rank, range(plan.rounds * plan.every))
        if opt.last_sync.fresh
    ]


class CO2Twin(Twin):
    def __init__(self, plan: Plan, penalty: Any = 1.0, clip: float = math.inf) -> None:
        super().__init__(plan.start, plan.lr, plan.mu, nesterov=False)
        self.penalty = penalty if callable(penalty) else lambda *_: penalty
        self.clip = np.float32(clip)
        self.gap = 0.0

    def apply(self, mean: Array) -> None:
        lr, mu = self.rates
        penalty = np.float32(self.penalty(self.gap, length(mean)))
        kept = mu * self.momentum
        self.momentum = np.clip(kept + mean / penalty, -self.clip, self.clip)
        self.phi = self.phi - lr * self.momentum
        self.gap = float(lr) * length(self.momentum)


def length(vector: Array) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for x in vector))


def late(twin: Any, plan: Plan, peers: int) -> History:
    """Each mean one window behind its time."""
    history, sent = [], None
    for t in range(plan.rounds):
        thetas = [window(plan, m, t * plan.every, twin.phi) for m in range(peers)]
        deltas = [twin.phi - theta for theta in thetas]
        if sent is not None:
            twin.apply(mean_of(sent))
        sent = deltas
        history.append((twin.phi, twin.momentum))
    return history


# --- Checks ---------------------------------------------------------------------------------------


def check_delayed_local_sgd(family: Family, peers: Peers) -> None:  # C-1
    """Of whole numbers, so that means of parameters, and not of differences, are exact too."""
    plan = Plan(np.zeros(12, np.float32), whole(1, 12), rounds=4, lr=1.0, mu=0.0)
    places, before = [plan.start], None
    for t in range(4):
        here = places[-1]
        found = mean_of([window(plan, m, 2 * t, here) for m in range(2)])
        places.append(here if before is None else here - (before[0] - before[1]))
        before = here, found

    def run(comm: Any) -> Any:
        return [phi for phi, _ in history_of(family.CO2, comm, plan, allow_unstable=True)]

    for history in peers.run(2, run):
        np.testing.assert_array_equal(history, places[1:])


def check_heavy_ball(family: Family, peers: Peers) -> None:  # C-1
    """Without penalty and bound it is DelayedDiLoCo with heavy ball; a bound far away is none."""

    def run(comm: Any) -> Any:
        expected = history_of(family.DelayedDiLoCo, comm, PLAN, nesterov=False)
        for clip in (None, 1e30):
            same_bits(history_of(family.CO2, None, PLAN, clip=clip), alone)
        return expected

    alone = history_of(family.DelayedDiLoCo, None, PLAN, nesterov=False)
    expected = peers.run(2, run)
    found = peers.run(2, lambda comm: history_of(family.CO2, comm, PLAN))
    for one, other in zip(found, expected, strict=True):
        same_bits(one, other)
    same_bits(found[0], late(Twin(START, PLAN.lr, PLAN.mu, nesterov=False), PLAN, 2))


def check_twin(family: Family, peers: Peers) -> None:
    """Penalties and a bound that is felt, bit for bit."""
    adaptive = family.module("staleness").adaptive_penalty
    for penalty, clip in ((1.5, 0.3), (adaptive, 0.3), (adaptive, None)):
        twin = CO2Twin(
            PLAN, ours if callable(penalty) else penalty, math.inf if clip is None else clip
        )
        expected = late(twin, PLAN, 2)
        if clip is not None:
            assert any((np.abs(momentum) == np.float32(clip)).any() for _, momentum in expected)

        def run(comm: Any, penalty: Any = penalty, clip: Any = clip) -> History:
            return history_of(family.CO2, comm, PLAN, gap_penalty=penalty, clip=clip)

        for history in peers.run(2, run):
            same_bits(history, expected)


def ours(gap: float, distance: float) -> float:
    return 1 + gap / (distance + 1e-12)


def check_clip(family: Family, _: Peers) -> None:
    """The golden one; what the bound takes is gone."""
    state = family.module("staleness").CO2State(
        ["w"], [np.zeros(3, np.float32)], lr=1.0, mu=0.5, clip=1.0
    )
    state.apply(row(2, -3, 0.5))
    assert state.momentum.tolist() == [1, -1, 0.5]
    assert state.params.tolist() == [-1, 1, -0.5]
    state.apply(row(0, -3, 0))
    assert state.momentum.tolist() == [0.5, -1, 0.25]
    assert state.params.tolist() == [-1.5, 2, -0.75]


def check_frozen(family: Family, _: Peers) -> None:
    for penalty in (3e38, math.inf, lambda gap, distance: math.inf):
        for phi, momentum in history_of(family.CO2, None, PLAN, gap_penalty=penalty):
            assert phi.tobytes() == START.tobytes()
            assert np.abs(momentum).max() < 1e-37


def check_staler_counts_less(family: Family, _: Peers) -> None:
    """The further phi has gone meanwhile, the less a mean counts; and never more than it is."""
    penalty = family.module("staleness").adaptive_penalty
    for distance in (0.0, 1e-30, 0.5, 1.0, 1e30):
        found = [penalty(gap, distance) for gap in (0.0, 1e-3, 0.1, 1.0, 3.0, 1e6)]
        assert found[0] == 1
        assert found == sorted(found)
    assert penalty(1.0, 1.0) == pytest.approx(2)

    moves = []
    for first in (0.0, 0.5, 1.0, 4.0):
        state = family.module("staleness").CO2State(
            ["w"], [row(0, 0)], lr=0.5, mu=0.0, gap_penalty=penalty
        )
        state.apply(row(first, 0))
        assert state.gap == 0.5 * first
        before = state.params[1]
        state.apply(row(0, 1))
        moves.append(float(before - state.params[1]))
    assert moves == sorted(moves, reverse=True)
    assert moves == pytest.approx([0.5, 0.5 / 1.25, 0.5 / 1.5, 0.5 / 3])


def check_bounds(family: Family, _: Peers) -> None:
    """Heavy ball flips where lr kappa / Lambda is 1 - mu."""
    for lr, mu, penalty in ((1.0, 0.5, 1.0), (2.0, 0.5, 2.0), (0.8, 0.2, 1.0)):
        flip = (1 - mu) * penalty / lr
        for kappa, bounded in ((0.8 * flip, True), (1.2 * flip, False)):
            plan = Plan(np.ones(1, np.float32), lambda _, __, x: x, rounds=150, every=1,
                        rate=kappa, lr=lr, mu=mu)  # fmt: skip
            with np.errstate(over="ignore"):
                history = history_of(
                    family.CO2, None, plan, gap_penalty=penalty, allow_unstable=True
                )
            last = abs(float(history[-1][0][0]))
            assert (last < 1e-2) == bounded, (lr, mu, penalty, kappa)


def check_refused(family: Family, _: Peers) -> None:
    def made(**options: Any) -> Any:
        return model_of(family.CO2, None, PLAN, **options)[1]

    opt = family.CO2([torch.nn.Parameter(torch.ones(1))], torch.optim.SGD)
    assert opt.outer_lr < 1 - opt.outer_momentum
    for lr, mu, penalty in ((1.0, 0.5, 1.0), (1.0, 0.2, 1.0), (1.0, 0.5, 2.0), (0.9, 0.2, ours)):
        options = {"outer_lr": lr, "outer_momentum": mu, "gap_penalty": penalty}
        with pytest.raises(InvalidArgumentError, match="must be below"):
            made(**options)
        made(**options, allow_unstable=True)
    made(outer_lr=1.0, outer_momentum=0.5, gap_penalty=2.1)
    for penalty in (0.99, 0.0, -1.0, math.nan, "2"):
        for unstable in (False, True):
            with pytest.raises(InvalidArgumentError, match="gap_penalty"):
                made(gap_penalty=penalty, allow_unstable=unstable)
    for clip in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidArgumentError, match="clip"):
            made(clip=clip)
    state = family.module("staleness").CO2State(
        ["w"], [row(1)], gap_penalty=lambda gap, distance: 0.5
    )
    before = state.hash()
    with pytest.raises(InvalidArgumentError, match=r"gap_penalty is 0\.5"):
        state.apply(row(1))
    assert state.hash() == before


def check_resumed(family: Family, _: Peers) -> None:  # D-12
    for at in (1, 2, 3, 4):
        plan = PLAN._replace(every=3)
        options = {"gap_penalty": ours, "clip": 0.3}
        weight, opt = model_of(family.CO2, None, plan, **options)
        for _step in steps_of(opt, weight, plan, 0, range(6 + at)):
            pass
        assert opt.outer.gap > 0
        file = io.BytesIO()
        torch.save((weight.detach().clone(), opt.state_dict()), file)
        other, again = model_of(family.CO2, None, plan._replace(start=START + 1), **options)
        file.seek(0)
        value, state = torch.load(file)
        with torch.no_grad():
            other.copy_(value)
        again.load_state_dict(state)
        for one, its in ((weight, opt), (other, again)):
            for _step in steps_of(its, one, plan, 0, range(6 + at, 18)):
                pass
        assert torch.equal(other, weight)
        assert again.outer.hash() == opt.outer.hash()


CHECKS = [
    check_delayed_local_sgd, check_heavy_ball, check_twin, check_clip, check_frozen,
    check_staler_counts_less, check_bounds, check_refused, check_resumed,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_co2(check: Any, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Any]]] = {
    "clip no-op": (
        "staleness", "part, penalty, limit)", "part, penalty)", [check_clip, check_twin],
    ),
    "penalty multiplied": (
        "staleness", "part, penalty, limit)", "part, 1.0 / penalty, limit)",
        [check_twin, check_frozen, check_staler_counts_less, check_bounds],
    ),
    "no penalty": (
        "staleness", "part, penalty, limit)", "part, 1.0, limit)", [check_twin, check_frozen],
    ),
    "staleness exponent sign": (
        "staleness", "return 1.0 + gap / (distance + _TINY)",
        "return 1.0 / (1.0 + gap / (distance + _TINY))",
        [check_staler_counts_less],
    ),
    "what is near counts less": (
        "staleness", "gap / (distance + _TINY)", "distance / (gap + _TINY)",
        [check_staler_counts_less, check_twin],
    ),
    "Nesterov": (
        "staleness", "nesterov=False, extra=", "nesterov=True, extra=",
        [check_heavy_ball, check_twin, check_clip],
    ),
    "gap without the rate": (
        "staleness", "self._gap[...] = self.lr * norm", "self._gap[...] = norm",
        [check_twin, check_staler_counts_less],
    ),
    "gap stays at home": (
        "staleness", 'extra["gap"] = self._gap', 'extra["gap"] = self._gap.copy()',
        [check_resumed],
    ),
    "any penalty": (
        "staleness", "float(value) >= 1.0", "float(value) > 0.0", [check_refused],
    ),
    "bound without the penalty": (
        "delayed", "penalty * delayed_lr_max(", "delayed_lr_max(", [check_refused],
    ),
    "bound of Nesterov": (
        "co2", "mu, nesterov=False, penalty", "mu, nesterov=True, penalty",
        [check_refused],
    ),
    "no delay": (
        "delayed", "        self._send(learned, self.weight)\n        return report",
        "        self._send(learned, self.weight)\n        report = self._finish('now')\n"
        "        self._send_nothing()\n        return report",
        [check_delayed_local_sgd, check_bounds, check_twin],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception, InvalidArgumentError)):
            check(mutant, peers)


# --- Others ---------------------------------------------------------------------------------------


def test_peers_of_other_penalties_are_told_so(peers: Peers) -> None:
    """One of a function can't go with one of a number; of two numbers all have one."""

    def run(comm: Any) -> Any:
        rank = comm.rank
        with pytest.raises(pyccl.StateSyncError):
            model_of(REAL.CO2, comm, PLAN, gap_penalty=1.0 if rank else ours)
        return True

    assert peers.run(2, run) == [True] * 2


def test_norms_have_the_same_bits_everywhere() -> None:
    """Sums in an order of ours, whatever the size: as close as can be, and as written here."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 1000, (1 << 16) - 1, (1 << 16) + 1, 200_001):
        vector = (rng.standard_normal(size) * 10.0 ** rng.integers(-9, 9, size)).astype(np.float32)
        assert norm(vector) == pytest.approx(length(vector), rel=1e-14)
    # The last one to the first one, and then the middle; from left to right it would be 1.
    assert norm(row(3 * 2.0**-28, 3 * 2.0**-28, 1)) == 1 + 2.0**-52
    assert math.isinf(norm(row(1, math.inf)))
    assert math.isnan(norm(row(1, math.nan)))
