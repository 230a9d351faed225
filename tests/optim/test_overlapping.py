"""Outer optimizers that train on while a step is under way: what is spoiled, what is given up, who
leaves, and other groups beside them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL
from .test_comparison import START, counted
from .test_comparison import train as steps_of

torch = pytest.importorskip("torch")


def streaming(comm: Any = None, **options: Any) -> tuple[Any, Any]:
    """Two fragments, one behind each step, merged in halves."""
    parts = {name: torch.nn.Parameter(torch.from_numpy(START.copy())) for name in "ab"}
    options = {"fragments": [["a"], ["b"]], "sync_every": 2, **options}
    inner = torch.optim.SGD(parts.values(), lr=0.25)
    return parts, REAL.StreamingDiLoCo(parts.items(), inner, comm, **options)


def delayed(comm: Any = None, kind: Any = None, **options: Any) -> tuple[Any, Any]:
    """One number; what is learned of a gradient of g is -g."""
    weight = torch.nn.Parameter(torch.zeros(1))
    kind = kind or REAL.DelayedDiLoCo
    options = {"sync_every": 1, "outer_lr": 0.5, **options}
    return weight, kind([weight], torch.optim.SGD([weight], lr=1.0), comm, **options)


def learn(weight: Any, opt: Any, *gradients: float) -> None:
    for one in gradients:
        weight.grad = torch.full_like(weight, one)
        opt.step()


def run(parts: Any, opt: Any, rank: int, *steps: int) -> None:
    for _ in steps_of(parts, opt, rank, range(*steps)):
        pass


# --- Streaming ------------------------------------------------------------------------------------


def test_a_nan_is_gone_behind_the_next_outer_step(peers: Peers) -> None:
    """Of the parameters, or of phi by itself: the peer counts again, and its model is whole."""

    def train(comm: Any, of_phi: bool) -> list[int]:
        parts, opt = streaming(comm)
        rank, found = comm.rank, []
        for step in steps_of(parts, opt, rank, range(12)):
            if step == 3 and rank == 1:
                (opt.outer.params if of_phi else parts["a"].detach())[2] = np.nan
            found.append(opt.last_sync.contributors)
        assert all(one.isfinite().all() for one in parts.values())
        for name, one in parts.items():
            distance = np.abs(one.detach().numpy() - opt.outer.views[name]).max()
            assert distance < 2, name
        return found

    for of_phi in (False, True):
        first, other, third = peers.run(3, lambda comm, of_phi=of_phi: train(comm, of_phi))
        assert first == other == third
        assert 2 in first
        assert first[-4:] == [3] * 4


def test_a_sync_that_fails_is_made_up_for(peers: Peers) -> None:
    def train(comm: Any) -> str:
        parts, opt = streaming(comm)
        rank, sync, calls = comm.rank, comm.sync, []

        def fails_once(*arguments: Any, **options: Any) -> Any:
            calls.append(step)
            if len(calls) == 1:
                raise pyccl.CancelledError("so it goes")
            return sync(*arguments, **options)

        comm.sync = fails_once
        for step in steps_of(parts, opt, rank, range(8)):
            if step == 2 and rank == 1:
                opt.outer.params[3] += 1
        assert len(calls) == 2
        return str(opt.outer.hash())

    assert len(set(peers.run(2, train))) == 1


def test_a_checkpoint_is_loaded_while_a_fragment_is_under_way() -> None:
    """The model that was loaded before stays what it is."""
    parts, opt = streaming(sync_every=8, overlap=2)
    run(parts, opt, 0, 4)
    kept, values = opt.state_dict(), [one.detach().clone() for one in parts.values()]
    other, again = streaming(sync_every=8, overlap=2)
    run(other, again, 0, 3)
    assert again._pending is not None
    for one, value in zip(other.values(), values, strict=True):
        one.detach().copy_(value)
    again.load_state_dict(kept)
    for one, value in zip(other.values(), values, strict=True):
        assert torch.equal(one.detach(), value)
    for model, optimizer in ((parts, opt), (other, again)):
        run(model, optimizer, 0, 4, 12)
    assert again.outer.hash() == opt.outer.hash()


def test_a_newcomer_counts_no_sooner_behind_a_checkpoint() -> None:
    parts, opt = streaming(sync_every=8, overlap=2)
    opt._age = 0  # as if it had come just now
    run(parts, opt, 0, 2)
    assert opt._pending.weight == 0
    again = streaming(sync_every=8, overlap=2)[1]
    kept = opt.state_dict()
    kept["outer"]["age"] = 8
    again.load_state_dict(kept)
    assert again._pending.weight == 0


# --- A window late --------------------------------------------------------------------------------


def test_who_takes_leave_keeps_the_step_and_what_it_has_learned(peers: Peers) -> None:
    def train(comm: Any) -> list[float]:
        rank = comm.rank
        weight, opt = delayed(comm)
        learn(weight, opt, 1, 2)  # phi is at -0.5, and -2 is on its way
        weight.grad = torch.full_like(weight, 4.0)
        opt.inner.step()
        if rank == 0:
            opt.leave()
            opt.leave()
        else:
            opt.drain()
        found = [opt.outer.params[0], weight.item()]
        if rank == 0:
            learn(weight, opt, 0, 0, 0)
            found.append(opt.outer.params[0])
        return [float(one) for one in found]

    # What was learned beyond phi, -4, is applied alone, and nothing besides.
    assert peers.run(2, train) == [[-1.5, -5.5, -3.5], [-1.5, -5.5]]


def test_a_step_that_does_not_come_about_is_not_lost_by_drain(peers: Peers) -> None:
    def train(comm: Any) -> list[float]:
        weight, opt = delayed(comm, min_peers=3)
        learn(weight, opt, 1, 2)
        assert not opt.last_sync.applied
        assert not opt.drain().applied
        return [weight.item(), float(opt.outer.params[0])]

    assert peers.run(2, train) == [[-3.0, 0.0]] * 2


def test_rates_that_diverge_are_refused_later_too() -> None:
    for kind in (REAL.DelayedDiLoCo, REAL.CO2):
        _, opt = delayed(kind=kind)
        for name, wrong in (("outer_lr", 5.0), ("outer_momentum", 0.9)):
            with pytest.raises(InvalidArgumentError, match="diverges"):
                setattr(opt, name, wrong)
        opt.outer_lr = 0.1
        assert opt.outer.lr == np.float32(0.1)
        wild = delayed(kind=kind, outer_lr=5.0, allow_unstable=True)[1]
        wild.outer_lr = 6.0
        before = opt.outer.hash()
        with pytest.raises(InvalidArgumentError, match="diverges"):
            opt.load_state_dict(wild.state_dict())
        assert opt.outer.hash() == before


def test_a_state_that_is_refused_leaves_an_optimizer_that_goes_on() -> None:
    weight, opt = delayed()
    kept = opt.state_dict()
    kept["outer"]["params"] = torch.full((1,), torch.nan)
    with pytest.raises(InvalidArgumentError):
        opt.load_state_dict(kept)
    learn(weight, opt, 1, 1)
    assert opt.outer.params[0] == -0.5


# --- Both -----------------------------------------------------------------------------------------


def test_they_tell_how_alike_peers_train(peers: Peers) -> None:
    def train(comm: Any) -> Any:
        parts, first = streaming(comm, diagnostics=True)
        weight, second = delayed(comm, diagnostics=True)
        first.loss = second.loss = 1.0 + comm.rank
        run(parts, first, comm.rank, 4)
        learn(weight, second, 1, 1)
        return first.last_sync.consistency, second.last_sync.consistency

    one, other = peers.run(2, train)
    assert one == other
    assert [part.losses for part in one] == [(1.0, 2.0)] * 2


def test_beside_other_groups_syncs_are_at_fixed_places(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of the whole run, and must not depend on what one group knows."""
    monkeypatch.setattr(pyccl.Communicator, "groups", property(lambda _: 2))

    def train(comm: Any) -> None:
        for parts, opt in (streaming(comm), streaming(comm, sync_every=8)):
            count, by_step = counted(comm), []
            for step in steps_of(parts, opt, comm.rank, range(8)):
                if step == 2 and comm.rank == 1:
                    opt.outer.params[3] += 1
                by_step.append(count[0])
            every = opt.schedule.sync_every
            assert by_step == [(step + 1) // every for step in range(8)]

    peers.run(2, train)


def test_groups_of_a_run_are_counted() -> None:
    with pyccl.Coordinator("127.0.0.1:0") as coordinator:
        one = pyccl.connect(coordinator.address, group="one")
        assert one.groups == 1
        come: list[Any] = []

        def other() -> None:
            come.append(pyccl.connect(coordinator.address, group="two", timeout=LIMIT_SECONDS))

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        while one.groups < 2:  # then it would have to call update() as well
            one.update(LIMIT_SECONDS)
        thread.join(LIMIT_SECONDS)
        assert (one.groups, come[0].groups) == (2, 2)
        assert one.world_size == 1
        come[0].leave()
        one.leave()
