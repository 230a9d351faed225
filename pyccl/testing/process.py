"""A peer process as its test sees it: signals in, reports and a result out, bounds everywhere."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from pyccl.testing.child import Job

_STDERR_TAIL_BYTES = 4000


def python(module: str, *arguments: str) -> list[str]:
    """The command that calls main() of a module, with modules found where they are found here: not
    in the folder in which somebody happens to be."""
    call = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    return [sys.executable, "-c", call, *arguments]


class PeerProcessError(Exception):
    """A peer process raised or died where its result was asked for; the text has its traceback or
    the end of what it wrote to standard error."""


class PeerProcess:
    """One peer of a LocalCluster. Made by the cluster."""

    def __init__(self, job: Job, timeout: float) -> None:
        self.index = job.index
        self.peer: str | None = None
        """Its id, once it is connected."""
        self._timeout = timeout
        self._reports: queue.Queue[Any] = queue.Queue()
        self._connected = threading.Event()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._result: Any = None
        self._error: tuple[BaseException, str] | None = None
        self._has_result = False
        self._last_words: str | None = None
        self.killed = False
        """True once kill() was called."""
        # A file, not a pipe: who writes much must not wait for a test that reads nothing.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._start(job)

    def _start(self, job: Job) -> None:
        ours, theirs = socket.socketpair()
        # The kernel ties a child's life to the thread that made it, so only the main thread may.
        tie = "tie" if threading.current_thread() is threading.main_thread() else "loose"
        with theirs:
            self._process = subprocess.Popen(
                python("pyccl.testing.child", str(theirs.fileno()), str(os.getpid()), tie),
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
            )
        self._pipe = Connection(ours.detach())
        self._sending = threading.Lock()
        self._pipe.send(pickle.dumps(job))
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait_ready(self, timeout: float | None = None) -> None:
        """Returns once the process has loaded its function and is about to connect."""
        self._wait_for(self._ready, "got ready", timeout)

    def wait_connected(self, timeout: float | None = None) -> None:
        """Returns once the process is a member."""
        self._wait_for(self._connected, "connected", timeout)

    def send(self, value: Any) -> None:
        """An order, which the function gets by pyccl.testing.next_order()."""
        with self._sending, contextlib.suppress(BrokenPipeError):
            self._pipe.send(value)

    def next_report(self, timeout: float | None = None) -> Any:
        """What the function has given to pyccl.testing.report(), in its order."""
        deadline = time.monotonic() + self._bound(timeout)
        while True:
            try:
                return self._reports.get(timeout=0.02)
            except queue.Empty:
                if self._ended.is_set() and self._reports.empty():
                    raise PeerProcessError(
                        f"{self._name()} ended without this report{self._why()}"
                    ) from (None)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self._name()} reported nothing in time") from None

    def result(self, timeout: float | None = None) -> Any:
        """What the function has returned; raises PeerProcessError if it raised or died."""
        self._wait_for(self._ended, "ended", timeout)
        if not self._has_result:
            raise PeerProcessError(f"{self._name()} gave no result{self._why()}") from (
                self._error[0] if self._error else None
            )
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the function has raised, or None."""
        self._wait_for(self._ended, "ended", timeout)
        return self._error[0] if self._error else None

    def alive(self) -> bool:
        """True while the process runs or is stopped."""
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status (negative: the signal) once the process has ended."""
        try:
            return self._process.wait(self._bound(timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._name()} has not ended in time") from None

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self.killed = True
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kills it if it still lives, and lets go of everything."""
        if self.alive():
            self.kill()
        # The reader has seen the end of the pipe by then, or is about to.
        self._ended.wait(5.0)
        self._last_words = self._why()
        self._pipe.close()
        self._stderr.close()

    def _read(self) -> None:
        try:
            while True:
                kind, value = self._pipe.recv()
                if kind == "report":
                    self._reports.put(value)
                elif kind == "ready":
                    self._ready.set()
                elif kind == "connected":
                    self.peer = value
                    self._connected.set()
                elif kind == "result":
                    self._result, self._has_result = value, True
                else:
                    self._error = value
        except (EOFError, OSError):
            self._ended.set()

    def _wait_for(self, event: threading.Event, what: str, timeout: float | None) -> None:
        deadline = time.monotonic() + self._bound(timeout)
        while not event.wait(0.02):
            if self._ended.is_set() and not event.is_set():
                raise PeerProcessError(f"{self._name()} never {what}{self._why()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._name()} has not {what} in time{self._why()}")

    def _bound(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _name(self) -> str:
        return f"peer process {self.index} (pid {self.pid})"

    def _why(self) -> str:
        if self._last_words is not None:
            return self._last_words
        if self._error is not None:
            return ":\n" + self._error[1]
        parts = []
        if (status := self._process.poll()) is not None:
            parts.append(f"; exit status {status}")
        try:
            size = os.fstat(self._stderr.fileno()).st_size
            # Not by the file's own position, which the child shares and writes at.
            begin = max(0, size - _STDERR_TAIL_BYTES)
            tail = os.pread(self._stderr.fileno(), _STDERR_TAIL_BYTES, begin)
        except (OSError, ValueError):  # another thread has just closed it
            return self._last_words or ""
        if tail:
            parts.append("; it wrote:\n" + tail.decode(errors="replace"))
        return "".join(parts)
