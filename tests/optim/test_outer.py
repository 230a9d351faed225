"""DiLoCo's outer optimizer: its golden numbers, its bits, and mutants of it that tests notice.

The checks are functions of the module, so that they can be tried on mutants of its source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim import OuterState

from .family import REAL, Family
from .training import Array, Twin, numbers

Check = Callable[[Family], None]

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def row(*values: float) -> Array:
    return np.array(values, np.float32)


def all_of(state: Any) -> tuple[Any, ...]:
    """The bits of everything."""
    vectors = state.params.tobytes(), state.momentum.tobytes()
    return (*vectors, state.lr, state.mu, state.step, state.shared.revision, state.hash())


def moved(family: Family = REAL, seed: int = 0, **options: Any) -> tuple[Any, list[Array]]:
    """A state of three arrays behind two steps, and the arrays."""
    rng = np.random.default_rng(seed)
    arrays = [np.array(rng.standard_normal(shape), np.float32) for shape in ((2, 3), (), (5,))]
    state = family.OuterState(["a", "b", "c"], arrays, **options)
    for _ in range(2):
        state.apply(rng.standard_normal(12).astype(np.float32))
    return state, arrays


# --- Checks ---------------------------------------------------------------------------------------


def check_golden(family: Family) -> None:
    state = family.OuterState(["w"], [row(4)], lr=0.5, mu=0.5)
    for mean, expected in ((1, (3.25, 1.0)), (-2, (4.625, -1.5)), (3, (2.5625, 2.25))):
        state.apply(row(mean))
        assert (float(state.params[0]), float(state.momentum[0])) == expected
    assert state.step == 3


def check_heavy_ball(family: Family) -> None:
    """Worked out by hand: of the same means."""
    state = family.OuterState(["w"], [row(4)], lr=0.5, mu=0.5, nesterov=False)
    for mean, expected in ((1, (3.5, 1.0)), (-2, (4.25, -1.5)), (3, (3.125, 2.25))):
        state.apply(row(mean))
        assert (float(state.params[0]), float(state.momentum[0])) == expected


def check_bits(family: Family) -> None:
    """Sizes at which vectors of any width have a rest."""
    rng = np.random.default_rng(1)
    for shape in ((), (1,), (7,), (31,), (3, 11), (1000,)):
        for nesterov in (True, False):
            for lr, mu in ((0.7, 0.9), (0.3, 0.37), (1, 0)):
                start = np.array(rng.standard_normal(shape) * 10, np.float32)
                state = family.OuterState(["w"], [start], lr, mu, nesterov)
                twin = Twin(start.reshape(-1), lr, mu, nesterov)
                for _ in range(8):
                    mean = rng.standard_normal(start.size).astype(np.float32)
                    mean *= np.float32(10.0) ** rng.integers(-6, 3, start.size)
                    state.apply(mean)
                    twin.apply(mean)
                    np.testing.assert_array_equal(state.params, twin.phi)
                    np.testing.assert_array_equal(state.momentum, twin.momentum)


def check_delta(family: Family) -> None:
    """Outer minus inner, so that descent goes to where the inner parameters are."""
    for dtype in TYPES:
        state = family.OuterState(["a", "b"], [row(3, 5), np.float32([[7]])], lr=1, mu=0)
        theta = [np.array([1, 9], dtype), np.array([[6]], dtype)]
        delta = state.delta(theta)
        assert delta.dtype == np.float32
        assert delta.tolist() == [2, -4, 1]
        assert [one.tolist() for one in theta] == [[1, 9], [[6]]]
        assert state.params.tolist() == [3, 5, 7]
        state.apply(delta)
        assert state.params.tolist() == [1, 9, 6]


def check_nothing_learned(family: Family) -> None:  # D-9
    """Where a narrow type can't hold phi, that is not what was learned."""
    rng = np.random.default_rng(2)
    for dtype in TYPES:
        state = family.OuterState(["w"], [rng.standard_normal(1001).astype(np.float32)])
        before = state.params.tobytes()
        theta = np.empty(1001, dtype)
        state.write([theta])
        for _ in range(5):
            delta = state.delta([theta])
            assert not delta.any()
            state.apply(delta)
            state.write([theta])
        assert state.params.tobytes() == before
        assert not state.momentum.any()


