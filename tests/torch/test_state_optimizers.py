"""The state of optimizers as shared state: made before the first step it changes nothing, and what
can't be shared is refused."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import pyccl  # noqa: E402
from pyccl.torch import shared_state  # noqa: E402

STEPS = 5
OF_TORCH: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "fused": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "foreach": True}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adam", {"lr": torch.tensor(0.1), "foreach": False}),
    ("Adam", {"lr": 0.1, "fused": True}),
    ("Adam", {"lr": 0.1, "foreach": True}),
    ("AdamW", {"lr": 0.1, "amsgrad": True}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.1, "decoupled_weight_decay": True, "foreach": True}),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.1, "foreach": True}),
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "lr_decay": 0.1}),
    ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.1, "t0": 2, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.1, "t0": 2, "foreach": True}),
    ("Rprop", {"lr": 0.1}),
    ("Rprop", {"lr": 0.1, "foreach": True}),
    ("Adafactor", {"lr": 0.1, "weight_decay": 0.1}),
    ("Muon", {"lr": 0.1}),
]
REFUSED = {"LBFGS", "SparseAdam"}


def parameters(only_matrices: bool = False) -> list[Any]:
    ramp = torch.arange(12, dtype=torch.float32).sin()
    made = [ramp.reshape(3, 4).clone(), -ramp.reshape(4, 3).clone()]
    if not only_matrices:
        # The last two never have a gradient, and a zero to begin with.
        made += [
            ramp[:5].clone(),
            ramp[3].clone(),
            ramp.reshape(3, 2, 2).double(),
            ramp[:0].clone(),
        ]
    return [torch.nn.Parameter(one) for one in made]


def step(optimizer: Any, given: list[Any], number: int) -> None:
    for i, one in enumerate(given):
        if i == 4:
            continue
        ramp = torch.arange(one.numel(), dtype=one.dtype).reshape(one.shape)
        one.grad = (ramp * (i + 1) + number).cos().round(decimals=1)
    optimizer.step()


def bits(tensors: list[Any]) -> list[bytes]:
    return [one.detach().numpy().tobytes() for one in tensors]


def named(given: list[Any]) -> dict[str, Any]:
    return {f"p{i}": one for i, one in enumerate(given)}


def test_all_of_torch_are_here() -> None:
    classes = {
        name
        for name, one in vars(torch.optim).items()
        if inspect.isclass(one) and issubclass(one, torch.optim.Optimizer)
    }
    assert classes - {"Optimizer"} <= {name for name, _ in OF_TORCH} | REFUSED


@pytest.mark.parametrize(("kind", "options"), OF_TORCH)
def test_a_state_made_before_the_first_step_changes_nothing(
    kind: str, options: dict[str, Any]
) -> None:
    if not hasattr(torch.optim, kind):
        pytest.skip("not in this torch")
    trained = []
    for shared in (False, True):
        given = parameters(only_matrices=kind == "Muon")
        if kind == "Adafactor":
            del given[-1]  # it divides by the number of elements
        options_now = {k: v.clone() if torch.is_tensor(v) else v for k, v in options.items()}
        optimizer = getattr(torch.optim, kind)(given, **options_now)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        if shared:
            before = bits(given), torch.get_rng_state().tolist()
            groups = repr(optimizer.param_groups)
            state = shared_state(named(given), optimizer)
            digest = state.digest()
            assert (bits(given), torch.get_rng_state().tolist()) == before
            assert repr(optimizer.param_groups) == groups
            assert all(one.grad is None for one in given)
            assert not getattr(optimizer, "_opt_called", False)
        seen: list[Any] = []
        for number in range(STEPS):
            step(optimizer, given, number)
            scheduler.step()
            # Those that never have a gradient have state only where it was made before.
            stepped = [optimizer.state.get(one, {}) for one in given if one.grad is not None]
            states = [(key, bits([one])) for state_of in stepped for key, one in state_of.items()]
            seen.append((bits(given), states, repr(scheduler.state_dict())))
        trained.append(seen)
    assert trained[0] == trained[1]
    assert state.digest() != digest
    # Who has trained for long, and who begins, must have the same names and shapes.
    late = shared_state(named(given), optimizer)
    assert {name: one.shape for name, one in late.items()} == {
        name: one.shape for name, one in state.items()
    }


def test_state_that_is_there_is_left_alone() -> None:
    given = parameters()
    optimizer = torch.optim.Adam(given[:2])
    step(optimizer, given[:2], 1)
    before = optimizer.state[given[0]]["exp_avg"].clone()
    optimizer.add_param_group({"params": given[2:4], "lr": 0.5})
    state = shared_state(named(given), optimizer)
    assert torch.equal(optimizer.state[given[0]]["exp_avg"], before)
    assert state["optimizer.p0.step"] == 1
    assert state["optimizer.p2.step"] == 0
    assert state["optimizer.param_groups.1.lr"] == 0.5


def test_frozen_parameters_have_no_state() -> None:
    given = parameters()
    given[0].requires_grad_(False)
    state = shared_state(named(given), torch.optim.Adam(given))
    assert "optimizer.p0.exp_avg" not in state
    assert "optimizer.p1.exp_avg" in state


def test_parameters_that_the_model_lacks_go_by_their_place() -> None:
    given = parameters()
    optimizer = torch.optim.SGD([{"params": given[:1]}, {"params": given[1:]}], 0.1, momentum=0.9)
    state = shared_state(named(given[:2]), optimizer)
    assert "optimizer.p1.momentum_buffer" in state
    assert "optimizer.param_groups.1.params.1.momentum_buffer" in state


def test_complex_parameters_begin_as_torch_begins_them() -> None:
    for kind in (torch.optim.Rprop, torch.optim.Adagrad, torch.optim.Adam):
        trained = []
        for shared in (False, True):
            one = torch.nn.Parameter(torch.tensor([1 + 2j, -3j]))
            optimizer = kind([one], lr=0.25)
            if shared:
                shared_state({"z": one}, optimizer)
            for number in range(3):
                one.grad = torch.tensor([1 - 1j, 2 + number * 1j])
                optimizer.step()
            trained.append(bits([one]))
        assert trained[0] == trained[1]


def test_the_first_momentum_of_sgd_keeps_the_sign_of_zero() -> None:
    one = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([one], 0.1, momentum=0.9)
    shared_state({"w": one}, optimizer)
    one.grad = torch.tensor([-0.0, 0.0])
    optimizer.step()
    buffer = optimizer.state[one]["momentum_buffer"]
    assert [math.copysign(1, x) for x in buffer] == [-1, 1]


def test_sgd_with_dampening_is_refused_before_its_first_step() -> None:
    given = parameters()[:4]
    optimizer = torch.optim.SGD(given, 0.1, momentum=0.9, dampening=0.5)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'optimizer\.p0': SGD with dampening"):
        shared_state(named(given), optimizer)
    assert not optimizer.state
    step(optimizer, given, 0)
    assert "optimizer.p0.momentum_buffer" in shared_state(named(given), optimizer)


def test_what_has_no_state_by_parameter_is_refused() -> None:
    given = parameters()[:2]
    with pytest.raises(pyccl.InvalidArgumentError, match="LBFGS keeps a history"):
        shared_state(named(given), torch.optim.LBFGS(given))
    with pytest.raises(pyccl.InvalidArgumentError, match="SparseAdam can't make its state"):
        shared_state(named(given), torch.optim.SparseAdam(given))
    optimizer = torch.optim.SGD(given, 0.1)
    optimizer.state["all"] = {"step": 3}
    with pytest.raises(pyccl.InvalidArgumentError, match=r"not that of a parameter \(all\)"):
        shared_state(named(given), optimizer)
    optimizer = torch.optim.SGD(given, 0.1)
    optimizer.inner = torch.optim.SGD(given, 0.1)
    with pytest.raises(pyccl.InvalidArgumentError, match="a wrapper around another"):
        shared_state(named(given), optimizer)
    with pytest.raises(pyccl.InvalidTypeError, match="optimizer is of type list"):
        shared_state(named(given), [optimizer])


class Counting(torch.optim.Optimizer):
    """Begins with zeros, and counts in Python's numbers."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    state = self.state[one]
                    self.begin(state, one)
                    state["step"] += 1
                    state["sum"] += one.grad.detach()
                    one.data.sub_(state["sum"], alpha=group["lr"] / state["step"])

    def begin(self, state: dict[str, Any], one: Any) -> None:
        if not state:
            state.update(step=0, sum=torch.zeros_like(one))


