"""DiLoCo as an optimizer of torch, over real all-reduces: its identities.

They are functions of the modules under test, so that they can be tried on mutants of these. The
outer state is fp32. So what holds to 1e-12 in exact formulas is shown of their twin in fp64, the
twin in fp32 is held to the bits of the optimizer, and where a formula is compared with the
optimizer itself, the tolerance is some roundings of fp32.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .conftest import Peers
from .family import REAL, Family
from .training import (
    Array,
    Plan,
    Twin,
    bowl,
    noisy,
    same_bits,
    steps_of,
    torch_run,
    twin_run,
    whole,
    window,
)

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]

# What a handful of roundings of numbers of about 1 add up to in fp32.
FEW_ROUNDINGS = 2e-6


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def everywhere(family: Family, peers: Peers, plan: Plan, count: int, **options: Any) -> Any:
    """The history that all have in common; peer r has the data of r, or of order[r]."""
    order = options.pop("order", range(count))

    def train(comm: Any) -> Any:
        return torch_run(family, plan, comm, order[comm.rank], **options)

    histories = peers.run(count, train)
    for one in histories[1:]:
        same_bits(one, histories[0])
    return histories[0]


# --- Exact ----------------------------------------------------------------------------------------


def check_golden(family: Family, peers: Peers) -> None:  # D-G2
    plan = Plan(np.full(1, 8, np.float32), bowl(np.array([[0.0], [4.0]])), 3, 2, 0.5, 0.5, 0.5)
    expected = [(37 / 8, 9 / 2), (331 / 128, 135 / 32), (3541 / 2048, 1305 / 512)]
    found = everywhere(family, peers, plan, 2)
    assert [(float(phi[0]), float(buf[0])) for phi, buf in found] == expected


def check_windows(family: Family, peers: Peers) -> None:
    """With H = 1 an outer step is at the end of the first step, and of each."""
    for every in (1, 3):
        weight = torch.nn.Parameter(torch.ones(2))
        opt = family.DiLoCo([weight], torch.optim.SGD([weight], lr=0.5), sync_every=every)
        plan = Plan(np.ones(2, np.float32), whole(0, 2))
        for step in steps_of(opt, weight, plan, 0, range(7)):
            assert opt.last_sync.fresh == ((step + 1) % every == 0)
            assert opt.last_sync.step == opt.outer.step == (step + 1) // every
            assert opt.inner_steps == (step + 1) % every
            # An outer step leaves the model where phi is.
            assert torch.equal(weight.detach(), torch.from_numpy(opt.outer.params)) == (
                opt.last_sync.fresh
            )


def check_synchronous_sgd(family: Family, peers: Peers) -> None:  # D-1
    for count in (2, 4):
        start = np.random.default_rng(count).integers(-8, 8, 5).astype(np.float32)
        plan = Plan(start, whole(count, 5), rounds=6, every=1, lr=1, mu=0)
        found = everywhere(family, peers, plan, count)
        x = start
        for t in range(plan.rounds):
            gradients = [plan.gradient(m, t, x) for m in range(count)]
            x = x - np.float32(0.25) * (sum(gradients[1:], gradients[0]) / np.float32(count))
            assert found[t][0].tolist() == x.tolist()
        assert len(found) == plan.rounds

    plan = Plan(normal(1, 40), noisy(1, 40), rounds=50, every=1, rate=0.1, lr=1, mu=0)
    found = everywhere(family, peers, plan, 3)
    exact = plan.start.astype(np.float64)
    for t in range(plan.rounds):
        exact = exact - 0.1 * np.mean([plan.gradient(m, t, exact) for m in range(3)], axis=0)
    assert np.abs(found[-1][0] - exact).max() < 5e-7


def check_inner_alone(family: Family, peers: Peers) -> None:  # D-2
    """Bits, for phi - (phi - theta) is theta where theta is within a factor of 2 of phi."""
    plan = Plan(normal(2, 30) % 1 + 1, noisy(2, 30), rounds=5, every=3, lr=1, mu=0)

    def adam(given: Any) -> Any:
        return torch.optim.AdamW(given, lr=0.01)

    weight = torch.nn.Parameter(torch.from_numpy(plan.start.copy()))
    alone = adam([weight])
    expected = []
    for step in steps_of(_Told(alone), weight, plan, 0, range(15)):
        if step % 3 == 2:
            expected.append(weight.detach().numpy().copy())
    runs = [torch_run(family, plan, None, inner=adam)]
    runs += peers.run(1, lambda comm: torch_run(family, plan, comm, inner=adam))
    for found in runs:
        assert [phi.tolist() for phi, _ in found] == [one.tolist() for one in expected]
    # Elsewhere a rounding of each of both differences.
    far = Plan(normal(2, 500), noisy(2, 500), rounds=1, every=3, lr=1, mu=0)
    ((phi, _),) = torch_run(family, far, None)
    theta = window(far, 0, 0, far.start)
    units = np.spacing(np.maximum(np.abs(far.start), np.abs(theta)))
    assert (phi != theta).any()
    assert (np.abs(phi - theta) <= units).all()


class _Told:
    """An optimizer without anything around it, for steps_of()."""

    def __init__(self, optimizer: Any) -> None:
        self.step = optimizer.step


def check_lookahead(family: Family, peers: Peers) -> None:  # D-3
    """Bits: the negative of a difference, and what is added for it, round alike."""
    for a in (0.5, 0.3):
        plan = Plan(normal(3, 33), noisy(3, 33), rounds=6, every=4, lr=a, mu=0)
        slow = plan.start
        for t, (phi, _) in enumerate(torch_run(family, plan, None)):
            slow = slow + np.float32(a) * (window(plan, 0, 4 * t, slow) - slow)
            np.testing.assert_array_equal(phi, slow)
        assert t == 5


def check_snoo(family: Family, peers: Peers) -> None:  # D-4
    for nesterov in (True, False):
        plan = Plan(normal(4, 33), noisy(4, 33), rounds=8, every=3, nesterov=nesterov)
        same_bits(torch_run(family, plan, None), twin_run(plan, [0]))


def check_local_sgd(family: Family, peers: Peers) -> None:  # D-5
    start = np.random.default_rng(5).integers(-8, 8, (2, 3)).astype(np.float32)
    plan = Plan(start, whole(5, 6), rounds=3, every=2, lr=1, mu=0)
    x = start
    for t, (phi, _) in enumerate(everywhere(family, peers, plan, 4)):
        thetas = [window(plan, m, 2 * t, x) for m in range(4)]
        x = sum(thetas[1:], thetas[0]) / np.float32(4)
        assert phi.tolist() == x.ravel().tolist()
    assert t == 2
    wide = plan._replace(rate=0.07, gradient=noisy(5, 6), rounds=20)
    exact = start.astype(np.float64)
    for t, (phi, _) in enumerate(twin_run(wide, range(3), np.float64)):
        exact = np.mean([window(wide, m, 2 * t, exact) for m in range(3)], axis=0)
        assert np.abs(phi - exact).max() < 1e-12


def check_alike(family: Family, peers: Peers) -> None:  # D-6
    plan = Plan(normal(6, 21), noisy(6, 21), rounds=5, every=2)
    alone = torch_run(family, plan, None)
    for count in (2, 4):
        same_bits(everywhere(family, peers, plan, count, order=[0] * count), alone)


def check_order(family: Family, peers: Peers) -> None:  # D-10
    """Which peer has which data does not matter: at all, if no sum is rounded."""
    plan = Plan(np.zeros(4, np.float32), whole(7, 4), rounds=3, every=2, lr=0.5, mu=0.5)
    expected = everywhere(family, peers, plan, 4)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        same_bits(everywhere(family, peers, plan, 4, order=order), expected)
    plan = Plan(normal(7, 50), noisy(7, 50), rounds=6)
    for order in ([2, 1, 0], [1, 2, 0]):
        moved = everywhere(family, peers, plan, 3, order=order)[-1][0]
        assert np.abs(moved - twin_run(plan, range(3))[-1][0]).max() < FEW_ROUNDINGS
        wide = [twin_run(plan, one, np.float64)[-1][0] for one in (range(3), order)]
        assert np.abs(wide[0] - wide[1]).max() < 1e-12


def check_script(family: Family, peers: Peers) -> None:  # D-11
    """A loop without wrappers: all of it in numpy, and with AdamW around a numpy outer step."""
    plan = Plan(normal(8, 7, 9), noisy(8, 63), rounds=5, every=3, rate=0.125)
    for count in (2, 3):
        same_bits(everywhere(family, peers, plan, count), twin_run(plan, range(count)))

    def adam(given: Any) -> Any:
        return torch.optim.AdamW(given, lr=0.02, weight_decay=0.1)

    twin, expected = Twin(plan.start, plan.lr, plan.mu), []
    weights = [torch.nn.Parameter(torch.from_numpy(plan.start.copy())) for _ in range(3)]
    inner = [adam([one]) for one in weights]
    for t in range(plan.rounds):
        for m, (one, opt) in enumerate(zip(weights, inner, strict=True)):
            for _ in steps_of(_Told(opt), one, plan, m, range(3 * t, 3 * t + 3)):
                pass
        twin.meet([one.detach().numpy() for one in weights])
        expected.append((twin.phi, twin.momentum))
        with torch.no_grad():
            for one in weights:
                one.copy_(torch.from_numpy(twin.phi))
    same_bits(everywhere(family, peers, plan, 3, inner=adam), expected)


def check_nothing_learned(family: Family, peers: Peers) -> None:  # D-9
    """phi stays what it is for ever, also where the model can't hold it."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        weight = torch.nn.Parameter(torch.zeros(101, dtype=dtype))
        opt = family.DiLoCo([weight], torch.optim.SGD([weight], lr=0.0), sync_every=2)
        state = opt.outer.export()
        opt.outer.import_({**state, "params": normal(9, 101)})
        with opt.outer_params():
            rounded = weight.detach().clone()
        assert torch.equal(rounded, torch.from_numpy(normal(9, 101)).to(dtype))
        with torch.no_grad():
            weight.copy_(rounded)
        for _ in range(6):
            weight.grad = torch.ones_like(weight)
            opt.step()
        assert opt.outer.step == 3
        assert opt.outer.params.tobytes() == normal(9, 101).tobytes()
        assert not opt.outer.momentum.any()
        assert torch.equal(weight.detach(), rounded)


