"""How alike peers train, from what they tell each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from pyccl.diagnostics import Diagnostics, Sketch, consistency, mean_cosine
from pyccl.errors import InvalidArgumentError, InvalidTypeError


def cosine(x: Any, y: Any) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_over_all_pairs(count: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, 50)) + 0.3
    pairs = [cosine(x, y) for x, y in itertools.combinations(vectors, 2)]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_known_directions() -> None:
    one = np.array([3.0, 4.0, 0.0])
    assert mean_cosine(np.array([one, 2 * one, one])) == pytest.approx(1)
    assert mean_cosine(np.array([one, -one])) == pytest.approx(-1)
    assert mean_cosine(np.eye(4)) == pytest.approx(0)
    assert math.isnan(mean_cosine(one[None]))
    assert math.isnan(mean_cosine(np.array([one, 0 * one])))
    assert math.isnan(mean_cosine(np.array([one, [math.inf, 1, 1]])))


def test_a_sketch_has_the_angles_of_what_it_stands_for() -> None:
    random, width, size = np.random.default_rng(1), 1024, 20_000
    sketch = Sketch(size, width)
    errors = []
    for _ in range(40):
        x = random.standard_normal(size).astype(np.float32)
        y = (random.uniform(-1, 1) * x + random.standard_normal(size)).astype(np.float32)
        errors.append(cosine(sketch.of(x), sketch.of(y)) - cosine(x, y))
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(len(errors))
    assert np.std(errors) < math.sqrt(2 / width)
    # Linear, and without chance: what one peer hashes all do.
    assert np.allclose(sketch.of(x) + sketch.of(y), Sketch(size, width).of(x + y), atol=1e-3)
    with pytest.raises(InvalidArgumentError, match="shape"):
        sketch.of(x[1:])


def test_peers(run_peers: Any) -> None:
    def function(comm: Any) -> Any:
        same = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
        own = np.random.default_rng(comm.rank).standard_normal(5000).astype(np.float32)
        diagnostics = Diagnostics(comm)
        alike = diagnostics.measure(same, loss=2.5)
        apart = diagnostics.measure((comm.rank + 1) * own, loss=float(comm.rank))
        some = diagnostics.measure(same, loss=1.0 if comm.rank else None)
        return alike, apart, some

    for alike, apart, some in run_peers(3, function):
        assert alike.peers == 3
        assert alike.losses == (2.5,) * 3
        assert (alike.loss_std, alike.loss_range, alike.norm_std, alike.norm_cv) == (0, 0, 0, 0)
        assert alike.cosine == pytest.approx(1)
        assert apart.losses == (0.0, 1.0, 2.0)
        assert apart.loss_std == pytest.approx(np.std([0, 1, 2]))
        assert apart.loss_range == 2
        assert apart.norms == pytest.approx([n * math.sqrt(5000) for n in (1, 2, 3)], rel=0.05)
        assert apart.norm_cv == pytest.approx(np.std([1, 2, 3]) / 2, rel=0.1)
        assert abs(apart.cosine) < 0.08
        assert math.isnan(some.losses[0])
        assert some.loss_std == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spoiled", [math.nan, math.inf, -math.inf])
def test_a_peer_of_garbage_does_not_hide_the_others(spoiled: float) -> None:
    rows = np.array([[1, 5, 3, 4], [2, 10, 4, -3], [spoiled, abs(spoiled), spoiled, 1.0]])
    found = consistency(rows)
    assert found.peers == 3
    np.testing.assert_array_equal(found.losses, rows[:, 0])
    np.testing.assert_array_equal(found.norms, rows[:, 1])
    assert (found.loss_std, found.loss_range) == (0.5, 1)
    assert (found.norm_std, found.norm_cv) == (2.5, pytest.approx(1 / 3))
    assert found.cosine == pytest.approx(0)
    alone = consistency(rows[2:])
    assert alone.peers == 1
    for one in (alone.loss_std, alone.loss_range, alone.norm_std, alone.norm_cv, alone.cosine):
        assert math.isnan(one)


def test_a_vector_without_a_direction_is_in_no_pair() -> None:
    one = np.array([3.0, 4.0])
    assert mean_cosine(np.array([one, 0 * one, -one])) == pytest.approx(-1)


def test_alone_and_wrong() -> None:
    diagnostics = Diagnostics(None)
    found = diagnostics.measure(np.ones(4, np.float32))
    assert (found.peers, found.norms) == (1, (2.0,))
    assert math.isnan(found.cosine)
    assert math.isnan(found.loss_std)
    with pytest.raises(InvalidTypeError, match="float32"):
        diagnostics.measure(np.ones(4))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="width"):
        Diagnostics(None, width=0)
