"""Outer steps that are taken while training goes on: that all hold the same bits is found out
later, and who does not is put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

from .conftest import Peers
from .family import REAL, Family
from .training import Plan, noisy, steps_of

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]

START = np.random.default_rng(0).standard_normal(12).astype(np.float32)
PLAN = Plan(START, noisy(0, 12))


def models(family: Family, comm: Any) -> list[tuple[Any, Any]]:
    """Each ends an outer step behind each inner one."""
    made: list[tuple[Any, Any]] = []
    kinds = [
        (
            family.StreamingDiLoCo,
            {"fragments": [["a"], ["b"]], "sync_every": 2, "merge_alpha": 0.0},
        ),
        (family.DelayedDiLoCo, {"sync_every": 1}),
    ]
    for kind, options in kinds:
        parts = {name: torch.nn.Parameter(torch.from_numpy(START.copy())) for name in "ab"}
        opt = kind(parts.items(), torch.optim.SGD(parts.values(), lr=PLAN.rate), comm, **options)
        made.append((parts, opt))
    return made


def counted(comm: Any) -> list[int]:
    """How often sync() is called from now on, as it goes on."""
    sync, count = comm.sync, [0]

    def counts(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        return sync(*arguments, **options)

    comm.sync = counts
    return count


def train(parts: Any, opt: Any, rank: int, steps: range) -> Any:
    for step in steps:
        for one in parts.values():
            here = one.detach().numpy()
            one.grad = torch.from_numpy(PLAN.gradient(rank, step, here))
        opt.step()
        yield step


def check_no_sync(family: Family, peers: Peers) -> None:
    """Where nobody comes and nothing fails there is none, and the hash is that of all."""

    def run(comm: Any) -> Any:
        rank, found = comm.rank, []
        for parts, opt in models(family, comm):
            count = counted(comm)
            for step in train(parts, opt, rank, range(8)):
                found.append(opt.last_sync.hash)
                if step == 0:  # of a window late nothing was applied
                    count[0] = 0
            assert count == [0]
            assert opt.outer.step >= 7
        return found

    results = peers.run(3, run)
    assert results[0] == results[1] == results[2]
    assert len(set(results[0])) == 1 + 4 + 8  # "", then each second step, then each


def check_drift(family: Family, peers: Peers) -> None:
    """It is found, put right and told of by all, at the outer step behind the comparison."""

    def run(comm: Any) -> Any:
        rank, told = comm.rank, []
        for parts, opt in models(family, comm):
            count = counted(comm)
            for step in train(parts, opt, rank, range(8)):
                if step == 0:
                    count[0] = 0
                if step == 2 and rank == 1:
                    opt.outer.params[3] += 1
                told.append([(one.rank, one.drifted) for one in opt.last_sync.behind])
            assert count == [1]
            told.append(opt.outer.hash())
        return told

    results = peers.run(3, run)
    assert results[0] == results[1] == results[2]
    for told in (results[0][:8], results[0][9:17]):
        assert [one for one in told if one] == [[(1, True)]]
        assert told[4] == [(1, True)] or told[3] == [(1, True)]


def check_failed(family: Family, peers: Peers) -> None:
    """A comparison that did not come about is a reason to sync, for all alike."""

    def run(comm: Any) -> None:
        class Failed:
            def wait(self) -> None:
                raise pyccl.CancelledError("so it goes")

        rank = comm.rank
        for parts, opt in models(family, comm):
            count, gather = counted(comm), comm.all_gather
            for step in train(parts, opt, rank, range(6)):
                comm.all_gather = (lambda *_, **__: Failed()) if step == 2 else gather
                assert opt.last_sync.applied or step == 0
                if step == 0:
                    count[0] = 0
            assert count == [1]

    peers.run(2, run)


CHECKS: list[Check] = [check_no_sync, check_drift, check_failed]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_comparison(check: Check, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    "a sync at each step": ("rounds", 'agree == "now" or', "True or", [check_no_sync]),
    "a difference is no reason": ("rounds", "or differs or", "or", [check_drift, check_failed]),
    "never compared": (
        "rounds", "report.hash = self._comparison.begin()", "pass", [check_no_sync, check_drift]),
    "only the count is compared": (
        "comparison", "(rows != rows[0]).any()", "(rows[:, 2] != rows[0, 2]).any()", [check_drift]),
    "who fails is alike": ("comparison", "differs = True", "pass", [check_failed]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    for check in checks:
        with pytest.raises(AssertionError):
            check(Family(*edit), peers)


def test_peers_that_begin_with_other_numbers_have_not_drifted(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    def run(comm: Any) -> None:
        weight = torch.nn.Parameter(torch.from_numpy(START + np.float32(comm.rank)))
        opt = pyccl.optim.DiLoCo([weight], torch.optim.SGD([weight], lr=0.1), comm)
        for _ in steps_of(opt, weight, PLAN, comm.rank, range(2)):
            pass

    peers.run(2, run)
    assert not caplog.records
