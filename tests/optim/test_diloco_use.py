"""DiLoCo in a training loop of torch: what it does to models, schedulers, scalers and checkpoints.

Alone, without a communicator: what peers do is in test_diloco.py and test_diloco_peers.py.
"""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyccl.errors import InvalidArgumentError, InvalidTypeError

from .conftest import Peers
from .family import REAL, Family
from .training import Plan, noisy, steps_of

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

Check = Callable[[Family, Peers], None]


def sgd(
    family: Family, model: Any, rate: float = 1.0, every: int | None = 2, **options: Any
) -> Any:
    inner = torch.optim.SGD(model.parameters(), lr=rate)
    return family.DiLoCo(model.named_parameters(), inner, sync_every=every, **options)


def slope(opt: Any, gradient: float = 1.0) -> None:
    """One step with this gradient everywhere."""
    for group in opt.param_groups:
        for one in group["params"]:
            one.grad = torch.full_like(one, gradient)
    opt.step()


def line(value: float = 0.0, size: int = 1) -> Any:
    model = nn.Linear(size, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def value_of(model: Any) -> float:
    return float(model.weight.detach().flatten()[0])


# --- Checks ---------------------------------------------------------------------------------------


def check_in_place(family: Family, peers: Peers) -> None:
    """Flat views, compiled graphs and optimizers go on seeing the same memory."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).double(), nn.Linear(2, 1).bfloat16())
    given = list(model.parameters())
    places = [one.data_ptr() for one in given]
    view = given[0].detach().view(-1)
    opt = sgd(family, model, outer_lr=0.5, outer_momentum=0)
    for _ in range(4):
        slope(opt)
        with opt.outer_params():
            pass
    opt.load_state_dict(opt.state_dict())
    assert opt.outer.step == 2
    assert [one.data_ptr() for one in model.parameters()] == places
    assert all(a is b for a, b in zip(model.parameters(), given, strict=True))
    assert view.tolist() == given[0].detach().flatten().tolist()
    assert [one.dtype for one in given[::2]] == [torch.float32, torch.float64, torch.bfloat16]
    first = opt.outer.views["0.weight"]
    assert first.ravel().tolist() == view.tolist()


def check_tied(family: Family, peers: Peers) -> None:
    """Weights that are one are exchanged, and stepped, once."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    shared = model[0].weight.detach()
    named = [("0.weight", model[0].weight), ("1.weight", model[1].weight),
             ("view", nn.Parameter(shared)), ("part", nn.Parameter(shared[:2]))]  # fmt: skip
    inner = torch.optim.SGD([model[0].weight, named[3][1]], lr=1.0)
    opt = family.DiLoCo(named, inner, sync_every=1)
    assert opt.outer.names == ("0.weight", "part")  # a part is no whole
    assert opt.outer.params.size == 9 + 6


def check_left_out(family: Family, peers: Peers) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    model[0].bias.requires_grad_(False)
    model.register_parameter("none", nn.Parameter(torch.zeros(0, 3)))
    frozen = model[0].bias.detach().clone()
    opt = sgd(family, model, every=1)
    assert opt.outer.names == ("0.weight", "1.weight", "1.bias", "2.weight", "2.bias")
    model(torch.randn(8, 2)).sum().backward()
    opt.step()
    assert opt.last_sync.applied
    assert torch.equal(model[0].bias, frozen)
    assert not torch.equal(model[1].running_mean, torch.zeros(2))  # buffers are each peer's own


def check_shapes(family: Family, peers: Peers) -> None:
    """phi is in C order of the shape, however the model lies in memory."""
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    given = [nn.Parameter(images), nn.Parameter(torch.tensor(3.0)), nn.Parameter(
        torch.randn(6, 4).t())]  # fmt: skip
    before = [one.detach().clone() for one in given]
    opt = family.DiLoCo(given, lambda all_of: torch.optim.SGD(all_of, lr=1.0), sync_every=1,
                        outer_lr=1, outer_momentum=0)  # fmt: skip
    assert opt.outer.names == ("0", "1", "2")
    assert [one.shape for one in opt.outer.views.values()] == [(2, 3, 4, 5), (), (4, 6)]
    slope(opt, 0.25)
    for one, other, phi in zip(given, before, opt.outer.views.values(), strict=True):
        torch.testing.assert_close(one.detach(), other - 0.25)
        np.testing.assert_array_equal(one.detach().numpy(), phi)
        assert one.stride() == other.stride()


def check_ticks(family: Family, peers: Peers) -> None:
    """A scaler leaves out steps whose gradients overflow; windows are as long as those of peers."""
    model = line(8.0)
    opt = sgd(family, model, every=3, outer_lr=1, outer_momentum=0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    fresh = []
    for number in range(6):
        opt.zero_grad()
        loss = model(torch.ones(1, 1)).sum() * (float("inf") if number in (1, 5) else 1.0)
        scaler.scale(loss).backward()
        before = opt.inner_steps, opt.outer.step
        scaler.step(opt)
        scaler.update()
        if (opt.inner_steps, opt.outer.step) == before:
            opt.tick()
        fresh.append(opt.last_sync.fresh)
    assert fresh == [False, False, True, False, False, True]
    assert float(opt.outer.params[0]) == value_of(model) == 4.0


def check_no_sync(family: Family, peers: Peers) -> None:
    model = line()
    opt = sgd(family, model, every=2, outer_lr=0.5, outer_momentum=0)
    with opt.no_sync(), opt.no_sync():
        for _ in range(3):
            slope(opt)
            assert not opt.last_sync.fresh
    assert (opt.outer.step, opt.inner_steps, value_of(model)) == (0, 3, -3.0)
    slope(opt)
    assert (opt.outer.step, opt.inner_steps, value_of(model)) == (1, 0, -2.0)
    with pytest.raises(KeyError), opt.no_sync():
        raise KeyError
    slope(opt)
    with opt.no_sync():
        assert opt.sync().applied  # who says so, is heard
    assert (opt.outer.step, value_of(model)) == (2, -2.5)
    slope(opt)
    assert not opt.sync(force=False).fresh
    with opt.no_sync():
        slope(opt)
        assert opt.outer.step == 2
        assert opt.sync(force=False).applied
    assert (opt.outer.step, opt.inner_steps) == (3, 0)


def check_sync_by_hand(family: Family, peers: Peers) -> None:
    model = line()
    opt = sgd(family, model, every=None, outer_lr=1, outer_momentum=0)
    for _ in range(5):
        slope(opt)
        assert not opt.last_sync.fresh
    assert opt.inner_steps == 5
    with pytest.raises(InvalidArgumentError, match="without sync_every"):
        opt.steps  # noqa: B018 - a property that raises
    report = opt.sync()
    assert report is opt.last_sync
    assert (report.fresh, report.applied, report.step) == (True, True, 1)
    assert (opt.inner_steps, float(opt.outer.params[0])) == (0, -5.0)
    slope(opt)
    assert not opt.last_sync.fresh


def check_outer_params(family: Family, peers: Peers) -> None:
    for fault in (None, KeyError):
        model = line()
        opt = sgd(family, model, every=2)
        slope(opt)
        place = model.weight.data_ptr()
        with pytest.raises(fault) if fault else warnings.catch_warnings(), opt.outer_params():
            assert value_of(model) == 0.0
            if fault:
                raise fault
        assert (value_of(model), model.weight.data_ptr()) == (-1.0, place)
        assert opt.inner_steps == 1


def check_closure(family: Family, peers: Peers) -> None:
    model, calls = line(), []
    inner = torch.optim.LBFGS(model.parameters(), max_iter=3)
    opt = family.DiLoCo(model.parameters(), inner, sync_every=2)

    def closure() -> Any:
        opt.zero_grad()
        loss = (model.weight - 3).square().sum()
        loss.backward()
        calls.append(float(loss.detach()))
        return loss

    result = opt.step(closure)
    assert result is not None
    assert float(result.detach()) == 9.0
    assert len(calls) > 1
    assert opt.inner_steps == 1
    opt.step(closure)
    assert opt.outer.step == 1
    assert sgd(family, line()).step() is None


def check_scheduler(family: Family, peers: Peers) -> None:
    """The rates that a scheduler sets are those that the inner optimizer reads."""
    model = line()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt = sgd(family, model, every=100)
        scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5)
        places = []
        for _ in range(6):
            slope(opt)
            scheduler.step()
            places.append(value_of(model))
    assert places == [-1, -2, -2.5, -3, -3.25, -3.5]
    assert scheduler.get_last_lr() == [0.125]
    assert opt.param_groups is opt.inner.param_groups
    assert opt.state is opt.inner.state
    assert opt.defaults is opt.inner.defaults
    # Also with what load_state_dict() has made anew.
    opt.load_state_dict(opt.state_dict())
    scheduler.step()
    assert opt.inner.param_groups is opt.param_groups
    assert opt.state is opt.inner.state
    slope(opt)
    assert value_of(model) == -3.625


CHECKS: list[Check] = [
    check_in_place, check_tied, check_left_out, check_shapes, check_ticks, check_no_sync,
    check_sync_by_hand, check_outer_params, check_closure, check_scheduler,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_use(check: Check) -> None:
    check(REAL, None)  # type: ignore[arg-type]


# --- As an optimizer of torch ---------------------------------------------------------------------


def test_it_is_an_optimizer_with_hooks() -> None:
    model = line()
    opt = sgd(REAL, model)
    assert isinstance(opt, torch.optim.Optimizer)
    seen: list[str] = []
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append(f"after {opt.inner_steps}"))
    slope(opt)
    assert seen == ["before", "after 1"]
    assert model.weight.grad is not None
    opt.zero_grad(set_to_none=False)
    assert model.weight.grad.tolist() == [[0.0]]
    opt.zero_grad()
    assert model.weight.grad is None


def test_a_scheduler_on_the_inner_optimizer_is_told_of() -> None:
    model = line()
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    torch.optim.lr_scheduler.StepLR(inner, 2)
    with pytest.warns(UserWarning, match="built on the inner optimizer") as told:
        REAL.DiLoCo(model.parameters(), inner)
    assert told[0].filename == __file__


def test_parameters_are_given_in_many_ways() -> None:
    model = nn.Linear(2, 3)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": model.bias}]
    ways: list[tuple[Any, tuple[str, ...]]] = [
        (model.parameters(), ("0", "1")),
        (model.named_parameters(), ("weight", "bias")),
        (groups, ("0", "1")),
        ([{"params": list(model.named_parameters())}], ("weight", "bias")),
    ]
    for given, names in ways:
        opt = REAL.DiLoCo(given, torch.optim.SGD(model.parameters(), lr=1.0), sync_every=1)
        assert opt.outer.names == names
        assert opt.outer.params[:6].tolist() == model.weight.detach().flatten().tolist()
    opt = REAL.DiLoCo(model.parameters(), lambda given: torch.optim.Adam(given, lr=0.5))
    assert opt.param_groups[0]["lr"] == 0.5
    assert opt.param_groups[0]["params"] == [model.weight, model.bias]


def test_what_would_be_half_of_it_is_refused() -> None:
    opt = sgd(REAL, line())
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InvalidTypeError, match=r"keep its state_dict\(\)"):
            copied(opt)
    for of in ("state_dict", "load_state_dict"):
        for when in ("pre", "post"):
            with pytest.raises(InvalidArgumentError, match="register it on `inner`"):
                getattr(opt, f"register_{of}_{when}_hook")(print)
    seen: list[str] = []
    opt.inner.register_state_dict_pre_hook(lambda _: seen.append("saved"))
    opt.inner.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    opt.load_state_dict(opt.state_dict())
    assert seen == ["saved", "loaded"]


