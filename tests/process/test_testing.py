"""LocalCluster and FaultProxy themselves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from process import jobs

import pyccl
from pyccl.testing import FaultProxy, LocalCluster, PeerProcessError


def gone(pid: int, seconds: float = 20.0) -> bool:
    """True once there is no such process, or only its grave, within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
    return False


def test_results_come_by_index() -> None:
    with LocalCluster(3, jobs.world_size) as cluster:
        assert cluster.results() == {0: 3, 1: 3, 2: 3}
        assert [peer.wait() for peer in cluster.peers] == [0, 0, 0]


def test_reports_and_orders_pass() -> None:
    with LocalCluster(2, jobs.echo) as cluster:
        ranks = {peer.next_report() for peer in cluster.peers}
        assert ranks == {("rank", 0), ("rank", 1)}
        for peer in cluster.peers:
            peer.send(peer.index * 10)
        assert cluster.results() == {0: 0, 1: 10}


def test_errors_come_with_their_traceback() -> None:
    with LocalCluster(2, jobs.fail, ("on purpose",)) as cluster:
        with pytest.raises(PeerProcessError, match=r"(?s)in fail.*Error: on purpose") as caught:
            cluster.results()
        assert isinstance(caught.value.__cause__, ValueError)
        assert isinstance(cluster.peers[1].exception(), ValueError)


def test_a_death_is_no_result() -> None:
    with LocalCluster(2, jobs.echo) as cluster:
        cluster.peers[0].wait_connected()
        os.kill(cluster.peers[0].pid, signal.SIGKILL)  # not by the cluster's own hand
        assert cluster.peers[0].wait() == -signal.SIGKILL
        with pytest.raises(PeerProcessError, match="exit status -9"):
            cluster.peers[0].result()
        with pytest.raises(TimeoutError, match="has not ended in time"):
            cluster.peers[1].result(timeout=0.05)


def test_functions_must_be_found_by_name() -> None:
    with (
        LocalCluster(0, jobs.echo) as cluster,
        pytest.raises(pyccl.InvalidArgumentError, match="top level"),
    ):
        cluster.add(lambda comm, index: None)


def test_nothing_outlives_the_block() -> None:
    with LocalCluster(2, jobs.echo) as cluster:
        cluster.peers[0].wait_connected()
        cluster.stop(1)
        pids = [peer.pid for peer in cluster.peers]
    assert all(gone(pid) for pid in pids)


def test_nothing_outlives_the_test_process() -> None:
    script = (
        "import sys; from process import jobs; from pyccl.testing import LocalCluster\n"
        "cluster = LocalCluster(2, jobs.echo)\n"
        "for peer in cluster.peers: peer.wait_connected()\n"
        "cluster.stop(1)\n"
        "print(*(peer.pid for peer in cluster.peers), cluster.coordinator.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd="/",
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)


def echo_server() -> tuple[str, socket.socket]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}", server


def talk_until_broken(client: socket.socket) -> None:
    while True:
        client.sendall(b"x")
        if not client.recv(1):
            raise ConnectionResetError


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_the_proxy_passes_everything_on_and_resets() -> None:
    address, server = echo_server()
    with server, FaultProxy(address) as proxy, connect(proxy.address) as client:
        sent = os.urandom(8 << 20)
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        received = b""
        while len(received) < len(sent):
            received += client.recv(1 << 20)
        writer.join()
        assert received == sent
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert proxy.resets == 1


def test_the_proxy_resets_by_the_clock() -> None:
    address, server = echo_server()
    with server, FaultProxy(address, reset_every=0.02) as proxy:
        for _ in range(3):
            with connect(proxy.address) as client, pytest.raises(ConnectionError):
                talk_until_broken(client)
        assert proxy.resets >= 3


def test_a_proxy_needs_a_target() -> None:
    for target in ("nowhere", "host:x", ":"):
        with pytest.raises(pyccl.InvalidArgumentError, match="host:port"):
            FaultProxy(target)
