"""An outer step comes about whole, for all and with one set of contributors, or not at all.

As in test_diloco.py, the checks can be tried on mutants.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

from .conftest import Peers
from .family import REAL, Family
from .training import Array, Twin, numbers, same_bits

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]


def model_of(family: Family, comm: Any, sizes: dict[str, int], **options: Any) -> tuple[Any, Any]:
    """Parameters that are 0 at the start, and an optimizer whose steps are asked for."""
    weights = {name: torch.nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
    inner = torch.optim.SGD(weights.values(), lr=1.0)
    return weights, family.DiLoCo(weights.items(), inner, comm, sync_every=None, **options)


def learn(weights: Any, peer: int, number: int) -> None:
    """What a peer learns in a window: something else each time."""
    chance = np.random.default_rng([peer, number])
    with torch.no_grad():
        for one in weights.values():
            one -= torch.from_numpy(chance.standard_normal(one.numel(), np.float32))


def learned(phi: Array, peers: range, number: int) -> list[Array]:
    """What learn() makes of phi, of a single parameter."""
    return [
        phi - np.random.default_rng([peer, number]).standard_normal(phi.size, np.float32)
        for peer in peers
    ]


# --- Checks ---------------------------------------------------------------------------------------


def check_one_set(family: Family, peers: Peers) -> None:
    """All parameters of a step have the same contributors, also if one is lost between whatever
    operations the step is made of."""
    for operations in (1, 2):

        def train(comm: Any, operations: int = operations) -> Any:
            rank, reduce, left = comm.rank, comm.all_reduce, operations

            def dying(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    comm.close()
                left -= 1
                return reduce(*arguments, **options)

            weights, opt = model_of(
                family, comm, {"a": 3, "b": 5}, outer_lr=1.0, outer_momentum=0.0
            )
            if rank == 2:
                comm.all_reduce = dying
            with contextlib.suppress(pyccl.ClosedError) if rank == 2 else contextlib.nullcontext():
                for _ in range(operations + 1):
                    with torch.no_grad():
                        for one in weights.values():
                            one -= rank
                    assert opt.sync().applied
                    phi = [float(view[0]) for view in opt.outer.views.values()]
                    # 0, 1 and 2 have a mean of 1, and 0 and 1 of a half.
                    steps = -phi[0]
                    assert phi[1] == phi[0]
                assert opt.last_sync.contributors == 2
                return steps
            return None

        assert peers.run(3, train) == [operations + 0.5] * 2 + [None]


def check_killed_at_any_time(family: Family, peers: Peers) -> None:
    """Before a peer sends, in the midst of it, before and behind its last word, in the sync behind
    that, and when all is done: the others take the step of all three or of two."""
    size, moments = 1 << 16, 16
    ways = []
    for moment in range(moments + 1):

        def train(comm: Any, moment: int = moment) -> Any:
            rank = comm.rank
            weights, opt = model_of(family, comm, {"w": size})
            learn(weights, rank, 0)
            seconds = opt.sync().seconds
            history = [numbers(opt.outer)]
            learn(weights, rank, 1)
            if rank == 2:
                last = threading.Timer(seconds * moment / moments, comm.close)
                if moment == 0:
                    comm.close()
                elif moment < moments:
                    last.start()
                with contextlib.suppress(pyccl.ClosedError, pyccl.StateSyncError):
                    opt.sync()
                last.cancel()
                comm.close()
                return None
            report = opt.sync()
            assert (report.applied, report.step) == (True, 2)
            history.append(numbers(opt.outer))
            learn(weights, rank, 2)
            after = opt.sync()
            assert (after.contributors, after.behind) == (2, ())
            history.append(numbers(opt.outer))
            return report.contributors, history

        (count, first), (other, second), _ = peers.run(3, train)
        assert count == other
        ways.append(count)
        twin, expected = Twin(np.zeros(size, np.float32), 0.7, 0.9), []
        for number, contributors in enumerate((3, count, 2)):
            twin.meet(learned(twin.phi, range(contributors), number))
            expected.append((twin.phi, twin.momentum))
        same_bits(first, expected)
        same_bits(second, expected)
    assert set(ways) == {2, 3}, ways


def check_hundred_rounds(family: Family, peers: Peers) -> None:
    """Quantized sums are the same bits on all peers: nobody keeps what it had before rounding. A
    sync would put right what is not, and tell of it."""

    def train(comm: Any) -> None:
        weights, opt = model_of(family, comm, {"w": 2000}, quantization="int4", error_feedback=True)
        for number in range(100):
            learn(weights, comm.rank, number)
            report = opt.sync()
            assert report.applied
            assert report.behind == ()
            assert report.hash == opt.outer.hash()
        assert opt.outer.step == 100

    peers.run(3, train)


def check_feedback_given_back(family: Family, peers: Peers) -> None:
    """What quantization took is lost only with a step that comes about."""

    def train(comm: Any) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise pyccl.CancelledError("so it goes")

        weights, opt = model_of(family, comm, {"w": 12}, quantization="int4", error_feedback=True)
        residuals, rank = [], comm.rank
        for number in range(4):
            learn(weights, rank, number)
            if number == 1:
                comm.all_reduce = fails
            elif number == 2:
                del comm.all_reduce
                opt.weight = float(rank)  # and one that has not been used
            assert opt.sync().applied == (number != 1)
            kept = opt.state_dict()["outer"]["residuals"].get(0, [])
            residuals.append([one.numpy().tobytes() for one in kept])
        assert len(residuals[0]) == 1
        assert residuals[1] == residuals[0]
        assert (residuals[2] == residuals[1]) == (rank == 0)
        assert (residuals[3] == residuals[2]) == (rank == 0)

    peers.run(2, train)


CHECKS: list[Check] = [
    check_one_set, check_killed_at_any_time, check_hundred_rounds, check_feedback_given_back,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_transaction(check: Check, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    "an operation for each parameter": (
        "rounds",
        "        try:\n            work = self._comm.all_reduce(\n                values,\n",
        "        *former, last = self._state.cut(values)\n"
        "        for one in former:\n"
        "            self._comm.all_reduce(one, op='avg', weight=weight)\n"
        "        try:\n            work = self._comm.all_reduce(\n                last,\n",
        [check_one_set],
    ),
    "divided by the old N": (
        "rounds",
        "return pending.values\n",
        "return pending.values * (info.world_size / np.float32(3))\n",
        [check_one_set, check_killed_at_any_time],
    ),
    "the owner keeps what it had": (
        "rounds",
        "return pending.values\n",
        "return pending.values + np.float32(1e-7) * (self._comm is not None and "
        "self._comm.rank == 0)\n",
        [check_hundred_rounds],
    ),
    "feedback of a step that fails": (
        "rounds",
        "values = delta if step is None else step.values\n",
        "values = delta if step is None else step.values\n"
        "        if step is not None and weight > 0:\n"
        "            step._feedback._residuals = step._next\n",
        [check_feedback_given_back],
    ),
    "feedback without weight": (
        "rounds", "pending.compensated is not None and weight > 0",
        "pending.compensated is not None", [check_feedback_given_back],
    ),
    "no feedback": (
        "rounds", "            pending.compensated.commit(info)\n", "            pass\n",
        [check_feedback_given_back],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(mutant, peers)
