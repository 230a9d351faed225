"""DiLoCo among peers that come, go, weigh more, or have nothing to give.

An outer step is a transaction: who is in it is in it on all peers, and one that does not come about
takes nothing from what was learned. As in test_diloco.py, the checks can be tried on mutants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .training import Array, Plan, Twin, noisy, numbers, same_bits, steps_of, whole, window

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]

START = np.random.default_rng(0).standard_normal(12).astype(np.float32)
PLAN = Plan(START, noisy(0, 12), every=2)


def model_of(
    family: Family, comm: Any, start: Array = START, every: int | None = 2, **options: Any
) -> tuple[Any, Any]:
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    inner = torch.optim.SGD([weight], lr=PLAN.rate)
    return weight, family.DiLoCo([weight], inner, comm, sync_every=every, **options)


def put(weight: Any, values: Any) -> None:
    with torch.no_grad():
        weight.copy_(torch.as_tensor(values))


def theta_of(weight: Any) -> Array:
    return np.array(weight.detach().numpy())


# --- Checks ---------------------------------------------------------------------------------------


def check_one_start(family: Family, peers: Peers) -> None:
    """Peers that have drawn other numbers begin with those of one of them."""
    begun = threading.Barrier(3)

    def train(comm: Any) -> Any:
        start = START + np.float32(comm.rank)
        weight, opt = model_of(family, comm, start, outer_lr=0.1 * (1 + comm.rank))
        assert opt.last_sync.fresh
        assert not opt.last_sync.applied
        begun.wait(LIMIT_SECONDS)
        return theta_of(weight).tolist(), opt.outer_lr, opt.last_sync.hash, opt.outer.hash()

    results = peers.run(3, train)
    assert results[1:] == results[:1] * 2
    assert results[0][0] in [(START + np.float32(i)).tolist() for i in range(3)]
    assert len({one[2:] for one in results}) == 1
    assert results[0][2] == results[0][3]


def check_report(family: Family, peers: Peers) -> None:
    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm)
        for _ in steps_of(opt, weight, PLAN, comm.rank, range(4)):
            pass
        report = opt.last_sync
        assert report.seconds > 0
        assert report.bytes_sent > 0
        assert report.bytes_received > 0
        return (
            report.fresh, report.applied, report.reason, report.step, report.contributors,
            report.members, report.weight_sum, report.attempts, report.behind,
            report.hash == opt.outer.hash(),
        )  # fmt: skip

    assert peers.run(3, train) == [(True, True, "", 2, 3, 3, 3.0, 1, (), True)] * 3


def check_weights(family: Family, peers: Peers) -> None:
    weights, twin = [1.0, 2.5, 0.0], Twin(START, 0.7, 0.9)
    for t in range(3):
        thetas = [window(PLAN, m, 2 * t, twin.phi) for m in range(2)]
        twin.meet(thetas, weights[:2])

    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm)
        opt.weight = weights[comm.rank]
        for _ in steps_of(opt, weight, PLAN, comm.rank, range(6)):
            pass
        assert opt.last_sync.weight_sum == 3.5
        assert (opt.last_sync.contributors, opt.last_sync.members) == (2, 3)
        assert theta_of(weight).tolist() == opt.outer.params.tolist()
        return numbers(opt.outer)

    same_bits(peers.run(3, train), [(twin.phi, twin.momentum)] * 3)


def check_not_finite(family: Family, peers: Peers) -> None:
    """Who has run into a NaN counts nothing, and goes on with what the others have found."""
    for spoiled in (np.nan, np.inf):
        twin = Twin(START, 0.7, 0.9)
        twin.meet([window(PLAN, m, 0, START) for m in (0, 2)])
        twin.meet([window(PLAN, m, 2, twin.phi) for m in range(3)])

        def train(comm: Any, spoiled: float = spoiled) -> Any:
            weight, opt = model_of(family, comm)
            rank = comm.rank
            for step in steps_of(opt, weight, PLAN, rank, range(4)):
                if step == 0 and rank == 1:
                    weight.detach()[5] = spoiled
                elif step == 1:
                    assert (opt.last_sync.contributors, opt.last_sync.weight_sum) == (2, 2)
                    assert opt.last_sync.applied
                    assert opt.last_sync.reason == ""
            return numbers(opt.outer)

        same_bits(peers.run(3, train), [(twin.phi, twin.momentum)] * 3)


def check_none_finite(family: Family, peers: Peers) -> None:
    def train(comm: Any) -> None:
        weight, opt = model_of(family, comm)
        weight.detach()[comm.rank] = np.nan
        before = opt.outer.hash()
        report = opt.sync()
        assert report.fresh
        assert not report.applied
        assert report.reason
        assert (report.step, report.hash, opt.outer.hash()) == (0, before, before)
        put(weight, START + 1)
        assert opt.sync().applied
        assert opt.outer.step == 1

    peers.run(2, train)
    weight, opt = model_of(family, None)
    weight.detach()[0] = np.inf
    report = opt.sync()
    assert not report.applied
    assert "not finite" in report.reason
    assert opt.outer.params.tolist() == START.tolist()


def check_too_few(family: Family, peers: Peers) -> None:
    """Local work is kept, and goes on."""

    def train(comm: Any) -> None:
        weight, opt = model_of(family, comm, min_peers=3)
        # Once, for ranks are others when somebody has left.
        theta, rank = START, comm.rank
        for step in steps_of(opt, weight, PLAN, rank, range(4)):
            theta = window(PLAN, rank, step, theta, 1)
            assert theta_of(weight).tolist() == theta.tolist()
            assert opt.last_sync.fresh == (step % 2 == 1)
            assert not opt.last_sync.applied
        assert "2 peers of the 3" in opt.last_sync.reason
        assert (opt.outer.step, opt.last_sync.members, opt.inner_steps) == (0, 2, 0)
        assert opt.outer.params.tolist() == START.tolist()
        assert not opt.outer.momentum.any()

    peers.run(2, train)


def check_aborted(family: Family, peers: Peers) -> None:
    """The step behind one that was given up has the work of both windows."""
    errors = [pyccl.CancelledError, pyccl.OperationTimeout, pyccl.PeerLostError]
    for error in errors:
        twin = Twin(START, 0.7, 0.9)
        twin.meet([window(PLAN, m, 0, START) for m in range(2)])
        twin.meet([window(PLAN, m, 2, twin.phi, 4) for m in range(2)])

        def train(comm: Any, error: type[Exception] = error) -> Any:
            def fails(x: Array, **_: Any) -> None:
                x[...] = np.nan  # as what is there of an operation that was given up
                raise error("so it goes")

            weight, opt = model_of(family, comm)
            for step in steps_of(opt, weight, PLAN, comm.rank, range(6)):
                if step == 1:
                    comm.all_reduce = fails
                elif step == 3:
                    assert (opt.last_sync.fresh, opt.last_sync.applied) == (True, False)
                    assert opt.last_sync.reason == "so it goes"
                    assert opt.last_sync.step == 1
                    del comm.all_reduce
            assert opt.last_sync.step == 2
            return numbers(opt.outer)

        same_bits(peers.run(2, train), [(twin.phi, twin.momentum)] * 2)


def check_lost(family: Family, peers: Peers) -> None:
    """With deltas of 1, 2, 3 and 4 and the last peer gone the mean is 2, and not 1.5."""

    def train(comm: Any) -> Any:
        rank = comm.rank
        weight, opt = model_of(family, comm, np.zeros(3, np.float32), outer_lr=1, outer_momentum=0)
        put(weight, [-1.0 - rank] * 3)
        assert opt.sync().members == 4
        phi = [float(opt.outer.params[0])]
        put(weight, phi[0] - 1 - rank)
        if rank == 3:
            comm.close()
            return phi
        report = opt.sync()
        assert report.applied
        assert (report.members, report.contributors, report.weight_sum) == (3, 3, 3)
        return [*phi, float(opt.outer.params[0])]

    results = peers.run(4, train)
    assert results == [[-2.5, -4.5]] * 3 + [[-2.5]]


def check_joiner(family: Family, peers: Peers) -> None:
    """It has all that the others have, trains a window, and then counts as they do."""
    late: dict[str, Any] = {}
    deadline = time.monotonic() + LIMIT_SECONDS

    def windows(rank: int, opt: Any, weight: Any) -> Any:
        """History by the count of outer steps, until three have taken two of them."""
        seen: dict[int, Any] = {}
        while [one[0] for one in seen.values()].count(3) < 2:
            assert time.monotonic() < deadline
            step = 2 * opt.outer.step
            for _ in steps_of(opt, weight, PLAN, rank, range(step, step + 2)):
                pass
            assert opt.last_sync.applied
            seen[opt.outer.step] = opt.last_sync.members, *numbers(opt.outer)
        return seen

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            weight, opt = model_of(family, comm, 0 * START, outer_lr=0.1, outer_momentum=0.3)
            late["begun"] = opt.outer.step, theta_of(weight), *numbers(opt.outer)
            late["rates"] = opt.outer_lr, opt.outer_momentum
            late["rank"] = comm.rank
            late["seen"] = windows(late["rank"], opt, weight)

    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm)
        rank, thread = comm.rank, None
        if rank == 0:
            thread = threading.Thread(target=newcomer, daemon=True)
        for step in steps_of(opt, weight, PLAN, rank, range(4)):
            if thread is not None and step == 1:
                thread.start()
        seen = windows(rank, opt, weight)
        if thread is not None:
            thread.join(LIMIT_SECONDS)
        return seen, opt.outer_lr, opt.outer_momentum

    (first, *rates), (second, *_) = peers.run(2, train)
    step, theta, phi, momentum = late["begun"]
    assert late["rates"] == tuple(rates)
    assert step >= 2
    assert momentum.any()
    assert theta.tolist() == phi.tolist()
    twin = Twin(START, 0.7, 0.9)
    for t in range(max(first)):
        if t == step:
            same_bits([(phi, momentum)], [(twin.phi, twin.momentum)])
        # The newcomer's first window begins at the state that it got.
        twin.meet([window(PLAN, m, 2 * t, twin.phi) for m in range(2 + (t >= step))])
        for seen in (first, second, late["seen"]):
            if t + 1 in seen:
                assert seen[t + 1][0] == 2 + (t >= step)
                same_bits([seen[t + 1][1:]], [(twin.phi, twin.momentum)])
    assert sorted(late["seen"]) == [step + 1, step + 2] == sorted(first)[-2:]
    assert late["rank"] == 2


CHECKS: list[Check] = [
    check_one_start, check_report, check_weights, check_not_finite, check_none_finite,
    check_too_few, check_aborted, check_lost, check_joiner,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_peers(check: Check, peers: Peers) -> None:
    check(REAL, peers)


# --- Other ways in which peers differ -------------------------------------------------------------


def test_a_peer_takes_leave_and_goes_on_alone(peers: Peers) -> None:
    plan = Plan(START, whole(1, 12), lr=0.5, mu=0.5)
    left = threading.Barrier(3)

    def train(comm: Any) -> Any:
        rank = comm.rank
        weight, opt = model_of(REAL, comm, outer_lr=0.5, outer_momentum=0.5)
        for _ in steps_of(opt, weight, plan, rank, range(3)):
            pass
        if rank == 2:
            opt.leave()
            opt.leave()
            assert opt.comm is None
            assert comm.closed
        left.wait(LIMIT_SECONDS)
        for _ in steps_of(opt, weight, plan, rank, range(3, 4)):
            pass
        assert opt.last_sync.applied
        assert opt.last_sync.members == (1 if rank == 2 else 2)
        return numbers(opt.outer)

    twin, other = (Twin(START, 0.5, 0.5) for _ in range(2))
    for one in (twin, other):
        one.meet([window(plan, m, 0, START) for m in range(3)])
    other.meet([window(plan, 2, 2, twin.phi)])
    twin.meet([window(plan, m, 2, twin.phi) for m in range(2)])
    expected = [(twin.phi, twin.momentum)] * 2 + [(other.phi, other.momentum)]
    same_bits(peers.run(3, train), expected)


@pytest.mark.parametrize("feedback", [False, True])
def test_quantized_deltas_keep_peers_alike(peers: Peers, feedback: bool) -> None:
    start = np.zeros(4096, np.float32)
    plan = Plan(start, noisy(2, 4096), rounds=5)

    def train(comm: Any) -> Any:
        weight, opt = model_of(
            REAL, comm, start, quantization="int8", error_feedback=feedback, timeout=LIMIT_SECONDS
        )
        for _ in steps_of(opt, weight, plan, comm.rank, range(10)):
            assert opt.last_sync.behind == ()
        assert opt.last_sync.bytes_sent < 2 * 4096 * 2  # half of fp32, to two peers
        return opt.outer.hash(), opt.outer.params.copy()

    results = peers.run(3, train)
    assert len({one[0] for one in results}) == 1
    twin = Twin(start, 0.7, 0.9)
    for t in range(5):
        twin.meet([window(plan, m, 2 * t, twin.phi) for m in range(3)])
    distance = np.abs(results[0][1] - twin.phi).max()
    assert 0 < distance < 0.1


def test_rates_that_all_set_alike_count_from_the_next_step(peers: Peers) -> None:
    twin = Twin(START, 0.7, 0.9)
    for t, rates in enumerate([(0.7, 0.9), (0.4, 0.5)]):
        twin.rates = np.float32(rates[0]), np.float32(rates[1])
        twin.meet([window(PLAN, m, 2 * t, twin.phi) for m in range(2)])

    def train(comm: Any) -> Any:
        weight, opt = model_of(REAL, comm)
        for step in steps_of(opt, weight, PLAN, comm.rank, range(4)):
            if step == 1:
                opt.outer_lr, opt.outer_momentum = 0.4, 0.5
                assert (opt.outer_lr, opt.outer_momentum) == (float(np.float32(0.4)), 0.5)
        return numbers(opt.outer)

    same_bits(peers.run(2, train), [(twin.phi, twin.momentum)] * 2)


def test_memory_that_has_changed_is_put_right(peers: Peers) -> None:
    """A peer whose phi was spoiled is found by the others' hash, and has theirs behind it."""

    def train(comm: Any) -> Any:
        weight, opt = model_of(REAL, comm)
        behind, rank = [], comm.rank
        for step in steps_of(opt, weight, PLAN, rank, range(6)):
            if step == 1 and rank == 1:
                opt.outer.params[3] += 1
            if step % 2:
                behind.append([(one.rank, one.drifted) for one in opt.last_sync.behind])
        assert behind == [[], [(1, True)], []]
        assert theta_of(weight).tolist() == opt.outer.params.tolist()
        return opt.last_sync.hash

    assert len(set(peers.run(3, train))) == 1


