"""One slow link among fast ones, real sockets: what the traffic shows of it changes the plan.

Needs the right to make network namespaces and `ip` and `tc`; skipped elsewhere. The simulator has
the same with more peers and other links.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process.spaces import in_space, name_of, run, spaces

PEERS = 4
SLOW = (1, 2)
COORDINATOR = "10.211.0.100:48148"
# Each peer says which algorithm ran before and after a boundary, which is when a view may change.
PEER = f"""
import numpy as np
import pyccl

with pyccl.connect("{COORDINATOR}", world_size_min={PEERS}, transport="tcp") as comm:
    x = np.ones(1 << 21, np.float32)
    before = [comm.all_reduce(x, op="avg").algorithm for _ in range(2)]
    comm.update()
    print(before[0], comm.all_reduce(x, op="avg").algorithm, bool(np.all(x == 1)))
"""


def connect(peer: int) -> None:
    """Gives a peer a namespace, and a link of 1 Gbit/s to the bridge."""
    space, switch, port = name_of(peer), name_of("switch"), f"port{peer}"
    run(f"ip link add eth netns {space} type veth peer name {port} netns {switch}")
    run(f"ip -n {switch} link set {port} master bridge up")
    run(f"ip -n {space} addr add 10.211.0.{peer + 1}/24 dev eth")
    run(f"ip -n {space} link set lo up")
    run(f"ip -n {space} link set eth up")
    run(f"tc -n {space} qdisc add dev eth root handle 1: htb default 10")
    run(f"tc -n {space} class add dev eth parent 1: classid 1:10 htb rate 1gbit burst 64k")


def slow_down(peer: int, other: int) -> None:
    space = name_of(peer)
    run(f"tc -n {space} class add dev eth parent 1: classid 1:20 htb rate 20mbit burst 16k")
    run(
        f"tc -n {space} filter add dev eth protocol ip parent 1: u32"
        f" match ip dst 10.211.0.{other + 1} flowid 1:20"
    )


@pytest.fixture
def network() -> Iterator[None]:
    switch = name_of("switch")
    first = [
        f"ip -n {switch} link add bridge type bridge",
        f"tc -n {switch} qdisc add dev bridge root handle 1: htb",
    ]
    with spaces((*range(PEERS), "switch"), first):
        run(f"tc -n {switch} qdisc del dev bridge root")
        run(f"ip -n {switch} link set bridge up")
        run(f"ip -n {switch} addr add 10.211.0.100/24 dev bridge")
        for peer in range(PEERS):
            connect(peer)
        slow_down(*SLOW)
        slow_down(*reversed(SLOW))
        yield


def test_the_ring_leaves_a_slow_link_out_once_it_is_known(network: None) -> None:
    coordinator = in_space("switch", "-m", "pyccl.cli", "coordinator", "--bind", COORDINATOR)
    peers = [in_space(peer, "-c", PEER) for peer in range(PEERS)]
    try:
        said = [peer.communicate(timeout=60)[0].split() for peer in peers]
    finally:
        for process in (*peers, coordinator):
            process.kill()
            process.wait()
    assert said == [["direct", "ring", "True"]] * PEERS
