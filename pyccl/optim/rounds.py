"""An outer step as a transaction among the members of a communicator.

One atomic all-reduce brings the mean and its divisor, of one set of contributors, to all or to
none. Each peer applies the same bytes. Then a sync admits newcomers, gives them the state behind
this step, and proves that all others hold the same: so a newcomer trains its first window along
with everybody, and there is no time at which it would have half of one to contribute.

A step that does not come about changes nothing, and takes nothing from what was learned here.
"""

from __future__ import annotations

import math
import numbers
import time

import numpy as np

from pyccl.communicator import Communicator
from pyccl.error_feedback import ErrorFeedback
from pyccl.errors import (
    CancelledError,
    InvalidArgumentError,
    OperationTimeout,
    PeerLostError,
    StateSyncError,
)
from pyccl.optim.layout import F32
from pyccl.optim.outer import OuterState
from pyccl.optim.report import SyncReport
from pyccl.options import integer
from pyccl.options import seconds as seconds_of
from pyccl.quantization import Codec, Quantization
from pyccl.work import OperationInfo

# With these no peer has got the mean, and all may try again.
_ABORTS = (CancelledError, OperationTimeout, PeerLostError)


class Rounds:
    """The outer steps of one peer.

    comm: None: alone, with the outer optimizer all the same.
    quantization: deltas travel in fewer bits.
    error_feedback: what that takes from a delta is added to the next one, and given back by a step
        that does not come about.
    peers_min: with fewer members nothing is applied. Not asked for without a communicator.
    timeout: seconds for each operation; None: those of the communicator.
    """

    def __init__(
        self,
        state: OuterState,
        comm: Communicator | None,
        *,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
        peers_min: int = 1,
        timeout: float | None = None,
    ) -> None:
        if comm is not None and not isinstance(comm, Communicator):
            raise InvalidArgumentError(
                f"comm is of type {type(comm).__name__}, but must be a Communicator or None"
            )
        self._state = state
        self._comm = comm
        self._quantization = Quantization.of(quantization)
        if error_feedback and self._quantization is None:
            raise InvalidArgumentError("error_feedback is of quantized deltas: say how they are")
        self._feedback = (
            ErrorFeedback(self._quantization)
            if error_feedback and self._quantization is not None
            else None
        )
        self._peers_min = integer(peers_min, "min_peers", 1, 1 << 16)
        self._timeout = None if timeout is None else seconds_of(timeout, "timeout")

    @property
    def comm(self) -> Communicator | None:
        return self._comm

    @property
    def feedback(self) -> ErrorFeedback | None:
        return self._feedback

    def join(self) -> SyncReport:
        """Before the first window, and wherever states may differ: all peers call it and get one
        state, the one of the most outer steps."""
        report = SyncReport(fresh=True, step=self._state.step)
        if self._comm is not None:
            self._agree(self._comm, report, strict=True)
        return report

    def run(self, delta: F32, weight: float = 1.0) -> SyncReport:
        """One outer step with this peer's delta, which is overwritten. All peers call it.

        weight: what the delta counts in the mean. One with a NaN or an infinity in it counts
            nothing, whatever its weight.

        Raises the errors of a communicator that is at its end, and those of wrong arguments.
        """
        began = time.monotonic()
        if not isinstance(weight, numbers.Real) or not 0 <= float(weight) < math.inf:
            # Before anybody waits for this peer.
            raise InvalidArgumentError(
                f"weight is {weight!r}, but must be a number from 0: what the delta of this peer "
                "counts in the mean"
            )
        report = SyncReport(fresh=True, step=self._state.step)
        if not np.isfinite(delta).all():
            delta[...], weight = 0.0, 0.0
            report.reason = "this peer's delta is not finite"
        mean = self._reduce(delta, weight, report)
        if mean is not None:
            self._state.apply(mean)
            report.applied, report.reason, report.step = True, "", self._state.step
        if self._comm is not None:
            self._agree(self._comm, report, strict=False)
        report.seconds = time.monotonic() - began
        return report

    def _reduce(self, delta: F32, weight: float, report: SyncReport) -> F32 | None:
        """The mean; None: there is none, or it must not be applied."""
        if self._comm is None:
            report.members = report.contributors = report.attempts = int(weight > 0)
            report.weight_sum = weight
            report.reason = report.reason or ("" if weight > 0 else "nobody has contributed")
            return delta if weight > 0 else None
        step = None if self._feedback is None else self._feedback.begin(delta)
        values = delta if step is None else step.values
        try:
            info: OperationInfo = self._comm.all_reduce(
                values,
                op="avg",
                weight=weight,
                quantization=self._quantization if step is None else step.quantization,
                timeout=self._timeout,
            )
        except _ABORTS as error:
            report.reason = str(error)
            return None
        except InvalidArgumentError as error:
            # If nobody has anything to contribute, all are told so.
            if weight > 0:
                raise
            report.reason = str(error)
            return None
        self._note(info, report)
        if info.members < self._peers_min:
            report.reason = f"there are {info.members} peers of the {self._peers_min} asked for"
            return None
        if step is not None and weight > 0:
            step.commit(info)
        mean: F32 = values
        return mean

    def _agree(self, comm: Communicator, report: SyncReport, strict: bool) -> None:
        try:
            found = comm.sync(self._state.shared, timeout=self._timeout)
        except (*_ABORTS, StateSyncError):
            if strict:
                raise
            return  # the next one finds what this one would have
        report.hash, report.behind = found.digest, found.behind
        report.step = self._state.step

    @staticmethod
    def _note(info: OperationInfo, report: SyncReport) -> None:
        report.contributors, report.members = info.world_size, info.members
        report.weight_sum, report.attempts = info.weight_sum, info.attempts
        report.bytes_sent, report.bytes_received = info.bytes_sent, info.bytes_received
