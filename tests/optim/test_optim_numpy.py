"""DiLoCo for arrays by name: the bits of the one for torch, without torch.

The checks are functions of the modules under test, so that they can be tried on mutants.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim.numpy import DiLoCo

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .training import (
    Plan,
    Twin,
    array_run,
    bowl,
    noisy,
    numbers,
    same_bits,
    torch_run,
    twin_run,
    whole,
    window,
)

Check = Callable[[Family, Peers], None]

START = np.random.default_rng(20).standard_normal((5, 7)).astype(np.float32)
PLAN = Plan(START, noisy(20, 35), rounds=5, every=3)


# --- Checks ---------------------------------------------------------------------------------------


def check_golden(family: Family, peers: Peers) -> None:  # D-G2
    plan = Plan(np.full(1, 8, np.float32), bowl(np.array([[0.0], [4.0]])), 3, 2, 0.5, 0.5, 0.5)
    expected = [(37 / 8, 9 / 2), (331 / 128, 135 / 32), (3541 / 2048, 1305 / 512)]
    for found in peers.run(2, lambda comm: array_run(family, plan, comm, comm.rank)):
        assert [(float(phi[0]), float(buf[0])) for phi, buf in found] == expected


def check_bits(family: Family, peers: Peers) -> None:
    for count in (1, 2, 3):
        for found in peers.run(count, lambda comm: array_run(family, PLAN, comm, comm.rank)):
            same_bits(found, twin_run(PLAN, range(count)))
    for nesterov in (True, False):
        plan = PLAN._replace(nesterov=nesterov, lr=0.4, mu=0.3)
        same_bits(array_run(family, plan, None), twin_run(plan, [0]))


def check_step(family: Family, peers: Peers) -> None:
    """Windows that end by themselves: with H = 1 at the first step, and at each."""
    for every in (1, 3):
        plan = PLAN._replace(every=every)
        theta = {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, sync_every=every)
        outer.begin_window(theta)
        history = []
        for step in range(plan.rounds * every):
            theta["w"][...] = window(plan, 0, step, theta["w"], 1)
            report = outer.step(theta)
            assert report is outer.last_sync
            assert report.fresh == ((step + 1) % every == 0)
            assert outer.steps == (step + 1) // every
            if report.fresh:
                history.append(numbers(outer.state))
                assert theta["w"].tolist() == outer.outer_params["w"].tolist()
        same_bits(history, twin_run(plan, [0]))


def check_nothing_learned(family: Family, peers: Peers) -> None:  # D-9
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        theta = {"w": np.zeros((5, 7), dtype)}
        outer = family.ArrayDiLoCo(theta, sync_every=1)
        outer.state.import_({**outer.state.export(), "params": START.ravel()})
        outer.begin_window(theta)
        np.testing.assert_array_equal(theta["w"], START.astype(dtype))
        for _ in range(4):
            assert outer.step(theta).applied
        assert outer.steps == 4
        assert outer.state.params.tobytes() == START.tobytes()


def check_not_applied(family: Family, peers: Peers) -> None:
    """What was learned stays in the arrays, and the next outer step has it all."""
    twin = Twin(START, 0.7, 0.9)
    twin.meet([window(PLAN, m, 0, START, 6) for m in range(2)])

    def train(comm: Any) -> Any:
        rank, theta = comm.rank, {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, comm, sync_every=3)
        outer.begin_window(theta)
        for step in range(6):
            theta["w"][...] = window(PLAN, rank, step, theta["w"], 1)
            before = theta["w"].copy()
            # Nobody contributes: the step does not come about, and tells why.
            outer.weight = float(step > 2)
            report = outer.step(theta)
            if step == 2:
                assert (report.fresh, report.applied, report.step) == (True, False, 0)
                assert report.reason
                assert theta["w"].tolist() == before.tolist()
        assert report.applied
        return numbers(outer.state)

    same_bits(peers.run(2, train), [(twin.phi, twin.momentum)] * 2)


def check_weights(family: Family, peers: Peers) -> None:
    twin = Twin(START, 0.7, 0.9)
    twin.meet([window(PLAN, m, 0, START) for m in range(3)], [1, 2, 4])

    def train(comm: Any) -> Any:
        rank, theta = comm.rank, {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, comm)
        outer.begin_window(theta)
        theta["w"] = window(PLAN, rank, 0, theta["w"])  # a new array, as those of others are
        outer.weight = 2.0**rank
        assert outer.end_window(theta).weight_sum == 7
        return numbers(outer.state)

    same_bits(peers.run(3, train), [(twin.phi, twin.momentum)] * 3)


def check_not_finite(family: Family, peers: Peers) -> None:
    twin = Twin(START, 0.7, 0.9)
    twin.meet([window(PLAN, 0, 0, START)])

    def train(comm: Any) -> Any:
        rank, theta = comm.rank, {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, comm)
        outer.begin_window(theta)
        theta["w"][...] = window(PLAN, rank, 0, theta["w"])
        if rank == 1:
            theta["w"][0, 0] = np.inf
        report = outer.end_window(theta)
        assert (report.contributors, report.members) == (1, 2)
        outer.begin_window(theta)
        assert theta["w"].tolist() == outer.outer_params["w"].tolist()
        return numbers(outer.state)

    same_bits(peers.run(2, train), [(twin.phi, twin.momentum)] * 2)


def check_too_few(family: Family, peers: Peers) -> None:
    def train(comm: Any) -> None:
        theta = {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, comm, min_peers=2)
        report = outer.end_window({"w": START + 1})
        assert not report.applied
        assert "1 peers of the 2" in report.reason
        assert outer.outer_params["w"].tolist() == START.tolist()

    peers.run(1, train)


def check_lost(family: Family, peers: Peers) -> None:
    """With deltas of 1, 2, 3 and 4 and the last peer gone the mean is 2, and not 1.5."""

    def train(comm: Any) -> Any:
        rank, theta = comm.rank, {"w": np.zeros(3, np.float32)}
        outer = family.ArrayDiLoCo(theta, comm, outer_lr=1, outer_momentum=0)
        if rank == 3:
            comm.close()
            return None
        report = outer.end_window({"w": np.full(3, -1 - rank, np.float32)})
        assert (report.contributors, report.members, report.weight_sum) == (3, 3, 3)
        return outer.outer_params["w"].tolist()

    assert peers.run(4, train) == [[-2.0] * 3] * 3 + [None]


def check_joiner(family: Family, peers: Peers) -> None:
    """It has phi, momentum, rates and count of the others, whatever it has brought."""
    late: list[Any] = []

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            theta = {"w": np.full_like(START, 9)}
            outer = family.ArrayDiLoCo(theta, comm, outer_lr=0.1, outer_momentum=0.2)
            late.append(all_of(outer))

    def all_of(outer: Any) -> tuple[Any, ...]:
        phi, momentum = numbers(outer.state)
        return phi.tolist(), momentum.tolist(), outer.state.lr, outer.state.mu, outer.steps

    def train(comm: Any) -> Any:
        rank, theta = comm.rank, {"w": START.copy()}
        outer = family.ArrayDiLoCo(theta, comm)
        thread = threading.Thread(target=newcomer, daemon=True)
        deadline, t = time.monotonic() + LIMIT_SECONDS, 0
        # The sync of the step that tells of somebody behind has admitted the newcomer.
        while not any(not one.drifted for one in outer.last_sync.behind):
            assert time.monotonic() < deadline
            outer.begin_window(theta)
            theta["w"][...] = window(PLAN, rank, 3 * t, theta["w"])
            outer.end_window(theta)
            t += 1
            if t == 1 and rank == 0:
                thread.start()
        if rank == 0:
            thread.join(LIMIT_SECONDS)
        return all_of(outer)

    first, second = peers.run(2, train)
    assert first == second == late[0]
    assert any(first[1])
    assert first[2:4] == (float(np.float32(0.7)), float(np.float32(0.9)))
    twin = Twin(START, 0.7, 0.9)
    for t in range(first[4]):
        twin.meet([window(PLAN, m, 3 * t, twin.phi) for m in range(2)])
    assert first[0] == twin.phi.ravel().tolist()


CHECKS: list[Check] = [
    check_golden, check_bits, check_step, check_nothing_learned, check_not_applied, check_weights,
    check_not_finite, check_too_few, check_lost, check_joiner,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_arrays(check: Check, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    "sign": (
        "outer",
        "np.subtract(start, target, out=target)",
        "np.subtract(target, start, out=target)",
        [check_golden, check_bits, check_step],
    ),
    "heavy ball": (
        "outer",
        "rate, factor, self._nesterov,",
        "rate, factor, False,",
        [check_golden, check_bits],
    ),
    "H + 1": (
        "numpy", "self._inner_steps >= self._sync_every", "self._inner_steps > self._sync_every",
        [check_step],
    ),
    "window without phi": (
        "numpy", "self.state.write(self._in_order(arrays))\n", "pass\n",
        [check_golden, check_nothing_learned, check_not_finite],
    ),
    "what was not applied is lost": (
        "numpy", "if self.steps != before:", "if True:", [check_not_applied],
    ),
    "weights of 1": ("numpy", "run(delta, self.weight)", "run(delta)", [check_weights]),
    "half of the mean": (
        "rounds", "return pending.values\n", "return pending.values / np.float32(2)\n",
        [check_golden, check_bits, check_lost],
    ),
    "divided by the old N": (
        "rounds",
        "return pending.values\n",
        "return pending.values * (info.world_size / np.float32(4))\n",
        [check_lost],
    ),
    "weight not sent": ("rounds", "weight=weight,", "weight=1.0,", [check_weights]),
    "NaN has a weight": (
        "rounds", "delta[...], weight = 0.0, 0.0", "delta[...] = 0.0", [check_not_finite],
    ),
    "too few will do": (
        "rounds", "if info.members < self._peers_min:", "if False:", [check_too_few],
    ),
    "no state for the joiner": (
        "outer", '"momentum": self._momentum,', '"momentum": self._momentum.copy(),',
        [check_joiner],
    ),
    "no rates for the joiner": (
        "outer", '"lr, mu": self._rates,', '"lr, mu": self._rates.copy(),', [check_joiner],
    ),
    "no count for the joiner": (
        "outer", '"step": self._count,', '"step": self._count.copy(),', [check_joiner],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises(AssertionError):
            check(mutant, peers)


# --- Beside the one for torch ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_the_bits_are_those_of_torch(peers: Peers, count: int) -> None:
    pytest.importorskip("torch")
    for gradient in (noisy(21, 35), whole(21, 35)):
        plan = PLAN._replace(gradient=gradient)
        arrays = peers.run(count, lambda comm, p=plan: array_run(REAL, p, comm, comm.rank))
        tensors = peers.run(count, lambda comm, p=plan: torch_run(REAL, p, comm, comm.rank))
        for one, other in zip(arrays, tensors, strict=True):
            same_bits(one, other)


def test_peers_of_torch_and_of_numpy_are_peers(peers: Peers) -> None:
    """They hold the same state and send the same deltas, if names and shapes are the same."""
    pytest.importorskip("torch")

    def train(comm: Any) -> Any:
        rank = comm.rank
        if rank == 0:
            return array_run(REAL, PLAN, comm, rank, name="0")
        return torch_run(REAL, PLAN, comm, rank)

    for found in peers.run(2, train):
        same_bits(found, twin_run(PLAN, range(2)))


# --- Errors ---------------------------------------------------------------------------------------


def test_other_arrays_are_refused_and_nothing_changes() -> None:
    given = {"a": np.ones((2, 2), np.float32), "b": np.ones(3)}
    outer = DiLoCo(given, sync_every=2)
    before = outer.state.hash()
    faults: list[tuple[dict[str, Any], str]] = [
        ({"a": given["a"]}, r"missing are \['b'\]"),
        ({**given, "c": given["a"]}, "there are 3 of 2"),
        ({"a": given["a"], "c": given["b"]}, r"missing are \['b'\]"),
        ({"a": given["a"].ravel(), "b": given["b"]}, "'a' has shape"),
        ({"a": [1.0], "b": given["b"]}, "'a' is of list"),
    ]
    for wrong, text in faults:
        for function in (outer.begin_window, outer.end_window):
            with pytest.raises(InvalidArgumentError, match=text):
                function(wrong)
    assert outer.state.hash() == before
    assert outer.steps == 0
    # In whatever order they come.
    assert outer.end_window({"b": given["b"], "a": given["a"]}).applied


def test_what_is_wrong_shows_at_the_start() -> None:
    arrays = {"w": np.ones(2, np.float32)}
    faults: list[tuple[Any, dict[str, Any], str]] = [
        ([arrays["w"]], {}, "arrays are of type list"),
        ({}, {}, "no names"),
        ({"w": np.ones(2, int)}, {}, "'w' is of int64"),
        (arrays, {"sync_every": 0}, "sync_every is 0"),
        (arrays, {"sync_every": 2.0}, "sync_every is 2.0"),
        (arrays, {"sync_every": True}, "sync_every is True"),
        (arrays, {"comm": "host:1"}, "comm is of type str"),
        (arrays, {"outer_lr": np.nan}, "outer_lr is nan"),
        (arrays, {"outer_momentum": 1.0}, "outer_momentum is 1.0"),
        (arrays, {"error_feedback": True}, "error_feedback"),
        (arrays, {"min_peers": 0}, "min_peers is 0"),
    ]
    for given, options, text in faults:
        with pytest.raises(InvalidArgumentError, match=text):
            DiLoCo(given, **options)
    with pytest.raises(InvalidTypeError):
        DiLoCo([arrays["w"]])  # type: ignore[arg-type]
    outer = DiLoCo(arrays)
    with pytest.raises(InvalidArgumentError, match="needs sync_every"):
        outer.step(arrays)
    assert outer.end_window(arrays).applied


def test_rates_may_be_set_between_steps() -> None:
    outer = DiLoCo({"w": np.ones(1)}, outer_lr=0.5, outer_momentum=0)
    outer.outer_lr, outer.outer_momentum = 1.0, 0.25
    assert (outer.outer_lr, outer.outer_momentum) == (outer.state.lr, outer.state.mu) == (1, 0.25)
    with pytest.raises(InvalidArgumentError, match="outer_lr is -1"):
        outer.outer_lr = -1
    with pytest.raises(InvalidArgumentError, match="outer_momentum is 1"):
        outer.outer_momentum = 1
    outer.end_window({"w": np.zeros(1)})
    assert outer.outer_params["w"].tolist() == [1 - 1.25]


def test_phi_is_fp32_and_its_views_stay() -> None:
    arrays = {"w": np.ones(2, np.float16)}
    outer = DiLoCo(arrays, outer_lr=1, outer_momentum=0)
    phi = outer.outer_params
    assert phi["w"].dtype == np.float32
    outer.end_window({"w": np.array([3, 4], np.float16)})
    assert phi["w"].tolist() == [3, 4]
    assert arrays["w"].tolist() == [1, 1]  # until begin_window() says so
    outer.begin_window(arrays)
    assert arrays["w"].tolist() == [3, 4]


def test_it_is_there_for_those_who_import_pyccl_and_needs_no_torch() -> None:
    program = "import sys, pyccl; pyccl.optim.numpy.DiLoCo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT_SECONDS)


def test_without_torch_one_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pyccl.optim.diloco", raising=False)
    with pytest.raises(ImportError, match=r"\.DiLoCo needs torch: pip install 'pyccl-ft\[torch"):
        from pyccl.optim import DiLoCo  # noqa: F401
    assert not {"EDiT", "DiLoCo"} & set(dir(pyccl.optim))
    assert {"NoLoCoState", "StreamingSchedule", "numpy"} <= set(dir(pyccl.optim))
    monkeypatch.undo()
    if find_spec("torch"):
        assert {"EDiT", "DiLoCo"} <= set(dir(pyccl.optim))
