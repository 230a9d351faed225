"""EDiT among peers of which some run into garbage, come late, or have steps that do not come about.

Its arithmetic alone is in test_penalty.py.
"""

from __future__ import annotations

import io
import math
import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family
from .training import Array, Twin, numbers, same_bits

torch = pytest.importorskip("torch")

SIZES = {"a.weight": 6, "b.weight": 4, "b.bias": 2}
PLACES = (slice(0, 6), slice(6, 12))
START = np.random.default_rng(0).standard_normal(12).astype(np.float32)


def model_of(make: Any, comm: Any = None, start: Array = START, **options: Any) -> tuple[Any, Any]:
    """Two modules, and an outer step behind each inner one, which goes where it is told to."""
    values = np.split(start, np.cumsum(list(SIZES.values()))[:-1])
    parameters = {
        name: torch.nn.Parameter(torch.from_numpy(value.copy()))
        for name, value in zip(SIZES, values, strict=True)
    }
    inner = torch.optim.SGD(parameters.values(), lr=1.0)
    options = {"sync_every": 1, "outer_lr": 0.7, "outer_momentum": 0.8, **options}
    return parameters, make(parameters.items(), inner, comm, **options)


def train(parameters: Any, opt: Any, delta: Array) -> Any:
    """An inner step that comes to this pseudo-gradient."""
    given = np.split(delta.astype(np.float32), np.cumsum(list(SIZES.values()))[:-1])
    for one, gradient in zip(parameters.values(), given, strict=True):
        one.grad = torch.from_numpy(gradient.copy())
    opt.step()
    return opt.last_sync


def normal(*key: int) -> Array:
    return np.random.default_rng(key).standard_normal(12).astype(np.float32)


def theta_of(parameters: Any) -> Array:
    return np.concatenate([one.detach().numpy() for one in parameters.values()])


def softmax_mean(deltas: list[Array]) -> Array:
    mean = np.empty(12)
    for place in PLACES:
        ours = np.stack([one[place].astype(np.float64) for one in deltas])
        norms = np.linalg.norm(ours, axis=1)
        weights = np.exp(norms.min() - norms)
        mean[place] = weights @ ours / weights.sum()
    return mean


# --- Checks ---------------------------------------------------------------------------------------


def check_diloco(family: Family, peers: Peers) -> None:  # E-1
    """At an infinite temperature, bit for bit; of equal norms but for roundings."""

    def run(comm: Any) -> Any:
        histories = []
        rank = comm.rank
        for make, options in (
            (family.DiLoCo, {}), (family.EDiT, {"temperature": math.inf, "clip": None}),
            (family.DiLoCo, {}), (family.EDiT, {"clip": None}),
        ):  # fmt: skip
            equal = len(histories) >= 2
            parameters, opt = model_of(make, comm, **options)
            history = []
            for t in range(6):
                delta = normal(1, t) if equal else normal(2, t, rank)
                if equal and rank:
                    delta = np.concatenate([np.roll(delta[place], 1) for place in PLACES])
                assert train(parameters, opt, delta).contributors == 2
                history.append(numbers(opt.outer))
            histories.append(history)
            assert theta_of(parameters).tolist() == opt.outer.params.tolist()
        same_bits(histories[1], histories[0])
        np.testing.assert_allclose(histories[3], histories[2], atol=2e-6)
        return opt.outer.hash()

    assert len(set(peers.run(2, run))) == 1


