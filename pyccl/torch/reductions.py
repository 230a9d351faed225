"""Operations of a process group that compute: torch's names and forms of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist

from pyccl.errors import PycclError
from pyccl.torch import callbacks
from pyccl.torch.chunks import Chunks
from pyccl.torch.errors import InvalidArgumentError
from pyccl.torch.forms import Options, only, tensors_of
from pyccl.torch.lent import Lent
from pyccl.torch.sparse import sum_sparse
from pyccl.torch.tensors import as_numbers, divides, factor_of, op_of
from pyccl.torch.work import Work

if TYPE_CHECKING:
    import pyccl

Op = Any
"""A torch.distributed.ReduceOp, or one of its kinds."""

_SUM = dist.ReduceOp.SUM


class Reductions(Chunks):
    def allreduce(
        self, tensors: Tensor | list[Tensor], opts: Any = None, timeout: timedelta | None = None,
        op: Op = None,
    ) -> Work:  # fmt: skip
        options = Options.of(opts, timeout, op)
        tensor = only(tensors_of(tensors), "all_reduce")
        if tensor.is_sparse:
            return self._allreduce_sparse(tensor, options)
        in_chunks = self._in_chunks(
            "all_reduce", tensor, options,
            lambda piece, options: self._reduce_all("all_reduce", [piece], options),
        )  # fmt: skip
        if in_chunks is not None:
            return in_chunks
        return self._reduce_all("all_reduce", [tensor], options)

    def allreduce_coalesced(
        self, tensors: list[Tensor], opts: Any = None, timeout: timedelta | None = None
    ) -> Work:
        return self._reduce_all("all_reduce_coalesced", tensors, Options.of(opts, timeout))

    def reduce(
        self,
        tensors: Tensor | list[Tensor],
        opts: Any = None,
        op: Op = None,
        timeout: timedelta | None = None,
        root: int | None = None,
    ) -> Work:
        options = Options.of(opts, timeout, op, root)
        tensor = only(tensors_of(tensors), "reduce")
        if not self._fixed and factor_of(options.op) is None:
            return self._reduce_somewhere(tensor, options)
        in_chunks = self._in_chunks(
            "reduce", tensor, options, self._reduce, writes=self._group.rank == options.root
        )
        return self._reduce(tensor, options) if in_chunks is None else in_chunks

    def _reduce(self, tensor: Tensor, options: Options) -> Work:
        lent, root = Lent(), options.root
        is_root = self._group.rank == root
        options = self._averaging([tensor], options, lent, here=is_root)
        x = as_numbers(lent.read(_scaled(tensor, options.op)))
        out = as_numbers(lent.write(tensor)) if is_root else None
        if out is not None and out.data_ptr() == x.data_ptr():
            out = None
        name = op_of(options.op, tensor.dtype)
        return self._start(
            "reduce",
            lambda call: self._group.reduce(x, root, op=name, out=out, **call),
            [tensor], lent, options,
        )  # fmt: skip

    def _reduce_somewhere(self, tensor: Tensor, options: Options) -> Work:
        """In place, since who is the root shows when it begins."""
        lent, name = Lent(), op_of(options.op, tensor.dtype)
        x = as_numbers(lent.change(tensor))
        return self._start(
            "reduce",
            lambda call: self._group.reduce(x, options.root, op=name, **call),
            [tensor], lent, options,
        )  # fmt: skip

    def reduce_scatter(
        self,
        outputs: Tensor | list[Tensor],
        inputs: list[Tensor] | list[list[Tensor]],
        opts: Any = None,
        timeout: timedelta | None = None,
        op: Op = None,
    ) -> Work:
        options = Options.of(opts, timeout, op)
        output = only(tensors_of(outputs), "reduce_scatter")
        shares: Sequence[Any] = inputs
        if shares and isinstance(shares[0], (list, tuple)):
            shares = only(shares, "reduce_scatter")
        if self._fixed:
            _check_shares(shares, output, self._group, "reduce_scatter")
        return self._scatter_shares("reduce_scatter", output, shares, options)

    def reduce_scatter_single(
        self, output: Tensor, x: Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> Work:
        return self._scatter_whole("reduce_scatter_tensor", [output], [x], opts, timeout)

    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:  # fmt: skip
        return self._scatter_whole(
            "reduce_scatter_tensor_coalesced", outputs, inputs, opts, timeout
        )

    # Names of other versions of torch.
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def _averaging(
        self, tensors: Sequence[Tensor], options: Options, lent: Lent, here: bool = True
    ) -> Options:
        """With a sum in the place of an average of whole numbers, which is cut behind it as NCCL
        cuts: towards zero. `here`: this rank has the result."""
        if not self._fixed or not divides(options.op, tensors):
            return options
        world = self._group.world_size

        def divide() -> None:
            for one in tensors:
                one.detach().div_(world, rounding_mode="trunc")

        if here:
            lent.then(divide)
        return options._replace(op=_SUM)

    def _reduce_all(self, what: str, tensors: list[Tensor], options: Options) -> Work:
        lent = Lent()
        options = self._averaging(tensors, options, lent)
        names = {op_of(options.op, one.dtype) for one in tensors}
        if len(names) != 1:
            raise InvalidArgumentError(
                f"{what}: {options.op} means different things for these types: "
                + ", ".join(sorted({str(one.dtype) for one in tensors}))
            )
        name = names.pop()
        scales = factor_of(options.op) is not None
        if scales:
            x = [as_numbers(lent.read(_scaled(one, options.op))) for one in tensors]
            out: Any = [as_numbers(lent.write(one)) for one in tensors]
        else:
            x = [as_numbers(lent.change(one)) for one in tensors]
            out = [None]
        many = len(x) > 1
        given = x if many else x[0]
        result = (out if many else out[0]) if scales else None
        return self._start(
            what,
            lambda call: self._group.all_reduce(given, op=name, out=result, **call),
            list(tensors), lent, options,
        )  # fmt: skip

    def _allreduce_sparse(self, tensor: Tensor, options: Options) -> Work:
        where, seconds = self._where("all_reduce"), self._limit(options, None)
        if op_of(options.op, tensor.dtype) != "sum" or factor_of(options.op) is not None:
            raise InvalidArgumentError(f"{where}: sparse tensors can only be summed")
        translate = self._translator("all_reduce", seconds)
        tag, chain, stager = self._next_place()
        stager.drain()
        try:
            with torch.no_grad():  # what detach() gives would keep its own number of values
                tensor.copy_(sum_sparse(self._group, tensor, seconds, tag))
        except PycclError as error:
            raise translate(error) from error
        if chain is not None and callbacks.current() is None:
            self._position += 1
        return Work(None, [tensor], translate, chain=chain)

    def _scatter_shares(
        self, what: str, output: Tensor, shares: Sequence[Tensor], options: Options
    ) -> Work:
        lent = Lent()
        options = self._averaging([output], options, lent)
        given = [_scaled(one, options.op) for one in shares]
        x = as_numbers(lent.read_all(given).view(output.dtype))
        return self._scatter_reduced(what, [(output, x)], shares, lent, options)

    def _scatter_whole(
        self, what: str, outputs: list[Tensor], inputs: list[Tensor], opts: Any,
        timeout: timedelta | None,
    ) -> Work:  # fmt: skip
        options, lent, world = Options.of(opts, timeout), Lent(), self._group.world_size
        for output, x in zip(outputs, inputs, strict=True):
            fits = x.numel() == world * output.numel() or not self._fixed
            if not fits or x.dtype != output.dtype:
                raise InvalidArgumentError(
                    f"{what}: the input must have {world} times the elements of the output, and "
                    f"their type; they are {x.numel()} of {x.dtype} and {output.numel()} of "
                    f"{output.dtype}"
                )
        if len(outputs) == 1:
            in_chunks = self._scatter_in_chunks(
                what, outputs[0], inputs[0], options,
                lambda output, rows, options: self._scatter_shares(what, output, rows, options),
            )  # fmt: skip
            if in_chunks is not None:
                return in_chunks
        options = self._averaging(outputs, options, lent)
        pairs = [
            (output, as_numbers(lent.read(_scaled(x, options.op))))
            for output, x in zip(outputs, inputs, strict=True)
        ]
        return self._scatter_reduced(what, pairs, None, lent, options)

    def _scatter_reduced(
        self,
        what: str,
        pairs: list[tuple[Tensor, Tensor]],
        shares: Sequence[Tensor] | None,
        lent: Lent,
        options: Options,
    ) -> Work:
        names = {op_of(options.op, output.dtype) for output, _ in pairs}
        name = only(sorted(names), f"{what} with {options.op}")
        x = [numbers for _, numbers in pairs]
        out = [as_numbers(lent.write(output)) for output, _ in pairs]
        counts = None
        if shares is not None and len({one.numel() for one in shares}) > 1:
            counts = [as_numbers(one).numel() for one in shares]
        many = len(pairs) > 1
        return self._start(
            what,
            lambda call: self._group.reduce_scatter(
                x if many else x[0], op=name, out=out if many else out[0], counts=counts,
                **call,
            ),
            [output for output, _ in pairs], lent, options,
        )  # fmt: skip


def _scaled(tensor: Tensor, op: Op) -> Tensor:
    """On its device: what was copied from there may not have come yet."""
    factor = factor_of(op)
    return tensor if factor is None else (tensor * factor).to(tensor.dtype)


def _check_shares(
    shares: Sequence[Tensor], output: Tensor, group: pyccl.Subgroup, what: str
) -> None:
    if len(shares) != group.world_size:
        raise InvalidArgumentError(
            f"{what}: {len(shares)} tensors, but the group has {group.world_size} ranks"
        )
    own = shares[group.rank]
    if own.numel() != output.numel() or any(one.dtype != output.dtype for one in shares):
        raise InvalidArgumentError(
            f"{what}: the output is {output.numel()} of {output.dtype}, but this rank's input "
            f"{own.numel()} of {own.dtype}"
        )
