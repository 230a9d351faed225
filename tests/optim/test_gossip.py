"""NoLoCo's outer step: its identities, its statistics, and mutants of it that these notice.

The identities are functions of the module, so that they can be tried on mutants of its source.
Those of exact formulas go through noloco_step() in fp64, at tolerances that fp32 could not show;
NoLoCoState is held to the bits of noloco_step() in fp32. Statistics run many replicas at once, by
a twin of the state that is itself held to the bits of NoLoCoState.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyccl.errors import InvalidArgumentError
from pyccl.optim import gossip
from pyccl.optim.gossip import group_of, groups

from .replicas import Array, Twin, bits, meet, meet64, state_of, vector

Check = Callable[[Any], None]

DECAY = {  # per step: N, then by (alpha, gamma)
    2: {(0.5, 0.7): 0.5, (0.5, 1): 0.5, (0.3, 0.7): 0.3, (0, 1): 0.0},
    4: {(0.5, 0.7): 0.6282, (0.5, 1): 0.6952, (0.3, 0.7): 0.4468, (0, 1): 0.3333},
    8: {(0.5, 0.7): 0.6684, (0.5, 1): 0.7508, (0.3, 0.7): 0.5042, (0, 1): 0.4286},
    16: {(0.5, 0.7): 0.6851, (0.5, 1): 0.7726, (0.3, 0.7): 0.5295, (0, 1): 0.4667},
    64: {(0.5, 0.7): 0.6965, (0.5, 1): 0.7871, (0.3, 0.7): 0.5472, (0, 1): 0.4921},
}
DECAY_CASES = [(n, a, c, rate) for n, row in DECAY.items() for (a, c), rate in row.items()]


# --- Identities -----------------------------------------------------------------------------------


def check_numbers(g: Any) -> None:
    assert g.splitmix64(0) == 0xE220A8397B1DCDAF
    assert g.splitmix64(1) == 0x910A2DEC89025CC1
    assert g.splitmix64(2**64) == g.splitmix64(0)


def check_pairs(g: Any) -> None:  # N-8
    golden = {
        (8, 0): [(4, 3), (5, 0), (7, 6), (1, 2)],
        (8, 1): [(7, 1), (0, 3), (4, 6), (5, 2)],
        (8, 2): [(0, 3), (2, 4), (6, 1), (7, 5)],
        (5, 0): [(4, 3), (0, 1, 2)],
        (5, 1): [(1, 0), (3, 4, 2)],
        (5, 2): [(0, 3), (2, 4, 1)],
    }
    for (peers, t), expected in golden.items():
        assert g.groups(range(peers), 42, t) == expected
        assert [g.group_of(p, range(peers), 42, t) for p in expected[0]] == [expected[0]] * 2


def check_golden(g: Any) -> None:  # N-G1: dyadic, so bits
    expected = [(0.5, 1.5, 4.5, 5.5), (1.25, 2.75, 3.25, 4.75), (2.5, 3.5, 2.5, 3.5)]
    cuts = [[(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0, 3), (1, 2)]]
    phi = np.array([[0.0], [2], [4], [6]])
    delta = np.zeros_like(phi)
    states = [state_of(vector(x), g, beta=0.5) for x in (0, 2, 4, 6)]
    drift = vector(-1, 1, -1, 1)[:, None]
    for cut, row in zip(cuts, expected, strict=True):
        meet(states, [s.params + x for s, x in zip(states, drift, strict=True)], cut)
        assert [float(s.params[0]) for s in states] == list(row)
        meet64(g, phi, delta, phi + drift, cut, 0.5, 0.5, 0.5)
        assert phi[:, 0].tolist() == list(row)
    assert [s.step for s in states] == [3] * 4


def check_two_tensors(g: Any) -> None:
    """Worked out by hand, with three different coefficients."""
    states = [state_of(vector(x), g, alpha=0.5, beta=0.25, gamma=0.75) for x in (0, 4)]
    meet(states, [vector(1), vector(7)], [(0, 1)])  # means: theta 4, phi 2
    assert [float(s.momentum[0]) for s in states] == [2.0, -1.0]  # .25*2 -.75*-2; .25*2 -.75*2
    assert [float(s.params[0]) for s in states] == [2.0, 3.0]
    meet(states, [vector(2), vector(4)], [(0, 1)])  # means: 3, 2.5
    assert [float(s.momentum[0]) for s in states] == [1.5, -0.75]
    assert [float(s.params[0]) for s in states] == [3.5, 2.25]


def check_group_is_world(g: Any) -> None:  # N-1
    """From a common start, heavy ball DiLoCo whatever gamma is. Three local minima."""
    alpha, beta, steps = 0.5, 0.7, 12
    rng = np.random.default_rng(1)
    minima, rates = rng.standard_normal((3, 5)), rng.uniform(0.2, 0.9, (3, 5))
    start = rng.standard_normal(5)
    for gamma in (0, 0.3, 0.7, 1):
        phi, delta = np.tile(start, (3, 1)), np.zeros((3, 5))
        expected, buf = start.copy(), np.zeros(5)
        states = [state_of(start, g, alpha=alpha, beta=beta, gamma=gamma) for _ in range(3)]
        for _ in range(steps):
            theta = phi + rates * (minima - phi)
            meet64(g, phi, delta, theta, [(0, 1, 2)], alpha, beta, gamma)
            own = np.array([one.params for one in states])
            own += (rates * (minima - own)).astype(np.float32)
            meet(states, list(own), [(2, 0, 1)])
            gradient = (rates * (expected - minima)).mean(0)
            buf = alpha * buf + gradient
            expected = expected - beta * buf
        assert np.abs(phi - expected).max() < 1e-12
        for one in states:
            np.testing.assert_allclose(one.params, expected, rtol=0, atol=2e-6)


def check_mean(g: Any) -> None:  # N-2
    """Pairs, triples and lonely ones: the mean goes as with an all-reduce."""
    rng = np.random.default_rng(2)
    minima, rate = rng.standard_normal((9, 4)), rng.uniform(0.1, 0.6, 4)
    for abc in ((0.5, 0.7, 0.7), (0.3, 0.7, 1.1), (0.0, 1.0, 0.2)):
        phi, delta = rng.standard_normal((9, 4)), np.zeros((9, 4))
        mean, buf = phi.mean(0), np.zeros(4)
        for t in range(40):
            cut = g.groups(range(9), 3, t)
            # Of some groups a member is lost, of others all.
            cut = [part for i, one in enumerate(cut) for part in parted(one, (t + i) % 4)]
            meet64(g, phi, delta, phi + rate * (minima - phi), cut, *abc)
            buf = abc[0] * buf + rate * (mean - minima.mean(0))
            mean = mean - abc[1] * buf
            assert np.abs(phi.mean(0) - mean).max() < 1e-10


def parted(group: Sequence[int], how: int) -> list[tuple[int, ...]]:
    if how == 0:
        return [(one,) for one in group]
    return [tuple(group[:-1]), (group[-1],)] if how == 1 else [tuple(group)]


def check_averaging(g: Any) -> None:  # N-3: dyadic, so exact
    states = [state_of(vector(x), g, alpha=0, beta=1) for x in (0, 2, 4, 10)]
    for cut, expected in (([(0, 1), (2, 3)], [1, 1, 7, 7]), ([(0, 2), (1, 3)], [4, 4, 4, 4])):
        meet(states, [s.params.copy() for s in states], cut)
        assert [float(s.params[0]) for s in states] == expected
    states[0].apply([vector(-3)])  # alone, it is local training
    assert states[0].params.tolist() == [-3]


def check_shortcut(g: Any) -> None:  # N-9
    rng = np.random.default_rng(4)
    for n in (1, 2, 3):
        theta, phi = rng.standard_normal((2, n, 50))
        delta = rng.standard_normal(50)
        means = theta.mean(0), phi.mean(0)
        long = g.noloco_step(phi[0], delta, *means, 0.5, 0.7, 0.7)
        short = g.noloco_step(phi[0], delta, means[0], None, 0.5, 0.7, 0.7)
        # The text itself, with differences averaged one by one.
        step = 0.5 * delta + 0.7 * (theta - phi).mean(0) - 0.7 * (phi[0] - phi.mean(0))
        for new_phi, new_delta in (long, short):
            assert np.abs(new_delta - step).max() < 1e-12
            assert np.abs(new_phi - (phi[0] + step)).max() < 1e-12


def check_bounds(g: Any) -> None:  # N-6
    g.check_stable(0.5, 0.7, 0.7)
    g.check_stable(0, 1, 1.999)
    for alpha, beta, gamma in ((0.9, 0.7, 0.7), (0.5, 0.7, 1.5), (0.5, 0, 0.7), (1, 0.7, 0)):
        with pytest.raises(InvalidArgumentError):
            g.check_stable(alpha, beta, gamma)


def check_all_or_nothing(g: Any) -> None:
    one = state_of(vector(1, 2), g)
    one.apply([vector(2, 2), vector(3, 5)])
    before = bits(one)
    # The second overflows in the second element only, when the first would be done.
    for theta in (vector(0, np.nan), vector(0, 3e38)):
        with pytest.raises(InvalidArgumentError, match=r"inf|nan"):
            one.apply([vector(0, 3e38), theta])
        assert bits(one) == before


def check_joiner(g: Any) -> None:
    """It has the donor's momentum and t, not only its parameters."""
    donor, joiner = state_of(vector(1, 2), g), state_of(vector(7, 7), g)
    donor.apply([vector(2, 2), vector(3, 5)])
    joiner.import_(donor.export())
    for one in (donor, joiner):
        one.apply([vector(1, 0)])
    assert bits(joiner) == bits(donor)
    assert joiner.step == 2


