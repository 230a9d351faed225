"""The state of an optimizer before its first step.

Optimizers make their state at the first step, so that of one that has just been made has not the
tensors that others have. Here it is made before, and is what it would be at the beginning of the
first step: training goes on bit for bit as if this had not been done.

The step that makes it is that of a stand-in, for one parameter at a time, on a copy of that: the
optimizer's own parameters, gradients, groups and hooks, and what a scheduler has put around its
step, are never touched.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import optim

from pyccl.errors import InvalidArgumentError
from pyccl.torch.state_memory import same_bits
from pyccl.torch.state_numbers import is_number

Group = dict[str, Any]
Initial = dict[str, Any]

_TRIAL_STEPS = 3
_TRIAL_SIZE_MAX = 3


def parameters(
    optimizer: optim.Optimizer, names: dict[int, str]
) -> Iterator[tuple[str, torch.Tensor, Group]]:
    """Each with its name, or where the model has none for it, its place; and its group."""
    for i, group in enumerate(optimizer.param_groups):
        for j, parameter in enumerate(group["params"]):
            place = f"param_groups.{i}.params.{j}"
            yield names.get(id(parameter), place), parameter, group


def check(name: str, optimizer: optim.Optimizer) -> None:
    """Whether all there is of its state belongs to one parameter or another."""
    kind = type(optimizer).__name__
    if isinstance(optimizer, optim.LBFGS):
        raise InvalidArgumentError(
            f"{name!r}: {kind} keeps a history over all parameters that grows, which has no names"
        )
    inner = [key for key, one in vars(optimizer).items() if isinstance(one, optim.Optimizer)]
    if inner or not {"state", "param_groups"} <= vars(optimizer).keys():
        raise InvalidArgumentError(
            f"{name!r}: {kind} is a wrapper around another optimizer: give that one instead"
        )
    known = {id(one) for group in optimizer.param_groups for one in group["params"]}
    strange = [key for key in optimizer.state if id(key) not in known]
    if strange:
        what = strange[0] if isinstance(strange[0], str) else type(strange[0]).__name__
        raise InvalidArgumentError(
            f"{name!r}: {kind} has state that is not that of a parameter ({what})"
        )


def start(name: str, optimizer: optim.Optimizer, names: dict[int, str]) -> None:
    """Makes the state that is missing of all parameters that need a gradient."""
    proven: set[tuple[Any, ...]] = set()
    known = type(optimizer).__module__.startswith("torch.optim.")
    for place, parameter, group in parameters(optimizer, names):
        if not parameter.requires_grad or optimizer.state.get(parameter):
            continue
        what = f"{name}.{place}"
        state = _first_state(what, optimizer, group, parameter)
        # Of classes that we do not know, we do not know either that they begin with zeros.
        alike = id(group), parameter.dtype, parameter.device, parameter.dim()
        if state and not known and alike not in proven:
            _prove(what, optimizer, group, parameter)
            proven.add(alike)
        if state:
            optimizer.state[parameter] = state


def _first_state(
    what: str, optimizer: optim.Optimizer, group: Group, parameter: torch.Tensor
) -> dict[str, Any]:
    momentum = group.get("momentum", 0) != 0
    if isinstance(optimizer, optim.SGD) and momentum and group["dampening"] != 0:
        raise InvalidArgumentError(
            f"{what!r}: SGD with dampening has no momentum before its first step that would make "
            "the second one right: take a step before the state is made, and let newcomers do so "
            "too (the sync overwrites what it did to them)"
        )
    copy = parameter.detach().clone().requires_grad_(parameter.requires_grad)
    copy.grad = torch.zeros_like(copy)
    stand_in = _stand_in(optimizer, group, copy)
    try:
        _step(stand_in)
    except Exception as error:
        raise InvalidArgumentError(
            f"{what!r}: {type(optimizer).__name__} can't make its state before the first step "
            f"({error}): take a step before the state is made"
        ) from error
    state: dict[str, Any] = stand_in.state[copy]
    initial = _initial(optimizer, group, parameter)
    for key, value in state.items():
        state[key] = _reset(value, initial.get(key, 0), f"{what}.{key}")
    return state


def _reset(value: Any, initial: Any, what: str) -> Any:
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            return value.fill_(initial)
    if is_number(value):
        return type(value)(initial)
    if value is None or isinstance(value, str):
        return value
    raise InvalidArgumentError(
        f"{what!r} is of type {type(value).__name__}, and what it is before the first step is not "
        "known: take a step before the state is made"
    )


def _initial(optimizer: optim.Optimizer, group: Group, parameter: torch.Tensor) -> Initial:
    """What is not zero at the beginning."""
    if isinstance(optimizer, optim.SGD):
        # What it really begins with is the first gradient, and x + -0.0 is x, also if x is 0.0.
        return {"momentum_buffer": -0.0}
    if isinstance(optimizer, optim.NAdam):
        return {"mu_product": 1}
    if isinstance(optimizer, optim.ASGD):
        return {"eta": float(group["lr"]), "mu": 1}
    if isinstance(optimizer, optim.Rprop):
        return {"step_size": _filling(parameter, float(group["lr"]))}
    if isinstance(optimizer, optim.Adagrad):
        return {"sum": _filling(parameter, optimizer.defaults["initial_accumulator_value"])}
    return {}


def _filling(parameter: torch.Tensor, value: float) -> complex | float:
    return complex(value, value) if parameter.is_complex() else value


def _stand_in(optimizer: optim.Optimizer, group: Group, parameter: torch.Tensor) -> Any:
    """An optimizer with the same ways, for that parameter only."""
    made = object.__new__(type(optimizer))
    made.__dict__.update(vars(optimizer))
    made.state = collections.defaultdict(dict)
    made.param_groups = [{**group, "params": [parameter]}]
    return made


def _step(optimizer: Any) -> None:
    # As the class has it, without hooks and without what a scheduler counts with.
    step = type(optimizer).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__
    step(optimizer)


def _prove(what: str, optimizer: optim.Optimizer, group: Group, parameter: torch.Tensor) -> None:
    """By a few steps of a small parameter, that state from before the first step changes nothing.
    Otherwise refuses."""
    shape = [min(size, _TRIAL_SIZE_MAX) for size in parameter.shape]
    lr = {"lr": 0.125} if "lr" in group else {}

    @functools.cache
    def numbers(seed: int) -> torch.Tensor:
        count = torch.Size(shape).numel()
        line = torch.arange(seed, seed + count, dtype=torch.float64).sin()
        return line.reshape(shape).to(parameter.device, parameter.dtype)

    def trained(early: bool) -> torch.Tensor:
        small = numbers(1).clone().requires_grad_()
        trial = _stand_in(optimizer, {**group, **lr}, small)
        if early:
            trial.state[small] = _first_state(what, trial, trial.param_groups[0], small)
        for step in range(_TRIAL_STEPS):
            small.grad = numbers(2 + step).clone()
            _step(trial)
        return small.detach()

    with torch.random.fork_rng(devices=[]):
        if not same_bits(trained(False), trained(True)):
            raise InvalidArgumentError(
                f"{what!r}: the state of {type(optimizer).__name__} does not begin with zeros: "
                "take a step before the state is made, and let newcomers do so too (the sync "
                "overwrites what it did to them)"
            )
