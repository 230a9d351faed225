"""As many bytes as a sync moves, by one plain socket from one process to another over loopback:
what a joiner could get if nothing had to be hashed, agreed upon or shared out."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import numpy as np

from pyccl.testing.process import python
from synchronizing.tables import Sample

_LIMIT_SECONDS = 300.0


def copy(size: int) -> Sample:
    """Once, after one to warm up; the time is that of the receiver."""
    processes: list[subprocess.Popen[str]] = []
    try:
        receiver = _start("receive", size)
        processes.append(receiver)
        assert receiver.stdout is not None
        processes.append(_start("send", size, receiver.stdout.readline().strip()))
        said = [process.communicate(timeout=_LIMIT_SECONDS)[0].split() for process in processes]
        if any(process.returncode != 0 for process in processes):
            raise RuntimeError("the copy failed")
        return Sample(float(said[0][0]), size, float(said[0][1]) + float(said[1][0]))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(role: str, size: int, port: str = "0") -> subprocess.Popen[str]:
    command = python("synchronizing.copying", role, str(size), port)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    role, size, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Written to, so that no page comes into being while it is measured.
    memory = np.full(size, 1, np.uint8).data
    if role == "send":
        _send(memory, port)
    else:
        _receive(memory)


def _send(memory: memoryview, port: int) -> None:
    with socket.socket() as one:
        _use_reno(one)
        one.connect(("127.0.0.1", port))
        cpu_seconds = 0.0
        while one.recv(1):
            began = time.process_time()
            one.sendall(memory)
            cpu_seconds = time.process_time() - began
    print(cpu_seconds)


def _receive(memory: memoryview) -> None:
    with socket.socket() as server:
        _use_reno(server)
        server.bind(("127.0.0.1", 0))
        server.listen()
        print(server.getsockname()[1], flush=True)
        one, _ = server.accept()
    seconds = cpu_seconds = 0.0
    with one:
        for _ in range(2):
            began, cpu_began = time.perf_counter(), time.process_time()
            one.sendall(b"1")
            _fill(one, memory)
            seconds = time.perf_counter() - began
            cpu_seconds = time.process_time() - cpu_began
    print(seconds, cpu_seconds)


def _fill(one: socket.socket, memory: memoryview) -> None:
    at = 0
    while at < len(memory):
        received = one.recv_into(memory[at:], 0, socket.MSG_WAITALL)
        if received == 0:
            raise RuntimeError("the stream ended early")
        at += received


def _use_reno(one: socket.socket) -> None:
    """As pyccl does on loopback; BBR would pace what crosses no wire."""
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


if __name__ == "__main__":
    main()