CHECKS: list[Check] = [
    check_numbers, check_pairs, check_golden, check_two_tensors, check_group_is_world, check_mean,
    check_averaging, check_shortcut, check_bounds, check_all_or_nothing, check_joiner,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_identity(check: Check) -> None:
    check(gossip)


MUTANTS: dict[str, tuple[str, str, list[Check]]] = {
    "gamma's sign": (
        "- c * (params - mean_phi)",
        "+ c * (params - mean_phi)",
        [check_two_tensors, check_shortcut],
    ),
    "beta's sign": (
        "kept + b * (mean_theta - params)",
        "kept - b * (mean_theta - params)",
        [check_golden, check_averaging],
    ),
    "beta's sign, as in the paper": (
        "kept + b * (mean_theta - mean_phi)",
        "kept - b * (mean_theta - mean_phi)",
        [check_group_is_world, check_two_tensors, check_mean],
    ),
    "look-ahead": (
        "return params + moved, moved",
        "return params + (moved - kept) + a * moved, moved",
        [check_golden, check_group_is_world, check_mean],
    ),
    "alpha and gamma swapped": (
        "number(alpha), number(beta), number(gamma)",
        "number(gamma), number(beta), number(alpha)",
        [check_two_tensors, check_group_is_world],
    ),
    "beta and gamma swapped": (
        "number(alpha), number(beta), number(gamma)",
        "number(alpha), number(gamma), number(beta)",
        [check_two_tensors, check_group_is_world],
    ),
    "no momentum": ("kept = a * momentum", "kept = momentum", [check_golden, check_averaging]),
    "a divisor of pairs": ("type(len(vectors))", "type(2)", [check_mean, check_group_is_world]),
    "pairs without t": (
        ' ^ integer(t, "t", 0, _MASK))',
        " ^ 0)",
        [check_pairs],
    ),
    "pairs in the order of ids": (
        "ordered = sorted(members, key=lambda peer: (splitmix64(key ^ peer), peer))",
        "ordered = sorted(members)",
        [check_pairs],
    ),
    "nobody joins a pair": ("len(cut[-1]) == 1", "len(cut[-1]) == 0", [check_pairs]),
    "bound": ("2 * (1 - alpha**2)\n", "2 * (1 + alpha**2)\n", [check_bounds]),
    "t stands still": ("self._step + 1)", "self._step)", [check_golden, check_joiner]),
    "written in place": (
        "after = np.empty_like(self._both)",
        "after = self._both",
        [check_all_or_nothing],
    ),
    "NaN taken": (
        "layout = Layout(",
        "layout = type('', (Layout,), {'check_finite': lambda self, vector, what: vector})(",
        [check_all_or_nothing],
    ),
    "joiner without momentum": (
        "self._replace(np.stack(both), integer(",
        "self._replace(np.stack([both[0], 0 * both[1]]), integer(",
        [check_joiner],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str) -> None:
    old, new, checks = MUTANTS[name]
    source = Path(gossip.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    mutant = types.ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), mutant.__dict__)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(mutant)


def test_heavy_ball_is_that_of_torch() -> None:  # N-1
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    minima, start = rng.standard_normal((4, 6)), rng.standard_normal(6)
    for gamma in (0, 0.3, 0.7, 1):
        phi, delta = np.tile(start, (4, 1)), np.zeros((4, 6))
        other = torch.nn.Parameter(torch.tensor(start))
        sgd = torch.optim.SGD([other], lr=0.7, momentum=0.5, nesterov=False)
        for _ in range(15):
            own = other.detach().numpy()
            other.grad = torch.tensor(own - (own + 0.3 * (minima - own)).mean(0))
            theta = phi + 0.3 * (minima - phi)
            meet64(gossip, phi, delta, theta, [(3, 1, 0, 2)], 0.5, 0.7, gamma)
            sgd.step()
            assert np.abs(phi - other.detach().numpy()).max() < 1e-12


# --- Statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "gamma"), [(0.7, 0.7), (0.7, 1.1)])
def test_the_twin_is_the_state(beta: float, gamma: float) -> None:
    rng = np.random.default_rng(8)
    twin = Twin((2, 6, 10), np.float32)
    twin.phi[...] = rng.standard_normal(twin.phi.shape)
    worlds = [[state_of(phi, beta=beta, gamma=gamma) for phi in run] for run in twin.phi]
    for t in range(6):
        theta = twin.phi + rng.standard_normal(twin.phi.shape).astype(np.float32)
        twin.step(theta, 0.5, beta, gamma)
        for run, states in enumerate(worlds):
            meet(states, list(theta[run]), groups(range(6), run, t))
            np.testing.assert_array_equal([s.params for s in states], twin.phi[run])
            np.testing.assert_array_equal([s.momentum for s in states], twin.delta[run])


def recursion(replicas: int, alpha: float, gamma: float) -> Array:
    """What a step makes of (variance of phi, its covariance with delta, variance of delta)."""
    k = replicas / (replicas - 1)
    c = np.array([gamma**2 / 2 * k, -alpha * gamma * k, alpha**2])
    b = np.array([-gamma / 2 * k, alpha, 0.0])
    return np.array([np.array([1.0, 0, 0]) + 2 * b + c, b + c, c])


@pytest.mark.parametrize(("replicas", "alpha", "gamma", "rate"), DECAY_CASES)
def test_consensus_decays(replicas: int, alpha: float, gamma: float, rate: float) -> None:  # N-4
    predicted = recursion(replicas, alpha, gamma)
    assert abs(np.abs(np.linalg.eigvals(predicted)).max() - rate) < 6e-5
    # The mean square lives in unlucky runs, which are rare in small worlds: 4 replicas that meet
    # in the same pairs again and again, one time out of 3. So there are many, and few steps.
    runs, coords, steps = (3000, 10, 3) if (replicas, alpha) == (4, 0) else (60, 400, 10)
    if steps == 10 and replicas < 16:
        runs, coords = 960, 50
    twin = Twin((runs, replicas, coords))
    twin.phi = np.random.default_rng(9).standard_normal(twin.phi.shape)
    seen, moments = [twin.variance()], [np.array([1.0, 0, 0])]
    for _ in range(steps):
        twin.step(twin.phi, alpha, 0.7, gamma)
        seen.append(twin.variance())
        moments.append(predicted @ moments[-1])
    if rate:
        assert (seen[-1] / seen[0]) ** (1 / steps) == pytest.approx(rate, rel=0.1)
    for before, after in zip(seen[1:4], moments[1:4], strict=True):
        assert before / seen[0] == pytest.approx(after[0], rel=0.1, abs=1e-20)


def test_steady_variance_of_states() -> None:  # N-5
    rng, seen = np.random.default_rng(10), []
    for run in range(20):
        states = [state_of(np.zeros(200, np.float32)) for _ in range(8)]
        for t in range(230):
            noise = rng.standard_normal((8, 200), np.float32)
            meet(
                states,
                [s.params + x for s, x in zip(states, noise, strict=True)],
                groups(range(8), run, t),
            )
            if t >= 30:
                phi = np.array([s.params for s in states], np.float64)
                seen.append(np.square(phi - phi.mean(0)).mean())
    assert np.mean(seen) == pytest.approx(0.8107, rel=0.03)


def test_steady_variance_of_more() -> None:  # N-5
    rng, seen, twin = np.random.default_rng(11), [], Twin((20, 16, 200))
    for t in range(230):
        twin.step(twin.phi + rng.standard_normal(twin.phi.shape), 0.5, 0.7, 0.7)
        if t >= 30:
            seen.append(twin.variance())
    assert np.mean(seen) == pytest.approx(1.046, rel=0.03)


def test_the_momentum_of_diloco_diverges_and_is_refused() -> None:  # N-6
    twin = Twin((60, 8, 50))
    twin.phi = np.random.default_rng(12).standard_normal(twin.phi.shape)
    seen = []
    for _ in range(60):
        twin.step(twin.phi, 0.9, 0.7, 0.7)
        seen.append(twin.variance())
    assert (seen[59] / seen[19]) ** (1 / 40) > 1.03
    with pytest.raises(InvalidArgumentError, match=r"alpha 0.9 is 0.38.*drift apart"):
        state_of(vector(1), alpha=0.9)


def test_half_the_inner_rate_is_half_the_spread() -> None:  # N-7
    spread = []
    for rate in (0.1, 0.05):
        # Five inner steps down a gentle slope with noisy gradients.
        rng, seen, twin = np.random.default_rng(int(100 * rate)), [], Twin((20, 8, 100))
        for t in range(150):
            theta = twin.phi.copy()
            for _ in range(5):
                theta -= rate * (0.01 * (theta - 3) + rng.standard_normal(theta.shape))
            twin.step(theta, 0.5, 0.7, 0.7)
            if t >= 30:
                seen.append(twin.variance())
        spread.append(np.sqrt(np.mean(seen)))
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.05)


