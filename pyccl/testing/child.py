"""Inside a peer process: fetch the job, connect, run the function, send what it returns.

One socket to the parent carries everything, pickled: orders in, reports and the result out. Its end
means that the parent is gone, and then so is this process, whatever it is doing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1


@dataclass
class Job:
    """What a peer process is to do."""

    index: int
    file: str
    """Where the function stands. Loaded from there, so that it need not be importable by name."""
    name: str
    function: str
    arguments: tuple[Any, ...]
    address: str
    wait_for_order: bool
    """Connect only once the parent says so; see LocalCluster.add()."""
    connect: dict[str, Any] = field(default_factory=dict)


_parent: Connection | None = None
_sending = threading.Lock()
_orders: queue.Queue[Any] = queue.Queue()


def report(value: Any) -> None:
    """From a function that LocalCluster runs: sends a value to the test, which gets it by
    PeerProcess.next_report()."""
    _send("report", value)


def next_order(timeout: float = 60.0) -> Any:
    """From a function that LocalCluster runs: the next value of PeerProcess.send(). Raises
    queue.Empty if none comes within `timeout` seconds; 0 looks without waiting."""
    if timeout <= 0:
        return _orders.get_nowait()
    return _orders.get(timeout=timeout)


def main() -> None:
    global _parent
    descriptor, parent_id, tie = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "tie"
    if tie:
        # Reaches a stopped process, too, which the watch on the socket does not.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_id:
            os._exit(1)
    _parent = Connection(descriptor)
    pickled = _parent.recv()
    threading.Thread(target=_read_orders, daemon=True).start()
    try:
        value = _run(pickled)
    except BaseException as error:
        _send_error(error)
        raise SystemExit(1) from None
    _send("result", value)


def _run(pickled: bytes) -> Any:
    import pyccl

    job: Job = pickle.loads(pickled)
    function = _load(job)
    _send("ready", None)
    if job.wait_for_order:
        _orders.get()  # without end, but for the parent's
    with pyccl.connect(job.address, **job.connect) as comm:
        _send("connected", comm.peer)
        return function(comm, job.index, *job.arguments)


def _load(job: Job) -> Callable[..., Any]:
    module = sys.modules.get(job.name)
    if module is None:
        try:
            module = importlib.import_module(job.name)
        except ImportError:
            module = None
    if module is None or getattr(module, "__file__", None) != job.file:
        spec = importlib.util.spec_from_file_location(job.name, job.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"can't load {job.file}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[job.name] = module
        spec.loader.exec_module(module)
    found: Any = module
    for part in job.function.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _read_orders() -> None:
    assert _parent is not None
    try:
        while True:
            _orders.put(_parent.recv())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGKILL)


def _send(kind: str, value: Any) -> None:
    if _parent is None:
        raise RuntimeError("only a function that LocalCluster runs can report")
    with _sending:
        _parent.send((kind, value))


def _send_error(error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    _send("error", (error, text))
