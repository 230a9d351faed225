"""Tensors of other devices on their way through the CPU's memory.

The core knows CPU memory only. What lies elsewhere is copied to pinned memory and back on a stream
of its own, and neither the caller nor the device's other work waits for that. A large tensor is
many operations, of a chunk each (chunks.py): the copies of some run while the network has another.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from pyccl.errors import ClosedError, OperationTimeout


class Stream(Protocol):
    """What a device does in the order in which it is asked for, beside what its owner asks."""

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """CPU memory that the device can reach by itself."""

    def follow(self) -> None:
        """What is asked of the stream from now on begins behind all that the calling thread has
        asked of the device."""

    def asked(self) -> AbstractContextManager[object]:
        """Within it, the thread's work on the device is asked of this stream."""

    def mark(self) -> Mark:
        """The end of what has been asked so far."""

    def wait(self, mark: Mark) -> None:
        """What the calling thread asks of the device from now on comes behind it."""

    def keep(self, tensor: torch.Tensor) -> None:
        """The device's memory of the tensor stays until what has been asked is done."""


class Mark(Protocol):
    def synchronize(self) -> None:
        """Blocks until it is reached."""

    def query(self) -> bool:
        """Whether it is reached."""


class DeviceStream:
    """A stream of CUDA, or of another accelerator that torch has."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        self._stream = self._module.Stream(device)

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True)

    def follow(self) -> None:
        self._stream.wait_stream(self._module.current_stream(self._device))

    def asked(self) -> AbstractContextManager[object]:
        return self._module.stream(self._stream)  # type: ignore[no-any-return]

    def mark(self) -> Mark:
        event = self._module.Event()
        event.record(self._stream)
        return event  # type: ignore[no-any-return]

    def wait(self, mark: Mark) -> None:
        self._module.current_stream(self._device).wait_event(mark)

    def keep(self, tensor: torch.Tensor) -> None:
        if tensor.device == self._device:
            tensor.record_stream(self._stream)


_streams: dict[torch.device, Stream] = {}
_lock = threading.Lock()


def elsewhere(tensor: torch.Tensor) -> bool:
    return bool(tensor.device.type != "cpu")


def stream_of(device: torch.device) -> Stream:
    with _lock:
        if device not in _streams:
            _streams[device] = DeviceStream(device)
        return _streams[device]


class Copies:
    """Those of one operation: what is fetched before it, and put back behind it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._fetched: Mark | None = None
        self._put: Mark | None = None
        # What is put back comes behind what the caller asks of the device before this.
        stream.follow()

    def fetch(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Begins to copy to pinned memory."""
        self.stream.follow()  # the source may be a copy that was asked for a moment ago
        with self.stream.asked():
            target.copy_(source, non_blocking=True)
            self._fetched = self.stream.mark()
        self.stream.keep(source)

    def await_fetched(self) -> None:
        if self._fetched is not None:
            self._fetched.synchronize()

    def put(self, targets: Sequence[torch.Tensor], step: Callable[[], None]) -> None:
        """Asks the device for what the step asks of it, which changes these tensors."""
        with self.stream.asked():
            step()
            self._put = self.stream.mark()
        for target in targets:
            self.stream.keep(target)

    def end(self) -> None:
        """Nothing more is asked for; what was, may still be read from or written to."""
        self._put = self.stream.mark()

    def settled(self) -> bool:
        """Whether what was put is there."""
        return self._put is None or self._put.query()

    def settle(self) -> None:
        """What the calling thread asks of the device comes behind what was put."""
        if self._put is not None:
            self.stream.wait(self._put)


class Stager:
    """Begins operations as soon as their input has come, on a thread and in the order of the calls:
    so all ranks come to the same one.

    open_max: how many of them may be under way; a bound only where all ranks begin the same ones in
    the same order, since otherwise one may wait for any that comes later.
    """

    def __init__(self, open_max: int | None = None) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._begun = threading.Condition()
        self._waiting = 0
        self._stopped = False
        self._room = None if open_max is None else threading.Semaphore(open_max)

    def begin(self, copies: Copies | None, begin: Callable[[], Any]) -> Staged:
        """Has begin() called, which gives a pyccl.Work, and gives at once what stands for that."""
        staged, room = Staged(), self._room

        def run() -> None:
            if room is not None:
                room.acquire()
                staged.add_done_callback(lambda _: room.release())
            try:
                if copies is not None:
                    copies.await_fetched()
                staged.begun(begin())
            except BaseException as error:
                staged.failed(error)

        with self._begun:
            if self._stopped:
                raise ClosedError("the group was destroyed")
            self._waiting += 1
            self._jobs.put(run)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pyccl-stager", daemon=True)
                self._thread.start()
        return staged

    def drain(self, timeout: float | None = None) -> None:
        """Blocks until all have begun, so that one which needs no copies comes behind them."""
        if self._waiting > 0:
            with self._begun:
                self._begun.wait_for(lambda: self._waiting == 0, timeout)

    def stop(self) -> None:
        """Begins nothing behind what it has."""
        with self._begun:
            self._stopped = True
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            job = None  # the next one may be long in coming, and this has its tensors
            with self._begun:
                self._waiting -= 1
                self._begun.notify_all()


class Staged:
    """What pyccl.Work is to an operation, for one that has not begun yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []
        self._work: Any = None
        self._error: BaseException | None = None

    def begun(self, work: Any) -> None:
        self._settle(work, None)

    def failed(self, error: BaseException) -> None:
        self._settle(None, error)

    def wait(self, timeout: float | None = None) -> Any:
        began = time.monotonic()
        if not self._settled.wait(timeout):
            raise OperationTimeout(f"still under way after {timeout} s; the operation goes on")
        if self._error is not None:
            raise self._error
        if timeout is None:
            return self._work.wait()
        return self._work.wait(timeout - (time.monotonic() - began))

    def done(self) -> bool:
        return self._settled.is_set() and (self._work is None or self._work.done())

    def exception(self) -> BaseException | None:
        return self._error if self._work is None else self._work.exception()

    def info(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._work.info()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        with self._lock:
            if not self._settled.is_set():
                self._callbacks.append(callback)
                return
        if self._work is None:
            callback(self)
        else:
            self._work.add_done_callback(lambda _: callback(self))

    def _settle(self, work: Any, error: BaseException | None) -> None:
        with self._lock:
            self._work, self._error = work, error
            self._settled.set()
            # They have what waits for this, and so would never be let go of.
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.add_done_callback(callback)


class Parts:
    """What pyccl.Work is to an operation, for several that are one to the caller: ended when all of
    them have, and with each its `finish`, which is called at its own end. The first one that fails
    ends it: what others bring is dropped then."""

    def __init__(self, parts: Sequence[tuple[Staged, Callable[[], None] | None]]) -> None:
        self._works = [work for work, _ in parts]
        self._lock = threading.Lock()
        self._left = len(parts)
        self._ended = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []
        self._error: BaseException | None = None
        for work, finish in parts:
            work.add_done_callback(functools.partial(self._end_one, finish))

    def wait(self, timeout: float | None = None) -> Any:
        if not self._ended.wait(timeout):
            raise OperationTimeout(f"still under way after {timeout} s; the operation goes on")
        return self.info()

    def done(self) -> bool:
        return self._ended.is_set()

    def exception(self) -> BaseException | None:
        return self._error

    def info(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._works[-1].info()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def _end_one(self, finish: Callable[[], None] | None, work: Staged) -> None:
        # Under the lock, so that behind the end nothing is put any more.
        with self._lock:
            if self._ended.is_set():
                return
            error = work.exception()
            try:
                if error is None and finish is not None:
                    finish()
            except BaseException as raised:
                error = raised
            self._left -= 1
            if error is None and self._left > 0:
                return
            self._error = error
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