def check_narrow_progress(family: Family, peers: Peers) -> None:
    """What a narrow model learns is added to phi, which keeps the bits that the model has not."""
    for dtype in (torch.bfloat16, torch.float16):
        weight = torch.nn.Parameter(torch.ones(1, dtype=dtype))
        opt = family.DiLoCo(
            [weight], torch.optim.SGD([weight], lr=0.5), sync_every=1, outer_lr=2**-9,
            outer_momentum=0,
        )  # fmt: skip
        for count in range(1, 9):
            weight.grad = -torch.ones(1, dtype=dtype)
            opt.step()
            assert float(opt.outer.params[0]) == 1 + count * 2.0**-10
            assert float(weight.detach()) == float(torch.tensor(1 + count * 2.0**-10).to(dtype))


# --- Formulas -------------------------------------------------------------------------------------


def check_closed_form(family: Family, peers: Peers) -> None:  # D-7
    """Half a square around each peer's minimum: a recurrence of two numbers by coordinate."""
    minima = np.random.default_rng(10).standard_normal((3, 4))
    plan = Plan(normal(10, 4), bowl(minima), rounds=30, every=20, rate=0.05)
    kappa = 1 - (1 - 0.05) ** 20
    x, buf = plan.start.astype(np.float64) - minima.mean(0), np.zeros(4)
    exact = []
    for _ in range(plan.rounds):
        buf = 0.9 * buf + kappa * x
        x = x - 0.7 * (kappa * x + 0.9 * buf)
        exact.append(x + minima.mean(0))
    twin = [phi for phi, _ in twin_run(plan, range(3), np.float64)]
    assert np.abs(np.array(twin) - exact).max() < 1e-12
    found = [phi for phi, _ in everywhere(family, peers, plan, 3)]
    # Steps of 20 roundings, whose errors the recurrence keeps for about 10 rounds.
    assert np.abs(np.array(found) - exact).max() < 10 * FEW_ROUNDINGS


