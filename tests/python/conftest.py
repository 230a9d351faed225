"""A coordinator in the test process, and peers on threads of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pyccl

# Long enough for a loaded machine, short enough that a hang is an error and not a pause.
LIMIT_SECONDS = 30.0

RunPeers = Callable[..., list[Any]]


@pytest.fixture
def coordinator() -> Iterator[pyccl.Coordinator]:
    with pyccl.Coordinator("127.0.0.1:0") as running:
        yield running


@pytest.fixture
def run_peers(coordinator: pyccl.Coordinator) -> RunPeers:
    """run_peers(count, function, **connect): what function(comm) gave, in rank order.

    Raises what one of them raised; if several did, what came first: others may follow from it.
    """

    def run(count: int, function: Callable[[pyccl.Communicator], Any], **connect: Any) -> list[Any]:
        results: dict[int, Any] = {}
        errors: list[BaseException] = []
        # Nobody begins, and maybe leaves, before all know their ranks.
        all_there = threading.Barrier(count)

        def peer() -> None:
            try:
                with pyccl.connect(
                    coordinator.address,
                    world_size_min=count,
                    timeout=LIMIT_SECONDS,
                    operation_timeout=LIMIT_SECONDS,
                    **connect,
                ) as comm:
                    rank = comm.rank
                    all_there.wait(LIMIT_SECONDS)
                    results[rank] = function(comm)
            except BaseException as error:
                errors.append(error)
                all_there.abort()

        threads = [threading.Thread(target=peer, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * LIMIT_SECONDS)
        assert not any(thread.is_alive() for thread in threads), "a peer hangs"
        if errors:
            raise errors[0]
        return [results[rank] for rank in range(count)]

    return run


@pytest.fixture
def alone(coordinator: pyccl.Coordinator) -> Iterator[pyccl.Communicator]:
    """The only member of a group: arguments are checked all the same."""
    with pyccl.connect(coordinator.address, timeout=LIMIT_SECONDS) as comm:
        yield comm
