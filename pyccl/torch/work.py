"""What an operation of a process group gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import Work as _TorchWork

import pyccl
from pyccl.errors import OperationTimeout, PycclError
from pyccl.torch import completions

if TYPE_CHECKING:
    from pyccl.torch.errors import BackendError

Translate = Callable[[PycclError], "BackendError"]


class Work(_TorchWork):  # type: ignore[misc]
    """An operation under way, of which torch.distributed may ask all that it asks of any.

    The tensors belong to the operation until it has ended. Those that it works on by a copy are
    filled by whichever thread learns of the end first.
    """

    def __init__(
        self,
        work: pyccl.Work[Any] | None,
        outputs: list[Any],
        translate: Translate,
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._work = work
        self._outputs = outputs
        self._translate = translate
        self._finish = finish
        self._error: BaseException | None = None
        self._settled = False
        self._lock = threading.Lock()
        self._future: torch.futures.Future[Any] | None = None
        if finish is not None and work is not None:
            # Also if nobody waits for it.
            work.add_done_callback(lambda _: self._settle())

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Blocks until the operation has ended; raises its error. `timeout` ends the waiting, and
        not the operation, which has a deadline of its own."""
        if self._work is not None:  # also one that is known to have ended: its hint counts here
            limit = None if not timeout else timeout.total_seconds()
            try:
                self._work.wait(limit)
            except OperationTimeout as error:
                if not self._work.done():
                    raise self._translate(error) from None
            except PycclError:
                pass  # see _settle()
        self._settle()
        if self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        """Whether it has ended, and the tensors hold what it gives."""
        if self._work is not None and not self._work.done():
            return False
        self._settle()
        return True

    def is_success(self) -> bool:
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error if self.is_completed() else None

    def result(self) -> list[Any]:
        """The tensors that hold the result; raises the operation's error."""
        self.wait()
        return self._outputs

    def source_rank(self) -> int:
        """Who has sent it, of a receive."""
        self.wait()
        source = None if self._work is None else self._work.info().source
        if source is None:
            raise RuntimeError("only a receive has a source rank")
        return int(source)

    _source_rank = source_rank

    def get_future(self) -> torch.futures.Future[Any]:
        """What C++ makes of an error is a RuntimeError with its text. The next operation of the
        group raises the error itself."""
        with self._lock:
            if self._future is not None:
                return self._future
            devices = sorted({str(one.device) for one in _flat(self._outputs) if one.is_cuda})
            ended = torch.futures.Future(devices=devices) if devices else torch.futures.Future()
            # To C++, as DDP is, set_exception() is a result like any other, in which it looks for
            # tensors and finds none. Only what a callback raises is an error there, too.
            self._future = ended.then(self._give)
        # Who has waited finds it completed: nobody can have a callback on it yet.
        if self._work is None or self._work.done():
            self._fill(ended)
        else:
            self._work.add_done_callback(lambda _: completions.submit(lambda: self._fill(ended)))
        return self._future

    getFuture = get_future  # noqa: N815 - as C++ calls it

    def _fill(self, ended: torch.futures.Future[Any]) -> None:
        self._settle()
        ended.set_result(self._outputs)

    def _give(self, _: torch.futures.Future[Any]) -> list[Any]:
        if self._error is not None:
            raise self._error
        return self._outputs

    def _settle(self) -> None:
        """Once, behind the end: the error, or what is left to be done for the result."""
        with self._lock:
            if self._settled:
                return
            try:
                error = None if self._work is None else self._work.exception()
                if error is not None:
                    self._error = self._translate(error)
                elif self._finish is not None:
                    self._finish()
            except BaseException as error:
                self._error = error
            finally:
                self._settled = True
                self._finish = None

    def __repr__(self) -> str:
        return f"<pyccl.torch.Work {self._work!r}>"


class Together(Work):
    """Several operations, ended when all of them have."""

    def __init__(self, works: list[Work]) -> None:
        super().__init__(None, [one for work in works for one in work._outputs], _untranslated)
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        for work in self._works:
            work.wait(timeout)
        return True

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)

    def exception(self) -> BaseException | None:
        return next((found for work in self._works if (found := work.exception())), None)

    def is_success(self) -> bool:
        return all(work.is_success() for work in self._works)

    def get_future(self) -> torch.futures.Future[Any]:
        futures = [work.get_future() for work in self._works]
        outputs = self._outputs

        def give(done: torch.futures.Future[Any]) -> list[Any]:
            for future in done.value():
                future.value()  # raises what that operation has raised
            return outputs

        return torch.futures.collect_all(futures).then(give)

    getFuture = get_future  # noqa: N815


def _untranslated(error: PycclError) -> BackendError:
    raise error


def _flat(outputs: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for one in outputs:
        found += _flat(one) if isinstance(one, (list, tuple)) else [one]
    return found
