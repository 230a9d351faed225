"""NoLoCoState as its caller sees it: bits, layout, what is refused, and that it changes nothing."""

from __future__ import annotations

import signal
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim import layout
from pyccl.optim.gossip import NoLoCoState, check_stable, group_of, groups, noloco_step

from .replicas import Array, bits, state_of, vector

SIZE = 2 * layout._BLOCK + 77


def random_vectors(seed: int, count: int, size: int = SIZE) -> list[Array]:
    return list(np.random.default_rng(seed).standard_normal((count, size), np.float32))


def test_without_phis_each_operation_is_rounded_to_fp32_in_order() -> None:
    phi, a, b, c = random_vectors(0, 4)
    one = state_of(phi, alpha=0.3, beta=0.7)
    alpha, beta, delta = np.float32(0.3), np.float32(0.7), np.zeros(SIZE, np.float32)
    for thetas, mean in (
        ([a, b, c], ((a + b) + c) / np.float32(3)),
        ([b], b),
        ([c, a], (c + a) / 2),
    ):
        one.apply(thetas)
        t1 = alpha * delta
        t2 = mean - phi
        t3 = beta * t2
        delta = t1 + t3
        phi = phi + delta
        assert phi.dtype == np.float32
        assert one.momentum.tobytes() == delta.tobytes()
        assert one.params.tobytes() == phi.tobytes()
    assert one.step == 3


def test_with_phis_too() -> None:
    phi, a, b, other = random_vectors(1, 4)
    one = state_of(phi, alpha=0.3, beta=0.7, gamma=1.1)
    alpha, beta, gamma = np.float32(0.3), np.float32(0.7), np.float32(1.1)
    delta, half = np.zeros(SIZE, np.float32), np.float32(2)
    for _ in range(2):
        one.apply([a, b], [other, phi])
        mean_theta, mean_phi = (a + b) / half, (other + phi) / half
        t1 = alpha * delta
        t2 = mean_theta - mean_phi
        t3 = beta * t2
        t4 = t1 + t3
        t5 = phi - mean_phi
        t6 = gamma * t5
        delta = t4 - t6
        phi = phi + delta
        assert one.momentum.tobytes() == delta.tobytes()
        assert one.params.tobytes() == phi.tobytes()


def test_a_lost_partner_leaves_a_step_alone() -> None:
    one = state_of(vector(4), beta=0.5)
    one.apply([vector(8)])
    one.apply([vector(4)])
    assert (one.params.tolist(), one.momentum.tolist()) == ([6], [0])  # 4 + 2, then .5*2 - .5*2


def test_inputs_are_only_read() -> None:
    vectors = random_vectors(2, 5, 20)
    before = [one.tobytes() for one in vectors]
    for one in vectors:
        one.flags.writeable = False
    state = state_of(vectors[0], gamma=0.5)
    state.apply(vectors[1:3], tuple(vectors[3:5]))
    state.distance(vectors)
    state.theta([vectors[1]])
    kept = state.export()
    other = state_of(vectors[1])
    other.import_(kept)
    other.apply([vectors[1]])
    assert bits(state) == (1, kept["params"].tobytes(), kept["momentum"].tobytes())
    assert [one.tobytes() for one in vectors] == before
    noloco_step(vectors[0], vectors[1], vectors[2], None, 0.5, 0.7, 0.7)
    assert [one.tobytes() for one in vectors] == before


def test_its_own_vectors_may_be_given() -> None:
    one, other = state_of(vector(1, 5)), state_of(vector(1, 5))
    one.apply([one.params, vector(3, 3)])
    other.apply([vector(1, 5), vector(3, 3)])
    assert bits(one) == bits(other)


def test_parameters_lie_one_behind_the_other() -> None:
    arrays = [
        np.arange(6.0).reshape(3, 2).T,
        np.array(7, np.float16),
        np.zeros((0, 4), np.float32),
        np.array([8, 9.5], ml_dtypes.bfloat16),
        np.arange(10, 16, dtype=np.float32)[::2],
    ]
    state = NoLoCoState(list("abcde"), arrays)
    expected = [0, 2, 4, 1, 3, 5, 7, 8, 9.5, 10, 12, 14]
    assert state.params.tolist() == expected
    assert state.params.dtype == state.momentum.dtype == np.float32
    assert state.momentum.tolist() == [0] * 12
    assert state.names == ("a", "b", "c", "d", "e")
    assert state.shapes == ((2, 3), (), (0, 4), (2,), (3,))
    views = state.views
    for view, given in zip(views.values(), arrays, strict=True):
        np.testing.assert_array_equal(view, given.astype(np.float32))
        assert np.shares_memory(view, state.params) or not view.size
    params, momentum = state.params, state.momentum
    state.apply([state.params + np.float32(1)])
    assert state.params is params
    assert state.momentum is momentum
    assert float(views["b"]) == np.float32(7) + np.float32(0.7)
    again = NoLoCoState(list("abcde"), arrays).theta(arrays)
    assert again.tolist() == expected
    assert not np.shares_memory(again, state.params)


