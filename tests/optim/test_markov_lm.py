"""bench/markov_lm.py: what it trains on, what it takes for wrong, a small run, and a whole one."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import markov_lm
from click.testing import CliRunner
from markov.bands import BANDS
from markov.chain import SYMBOLS, Chain
from markov.figures import Row, Run, judged, plot, run_of
from markov.methods import METHODS, Method
from markov.network import Network, loss_of
from markov.training import Trained

CHAIN = Chain()
BY_NAME = {method.name: method for method in METHODS}


def command(tmp_path: Path, *arguments: str) -> tuple[Any, dict[str, Any]]:
    """How it ended, and its JSON."""
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(markov_lm.main, [*arguments, "--json", str(file)])
    return done, json.loads(file.read_text()) if file.exists() else {}


def test_the_chain_has_the_entropy_that_is_known() -> None:
    assert CHAIN.entropy_rate == pytest.approx(1.2369, abs=5e-5)
    pairs = CHAIN.stationary.reshape(SYMBOLS, SYMBOLS)
    # As often as a symbol is the second of a pair, it is the first of one.
    np.testing.assert_allclose(pairs.sum(axis=0), pairs.sum(axis=1), rtol=1e-12)
    assert CHAIN.expected.sum() == pytest.approx(1)
    assert CHAIN.entropy_rate < CHAIN.unigram_entropy < math.log(SYMBOLS)


def test_batches_are_of_the_chain_and_come_again() -> None:
    tables = CHAIN.batches(3, 1, 200, 1000)
    count = 200 * 1000
    error = tables.mean(axis=0, dtype=np.float64) - CHAIN.expected
    bound = 6 * np.sqrt(CHAIN.expected / count) + 10 / count
    assert (np.abs(error) < bound).all()
    assert (tables[:5] == CHAIN.batches(3, 1, 5, 1000)).all()
    for seed, peer in ((3, 2), (4, 1)):
        assert (tables[0] != CHAIN.batches(seed, peer, 1, 1000)[0]).any()


def test_gradients_are_those_of_the_loss() -> None:
    network = Network(0)
    table = CHAIN.batches(0, 0, 1, 64)[0]
    network.backward(table)
    gradients = np.concatenate([one.grad.numpy().ravel() for one in network.parameters.values()])
    here = network.flat().astype(np.float64)
    for seed in range(5):
        way = np.random.default_rng(seed).standard_normal(here.size)
        ahead, behind = (loss_of(here + step * way, table) for step in (1e-5, -1e-5))
        assert gradients @ way == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-6)


def test_the_right_network_has_the_entropy_as_its_loss() -> None:
    assert loss_of(np.zeros(Network(0).flat().size), CHAIN.expected) == pytest.approx(
        math.log(SYMBOLS)
    )
    # With no context a network can be as good as the frequencies of symbols, by its last bias.
    flat = np.zeros(Network(0).flat().size)
    flat[-SYMBOLS:] = np.log(CHAIN.expected.sum(axis=0))
    assert loss_of(flat, CHAIN.expected) == pytest.approx(CHAIN.unigram_entropy)


def means(**changed: float) -> dict[str, float]:
    """Of a run in which all is well."""
    found = {
        "data-parallel": 1.25, "alone": 1.275, "diloco-20": 1.251, "heavy-ball": 1.3,
        "fedavg": 1.27, "int8": 1.2509, "fp4-1024": 1.252, "fp4-64": 1.25,
        "fp4-1024-feedback": 1.251, "streaming-0-0": 1.25, "streaming-1-0": 1.25,
        "streaming-1-0.5": 1.255, "streaming-5-0.5": 1.258, "delayed-0.7-0": 1.28,
        "delayed-0.4-0.5": 1.28, "delayed-0.2-0.9": 1.29, "co2": 1.29, "delayed-0.7-0.9": 4.8,
        "noloco": 1.258, "heavy-ball-8": 1.256,
    }  # fmt: skip
    return {**found, **{name.replace("_", "-"): one for name, one in changed.items()}}


def test_bands_hold_where_all_is_well() -> None:
    assert {row for band in BANDS for row in band.rows} <= BY_NAME.keys()
    found = judged(means())
    assert len(found) == len(BANDS)
    assert all(one["holds"] for one in found)


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"data_parallel": 1.245}, ["diloco-20 <= data-parallel +0.005"]),
        ({"alone": 1.265}, ["diloco-20 <= alone -0.015", "noloco <= alone -0.01"]),
        ({"int8": 1.2472}, ["int8 = diloco-20 +- 0.003"]),
        ({"fp4_64": 1.2548}, ["fp4-64 = diloco-20 +- 0.003"]),
        ({"heavy_ball": 1.274}, ["heavy-ball >= diloco-20 +0.025"]),
        ({"heavy_ball_8": 1.252}, ["noloco <= heavy-ball-8 +0.005"]),
        ({"delayed-0.7-0": 1.31}, ["delayed-0.7-0 <= 1.3"]),
        ({"co2": 1.31}, ["co2 <= 1.3"]),
        ({"delayed-0.7-0.9": 2.4}, ["delayed-0.7-0.9 >= 2.485"]),
        ({"streaming-5-0.5": math.nan}, ["streaming-5-0.5 <= diloco-20 +0.008"]),
    ],
)
def test_a_band_that_is_left_is_found(changed: dict[str, float], broken: list[str]) -> None:
    assert [one["band"] for one in judged(means(**changed)) if not one["holds"]] == broken


def trained(value: float, contributors: dict[int, int] | None = None) -> Trained:
    parameters = np.full((2, Network(0).flat().size), value, np.float32)
    return Trained([1, 2], parameters, 1000, contributors or {4: 2}, 1.0)


@pytest.mark.parametrize(
    ("name", "found", "fault"),
    [
        ("diloco-20", [trained(0)] * 4, None),
        ("diloco-20", [*[trained(0)] * 3, trained(1e-7)], "hold different outer parameters"),
        ("diloco-20", [*[trained(0)] * 3, None], "3 peers have come to the end"),
        ("diloco-20", [trained(0, {4: 1, 3: 1})] * 4, r"contributors: \[3, 4\], not \[4\]"),
        ("death", [*[trained(0, {4: 1, 3: 1})] * 3, None], None),
        ("death", [*[trained(0)] * 3, None], r"contributors: \[4\], not \[3, 4\]"),
        ("noloco", [*[trained(0, {2: 2})] * 7, trained(1, {2: 2})], None),
    ],
)
def test_what_is_wrong_with_a_run_is_found(name: str, found: list[Any], fault: str | None) -> None:
    run, faults = run_of(BY_NAME[name], CHAIN, found)
    assert run.losses[0] == pytest.approx(math.log(SYMBOLS), abs=0.1)
    assert len(faults) == (fault is not None)
    assert re.search(fault or "", " ".join(faults))


def test_small_runs_learn_outlive_a_death_and_come_again(tmp_path: Path) -> None:
    arguments = ("--only", "alone,death", "--steps", "100", "--seeds", "2")
    done, content = command(tmp_path, *arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "killed halfway" in done.output
    assert content["faults"] == content["bands"] == []
    alone, death = content["rows"]
    assert (alone["name"], death["name"]) == ("alone", "death")
    for run in alone["runs"] + death["runs"]:
        assert len(run["losses"]) == len(run["at"])
        assert run["at"][-1] == 100
        assert CHAIN.entropy_rate < run["losses"][-1] < run["losses"][0]
        assert run["losses"][-1] < CHAIN.unigram_entropy - 0.3
    # Three survivors, with two outer steps of four before, and three of three behind.
    assert [run["contributors"] for run in death["runs"]] == [{"4": 6, "3": 9}] * 2
    assert all(run["bytes_sent"] > 0 for run in death["runs"])
    again = command(tmp_path, *arguments)[1]["rows"][1]
    assert [run["losses"] for run in again["runs"]] == [run["losses"] for run in death["runs"]]


@pytest.mark.slow  # ten minutes
def test_all_bands_hold(tmp_path: Path) -> None:
    done, content = command(tmp_path)
    assert content["faults"] == []
    assert [one["band"] for one in content["bands"] if not one["holds"]] == []
    assert len(content["bands"]) == len(BANDS)
    assert done.exit_code == 0


def fill(rows: list[Row], *_: Any) -> list[str]:
    """As run_all(), with losses that grow from row to row."""
    for place, row in enumerate(rows):
        row.runs.append(Run([2000], [1.25 + place], 1.25 + place, 0.0, 1.0, {}))
    return []


@pytest.mark.parametrize(("steps", "code"), [("2000", 1), ("1999", 0)])
def test_a_broken_band_of_a_whole_run_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: str, code: int
) -> None:
    monkeypatch.setattr(markov_lm, "run_all", fill)
    done, content = command(tmp_path, "--only", "data-parallel,diloco-20", "--steps", steps)
    assert done.exit_code == code
    assert [one["holds"] for one in content["bands"]] == [False] * code


def test_a_fault_of_a_short_run_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(markov_lm, "run_all", lambda rows, *_: [*fill(rows), "wrong"])
    done, content = command(tmp_path, "--only", "alone", "--steps", "10")
    assert (done.exit_code, content["faults"]) == (1, ["wrong"])


def test_an_optimizer_that_is_not_there_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(markov_lm, "METHODS", [Method("alone", "", "NoSuch", {})])
    done, content = command(tmp_path, "--only", "alone")
    assert "alone is left out: pyccl.optim has no NoSuch" in done.output
    assert content["rows"] == []


def test_what_there_is_not_is_refused() -> None:
    done = CliRunner().invoke(markov_lm.main, ["--only", "diloco-21"])
    assert done.exit_code == 2
    assert "there is no row 'diloco-21'" in done.output


def test_losses_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib.figure")
    rows = [Row(BY_NAME[name]) for name in ("data-parallel", "alone", "fedavg")]
    fill(rows)
    plot(rows, CHAIN, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
