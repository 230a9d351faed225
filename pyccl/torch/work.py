"""What an operation of a process group gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import Work as _TorchWork

import pyccl
from pyccl.errors import OperationTimeout, PycclError
from pyccl.torch import callbacks, completions, kept

if TYPE_CHECKING:
    from pyccl.torch.callbacks import Chain
    from pyccl.torch.errors import BackendError
    from pyccl.torch.lent import Lent
    from pyccl.torch.staging import Parts, Staged

Translate = Callable[[PycclError], "BackendError"]


class Work(_TorchWork):  # type: ignore[misc]
    """An operation under way, of which torch.distributed may ask all that it asks of any.

    The tensors belong to the operation until it has ended. Those that it works on by a copy are
    filled by whichever thread learns of the end first.
    """

    def __init__(
        self,
        work: pyccl.Work[Any] | Staged | Parts | None,
        outputs: list[Any],
        translate: Translate,
        lent: Lent | None = None,
        chain: Chain | None = None,
    ) -> None:
        super().__init__()
        self._work = work
        self._outputs = outputs
        self._translate = translate
        self._finish = None if lent is None else lent.finish
        self._copies = None if lent is None else lent.copies
        self._chain = chain
        self._error: BaseException | None = None
        self._settled = False
        self._lock = threading.Lock()
        self._future: torch.futures.Future[Any] | None = None
        if self._finish is not None and work is not None:
            # Also if nobody waits for it.
            work.add_done_callback(lambda _: self._settle())
        kept.keep(self, max(len(outputs), 1))

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Blocks until the operation has ended; raises its error. `timeout` ends the waiting, and
        not the operation, which has a deadline of its own."""
        kept.waited(self)
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
        if self._copies is not None:
            self._copies.settle()
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
        return self._copies is None or self._copies.settled()

    def is_success(self) -> bool:
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        if self._work is not None and not self._work.done():
            return None
        self._settle()
        return self._error

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
        kept.let_go(self)
        with self._lock:
            if self._future is not None:
                return self._future
            ended = _future_of(self._outputs)
            # To C++, as DDP is, set_exception() is a result like any other, in which it looks for
            # tensors and finds none. Only what a callback raises is an error there, too.
            self._future = ended.then(self._give)
            if self._chain is not None:
                callbacks.follow(self._future, self._chain)
        # Who has waited finds it completed: nobody can have a callback on it yet.
        if self._work is None or self._work.done():
            self._fill(ended)
        else:
            self._work.add_done_callback(lambda _: completions.submit(lambda: self._fill(ended)))
        return self._future

    getFuture = get_future  # noqa: N815 - as C++ calls it

    def _fill(self, ended: torch.futures.Future[Any]) -> None:
        self._settle()
        # A future asks the device, by its current stream, when its value will be there.
        with nullcontext() if self._copies is None else self._copies.stream.asked():
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
                if isinstance(error, PycclError):
                    self._error = self._translate(error)
                elif error is not None:
                    self._error = error
                elif self._finish is not None:
                    self._finish()
            except BaseException as error:
                self._error = error
            finally:
                self._settled = True
                self._finish = None
                if self._error is not None and self._copies is not None:
                    self._copies.end()

    def __repr__(self) -> str:
        return f"<pyccl.torch.Work {self._work!r}>"


class Together(Work):
    """Several operations, ended when all of them have."""

    def __init__(self, works: list[Work]) -> None:
        super().__init__(None, [one for work in works for one in work._outputs], _untranslated)
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        kept.waited(self)
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
        kept.let_go(self)
        ended = _future_of(self._outputs)

        def fill(_: torch.futures.Future[Any]) -> None:
            for work in self._works:
                with suppress(Exception):  # of which give() tells
                    work.wait()
            ended.set_result(self._outputs)

        def give(_: torch.futures.Future[Any]) -> list[Any]:
            for work in self._works:
                if work._error is not None:
                    raise work._error
            return self._outputs

        future = ended.then(give)
        if self._works and self._works[0]._chain is not None:
            callbacks.follow(future, self._works[0]._chain)
        torch.futures.collect_all([work.get_future() for work in self._works]).then(fill)
        return future

    getFuture = get_future  # noqa: N815


def _untranslated(error: PycclError) -> BackendError:
    raise error


def _future_of(outputs: Sequence[Any]) -> torch.futures.Future[Any]:
    devices = sorted({str(one.device) for one in _flat(outputs) if one.is_cuda})
    return torch.futures.Future(devices=devices) if devices else torch.futures.Future()


def _flat(outputs: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for one in outputs:
        found += _flat(one) if isinstance(one, (list, tuple)) else [one]
    return found
