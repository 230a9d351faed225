"""Which ranks an error names, whenever it is read."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from pyccl.torch import PeerLostError, ProcessGroup

LIMIT_SECONDS = 20.0


def await_alone(group: ProcessGroup) -> None:
    """Until all others have gone."""
    communicator = group._run.communicator
    alone = threading.Event()
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(communicator.peers) > 1:
        assert time.monotonic() < deadline, "the others don't go"
        alone.wait(0.005)


@pytest.mark.parametrize("begins", ["before", "after"])
def test_who_has_left_because_of_a_loss_is_not_lost(run_ranks: Any, begins: str) -> None:
    """Rank 2 looks when rank 0 has left. An operation of its own was open all the time, or it
    begins the first one then."""

    def function(group: ProcessGroup) -> None:
        group.barrier().wait()
        if group.rank() == 1:
            group.abort()
            return
        work = group.allreduce([torch.ones(3)]) if begins == "before" or group.rank() == 0 else None
        if group.rank() == 0:
            with pytest.raises(PeerLostError):
                work.wait()
            group.shutdown()
            return
        await_alone(group)
        with pytest.raises(PeerLostError, match="rank 2 of 3: rank 1 lost") as caught:
            (work or group.allreduce([torch.ones(3)])).wait()
        assert caught.value.ranks == (1,)
        with pytest.raises(PeerLostError, match="rank 2 of 3: rank 1 lost") as caught:
            group.barrier().wait()
        assert caught.value.ranks == (1,)

    run_ranks(3, function)


def test_the_text_names_ranks_of_the_group(run_ranks: Any) -> None:
    """Not those in the order of joining, which differ from run to run."""

    def function(group: ProcessGroup) -> None:
        group.barrier().wait()
        if group.rank() == 1:
            lose.wait(LIMIT_SECONDS)
            group.abort()
            return
        work = group.allreduce([torch.ones(3)])
        lose.wait(LIMIT_SECONDS)
        with pytest.raises(PeerLostError, match=r": rank 1 died") as caught:
            work.wait()
        assert "(rank" not in str(caught.value)

    for _ in range(3):
        lose = threading.Barrier(3)
        run_ranks(3, function)
