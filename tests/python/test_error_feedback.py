"""Error feedback: nothing is lost over time, and an operation that fails leaves no trace."""

from __future__ import annotations

import array
import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyccl
from pyccl import ErrorFeedback, Quantization

from .codecs import CODECS
from .test_dlpack import Tensor

Array = np.ndarray[Any, Any]

INFO = pyccl.OperationInfo(2, 2, pyccl.Epoch(1, 1), 1, 0, 0, 0.0, "direct", 2.0, False)


class Lonely:
    """A communicator of one member that does to its arrays what the real one does."""

    def __init__(self) -> None:
        self.contributions: list[list[Array]] = []
        self.options: dict[str, Any] = {}
        self.fails: BaseException | None = None

    def all_reduce(self, x: Any, **options: Any) -> pyccl.OperationInfo:
        self.options = options
        arrays = x if isinstance(x, list) else [x]
        if self.fails is not None:
            raise self.fails
        coded = [options["quantization"].rounded(one)[0] for one in arrays]
        if options.get("weight", 1.0) == 0:
            coded = [np.full_like(one, 5) for one in arrays]  # what the others contributed
        self.contributions.append(coded)
        for one, result in zip(arrays, coded, strict=True):
            one[...] = result
        return INFO


def bits(arrays: Any) -> list[bytes]:
    return [one.tobytes() for one in arrays]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_contributions_sum_up_to_the_values_less_the_residual(
    codec: Any, rounding: Any
) -> None:
    feedback = ErrorFeedback(Quantization(codec, block=32, rounding=rounding))
    comm, rng, steps = Lonely(), np.random.default_rng(0), 40
    total = np.zeros(70)
    for step in range(steps):
        delta = rng.standard_normal(70).astype(np.float32)
        total += delta
        feedback.quantization = dataclasses.replace(feedback.quantization, seed=step)
        feedback.all_reduce(comm, delta)
        np.testing.assert_array_equal(delta, comm.contributions[-1][0])
    given = np.sum([one[0].astype(np.float64) for one in comm.contributions], axis=0)
    (residual,) = feedback.residuals
    largest = max(np.abs(one[0]).max() for one in comm.contributions)
    # Each step rounds a sum and a difference to f32.
    np.testing.assert_allclose(given, total - residual, rtol=0, atol=steps * largest * 2.0**-23)
    # And the residual is the error of one step, not of all.
    assert np.abs(residual).max() <= Quantization(codec, block=32).rounded(delta)[1] * 2 + 1e-6


def test_on_a_grid_the_identity_is_exact() -> None:
    # With 14 as the largest magnitude the scale is 2, so all values and errors are whole numbers.
    feedback = ErrorFeedback(Quantization("int4", block=32))
    comm, rng = Lonely(), np.random.default_rng(1)
    total = np.zeros(64)
    for _ in range(50):
        delta = rng.integers(-9, 10, 64).astype(np.float32)
        held = feedback.residuals[0] if feedback.residuals else np.zeros(64, np.float32)
        delta[[0, 32]] = 14 - held[[0, 32]]
        total += delta
        feedback.all_reduce(comm, delta)
    given = np.sum([one[0].astype(np.float64) for one in comm.contributions], axis=0)
    np.testing.assert_array_equal(given, total - feedback.residuals[0])
    assert feedback.residuals[0].any()


def test_what_is_lost_comes_through_in_the_end() -> None:
    x = np.array([100.0] + [0.1] * 31, np.float32)
    plain, _ = Quantization("int4", block=32).rounded(x)
    assert not plain[1:].any()
    feedback, comm = ErrorFeedback(Quantization("int4", block=32)), Lonely()
    mean = np.zeros(32)
    for _ in range(1000):
        out = np.empty_like(x)
        feedback.all_reduce(comm, x, out=out)
        mean += out / 1000
    np.testing.assert_allclose(mean, x, rtol=0, atol=0.02)


