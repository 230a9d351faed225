"""A joiner and three holders on slow links, real sockets: all of them send, each what it can.

Needs the right to make network namespaces and `ip` and `tc`; skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from process.spaces import in_space, name_of, run, spaces

HOLDERS = (0, 1, 2)
JOINER = 3
COORDINATOR = "10.213.0.100:48150"
MBIT, SLOW_MBIT = 100, 20
SIZE_MIB = 24
ROUNDS_MAX = 5

# By turns, so that what else the machine does disturbs all alike, and again while it disturbs too
# much: two kinds of syncs, told by who may send, of which the second one shall take at most
# `share` of the time of the first one. The first round is not counted: nobody knows then what a
# link carries.
PEER = f"""
import json, sys
import numpy as np
import pyccl

index, share = int(sys.argv[1]), float(sys.argv[3])
kinds = json.loads(sys.argv[2])
ends = [[] for _ in kinds]
with pyccl.connect("{COORDINATOR}", world_size_min=4, transport="tcp") as comm:
    x = np.empty({SIZE_MIB} << 20, np.uint8)
    joins = index == {JOINER}
    enough = np.zeros(1)
    for turn in range(1 + {ROUNDS_MAX}):
        for number, senders in enumerate(kinds):
            # Noise: what could be compressed would say nothing of the links.
            wanted = np.frombuffer(np.random.default_rng(turn).bytes(x.size), np.uint8)
            x[:] = 0 if joins else wanted
            state = pyccl.SharedState({{"x": x}}, 0 if joins else 1)
            comm.barrier()
            may = joins or index in senders
            info = comm.sync(state, "popular" if may else "receive_only")
            assert (x == wanted).all()
            sizes = {{one.rank: one.bytes >> 20 for one in info.sources}}
            ends[number].append((round(info.seconds, 3), sizes))
        first, second = (min(each[1:], default=(0,))[0] for each in ends)
        enough[0] = joins and turn >= 2 and second <= share * first
        comm.all_reduce(enough, op="max")
        if enough[0]:
            break
if joins:
    print(json.dumps(ends))
"""


def connect(peer: int, mbit: int) -> None:
    """Gives a peer a namespace and a link to the bridge, slow in both directions for holders."""
    space, switch, port = name_of(peer), name_of("switch"), f"port{peer}"
    run(f"ip link add eth netns {space} type veth peer name {port} netns {switch}")
    run(f"ip -n {switch} link set {port} master bridge up")
    run(f"ip -n {space} addr add 10.213.0.{peer + 1}/24 dev eth")
    run(f"ip -n {space} link set lo up")
    run(f"ip -n {space} link set eth up")
    if peer in HOLDERS:
        shape = f"root tbf rate {mbit}mbit burst 64k latency 50ms"
        run(f"tc -n {space} qdisc add dev eth {shape}")
        run(f"tc -n {switch} qdisc add dev {port} {shape}")


@contextlib.contextmanager
def network(first_mbit: int) -> Iterator[None]:
    """With holders whose links carry 100 Mbit/s, but for that of the first one."""
    switch = name_of("switch")
    first = [
        f"ip -n {switch} link add bridge type bridge",
        f"tc -n {switch} qdisc add dev bridge root tbf rate 1gbit burst 64k latency 50ms",
    ]
    with spaces((*HOLDERS, JOINER, "switch"), first):
        run(f"tc -n {switch} qdisc del dev bridge root")
        run(f"ip -n {switch} link set bridge up")
        run(f"ip -n {switch} addr add 10.213.0.100/24 dev bridge")
        for peer in (*HOLDERS, JOINER):
            connect(peer, first_mbit if peer == HOLDERS[0] else MBIT)
        yield


def ratio(kinds: list[tuple[int, ...]], share: float) -> float:
    """What a sync of the second kind takes, to what one of the first kind takes; the best each."""
    coordinator = in_space("switch", "-m", "pyccl.cli", "coordinator", "--bind", COORDINATOR)
    peers = [
        in_space(peer, "-c", PEER, str(peer), json.dumps(kinds), str(share))
        for peer in (*HOLDERS, JOINER)
    ]
    try:
        said = [peer.communicate(timeout=120)[0] for peer in peers]
    finally:
        for process in (*peers, coordinator):
            process.kill()
            process.wait()
    assert [peer.returncode for peer in peers] == [0] * 4, said
    ends = json.loads(said[JOINER].splitlines()[-1])
    for senders, each in zip(kinds, ends, strict=True):
        print(f"from {senders}: seconds, and MiB by rank: {each}")
    first, second = (min(seconds for seconds, _ in each[1:]) for each in ends)
    return float(second / first)


def test_three_holders_give_more_than_one() -> None:
    with network(MBIT):
        assert ratio([(1,), (0, 1, 2)], 0.45) <= 0.5


def test_nobody_waits_for_a_slow_holder() -> None:
    """Divided evenly, what comes from the slow one would take three times as long as what the two
    others need for all of it."""
    with network(SLOW_MBIT):
        assert ratio([(1, 2), (0, 1, 2)], 1.4) <= 1.5
