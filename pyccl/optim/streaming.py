"""Streaming DiLoCo as an optimizer of torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pyccl.communicator import Communicator
from pyccl.diagnostics import Consistency
from pyccl.errors import InvalidArgumentError
from pyccl.optim.diloco import DiLoCo
from pyccl.optim.layout import F32
from pyccl.optim.parameters import Parameters
from pyccl.optim.report import SyncReport
from pyccl.optim.rounds import Exchange, Pending
from pyccl.optim.schedule import StreamingSchedule, balanced, layered
from pyccl.optim.wrapper import Inner
from pyccl.options import fraction

if TYPE_CHECKING:
    from typing_extensions import Unpack


Named = Sequence[Sequence[str]]
Fragments = int | str | Named | Callable[[list[str]], Named]


class StreamingDiLoCo(DiLoCo):
    """Streaming DiLoCo (arXiv 2501.18512): DiLoCo by fragments of the parameters, one after the
    other, while training goes on.

    fragments: how many, of about the same number of elements each; or "layers:3" for three layers
        in each, from all depths (see pyccl.optim.schedule.layered()); or sequences of names, one
        for each fragment and with each parameter in one of them, or what makes such of the list of
        names. Names are those of `params`, so give model.named_parameters().
    sync_every: inner steps in which each fragment is synced once.
    overlap: inner steps that a sync may take: training goes on meanwhile.
    merge_alpha: what is kept of the local parameters when a fragment is applied: 0 takes the outer
        ones and drops what was learned in the overlap, 1 ignores the others, 0.5 is their mean.

    The others are those of DiLoCo. An outer step is of one fragment, and `last_sync.fragment` says
    of which; one that does not come about is tried again behind the next sync_every / fragments
    inner steps, with the same fragment. A peer that comes counts nothing until it has trained for
    `sync_every` steps. Once in as many steps all compare what they hold, while training goes on;
    one that has drifted is put right at the outer step behind that.

        opt = pyccl.optim.StreamingDiLoCo(
            model.named_parameters(), inner=torch.optim.AdamW(model.parameters(), lr=4e-4),
            comm=comm, sync_every=100, fragments=4, overlap=5, quantization="fp4_e3m0",
        )
    """

    _trains_meanwhile = True

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int = 100,
        fragments: Fragments = 4,
        overlap: int = 0,
        merge_alpha: float = 0.5,
        outer_lr: float = 0.4,
        outer_momentum: float = 0.9,
        nesterov: bool = True,
        **exchange: Unpack[Exchange],
    ) -> None:
        self.merge_alpha = fraction(merge_alpha, "merge_alpha")
        self._wanted, self._timing = fragments, (sync_every, overlap)
        self._places: list[slice] = []
        self._pending: Pending | None = None
        self._sent: F32 | None = None
        self._found: Consistency | None = None
        super().__init__(
            params, inner, comm, sync_every=sync_every, outer_lr=outer_lr,
            outer_momentum=outer_momentum, nesterov=nesterov, **exchange,
        )  # fmt: skip
        # Inner steps from parameters that all had. Who begins with the run has nothing to wait for.
        self._age = sync_every if self.outer.step == 0 else 0

    def tick(self) -> None:
        self._age += 1
        super().tick()

    def leave(self) -> None:
        # The others have this peer's part in it.
        if self.comm is not None and self._pending is not None:
            self.sync()
        super().leave()

    def _arrange(self, parameters: Parameters) -> None:
        fragments = _named(self._wanted, parameters)
        (sync_every, overlap), count = self._timing, len(fragments)
        self.schedule = StreamingSchedule(count, sync_every, overlap)
        parameters.arrange(fragments)
        ends = list(itertools.accumulate(len(one) for one in fragments))
        self._places = [slice(*ends) for ends in itertools.pairwise([0, *ends])]
        self._alike = [f"fragment {i} to parameter {end}" for i, end in enumerate(ends)]

    def _end_if_due(self) -> None:
        gap = self.schedule.gap(self.outer.step)
        if self._pending is None and self.inner_steps >= gap - self.schedule.overlap:
            self._send()
        if self.inner_steps >= gap:
            self.sync()

    def _send(self, delta: F32 | None = None, weight: float | None = None) -> None:
        fragment = self.schedule.fragment(self.outer.step)
        if delta is None:
            delta = self.outer.empty()[self._elements(fragment)]
            place = self._places[fragment]
            self._parameters.subtract_from(
                self._cut(self.outer.params, place), self._cut_part(delta, place), place
            )
            self._found = self._consistency(delta, fragment)
        if weight is None:
            whole = self.schedule.sync_every - self.schedule.overlap
            weight = self.weight if self._age >= whole else 0.0
        # For a checkpoint, and for as long as the sum is under way.
        self._sent = delta.copy() if self.schedule.overlap > 0 else None
        self._pending = self._rounds.begin(delta, weight, fragment)

    def _outer_step(self) -> SyncReport:
        if self._pending is None:
            self._send()
        pending = self._pending
        assert pending is not None
        self._rounds.settle(pending)
        self._pending, self._sent = None, None
        before = self.outer.step
        fragment = self.schedule.fragment(before)
        last = fragment == self.schedule.fragments - 1
        report = self._rounds.finish(
            pending, self._elements(fragment), "later" if last else "never"
        )
        report.consistency, self._found = self._found, None
        behind = self._was_behind(report)
        if report.applied and self.outer.step == before + 1 and not behind:
            place = self._places[fragment]
            self._parameters.merge(self._cut(self.outer.params, place), self.merge_alpha, place)
        elif self.outer.step != before or behind:  # somebody has brought another state
            self._write_outer()
            self._age = 0
        return report

    def _steps_before(self, outer_step: int) -> int:
        return self.schedule.begin(outer_step)

    def _elements(self, fragment: int) -> slice:
        """Of a fragment in the vectors of the outer state."""
        place, ends = self._places[fragment], (0, *self.outer.ends)
        return slice(ends[place.start], ends[place.stop])

    def _cut(self, flat: F32, place: slice) -> list[F32]:
        return self.outer.cut(flat)[place]

    def _cut_part(self, part: F32, place: slice) -> list[F32]:
        """Views of a vector that is of one fragment only."""
        found, begin = [], 0
        for view in self._cut(self.outer.params, place):
            found.append(part[begin : begin + view.size].reshape(view.shape))
            begin += view.size
        return found

    def _export(self) -> dict[str, Any]:
        kept = super()._export()
        kept["age"] = self._age
        if self._sent is not None and self._pending is not None:
            kept["sent"] = torch.from_numpy(self._sent.copy())
            kept["sent_weight"] = self._pending.weight
        return kept

    def _import(self, state: dict[str, Any]) -> bool:
        if self._pending is not None:  # without the model, which may have been loaded already
            self._rounds.settle(self._pending)
            pending, self._pending, self._sent = self._pending, None, None
            elements = self._elements(self.schedule.fragment(self.outer.step))
            self._rounds.finish(pending, elements, "never")
        goes_on = super()._import(state)
        self._age = int(state.get("age", 0)) if goes_on else 0
        if goes_on and "sent" in state:
            self._send(state["sent"].numpy().copy(), state.get("sent_weight"))
        return goes_on


def _named(wanted: Fragments, parameters: Parameters) -> Named:
    sizes = {
        name: one.numel() for name, one in zip(parameters.names, parameters.tensors, strict=True)
    }
    if isinstance(wanted, int):
        return balanced(sizes, wanted)
    if isinstance(wanted, str):
        number = re.fullmatch(r"layers:(\d+)", wanted)
        if number is None:
            raise InvalidArgumentError(
                f'fragments is {wanted!r}, but a text must be like "layers:3"'
            )
        return layered(sizes, int(number[1]))
    return wanted(parameters.names) if callable(wanted) else wanted
