"""Large tensors of a device in chunks: while the network has one, others are on their way between
the device and the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyccl.torch import staging
from pyccl.torch.calls import Calls
from pyccl.torch.forms import Options
from pyccl.torch.lent import Lent, check_writable
from pyccl.torch.tensors import plain, readable
from pyccl.torch.work import Work

# A third of a millisecond on the way to an H200, little beside what a network takes, and so many
# that what an operation costs by itself does not count: in chunks of 4 MiB, all-reduces of 25 and
# of 256 MiB took a quarter more.
CHUNK_BYTES = 16 << 20
# Elements; see _slices().
_GRAIN = 64

Part = Callable[[Options], Any]


class Chunks(Calls):
    """Of all operations in which each element meets its own kind only. All ranks divide them alike:
    by the size of the tensor, and not by how it lies."""

    def _in_chunks(
        self,
        name: str,
        tensor: Tensor,
        options: Options,
        call: Callable[[Tensor, Options], Any],
        writes: bool = True,
    ) -> Work | None:
        """call() for the pieces of a tensor that is changed in place, or that this rank only reads;
        None: it is one operation."""
        slices = self._slices(tensor)
        if not slices:
            return None
        lent = Lent()
        flat = _flat_to_write(tensor, lent) if writes else readable(tensor).reshape(-1)

        def part(piece: slice) -> Part:
            return lambda options: call(flat[piece], options)

        return self._all_of(name, [part(one) for one in slices], tensor, lent, options)

    def _gather_in_chunks(
        self,
        name: str,
        output: Tensor,
        x: Tensor,
        options: Options,
        call: Callable[[list[Tensor], Tensor, Options], Any],
    ) -> Work | None:
        """call(rows, x) for the pieces of an input, and of all ranks' in the output."""
        slices = self._slices(x)
        if not slices:
            return None
        lent = Lent()
        rows, flat = self._rows(_flat_to_write(output, lent)), readable(x).reshape(-1)

        def part(piece: slice) -> Part:
            return lambda options: call([row[piece] for row in rows], flat[piece], options)

        return self._all_of(name, [part(one) for one in slices], output, lent, options)

    def _scatter_in_chunks(
        self,
        name: str,
        output: Tensor,
        x: Tensor,
        options: Options,
        call: Callable[[Tensor, list[Tensor], Options], Any],
    ) -> Work | None:
        """call(output, rows) for the pieces of an output, and of all ranks' in the input."""
        slices = self._slices(output)
        if not slices:
            return None
        lent = Lent()
        flat, rows = _flat_to_write(output, lent), self._rows(readable(x).reshape(-1))

        def part(piece: slice) -> Part:
            return lambda options: call(flat[piece], [row[piece] for row in rows], options)

        return self._all_of(name, [part(one) for one in slices], output, lent, options)

    def _slices(self, tensor: Tensor) -> list[slice]:
        # Ranks that are lost in the midst of it would be in some chunks of the result only.
        if not self._fixed or not staging.elsewhere(tensor):
            return []
        size = tensor.numel()
        count = math.ceil(size * tensor.element_size() / CHUNK_BYTES)
        if count <= 1:
            return []
        # Of another number of chunks each is of another size: so ranks that mean tensors of unlike
        # sizes are told by the first chunk, or by the last one, and do not add up chunks of both.
        step = math.ceil(size / count)
        step += (count - step) % _GRAIN
        return [slice(at, min(at + step, size)) for at in range(0, size, step)]

    def _rows(self, flat: Tensor) -> list[Tensor]:
        return list(flat.view(self._group.world_size, -1).unbind())

    def _all_of(
        self, name: str, calls: Sequence[Part], output: Tensor, lent: Lent, options: Options
    ) -> Work:
        """All of them as one operation."""
        parts: list[Any] = []
        for call in calls:
            call(options._replace(parts=parts))
        lent.join(output)
        return self._start_parts(name, parts, [output], lent, options)


def _flat_to_write(tensor: Tensor, lent: Lent) -> Tensor:
    """The tensor's numbers, flat: its own memory, or a copy that goes there in the end."""
    check_writable(tensor, "the tensor")
    given = tensor.detach()
    if plain(given):
        return given.view(-1)
    flat = readable(given).reshape(-1)
    lent.then(lambda: given.copy_(flat.view(given.shape)))
    return flat