def check_narrow_progress(family: Family) -> None:
    """A narrow theta moves by what it has moved, and phi keeps the bits that theta has not."""
    for dtype in TYPES[:2]:
        phi = row(1 + 2.0**-20)
        state = family.OuterState(["w"], [phi], lr=1, mu=0)
        theta = np.empty(1, dtype)
        state.write([theta])
        assert float(theta[0]) == 1
        theta += dtype(0.5)
        state.apply(state.delta([theta]))
        assert float(state.params[0]) == 1.5 + 2.0**-20


def check_phi_is_exact(family: Family) -> None:
    """Steps too small for a narrow type add up."""
    state = family.OuterState(["w"], [row(1)], lr=1, mu=0)
    for _ in range(1024):
        state.apply(row(-(2.0**-16)))
    assert float(state.params[0]) == 1 + 2.0**-6


def check_write(family: Family) -> None:
    values = row(1.00048828125, -3.14159, 1e-3)
    state = family.OuterState(["a", "b"], [values, np.array(2.5, np.float32)])
    for dtype in TYPES:
        # Every other element, so that there is something in between to spoil.
        ground = np.full(6, 9, dtype)
        single = np.zeros((), dtype)
        state.write([ground[::2], single])
        np.testing.assert_array_equal(ground[::2], values.astype(dtype))
        np.testing.assert_array_equal(ground[1::2], np.full(3, 9, dtype))
        assert float(single) == 2.5


def check_refused_mean(family: Family) -> None:
    state, _ = moved(family)
    before = all_of(state)
    for spoiled in (np.nan, np.inf, -np.inf):
        for at, name in ((0, "a"), (6, "b"), (11, "c")):
            mean = np.ones(12, np.float32)
            mean[at] = spoiled
            with pytest.raises(InvalidArgumentError, match=f"mean: .* in '{name}'"):
                state.apply(mean)
            assert all_of(state) == before
    faults: list[tuple[Any, type[Exception]]] = [
        (np.ones(12), InvalidTypeError),
        ([1.0] * 12, InvalidTypeError),
        (np.ones(11, np.float32), InvalidArgumentError),
        (np.ones((3, 4), np.float32), InvalidArgumentError),
    ]
    for mean, error in faults:
        with pytest.raises(error, match="mean"):
            state.apply(mean)
        assert all_of(state) == before


def check_export(family: Family) -> None:
    """Behind it two states can't be told apart, also by what they do next."""
    state, arrays = moved(family, lr=0.3, mu=0.8)
    kept = state.export()
    other = family.OuterState(
        ["a", "b", "c"], [np.zeros_like(one) for one in arrays], lr=0.1, mu=0.2
    )
    other.import_(kept)
    assert all_of(other) == all_of(state)
    assert state.momentum.any()
    before = all_of(state)
    for one in (kept["params"], kept["momentum"]):
        one += 1  # copies, both ways
    assert all_of(other) == all_of(state) == before
    for one in (state, other):
        one.apply(np.linspace(-1, 1, 12, dtype=np.float32))
    assert all_of(other) == all_of(state) != before
    assert other.step == 3


def check_extra(family: Family) -> None:
    """What others have added is shared, kept, and refused where it is something else."""
    mine, theirs = (np.array([value, 5.0]) for value in (1.0, 2.0))
    state = family.OuterState(["w"], [row(1)], extra={"norms": mine})
    other = family.OuterState(["w"], [row(1)], extra={"norms": theirs})
    assert state.hash() != other.hash()
    assert other.shared["norms"] is theirs
    other.import_(state.export())
    assert theirs.tolist() == [1, 5]
    assert state.hash() == other.hash()
    mine[0] = 3
    assert state.hash() != other.hash()
    kept = state.export()
    mine[0] = 4
    assert kept["extra"]["norms"].tolist() == [3, 5]
    for wrong in ({}, {"norms": mine[:1]}, {"norms": np.float32(mine)}, {"norms": mine * np.nan}):
        before = all_of(other)
        with pytest.raises(InvalidArgumentError, match="state"):
            other.import_({**kept, "extra": wrong})
        assert all_of(other) == before