def check_outlier(
    family: Family, peers: Peers, rounds: int = 24, warmup: int = 20, **options: Any
) -> None:  # E-2
    """Who has a delta a thousand times its size counts nothing in a module; the others are as if it
    were not there, and then all go on."""

    def run(comm: Any) -> Any:
        rank = comm.rank
        parameters, opt = model_of(family.EDiT, comm, warmup=warmup, clip=None, **options)
        found = []
        for t in range(rounds + 3):
            deltas = [normal(3, t, m) for m in range(3)]
            for one in deltas:
                one[:6] *= 4  # so that modules are not alike
            if t == rounds:
                deltas[1][6:] *= 1000
                twin = Twin(opt.outer.params, 0.7, 0.8, dtype=np.float64)
                twin.momentum = opt.outer.momentum.astype(np.float64)
            report = train(parameters, opt, deltas[rank])
            assert report.applied
            assert not report.behind
            assert theta_of(parameters).tolist() == opt.outer.params.tolist()
            if t == rounds:
                mean = np.concatenate(
                    [softmax_mean(deltas)[:6], softmax_mean([deltas[0], deltas[2]])[6:]]
                )
                twin.apply(mean)
                np.testing.assert_allclose(opt.outer.params, twin.phi, atol=2e-5)
                np.testing.assert_allclose(opt.outer.momentum, twin.momentum, atol=2e-5)
            if t >= rounds:
                found.append([(one.module, one.outlier, one.weight) for one in report.shares])
        return found, opt.outer.hash()

    results = peers.run(3, run)
    assert len({one[1] for one in results}) == 1
    for t in range(3):
        for module in range(2):
            shares = [found[t][module] for found, _ in results]
            out = [one[1] for one in shares]
            assert out == [False, t == 0 and module == 1, False]
            assert [one[2] == 0 for one in shares] == out
            assert sum(one[2] for one in shares) == pytest.approx(1, rel=1e-6)
            assert {one[0] for one in shares} == {"ab"[module]}


def check_all_outliers(family: Family, peers: Peers) -> None:
    """phi and momentum of the module stay as they are, and all begin there again."""

    def run(comm: Any) -> Any:
        rank = comm.rank
        parameters, opt = model_of(family.EDiT, comm, warmup=5)
        for t in range(8):
            train(parameters, opt, normal(4, t, rank))
        before = numbers(opt.outer)
        delta = normal(4, 9, rank)
        delta[6:] = math.nan if rank == 0 else 1e6
        report = train(parameters, opt, delta)
        after = numbers(opt.outer)
        for one, other in zip(before, after, strict=True):
            assert one[6:].tolist() == other[6:].tolist()
            assert one[:6].tolist() != other[:6].tolist()
        assert theta_of(parameters).tolist() == opt.outer.params.tolist()
        assert report.applied
        assert [one.weight > 0 for one in report.shares] == [True, False]
        report = train(parameters, opt, normal(4, 10, rank))
        assert min(one.weight for one in report.shares) > 0
        return opt.outer.hash()

    assert len(set(peers.run(2, run))) == 1


def check_weights(family: Family, peers: Peers) -> None:
    """What a peer says that it counts goes beside what its norm says."""
    deltas = [normal(5, m) for m in range(3)]
    given = [1.0, 2.5, 0.0]
    mean = np.empty(12)
    for place in PLACES:
        ours = np.stack([one[place].astype(np.float64) for one in deltas])
        weights = np.array(given) * np.exp(-np.linalg.norm(ours, axis=1))
        mean[place] = weights @ ours / weights.sum()
    twin = Twin(START, 0.7, 0.8, dtype=np.float64)
    twin.apply(mean)

    def run(comm: Any) -> Any:
        rank = comm.rank
        parameters, opt = model_of(family.EDiT, comm, clip=None)
        opt.weight = given[rank]
        report = train(parameters, opt, deltas[rank])
        assert (report.contributors, report.members, report.weight_sum) == (2, 3, 3.5)
        np.testing.assert_allclose(opt.outer.params, twin.phi, atol=2e-6)
        return [one.weight for one in report.shares]

    shares = peers.run(3, run)
    assert np.sum(shares, 0) == pytest.approx([1, 1])
    assert shares[2] == [0, 0]
    parameters, opt = model_of(family.EDiT, None)
    opt.weight = 2.5
    assert [one.weight for one in train(parameters, opt, deltas[0]).shares] == pytest.approx([1, 1])
    opt.weight = 0.0
    assert not train(parameters, opt, deltas[0]).applied


