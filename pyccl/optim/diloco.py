"""DiLoCo as an optimizer of torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from pyccl.communicator import Communicator
from pyccl.diagnostics import Consistency, Diagnostics
from pyccl.optim.layout import F32, Array
from pyccl.optim.outer import OuterState, outer_lr_of, outer_momentum_of
from pyccl.optim.parameters import Parameters
from pyccl.optim.report import SyncReport
from pyccl.optim.rounds import ABORTS, Rounds, alike
from pyccl.optim.wrapper import Inner, OuterOptimizer
from pyccl.quantization import Codec, Quantization

_VECTORS = ("params", "momentum")


class DiLoCo(OuterOptimizer):
    """DiLoCo (arXiv 2311.08105): peers train for themselves for `sync_every` steps, and then take a
    step of an outer optimizer with the mean of what they have come to.

    params: those to exchange: model.parameters(), model.named_parameters() or param groups. Peers
        give the same ones in the same order; the values at the start come from one of them.
    inner: the optimizer that trains, or what makes one of a list of parameters. What it keeps is
        each peer's own.
    comm: a Communicator of which nothing else has been called since it was connected; make this
        right behind connect(), for the others wait for a newcomer in it. None: alone, with the
        outer optimizer all the same.
    sync_every: inner steps of a window; None: sync() says when.
    outer_lr, outer_momentum, nesterov: of the outer optimizer, see pyccl.optim.outer.
    quantization: a pyccl.Quantization or the name of its codec: deltas travel in fewer bits.
    error_feedback: what that takes is added to the next delta.
    min_peers: with fewer members nothing is applied, and what was learned is kept for later.
    timeout: seconds for each operation.
    diagnostics: behind each window peers tell each other how alike they have trained, in
        `last_sync.consistency` (see pyccl.diagnostics); set `loss` to this peer's before.

        opt = pyccl.optim.DiLoCo(
            model.parameters(), inner=torch.optim.AdamW(model.parameters(), lr=4e-4),
            comm=pyccl.connect("host:48148"), sync_every=500,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            opt, lambda _: 0.5 + 0.5 * math.cos(math.pi * min(1, opt.steps / 100_000))
        )
        for x, y in data:
            loss(model(x), y).backward()
            opt.step(); scheduler.step(); opt.zero_grad()
            if opt.last_sync.fresh:
                print(opt.last_sync)
        with opt.outer_params():
            evaluate(model)

    A peer that is lost is left out, and the step is taken by the others. A peer that comes gets the
    outer parameters, the momentum, the rates and the count of steps, and trains a window from there
    before it contributes. It is refused by a StateSyncError, and the others go on, where parameters
    or their order, `nesterov`, `min_peers`, `diagnostics` or what `quantization` makes of numbers
    are not those of the others.

    `weight` (what this peer's deltas count in the mean), `outer_lr` and `outer_momentum` may be set
    between steps; the last two are those of all peers. phi and momentum take 8 bytes for each
    parameter in CPU memory, an outer step 8 more for as long as it lasts.

    `steps` counts the inner steps of the run and is the same on all peers, so a newcomer whose
    schedule goes by it, as above, has the learning rate of the others. A scheduler that counts for
    itself begins with 0, and can be brought there by as many calls of its step().

    Buffers of the model are not exchanged. It puts phi into the model as it is made, so a
    checkpoint of the model is loaded behind that, and then that of this.
    """

    outer: OuterState
    _trains_meanwhile: ClassVar[bool] = False
    """Outer steps take place while training goes on."""
    _alike: Sequence[str] = ()
    """What peers must have alike beside the options that are common to all kinds."""

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = 500,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.9,
        nesterov: bool = True,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
        min_peers: int = 1,
        timeout: float | None = None,
        diagnostics: bool = False,
    ) -> None:
        super().__init__(params, inner, comm, sync_every)
        self._arrange(self._parameters)
        self.weight = 1.0
        self._alike = [*self._alike, *alike(quantization, min_peers, diagnostics)]
        arrays = self._parameters.arrays()
        rates = outer_lr_of(outer_lr), outer_momentum_of(outer_momentum)
        self.outer = self._state_of(self._parameters.names, arrays, *rates, nesterov)
        self._how: dict[str, Any] = {
            "quantization": quantization,
            "error_feedback": error_feedback,
            "peers_min": min_peers,
            "timeout": timeout,
            "compares": self._trains_meanwhile,
        }
        self._rounds = Rounds(self.outer, comm, **self._how)
        self.loss: float | None = None
        # By fragment: vectors of other sizes have sketches of their own.
        self._diagnostics: dict[int, Diagnostics] | None = {} if diagnostics else None
        self.last_sync = self._rounds.join()
        self._write_outer()

    @property
    def outer_lr(self) -> float:
        return self.outer.lr

    @outer_lr.setter
    def outer_lr(self, lr: float) -> None:
        self.outer.lr = outer_lr_of(lr)

    @property
    def outer_momentum(self) -> float:
        return self.outer.mu

    @outer_momentum.setter
    def outer_momentum(self, mu: float) -> None:
        self.outer.mu = outer_momentum_of(mu)

    def _arrange(self, parameters: Parameters) -> None:
        """Puts them into the order that they have in the outer state."""

    def _state_of(
        self, names: Sequence[str], arrays: Sequence[Array], lr: float, mu: float, nesterov: bool
    ) -> OuterState:
        return OuterState(names, arrays, lr, mu, nesterov, alike=self._alike)

    def _outer_step(self) -> SyncReport:
        delta, before = self.outer.empty(), self.outer.step
        self._parameters.subtract_from(self.outer.cut(self.outer.params), self.outer.cut(delta))
        found = self._consistency(delta)
        report = self._exchange(delta)
        report.consistency = found
        # Also where a newcomer has brought a state that is further on.
        if self.outer.step != before or self._was_behind(report):
            self._write_outer()
        return report

    def _exchange(self, delta: F32) -> SyncReport:
        return self._rounds.run(delta, self.weight)

    def _was_behind(self, report: SyncReport) -> bool:
        """This peer held another phi than the others, and the model what comes of that."""
        return self.comm is not None and any(one.peer == self.comm.peer for one in report.behind)

    def _consistency(self, delta: F32, fragment: int = 0) -> Consistency | None:
        if self._diagnostics is None:
            return None
        if fragment not in self._diagnostics:
            self._diagnostics[fragment] = Diagnostics(self.comm)
        try:
            return self._diagnostics[fragment].measure(delta, self.loss, self._how["timeout"])
        except ABORTS:  # for all; the outer step does without
            return None

    def _write_outer(self) -> None:
        self._parameters.write(self.outer.cut(self.outer.params))

    def _alone(self) -> None:
        self._rounds = Rounds(self.outer, None, **self._how)
        if self._diagnostics is not None:
            self._diagnostics = {}

    def _export(self) -> dict[str, Any]:
        # As tensors, which torch.load() takes without being told to trust the file.
        kept = self.outer.export()
        for key in _VECTORS:
            kept[key] = torch.from_numpy(kept[key])
        kept["extra"] = {name: torch.from_numpy(one) for name, one in kept["extra"].items()}
        if self._rounds.residuals is not None:
            kept["residuals"] = {
                fragment: [torch.from_numpy(one) for one in feedback.state_dict()["residuals"]]
                for fragment, feedback in self._rounds.residuals.items()
            }
        return kept

    def _import(self, state: dict[str, Any]) -> bool:
        given = {**state, **{key: state[key].numpy() for key in _VECTORS if key in state}}
        given["extra"] = {name: one.numpy() for name, one in state.get("extra", {}).items()}
        self.outer.import_(given)
        for fragment, residuals in state.get("residuals", {}).items():
            feedback = self._rounds.feedback(fragment)
            if feedback is not None:
                feedback.load_state_dict({"residuals": [one.numpy() for one in residuals]})
        before = self.outer.hash()
        self.last_sync = self._rounds.join()
        if self.outer.hash() == before:
            return True
        self._write_outer()
        return False
