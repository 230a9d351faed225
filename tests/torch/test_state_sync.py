"""Syncs and snapshots of a training in torch: newcomers go on as the others do, and what is not the
caller's memory is written when it has to be, and only then."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from python.conftest import LIMIT_SECONDS, RunPeers, coordinator, run_peers  # noqa: E402

import pyccl  # noqa: E402
from pyccl.torch import shared_state  # noqa: E402

from .trainings import Kept, Training  # noqa: E402

__all__ = ["coordinator", "run_peers"]


def test_a_newcomer_goes_on_as_the_others_do(coordinator: pyccl.Coordinator) -> None:
    newcomer_may_come, joined = threading.Event(), threading.Event()
    weights: dict[str, list[Any]] = {}
    errors: list[BaseException] = []

    def go_on(name: str, comm: pyccl.Communicator, training: Training) -> None:
        for _ in range(5):
            training.step()
            comm.sync(training.state)
            weights.setdefault(name, []).append(
                (training.weights(), training.optimizer.param_groups[0]["lr"])
            )
        rates = training.scheduler.get_last_lr()
        weights[name].append((rates, [type(one) for one in rates], training.scheduler.last_epoch))

    def member(name: str) -> None:
        with pyccl.connect(coordinator.address, world_size_min=2, timeout=LIMIT_SECONDS) as comm:
            training = Training(comm.rank, lr=1)  # an int, until the scheduler has done with it
            for _ in range(7):
                comm.sync(training.state)
                training.step()
            newcomer_may_come.set()
            while comm.world_size < 3:
                comm.sync(training.state)
            go_on(name, comm, training)

    def newcomer() -> None:
        newcomer_may_come.wait(LIMIT_SECONDS)
        with pyccl.connect(coordinator.address, timeout=LIMIT_SECONDS) as comm:
            training = Training(77, lr=1)
            comm.sync(training.state)
            joined.set()
            assert training.state.revision == 7
            assert training.scheduler.last_epoch == 7
            go_on("newcomer", comm, training)

    def watched(function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=watched, args=one, daemon=True)
        for one in [(member, "a"), (member, "b"), (newcomer,)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LIMIT_SECONDS)
    assert not errors, errors[0]
    assert weights["a"] == weights["b"] == weights["newcomer"]
    assert len(weights["a"]) == 6


def test_a_sync_that_changes_nothing_writes_nothing(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        kept = Kept({"n": 3, "t": torch.ones(2)})
        column = torch.ones(4, 3)
        state = shared_state({"x": column[:, 1]}, kept=kept)
        versions = column._version, kept.held["t"]._version
        reads = kept.reads
        comm.sync(state)
        state.digest()
        comm.sync(state)
        unwritten = versions == (column._version, kept.held["t"]._version)
        return kept.reads - reads, kept.loads, unwritten

    assert run_peers(2, peer) == [(3, 0, True)] * 2


def test_only_what_was_changed_is_written(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        same, other = Kept({"n": 3}), Kept({"n": comm.rank, "s": "mine", "f": 0.5})
        x = torch.ones(4, 3)
        tensors = {"x": x[:, 1]}
        state = shared_state(tensors, revision=1 - comm.rank, same=same, other=other)
        version = x._version
        comm.sync(state)
        return same.loads, other.loads, other.held, x._version == version

    held = {"n": 0, "s": "mine", "f": 0.5}
    assert run_peers(2, peer) == [(0, 0, held, True), (0, 1, held, True)]


def test_mappings_may_be_in_another_order(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        kept = Kept({"a": 1, "b": 2.5} if comm.rank else {"b": 3, "a": True})
        comm.sync(shared_state({"x": torch.ones(1)}, kept=kept, revision=comm.rank))
        return repr(sorted(kept.held.items()))

    assert run_peers(2, peer) == [repr([("a", 1), ("b", 2.5)])] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_of_another_device(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        model = torch.nn.Linear(3, 2).cuda()
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        state = shared_state(model, optimizer, revision=comm.rank)
        model(torch.ones(1, 3, device="cuda")).sum().backward()
        optimizer.step()
        comm.sync(state)
        assert all(one.is_cuda for one in model.parameters())
        optimizer.step()
        return [one.tolist() for one in model.parameters()]

    first, second = run_peers(2, peer)
    assert first == second


def test_kinds_of_numbers_may_differ_between_members(run_peers: RunPeers) -> None:
    big = (1 << 53) + 1

    def peer(comm: pyccl.Communicator) -> Any:
        kept = Kept([1, 1.5, True, big] if comm.rank else [0.5, big, 1, False])
        comm.sync(shared_state({"x": torch.ones(1)}, kept=kept, revision=comm.rank))
        return repr(kept.held)

    assert run_peers(2, peer) == [repr([1, 1.5, True, big])] * 2


def test_a_failed_sync_leaves_all_as_it_was(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        kept = Kept({"n": comm.rank})
        column = torch.full((4, 3), float(comm.rank))
        shape = 1 + comm.rank  # they will not agree
        tensors = {"x": column[:, 1], "y": torch.zeros(shape)}
        with pytest.raises(pyccl.StateSyncError, match="y"):
            comm.sync(shared_state(tensors, kept=kept, revision=comm.rank))
        return kept.loads, kept.held, column.unique().tolist()

    assert run_peers(2, peer) == [(0, {"n": rank}, [rank]) for rank in range(2)]


def test_a_sync_that_fails_with_all_new_bits_is_carried_through() -> None:
    kept = Kept({"n": 1})
    state = shared_state({"x": torch.ones(1)}, kept=kept)

    def run() -> Any:
        state["kept.n"][...] = 2
        return (1, "the end came after the last block", None), ()

    with pytest.raises(pyccl.PycclError, match="the last block"):
        state._sync(run)
    assert kept.held == {"n": 2}


def test_what_is_interrupted_is_made_good_by_the_next_call() -> None:
    class Impatient(Kept):
        def load_state_dict(self, held: Any) -> None:
            super().load_state_dict(held)
            if self.loads == 1:
                raise KeyboardInterrupt

    first, second = Impatient({"n": 1}), Kept({"n": 1})
    state = shared_state({"x": torch.ones(1)}, first=first, second=second)

    def run() -> Any:
        state["first.n"][...] = state["second.n"][...] = 2
        return (1, "failed", None), ()

    with pytest.raises(KeyboardInterrupt):
        state._sync(run)
    assert second.held == {"n": 1}
    state.digest()
    assert (first.held, second.held) == ({"n": 2}, {"n": 2})


def test_calls_during_a_sync_do_not_disturb_it(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        column = torch.full((1 << 18, 2), float(comm.rank))
        state = shared_state({"x": column[:, 1]}, revision=comm.rank)

        def progress(moved: int, to_move: int) -> None:
            for call in (state.digest, lambda: comm.sync(state), lambda: state.load("none")):
                with pytest.raises(pyccl.InvalidArgumentError, match="of this state is running"):
                    call()

        comm.sync(state, progress=progress)
        return column.unique(dim=0).tolist()

    assert run_peers(2, peer) == [[[0, 1]], [[1, 1]]]


def test_a_grad_scaler_and_other_schedulers(run_peers: RunPeers) -> None:
    rates = torch.optim.lr_scheduler

    def peer(comm: pyccl.Communicator) -> Any:
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 1, momentum=0.9)
        warm = rates.SequentialLR(
            optimizer,
            [rates.LinearLR(optimizer), rates.CosineAnnealingWarmRestarts(optimizer, 3)],
            [2],
        )
        steps = rates.MultiStepLR(optimizer, [2, 3, 3])
        by_function = rates.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        plateau = rates.ReduceLROnPlateau(optimizer, patience=1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        scaler.scale(torch.ones(1))
        state = shared_state(
            model, optimizer, revision=5 * comm.rank, scaler=scaler,
            warm=warm, steps=steps, by_function=by_function, plateau=plateau,
        )  # fmt: skip
        if comm.rank == 1:
            optimizer.step()
            scaler.update(2.0**7)
            for loss in (1.0, 3.0, 3.0):
                warm.step()
                steps.step()
                by_function.step()
                plateau.step(loss)
        comm.sync(state)
        for one in (warm, steps, by_function):
            one.step()
        plateau.step(4.0)
        found = [warm.state_dict(), steps.state_dict(), by_function.state_dict()]
        found += [plateau.state_dict(), scaler.state_dict(), optimizer.param_groups[0]["lr"]]
        return repr([{k: v for k, v in one.items() if k != "_schedulers"} for one in found[:-1]])

    first, second = run_peers(2, peer)
    assert first == second
    assert "128.0" in first


def test_save_and_load(tmp_path: Path) -> None:
    old, new = Training(1), Training(2, lr=1)
    for _ in range(4):
        old.step()
    old.state.save(tmp_path / "snapshot")
    new.state.load(tmp_path / "snapshot")
    assert new.state.revision == 4
    assert new.state.digest() == old.state.digest()
    for _ in range(3):
        old.step()
        new.step()
    assert new.weights() == old.weights()
    assert new.optimizer.param_groups[0]["lr"] == old.optimizer.param_groups[0]["lr"]
    plain = type(old.state).load(tmp_path / "snapshot")
    assert isinstance(plain["model.wte.weight"], np.ndarray)
    assert plain["scheduler.last_epoch"] == 4
    assert pyccl.SharedState.load(tmp_path / "snapshot").digest() == plain.digest()


def test_a_failed_load_changes_no_numbers(tmp_path: Path) -> None:
    kept = Kept({"n": 1})
    column = torch.ones(4, 3)
    state = shared_state({"x": column[:, 1]}, kept=kept)
    path = tmp_path / "snapshot"
    state.save(path)
    kept.held, before = {"n": 2}, state.digest()
    column[:, 1] = 5
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(pyccl.StateFileError):
        state.load(path)
    assert kept.held == {"n": 2}
    assert column[0].tolist() == [1, 5, 1]
    assert state.digest() != before


def test_numbers_that_change_during_save_are_noticed(tmp_path: Path) -> None:
    class Ticking(Kept):
        def state_dict(self) -> Any:
            self.held = {"n": self.held["n"] + 1}
            return self.held

    state = shared_state({"x": torch.ones(1)}, kept=Ticking({"n": 1}))
    with pytest.raises(pyccl.StateFileError, match="changed while they were saved"):
        state.save(tmp_path / "snapshot")
