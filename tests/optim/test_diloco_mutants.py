"""Mutants of DiLoCo for torch, each with the identities that must notice it.

Those of the outer optimizer alone are in test_outer.py, those of arrays in test_optim_numpy.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

from . import test_diloco as identities
from . import test_diloco_peers as among
from . import test_diloco_use as using
from .conftest import Peers
from .family import Family

Check = Callable[[Family, Peers], None]

BF16 = "import ml_dtypes; self._params[...] = self._params.astype(ml_dtypes.bfloat16)"

MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    # ---- the outer step
    "sign": (
        "parameters",
        'torch.sub(first, learned, out=',
        'torch.sub(learned, first, out=',
        [identities.check_golden, identities.check_synchronous_sgd, identities.check_local_sgd,
         identities.check_narrow_progress],
    ),
    "heavy ball": (
        "outer",
        "rate, factor, self._nesterov,",
        "rate, factor, False,",
        [identities.check_golden, identities.check_snoo, identities.check_closed_form],
    ),
    "lr twice": (
        "outer",
        "rate, factor, self._nesterov,",
        "rate * rate, factor, self._nesterov,",
        [identities.check_golden, identities.check_lookahead, identities.check_script],
    ),
    "phi in bf16": (
        "outer",
        "self._set_step(self.step + 1)",
        f"{BF16}; self._set_step(self.step + 1)",
        [identities.check_golden, identities.check_inner_alone, identities.check_nothing_learned,
         identities.check_narrow_progress, identities.check_closed_form],
    ),
    "phi from the model": (
        "diloco",
        "self._parameters.write(self.outer.cut(self.outer.params))",
        "self._parameters.write(self.outer.cut(self.outer.params))\n        for phi, theta in zip("
        "self.outer.cut(self.outer.params), self._parameters.arrays()):\n"
        "            phi[...] = theta",
        [identities.check_nothing_learned, identities.check_narrow_progress],
    ),
    "delta of narrow types from phi": (
        "parameters",
        "if local.element_size() < 4:",
        "if False:",
        [identities.check_nothing_learned, identities.check_narrow_progress],
    ),
    "half of the mean": (
        "rounds",
        "return pending.values\n",
        "return pending.values / np.float32(2)\n",
        [identities.check_golden, identities.check_synchronous_sgd, identities.check_local_sgd,
         identities.check_fixed_point, among.check_lost],
    ),
    "sum for a mean": (
        "outer",
        'op: ClassVar[ReduceOp] = "avg"',
        'op: ClassVar[ReduceOp] = "sum"',
        [identities.check_golden, identities.check_alike, identities.check_fixed_point],
    ),
    "divided by the old N": (
        "rounds",
        "return pending.values\n",
        "return pending.values * (info.world_size / np.float32(4))\n",
        [among.check_lost],
    ),
    # ---- windows
    "H + 1": (
        "wrapper",
        "self.inner_steps >= self.sync_every",
        "self.inner_steps > self.sync_every",
        [identities.check_windows, identities.check_synchronous_sgd, identities.check_golden],
    ),
    "windows that do not begin anew": (
        "wrapper",
        "self.inner_steps = 0\n        return",
        "return",
        [identities.check_windows, identities.check_golden],
    ),
    "a step counts twice": (
        "wrapper", "self.tick()\n        return", "self.tick(), self.tick()\n        return",
        [identities.check_windows, using.check_ticks],
    ),
    "fresh for ever": (
        "wrapper", "replace(self.last_sync, fresh=False)", "self.last_sync",
        [identities.check_windows, using.check_ticks],
    ),
    "no_sync() does nothing": ("wrapper", "if not self._held:", "if True:",
                               [using.check_no_sync]),
    "no_sync() for ever": ("wrapper", "self._held -= 1", "pass", [using.check_no_sync]),
    "sync_every=None is 1": (
        "wrapper", "self.sync_every is not None and self.inner_steps >= self.sync_every",
        "self.inner_steps >= (self.sync_every or 1)", [using.check_sync_by_hand],
    ),
    # ---- the model
    "inner state reset": (
        "diloco",
        "self._write_outer()\n        return report",
        "self._write_outer()\n        self.inner.state.clear()\n        return report",
        [identities.check_inner_alone, identities.check_script],
    ),
    "theta goes on": (
        "diloco",
        "_was_behind(report):\n            self._write_outer()",
        "_was_behind(report):\n            pass",
        [identities.check_golden, identities.check_windows, identities.check_snoo],
    ),
    "theta is lost with the step": (
        "diloco", "if self.outer.step != before or self._was_behind(report):", "if True:",
        [among.check_too_few, among.check_aborted],
    ),
    "rebound": (
        "parameters",
        "_local(one).copy_(torch.from_numpy(value))",
        "one.data = torch.from_numpy(value.copy()).to(one.dtype)",
        [using.check_in_place],
    ),
    "tied twice": ("parameters", "if key not in seen:", "if True:", [using.check_tied]),
    "frozen ones too": (
        "parameters", "if not tensor.requires_grad or", "if", [using.check_left_out],
    ),
    "outer_params() stays": (
        "wrapper", "self._parameters.restore(saved)", "pass", [using.check_outer_params],
    ),
    "outer_params() stays behind an error": (
        "wrapper",
        "        try:\n            yield\n        finally:\n            "
        "self._parameters.restore(saved)",
        "        yield\n        self._parameters.restore(saved)",
        [using.check_outer_params],
    ),
    "no result": ("wrapper", "return result", "return None", [using.check_closure]),
    "groups of its own": (
        "wrapper",
        "inner.param_groups, inner.state, inner.defaults,\n",
        "[dict(one) for one in inner.param_groups], inner.state, inner.defaults,\n",
        [using.check_scheduler],
    ),
    "groups of before": (
        "wrapper",
        "self.param_groups, self.state = self.inner.param_groups, self.inner.state\n",
        "pass\n",
        [using.check_scheduler],
    ),
    # ---- checkpoints
    "momentum left at home": (
        "outer",
        '"momentum": self._momentum.copy(),',
        '"momentum": 0 * self._momentum,',
        [identities.check_resumed],
    ),
    "place in the window lost": (
        "wrapper", "self.inner_steps = inner_steps", "self.inner_steps = 0",
        [identities.check_resumed],
    ),
    "residuals lost": (
        "diloco", 'state.get("residuals", {}).items()', "()", [identities.check_resumed],
    ),
    "inner state left at home": (
        "wrapper", 'self._load_inner(state_dict["inner"])\n', "pass\n",
        [identities.check_resumed],
    ),
    # ---- peers
    "no state for the joiner": (
        "outer", '"momentum": self._momentum,', '"momentum": self._momentum.copy(),',
        [among.check_joiner],
    ),
    "no rates for the joiner": (
        "outer", '"lr, mu": self._rates,', '"lr, mu": self._rates.copy(),', [among.check_joiner],
    ),
    "the joiner trains from its own": (
        "diloco",
        "self.last_sync = self._rounds.join()\n        self._write_outer()",
        "self.last_sync = self._rounds.join()",
        [among.check_joiner, among.check_one_start],
    ),
    "weights of 1": ("diloco", "run(delta, self.weight)", "run(delta)", [among.check_weights]),
    "weight not sent": ("rounds", "weight=weight,", "weight=1.0,",
                        [among.check_weights, among.check_not_finite]),
    "NaN has a weight": (
        "rounds", "delta[...], weight = 0.0, 0.0", "delta[...] = 0.0",
        [among.check_not_finite, among.check_none_finite],
    ),
    "too few will do": (
        "rounds", "if info.members < self._peers_min:", "if False:", [among.check_too_few],
    ),
    "applied all the same": (
        "rounds",
        "return Pending(began, None, weight, None, None, report)",
        "return Pending(began, np.zeros_like(delta), weight, None, None, report)",
        [among.check_aborted],
    ),
    "the old reason": (
        "rounds", 'True, "", self._state.step', "True, report.reason, self._state.step",
        [among.check_not_finite],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    assert checks
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(mutant, peers)


def test_mutants_are_copies() -> None:
    """A copy without a change passes, and leaves the modules themselves what they were."""
    copy: Any = Family("outer", "import numpy as np", "import numpy as np")
    real: Any = Family()
    assert copy.DiLoCo is not real.DiLoCo
    assert copy.DiLoCo is copy.DiLoCo
    assert copy.module("diloco").OuterState is copy.OuterState is not real.OuterState
    assert copy.module("rounds").OuterState is copy.OuterState
    assert real.module("diloco").OuterState is real.OuterState
    for check in (*using.CHECKS, identities.check_snoo, identities.check_nothing_learned):
        check(copy, None)
