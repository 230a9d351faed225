"""Operations that compute: all_reduce, reduce and reduce_scatter."""

from __future__ import annotations

from typing import Any, Literal, overload

from pyccl.arrays import ArrayLike, apart, paired, part, read_only, row_size, rows, with_rows
from pyccl.operations import (
    Algorithm,
    OnLoss,
    Operations,
    Quantized,
    ReduceOp,
    Result,
    settings_of,
)
from pyccl.work import OperationInfo, Work


class Reductions(Operations):
    @overload
    def all_reduce(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def all_reduce(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def all_reduce(
        self,
        x: ArrayLike,
        *,
        op: ReduceOp = "sum",
        weight: float = 1.0,
        out: ArrayLike | None = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss = "retry",
        quantization: Quantized = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Reduces arrays element by element over all members; all hold the same bits afterwards.

        x: an array of any shape, or a list of arrays, which are then one operation with one
            outcome. C-contiguous, in the CPU's memory, of f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16
            u32 or u64: numpy, anything with the buffer protocol, DLPack. The same types and
            sizes in the same order on all members.
        op: sum, avg, prod, min, max, band, bor, bxor. avg for floating point, the bit operations
            for integers only.
        weight: >= 0, floating point, for sum and avg: what this peer's values are multiplied by.
            avg divides by the sum of the weights. 0 takes part without contributing; where nobody
            contributes, InvalidArgumentError says so on all members.
        out: where the result goes: an array, or a list of arrays, like `x`. By default the result
            replaces `x`.
        algorithm: "ring", "direct", "one_shot", "recursive_doubling" or "halving_doubling"; by
            default what suits size, group and links.
        tag: operations of one tag are matched by their order; different tags are independent.
        on_loss: what the survivors of a lost peer do: "retry" begins again among them, "raise"
            raises PeerLostError on all of them.
        quantization: a Quantization, or the name of its codec, for sum and avg of floating point:
            numbers travel in fewer bits, and still all members hold the same bits afterwards.
            By "direct", which is then the default, each contribution is rounded once, their sum in
            f32 once more, however many members there are. By "ring" sums travel unrounded
            (Quantization.partial), and the result is rounded once. A member that is alone rounds
            nothing.
        timeout: seconds; by default the communicator's `operation_timeout`.
        async_op: returns a Work at once. The arrays belong to the operation until it has ended.

        After an error `x` holds what it held before, and `out` is undefined. Ctrl-C cancels a
        blocking call. Raises InvalidArgumentError, MismatchError, PeerLostError, OperationTimeout
        (names the ranks that had not arrived), EvictedError, ClosedError. Where one of these needs
        the coordinator's decision and it stays away, the outcome is unknown: the communicator ends
        with CoordinatorUnavailableError.
        """
        settings = settings_of(
            "all_reduce", op, weight, tag, on_loss, algorithm, quantization=quantization
        )
        ended: OperationInfo | Work = self._run(settings, paired(x, out), timeout, async_op)
        return ended

    @overload
    def reduce(
        self, x: ArrayLike, root: int = ..., *, op: ReduceOp = ..., weight: float = ...,
        out: ArrayLike | None = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        on_loss: OnLoss = ..., timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def reduce(
        self, x: ArrayLike, root: int = ..., *, op: ReduceOp = ..., weight: float = ...,
        out: ArrayLike | None = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        on_loss: OnLoss = ..., timeout: float | None = ..., async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def reduce(
        self,
        x: ArrayLike,
        root: int = 0,
        *,
        op: ReduceOp = "sum",
        weight: float = 1.0,
        out: ArrayLike | None = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss = "retry",
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Reduces arrays element by element over all members; the member of rank `root` has the
        result.

        x: as for all_reduce(); only read elsewhere than at the root.
        root: a rank of the present view. If it is lost meanwhile, PeerLostError says so on all
            members, whatever `on_loss` is.
        out: where the root's result goes, shaped like `x`; by default it replaces `x`. Elsewhere it
            is neither read nor written.
        algorithm: "direct", "binomial" or "chain".

        The rest is as for all_reduce().
        """
        settings = settings_of("reduce", op, weight, tag, on_loss, algorithm, root)
        rank, world = self._place()
        arrays = paired(x, out, world) if rank == root else read_only(x, world)
        ended: OperationInfo | Work = self._run(settings, arrays, timeout, async_op)
        return ended

    @overload
    def reduce_scatter(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[False] = ...,
    ) -> Result: ...  # fmt: skip

    @overload
    def reduce_scatter(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        counts: Any = ..., algorithm: Algorithm | None = ..., tag: int = ...,
        quantization: Quantized = ..., timeout: float | None = ...,
        async_op: Literal[True],
    ) -> Work[Result]: ...  # fmt: skip

    def reduce_scatter(
        self,
        x: ArrayLike,
        *,
        op: ReduceOp = "sum",
        weight: float = 1.0,
        out: ArrayLike | None = None,
        counts: Any = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        quantization: Quantized = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Result | Work[Result]:
        """Reduces arrays element by element over all members, of which each gets one share.

        x: an array whose first dimension is divided equally among the members, by rank; or a list
            of such arrays. Types as for all_reduce().
        out: where the own share goes: an array of that size, or a list of such.
        counts: how many rows of a single `x` each rank gets, instead of equally many; the same on
            all members.
        algorithm: "ring" or "direct".
        quantization: as for all_reduce(), by "direct" only; each contribution is rounded once, and
            their sum is not.

        Returns the share: `out`, or a new numpy array. Of an `x` of shape (world_size, *s) with two
        dimensions or more it has shape s, of any other (rows // world_size, *s), with `counts`
        (counts[rank], *s).

        A lost peer makes it raise PeerLostError on all members, since `x` is cut by rank. Rows that
        can't be divided among the members are an InvalidArgumentError on all of them. The rest is
        as for all_reduce().
        """
        settings = settings_of(
            "reduce_scatter", op, weight, tag, "raise", algorithm, quantization=quantization
        )
        rank, world = self._place()
        if counts is None:
            arrays, result = apart(x, out, world, part(world))
        else:
            by_rank = rows(counts, "counts")
            size = row_size(x, "x")
            own = by_rank[rank] if rank < len(by_rank) else 0
            arrays, result = apart(x, out, world, with_rows(own))
            arrays.cut([count * size for count in by_rank])
        return self._run(settings, arrays, timeout, async_op, lambda _: result)
