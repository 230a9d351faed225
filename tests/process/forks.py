"""Peer processes that are forked from one which has loaded torch, where each by itself would take
seconds for that."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from pyccl.testing import PeerProcess, child
from pyccl.testing.child import Job

_CONTEXT = multiprocessing.get_context("forkserver")
# With what torch's first optimizer would load, which takes as long again.
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo"])


class Forked:
    """What a PeerProcess asks of its process."""

    def __init__(self, pipe: Connection) -> None:
        self._process = _CONTEXT.Process(target=_be_child, args=(pipe,), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(["a fork"], timeout or 0.0)
        return self._process.exitcode


class ForkedPeer(PeerProcess):
    """Takes the place of PeerProcess in pyccl.testing.cluster."""

    _process: Any

    def _start(self, job: Job) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        with theirs:
            self._process = Forked(theirs)
        self._sending = threading.Lock()
        self._pipe.send(pickle.dumps(job))
        threading.Thread(target=self._read, daemon=True).start()


def _be_child(pipe: Connection) -> None:
    sys.argv[1:] = [str(os.dup(pipe.fileno())), str(os.getppid()), "loose"]
    pipe.close()
    child.main()