@pytest.mark.parametrize("fault", [pyccl.PeerLostError("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [0, 2])
def test_a_failure_leaves_everything_as_it_was(fault: BaseException, before: int) -> None:
    feedback, comm = ErrorFeedback("fp4_e3m0"), Lonely()
    x = [np.linspace(-1, 1, 50), np.linspace(0, 5, 7).astype(np.float32)]
    for _ in range(before):
        feedback.all_reduce(comm, [one.copy() for one in x])
    held, given = bits(feedback.residuals), bits(x)
    comm.fails = fault
    with pytest.raises(type(fault)):
        feedback.all_reduce(comm, x)
    assert bits(feedback.residuals) == held
    assert bits(x) == given

    # Tried again it is the operation that it would have been.
    other, calm = ErrorFeedback("fp4_e3m0"), Lonely()
    for _ in range(before):
        other.all_reduce(calm, [one.copy() for one in x])
    y = [one.copy() for one in x]
    comm.fails = None
    feedback.all_reduce(comm, x)
    other.all_reduce(calm, y)
    assert bits(x) == bits(y)
    assert bits(feedback.residuals) == bits(other.residuals)


def test_without_weight_nothing_is_contributed_and_nothing_lost() -> None:
    feedback, comm = ErrorFeedback("int4"), Lonely()
    x = np.linspace(-1, 1, 40)
    feedback.all_reduce(comm, x.copy(), weight=0.0)
    assert feedback.residuals == ()
    feedback.all_reduce(comm, x.copy(), weight=2.0)
    held = bits(feedback.residuals)
    assert feedback.residuals[0].any()
    feedback.all_reduce(comm, x, weight=0)
    assert bits(feedback.residuals) == held
    np.testing.assert_array_equal(x, 5.0)  # the result arrives all the same


def test_the_options_reach_the_operation() -> None:
    feedback, comm = ErrorFeedback("e2m1"), Lonely()
    info = feedback.all_reduce(comm, np.ones(3), op="avg", tag=3, timeout=2.0, async_op=False)
    assert info is INFO
    q = Quantization("fp4_e2m1")
    assert comm.options == {"quantization": q, "op": "avg", "tag": 3, "timeout": 2.0}


def test_arrays_of_every_kind_keep_their_type() -> None:
    x: list[Any] = [
        np.full((2, 3), 1.5, np.float16),
        np.full(5, -2, ml_dtypes.bfloat16),
        np.full((), 0.75),
        np.zeros((0, 4), np.float32),
        array.array("d", [1.0, -1.0]),
        Tensor(np.full(4, 3.0, np.float32)),
    ]
    feedback, comm = ErrorFeedback("int8"), Lonely()
    feedback.all_reduce(comm, x)
    assert [one.dtype for one in comm.contributions[0]] == [np.float32] * 6
    assert [one.shape for one in feedback.residuals] == [(2, 3), (5,), (), (0, 4), (2,), (4,)]
    np.testing.assert_array_equal(x[0], np.full((2, 3), 1.5, np.float16))
    np.testing.assert_array_equal(x[1].astype(float), -2.0)
    np.testing.assert_allclose(x[2], 0.75)
    np.testing.assert_allclose(x[4], [1.0, -1.0])
    np.testing.assert_allclose(x[5].array, 3.0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_identity_holds_for_narrow_and_wide_types(dtype: Any) -> None:
    feedback, comm = ErrorFeedback("int4"), Lonely()
    rng, total = np.random.default_rng(2), np.zeros(100)
    for _ in range(20):
        delta = rng.standard_normal(100).astype(dtype)
        total += delta.astype(np.float64)
        out = np.empty_like(delta)
        feedback.all_reduce(comm, delta, out=out)
        np.testing.assert_array_equal(out, comm.contributions[-1][0].astype(dtype))
    given = np.sum([one[0].astype(np.float64) for one in comm.contributions], axis=0)
    np.testing.assert_allclose(given, total - feedback.residuals[0], rtol=0, atol=1e-4)


def test_a_nan_is_told_and_then_forgotten() -> None:
    feedback, comm = ErrorFeedback(Quantization("int4", block=32)), Lonely()
    x = np.linspace(-1, 1, 64).astype(np.float32)
    feedback.all_reduce(comm, x.copy())
    spoiled = x.copy()
    spoiled[3] = np.nan
    feedback.all_reduce(comm, spoiled)
    assert np.isnan(spoiled[:32]).all()
    assert np.isfinite(spoiled[32:]).all()
    assert not feedback.residuals[0][:32].any()
    assert feedback.residuals[0][32:].any()
    feedback.all_reduce(comm, x)
    assert np.isfinite(x).all()


def test_begin_is_for_operations_of_ones_own() -> None:
    feedback, comm = ErrorFeedback("int4"), Lonely()
    x = np.linspace(-1, 1, 40)
    step = feedback.begin(x)
    np.testing.assert_array_equal(step.values, x.astype(np.float32))
    # The operation may overwrite the values, and the settings may change meanwhile.
    feedback.quantization = Quantization("int8")
    comm.all_reduce(step.values, quantization=step.quantization)
    assert feedback.residuals == ()
    step.commit(INFO)
    lost = x.astype(np.float32) - Quantization("int4").rounded(x.astype(np.float32))[0]
    np.testing.assert_array_equal(feedback.residuals[0], lost)
    given_up = feedback.begin([x])
    np.testing.assert_array_equal(given_up.values[0], x.astype(np.float32) + lost)
    np.testing.assert_array_equal(feedback.residuals[0], lost)


def test_other_arrays_are_refused_by_name() -> None:
    feedback, comm = ErrorFeedback("int8"), Lonely()
    feedback.all_reduce(comm, [np.ones(3), np.ones((2, 2))])
    held = bits(feedback.residuals)
    faults = [
        ([np.ones(3), np.ones((4, 1))], r"x\[1\] has shape \(4, 1\), but its residual \(2, 2\)"),
        ([np.ones(3)], r"x\[1\] is missing: there were 2 arrays"),
        ([np.ones(3), np.ones((2, 2)), np.ones(1)], r"x\[2\] has no residual: there were 2"),
        (np.ones(4), r"x has shape \(4,\), but its residual \(3,\)"),
    ]
    for x, text in faults:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            feedback.all_reduce(comm, x)
    assert len(comm.contributions) == 1
    assert bits(feedback.residuals) == held
    feedback.reset()
    assert feedback.residuals == ()
    feedback.all_reduce(comm, np.ones(4))


def test_what_can_be_wrong_shows_before_the_operation() -> None:
    feedback, comm = ErrorFeedback("int8"), Lonely()
    fixed = np.ones(3)
    fixed.flags.writeable = False
    q = Quantization("int8")
    faults: list[tuple[Any, dict[str, Any], str]] = [
        (fixed, {}, "x is read-only; pass out="),
        (np.ones(3), {"out": np.ones(4)}, r"out has shape \(4,\), but x has shape \(3,\)"),
        (np.ones(3), {"out": np.ones(3, np.float32)}, "out holds f32, but x holds f64"),
        (np.ones(3, np.int32), {}, "x holds i32; only f32 f64 f16 bf16 can be quantized"),
        ([], {}, "x is an empty list"),
        (np.ones(3), {"async_op": True}, r"call begin\(x\)"),
        (np.ones(3), {"quantization": q}, "quantization is that of this object"),
    ]
    for x, options, text in faults:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            feedback.all_reduce(comm, x, **options)
    assert comm.contributions == []
    with pytest.raises(pyccl.InvalidTypeError, match="error feedback needs a quantization"):
        ErrorFeedback(None)  # type: ignore[arg-type]


def test_the_state_can_be_kept_and_loaded() -> None:
    feedback, comm = ErrorFeedback("int4"), Lonely()
    x = [np.linspace(-1, 1, 40), np.linspace(0, 3, 5)]
    assert feedback.state_dict() == {"residuals": []}
    feedback.all_reduce(comm, [one.copy() for one in x])
    state = feedback.state_dict()
    other = ErrorFeedback("int4")
    other.load_state_dict(state)
    for one in state["residuals"]:
        one += 1  # copies, both ways
    y = [one.copy() for one in x]
    feedback.all_reduce(comm, x)
    other.all_reduce(comm, y)
    assert bits(x) == bits(y)
    assert bits(feedback.residuals) == bits(other.residuals)
    other.load_state_dict({"residuals": []})
    assert other.residuals == ()
    for wrong in ({}, {"residuals": 3}, {"residuals": [np.ones(3)]}, {"residuals": [None]}):
        with pytest.raises(pyccl.InvalidArgumentError, match="residual"):
            feedback.load_state_dict(wrong)


def test_residuals_are_there_to_read() -> None:
    feedback, comm = ErrorFeedback("int4"), Lonely()
    feedback.all_reduce(comm, np.linspace(-1, 1, 40))
    (residual,) = feedback.residuals
    before = residual.copy()
    with pytest.raises(ValueError, match="read-only"):
        residual[0] = 1
    feedback.all_reduce(comm, np.linspace(-3, 1, 40))
    np.testing.assert_array_equal(residual, before)


PEERS = 3
STEPS = 20


def delta_of(rank: int, step: int) -> Array:
    return np.random.default_rng(100 * rank + step).standard_normal(3000).astype(np.float32)


@pytest.mark.parametrize("codec", ["int8", "int4", "e3m0"])
def test_peers_agree_and_keep_what_they_lost(run_peers: Any, codec: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[Array, Array, bytes]:
        feedback = ErrorFeedback(codec)
        total, results = np.zeros(3000), []
        for step in range(STEPS):
            delta = delta_of(comm.rank, step)
            info = feedback.all_reduce(comm, delta, op="avg")
            assert info.world_size == PEERS
            total += delta
            results.append(delta)
        return total, feedback.residuals[0], b"".join(bits(results))

    everywhere = run_peers(PEERS, function)
    assert len({one[2] for one in everywhere}) == 1
    total = everywhere[0][0]
    owed = np.mean([one[1] for one in everywhere], axis=0)
    deltas = [np.mean([delta_of(rank, step) for rank in range(PEERS)], axis=0)
              for step in range(STEPS)]  # fmt: skip
    # The result may be rounded once more on its way back, at each step anew.
    step_max = max(Quantization(codec).rounded(one)[1] for one in deltas)
    expected = np.sum(deltas, axis=0, dtype=np.float64) - owed
    assert np.abs(total - expected).max() <= STEPS * step_max


def test_an_operation_that_fails_among_peers_leaves_no_trace(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[bytes, bytes]:
        feedback = ErrorFeedback("int4")
        feedback.all_reduce(comm, delta_of(comm.rank, 0))
        x = delta_of(comm.rank, 1)
        held, given = bits(feedback.residuals), x.tobytes()
        with pytest.raises(pyccl.MismatchError):
            feedback.all_reduce(comm, x, op="avg" if comm.rank == 1 else "sum")
        assert (bits(feedback.residuals), x.tobytes()) == (held, given)
        expected = feedback.begin(x)
        feedback.all_reduce(comm, x)
        after = feedback.residuals[0].tobytes()
        expected.commit(INFO)
        assert feedback.residuals[0].tobytes() == after
        return x.tobytes(), given

    results = run_peers(PEERS, function)
    assert len({one[0] for one in results}) == 1
    assert len({one[1] for one in results}) == PEERS


def test_a_newcomer_without_weight_keeps_its_residual(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> Array:
        newcomer = comm.rank == 1  # before others leave, and ranks are others
        feedback = ErrorFeedback("int8")
        x = np.full(500, np.nan if newcomer else 2.0, ml_dtypes.bfloat16)
        feedback.all_reduce(comm, x, op="avg", weight=0.0 if newcomer else 1.0)
        assert len(feedback.residuals) == (0 if newcomer else 1)
        return x.astype(np.float32)

    for result in run_peers(PEERS, function):
        np.testing.assert_array_equal(result, 2.0)


def test_lists_of_many_types_travel_as_one_operation(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[bytes]:
        feedback = ErrorFeedback(Quantization("e4m3", rounding="stochastic", seed=comm.rank))
        x: list[Array] = [
            delta_of(comm.rank, 0),
            delta_of(comm.rank, 1).astype(np.float16).reshape(30, 100),
            delta_of(comm.rank, 2).astype(ml_dtypes.bfloat16),
            delta_of(comm.rank, 3)[:7].astype(np.float64),
        ]
        info = feedback.all_reduce(comm, x)
        assert info.world_size == PEERS
        for step, one in enumerate(x):
            exact = np.sum([delta_of(rank, step) for rank in range(PEERS)], axis=0)
            error = np.abs(one.astype(np.float64).ravel() - exact[: one.size])
            assert error.max() <= 0.5 * np.abs(exact).max()
        return bits(x)

    assert len({tuple(one) for one in run_peers(PEERS, function)}) == 1


@pytest.mark.parametrize("algorithm", ["direct", "ring"])
def test_contributions_that_are_not_rounded_lose_nothing(run_peers: Any, algorithm: Any) -> None:
    # Beside the 8 a half is nothing to int4. Residuals bring it along; what a ring rounds is its
    # result, which has no feedback, so there it stays away and must not be made up for.
    steps, delta = 60, np.array([8.0, *[0.5] * 31], np.float32)

    def function(comm: pyccl.Communicator) -> None:
        feedback, total = ErrorFeedback(Quantization("int4", block=32)), np.zeros(32)
        for _ in range(steps):
            x = delta.copy()
            feedback.all_reduce(comm, x, op="avg", algorithm=algorithm)
            total += x
        assert total[1] == pytest.approx(0.0 if algorithm == "ring" else steps / 2, abs=2.0)
        if algorithm == "ring":
            assert not feedback.residuals[0].any()

    run_peers(2, function)


def test_alone_there_is_no_residual(alone: pyccl.Communicator) -> None:
    feedback, total = ErrorFeedback(Quantization("int4", block=32)), np.zeros(32)
    for _ in range(20):
        x = np.array([8.0, *[0.5] * 31], np.float32)
        feedback.all_reduce(alone, x)
        total += x
    assert total.tolist() == [160.0, *[10.0] * 31]
    assert not feedback.residuals[0].any()