def test_a_checkpoint_goes_on_bit_for_bit() -> None:
    phi, a, b = random_vectors(3, 3, 30)
    state = state_of(phi)
    state.apply([a, b])
    kept = state.export()
    frozen = {key: value.tobytes() for key, value in kept.items() if isinstance(value, np.ndarray)}
    state.apply([b])
    assert {key: kept[key].tobytes() for key in frozen} == frozen
    other = state_of(a)
    params = other.params
    other.import_(kept)
    assert other.params is params
    assert (other.step, kept["step"]) == (1, 1)
    other.apply([b])
    assert bits(other) == bits(state)


class InterruptError(Exception):
    pass


def test_an_interrupt_falls_before_or_after_the_step() -> None:
    state = state_of(np.zeros(SIZE, np.float32), alpha=0, beta=1)
    armed, interrupts = False, 0

    def interrupt(*_: Any) -> None:
        if armed:
            raise InterruptError

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(1, 80):
            theta = np.full(SIZE, state.step + 1, np.float32)
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, i * 5e-5)
                state.apply([theta])
                armed = False
            except InterruptError:
                armed = False
                interrupts += 1
            assert (state.params == state.step).all()
            assert (state.momentum == min(state.step, 1)).all()
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert interrupts
    assert state.step


@pytest.mark.parametrize(
    ("thetas", "phis", "gamma", "text"),
    [
        ([], None, None, "thetas is empty"),
        ([vector(1, 2, 3)], None, None, r"thetas\[0\] has shape \(3,\)"),
        ([vector(1, 2), vector(1, 2)[None]], None, None, r"thetas\[1\] has shape \(1, 2\)"),
        ([vector(1, 2), vector(1, np.inf)], None, None, r"thetas\[1\]: inf in 'w'"),
        ([vector(np.nan, 2)], None, None, r"thetas\[0\]: nan in 'w'"),
        ([vector(-3e38, 1), vector(-3e38, 1)], None, None, "phi after the step: -inf in 'w'"),
        ([vector(1, 2)], None, 0.5, "phis is missing: gamma is 0.5 and beta 0.7"),
        ([vector(1, 2)], [vector(1, 2)], None, "half the traffic"),
        ([vector(1, 2)] * 2, [vector(1, 2)], 0.5, "2 thetas and 1 phis"),
        ([vector(1, 2)], [vector(1, np.nan)], 0.5, r"phis\[0\]: nan"),
        ([vector(1, 2)], [], 0.5, "phis is empty"),
        ([np.ones(2)], None, None, r"thetas\[0\] is of float64"),
        ([vector(1, 2).astype(">f4")], None, None, r"thetas\[0\] is of >f4"),
        ([[1.0, 2.0]], None, None, r"thetas\[0\] is of list"),
    ],
)
def test_a_step_refuses_and_changes_nothing(
    thetas: Any, phis: Any, gamma: float | None, text: str
) -> None:
    state = state_of(vector(1, 2), gamma=gamma)
    state.apply([vector(2, 2)], [vector(1, 2)] if state.needs_phis else None)
    before = bits(state)
    with pytest.raises(InvalidArgumentError, match=text):
        state.apply(thetas, phis)
    assert bits(state) == before


def test_the_place_of_what_is_not_finite_is_named() -> None:
    size = layout._BLOCK
    state = NoLoCoState(["a", "none", "b"], [np.zeros(n, np.float32) for n in (size, 0, 9)])
    theta = np.zeros(size + 9, np.float32)
    theta[size] = np.inf
    with pytest.raises(InvalidArgumentError, match="inf in 'b'"):
        state.apply([theta])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"params": vector(1, np.nan)}, r"\(params, momentum\)\[0\]: nan"),
        ({"momentum": vector(1)}, r"\(params, momentum\)\[1\] has shape \(1,\)"),
        ({"momentum": np.ones(2)}, "float64"),
        ({"step": -1}, "step is -1"),
        ({"step": 1.5}, "step is 1.5"),
        ({"names": ["v"]}, "other arrays: 1 of which 0"),
        ({"shapes": [(1, 2)]}, "other arrays: 1 of which 0"),
        ({"names": ["w", "v"], "shapes": [(2,), ()]}, "other arrays: 2 of which 1"),
    ],
)
def test_a_state_of_something_else_is_refused(change: dict[str, Any], text: str) -> None:
    state = state_of(vector(1, 2))
    state.apply([vector(2, 2)])
    before = bits(state)
    with pytest.raises(InvalidArgumentError, match=text):
        state.import_({**state_of(vector(5, 6)).export(), **change})
    with pytest.raises(InvalidArgumentError, match="no 'step'"):
        state.import_({key: value for key, value in state.export().items() if key != "step"})
    assert bits(state) == before