def test_no_group_can_be_added() -> None:
    opt = sgd(REAL, line())
    with pytest.raises(InvalidArgumentError, match="can't be added"):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(opt.param_groups) == 1


def test_what_is_wrong_shows_at_the_start() -> None:
    weight, whole = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def made(given: Any, **options: Any) -> Any:
        inner = options.pop("inner", torch.optim.SGD([weight], lr=1.0))
        return REAL.DiLoCo(given, inner, **options)

    faults: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ([weight, whole], {}, InvalidArgumentError, "does not have these parameters: 1"),
        (weight, {}, InvalidTypeError, "a single tensor"),
        ([], {}, InvalidArgumentError, "no parameters"),
        ([frozen], {}, InvalidArgumentError, "no parameters"),
        (["weight"], {}, InvalidTypeError, "'0' is of type str"),
        ([("a", weight), ("a", whole)], {}, InvalidArgumentError, "these parameters: a"),
        ({"weight": weight}, {}, InvalidTypeError, r"of type dict; give model\.parameters\(\)"),
        (nn.Sequential(line()), {}, InvalidTypeError, "params is of type Sequential"),
        (3, {}, InvalidTypeError, "params is of type int"),
        ([weight], {"inner": 3}, InvalidTypeError, "inner is of type int"),
        ([weight], {"inner": lambda _: None}, InvalidTypeError, "made something of type NoneType"),
        ([weight], {"inner": made([weight])}, InvalidTypeError, "outer optimizer itself"),
        ([weight], {"sync_every": 0}, InvalidArgumentError, "sync_every is 0"),
        ([weight], {"sync_every": True}, InvalidArgumentError, "sync_every is True"),
        ([weight], {"sync_every": 1.5}, InvalidArgumentError, "sync_every is 1.5"),
        ([weight], {"comm": "host:1"}, InvalidArgumentError, "comm is of type str"),
        ([weight], {"error_feedback": True}, InvalidArgumentError, "error_feedback"),
        ([weight], {"quantization": "int3"}, InvalidArgumentError, "int3"),
        ([weight], {"min_peers": 0}, InvalidArgumentError, "min_peers is 0"),
        ([weight], {"timeout": 0}, InvalidArgumentError, "timeout is 0"),
        ([weight], {"outer_lr": -1}, InvalidArgumentError, "outer_lr is -1"),
        ([weight], {"outer_momentum": 1}, InvalidArgumentError, "outer_momentum is 1"),
    ]
    for given, options, error, text in faults:
        with pytest.raises(error, match=text):
            made(given, **options)
    spoiled = nn.Parameter(torch.tensor([1.0, float("nan")]))
    with pytest.raises(InvalidArgumentError, match="params: nan in 'w'"):
        made([("w", spoiled)], inner=torch.optim.SGD([spoiled], lr=1.0))


