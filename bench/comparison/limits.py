"""What the machine itself can do, measured in the same run: nothing that copies, adds or sends the
same bytes can be faster. In 1e9 bytes per second; a sample of all of them takes a second or two.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable

import numpy as np

_MEMORY_BYTES = 128 << 20
_TCP_BYTES = 512 << 20
_WRITE_BYTES = 1 << 20
_REPEATS = 3


def sample() -> dict[str, float]:
    """Each limit once."""
    threads = os.cpu_count() or 1
    found = {"memcpy, 1 thread": _memcpy(1), "c = a + b, 1 thread": _add(1)}
    if threads > 1:
        found[f"memcpy, {threads} threads"] = _memcpy(threads)
        found[f"c = a + b, {threads} threads"] = _add(threads)
    found["loopback TCP, one way"] = _tcp(both_ways=False)
    found["loopback TCP, both ways together"] = _tcp(both_ways=True)
    return found


def _memcpy(threads: int) -> float:
    """Bytes copied."""

    def prepare() -> Callable[[], object]:
        source = np.ones(_MEMORY_BYTES // threads, np.uint8)
        target = np.zeros_like(source)
        return lambda: np.copyto(target, source)

    return _MEMORY_BYTES / _seconds([prepare() for _ in range(threads)]) / 1e9


def _add(threads: int) -> float:
    """Bytes of the sum, in float32; twice as many are read."""

    def prepare() -> Callable[[], object]:
        a = np.ones(_MEMORY_BYTES // 4 // threads, np.float32)
        b, c = np.ones_like(a), np.zeros_like(a)
        return lambda: np.add(a, b, out=c)

    return _MEMORY_BYTES / _seconds([prepare() for _ in range(threads)]) / 1e9


def _tcp(both_ways: bool) -> float:
    """Bytes through blocking sockets and buffers that stay in cache, by threads, which Python lets
    run at the same time while they send and receive."""
    pairs = [_connection() for _ in range(2 if both_ways else 1)]

    def send(one: socket.socket) -> None:
        data = bytes(_WRITE_BYTES)
        for _ in range(_TCP_BYTES // _WRITE_BYTES):
            one.sendall(data)

    def receive(one: socket.socket) -> None:
        buffer = bytearray(_WRITE_BYTES)
        left = _TCP_BYTES
        while left > 0:
            received = one.recv_into(buffer)
            if received == 0:
                raise RuntimeError("the stream ended early")
            left -= received

    jobs: list[Callable[[], object]] = []
    for one, other in pairs:
        jobs += [functools.partial(send, one), functools.partial(receive, other)]
    try:
        return len(pairs) * _TCP_BYTES / _seconds(jobs, repeats=1) / 1e9
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def _connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


def _seconds(jobs: list[Callable[[], object]], repeats: int = _REPEATS) -> float:
    """Of all jobs at once, each on a thread of its own, `repeats` times in a row; the mean."""
    ready = threading.Barrier(len(jobs) + 1)

    def work(job: Callable[[], object]) -> None:
        if repeats > 1:
            job()  # touches the memory
        ready.wait()
        for _ in range(repeats):
            job()

    threads = [threading.Thread(target=work, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / repeats
