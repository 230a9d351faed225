"""Operations that only move: broadcast, all_gather, gather, scatter, all_to_all and barrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from pyccl import _core
from pyccl.arrays import (
    ArrayLike,
    apart,
    paired,
    part,
    read_only,
    row_size,
    rows,
    same,
    stacked,
    with_rows,
)
from pyccl.errors import InvalidArgumentError
from pyccl.operations import Algorithm, OnLoss, Operations, Quantized, Result, settings_of
from pyccl.work import OperationInfo, Work


class Movements(Operations):
    @overload
    def broadcast(
        self, x: ArrayLike, root: int = ..., *, out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def broadcast(
        self, x: ArrayLike, root: int = ..., *, out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def broadcast(
        self,
        x: ArrayLike,
        root: int = 0,
        *,
        out: ArrayLike | None = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss = "retry",
        quantization: Quantized = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Gives all members what the member of rank `root` has, bit for bit.

        x: an array of any shape, or a list of arrays; types as for all_reduce(). What it holds
            elsewhere than at the root is not read, and by default replaced.
        root: a rank of the present view. If it is lost meanwhile, PeerLostError says so on all
            members, whatever `on_loss` is.
        out: where the result goes, shaped like `x`; at the root it gets a copy.
        algorithm: "direct", "binomial" or "chain".
        quantization: a Quantization, or the name of its codec, for floating point. The root's
            numbers are rounded once, and all members get those, in the root's arrays too.

        The rest is as for all_reduce().
        """
        settings = settings_of(
            "broadcast", "sum", 1.0, tag, on_loss, algorithm, root, quantization=quantization
        )
        arrays = paired(x, out, self._place()[1])
        ended: OperationInfo | Work = self._run(settings, arrays, timeout, async_op)
        return ended

    @overload
    def all_gather(
        self, x: ArrayLike, *, out: ArrayLike | None = ..., counts: Any = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss | None = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> Result: ...  # fmt: skip

    @overload
    def all_gather(
        self, x: ArrayLike, *, out: ArrayLike | None = ..., counts: Any = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss | None = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work[Result]: ...  # fmt: skip

    def all_gather(
        self,
        x: ArrayLike,
        *,
        out: ArrayLike | None = None,
        counts: Any = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss | None = None,
        quantization: Quantized = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Result | Work[Result]:
        """Gives all members the arrays of all members, by rank.

        x: an array, or a list of arrays, of the same sizes and types on all members; types as for
            all_reduce().
        out: where the result goes: an array of world_size times the elements of `x`, or a list of
            such. The same choice on all members.
        counts: how many rows each rank's single `x` has, where they differ; the same on all
            members, and x.shape[0] == counts[rank].
        algorithm: "ring" or "direct".
        on_loss: "retry" by default where the result is a new array, which then has as many rows as
            there are members in the view that committed it; "raise" with `out` or `counts`. With
            `out` and "retry" the rows of members that were lost keep any content, behind the
            others (Work.info().members says how many those are).
        quantization: a Quantization, or the name of its codec, for floating point. Each rank's
            numbers are rounded once; its own share in the result is rounded like the others.

        Returns `out`, or a new numpy array of shape (world_size, *x.shape), with `counts`
        (sum(counts), *x.shape[1:]); for a list a list of such. The rest is as for all_reduce().
        """
        if on_loss is None:
            on_loss = "retry" if out is None and counts is None else "raise"
        settings = settings_of(
            "all_gather", "sum", 1.0, tag, on_loss, algorithm, quantization=quantization
        )
        world = self._place()[1]
        if counts is not None:
            by_rank = rows(counts, "counts")
            size = row_size(x, "x")
            arrays, result = apart(x, out, world, with_rows(sum(by_rank)))
            arrays.cut([count * size for count in by_rank])
            return self._run(settings, arrays, timeout, async_op, lambda _: result)
        arrays, result = apart(x, out, world, stacked(world))
        give = _first_rows(result, world) if out is None else lambda _: result
        return self._run(settings, arrays, timeout, async_op, give)

    @overload
    def gather(
        self, x: ArrayLike, root: int = ..., *, out: ArrayLike | None = ..., counts: Any = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> Result | None: ...  # fmt: skip

    @overload
    def gather(
        self, x: ArrayLike, root: int = ..., *, out: ArrayLike | None = ..., counts: Any = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        timeout: float | None = ..., async_op: Literal[True],
    ) -> Work[Result | None]: ...  # fmt: skip

    def gather(
        self,
        x: ArrayLike,
        root: int = 0,
        *,
        out: ArrayLike | None = None,
        counts: Any = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss = "raise",
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Result | Work[Result | None] | None:
        """Gives the member of rank `root` the arrays of all members, by rank.

        x, counts: as for all_gather().
        root: a rank of the present view; a lost one is a PeerLostError.
        out: where the root's result goes, as for all_gather(); elsewhere it is neither read nor
            written.
        on_loss: "raise" by default, on all members alike; with "retry" the result has a row for
            each member of the view that committed it, as for all_gather().

        Returns the root's result as all_gather() does, and None elsewhere. The rest is as for
        all_reduce().
        """
        settings = settings_of("gather", "sum", 1.0, tag, on_loss, algorithm, root)
        rank, world = self._place()
        by_rank = None if counts is None else rows(counts, "counts")
        result = None
        if rank == root:
            shape = stacked(world) if by_rank is None else with_rows(sum(by_rank))
            arrays, result = apart(x, out, world, shape)
        else:
            arrays = read_only(x, world)
        if by_rank is not None:
            size = row_size(x, "x")
            arrays.cut([count * size for count in by_rank])
        elif rank == root and out is None:
            return self._run(settings, arrays, timeout, async_op, _first_rows(result, world))
        return self._run(settings, arrays, timeout, async_op, lambda _: result)

    @overload
    def scatter(
        self, x: ArrayLike | None, root: int = ..., *, out: ArrayLike | None = ...,
        counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> Result: ...  # fmt: skip

    @overload
    def scatter(
        self, x: ArrayLike | None, root: int = ..., *, out: ArrayLike | None = ...,
        counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        timeout: float | None = ..., async_op: Literal[True],
    ) -> Work[Result]: ...  # fmt: skip

    def scatter(
        self,
        x: ArrayLike | None,
        root: int = 0,
        *,
        out: ArrayLike | None = None,
        counts: Any = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Result | Work[Result]:
        """Gives each member its share of what the member of rank `root` has.

        x: the root's array, or list of arrays, divided by rank as for reduce_scatter(). Elsewhere
            only its shape and type count; it may be None where `out` is given.
        root: a rank of the present view.
        out, counts: as for reduce_scatter().

        Returns the own share, shaped as by reduce_scatter(). A lost peer makes it raise
        PeerLostError on all members. The rest is as for all_reduce().
        """
        settings = settings_of("scatter", "sum", 1.0, tag, "raise", algorithm, root)
        rank, world = self._place()
        reads = rank == root
        if counts is None:
            arrays, result = apart(x, out, world, part(world), reads=reads)
        else:
            by_rank = rows(counts, "counts")
            size = row_size(x if x is not None else out, "x" if x is not None else "out")
            own = by_rank[rank] if rank < len(by_rank) else 0
            arrays, result = apart(x, out, world, with_rows(own), reads=reads)
            arrays.cut([count * size for count in by_rank])
        return self._run(settings, arrays, timeout, async_op, lambda _: result)

    @overload
    def all_to_all(
        self, x: ArrayLike, *, out: ArrayLike | None = ..., send_counts: Any = ...,
        recv_counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> Result: ...  # fmt: skip

    @overload
    def all_to_all(
        self, x: ArrayLike, *, out: ArrayLike | None = ..., send_counts: Any = ...,
        recv_counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        timeout: float | None = ..., async_op: Literal[True],
    ) -> Work[Result]: ...  # fmt: skip

    def all_to_all(
        self,
        x: ArrayLike,
        *,
        out: ArrayLike | None = None,
        send_counts: Any = None,
        recv_counts: Any = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Result | Work[Result]:
        """Gives each member a share of each member's array: share i goes to rank i.

        x: an array whose first dimension is divided equally among the members, or a list of such;
            types as for all_reduce().
        out: where the shares of all go, by rank: an array as large as `x`, or a list of such.
        send_counts, recv_counts: how many rows of a single `x` go to each rank, and how many come
            from each; both on all members or on none. What one sends is what the other receives.

        Returns `out`, or a new numpy array shaped like `x`; with counts of shape
        (sum(recv_counts), *x.shape[1:]). A lost peer makes it raise PeerLostError on all members.
        The rest is as for all_reduce().
        """
        settings = settings_of("all_to_all", "sum", 1.0, tag, "raise", algorithm)
        world = self._place()[1]
        if send_counts is None and recv_counts is None:
            arrays, result = apart(x, out, world, same)
        elif send_counts is None or recv_counts is None:
            raise InvalidArgumentError("send_counts and recv_counts come together")
        else:
            size = row_size(x, "x")
            sent, received = rows(send_counts, "send_counts"), rows(recv_counts, "recv_counts")
            arrays, result = apart(x, out, world, with_rows(sum(received)))
            arrays.cut_both([count * size for count in sent], [count * size for count in received])
        return self._run(settings, arrays, timeout, async_op, lambda _: result)

    @overload
    def barrier(
        self, *, tag: int = ..., timeout: float | None = ..., async_op: Literal[False] = ...
    ) -> OperationInfo: ...

    @overload
    def barrier(
        self, *, tag: int = ..., timeout: float | None = ..., async_op: Literal[True]
    ) -> Work: ...

    def barrier(
        self, *, tag: int = 0, timeout: float | None = None, async_op: bool = False
    ) -> OperationInfo | Work:
        """Returns when all members have called it. Matched and retried like an all-reduce."""
        settings = settings_of("barrier", tag=tag)
        ended: OperationInfo | Work = self._run(settings, _core.Arrays(0), timeout, async_op)
        return ended


def _first_rows(result: Any, world: int) -> Callable[[OperationInfo], Any]:
    """Of a gathering that was retried without some members only so many rows are filled."""

    def give(info: OperationInfo) -> Any:
        if info.members == world:
            return result
        if isinstance(result, list):
            return [one[: info.members] for one in result]
        return result[: info.members]

    return give