def test_a_scaler_that_meets_no_overflow_counts_by_itself() -> None:
    model = line(1.0)
    opt = sgd(REAL, model, every=2)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(2):
        opt.zero_grad()
        scaler.scale(model(torch.ones(1, 1)).sum()).backward()
        scaler.unscale_(opt)
        assert float(model.weight.grad) == 1.0
        scaler.step(opt)
        scaler.update()
    assert opt.outer.step == 1


# --- Checkpoints ----------------------------------------------------------------------------------


def half_way(**options: Any) -> tuple[Any, Any, Plan]:
    """A model in the middle of its third window."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    start = model.weight.detach().numpy().copy()
    plan = Plan(start, noisy(1, start.size), every=3)
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    opt = REAL.DiLoCo(model.named_parameters(), inner, sync_every=3, **options)
    for _ in steps_of(opt, model.weight, plan, 0, range(8)):
        pass
    return model, opt, plan


def bits(model: Any, opt: Any) -> tuple[Any, ...]:
    theta = model.weight.detach().numpy().tobytes()
    return theta, opt.outer.params.tobytes(), opt.outer.hash(), opt.outer.step, opt.inner_steps


def test_a_checkpoint_in_a_file_goes_on_bit_for_bit() -> None:
    model, opt, plan = half_way()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=False)
    other = nn.Linear(6, 4, bias=False)
    inner = torch.optim.AdamW(other.parameters(), lr=1.0)
    later = REAL.DiLoCo(other.named_parameters(), inner, sync_every=3, outer_lr=0.1)
    other.load_state_dict(kept["model"])
    later.load_state_dict(kept["opt"])
    assert bits(other, later) == bits(model, opt)
    assert later.inner_steps == 2
    assert later.param_groups[0]["lr"] == 0.01
    for one, weight in ((opt, model.weight), (later, other.weight)):
        for _ in steps_of(one, weight, plan, 0, range(8, 14)):
            pass
    assert bits(other, later) == bits(model, opt)
    assert opt.outer.step == 4


def test_a_checkpoint_is_data_and_not_code() -> None:
    """Of all that is in it only numpy's arrays have to be allowed by name."""
    _, opt, _ = half_way()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    array = np.zeros(1, np.float32)
    allowed = [array.__reduce__()[0], np.ndarray, np.dtype, type(array.dtype)]
    with torch.serialization.safe_globals(allowed):
        kept = torch.load(file, weights_only=True)
    _, other, _ = half_way()
    other.load_state_dict(kept)
    assert other.outer.hash() == opt.outer.hash()


