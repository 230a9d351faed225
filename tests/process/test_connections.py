"""Connections that break cost no peer and no operation."""

from __future__ import annotations

import contextlib
import socket

from process import jobs
from process.watch import Watch

from pyccl.testing import FaultProxy, LocalCluster

MIB = 1 << 18  # f32


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_one_of_four_connections_is_reset_every_50_ms() -> None:
    count = 2
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(0, jobs.reduce_loop, (64 * MIB,)))
        proxies = []
        for _ in range(count):
            target = f"127.0.0.1:{free_port()}"
            proxy = stack.enter_context(FaultProxy(target, reset_every=0.05))
            cluster.add(
                connect={
                    "world_size_min": count,
                    "connections": 4,
                    "transport": "tcp",
                    "listen": target,
                    "advertise": proxy.address,
                }
            )
            proxies.append(proxy)
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 8, 60.0)
        cluster.peers[0].send("end")
        assert cluster.results() == {0: "ended", 1: "ended"}
        watch.drain()
        resets = sum(proxy.resets for proxy in proxies)
    outcomes = [one for outcomes in watch.outcomes.values() for one in outcomes.values()]
    assert resets >= 8
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert len({outcome.epoch for outcome in outcomes}) == 1
    assert {outcome.contributors for outcome in outcomes} == {(0, 1)}
