"""A coordinator and some peers, each a process of its own."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pyccl.errors import InvalidArgumentError
from pyccl.testing.child import Job
from pyccl.testing.process import PeerProcess, python

_PR_SET_PDEATHSIG = 1


class CoordinatorProcess:
    """`pyccl coordinator` with a state file; may be killed and started again on its address."""

    def __init__(self, options: Iterable[str] = (), timeout: float = 30.0) -> None:
        self.address = ""
        self._options = list(options)
        self._timeout = timeout
        self._directory = tempfile.TemporaryDirectory(prefix="pyccl-")
        self._log = open(Path(self._directory.name) / "coordinator.log", "wb")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, the second time and later on the same address and state file."""
        command = [
            *python("pyccl.cli", "coordinator", "--plain"),
            *("--bind", self.address or "127.0.0.1:0"),
            *("--state", str(Path(self._directory.name) / "state")),
            *self._options,
        ]
        tie = threading.current_thread() is threading.main_thread()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            preexec_fn=_die_with_parent if tie else None,
        )
        self.address = self._first_line()

    @property
    def pid(self) -> int:
        """The number of the process in its present life."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def restart(self) -> None:
        """Kills it if it lives, and starts it on the same address with the same state file."""
        if self.alive():
            self.kill()
        self.start()

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(self._timeout)

    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What it has logged so far, over all its lives."""
        return Path(self._log.name).read_text(errors="replace")

    def close(self) -> None:
        """Kills it if it still lives, and removes its files."""
        if self.alive():
            self.kill()
        self._log.close()
        self._directory.cleanup()

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._timeout
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, left))
            read = os.read(self._process.stdout.fileno(), 1024) if readable else b""
            if not read:
                raise RuntimeError(f"the coordinator said no address:\n{self.log()}")
            line += read
        return line.decode().strip()


class LocalCluster:
    """Runs `function(comm, index, *arguments)` in `peers` processes under one coordinator.

    The function must stand at the top level of its module; what it takes, reports and returns is
    pickled. The peers connect to each other before the function begins: all of them see
    `comm.world_size == peers`. Leaving the block kills whatever still lives.

    connect: further arguments of pyccl.connect() for every peer.
    coordinator: further arguments of `pyccl coordinator`.
    timeout: seconds, for every call that waits and names no other bound.
    heartbeat_limit: seconds, of the coordinator.
    """

    def __init__(
        self,
        peers: int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        *,
        connect: Mapping[str, Any] | None = None,
        coordinator: Iterable[str] = (),
        timeout: float = 60.0,
        heartbeat_limit: float | None = None,
    ) -> None:
        self._timeout = timeout
        self._connect = {"timeout": timeout, **(connect or {})}
        options = list(coordinator)
        if heartbeat_limit is not None:
            options += ["--heartbeat-limit", str(heartbeat_limit)]
        self._function = function
        self._arguments = arguments
        self.peers: list[PeerProcess] = []
        self.coordinator = CoordinatorProcess(options, timeout)
        try:
            for _ in range(peers):
                self.add(connect={"world_size_min": peers})
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """The coordinator's."""
        return self.coordinator.address

    def add(
        self,
        function: Callable[..., Any] | None = None,
        arguments: tuple[Any, ...] | None = None,
        *,
        connect: Mapping[str, Any] | None = None,
        wait_for_order: bool = False,
    ) -> PeerProcess:
        """One more peer process, by default for the same function and arguments. With
        `wait_for_order` it starts up, but connects only after the first send()."""
        function = function or self._function
        file, name = _place_of(function)
        job = Job(
            index=len(self.peers),
            file=file,
            name=name,
            function=function.__qualname__,
            arguments=self._arguments if arguments is None else arguments,
            address=self.address,
            wait_for_order=wait_for_order,
            connect={**self._connect, **(connect or {})},
        )
        peer = PeerProcess(job, self._timeout)
        self.peers.append(peer)
        return peer

    def kill(self, index: int) -> None:
        """SIGKILL to a peer; returns when it is gone."""
        self.peers[index].kill()

    def stop(self, index: int) -> None:
        """SIGSTOP to a peer."""
        self.peers[index].stop()

    def cont(self, index: int) -> None:
        """SIGCONT to a peer."""
        self.peers[index].cont()

    def results(self, timeout: float | None = None) -> dict[int, Any]:
        """What the functions have returned, by the peers' indices, without those peers that were
        killed. Raises PeerProcessError if one raised or died by itself."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        return {
            peer.index: peer.result(max(0.0, deadline - time.monotonic()))
            for peer in self.peers
            if not peer.killed
        }

    def close(self) -> None:
        """Ends everything at once."""
        for peer in self.peers:
            peer.close()
        self.coordinator.close()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _place_of(function: Callable[..., Any]) -> tuple[str, str]:
    if "<" in getattr(function, "__qualname__", "<"):
        raise InvalidArgumentError(
            f"{function!r} must be a function at the top level of a module: "
            "another process has to find it"
        )
    file = getattr(sys.modules[function.__module__], "__file__", None)
    if file is None:
        raise InvalidArgumentError(f"{function!r} stands in no file that could be loaded")
    # A script that is run is called __main__, and so is the child's own.
    name = re.sub(r"\W", "_", Path(file).stem) if function.__module__ == "__main__" else (
        function.__module__
    )  # fmt: skip
    return str(Path(file).resolve()), name


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
