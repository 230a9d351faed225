"""EDiT as an optimizer of torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pyccl.communicator import Communicator
from pyccl.errors import InvalidArgumentError
from pyccl.optim.diloco import DiLoCo
from pyccl.optim.layout import F32, Array
from pyccl.optim.parameters import Parameters
from pyccl.optim.penalty import EDiTState, NormDetector, Weighed, by_module
from pyccl.optim.report import Share, SyncReport
from pyccl.optim.wrapper import Inner


class EDiT(DiLoCo):
    """EDiT (arXiv 2412.07210): DiLoCo with a mean that a peer does not spoil which has run into
    garbage. Module by module, whose pseudo-gradient is suddenly far larger than usual counts
    nothing, of the others the smaller ones count more, and the mean is clipped (see
    pyccl.optim.penalty).

    modules: sequences of names, one for each module and with each parameter in one of them; None:
        parameters belong together whose names are the same up to the last dot. So give
        model.named_parameters(): parameters without names are one module.
    temperature: how much norms must differ for weights to. Infinity makes all the same.
    clip: bound of the norm of a mean; None: there is none.
    z_threshold, warmup: above which z-score of its norm a pseudo-gradient is an outlier, and behind
        how many outer steps; of each peer by itself, compared to its own.

    The others are those of DiLoCo; deltas travel beside their weights, so they are not quantized.
    `last_sync.shares` tells by module what this peer's part was.

        opt = pyccl.optim.EDiT(
            model.named_parameters(), inner=torch.optim.AdamW(model.parameters(), lr=4e-4),
            comm=comm, sync_every=128,
        )

    Behind an outer step all peers begin at phi, outliers too; where all peers are outliers, phi and
    momentum of the module stay as they are. A pseudo-gradient is compared when it is sent, by its
    norm for each window that is in it, and remembered once its step has come about: one that does
    not teaches nothing, and what was learned goes into the next one. Of sharded parameters norms
    are those of this rank's shards.
    """

    outer: EDiTState

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = 128,
        modules: Sequence[Sequence[str]] | None = None,
        temperature: float = 1.0,
        clip: float | None = 10.0,
        z_threshold: float = 3.0,
        warmup: int = 120,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.8,
        nesterov: bool = True,
        min_peers: int = 1,
        timeout: float | None = None,
        diagnostics: bool = False,
    ) -> None:
        self._wanted = modules
        self._sizes: dict[str, int] = {}
        self._weighing: dict[str, Any] = {"temperature": temperature, "clip": clip}
        self._windows = 0
        NormDetector(z_threshold, warmup)  # wrong ones are an error before anybody is waited for
        self._judging = z_threshold, warmup
        super().__init__(
            params, inner, comm, sync_every=sync_every, outer_lr=outer_lr,
            outer_momentum=outer_momentum, nesterov=nesterov, min_peers=min_peers, timeout=timeout,
            diagnostics=diagnostics,
        )  # fmt: skip

    def _arrange(self, parameters: Parameters) -> None:
        if self._wanted is None:
            modules = by_module(parameters.names)
        else:
            modules = {str(i): list(names) for i, names in enumerate(self._wanted)}
        parameters.arrange(list(modules.values()), "module")
        self._sizes = {module: len(names) for module, names in modules.items()}
        self._detectors = [NormDetector(*self._judging) for _ in modules]

    def _state_of(
        self, names: Sequence[str], arrays: Sequence[Array], lr: float, mu: float, nesterov: bool
    ) -> EDiTState:
        return EDiTState(
            names, arrays, self._sizes, lr, mu, nesterov, alike=self._alike, **self._weighing
        )

    def _exchange(self, delta: F32) -> SyncReport:
        self._windows += 1  # what was not applied before is in it too
        before = self.outer.step
        sent = self.outer.weigh(delta, [one.limit * self._windows for one in self._detectors])
        report = self._rounds.run(sent.values, self.weight)
        if report.applied:
            for detector, norm in zip(self._detectors, sent.norms, strict=True):
                detector.observe(norm / self._windows)
            report.shares = self._shares(sent)
        if self.outer.step != before:
            self._windows = 0
        return report

    def _shares(self, sent: Weighed) -> tuple[Share, ...]:
        return tuple(
            Share(module, norm, weight == 0, self.weight * weight / total if total > 0 else 0.0)
            for module, norm, weight, total in zip(
                self.outer.modules, sent.norms, sent.weights, self.outer.weight_sums, strict=True
            )
        )

    def _export(self) -> dict[str, Any]:
        kept = super()._export()
        kept["windows"] = self._windows
        kept["detectors"] = [one.export() for one in self._detectors]
        return kept

    def _import(self, state: dict[str, Any]) -> bool:
        detectors = state.get("detectors", ())
        if len(detectors) != len(self._detectors):
            raise InvalidArgumentError(
                f"the state has detectors of {len(detectors)} modules, but here are "
                f"{len(self._detectors)}; it is that of another model, or of another optimizer"
            )
        goes_on = super()._import(state)
        for detector, one in zip(self._detectors, detectors, strict=True):
            detector.import_(one)
        self._windows = int(state["windows"]) if goes_on else 0
        return goes_on
