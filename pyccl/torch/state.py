"""The state of a training in torch as shared state: all that a newcomer needs to go on with it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pyccl.arrays import ArrayLike
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.shared_state import SharedState
from pyccl.torch import state_optimizer
from pyccl.torch.state_memory import Tensors
from pyccl.torch.state_numbers import Nest, is_number

# How a machine computes, not what: members may differ in that.
_OWN_AFFAIRS = {"params", "param_names", "foreach", "fused", "capturable", "differentiable"}


def shared_state(
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    revision: int = 0,
    expect_next: bool = False,
    **extra: Any,
) -> SharedState:
    """Everything that a newcomer needs to go on with a training, as state for comm.sync().

        state = pyccl.torch.shared_state(model, optimizer, scheduler=scheduler)
        while state.revision < steps:
            comm.sync(state)               # admits newcomers, and brings them to where we are
            loss(model, batch).backward()
            ...                            # comm.all_reduce() of the gradients
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            state.revision += 1

    Tensors stay where they are, and a sync writes them in place; but those of other devices, and
    strided ones, have a copy in CPU memory that is read from them before a sync, digest(), save()
    or load(), and written back after a sync or load() that changed it. Numbers have, too: so
    `state[name]` of those is what it was at the last of these calls.

    model: a module, or tensors by name. Its parameters and persistent buffers as "model." and the
        name in its state_dict(), and extra state of modules. Tied weights go by the first of their
        names. Of a DTensor (FSDP2, tensor parallel) it is the shard that this process has, so
        members are those that hold the same shards.
    optimizer: its state by the names of parameters ("optimizer.layer.weight.exp_avg"; of those that
        the model lacks, by group and index), and the numbers in its param_groups: the learning rate
        is state. How it computes (foreach, fused, capturable, differentiable) is not.
    revision, expect_next: those of SharedState.
    extra: what else there is, by name: a tensor or a numpy array; another module or optimizer; or
        what has state_dict() and load_state_dict(), as schedulers and GradScaler do. The numbers
        (float, int, bool), tensors and arrays in its state_dict() are shared, the rest is left as
        it is here. Names, and the lengths of lists, must be the same on all members and stay so.

    Of parameters that need a gradient an optimizer's state is made, if it is not there yet, as it
    is before the first step: what the training gives is the same bit for bit. SGD with dampening
    begins in a way that can't be had before, nor may an optimizer from elsewhere whose state does
    not begin with zeros: then take a step first, and let newcomers do so, too.

    Make it when model, optimizer and the rest are complete, and anew when parameters are added,
    moved or (un)frozen. What has been replaced since is an error in the next sync; only the tensors
    of an optimizer may be, as its load_state_dict() does it.

    Raises InvalidArgumentError and InvalidTypeError; the text names the tensor.
    """
    training = _Training()
    training.add_models({"model": model, **extra})
    if optimizer is not None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            kind = type(optimizer).__name__
            raise InvalidTypeError(f"optimizer is of type {kind}, not a torch.optim.Optimizer")
        training.add_optimizer("optimizer", optimizer)
    for name, value in extra.items():
        training.add_extra(name, value)
    return State(training.arrays(), revision, expect_next=expect_next, training=training)


class State(SharedState):
    """What shared_state() gives; State.load(path) gives a plain state, of arrays of its own."""

    __slots__ = ("_training",)

    def __init__(
        self,
        tensors: Mapping[str, ArrayLike],
        revision: int = 0,
        *,
        expect_next: bool = False,
        training: _Training | None = None,
    ) -> None:
        super().__init__(tensors, revision, expect_next=expect_next)
        self._training = training

    def _gather(self) -> None:
        if self._training is not None:
            self._training.gather()

    def _scatter(self) -> None:
        if self._training is not None:
            self._training.scatter()


class _Training:
    """Tensors and numbers by name, and the ways to them."""

    def __init__(self) -> None:
        self._tensors = Tensors()
        self._nests: list[Nest] = []
        self._arrays: dict[str, Any] = {}
        self._sharded: list[Any] = []
        self._names: dict[int, str] = {}
        self._owed = False

    def add_models(self, given: Mapping[str, Any]) -> None:
        """Those that are modules, and tensors by name under the name "model"."""
        for name, value in given.items():
            if isinstance(value, torch.nn.Module):
                self._add_module(name, value)
            elif name == "model" and isinstance(value, Mapping):
                for key, tensor in value.items():
                    self._tensors.add(f"{name}.{key}", functools.partial(value.get, key))
                    self._names.setdefault(id(tensor), f"{key}")
            elif name == "model":
                raise InvalidTypeError(
                    f"model is of type {type(value).__name__}, not a module or a mapping of tensors"
                )

    def add_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        state_optimizer.check(name, optimizer)
        state_optimizer.start(name, optimizer, self._names)
        found = list(state_optimizer.parameters(optimizer, self._names))
        for place, parameter, _ in found:
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    at = _Entry(optimizer, parameter, key)
                    self._tensors.add(f"{name}.{place}.{key}", at.get, at.put)
        for i, group in enumerate(optimizer.param_groups):
            for key, value in group.items():
                if isinstance(value, torch.Tensor):
                    at = _Entry(optimizer, i, key)
                    self._tensors.add(f"{name}.param_groups.{i}.{key}", at.get, at.put)
        numbers = _Numbers(name, optimizer, [(place, one) for place, one, _ in found])
        self._nests.append(Nest(name, numbers.read, numbers.write))

    def add_extra(self, name: str, value: Any) -> None:
        if isinstance(value, torch.nn.Module):
            return  # it is among the models
        if is_number(value) or isinstance(value, (complex, np.generic)):
            raise InvalidTypeError(
                f"{name!r} is the number {value!r}, into which nothing can be written: make it an "
                "array or a tensor without dimensions (numpy.array(7))"
            )
        if isinstance(value, torch.Tensor):
            self._tensors.add(name, lambda: value)
        elif isinstance(value, np.ndarray):
            self._arrays[name] = value
        elif isinstance(value, torch.optim.Optimizer):
            self.add_optimizer(name, value)
        elif hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            self._nests.append(Nest(name, value.state_dict, value.load_state_dict))
        else:
            raise InvalidTypeError(
                f"{name!r} is of type {type(value).__name__}: it is no tensor, and has no "
                "state_dict() and load_state_dict()"
            )

    def arrays(self) -> dict[str, Any]:
        made = dict(self._arrays)
        for name, one in itertools.chain(
            self._tensors.arrays(), *(nest.arrays() for nest in self._nests)
        ):
            if name in made:
                raise InvalidArgumentError(f"two things would be called {name!r}")
            made[name] = one
        self.gather()
        return made

    def gather(self) -> None:
        if self._owed:
            self.scatter()
        for module in self._sharded:
            module.reshard()
        with torch.no_grad():
            self._tensors.gather()
            for nest in self._nests:
                nest.gather()

    def scatter(self) -> None:
        # If it is interrupted the tensors are ahead of the rest, until the next call makes it good.
        self._owed = True
        with torch.no_grad():
            self._tensors.scatter()
            for nest in self._nests:
                nest.scatter()
        self._owed = False

    def _add_module(self, name: str, model: torch.nn.Module) -> None:
        # FSDP2 shows whole parameters from a forward pass on, which are not what it keeps.
        sharded = [one for one in model.modules() if hasattr(one, "reshard")]
        for one in sharded:
            one.reshard()
        self._sharded += sharded
        # Of tied weights each in its turn, which is the same here and there.
        homes: dict[int, list[Any]] = {}
        for one in model.modules():
            for store in (one._parameters, one._buffers):
                for key, tensor in store.items():
                    homes.setdefault(id(tensor), []).append(functools.partial(store.get, key))
        for key, tensor in model.state_dict(keep_vars=True).items():
            found = homes.get(id(tensor))
            if found is not None:
                self._tensors.add(f"{name}.{key}", found.pop(0) if len(found) > 1 else found[0])
                self._names.setdefault(id(tensor), key if name == "model" else f"{name}.{key}")
            elif isinstance(tensor, torch.Tensor) and not key.endswith("_extra_state"):
                raise InvalidArgumentError(
                    f"'{name}.{key}' is made by state_dict() and not the module's own memory"
                )
        for prefix, one in model.named_modules(prefix=name):
            if type(one).get_extra_state is not torch.nn.Module.get_extra_state:
                nest = Nest(f"{prefix}._extra_state", one.get_extra_state, one.set_extra_state)
                self._nests.append(nest)


class _Entry:
    """A tensor in an optimizer: of the state of a parameter, or of a group, by its index.

    By way of the optimizer, whose load_state_dict() makes new mappings.
    """

    __slots__ = ("_key", "_of", "_optimizer")

    def __init__(self, optimizer: torch.optim.Optimizer, of: Any, key: str) -> None:
        self._optimizer = optimizer
        self._of = of
        self._key = key

    def get(self) -> Any:
        return self._home().get(self._key)

    def put(self, tensor: torch.Tensor) -> None:
        self._home()[self._key] = tensor

    def _home(self) -> dict[str, Any]:
        if not isinstance(self._of, int):
            return self._optimizer.state.get(self._of, {})  # type: ignore[no-any-return]
        groups = self._optimizer.param_groups
        return groups[self._of] if self._of < len(groups) else {}


class _Numbers:
    """What an optimizer has that is not a tensor by itself: numbers in groups and in state."""

    def __init__(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        parameters: list[tuple[str, torch.Tensor]],
    ) -> None:
        self._name = name
        self._optimizer = optimizer
        self._parameters = parameters
        self._keys = [self._keys_of(one) for _, one in parameters]
        states = (optimizer.state.get(one, {}) for _, one in parameters)
        # Most have none, and are not to be looked through each time.
        self._with_numbers = [
            (place, one)
            for (place, one), state in zip(parameters, states, strict=True)
            if _without_tensors(state)
        ]

    def read(self) -> dict[str, Any]:
        for (place, one), keys in zip(self._parameters, self._keys, strict=True):
            if self._keys_of(one) != keys:
                raise InvalidArgumentError(
                    f"'{self._name}.{place}' has other state ({_listing(self._keys_of(one))}) than "
                    f"when the shared state was made ({_listing(keys)}): make it anew"
                )
        groups = {
            i: _without_tensors(group) for i, group in enumerate(self._optimizer.param_groups)
        }
        state = {
            place: _without_tensors(self._optimizer.state[one]) for place, one in self._with_numbers
        }
        return {"param_groups": groups, **state}

    def write(self, numbers: Mapping[str, Any]) -> None:
        for i, group in numbers["param_groups"].items():
            self._optimizer.param_groups[i].update(group)
        for place, one in self._with_numbers:
            self._optimizer.state[one].update(numbers[place])

    def _keys_of(self, parameter: torch.Tensor) -> tuple[str, ...]:
        return tuple(self._optimizer.state.get(parameter, ()))


def _without_tensors(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: one
        for key, one in entries.items()
        if key not in _OWN_AFFAIRS and not isinstance(one, torch.Tensor)
    }


def _listing(keys: tuple[str, ...]) -> str:
    return ", ".join(keys) or "none"
