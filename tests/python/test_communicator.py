"""Joining, boundaries, leaving, and what a communicator says of itself."""

from __future__ import annotations

import pickle
import re
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl import errors


def test_what_it_says_of_itself(coordinator: pyccl.Coordinator) -> None:
    with pyccl.connect(coordinator.address, group="mine", timeout=30) as comm:
        assert (comm.rank, comm.world_size) == (0, 1)
        assert comm.peers == (comm.peer,)
        assert re.fullmatch("[0-9a-f]{16}", comm.peer)
        assert comm.epoch >= pyccl.Epoch(1, 1)
        assert not comm.peers_pending
        assert comm.view == pyccl.View(comm.epoch, 0, 1, comm.peers)
        assert re.fullmatch(
            r"<pyccl.Communicator rank 0 of 1, epoch \d+\.\d+, group 'mine' at .*>", repr(comm)
        )
    assert comm.closed
    assert "closed" in repr(comm)
    assert coordinator.address in repr(coordinator)


def test_ranks_and_peers_agree(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[int, tuple[str, ...], str, pyccl.Epoch]:
        seen = comm.rank, comm.peers, comm.peer, comm.epoch
        comm.barrier()  # nobody leaves before all have looked
        return seen

    results = run_peers(4, function)
    assert [rank for rank, *_ in results] == [0, 1, 2, 3]
    assert len({(peers, epoch) for _, peers, _, epoch in results}) == 1
    assert tuple(peer for _, _, peer, _ in results) == results[0][1]


def test_a_joiner_is_hinted_at_and_admitted_at_the_boundary(coordinator: pyccl.Coordinator) -> None:
    joined: list[tuple[int, float]] = []

    def join() -> None:
        with pyccl.connect(coordinator.address, timeout=30) as late:
            x = np.zeros(3)
            late.all_reduce(x, op="avg", weight=0.0, timeout=30)
            joined.append((late.world_size, x[0]))

    with pyccl.connect(coordinator.address, timeout=30) as comm:
        before = comm.epoch
        thread = threading.Thread(target=join, daemon=True)
        thread.start()
        # Each round is an operation that nobody but this member takes part in.
        for _ in range(100_000):
            assert comm.world_size == 1
            if comm.barrier(timeout=30).peers_pending:
                break
        assert comm.peers_pending
        view = comm.update(30)
        assert not comm.peers_pending
        assert view.world_size == comm.world_size == 2
        assert comm.epoch > before
        comm.all_reduce(np.full(3, 5.0), op="avg", timeout=30)
        thread.join(30)
    assert joined == [(2, 5.0)]


@pytest.mark.parametrize("options", [{"transport": "tcp"}, {"spin_us": 100}], ids=str)
def test_ways_to_talk_and_to_wait(run_peers: Any, options: dict[str, Any]) -> None:
    def function(comm: pyccl.Communicator) -> list[list[float]]:
        x = np.full(3, float(comm.rank))
        for _ in range(20):
            comm.barrier()
        return [row.tolist() for row in comm.all_gather(x)]

    assert run_peers(3, function, **options) == [[[0.0] * 3, [1.0] * 3, [2.0] * 3]] * 3


def test_an_update_that_somebody_omits_times_out(run_peers: Any) -> None:
    timed_out = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            # Who is missing comes with the coordinator's heartbeat.
            with pytest.raises(pyccl.OperationTimeout, match=r"missing: .*rank 1"):
                comm.update(1.5)
            timed_out.set()
        else:
            assert timed_out.wait(20)
        comm.barrier()

    run_peers(2, function)


def test_nothing_works_after_leaving(coordinator: pyccl.Coordinator) -> None:
    comm = pyccl.connect(coordinator.address, timeout=30)
    comm.leave()
    comm.leave()
    for use in (
        lambda: comm.all_reduce(np.ones(2)),
        lambda: comm.all_reduce(np.ones(2), async_op=True),
        lambda: comm.barrier(),
        lambda: comm.update(),
    ):
        with pytest.raises(pyccl.ClosedError, match="connect"):
            use()
    assert comm.rank == 0  # of the last view


def test_the_others_go_on_when_one_leaves(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> int:
        leaves = comm.rank == 1  # with the next view another may have that rank
        comm.barrier()
        if leaves:
            comm.leave()
            return 0
        return comm.all_reduce(np.ones(2)).world_size

    assert run_peers(3, function) == [2, 0, 2]


def test_an_exception_closes_without_a_farewell(coordinator: pyccl.Coordinator) -> None:
    comm = pyccl.connect(coordinator.address, timeout=30)
    with pytest.raises(RuntimeError, match="of the user"), comm:
        raise RuntimeError("of the user")
    assert comm.closed


def test_an_unreachable_coordinator(unused_port: int) -> None:
    with pytest.raises(pyccl.CoordinatorUnavailableError, match=str(unused_port)):
        pyccl.connect(f"127.0.0.1:{unused_port}", timeout=0.5)


def test_something_else_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            stranger, _ = server.accept()
            with stranger:
                stranger.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
                stranger.settimeout(10)
                while stranger.recv(1 << 16):
                    pass

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises((pyccl.ProtocolError, pyccl.CoordinatorUnavailableError)):
            pyccl.connect(f"127.0.0.1:{server.getsockname()[1]}", timeout=1.0)


def test_a_joiner_that_nobody_admits(coordinator: pyccl.Coordinator) -> None:
    with pyccl.connect(coordinator.address, timeout=30) as comm:
        with pytest.raises(pyccl.PycclError) as caught:
            pyccl.connect(coordinator.address, timeout=0.5)
        assert isinstance(caught.value, (pyccl.OperationTimeout, pyccl.NotAdmittedError))
        assert "update" in str(caught.value)
        comm.update(30)
        assert comm.world_size == 1


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:99999", ":x", 17])
def test_a_bad_address(address: Any) -> None:
    with pytest.raises(pyccl.InvalidArgumentError):
        pyccl.connect(address, timeout=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"connections": 0}, {"connections": 65}, {"role": "boss"}, {"group": ""},
        {"timeout": -1.0}, {"listen": "everywhere"}, {"world_size_min": 0}, {"advertise": "x"},
        {"heartbeat_limit": 0.0}, {"operation_timeout": 0.0}, {"group": "g" * 300},
        {"transport": "rdma"}, {"transport": None}, {"spin_us": -1}, {"spin_us": 1_000_001},
        {"spin_us": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options(coordinator: pyccl.Coordinator, options: dict[str, Any]) -> None:
    with pytest.raises((pyccl.InvalidArgumentError, pyccl.NotAdmittedError)):
        pyccl.connect(coordinator.address, **{"timeout": 5.0, **options})


@pytest.mark.parametrize("options", [{"operation_timeout": -1.0}, {"world_size_min": "2"}], ids=str)
def test_bad_options_are_refused_before_anybody_hears_of_the_peer(options: dict[str, Any]) -> None:
    # Nobody listens there, which a connect() that got that far would find out.
    with pytest.raises(pyccl.InvalidArgumentError):
        pyccl.connect("127.0.0.1:1", timeout=0.5, **options)


def test_a_port_in_use(coordinator: pyccl.Coordinator) -> None:
    with pytest.raises(pyccl.AddressInUseError, match=coordinator.address):
        pyccl.Coordinator(coordinator.address)


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    state = tmp_path / "run.state"
    state.write_bytes(b"not a state file")
    with pytest.raises(pyccl.PycclError, match=r"run\.state"):
        pyccl.Coordinator("127.0.0.1:0", state=state)


def test_garbage_harms_nobody(coordinator: pyccl.Coordinator) -> None:
    host, port = coordinator.address.split(":")
    random = np.random.default_rng(0)
    with pyccl.connect(coordinator.address, timeout=30) as comm:
        for target in (coordinator.address, comm._core.address()):
            for size in (1, 40, 5000):
                port = int(target.rpartition(":")[2])
                with socket.create_connection((host, port), timeout=10) as stranger:
                    stranger.sendall(random.bytes(size))
        assert comm.all_reduce(np.ones(3)).members == 1


def test_all_errors_are_of_one_tree_and_can_be_pickled() -> None:
    for cls in errors._CLASSES.values():
        error = cls("what happened", peer="0123456789abcdef")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is cls
        assert (str(copy), copy.peer) == ("what happened", "0123456789abcdef")
        assert isinstance(error, pyccl.PycclError)
        assert getattr(pyccl, cls.__name__) is cls
    assert set(errors._CLASSES) == set(pyccl._core.codes) - {"ok"}


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_listener_on_all_addresses_is_reached_by_both_families(host: str) -> None:
    with pyccl.Coordinator(f"{host}:0") as coordinator:

        def peer() -> None:
            with connect(coordinator) as other:
                other.barrier()

        def connect(to: pyccl.Coordinator) -> pyccl.Communicator:
            return pyccl.connect(to.address, listen="[::]:0", world_size_min=2, timeout=20)

        thread = threading.Thread(target=peer, daemon=True)
        thread.start()
        with connect(coordinator) as comm:
            assert comm.world_size == 2
            comm.barrier()
        thread.join(20)
