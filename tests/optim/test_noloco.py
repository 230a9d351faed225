"""NoLoCo among peers that meet in pairs: who meets whom, what comes of it where one is late, lost
or new, and what an optimizer of torch owes besides.

The expected numbers are those of as many NoLoCoStates in this process, which test_gossip.py has
tested. The checks can be tried on mutants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.optim.gossip import NoLoCoState, groups

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .replicas import bits
from .training import Array, Plan, noisy, steps_of, window

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]

START = np.random.default_rng(0).standard_normal(12).astype(np.float32)
PLAN = Plan(START, noisy(0, 12), every=2)
SEED = 5


def model_of(
    family: Family, comm: Any, start: Array = START, every: int | None = 2, **options: Any
) -> tuple[Any, Any]:
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    inner = torch.optim.SGD([weight], lr=PLAN.rate)
    return weight, family.NoLoCo([weight], inner, comm, sync_every=every, seed=SEED, **options)


def theta_of(weight: Any) -> Array:
    return np.array(weight.detach().numpy())


class World:
    """All replicas, without communication. ids: of the peers, by rank."""

    def __init__(self, ids: Sequence[str], start: Array = START, **options: Any) -> None:
        self.ids = [int(one, 16) for one in ids]
        self.states = [NoLoCoState(["w"], [start], **options) for _ in ids]

    def groups(self, size: int = 2) -> list[list[int]]:
        """Of this step, of ranks in the order of ids."""
        cut = groups(self.ids, SEED, self.states[0].step, size)
        return [[self.ids.index(peer) for peer in sorted(group)] for group in cut]

    def learned(self, rank: int) -> Array:
        state = self.states[rank]
        return window(PLAN, rank, PLAN.every * state.step, state.params)

    def meet(self, cut: Sequence[Sequence[int]]) -> None:
        thetas = [self.learned(rank) for rank in range(len(self.ids))]
        phis = [state.params.copy() for state in self.states]
        for group in cut:
            for rank in group:
                state = self.states[rank]
                state.apply(
                    [thetas[one] for one in group],
                    [phis[one] for one in group] if state.needs_phis else None,
                )


# --- Checks ---------------------------------------------------------------------------------------


def check_world(family: Family, peers: Peers) -> None:
    """Pairs and a triple, with and without phi travelling along, four steps: bit for bit."""
    for count, options in [(4, {}), (5, {"gamma": 0.3}), (3, {"alpha": 0.25, "beta": 1.0})]:

        def train(comm: Any, options: dict[str, Any] = options) -> Any:
            ids = comm.peers
            weight, opt = model_of(family, comm, **options)
            found = []
            for step in steps_of(opt, weight, PLAN, comm.rank, range(8)):
                if step % 2:
                    assert opt.last_sync.fresh
                    assert opt.last_sync.applied
                    assert theta_of(weight).tolist() == opt.outer.params.tolist()
                    report = opt.last_sync
                    found.append((*bits(opt.outer), report.contributors, report.distance))
            return ids, found

        results = peers.run(count, train)
        world = World(results[0][0], **options)
        for t in range(4):
            cut = world.groups()
            thetas = [world.learned(rank) for rank in range(count)]
            world.meet(cut)
            for group in cut:
                apart = world.states[0].distance([thetas[one] for one in group])
                for rank in group:
                    expected = (*bits(world.states[rank]), len(group), apart)
                    assert results[rank][1][t] == expected, (count, t, rank)


def check_one_start(family: Family, peers: Peers) -> None:
    """Peers that have drawn other numbers begin with those of one of them, however many."""

    def begin(comm: Any) -> Any:
        weight, opt = model_of(family, comm, START + np.float32(comm.rank))
        assert opt.last_sync.members == 7
        return theta_of(weight).tolist(), opt.outer.params.tolist(), opt.outer.step

    assert peers.run(7, begin) == [(START.tolist(), START.tolist(), 0)] * 7


def check_nobody_else_waits(family: Family, peers: Peers) -> None:
    """One pair takes its step while the other two peers have not come to theirs."""
    done = threading.Barrier(2)
    free = threading.Event()

    def train(comm: Any) -> None:
        rank, first = comm.rank, World(comm.peers).groups()[0]
        weight, opt = model_of(family, comm)
        if rank not in first:
            assert free.wait(LIMIT_SECONDS)
        for _ in steps_of(opt, weight, PLAN, rank, range(2)):
            pass
        assert opt.last_sync.contributors == 2
        if rank in first:
            done.wait(LIMIT_SECONDS)
            free.set()

    peers.run(4, train)


def check_lost(family: Family, peers: Peers) -> None:
    """Whose partner is lost takes the step alone, at once; the others meet as if it were there, up
    to the next boundary, and as if it had never been from there on."""
    lost = threading.Event()

    def train(comm: Any) -> Any:
        rank, ids = comm.rank, comm.peers
        weight, opt = model_of(family, comm, admit_every=3)
        for step in steps_of(opt, weight, PLAN, rank, range(8)):
            if step == 1 and rank == 3:
                comm.close()
                lost.set()
                return ids, []
            if step == 1:
                assert lost.wait(LIMIT_SECONDS)
        return ids, bits(opt.outer)

    results = peers.run(4, train)
    world = World(results[0][0])
    for t in range(4):
        if t < 3:
            cut = [[one for one in group if one != 3 or t < 1] for group in world.groups()]
            if t >= 1:
                cut.append([3])
        else:
            rest = World(results[0][0][:3])
            rest.states = world.states[:3]
            cut = [*rest.groups(), [3]]
        world.meet(cut)
    for rank in range(3):
        assert results[rank][1] == bits(world.states[rank]), rank


def check_late(family: Family, peers: Peers) -> None:
    """A partner that does not come in time is done without; so does it, when it comes."""
    waited = threading.Event()

    def train(comm: Any) -> Any:
        ids = comm.peers
        weight, opt = model_of(family, comm, timeout=0.3)
        for step in steps_of(opt, weight, PLAN, comm.rank, range(4)):
            if step == 0 and comm.rank == 1:
                assert waited.wait(LIMIT_SECONDS)
            if step == 1:
                assert opt.last_sync.contributors == 1
                assert opt.last_sync.members == 2
                assert opt.last_sync.reason
                waited.set()
                opt._meetings._timeout = LIMIT_SECONDS
        assert opt.last_sync.contributors == 2
        return ids, bits(opt.outer)

    results = peers.run(2, train)
    world = World(results[0][0])
    world.meet([[0], [1]])
    world.meet(world.groups())
    assert [one[1] for one in results] == [bits(state) for state in world.states]


def check_newcomer(family: Family, peers: Peers) -> None:
    """It gets what one of the others has, at a boundary, and meets them from the next step on."""
    late: dict[str, Any] = {}
    last = 6

    def windows(opt: Any, weight: Any, rank: int) -> dict[int, Any]:
        seen = {}
        while opt.outer.step < last:
            step = 2 * opt.outer.step
            for _ in steps_of(opt, weight, PLAN, rank, range(step, step + 2)):
                pass
            seen[opt.outer.step] = bits(opt.outer)
        return seen

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            weight, opt = model_of(family, comm, 0 * START, admit_every=2)
            late["begun"] = bits(opt.outer)
            late["theta"] = theta_of(weight)
            late["ids"] = comm.peers
            late["seen"] = windows(opt, weight, comm.rank)

    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm, admit_every=2)
        thread = threading.Thread(target=newcomer, daemon=True)
        for step in steps_of(opt, weight, PLAN, comm.rank, range(3)):
            if step == 1 and comm.rank == 0:
                thread.start()
            if step == 1:  # with no other hint that it waits
                deadline = time.monotonic() + LIMIT_SECONDS
                while not comm.barrier().peers_pending:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
        for _ in steps_of(opt, weight, PLAN, comm.rank, range(3, 4)):
            pass
        seen = {2: bits(opt.outer), **windows(opt, weight, comm.rank)}
        if comm.rank == 0:
            thread.join(LIMIT_SECONDS)
        return seen

    results = peers.run(3, train)
    assert "seen" in late, "the newcomer has not come to the end"
    assert late["begun"] in [one[2] for one in results]
    assert late["begun"][0] == 2
    world = World(late["ids"][:3])
    for _ in range(2):
        world.meet(world.groups())
    assert [bits(state) for state in world.states] == [one[2] for one in results]
    giver = [one[2] for one in results].index(late["begun"])
    assert late["theta"].tolist() == world.states[giver].params.tolist()
    whole = World(late["ids"])
    for state, of in zip(whole.states, [*world.states, world.states[giver]], strict=True):
        state.import_(of.export())
    for t in range(3, last + 1):
        whole.meet(whole.groups())
        found = [one[t] for one in results] + [late["seen"][t]]
        assert found == [bits(state) for state in whole.states], t


def check_not_finite(family: Family, peers: Peers) -> None:
    """Who has run into a NaN has learned nothing, and its partner does not get it."""

    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm)
        for step in steps_of(opt, weight, PLAN, comm.rank, range(4)):
            if step == 0 and comm.rank == 1:
                weight.detach()[5] = np.nan
            elif step == 1:
                assert opt.last_sync.contributors == 2
                assert ("not finite" in opt.last_sync.reason) == (comm.rank == 1)
        return bits(opt.outer)

    results = peers.run(2, train)
    world = World(["0", "1"])
    thetas = [world.learned(0), START]
    for state in world.states:
        state.apply(thetas)
    world.meet([[0, 1]])
    assert results == [bits(state) for state in world.states]


def check_average(family: Family, peers: Peers) -> None:
    def train(comm: Any) -> Any:
        weight, opt = model_of(family, comm)
        for _ in steps_of(opt, weight, PLAN, comm.rank, range(4)):
            pass
        own, momentum = opt.outer.params.copy(), opt.outer.momentum.copy()
        report = opt.average()
        assert (report.applied, report.contributors) == (True, 4)
        assert theta_of(weight).tolist() == opt.outer.params.tolist()
        assert opt.outer.momentum.tolist() == momentum.tolist()
        assert opt.outer.step == 2
        return own, opt.outer.params.tolist()

    results = peers.run(4, train)
    own = [one[0] for one in results]
    assert len({one.tobytes() for one in own}) > 1
    mean = (own[0] + own[1] + own[2] + own[3]) / np.float32(4)
    assert [one[1] for one in results] == [mean.tolist()] * 4


def check_alone(family: Family, _: Peers) -> None:
    """Without a communicator it is heavy ball with what one peer learns."""
    weight, opt = model_of(family, None)
    state = NoLoCoState(["w"], [START])
    for _ in steps_of(opt, weight, PLAN, 0, range(6)):
        pass
    for t in range(3):
        state.apply([window(PLAN, 0, 2 * t, state.params)])
    assert bits(opt.outer) == bits(state)
    assert (opt.last_sync.members, opt.last_sync.contributors) == (1, 1)


def check_nothing_learned(family: Family, _: Peers) -> None:
    """What rounding to a narrow type takes is not learned: phi stays, for ever."""
    start = np.float32([1.001, -2.003, 0.3])
    weight = torch.nn.Parameter(torch.from_numpy(start).bfloat16())
    opt = family.NoLoCo([weight], torch.optim.SGD([weight], lr=0.0), sync_every=1)
    begun = opt.outer.params.copy()
    opt.outer.params[...] = start  # which is not in bf16
    opt._write_outer()
    for _ in range(5):
        weight.grad = torch.ones_like(weight)
        opt.step()
    assert begun.tolist() != start.tolist()
    assert opt.outer.params.tolist() == start.tolist()
    assert opt.outer.step == 5


def check_checkpoint(family: Family, peers: Peers) -> None:
    """In the middle of a window, to other objects: as if nothing had been."""

    def train(comm: Any, breaks: bool) -> Any:
        ids = comm.peers
        weight, opt = model_of(family, comm)
        for step in steps_of(opt, weight, PLAN, comm.rank, range(8)):
            if step == 4 and breaks:
                kept, theta = opt.state_dict(), theta_of(weight)
                assert kept["outer"]["inner_steps"] == 1
                for _ in steps_of(opt, weight, PLAN, comm.rank, range(5, 7)):
                    pass
                opt.load_state_dict(kept)
                weight.detach().copy_(torch.from_numpy(theta))
        return ids, bits(opt.outer)

    for breaks in (False, True):
        results = peers.run(2, lambda comm, breaks=breaks: train(comm, breaks))
        world = World(results[0][0])
        for _ in range(4):
            world.meet(world.groups())
        assert [one[1] for one in results] == [bits(state) for state in world.states]


def check_arrays(family: Family, peers: Peers) -> None:
    """By begin_window() and end_window(), and by step()."""

    def train(comm: Any) -> Any:
        ids, rank = comm.peers, comm.rank
        theta = {"w": START + np.float32(rank)}
        outer = family.ArrayNoLoCo(theta, comm, sync_every=1, seed=SEED, gamma=0.3)
        outer.begin_window(theta)
        for t in range(3):
            theta["w"][...] = window(PLAN, rank, 2 * t, theta["w"])
            if t < 2:
                outer.end_window(theta)
                outer.begin_window(theta)
            else:
                assert outer.step(theta).fresh
        assert outer.steps == 3
        assert theta["w"].tolist() == outer.outer_params["w"].tolist()
        found = bits(outer.state)
        assert outer.average().applied
        return ids, found, outer.outer_params["w"].tolist()

    results = peers.run(4, train)
    world = World(results[0][0], gamma=0.3)
    for _ in range(3):
        world.meet(world.groups())
    assert [one[1] for one in results] == [bits(state) for state in world.states]
    assert len({str(one[2]) for one in results}) == 1


def check_narrow_arrays(family: Family, _: Peers) -> None:
    start = np.float32([1.001, -2.003, 0.3])
    outer = family.ArrayNoLoCo({"w": start})
    theta = {"w": start.astype(np.float16)}
    for _step in range(3):
        outer.begin_window(theta)
        outer.end_window(theta)
    assert theta["w"].astype(np.float32).tolist() != start.tolist()
    assert outer.outer_params["w"].tolist() == start.tolist()


CHECKS: list[Check] = [
    check_world, check_one_start, check_nobody_else_waits, check_lost, check_late, check_newcomer,
    check_not_finite, check_average, check_alone, check_nothing_learned, check_checkpoint,
    check_arrays, check_narrow_arrays,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_noloco(check: Check, peers: Peers) -> None:
    check(REAL, peers)