class Starting(Counting):
    """Begins with something else."""

    def begin(self, state: dict[str, Any], one: Any) -> None:
        if not state:
            state.update(step=0, sum=one.detach().clone())


def test_optimizers_from_elsewhere_are_tried_first() -> None:
    given = parameters()
    optimizer = Counting(given)
    calls: list[Any] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    state = shared_state(named(given), optimizer)
    assert state["optimizer.p0.step"] == 0
    assert type(optimizer.state[given[0]]["step"]) is int
    step(optimizer, given, 1)
    assert calls == [1]
    state.digest()
    assert state["optimizer.p0.step"] == 1

    given = parameters()
    with pytest.raises(pyccl.InvalidArgumentError, match="Starting does not begin with zeros"):
        shared_state(named(given), Starting(given))
    optimizer = Starting(given[:2])
    step(optimizer, given[:2], 1)
    assert "optimizer.p1.sum" in shared_state(named(given), optimizer)


def test_a_scheduler_does_not_notice() -> None:
    given = parameters()
    optimizer = torch.optim.Adam(given)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    before = dict(scheduler.state_dict())
    shared_state(named(given), optimizer, scheduler=scheduler)
    assert scheduler.state_dict() == before
    # It would warn of being called first, had its own step been counted.
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(optimizer, given, 0)
        scheduler.step()


def test_load_state_dict_of_an_optimizer_may_come_later() -> None:
    given = parameters()[:4]
    optimizer = torch.optim.Adam(given, 0.1)
    step(optimizer, given, 0)
    saved = copy.deepcopy(optimizer.state_dict())
    state = shared_state(named(given), optimizer)
    first = state.digest()
    step(optimizer, given, 1)
    second = state.digest()
    optimizer.load_state_dict(saved)
    assert state.digest() not in (first, second)
    assert optimizer.state[given[0]]["exp_avg"].data_ptr() == (
        state["optimizer.p0.exp_avg"].data_ptr()
    )
    assert torch.equal(state["optimizer.p0.exp_avg"], saved["state"][0]["exp_avg"])


def test_what_has_come_or_gone_is_told_of() -> None:
    given = parameters()
    optimizer = torch.optim.SGD(given, 0.1)
    state = shared_state(named(given), optimizer)
    optimizer.state[given[0]]["momentum_buffer"] = torch.zeros(3, 4)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'optimizer\.p0' has other state"):
        state.digest()
    optimizer.state[given[0]].clear()
    state.digest()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'optimizer\.param_groups\.1\..*anew"):
        state.digest()