def check_hash(family: Family) -> None:
    """Of everything that decides about the next step."""
    state, arrays = moved(family)
    other, _ = moved(family)
    assert state.hash() == other.hash()
    assert len(state.hash()) == 32
    kept = state.export()
    edits: list[Callable[[dict[str, Any]], None]] = [
        lambda given: given["params"].__setitem__(11, 1.5),
        lambda given: given["momentum"].__setitem__(0, 1.5),
        lambda given: given.update(lr=0.5),
        lambda given: given.update(mu=0.5),
        lambda given: given.update(step=3),
    ]
    seen = {state.hash()}
    for count, edit in enumerate(edits, 2):
        given = {**kept, "params": kept["params"].copy(), "momentum": kept["momentum"].copy()}
        edit(given)
        other.import_(given)
        seen.add(other.hash())
        assert len(seen) == count
    other.import_(kept)
    assert other.hash() == state.hash()
    ball = family.OuterState(["a", "b", "c"], arrays, nesterov=False)
    assert ball.hash() != family.OuterState(["a", "b", "c"], arrays).hash()
    twice = [np.ones(2, np.float32)] * 2
    unlike: list[tuple[list[str], list[str]]] = [
        (["a", "b"], []), (["b", "a"], []), (["a", "b"], ["x=1"]), (["a", "b"], ["x=2"]),
    ]  # fmt: skip
    hashes = {family.OuterState(names, twice, alike=alike).hash() for names, alike in unlike}
    assert len(hashes) == len(unlike)


