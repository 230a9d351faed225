"""Streaming DiLoCo beside DiLoCo, training alone, itself with one fragment, and numpy: bit for bit.

The problem falls into coordinates, so what becomes of a fragment must not depend on the others. As
in test_diloco.py, the checks can be tried on mutants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError

from .conftest import Peers
from .family import REAL, Family
from .training import Array, Twin, mean_of, noisy

torch = pytest.importorskip("torch")

Check = Callable[[Family, Peers], None]
Values = dict[str, bytes]
"""By the name of the parameter."""

SIZES = {"a": 7, "b": 1, "c": 12, "d": 5}
ENDS = np.cumsum(list(SIZES.values()))
PLACES = {name: slice(end - SIZES[name], end) for name, end in zip(SIZES, ENDS, strict=True)}
SIZE = int(ENDS[-1])
START = np.random.default_rng(30).standard_normal(SIZE).astype(np.float32)
GRADIENT = noisy(30, SIZE)
# Of powers of two, so that torch and numpy round alike.
RATE, INNER_MOMENTUM = 0.25, 0.5
OUTER = {"outer_lr": 0.4, "outer_momentum": 0.9}


class Model:
    """Some of the parameters, and an optimizer of them."""

    def __init__(self, make: Any, names: Sequence[str] = tuple(SIZES)) -> None:
        self.weights = {
            name: torch.nn.Parameter(torch.from_numpy(START[PLACES[name]].copy())) for name in names
        }
        inner = torch.optim.SGD(self.weights.values(), lr=RATE, momentum=INNER_MOMENTUM)
        self.opt = make(self.weights.items(), inner)

    def step(self, peer: int, number: int) -> None:
        here = np.zeros(SIZE, np.float32)
        for name, one in self.weights.items():
            here[PLACES[name]] = one.detach().numpy()
        gradient = GRADIENT(peer, number, here)
        for name, one in self.weights.items():
            one.grad = torch.from_numpy(gradient[PLACES[name]])
        self.opt.step()

    @property
    def theta(self) -> Values:
        return {name: one.detach().numpy().tobytes() for name, one in self.weights.items()}

    @property
    def outer(self) -> dict[str, tuple[bytes, bytes]]:
        """phi and momentum."""
        state = self.opt.outer
        vectors = zip(state.cut(state.params), state.cut(state.momentum), strict=True)
        return {
            name: (phi.tobytes(), momentum.tobytes())
            for name, (phi, momentum) in zip(state.names, vectors, strict=True)
        }


class Timing(NamedTuple):
    every: int
    overlap: int
    alpha: float

    @property
    def options(self) -> dict[str, Any]:
        return {"sync_every": self.every, "overlap": self.overlap, "merge_alpha": self.alpha}


FRAGMENTS = [["c"], ["a", "d"], ["b"]]
# Of the last one the fragments' turns are not at even distances.
TIMINGS = [
    Timing(9, 0, 0.0), Timing(9, 1, 0.5), Timing(9, 2, 0.3), Timing(9, 2, 1.0), Timing(8, 1, 0.5),
]  # fmt: skip
STEPS = 24


def streamed(family: Family, peers: Peers, timing: Timing, count: int = 2) -> Any:
    """Of each peer: behind each inner step theta, and at the end phi and momentum."""

    def train(comm: Any) -> Any:
        model = Model(
            lambda given, inner: family.StreamingDiLoCo(
                given, inner, comm, fragments=FRAGMENTS, **timing.options, **OUTER
            )
        )
        rank, thetas = comm.rank, []
        for number in range(STEPS):
            model.step(rank, number)
            thetas.append(model.theta)
        assert model.opt.outer.step == STEPS * len(FRAGMENTS) // timing.every
        return thetas, model.outer

    return peers.run(count, train)


def numpy_fragment(timing: Timing, at: int, count: int) -> tuple[Array, Array, Array]:
    """Fragment `at` by itself, of coordinates that all are in it: thetas by step, peer and
    coordinate, phi and momentum."""
    applied_first = timing.every * (at + 1) // len(FRAGMENTS)
    outer = Twin(START, *OUTER.values())
    theta = np.tile(START, (count, 1))
    momenta, thetas = np.zeros_like(theta), []
    mean: Array | None = None
    for step in range(1, STEPS + 1):
        for m in range(count):
            gradient = GRADIENT(m, step - 1, theta[m])
            momenta[m] = np.float32(INNER_MOMENTUM) * momenta[m] + gradient
            theta[m] = theta[m] - np.float32(RATE) * momenta[m]
        since = step - applied_first
        if since >= -timing.overlap and (since + timing.overlap) % timing.every == 0:
            mean = mean_of([outer.phi - one for one in theta])
        if since >= 0 and since % timing.every == 0:
            assert mean is not None
            outer.apply(mean)
            kept = np.float32(timing.alpha)
            theta = kept * theta + np.float32(1 - timing.alpha) * outer.phi
        thetas.append(theta.copy())
    return np.array(thetas), outer.phi, outer.momentum


# --- Checks ---------------------------------------------------------------------------------------


def check_any_partition(family: Family, peers: Peers) -> None:  # S-2
    """All fragments at the end of a window, one after the other, are DiLoCo."""
    partitions: list[Any] = [
        [["a", "b", "c", "d"]], [["d", "b"], ["a"], ["c"]], [["c", "a"], ["b", "d"]], 4, 2,
    ]  # fmt: skip
    for fragments in partitions:

        def train(comm: Any, fragments: Any = fragments) -> None:
            count = fragments if isinstance(fragments, int) else len(fragments)
            plain = Model(
                lambda given, inner: family.DiLoCo(given, inner, comm, sync_every=3, **OUTER)
            )
            # So long that no fragment's turn comes by itself.
            streaming = Model(
                lambda given, inner: family.StreamingDiLoCo(
                    given, inner, comm, fragments=fragments, merge_alpha=0.0,
                    sync_every=100 * count, **OUTER,
                )
            )  # fmt: skip
            rank = comm.rank
            for number in range(9):
                for model in (plain, streaming):
                    model.step(rank, number)
                if number % 3 == 2:
                    done = [streaming.opt.sync() for _ in range(count)]
                    assert [one.fragment for one in done] == list(range(count))
                    assert all(one.contributors == 3 for one in done)
                assert streaming.theta == plain.theta
                assert streaming.outer == plain.outer
            assert plain.opt.outer.step == 3
            assert any(any(momentum) for _, momentum in plain.outer.values())

        peers.run(3, train)


def check_alone(family: Family, peers: Peers) -> None:  # S-3
    """With alpha 1 each peer trains as if there were no others, and phi goes on all the same."""
    for overlap in (0, 2):
        found = streamed(family, peers, Timing(9, overlap, 1.0))
        for peer, (thetas, outer) in enumerate(found):
            alone = Model(lambda _, inner: inner)
            for number, theta in enumerate(thetas):
                alone.step(peer, number)
                assert theta == alone.theta
            assert outer == found[0][1]
            assert all(outer[name][0] != START[PLACES[name]].tobytes() for name in SIZES)


def check_fragments_are_apart(family: Family, peers: Peers) -> None:  # S-4
    """What becomes of one is what becomes of it where it is the only one, at its own time."""
    for timing in TIMINGS:
        found = streamed(family, peers, timing)

        def train(comm: Any, timing: Timing = timing, found: Any = found) -> None:
            rank = comm.rank
            thetas, outer = found[rank]
            for at, names in enumerate(FRAGMENTS):
                single = Model(
                    lambda given, inner: family.StreamingDiLoCo(
                        given, inner, comm, fragments=1, **timing.options, **OUTER
                    ),
                    names,
                )
                first = timing.every * (at + 1) // len(FRAGMENTS)
                single.opt.inner_steps = timing.every - first
                for number, theta in enumerate(thetas):
                    single.step(rank, number)
                    assert single.theta == {name: theta[name] for name in names}
                assert single.outer == {name: outer[name] for name in names}

        peers.run(2, train)


def check_numpy(family: Family, peers: Peers) -> None:
    """The whole of it in numpy, with two peers and three."""
    for timing, count in zip(TIMINGS, (2, 3, 2, 3, 2), strict=True):
        found = streamed(family, peers, timing, count)
        for at, names in enumerate(FRAGMENTS):
            expected, phi, momentum = numpy_fragment(timing, at, count)
            for name in names:
                place = PLACES[name]
                for peer, (thetas, outer) in enumerate(found):
                    mine = np.array([np.frombuffer(one[name], np.float32) for one in thetas])
                    np.testing.assert_array_equal(mine, expected[:, peer, place])
                    assert outer[name] == (phi[place].tobytes(), momentum[place].tobytes())


def check_what_is_sent(family: Family, peers: Peers) -> None:  # S-5
    """Under a constant gradient: what was learned since the last merge, and what alpha has kept of
    the distance to phi before. All numbers are dyadic, so exact."""
    every, lr = 8, 0.5
    for overlap in (1, 2, 3):
        for alpha in (0.0, 0.5, 1.0):
            weights = {name: torch.nn.Parameter(torch.ones(2)) for name in ("a", "b")}
            opt = family.StreamingDiLoCo(
                weights.items(), torch.optim.SGD(weights.values(), lr=1.0), fragments=2,
                sync_every=every, overlap=overlap, merge_alpha=alpha, outer_lr=lr,
                outer_momentum=0.0,
            )  # fmt: skip
            sent: dict[int, list[float]] = {0: [], 1: []}
            for step in range(1, 33):
                for one in weights.values():
                    one.grad = torch.ones(2)
                opt.step()
                if step % 4 == 4 - overlap:
                    state = opt.state_dict()["outer"]
                    assert "sent" in state
                    sent[step // 4 % 2].append(float(state["sent"][0]))
            for at, deltas in sent.items():
                expected = [4.0 * (at + 1) - overlap]
                while len(expected) < 4:
                    # phi has moved by lr * delta, theta by delta and what it learned meanwhile.
                    kept = alpha * ((1 - lr) * expected[-1] + overlap)
                    expected.append(kept + every - overlap)
                assert deltas == expected, (overlap, alpha, at)


def check_tried_again(family: Family, peers: Peers) -> None:
    """A step that does not come about is tried again with the same fragment, on all peers, and has
    the work of both gaps; the others wait for their turn."""

    def train(comm: Any) -> Any:
        def fails(*_: Any, **__: Any) -> None:
            raise pyccl.CancelledError("so it goes")

        weights = {name: torch.nn.Parameter(torch.zeros(3)) for name in ("a", "b")}
        opt = family.StreamingDiLoCo(
            weights.items(), torch.optim.SGD(weights.values(), lr=1.0), comm, fragments=2,
            sync_every=4, merge_alpha=0.0, outer_lr=1.0, outer_momentum=0.0,
        )  # fmt: skip
        seen = []
        for step in range(1, 9):
            if step == 1:
                comm.all_reduce = fails
            elif step == 3:
                del comm.all_reduce
            for one in weights.values():
                one.grad = torch.ones(3)
            opt.step()
            if opt.last_sync.fresh:
                seen.append((opt.last_sync.fragment, opt.last_sync.applied, opt.outer.step))
        return seen, [float(view[0]) for view in opt.outer.views.values()]

    seen = [(0, False, 0), (0, True, 1), (1, True, 2), (0, True, 3)]
    assert peers.run(2, train) == [(seen, [-8.0, -6.0])] * 2


def check_bytes(family: Family, peers: Peers) -> None:  # S-7
    """A step sends one fragment, in as many bytes as its numbers need, and nothing of the others:
    of two peers each sends half of it to be added up, and half of the sum."""
    sizes = {"a": 40_000, "b": 10_000, "c": 20_000}

    def train(comm: Any, quantization: Any) -> dict[int, list[int]]:
        weights = {name: torch.nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
        opt = family.StreamingDiLoCo(
            weights.items(), torch.optim.SGD(weights.values(), lr=1.0), comm,
            fragments=[[name] for name in sizes], sync_every=3, quantization=quantization,
        )  # fmt: skip
        sent: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for _ in range(6):
            for one in weights.values():
                one.grad = torch.ones_like(one)
            opt.step()
            sent[opt.last_sync.fragment].append(opt.last_sync.bytes_sent)
        return sent

    fp4 = pyccl.Quantization("fp4_e3m0")
    for quantization in (None, fp4):
        expected = {
            at: [4 * size if quantization is None else fp4.wire_bytes(size)] * 2
            for at, size in enumerate(sizes.values())
        }
        found = peers.run(2, lambda comm, q=quantization: train(comm, q))
        assert found == [expected] * 2


CHECKS: list[Check] = [
    check_any_partition, check_alone, check_fragments_are_apart, check_numpy, check_what_is_sent,
    check_tried_again, check_bytes,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_identity(check: Check, peers: Peers) -> None:
    check(REAL, peers)


# The local count of inner steps in place of the agreed one of outer steps.
OWN_COUNT = (
    "self.schedule = type('', (StreamingSchedule,), {'fragment': lambda own, step: "
    "((self._age + overlap) // (sync_every // count) - 1) % count})(count, sync_every, overlap)"
)

MUTANTS: dict[str, tuple[str, str, str, list[Check]]] = {
    "alpha the other way": (
        "parameters", "kept * mine + (1 - kept) * other", "(1 - kept) * mine + kept * other",
        [check_alone, check_numpy, check_what_is_sent],
    ),
    "alpha 0 is alpha 1": (
        "streaming", "self.merge_alpha, place)", "self.merge_alpha or 1.0, place)",
        [check_any_partition, check_numpy, check_what_is_sent],
    ),
    "applied when it is sent": (
        "streaming", "if self.inner_steps >= gap:", "if self._pending is not None:",
        [check_fragments_are_apart, check_numpy, check_what_is_sent],
    ),
    "a fragment's turn by the own count": (
        "streaming", "self.schedule = StreamingSchedule(count, sync_every, overlap)", OWN_COUNT,
        [check_tried_again, check_any_partition],
    ),
    "one momentum for all fragments": (
        "outer", "self._params[part], self._momentum[part]",
        "self._params[part], self._momentum[:given.size]",
        [check_any_partition, check_fragments_are_apart, check_numpy],
    ),
    "all fragments are sent": (
        "streaming", "delta = self.outer.empty()[self._elements(fragment)]",
        "delta = self.outer.empty()", [check_bytes],
    ),
    "inner state reset": (
        "streaming", "self.merge_alpha, place)\n",
        "self.merge_alpha, place)\n            self.inner.state.clear()\n",
        [check_any_partition, check_alone, check_fragments_are_apart, check_numpy],
    ),
    "inner state of the own fragment reset": (
        "streaming", "self.merge_alpha, place)\n",
        "self.merge_alpha, place)\n"
        "            for one in self._parameters.tensors[place]: self.inner.state.pop(one, None)\n",
        [check_alone, check_numpy],
    ),
    "others are left where they were": (
        "streaming", "self._parameters.merge(", "self._parameters.write(self.outer.cut("
        "self.outer.params)), self._parameters.merge(",
        [check_alone, check_fragments_are_apart, check_numpy],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception, InvalidArgumentError)):
            check(mutant, peers)