def test_who_comes_too_late_loses_nothing_either(peers: Peers) -> None:
    """The step that one has waited for in vain comes about for nobody; the next one has it all."""
    waited = threading.Event()
    twin = Twin(START, 0.7, 0.9)
    twin.meet([window(PLAN, m, 0, START, 4) for m in range(2)])

    def train(comm: Any) -> Any:
        rank, reduce = comm.rank, comm.all_reduce

        def impatient(x: Array, **options: Any) -> Any:
            work = reduce(x, **{**options, "timeout": 0.2})
            with pytest.raises(pyccl.OperationTimeout):
                work.wait()
            waited.set()
            return work

        weight, opt = model_of(REAL, comm)
        if rank == 0:
            comm.all_reduce = impatient
        for step in steps_of(opt, weight, PLAN, rank, range(4)):
            if step == 0 and rank == 1:
                assert waited.wait(LIMIT_SECONDS)
            elif step == 1:
                comm.all_reduce = reduce
                assert (opt.last_sync.fresh, opt.last_sync.applied) == (True, False)
                assert opt.last_sync.reason
                assert opt.last_sync.hash  # that of a sync, for which they came together again
        assert opt.last_sync.applied
        return numbers(opt.outer)

    same_bits(peers.run(2, train), [(twin.phi, twin.momentum)] * 2)


