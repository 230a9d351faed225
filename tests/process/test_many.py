"""64 peers on one machine."""

from __future__ import annotations

import resource
import threading

import numpy as np
import pytest

import pyccl

PEERS = 64
# Two sockets for each pair, and those of the coordinator.
DESCRIPTORS = PEERS * PEERS + 2000


def test_64_peers_form_a_view_and_reduce() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"the system allows {hard} open files, and {DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    totals: list[tuple[float, float, int]] = []

    with pyccl.Coordinator("127.0.0.1:0") as coordinator:

        def peer() -> None:
            with pyccl.connect(
                coordinator.address, connections=1, world_size_min=PEERS, timeout=90
            ) as comm:
                x = np.full(1 << 18, float(comm.rank), np.float32)
                info = comm.all_reduce(x, timeout=60)
                comm.barrier(timeout=60)
                totals.append((x.min(), x.max(), info.world_size))

        threads = [threading.Thread(target=peer, daemon=True) for _ in range(PEERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert totals == [(2016.0, 2016.0, PEERS)] * PEERS
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