def test_a_checkpoint_is_loaded_without_options() -> None:
    _, opt, _ = half_way()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    opt.load_state_dict(torch.load(file, weights_only=True))


def test_a_state_holds_copies_and_says_its_version() -> None:
    model, opt, plan = half_way()
    state = opt.state_dict()
    assert state.keys() == {"version", "kind", "inner", "outer"}
    before = [state["outer"][key].numpy().tobytes() for key in ("params", "momentum")]
    for _ in steps_of(opt, model.weight, plan, 0, range(8, 9)):
        pass
    assert [state["outer"][key].numpy().tobytes() for key in ("params", "momentum")] == before
    assert opt.outer.params.tobytes() != before[0]


def test_states_of_others_are_refused() -> None:
    model, opt, _ = half_way()
    state, before = opt.state_dict(), bits(model, opt)
    inner = opt.inner.state_dict()
    faults: list[tuple[Any, str]] = [
        ({}, "no state of state_dict"),
        (inner, "no state of state_dict"),
        ({**state, "version": 2}, "version 2"),
        ({**state, "kind": "NoLoCo"}, "that of NoLoCo, but this is DiLoCo"),
        ({**state, "inner": {}}, "inner optimizer does not take"),
        ({**state, "inner": {**inner, "param_groups": []}}, "different number of parameter groups"),
        ({**state, "outer": None}, "no inner and outer"),
        ({**state, "outer": {**state["outer"], "names": ["other"]}}, "other arrays"),
        ({**state, "outer": {**state["outer"], "nesterov": False}}, "nesterov"),
        ({**state, "outer": {"inner_steps": 1}}, "holds no 'names'"),
    ]
    for wrong, text in faults:
        with pytest.raises(InvalidArgumentError, match=text):
            opt.load_state_dict(wrong)
        assert bits(model, opt) == before
        assert opt.inner.param_groups is opt.param_groups
        assert opt.inner.state is opt.state
    del state["kind"]  # as states were at first
    opt.load_state_dict(state)
    assert bits(model, opt) == before