def check_aborted(family: Family, peers: Peers) -> None:
    """A step that does not come about teaches nothing. The one behind it has the work of both
    windows, is no outlier for that, and is remembered as what one window comes to."""

    def run(comm: Any) -> None:
        def fails(x: Array, **_: Any) -> None:
            x[...] = np.nan
            raise pyccl.CancelledError("so it goes")

        rank = comm.rank
        parameters, opt = model_of(family.EDiT, comm, warmup=5, clip=None)
        for t in range(40):
            train(parameters, opt, normal(6, t % 4, rank))
        before, kept = opt.outer.hash(), opt.state_dict()["outer"]["detectors"]
        comm.all_reduce = fails
        report = train(parameters, opt, normal(6, 0, rank))
        assert (report.applied, report.reason, report.shares) == (False, "so it goes", ())
        assert opt.outer.hash() == before
        assert opt.state_dict()["outer"]["detectors"] == kept
        del comm.all_reduce
        report = train(parameters, opt, normal(6, 0, rank))
        assert report.applied
        assert opt.outer.step == 41
        for i, (place, share) in enumerate(zip(PLACES, report.shares, strict=True)):
            one = float(np.linalg.norm(normal(6, 0, rank)[place]))
            assert share.norm == pytest.approx(2 * one, rel=1e-5)
            assert not share.outlier
            mean = kept[i]["mean"] + 0.02 * (one - kept[i]["mean"])
            found = opt.state_dict()["outer"]["detectors"][i]
            assert found["mean"] == pytest.approx(mean, rel=1e-5)
            assert found["count"] == 41

    peers.run(2, run)


def check_resumed(family: Family, _: Peers) -> None:  # D-12
    for at in (1, 2, 3):
        parameters, opt = model_of(family.EDiT, None, sync_every=2, warmup=5)

        def go(parameters: Any, opt: Any, steps: range) -> None:
            for t in steps:
                spoiled = 1000 if t % 7 == 6 else 1
                train(parameters, opt, normal(7, t) * spoiled)

        go(parameters, opt, range(20 + at))
        if at == 3:  # one that has not come about
            opt.weight = 0.0
            opt.sync()
            opt.weight = 1.0
        file = io.BytesIO()
        torch.save((theta_of(parameters).tolist(), opt.state_dict()), file)
        others, again = model_of(family.EDiT, None, START + 1, sync_every=2, warmup=5, clip=3.0)
        file.seek(0)
        values, state = torch.load(file)
        with torch.no_grad():
            at_place = 0
            for one in others.values():
                one.copy_(torch.tensor(values[at_place : at_place + one.numel()]))
                at_place += one.numel()
        again.load_state_dict(state)
        for one, its in ((parameters, opt), (others, again)):
            go(one, its, range(20 + at, 40))
        assert theta_of(others).tolist() == theta_of(parameters).tolist()
        assert again.outer.hash() == opt.outer.hash()
        ours, theirs = (one.state_dict()["outer"]["detectors"] for one in (opt, again))
        assert ours == theirs


