"""What else is owed by NoLoCo: errors, boundaries that somebody misses, peers that take leave. And
mutants of it, each with the checks that must notice it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from python import conftest as fixtures

import pyccl

from . import test_noloco as checks
from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .replicas import bits
from .test_noloco import PLAN, START, Check, World, model_of, theta_of
from .training import steps_of, window

torch = pytest.importorskip("torch")


def run(opt: Any, weight: Any, rank: int, *steps: int) -> None:
    for _ in steps_of(opt, weight, PLAN, rank, range(*steps)):
        pass


def test_other_options_are_refused_at_the_start(peers: Peers) -> None:
    """By all, and nobody waits for anybody."""
    for other in ({"alpha": 0.25}, {"gamma": 0.1}, {"group": 3}, {"admit_every": None}):

        def train(comm: Any, other: dict[str, Any] = other) -> None:
            with pytest.raises(pyccl.InvalidArgumentError, match="other parameters or options"):
                model_of(REAL, comm, **(other if comm.rank == 2 else {}))

        peers.run(3, train)


def test_a_newcomer_of_other_options_is_refused(peers: Peers) -> None:
    """The others go on without it, also while it is there."""
    refused = threading.Event()

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            with pytest.raises(pyccl.InvalidArgumentError, match="other parameters or options"):
                model_of(REAL, comm, gamma=0.1)
            refused.set()

    def train(comm: Any) -> int:
        weight, opt = model_of(REAL, comm, admit_every=None)
        thread = threading.Thread(target=newcomer, daemon=True)
        if comm.rank == 0:
            thread.start()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not comm.barrier().peers_pending:
            assert time.monotonic() < deadline
        assert opt.sync_members()
        assert refused.wait(LIMIT_SECONDS)
        run(opt, weight, comm.rank, 2)
        assert opt.last_sync.contributors == 2
        return len(opt._meetings.members)

    assert peers.run(2, train) == [2, 2]


def test_an_average_in_a_window_loses_nothing(peers: Peers) -> None:
    """It ends the window first."""

    def train(comm: Any) -> tuple[bytes, int]:
        weight, opt = model_of(REAL, comm)
        run(opt, weight, comm.rank, 3)
        assert opt.average().applied
        return theta_of(weight).tobytes(), opt.outer.step

    results = peers.run(2, train)
    state = World(["0", "1"])
    state.meet([[0, 1]])
    thetas = [window(PLAN, rank, 2, one.params, 1) for rank, one in enumerate(state.states)]
    state.states[0].apply(thetas)
    assert results == [(state.states[0].params.tobytes(), 2)] * 2


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"alpha": 0.9}, "drift apart"),
        ({"group": 1}, "group"),
        ({"seed": -1}, "seed"),
        ({"admit_every": 0}, "admit_every"),
        ({"timeout": -1}, "timeout"),
        ({"every": 0}, "sync_every"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], text: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    every = wrong.pop("every", 1)
    with pytest.raises(pyccl.InvalidArgumentError, match=text):
        pyccl.optim.NoLoCo([weight], torch.optim.SGD, sync_every=every, **wrong)


def test_alone_it_is_its_own_average() -> None:
    weight, opt = model_of(REAL, None)
    run(opt, weight, 0, 2)
    before = bits(opt.outer)
    report = opt.average()
    assert (report.applied, report.reason) == (True, "")
    assert (report.contributors, report.members, report.weight_sum) == (1, 1, 1.0)
    assert bits(opt.outer) == before
    assert not hasattr(opt, "weight")  # in a mean of a group all count the same


def test_states_of_others_are_refused() -> None:
    weight, opt = model_of(REAL, None)
    run(opt, weight, 0, 2)
    state, before = opt.state_dict(), bits(opt.outer)
    faults: list[tuple[dict[str, Any], str]] = [
        ({"version": 1, "inner": {}, "outer": {}}, "inner optimizer does not take"),
        ({**state, "outer": {}}, "holds no 'names'"),
        ({**state, "kind": "DiLoCo"}, "that of DiLoCo, but this is NoLoCo"),
    ]
    for wrong, text in faults:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            opt.load_state_dict(wrong)
        assert bits(opt.outer) == before


def test_what_is_not_finite_afterwards_is_not_applied() -> None:
    weight, opt = model_of(REAL, None)
    weight.detach()[...] = 3e38
    opt.outer.momentum[...] = 3e38
    before = bits(opt.outer)
    report = opt.sync()
    assert not report.applied
    assert "inf in '0'" in report.reason
    assert bits(opt.outer) == before
    assert theta_of(weight)[0] == np.float32(3e38)


def test_a_boundary_that_somebody_misses(peers: Peers) -> None:
    """It admits nobody, and the next one does."""
    missed = threading.Event()

    def train(comm: Any) -> int:
        weight, opt = model_of(REAL, comm, admit_every=None)
        if comm.rank == 0:
            comm._shared.timeout = 0.3
            assert not opt.sync_members()
            comm._shared.timeout = LIMIT_SECONDS
            missed.set()
        else:
            assert missed.wait(LIMIT_SECONDS)
        run(opt, weight, comm.rank, 2)
        assert opt.last_sync.contributors == 2
        assert opt.sync_members()
        return len(opt._meetings.members)

    assert peers.run(2, train) == [2, 2]


def test_who_is_late_for_a_partner_is_not_for_a_boundary(peers: Peers) -> None:
    """Else two that differ in speed would never meet again, and nobody be admitted."""

    def train(comm: Any) -> None:
        _, opt = model_of(REAL, comm, admit_every=None, timeout=0.05)
        time.sleep(0.3 * comm.rank)
        assert opt.sync_members()

    peers.run(2, train)


def test_who_lags_behind_learns_at_a_boundary_where_the_others_are(peers: Peers) -> None:
    def train(comm: Any) -> Any:
        weight, opt = model_of(REAL, comm, admit_every=4)
        opt.outer.step = 3 if comm.rank else 7
        opt._meetings._timeout = 0.1  # they don't meet
        run(opt, weight, comm.rank, 2)
        assert theta_of(weight).tolist() == opt.outer.params.tolist()
        return opt.last_sync.step, bits(opt.outer)

    first, second = peers.run(2, train)
    assert first == second
    assert first[0] == 8


def test_a_state_that_does_not_arrive_in_time_ends_the_boundary(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class Slow:
        rank = 0

        def send(self, *_: Any, **__: Any) -> None:
            tried.append(None)
            raise pyccl.OperationTimeout("slow")

        recv = send

    def train(comm: Any) -> None:
        _, opt = model_of(REAL, comm, admit_every=None)
        comm.barrier()
        monkeypatch.setattr(opt._meetings, "_pair", lambda *_: Slow())
        if comm.rank == 0:
            opt.outer.step = 5
        assert not opt.sync_members()

    peers.run(2, train)
    assert len(tried) == 2


def test_training_goes_on_while_the_coordinator_is_away() -> None:
    away, done = threading.Barrier(3), threading.Barrier(2)

    def train() -> None:
        with pyccl.connect(coordinator.address, world_size_min=2, timeout=LIMIT_SECONDS) as comm:
            weight, opt = model_of(REAL, comm, admit_every=1)
            away.wait(LIMIT_SECONDS)
            away.wait(LIMIT_SECONDS)
            comm._shared.timeout = 0.3
            run(opt, weight, comm.rank, 4)
            met.append((opt.outer.step, opt.last_sync.contributors))
            done.wait(LIMIT_SECONDS)
            comm.close()

    met: list[tuple[int, int]] = []
    coordinator = pyccl.Coordinator("127.0.0.1:0")
    threads = [threading.Thread(target=train, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    away.wait(LIMIT_SECONDS)
    coordinator.stop()
    away.wait(LIMIT_SECONDS)
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert met == [(2, 2)] * 2


def test_an_error_of_the_boundary_leaves_the_model_at_its_step(peers: Peers) -> None:
    """What was learned would count again in the next one."""

    def train(comm: Any) -> None:
        weight, opt = model_of(REAL, comm, admit_every=1)
        run(opt, weight, 0, 1)
        comm.close()
        with pytest.raises(pyccl.ClosedError):
            run(opt, weight, 0, 1, 2)
        assert (opt.outer.step, opt.inner_steps) == (1, 0)
        assert theta_of(weight).tolist() == opt.outer.params.tolist()

    peers.run(1, train)


def test_who_has_skipped_steps_meets_the_others_again(peers: Peers) -> None:
    """Swaps are matched by their order, and it has called fewer."""

    def train(comm: Any) -> None:
        weight, opt = model_of(REAL, comm, every=1, admit_every=None)
        if comm.rank == 0:
            opt._meetings._timeout = 0.05
            run(opt, weight, 0, 3)
            opt._meetings._timeout = LIMIT_SECONDS
        assert opt.sync_members()
        for step in steps_of(opt, weight, PLAN, comm.rank, range(3, 6)):
            assert opt.last_sync.contributors == 2, step

    peers.run(2, train)


def test_a_step_that_could_not_be_applied_does_not_part_partners(peers: Peers) -> None:
    def train(comm: Any) -> list[tuple[bool, int]]:
        weight, opt = model_of(REAL, comm, every=1, admit_every=None)
        if comm.rank == 0:
            opt.outer.momentum[...] = -3.4e38
            opt.outer.params[...] = -3.4e38
            opt._write_outer()
        found = []
        while opt.outer.step < 3:
            run(opt, weight, comm.rank, 1)
            found.append((opt.last_sync.applied, opt.last_sync.contributors))
            if not opt.last_sync.applied:
                opt.outer.momentum[...] = 0
                opt.outer.params[...] = 0
        return found

    met = (True, 2)
    assert peers.run(2, train) == [[(False, 2), (True, 1), met, met], [met] * 3]


@pytest.mark.slow
def test_a_run_has_more_steps_than_a_communicator_has_tags(peers: Peers) -> None:
    def train(comm: Any) -> int:
        arrays = {"w": np.zeros(1, np.float32)}
        outer = REAL.ArrayNoLoCo(arrays, comm)
        for _ in range(4200):
            outer.end_window(arrays)
        return outer.steps

    assert peers.run(2, train) == [4200] * 2


def test_several_newcomers_get_their_states_from_several_peers(peers: Peers) -> None:
    begun: list[Any] = []
    all_there = threading.Barrier(6)

    def until_all_are_there(comm: Any, opt: Any) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while len(opt._meetings.members) < 6:
            assert time.monotonic() < deadline
            if comm.barrier().peers_pending:
                assert opt.sync_members()
        all_there.wait(LIMIT_SECONDS)

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            _, opt = model_of(REAL, comm, 0 * START, admit_every=None)
            begun.append(bits(opt.outer))
            until_all_are_there(comm, opt)

    def train(comm: Any) -> Any:
        _, opt = model_of(REAL, comm, admit_every=None)
        opt.outer.params[...] += np.float32(comm.rank)  # so that all are different
        begin, count = bits(opt.outer), 2 if comm.rank == 0 else 0
        for thread in [threading.Thread(target=newcomer, daemon=True) for _ in range(count)]:
            thread.start()
        until_all_are_there(comm, opt)
        return begin

    results = peers.run(4, train)
    assert len(set(results)) == 4
    assert set(begun) <= set(results)
    assert len(begun) == 2


def test_a_checkpoint_of_fewer_steps_takes_over_what_another_has(peers: Peers) -> None:
    saved = []
    for rank, steps in enumerate((2, 6)):
        weight, opt = model_of(REAL, None)
        run(opt, weight, rank, steps)
        saved.append((theta_of(weight), opt.state_dict(), bits(opt.outer)))

    def train(comm: Any) -> Any:
        rank = comm.rank
        weight, opt = model_of(REAL, comm)
        weight.detach().copy_(torch.from_numpy(saved[rank][0]))
        opt.load_state_dict(saved[rank][1])
        assert theta_of(weight).tolist() == opt.outer.params.tolist()
        return bits(opt.outer)

    assert peers.run(2, train) == [saved[1][2]] * 2


def test_a_peer_takes_leave_and_goes_on_alone(peers: Peers) -> None:
    left = threading.Barrier(3)

    def train(comm: Any) -> Any:
        ids, rank = comm.peers, comm.rank
        weight, opt = model_of(REAL, comm)
        run(opt, weight, rank, 2)
        if rank == 2:
            opt.leave()
        left.wait(LIMIT_SECONDS)
        run(opt, weight, rank, 2, 4)
        return ids, bits(opt.outer)

    results = peers.run(3, train)
    world = World(results[0][0])
    world.meet(world.groups())
    world.meet([sorted(range(2), key=lambda one: world.ids[one]), [2]])
    assert [one[1] for one in results] == [bits(state) for state in world.states]


MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    "sign of the pull": (
        "gossip", "- c * (params - mean_phi)", "+ c * (params - mean_phi)", [checks.check_world]),
    "sign of what was learned": (
        "gossip", "moved = kept + b * (mean_theta - params)",
        "moved = kept - b * (mean_theta - params)", [checks.check_world, checks.check_alone]),
    "members of the view that each has": (
        "meetings", "group = group_of(me, self._members,",
        "group = group_of(me, [int(one, 16) for one in self._comm.peers],", [checks.check_lost]),
    "members of the start for ever": (
        "meetings", "self._members = tuple(sorted(one.peer for one in alike))",
        "self._members = self._members or tuple(sorted(one.peer for one in alike))",
        [checks.check_newcomer]),
    "who is lost stays for ever": (
        "meetings", "self._members = tuple(sorted(one.peer for one in alike))",
        "self._members = tuple(sorted({*self._members, *(one.peer for one in alike)}))",
        [checks.check_lost]),
    "no boundary": (
        "meetings", "state.step % self._admit_every == 0", "False", [checks.check_lost]),
    "a boundary a step late": (
        "meetings", "state.step % self._admit_every == 0", "state.step % self._admit_every == 1",
        [checks.check_lost]),
    "all read one step of the pairs": (
        "meetings", "self._members, self._seed, step, self._group",
        "self._members, self._seed, 0, self._group", [checks.check_world]),
    "each its own seed": (
        "meetings", "self._members, self._seed, step, self._group",
        "self._members, self._seed + (me == self._members[0]), step, self._group",
        [checks.check_world]),
    "operands in the order of arrival": (
        "meetings", "for peer in sorted(found)", "for peer in found", [checks.check_world]),
    "momentum zero on a newcomer": (
        "meetings", "self._state.take(params, momentum, int(step[0]))",
        "self._state.take(params, 0 * momentum, int(step[0]))", [checks.check_newcomer]),
    "a newcomer keeps its own": (
        "meetings", "self._state.take(params, momentum, int(step[0]))",
        "self._state.step = int(step[0])", [checks.check_newcomer, checks.check_one_start]),
    "a NaN for the partner": (
        "meetings", "theta[...] = state.params", "pass", [checks.check_not_finite]),
    "who waits in vain has learned nothing": (
        "meetings", "found = {self._id: own, **self._meet(own, report)}",
        "met = self._meet(own, report)\n"
        "        found = {self._id: own if met else (state.params,), **met}",
        [checks.check_lost, checks.check_late]),
    "a mean of two whoever came": (
        "meetings", "thetas = [one[0] for one in of_all]",
        "thetas = [one[0] for one in of_all]\n"
        "        if self._comm and len(thetas) == 1:\n"
        "            thetas += [state.params]",
        [checks.check_lost, checks.check_late]),
    "the sum for the mean at the end": (
        "meetings", 'mean, op="avg"', 'mean, op="sum"', [checks.check_average]),
    "momentum dropped at the end": (
        "meetings", "self._state.params[...] = mean",
        "self._state.params[...] = mean; self._state.momentum[...] = 0", [checks.check_average]),
    "rounding is learned": (
        "parameters", "if local.dtype.itemsize < 4:", "if False:", [checks.check_nothing_learned]),
    "rounding of arrays is learned": (
        "gossip", "if one.dtype.itemsize < 4:", "if False:", [checks.check_narrow_arrays]),
    "a copy of an array": (
        "vectors", "one[...] = value", "one = value", [checks.check_arrays]),
    "the model stays where it was": (
        "noloco", "self._write_outer()\n                self.inner_steps", "self.inner_steps",
        [checks.check_world]),
    "a checkpoint without momentum": (
        "noloco", 'for key in _VECTORS}})', 'for key in _VECTORS},\n'
        '            "momentum": 0 * state["momentum"].numpy()})',
        [checks.check_checkpoint]),
    "an operation of all": (
        "meetings", "found = {self._id: own, **self._meet(own, report)}",
        "self._comm and self._comm.barrier()\n"
        "        found = {self._id: own, **self._meet(own, report)}",
        [checks.check_nobody_else_waits]),
}  # fmt: skip


# A newcomer's thread is one that fails too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        pytest.param(mutant, check, id=f"{name}, {check.__name__}")
        for name, (*mutant, found_by) in MUTANTS.items()
        for check in found_by
    ],
)
def test_mutants_are_noticed(
    mutant: list[str], check: Check, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What would hang need not do so for long.
    for place in (checks, fixtures):
        monkeypatch.setattr(place, "LIMIT_SECONDS", 1.5)
    with pytest.raises((AssertionError, pyccl.PycclError, threading.BrokenBarrierError)):
        check(Family(*mutant), peers)