def test_an_older_checkpoint_begins_where_the_others_are(peers: Peers) -> None:
    """Whose checkpoint is older than those of others begins a window where they are; the distance
    between the checkpoints is nothing that it has learned."""
    saved = []
    for steps in (9, 3):
        weight, opt = model_of(REAL, None, np.zeros(1, np.float32), outer_lr=1, outer_momentum=0)
        for _ in range(steps):
            weight.grad = torch.full((1,), -4.0)
            opt.step()
        saved.append((theta_of(weight), opt.state_dict()))
    assert [float(one[0][0]) for one in saved] == [9, 3]

    def train(comm: Any) -> Any:
        rank = comm.rank
        weight, opt = model_of(REAL, comm, np.zeros(1, np.float32))
        put(weight, saved[rank][0])
        opt.load_state_dict(saved[rank][1])
        assert opt.outer.params.tolist() == [8]
        assert opt.outer.step == 4
        return float(weight.detach()[0])

    assert peers.run(2, train) == [9, 8]


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_wrong_weight_is_an_error(wrong: float) -> None:
    _, opt = model_of(REAL, None)

    def step() -> None:
        opt.weight = wrong
        opt.sync()

    with pytest.raises(pyccl.InvalidArgumentError):
        step()


def test_without_weight_there_is_a_reason() -> None:
    _, opt = model_of(REAL, None)
    opt.weight = 0.0
    report = opt.sync()
    assert not report.applied
    assert report.reason


def test_other_parameters_are_refused_at_the_start(peers: Peers) -> None:
    def train(comm: Any) -> None:
        with pytest.raises(pyccl.StateSyncError):
            model_of(REAL, comm, START if comm.rank else START[:5])

    peers.run(2, train)