CHECKS = [
    check_diloco, check_outlier, check_all_outliers, check_weights, check_aborted, check_resumed,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_edit(check: Any, peers: Peers) -> None:
    check(REAL, peers)


def test_an_outlier_behind_the_usual_warmup(peers: Peers) -> None:  # E-2
    check_outlier(REAL, peers, rounds=150, warmup=120)


MUTANTS: dict[str, tuple[str, str, str, list[Any]]] = {
    "skip decided locally": (
        "edit", "        report = self._rounds.run(sent.values, self.weight)\n",
        "        kept = self.outer.params.copy()\n"
        "        report = self._rounds.run(sent.values, self.weight)\n"
        "        for place, weight in zip(self.outer._places, sent.weights):\n"
        "            if not weight:\n"
        "                self.outer.params[place] = kept[place]\n",
        [check_outlier],
    ),
    "nobody is judged": (
        "edit", "[one.limit * self._windows for one in self._detectors]",
        "[float('inf') for one in self._detectors]", [check_outlier, check_all_outliers],
    ),
    "judged by another module": (
        "edit", "self._windows for one in self._detectors]",
        "self._windows for one in self._detectors[::-1]]",
        [check_outlier],
    ),
    "nothing is remembered": (
        "edit", "detector.observe(norm / self._windows)", "pass",
        [check_outlier, check_all_outliers, check_aborted],
    ),
    "remembered twice": (
        "edit", "detector.observe(norm / self._windows)",
        "detector.observe(norm / self._windows), detector.observe(norm / self._windows)",
        [check_aborted],
    ),
    "remembered before it comes about": (
        "edit", "if report.applied:", "if True:", [check_aborted],
    ),
    "two windows are one": (
        "edit", "self._windows += 1", "self._windows = 1", [check_aborted],
    ),
    "windows add up": ("edit", "self._windows = 0\n        return report",
                       "pass\n        return report",
                       [check_aborted]),
    "windows forgotten": (
        "edit", 'int(state["windows"]) if goes_on else 0', "0", [check_resumed],
    ),
    "detectors forgotten": ("edit", "detector.import_(one)", "pass", [check_resumed]),
    "weights of 1": (
        "edit", "self._rounds.run(sent.values, self.weight)", "self._rounds.run(sent.values)",
        [check_weights],
    ),
    "alone without its weight": (
        "rounds", "np.float32(weight), out=pending", "np.float32(1), out=pending", [check_weights],
    ),
    "outliers go on from where they are": (
        "diloco", "_was_behind(report):\n            self._write_outer()",
        "_was_behind(report):\n            pass",
        [check_outlier, check_all_outliers],
    ),
    "the mean of sums": (
        "penalty", "divisor = weight * max(", "divisor = max(", [check_diloco, check_outlier],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(mutant, peers)


# --- Others ---------------------------------------------------------------------------------------


def test_a_newcomer(peers: Peers) -> None:
    """It weighs with what the others have agreed on, counts from its first window, and nobody's
    bits go astray."""
    came = threading.Event()
    late: list[Any] = []

    def windows(parameters: Any, opt: Any, peer: int) -> list[tuple[int, int, str]]:
        found = []
        for _ in range(4):
            report = train(parameters, opt, normal(8, opt.outer.step, peer))
            assert report.applied
            assert not any(one.drifted for one in report.behind)
            found.append((report.step, report.contributors, report.hash))
        return found

    def newcomer() -> None:
        with pyccl.connect(peers.address) as comm:
            parameters, opt = model_of(REAL.EDiT, comm, START + 3, temperature=1.0, clip=1.0)
            came.set()
            late.append((opt.outer.step, windows(parameters, opt, 2)))
            opt.leave()

    thread = threading.Thread(target=newcomer, daemon=True)

    def run(comm: Any) -> Any:
        rank = comm.rank
        parameters, opt = model_of(REAL.EDiT, comm, temperature=2.0, clip=5.0)
        train(parameters, opt, normal(8, 0, rank))
        if rank == 0:
            thread.start()
        while comm.world_size == 2:
            train(parameters, opt, normal(8, opt.outer.step, rank))
            came.wait(0.05)
        found = windows(parameters, opt, rank)
        opt.leave()
        return found

    one, other = peers.run(2, run)
    thread.join(LIMIT_SECONDS)
    assert one == other == late[0][1]
    assert [count for _, count, _ in one] == [3] * len(one)
    assert one[0][0] == late[0][0] + 1


def test_modules_by_hand() -> None:
    _, opt = model_of(REAL.EDiT, modules=[["b.bias"], ["a.weight", "b.weight"]])
    assert opt.outer.names == ("b.bias", "a.weight", "b.weight")
    assert opt.outer.modules == ("0", "1")
    with pytest.raises(InvalidArgumentError, match="in exactly one module"):
        model_of(REAL.EDiT, modules=[["b.bias"]])
    given = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    opt = pyccl.optim.EDiT(given, torch.optim.SGD)
    assert opt.outer.modules == ("",)
    assert (opt.outer_lr, opt.outer_momentum) == (pytest.approx(0.7), pytest.approx(0.8))


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"clip": 0}, {"z_threshold": -1}, {"warmup": 0}]
)
def test_what_can_not_be(options: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        model_of(REAL.EDiT, **options)


def test_checkpoints_of_other_modules_are_refused() -> None:
    state = model_of(REAL.EDiT)[1].state_dict()
    other = model_of(REAL.EDiT, modules=[list(SIZES)])[1]
    with pytest.raises(InvalidArgumentError, match="detectors of 2 modules"):
        other.load_state_dict(state)
    state = model_of(REAL.DiLoCo)[1].state_dict()
    with pytest.raises(InvalidArgumentError, match="that of DiLoCo, but this is EDiT"):
        other.load_state_dict(state)
    del state["kind"]
    with pytest.raises(InvalidArgumentError, match="detectors of 0 modules"):
        other.load_state_dict(state)