def check_fixed_point(family: Family, peers: Peers) -> None:  # D-8
    """Unlike curvatures: longer windows end elsewhere than at the minimum of the whole."""
    curvature, minima = np.array([0.2, 0.5, 1, 4]), np.array([[1.0], [-2], [3], [0.5]])
    for every, rounds, expected in ((20, 250, 0.8175314670649378), (1, 900, 0.7368421052631579)):
        start = np.zeros(1, np.float32)
        plan = Plan(start, bowl(minima, curvature), rounds, every, rate=0.05)
        learned = 1 - (1 - 0.05 * curvature) ** every
        assert learned @ minima[:, 0] / learned.sum() == pytest.approx(expected, abs=1e-12)
        assert twin_run(plan, range(4), np.float64)[-1][0][0] == pytest.approx(expected, abs=1e-9)
        # fp32 is there sooner.
        short = plan._replace(rounds=60 if every > 1 else 300)
        found = everywhere(family, peers, short, 4)[-1][0][0]
        assert found == pytest.approx(expected, abs=5 * FEW_ROUNDINGS)


# --- Keeping and resuming -------------------------------------------------------------------------


def check_resumed(family: Family, peers: Peers) -> None:  # D-12
    """Saved in the middle of a window and loaded elsewhere, it is what it would have been."""
    plan = Plan(normal(11, 6, 11), noisy(11, 66), every=4)
    for options in ({}, {"quantization": "int8", "error_feedback": True}):

        def whole_run(comm: Any, options: dict[str, Any] = options) -> Any:
            model, opt = trained(family, plan.start, comm, **options)
            for _ in steps_of(opt, model.weight, plan, comm.rank, range(17)):
                pass
            return all_of(model, opt)

        def first_half(comm: Any, options: dict[str, Any] = options) -> Any:
            model, opt = trained(family, plan.start, comm, **options)
            for _ in steps_of(opt, model.weight, plan, comm.rank, range(10)):
                pass
            file = io.BytesIO()
            torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
            for _ in steps_of(opt, model.weight, plan, comm.rank, range(10, 14)):
                pass  # what was saved are copies
            return file.getvalue()

        saved: list[bytes] = []

        def second_half(comm: Any, options: Any = options, saved: Any = saved) -> Any:
            # Another start, and other rates: all that counts is loaded.
            model, opt = trained(family, 0 * plan.start, comm, 0.5, outer_lr=0.1, **options)
            kept = torch.load(io.BytesIO(saved[comm.rank]), weights_only=False)
            model.load_state_dict(kept["model"])
            opt.load_state_dict(kept["opt"])
            assert (opt.inner_steps, opt.outer.step) == (2, 2)
            for _ in steps_of(opt, model.weight, plan, comm.rank, range(10, 17)):
                pass
            return all_of(model, opt)

        expected = peers.run(2, whole_run)
        saved += peers.run(2, first_half)
        found = peers.run(2, second_half)
        assert found == expected
        assert found[0][0] != found[1][0]  # inside a window
        assert found[0][1:4] == found[1][1:4]
        assert all(bool(one[-1]) == bool(options) for one in found)