@pytest.mark.parametrize(
    ("names", "arrays", "text"),
    [
        ([], [], "no names"),
        (["a"], [], "1 names for 0 arrays"),
        (["a", "a"], [vector(1), vector(1)], "'a' stands for two"),
        (["a"], [np.zeros((3, 0))], "no elements"),
        (["a"], [vector(1, np.nan)], "nan in 'a'"),
        (["a"], [np.array([1e300])], "inf in 'a'"),
        ("a", [vector(1)], "sequence of texts"),
        ([1], [vector(1)], "sequence of texts"),
        (["a"], [np.arange(3)], "'a' is of int64"),
        (["a"], [[1.0]], "'a' is of list"),
        (["a"], [np.ones(2, np.complex64)], "'a' is of complex64"),
    ],
)
def test_what_can_not_be_trained_is_refused(names: Any, arrays: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        NoLoCoState(names, arrays)


def test_other_arrays_than_at_the_start_are_refused() -> None:
    state = state_of(vector(1, 2))
    with pytest.raises(
        InvalidArgumentError, match=r"'w' has shape \(3,\), but \(2,\) in the state"
    ):
        state.theta([vector(1, 2, 3)])
    with pytest.raises(InvalidArgumentError, match="2 arrays, but the state has 1"):
        state.theta([vector(1, 2)] * 2)
    with pytest.raises(InvalidTypeError, match="int64"):
        state.theta([np.arange(2)])
    with pytest.raises(InvalidArgumentError, match="step is -1"):
        state.step = -1
    state.step = 7
    assert state.step == 7
    with pytest.raises(TypeError):
        state.views["w"] = vector(1, 2)


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "text"),
    [
        (0.5, 0.7, 1.5, r"below 2\*\(1 - alpha\*\*2\), which for alpha 0.5 is 1.5"),
        (0.9, 0.7, 0.38, "0.9 of DiLoCo is too much"),
        (0, 1, 2, "for alpha 0.0 is 2"),
        (-0.1, 0.7, 0.7, "alpha is -0.1"),
        (1, 0.7, 0, "alpha is 1"),
        (1 - 1e-12, 0.7, 0, "alpha is 0.99"),  # which is 1 in fp32
        (0.5, 0, 0, "beta is 0"),
        (0.5, -0.7, 0.7, "beta is -0.7"),
        (0.5, 1e-60, 0.7, "beta is 1e-60"),
        (0.5, 0.7, -0.1, "gamma is -0.1"),
        (float("nan"), 0.7, 0.7, "alpha is nan"),
        (0.5, float("inf"), 0.7, "beta is inf"),
        (0.5, 1e300, 0.7, "beta is 1e"),
        (0.5, 0.7, float("nan"), "gamma is nan"),
        ("0.5", 0.7, 0.7, "alpha is '0.5'"),
    ],
)
def test_coefficients_are_refused(alpha: Any, beta: Any, gamma: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        check_stable(alpha, beta, gamma)
    with pytest.raises(InvalidArgumentError, match=text):
        state_of(vector(1), alpha=alpha, beta=beta, gamma=gamma)


def test_gamma_is_beta_if_left_out() -> None:
    state = state_of(vector(1), beta=0.25)
    assert (state.alpha, state.beta, state.gamma, state.needs_phis) == (0.5, 0.25, 0.25, False)
    assert state_of(vector(1), gamma=0.25).needs_phis
    assert not state_of(vector(1), gamma=0.7 + 1e-12).needs_phis  # the same in fp32


def test_a_step_of_arrays_that_do_not_match_is_refused() -> None:
    x, y = np.ones(3), np.ones(3, np.float32)
    with pytest.raises(InvalidTypeError, match=r"float64\(3,\), but another .* float32\(3,\)"):
        noloco_step(x, y, x, None, 0.5, 0.7, 0.7)
    with pytest.raises(InvalidTypeError, match=r"\(2,\)"):
        noloco_step(x, x, x, x[:2], 0.5, 0.7, 0.7)
    with pytest.raises(InvalidTypeError, match="int64"):
        noloco_step(*[np.arange(3)] * 4, 0.5, 0.7, 0.7)
    with pytest.raises(InvalidArgumentError, match="mean_phi is missing"):
        noloco_step(x, x, x, None, 0.5, 0.7, 0.6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([], 1, 0), "empty"),
        (([3, 4, 3], 1, 0), "3 twice"),
        (([1, -1], 1, 0), r"peers\[1\]"),
        (([1, "2"], 1, 0), r"peers\[1\]"),
        (([1, 2], -1, 0), "seed"),
        (([1, 2], 1, 2**64), "t is"),
        (([1, 2], 1, 0, 1), "size"),
    ],
)
def test_groups_refuse(arguments: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        groups(*arguments)


def test_a_stranger_has_no_group() -> None:
    with pytest.raises(InvalidArgumentError, match="not among the 2 members"):
        group_of(3, [1, 2], 0, 0)
