"""A device for tests where there is none: its memory is the CPU's, its stream a thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CHANGING = ("copy_", "div_")


class Device:
    """What is asked of its stream is done later, by the stream's thread; pinned memory begins with
    what no test takes for a result."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.followed = 0
        self.before: Callable[[torch.Tensor], object] = lambda target: None
        """Called on the stream's thread with what is about to be written."""
        self._owned: dict[int, torch.Tensor] = {}
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor is in the memory of this device from now on."""
        self._owned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def has(self, tensor: torch.Tensor) -> bool:
        # Nothing has no address of its own.
        return tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in self._owned

    def forget(self, tensor: torch.Tensor) -> None:
        del self._owned[tensor.untyped_storage().data_ptr()]

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    # ---- what pyccl.torch.staging asks of a stream
    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        memory = torch.empty(shape, dtype=dtype, device="cpu")
        if memory.numel() > 0:
            memory.reshape(-1).view(torch.uint8).fill_(0x55)
        return memory

    def follow(self) -> None:
        self.followed += 1  # what others ask of this device is done at once

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        with _Later(self):
            yield

    def mark(self) -> Mark:
        mark = Mark()
        self._asked.put(mark.reached.set)
        return mark

    def wait(self, mark: Mark) -> None:
        mark.synchronize()

    def keep(self, tensor: torch.Tensor) -> None:
        pass

    def ask(self, call: Callable[[], object], target: torch.Tensor) -> None:
        def run() -> None:
            time.sleep(self.delay)
            self.before(target)
            with torch.inference_mode():
                call()

        self._asked.put(run)

    def _run(self) -> None:
        while (task := self._asked.get()) is not None:
            task()
            task = None


class Mark:
    def __init__(self) -> None:
        self.reached = threading.Event()

    def synchronize(self) -> None:
        assert self.reached.wait(40)

    def query(self) -> bool:
        return self.reached.is_set()


class _Later(TorchDispatchMode):  # type: ignore[misc]
    """What changes tensors is done by the device."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name not in CHANGING:
            return func(*args, **kwargs)
        self._device.ask(lambda: func(*args, **kwargs), args[0])
        return args[0]