def test_distance_tells_the_variance() -> None:  # N-10
    phi = np.random.default_rng(13).standard_normal((8, 500)).astype(np.float32)
    phi *= np.arange(1, 9, dtype=np.float32)[:, None]  # some are further out than others
    states = [state_of(one) for one in phi]
    variance = np.square(phi - phi.mean(0, dtype=np.float64)).mean()
    pairs = [groups(range(8), 14, t)[0] for t in range(4000)]
    seen = [states[i].distance([phi[i], phi[j]]) for i, j in pairs]
    assert np.mean(seen) == pytest.approx(16 / 7 * variance, rel=0.05)
    # Of all pairs it is no estimate.
    assert states[0].distance(list(phi)) == pytest.approx(16 / 7 * variance, rel=1e-6)
    assert states[0].distance([vector(*[0.0] * 500), vector(*[3.0] * 500)]) == 9
    assert states[0].distance([phi[0]]) is None


# --- Groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_everyone_is_in_one_group(size: int) -> None:
    rng = np.random.default_rng(15)
    for count in range(1, 40):
        peers = [int(x) for x in rng.integers(0, 2**63, count)] + [2**64 - 1]
        cut = groups(peers, 5, count, size)
        assert sorted(peer for group in cut for peer in group) == sorted(peers)
        assert groups(sorted(peers), 5, count, size) == cut  # in whatever order one knows them
        assert all(group_of(peer, peers, 5, count, size) == one for one in cut for peer in one)
        sizes, left = [len(one) for one in cut], len(peers) % size
        if left == 1 and len(peers) > 1:
            assert sizes == [size] * (len(cut) - 1) + [size + 1]  # an odd world: one triple
        else:
            assert sizes == [size] * (len(peers) // size) + [left] * (left > 0)
    assert groups([9], 5, 0, size) == [(9,)]


def test_all_pairs_are_as_frequent() -> None:
    counts = Counter(tuple(sorted(pair)) for t in range(20000) for pair in groups(range(8), 42, t))
    assert len(counts) == 28
    assert 0.135 <= min(counts.values()) / 20000 <= max(counts.values()) / 20000 <= 0.149
    # 28 counts, of which those of each of 8 peers add up to 20000, have 20 degrees of freedom. The
    # mean of chi squared is 28*(1 - 1/7) = 24, so each has a variance of 1.2. By chance alone
    # chi squared with 20 degrees exceeds 45.3 once in 1000.
    expected = 20000 / 7
    assert sum((one - expected) ** 2 / expected for one in counts.values()) < 1.2 * 45.3


def test_groups_follow_the_members_the_seed_and_the_step() -> None:
    cut = groups(range(8), 42, 0)
    assert cut != groups(range(8), 43, 0)
    assert groups(range(7), 42, 0) == [(4, 3), (5, 0), (6, 1, 2)]  # 7 left, and lots were redrawn
    assert groups([*range(7), 8], 42, 0) != cut
