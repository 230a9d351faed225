"""Operations of a process group that only move: torch's names and forms of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch import Tensor

from pyccl.torch.chunks import Chunks
from pyccl.torch.errors import InvalidArgumentError
from pyccl.torch.forms import Options, only, tensors_of
from pyccl.torch.lent import Lent
from pyccl.torch.tensors import as_moved, split_sizes
from pyccl.torch.work import Work

Lists = Sequence[Any]
"""Tensors by rank, or one list of such."""


class Movements(Chunks):
    def broadcast(
        self, tensors: Tensor | list[Tensor], opts: Any = None, timeout: timedelta | None = None,
        root: int | None = None,
    ) -> Work:  # fmt: skip
        options, given = Options.of(opts, timeout, root=root), tensors_of(tensors)
        if len(given) == 1:
            in_chunks = self._in_chunks(
                "broadcast", given[0], options, lambda x, options: self._broadcast([x], options),
                writes=self._group.rank != options.root,
            )  # fmt: skip
            if in_chunks is not None:
                return in_chunks
        return self._broadcast(given, options)

    def _broadcast(self, given: list[Tensor], options: Options) -> Work:
        lent, root = Lent(), options.root
        lend = lent.read if self._group.rank == root else lent.write
        if not self._fixed:
            lend = lent.change  # who is the root shows when it begins
        x = [as_moved(lend(one)) for one in given]
        if not x:
            raise InvalidArgumentError("broadcast takes at least one tensor")
        return self._start(
            "broadcast",
            lambda call: self._group.broadcast(x if len(x) > 1 else x[0], root, **call),
            given, lent, options,
        )  # fmt: skip

    def allgather(
        self, outputs: Lists, inputs: Tensor | list[Tensor], opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:  # fmt: skip
        x = only(tensors_of(inputs), "all_gather")
        out = self._by_rank(outputs, "all_gather")
        return self._gather_all("all_gather", x, out, Options.of(opts, timeout))

    def allgather_coalesced(
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:  # fmt: skip
        """Of each rank a list of tensors, like its own."""
        options, lent = Options.of(opts, timeout), Lent()
        fits = len(outputs) == self._group.world_size or not self._fixed
        if not fits or any(len(one) != len(inputs) for one in outputs):
            raise InvalidArgumentError(
                f"all_gather_coalesced: the outputs must be {self._group.world_size} lists, by "
                f"rank, of {len(inputs)} tensors"
            )
        x = lent.read_all(inputs)
        out = lent.write_all([one for of_rank in outputs for one in of_rank])
        return self._start(
            "all_gather_coalesced",
            lambda call: self._group.all_gather(x, out=out, **call),
            outputs, lent, options,
        )  # fmt: skip

    def all_gather_single(
        self, output: Tensor, x: Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> Work:
        return self._gather_whole("all_gather_into_tensor", [output], [x], opts, timeout)

    def all_gather_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:  # fmt: skip
        return self._gather_whole(
            "all_gather_into_tensor_coalesced", outputs, inputs, opts, timeout
        )

    # Names of other versions of torch.
    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(
        self, outputs: Lists, inputs: Tensor | list[Tensor], opts: Any = None,
        timeout: timedelta | None = None, root: int | None = None,
    ) -> Work:  # fmt: skip
        options, lent = Options.of(opts, timeout, root=root), Lent()
        root, tensor = options.root, only(tensors_of(inputs), "gather")
        out, by_rank = None, []
        if self._group.rank == root:
            by_rank = self._by_rank(outputs, "gather")
            _check_alike(by_rank, tensor, "gather")
            out = lent.write_all(by_rank)
        x = lent.read_all([tensor])
        return self._start(
            "gather",
            lambda call: self._group.gather(x, root, out=out, **call),
            by_rank, lent, options,
        )  # fmt: skip

    def scatter(
        self, outputs: Tensor | list[Tensor], inputs: Lists, opts: Any = None,
        timeout: timedelta | None = None, root: int | None = None,
    ) -> Work:  # fmt: skip
        options, lent = Options.of(opts, timeout, root=root), Lent()
        root, tensor = options.root, only(tensors_of(outputs), "scatter")
        x = None
        if self._group.rank == root:
            by_rank = self._by_rank(inputs, "scatter")
            _check_alike(by_rank, tensor, "scatter")
            x = lent.read_all(by_rank)
        out = lent.write_all([tensor])
        return self._start(
            "scatter",
            lambda call: self._group.scatter(x, root, out=out, **call),
            [tensor], lent, options,
        )  # fmt: skip

    def all_to_all_single(
        self,
        output: Tensor,
        x: Tensor,
        output_splits: Sequence[int] = (),
        input_splits: Sequence[int] = (),
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:
        options, lent, world = Options.of(opts, timeout), Lent(), self._group.world_size
        if output.dtype != x.dtype:
            raise InvalidArgumentError(
                f"all_to_all_single: the output is of {output.dtype}, the input of {x.dtype}"
            )
        sent = _counts(x, input_splits, world, "input_split_sizes", self._fixed)
        received = _counts(output, output_splits, world, "output_split_sizes", self._fixed)
        source, target = as_moved(lent.read(x)), as_moved(lent.write(output))
        unit = source.element_size()
        sends: list[int] | None = [one * x.element_size() // unit for one in sent]
        receives: list[int] | None = [one * x.element_size() // unit for one in received]
        # Some ranks may say in numbers what others leave out, so all say it.
        if not (self._fixed or len(input_splits) or len(output_splits)):
            sends = receives = None
        return self._start(
            "all_to_all_single",
            lambda call: self._group.all_to_all(
                source, out=target, send_counts=sends, recv_counts=receives, **call
            ),
            [output], lent, options,
        )  # fmt: skip

    alltoall_base = all_to_all_single

    def alltoall(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:  # fmt: skip
        world = self._group.world_size
        for what, given in (("outputs", outputs), ("inputs", inputs)):
            if len(given) != world and self._fixed:
                raise InvalidArgumentError(
                    f"all_to_all: {len(given)} {what}, but the group has {world} ranks"
                )
        options, lent = Options.of(opts, timeout), Lent()
        sends = [one.numel() * one.element_size() for one in inputs]
        receives = [one.numel() * one.element_size() for one in outputs]
        source, target = lent.read_all(inputs), lent.write_all(outputs)
        return self._start(
            "all_to_all",
            lambda call: self._group.all_to_all(
                source, out=target, send_counts=sends, recv_counts=receives, **call
            ),
            list(outputs), lent, options,
        )  # fmt: skip

    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> Work:
        return self._start(
            "barrier",
            lambda call: self._group.barrier(**call),
            [], Lent(), Options.of(opts, timeout),
        )  # fmt: skip

    def send(self, tensors: list[Tensor], to: int, tag: int = 0) -> Work:
        lent, tensor = Lent(), only(tensors_of(tensors), "send")
        x = as_moved(lent.read(tensor))
        return self._start_pair(
            f"send to rank {to}, tag {tag}",
            lambda call: self._group.send(x, to, **call),
            [tensor],
            lent,
            tag,
        )

    def recv(self, tensors: list[Tensor], source: int, tag: int = 0) -> Work:
        return self._receive(tensors, source, tag)

    def recv_anysource(self, tensors: list[Tensor], tag: int = 0) -> Work:
        return self._receive(tensors, None, tag)

    def _receive(self, tensors: list[Tensor], source: int | None, tag: int) -> Work:
        lent, tensor = Lent(), only(tensors_of(tensors), "recv")
        x = as_moved(lent.write(tensor))
        who = "any rank" if source is None else f"rank {source}"
        return self._start_pair(
            f"recv from {who}, tag {tag}",
            lambda call: self._group.recv(x, source, **call),
            [tensor],
            lent,
            tag,
        )

    def _by_rank(self, given: Lists, what: str) -> list[Tensor]:
        """One tensor for each rank, which torch gives as they are or in a list of one."""
        if given and isinstance(given[0], (list, tuple)):
            given = only(given, what)
        if len(given) != self._group.world_size and self._fixed:
            raise InvalidArgumentError(
                f"{what}: {len(given)} tensors, but the group has {self._group.world_size} ranks"
            )
        return list(given)

    def _gather_all(self, what: str, x: Tensor, out: list[Tensor], options: Options) -> Work:
        if any(one.dtype != x.dtype for one in out):
            raise InvalidArgumentError(f"{what}: the outputs are not all of {x.dtype}")
        room = out[self._group.rank].numel() if self._fixed else x.numel()
        if room != x.numel():
            raise InvalidArgumentError(
                f"{what}: this rank has {x.numel()} numbers, but room for {room} of its own"
            )
        lent = Lent()
        sizes = [one.numel() * one.element_size() for one in out]
        counts = sizes if len(set(sizes)) > 1 else None
        source, target = lent.read_all([x]), lent.write_all(out)
        return self._start(
            what,
            lambda call: self._group.all_gather(source, out=target, counts=counts, **call),
            [out], lent, options,
        )  # fmt: skip

    def _gather_whole(
        self, what: str, outputs: list[Tensor], inputs: list[Tensor], opts: Any,
        timeout: timedelta | None,
    ) -> Work:  # fmt: skip
        options, lent, world = Options.of(opts, timeout), Lent(), self._group.world_size
        for output, one in zip(outputs, inputs, strict=True):
            fits = output.numel() == world * one.numel() or not self._fixed
            if not fits or output.dtype != one.dtype:
                raise InvalidArgumentError(
                    f"{what}: the output must have {world} times the elements of the input, and "
                    f"their type; they are {output.numel()} of {output.dtype} and {one.numel()} of "
                    f"{one.dtype}"
                )
        if not inputs:
            raise InvalidArgumentError(f"{what} takes at least one tensor")
        many = len(inputs) > 1
        if not many:
            in_chunks = self._gather_in_chunks(
                what, outputs[0], inputs[0], options,
                lambda rows, x, options: self._gather_all(what, x, rows, options),
            )  # fmt: skip
            if in_chunks is not None:
                return in_chunks
        x = [as_moved(lent.read(one)) for one in inputs]
        out = [as_moved(lent.write(one)) for one in outputs]
        return self._start(
            what,
            lambda call: self._group.all_gather(
                x if many else x[0], out=out if many else out[0], **call
            ),
            list(outputs), lent, options,
        )  # fmt: skip


def _counts(tensor: Tensor, splits: Sequence[int], world: int, what: str, fixed: bool) -> list[int]:
    """Numbers by rank, from rows."""
    rows = tensor.shape[0] if tensor.dim() > 0 else 1
    row = tensor.numel() // rows if rows else 0
    # Where ranks may be lost meanwhile, the core judges what does not fit, for all of them.
    sizes = split_sizes(splits, rows, world, what) if fixed else splits or [rows // world] * world
    return [int(one) * row for one in sizes]


def _check_alike(by_rank: list[Tensor], tensor: Tensor, what: str) -> None:
    for one in by_rank:
        if one.numel() != tensor.numel() or one.dtype != tensor.dtype:
            raise InvalidArgumentError(
                f"{what}: tensors of {one.numel()} and {tensor.numel()} numbers, of {one.dtype} "
                f"and {tensor.dtype}, but all must be alike"
            )