def trained(
    family: Family, start: Array, comm: Any, rate: float = 0.01, **options: Any
) -> tuple[Any, Any]:
    model = torch.nn.Linear(start.shape[1], start.shape[0], bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(start))
    inner = torch.optim.AdamW(model.parameters(), lr=rate)
    return model, family.DiLoCo(model.named_parameters(), inner, comm, sync_every=4, **options)


def all_of(model: Any, opt: Any) -> list[Any]:
    """The bits of everything: theta and what belongs to a peer, then what all have alike."""
    moments = [one["exp_avg"].numpy().tobytes() for one in opt.inner.state.values()]
    state = opt.state_dict()["outer"]
    residuals = [one.numpy().tobytes() for one in state.get("residuals", {}).get(0, [])]
    vectors = opt.outer.params.tobytes(), opt.outer.momentum.tobytes()
    theta = model.weight.detach().numpy().tobytes()
    return [theta, *vectors, opt.outer.hash(), opt.outer.step, opt.inner_steps, moments, residuals]


CHECKS: list[Check] = [
    check_golden, check_windows, check_synchronous_sgd, check_inner_alone, check_lookahead,
    check_snoo, check_local_sgd, check_alike, check_order, check_script, check_nothing_learned,
    check_narrow_progress, check_closed_form, check_fixed_point, check_resumed,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_identity(check: Check, peers: Peers) -> None:
    check(REAL, peers)
