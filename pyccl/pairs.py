"""Operations between two members: send, recv and exchange. Nobody else is concerned."""

from __future__ import annotations

from typing import Literal, overload

from pyccl import _core
from pyccl.arrays import ArrayLike, paired, read_only, written_only
from pyccl.operations import Operations, Quantized
from pyccl.options import rank_of
from pyccl.work import OperationInfo, Work


class Pairs(Operations):
    @overload
    def send(
        self, x: ArrayLike, to: int = ..., tag: int = ..., *, timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def send(
        self, x: ArrayLike, to: int = ..., tag: int = ..., *, timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def send(
        self,
        x: ArrayLike,
        to: int = 1,
        tag: int = 0,
        *,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Sends arrays to the member that has rank `to` at present, which calls recv().

        x: an array or a list of arrays, with the types and sizes that recv() has there; types as
            for all_reduce().
        tag: sends of one tag from one member to another are matched by their order.

        Returns when the other side has received it. Raises PeerLostError if that is lost, or was
        before, so that there is no such rank any more; and InvalidArgumentError where there never
        was one, or it is the own one. The rest is as for all_reduce().
        """
        ended: OperationInfo | Work = self._run_pair(
            "send", rank_of(to, "to"), tag, read_only(x), timeout, async_op
        )
        return ended

    @overload
    def recv(
        self, x: ArrayLike, source: int | None = ..., tag: int = ..., *,
        timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def recv(
        self, x: ArrayLike, source: int | None = ..., tag: int = ..., *,
        timeout: float | None = ..., async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def recv(
        self,
        x: ArrayLike,
        source: int | None = 1,
        tag: int = 0,
        *,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Receives into `x` what the member that has rank `source` at present sends here.

        source: None: whichever member sends here with this tag first, in the order in which that
            arrives. Who it was says OperationInfo.source. Sends are matched in the order in which
            receives were called, those that name a source too.

        The other half of send(): types, sizes and errors are as there. After an error `x` is
        undefined.

        From any source, a member that is lost or that joins after the call is none that it waits
        for; PeerLostError means that nobody else was left. Where nobody has sent in time, the call
        has not happened to anybody else. One whose send has failed before counts as one that has
        sent: its error is raised here.
        """
        other = _core.any_source if source is None else rank_of(source, "source")
        ended: OperationInfo | Work = self._run_pair(
            "recv", other, tag, written_only(x), timeout, async_op
        )
        return ended

    @overload
    def exchange(
        self, x: ArrayLike, out: ArrayLike | None, peer: int = ..., tag: int = ..., *,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def exchange(
        self, x: ArrayLike, out: ArrayLike | None, peer: int = ..., tag: int = ..., *,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def exchange(
        self,
        x: ArrayLike,
        out: ArrayLike | None,
        peer: int = 1,
        tag: int = 0,
        *,
        quantization: Quantized = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Swaps arrays with the member that has rank `peer` at present: `out` becomes its `x`.

        Both sides name each other, with the same types and sizes; with the own rank it copies. With
        None for `out` the other's replaces `x`.

        quantization: a Quantization, or the name of its codec, for floating point; the same on both
            sides. What `out` gets is rounded once.

        Errors are as for send(); after one `x` holds what it held before.
        """
        ended: OperationInfo | Work = self._run_pair(
            "exchange", rank_of(peer, "peer"), tag, paired(x, out), timeout, async_op, quantization
        )
        return ended