CHECKS: list[Check] = [
    check_golden, check_heavy_ball, check_bits, check_delta, check_nothing_learned,
    check_narrow_progress, check_phi_is_exact, check_write, check_refused_mean, check_export,
    check_extra, check_hash,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_outer(check: Check) -> None:
    check(REAL)


MUTANTS: dict[str, tuple[str, str, list[Check]]] = {
    "extra not shared": ("                **self._extra,\n", "", [check_extra]),
    "extra not restored": ('one[...] = state["extra"][name]', "pass", [check_extra]),
    "extra of any shape": ("(one.dtype.name, one.shape)", "0", [check_extra]),
    "sign": (
        "np.subtract(start, target, out=target)",
        "np.subtract(target, start, out=target)",
        [check_delta, check_narrow_progress],
    ),
    "heavy ball": ("rate, factor, self._nesterov,", "rate, factor, False,",
                   [check_golden, check_bits]),
    "Nesterov always": ("rate, factor, self._nesterov,", "rate, factor, True,",
                        [check_heavy_ball, check_bits]),
    "lr twice": ("rate, factor, self._nesterov,", "rate * rate, factor, self._nesterov,",
                 [check_golden, check_bits]),
    "momentum of the old one": (
        "self._set_step(self.step + 1)",
        "self._momentum *= np.float32(self.mu); self._set_step(self.step + 1)",
        [check_golden, check_bits],
    ),
    "phi in bf16": (
        "self._set_step(self.step + 1)",
        "import ml_dtypes; self._params[...] = self._params.astype(ml_dtypes.bfloat16); "
        "self._set_step(self.step + 1)",
        [check_phi_is_exact, check_bits, check_nothing_learned],
    ),
    "rates that can't be set": (
        "rate, factor = (float(one) for one in self._rates)",
        "rate, factor = 0.7, 0.9",
        [check_golden, check_bits],
    ),
    "delta of narrow types from phi": (
        "if one.dtype.itemsize < 4:", "if False:", [check_nothing_learned, check_narrow_progress],
    ),
    "delta of all types from bf16": (
        "if one.dtype.itemsize < 4:\n                    start = start.astype(one.dtype)",
        "if True:\n                    start = start.astype(np.float16)",
        [check_nothing_learned],
    ),
    "momentum left at home": (
        '"momentum": self._momentum.copy(),',
        '"momentum": np.zeros_like(self._momentum),',
        [check_export, check_hash],
    ),
    "momentum not loaded": (
        "self._params[...], self._momentum[...] = vectors",
        "self._params[...] = vectors[0]",
        [check_export, check_hash],
    ),
    "momentum not shared": (
        '"momentum": self._momentum,', '"momentum": self._momentum.copy(),', [check_hash],
    ),
    "rates not shared": ('"lr, mu": self._rates,', '"lr, mu": self._rates.copy(),', [check_hash]),
    "step not shared": ('"step": self._count,', '"step": self._count.copy(),', [check_hash]),
    "kinds not told apart": ('f"nesterov={self._nesterov}": np', '"nesterov": np', [check_hash]),
    "order not told apart": ('f"order={_order_of(layout.names)}"', '"order"', [check_hash]),
    "alike forgotten": ("**{text: np.zeros((), np.uint8) for text in alike},", "", [check_hash]),
    "NaN taken": (
        'self._layout.check_finite(mean, "mean", begin)\n', "pass\n", [check_refused_mean],
    ),
    "step stands still": (
        "self._set_step(self.step + 1)", "self._set_step(self.step)", [check_golden, check_export],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str) -> None:
    old, new, checks = MUTANTS[name]
    mutant = Family("outer", old, new)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(mutant)


# --- What it takes, and what it refuses -----------------------------------------------------------


def test_phi_is_one_vector_in_the_order_given() -> None:
    arrays = [
        np.arange(6, dtype=np.float64).reshape(2, 3).T,  # in C order of the transposed one
        np.array(7, ml_dtypes.bfloat16),
        np.zeros((0, 4), np.float32),
        np.array([8, 9], np.float16)[::-1],
    ]
    state = OuterState(["w", "x", "none", "y"], arrays)
    assert state.params.dtype == np.float32
    assert state.params.tolist() == [0, 3, 1, 4, 2, 5, 7, 9, 8]
    assert state.names == ("w", "x", "none", "y")
    assert [one.shape for one in state.views.values()] == [(3, 2), (), (0, 4), (2,)]
    assert [one.shape for one in state.cut(state.empty())] == [(3, 2), (), (0, 4), (2,)]
    arrays[1][...] = 1  # copied
    assert float(state.views["x"]) == 7
    assert not state.momentum.any()
    assert (state.step, state.shared.revision) == (0, 0)


def test_the_vectors_stay_where_they_are() -> None:
    state, arrays = moved()
    kept = state.export()
    places = state.params.ctypes.data, state.momentum.ctypes.data
    shared = {name: np.asarray(one).ctypes.data for name, one in state.shared.items()}
    view, vector, holder = state.views["a"], state.params, state.shared
    state.apply(state.delta(arrays))
    state.import_(kept)
    state.lr, state.mu = 0.1, 0.2
    state.write(arrays)
    assert state.shared is holder
    assert state.params is vector
    assert (state.params.ctypes.data, state.momentum.ctypes.data) == places
    assert {name: np.asarray(one).ctypes.data for name, one in state.shared.items()} == shared
    # What a sync writes is what the next step is done with.
    assert np.shares_memory(view, state.shared["params/a"])
    assert np.shares_memory(state.momentum, state.shared["momentum"])
    assert view.ravel().tolist() == state.params[:6].tolist()


def test_what_a_sync_writes_is_what_counts() -> None:
    state, _ = moved()
    for one in state.shared.values():
        if one.dtype == np.float32 and one.shape != (2,):
            one[...] = 2
    state.shared["lr, mu"][...] = 0.5, 0.25
    state.shared["step"][...] = 9
    assert (state.lr, state.mu, state.step) == (0.5, 0.25, 9)
    state.apply(np.ones(12, np.float32))
    assert state.momentum.tolist() == [1.5] * 12
    assert state.params.tolist() == [2 - 0.5 * (1 + 0.375)] * 12
    assert (state.step, state.shared.revision) == (10, 10)


def test_rates_are_those_of_fp32_and_may_be_set() -> None:
    state = OuterState(["w"], [row(1)], lr=0.7, mu=0.9)
    assert (state.lr, state.mu) == (float(np.float32(0.7)), float(np.float32(0.9)))
    state.lr, state.mu = 0, 0
    state.apply(row(5))
    assert (float(state.params[0]), float(state.momentum[0])) == (1, 5)
    for name, wrong in (
        ("lr", -0.1), ("lr", np.inf), ("lr", np.nan), ("lr", None), ("lr", "fast"),
        ("mu", -0.1), ("mu", 1), ("mu", np.nan), ("mu", [0.5, 0.5]),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=name):
            setattr(state, name, wrong)
        with pytest.raises(InvalidArgumentError, match=name):
            OuterState(["w"], [row(1)], **{name: wrong})
    assert (state.lr, state.mu) == (0, 0)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("name", "value"), [("mu", 1 - 1e-9), ("lr", 1e39)])
def test_rates_that_fp32_rounds_to_a_bound_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        OuterState(["w"], [row(1)], **{name: value})


def test_a_mean_of_any_layout_is_taken_and_only_read() -> None:
    state, twin = OuterState(["w"], [row(1, 2, 3)]), OuterState(["w"], [row(1, 2, 3)])
    wide = np.arange(9, dtype=np.float32)
    wide.flags.writeable = False
    state.apply(wide[::3])
    twin.apply(row(0, 3, 6))
    assert all_of(state) == all_of(twin)


def test_states_of_others_are_refused_and_nothing_changes() -> None:
    state, arrays = moved()
    kept, before = state.export(), all_of(state)
    nan = np.full(12, np.nan, np.float32)
    edits: list[dict[str, Any]] = [
        {"names": ["a", "b", "d"]},
        {"names": ["a", "b"], "shapes": [(2, 3), ()]},
        {"names": ["b", "a", "c"]},
        {"shapes": [(3, 2), (), (5,)]},
        {"nesterov": False},
        {"params": nan},
        {"momentum": nan},
        {"params": np.ones(11, np.float32)},
        {"momentum": np.ones(12)},
        {"step": -1},
        {"step": 1.5},
        {"lr": -1},
        {"mu": 1},
    ]
    other = {"params": kept["params"] + 1, "momentum": kept["momentum"] + 1, "step": 7}
    for edit in edits:
        with pytest.raises(InvalidArgumentError):
            state.import_({**kept, **other, **edit})
        assert all_of(state) == before, edit
    for key in kept:
        with pytest.raises(InvalidArgumentError, match=key):
            state.import_({name: one for name, one in {**kept, **other}.items() if name != key})
        assert all_of(state) == before
    for wrong in (arrays[:2], [*arrays[:2], np.ones(4, np.float32)]):
        for function in (state.delta, state.write):
            with pytest.raises(InvalidArgumentError):
                function(wrong)
    with pytest.raises(InvalidTypeError, match="'c'"):
        state.delta([*arrays[:2], np.ones(5, np.int32)])
    assert all_of(state) == before


def test_what_is_no_parameter_is_refused() -> None:
    faults: list[tuple[list[str], list[Any], str]] = [
        (["a"], [np.ones(2, np.int64)], "'a' is of int64"),
        (["a"], [[1.0]], "'a' is of list"),
        (["a", "a"], [row(1), row(2)], "'a' stands for two"),
        (["a", "b"], [row(1)], "2 names for 1"),
        ([], [], "no names"),
        (["a"], [np.ones((0, 2), np.float32)], "no elements"),
        (["a", "b"], [row(1), row(1, np.inf)], "params: inf in 'b'"),
    ]
    for names, arrays, text in faults:
        with pytest.raises(InvalidArgumentError, match=text):
            OuterState(names, arrays)


def test_a_theta_that_is_not_finite_shows_in_its_delta() -> None:
    state = OuterState(["w"], [row(1, 2, 3, 4)])
    delta = state.delta([np.array([np.nan, np.inf, 1e300, 4])])
    assert np.isnan(delta[0])
    assert delta[1:].tolist() == [-np.inf, -np.inf, 0]
    assert np.isfinite(numbers(state)).all()
