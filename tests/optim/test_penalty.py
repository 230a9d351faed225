"""EDiT's outer step without torch and without a network: weights, detectors, and the step of a sum.

The checks are functions of the module, so that they can be tried on mutants of its source.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest

from pyccl.errors import InvalidArgumentError, InvalidTypeError

from .family import REAL, Family
from .training import Array, Twin

MODULES = {"a": 2, "b": 1}
SIZES = {"a.w": (2, 3), "a.bias": (3,), "b.w": (5,)}
PLACES = (slice(0, 9), slice(9, 14))
FREE = [math.inf] * 2


def random(*key: int, size: int = 14) -> Array:
    return np.random.default_rng(key).standard_normal(size).astype(np.float32)


def state_of(family: Family, **options: Any) -> Any:
    arrays = [random(7, i, size=math.prod(s)).reshape(s) for i, s in enumerate(SIZES.values())]
    return family.module("penalty").EDiTState(list(SIZES), arrays, MODULES, **options)


def meet(states: list[Any], deltas: list[Array], limits: Any = None) -> list[Any]:
    """One outer step of peers with these deltas; what each of them has weighed."""
    sent = [
        one.weigh(delta, FREE if limits is None else limits[i])
        for i, (one, delta) in enumerate(zip(states, deltas, strict=True))
    ]
    total = sent[0].values.copy()
    for one in sent[1:]:
        total = total + one.values
    for one in states:
        one.apply(total)
    return sent


def bits(state: Any, place: slice = slice(None)) -> tuple[bytes, bytes]:
    return state.params[place].tobytes(), state.momentum[place].tobytes()


def softmax(norms: Array) -> Array:
    found = np.exp(-(norms - norms.min()))
    return np.asarray(found / found.sum())


class Reference:
    """The detector as its authors have written it, with scores; and winsorised."""

    def __init__(self, warmup: int, start: float | None) -> None:
        self.mean, self.square, self.count, self.start = start or 0.0, 0.0, 0, start
        self.scores: deque[float] = deque(maxlen=warmup)
        self.warmup = warmup

    def score(self, value: float) -> float:
        return (value - self.mean) / math.sqrt(self.square) if self.square else 0.0

    def threshold(self) -> float:
        return 3 * max(1.0, float(np.std(self.scores)))

    def outlier(self, value: float) -> bool:
        return self.count >= self.warmup and self.score(value) > self.threshold()

    def update(self, value: float) -> None:
        if self.outlier(value):
            value = self.mean + self.threshold() * math.sqrt(self.square)
        self.count += 1
        if self.count == 1 and self.start is None:
            self.mean = value
        d = value - self.mean
        self.mean += 0.02 * d
        self.square = 0.98 * (self.square + 0.02 * d * (value - self.mean))
        self.scores.append(self.score(value) if self.count > self.warmup else 0.0)


# --- Checks ---------------------------------------------------------------------------------------


def check_golden(family: Family) -> None:  # E-3
    penalty = family.module("penalty")
    detector = penalty.NormDetector(start=0.0)
    found = []
    for value in (1.0, 2.0, 3.0, 2.0):
        detector.observe(value)
        found.append((detector.mean, detector.variance))
    expected = [(0.02, 0.019208), (0.0596, 0.09412688), (0.118408, 0.25831579),
                (0.15604, 0.32115326)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    for reference in (0.0, 1.5, 7.0):
        weights = np.array([penalty.weight_of(n, reference, 1.0) for n in (1.0, 2.0, 4.0)])
        found = weights / weights.sum()
        np.testing.assert_allclose(found, [0.705385, 0.259496, 0.035119], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found, softmax(np.array([1.0, 2, 4])), rtol=1e-12)


def check_detector(family: Family) -> None:
    """The same verdicts as the reference, over ups, downs and bursts."""
    for seed in range(4):
        for start in (None, 0.0):
            rng = np.random.default_rng(seed)
            detector = family.module("penalty").NormDetector(3.0, 40, start)
            reference = Reference(40, start)
            flagged = 0
            for t in range(250):
                value = 5 + rng.standard_normal() * (1 + seed)
                value *= 1000 if t in (10, 41, 200, 201) else 0.01 if t % 50 == 9 else 1
                # Scores of more than 1 on the whole: then the threshold is higher.
                value += 30 * abs(math.sin(t / 7)) if seed == 3 else 0
                value = abs(value)
                expected = reference.outlier(value)
                assert (value > detector.limit) == expected
                flagged += expected
                reference.update(value)
                detector.observe(value)
                assert detector.mean == pytest.approx(reference.mean, rel=1e-12)
                assert detector.variance == pytest.approx(reference.square, rel=1e-12)
            assert flagged >= 2


def check_not_spoiled(family: Family) -> None:
    """An outlier moves the ordinary by no more than the threshold does; a small norm is none."""
    detector = family.module("penalty").NormDetector(3.0, 20)
    for t in range(20):
        assert detector.limit == math.inf
        detector.observe(1 + 0.1 * (t % 3))
    limit, mean = detector.limit, detector.mean
    assert 1.2 < limit < 2
    detector.observe(1e9)
    assert detector.mean == pytest.approx(mean + 0.02 * (limit - mean))
    assert detector.limit < 2
    for value in (math.nan, math.inf):
        before = detector.export()
        detector.observe(value)
        assert detector.export() == before
    state = state_of(family)
    sent = state.weigh(0 * random(0), [detector.limit] * 2)
    assert min(sent.weights) > 0


def check_reach(family: Family) -> None:
    """However far norms are from what was agreed: no weight is 0, and none is larger for a larger
    norm."""
    weight_of = family.module("penalty").weight_of
    norms = [0.0, 1e-6, 1.0, 30.0, 200.0, 1e4, 1e38]
    for reference in (0.0, 5.0, 300.0, 1e30):
        for temperature in (1e-3, 1.0, 50.0, math.inf):
            weights = [weight_of(n, reference, temperature) for n in norms]
            assert weights == sorted(weights, reverse=True)
            assert np.float32(min(weights)) * np.float32(1e-15) > 0
            assert math.isfinite(np.float32(max(weights)) * np.float32(1e15))
    # All of them, suddenly: the mean is that of all, and the step behind it knows.
    states = [state_of(family, clip=None) for _ in range(2)]
    deltas = [500 * random(1, m) for m in range(2)]
    twin = Twin(states[0].params, 0.7, 0.8)
    meet(states, deltas)
    twin.apply((deltas[0] + deltas[1]) / np.float32(2))
    np.testing.assert_allclose(states[0].params, twin.phi, rtol=1e-5, atol=1e-4)
    for i, place in enumerate(PLACES):
        lengths = [np.linalg.norm(delta[place]) for delta in deltas]
        assert states[0]._references[i] == pytest.approx(np.mean(lengths), rel=1e-6)


def check_softmax(family: Family) -> None:
    """Rounds of three peers, against fp64; both modules by themselves."""
    for clip in (None, 2.0):
        states = [state_of(family, clip=clip) for _ in range(3)]
        twin = Twin(states[0].params, 0.7, 0.8, dtype=np.float64)
        for t in range(5):
            deltas = [random(2, t, m) * (1 + m + t) / 4 for m in range(3)]
            mean = np.empty(14)
            for place in PLACES:
                ours = np.stack([one[place].astype(np.float64) for one in deltas])
                mean[place] = softmax(np.linalg.norm(ours, axis=1)) @ ours
                if clip is not None:
                    mean[place] *= min(1, clip / (np.linalg.norm(mean[place]) + 1e-6))
            twin.apply(mean)
            meet(states, deltas)
            np.testing.assert_allclose(states[0].params, twin.phi, atol=2e-6)
            np.testing.assert_allclose(states[0].momentum, twin.momentum, atol=2e-6)
            assert len({one.hash() for one in states}) == 1
            assert min(states[0]._references) > 0


def check_uniform(family: Family) -> None:  # E-1
    """At an infinite temperature it is DiLoCo, bit for bit; and so it is of equal norms, but for
    roundings."""
    for temperature, exact in ((math.inf, True), (1.0, False)):
        states = [state_of(family, temperature=temperature, clip=None) for _ in range(3)]
        outer = family.OuterState(["w"], [states[0].params], 0.7, 0.8)
        for t in range(6):
            deltas = [random(3, t)] * 3
            for place in PLACES:
                flip = np.roll(deltas[1][place], 1)
                deltas[1] = np.concatenate([deltas[1][: place.start], flip,
                                            deltas[1][place.stop :]])  # fmt: skip
            if exact:
                deltas[2] = 5 * random(4, t)
            outer.apply((deltas[0] + deltas[1] + deltas[2]) / np.float32(3))
            meet(states, deltas)
            tolerance = 0 if exact else 2e-6
            np.testing.assert_allclose(states[1].params, outer.params, rtol=0, atol=tolerance)
            np.testing.assert_allclose(states[1].momentum, outer.momentum, rtol=0, atol=tolerance)


def check_outliers(family: Family) -> None:
    """Who is over its limit, or not finite, is out of one module, and the rest is as without it."""
    for spoiled in (1000.0, math.nan, math.inf, 1e38):
        limits = [FREE, [math.inf, 100.0], FREE]
        states, others = [state_of(family) for _ in range(3)], [state_of(family) for _ in range(2)]
        deltas = [random(5, m) for m in range(3)]
        deltas[1][9:] = spoiled
        before = bits(states[0])
        sent = meet(states, deltas, limits)
        assert sent[1].weights[1] == 0
        assert sent[1].weights[0] > 0
        meet(others, [deltas[0], deltas[2]])
        for one in states:
            assert bits(one, PLACES[1]) == bits(others[0], PLACES[1])
            assert bits(one, PLACES[0]) != bits(others[0], PLACES[0])
            assert bits(one) != before
            assert one._references[1] == others[0]._references[1]


def check_all_outliers(family: Family) -> None:
    """The module stays, momentum and all, and the count of steps goes on."""
    states = [state_of(family) for _ in range(2)]
    meet(states, [random(6, m) for m in range(2)])
    moved, kept = (bits(states[0], one) for one in PLACES)
    reference = states[0]._references[1]
    sent = meet(states, [random(8, m) for m in range(2)], [[math.inf, 0.0]] * 2)
    assert [one.weights[1] for one in sent] == [0, 0]
    for one in states:
        assert bits(one, PLACES[1]) == kept
        assert bits(one, PLACES[0]) != moved
        assert (one.step, one._references[1]) == (2, reference)
        assert one.weight_sums[0] > 0 == one.weight_sums[1]
    # And so does a module of which the sum is too large to be one.
    one = states[0]
    before = bits(one)
    one.apply(np.full(18, np.inf, np.float32))
    assert bits(one) == before
    assert one.step == 3


def check_frozen(family: Family) -> None:
    for clip in (1e-30, 1e-300):
        state = state_of(family, clip=clip)
        before = state.params.tobytes()
        for t in range(3):
            meet([state], [random(9, t)])
        assert state.params.tobytes() == before
    state = state_of(family, clip=2.0, lr=1.0, mu=0.0)
    before = state.params.copy()
    meet([state], [100 * random(9)])
    for place in PLACES:
        assert np.linalg.norm((before - state.params)[place]) == pytest.approx(2, rel=1e-5)


def check_resumed(family: Family) -> None:
    state, other = state_of(family), state_of(family, temperature=3.0, clip=None, lr=0.1)
    for t in range(3):
        meet([state], [random(10, t)])
    other.import_(state.export())
    assert other.hash() == state.hash()
    assert (other._references == state._references).all()
    for one in (state, other):
        meet([one], [random(11)])
    assert other.hash() == state.hash()

    detectors = [family.module("penalty").NormDetector(3.0, 10) for _ in range(2)]
    for t in range(15):
        detectors[0].observe(1 + t % 4)
    detectors[1].import_(detectors[0].export())
    for t in range(30):
        for one in detectors:
            one.observe(2 + t % 5)
        assert detectors[0].limit == detectors[1].limit
    assert detectors[0].export() == detectors[1].export()


CHECKS = [
    check_golden, check_detector, check_not_spoiled, check_reach, check_softmax, check_uniform,
    check_outliers, check_all_outliers, check_frozen, check_resumed,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_penalty(check: Any) -> None:
    check(REAL)


MUTANTS: dict[str, tuple[str, str, list[Any]]] = {
    "weights not divided": (
        "divisor = weight * max(", "divisor = max(",
        [check_softmax, check_uniform, check_frozen],
    ),
    "clip no-op": ("(length + _EPSILON) / clip)", "0.0)", [check_softmax, check_frozen]),
    "min for max": (
        "weight * max(1.0, (length", "weight * min(1.0, (length", [check_softmax, check_uniform],
    ),
    "clipped by the sum": (
        "norm(sums[place]) / weight", "norm(sums[place])", [check_softmax],
    ),
    "the larger, the more": (
        "(reference - length) / temperature", "(length - reference) / temperature",
        [check_golden, check_reach, check_softmax],
    ),
    "no reach": (
        "min(max(exponent, -_REACH), _REACH)", "min(exponent, 700.0)", [check_reach],
    ),
    "the reference stays": (
        "self._references[i] = moment / weight", "pass", [check_reach, check_softmax],
    ),
    "references at home": (
        "self._references[i : i + 1]\n", "self._references[i : i + 1].copy()\n", [check_resumed],
    ),
    "outliers count": (
        "length <= limits[i] and math", "math", [check_outliers, check_all_outliers],
    ),
    "two-sided": (
        "if length <= limits[i] and",
        "if min(1.0, limits[i] / 2) < length <= limits[i] and",
        [check_not_spoiled],
    ),
    "what is not finite counts": (
        "length <= limits[i] and math.isfinite(length)", "not length > limits[i]", [check_outliers],
    ),
    "all or nothing": (
        "            if counts:\n", "            if all(sums[size : size + count] > 0):\n",
        [check_all_outliers],
    ),
    "skipped modules move": (
        "            if counts:\n", "            if weight >= 0 and (weight := weight or 1.0):\n",
        [check_all_outliers],
    ),
    "threshold of few scores": (
        "max(1.0, float(np.std", "min(1.0, float(np.std", [check_detector, check_not_spoiled],
    ),
    "poisoned": ("value = min(value, self.limit)", "pass", [check_detector, check_not_spoiled]),
    "stuck": (
        "value = min(value, self.limit)",
        "value = value if value <= self.limit else self.mean",
        [check_detector, check_not_spoiled],
    ),
    "variance of the old mean": (
        "distance * (value - self.mean)", "distance * distance", [check_golden, check_detector],
    ),
    "scores left at home": ('map(float, state["scores"])', "()", [check_resumed]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family("penalty", *edit)
    for check in checks:
        with pytest.raises(AssertionError):
            check(mutant)


# --- Errors ---------------------------------------------------------------------------------------


def test_what_can_not_be() -> None:
    penalty = REAL.module("penalty")
    for options, text in (
        ({"temperature": 0.0}, "temperature is 0"), ({"clip": -1.0}, "clip is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=text):
            state_of(REAL, **options)
    for modules, text in (({"a": 2}, "2 arrays, but there are 3"), ({"a": 3, "b": 0}, "'b'")):
        with pytest.raises(InvalidArgumentError, match=text):
            penalty.EDiTState(list(SIZES), [np.ones(s) for s in SIZES.values()], modules)
    for options, text in (((0.0,), "z_threshold is 0"), ((3.0, 0), "warmup is 0")):
        with pytest.raises(InvalidArgumentError, match=text):
            penalty.NormDetector(*options)

    state = state_of(REAL)
    before = state.hash()
    with pytest.raises(InvalidArgumentError, match="not of a part"):
        state.apply(np.zeros(18, np.float32), PLACES[0])
    with pytest.raises(InvalidArgumentError, match="sums has shape"):
        state.apply(np.zeros(14, np.float32))
    with pytest.raises(InvalidTypeError):
        state.apply(np.zeros(18))
    kept = state.export()
    for edit in ({}, {**kept["extra"], "temperature, clip": np.full(2, np.nan)}):
        with pytest.raises(InvalidArgumentError, match=r"of the state|of other options"):
            state.import_({**kept, "extra": edit})
    assert state.hash() == before


def test_modules_are_those_of_torch() -> None:
    by_module = REAL.module("penalty").by_module
    names = ["wte.weight", "h.0.attn.weight", "h.0.attn.bias", "h.0.mlp.weight", "scale"]
    assert by_module(names) == {
        "wte": names[:1], "h.0.attn": names[1:3], "h.0.mlp": names[3:4], "": names[4:],
    }  # fmt: skip
