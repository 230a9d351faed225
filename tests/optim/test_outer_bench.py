"""bench/outer_steps.py: its links, what it counts, and small runs of all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")

import outer_steps
from click.testing import CliRunner
from namespaces import NoNamespacesError, in_space
from optimizing import links, overhead, pairs
from optimizing.training import WAYS, Net, Trained, Way, busiest
from optimizing.wire import Link, Passed, address_of, sites

BY_NAME = {way.name: way for way in WAYS}
# Greets, is answered, and sends; then tells how long both took, in seconds.
CLIENT = f"""
import socket, time
began = time.monotonic()
with socket.create_connection(("{address_of(0)}", 7000), timeout=20) as one:
    connected = time.monotonic() - began
    one.sendall(bytes(500_000))
    one.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b"."
print(connected, time.monotonic() - began)
"""
SERVER = f"""
import socket
with socket.create_server(("{address_of(0)}", 7000)) as server:
    print("ready", flush=True)
    one, _ = server.accept()
    while one.recv(1 << 16):
        pass
    one.sendall(b".")
"""


@contextmanager
def skipped_without_namespaces() -> Iterator[None]:
    try:
        yield
    except NoNamespacesError as error:
        pytest.skip(str(error))


def test_links_have_their_delay_and_their_rate() -> None:
    with skipped_without_namespaces(), sites(2, Link(20, 30)) as passed:
        server = in_space(0, "-c", SERVER)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = in_space(1, "-c", CLIENT)
        said = client.communicate(timeout=60)[0]
        server.communicate(timeout=60)
    connected, whole = map(float, said.split())
    # There and back; then the way of the last byte and that of the answer, and 0.2 s of sending.
    assert 0.060 <= connected < 1
    assert whole >= connected + 0.060 + 500_000 * 8 / 20e6
    assert passed[0].packets > 500_000 / 1500


def test_the_busiest_time_is_found() -> None:
    seen = [(0.0, 100), (0.5, 100), (1.0, 130), (1.4, 180), (1.9, 190), (3.0, 240)]
    assert busiest(seen, 1.0) == 80  # from 0.5 to 1.4
    assert busiest(seen, 0.1) == 50  # nobody has looked more often
    assert busiest(seen, 10.0) == 140
    assert busiest([], 1.0) == 0


def test_the_table_holds_ways_against_each_other() -> None:
    plan = links.Plan(Net(), Link(100, 50))
    assert plan.least_ms == pytest.approx(Net().parameters * 32 / 1e5)

    def row(way: Way, sent: int, busy: int, seconds: float) -> links.Row:
        peers = [Trained(0.1, seconds, 0.2, sent, busy), Trained(0.1, 10.0, 0.2, sent // 2, 1)]
        launch = links.Launch(peers, 100, Passed(10, 0, 1500))
        return links.Row(way, [launch], [launch])

    rows = [
        row(BY_NAME["DDP, Gloo"], 800_000_000, 8_000_000, 100.0),
        row(BY_NAME["DiLoCo"], 8_000_000, 8_000_000, 12.5),
        row(BY_NAME["DiLoCo, fp4_e3m0"], 1_000_000, 1_000_000, 11.0),
        row(BY_NAME["Streaming, fp4_e3m0"], 1_000_000, 125_000, 10.5),
    ]
    table = links.table_of(rows, plan)
    cells = [[*column.cells] for column in table.columns]
    assert [*zip(*cells, strict=True)][-1] == (
        "Streaming, fp4_e3m0", "10", "800", "125", "64", "8", "105", "95.2", "1.5"
    )  # fmt: skip
    assert cells[7] == ["10", "80", "90.9", "95.2"]


def test_what_streaming_sends_is_counted_on_the_wire() -> None:
    net = Net(layers=2, width=256, step_ms=20)
    plan = links.Plan(net, Link(50, 5), sync_every=16, overlap=4, windows=1)
    with skipped_without_namespaces():
        found = links.measure(plan, BY_NAME["Streaming, fp4_e3m0"], plan.link)
    assert found.passed.packets > 0
    payload = net.parameters / 2
    for one in found.peers:
        assert payload < one.sent < 2 * payload
        assert payload / 8 < one.busiest < one.sent  # of 2 fragments, in 2 phases
        assert 0 < one.alone < one.longest < one.seconds


@pytest.mark.parametrize("name", overhead.NAMES)
def test_a_wrapper_costs_next_to_nothing(name: str) -> None:
    # Alone: what is asked of others is not asked behind these steps.
    training = overhead.Training(overhead.Job(name, 2, 32, 4, 3), None)
    found = training.compare()
    assert len(found.alone) == len(found.wrapped) == 3
    # A step with 10 million parameters takes more than 30 ms: 1 % of it.
    assert found.idle < 300e-6


def test_what_it_does_not_measure_is_refused() -> None:
    done = CliRunner().invoke(outer_steps.main, ["overhead", "--names", "DiLoCo,SGD"])
    assert done.exit_code == 2
    assert "there is no optimizer 'SGD'" in done.output


@pytest.mark.parametrize("peers", ["8", pytest.param("32", marks=pytest.mark.slow)])
def test_pairs_beside_all_reduces(tmp_path: Path, peers: str) -> None:
    if pairs.simulator() is None:
        pytest.skip("pyccl_sim is not built: configure with -DPYCCL_TESTS=ON")
    file = tmp_path / "pairs.json"
    options = ["--peers", f"2,{peers}", "--json", str(file)]
    done = CliRunner().invoke(outer_steps.main, ["pairs", *options])
    assert done.exit_code == 0, (done.output, done.exception)
    ways = json.loads(file.read_text())["ways"]
    few, many = (ways["pairs exchange"][one]["ms"] for one in ("2", peers))
    assert many == pytest.approx(few, rel=0.05)
    assert ways["all-reduce, ring"][peers]["ms"] > 0.75 * int(peers) * many


@pytest.mark.slow
def test_what_is_asked_of_streaming() -> None:
    """In time with some room for what else the machine does."""
    plan = links.Plan(Net(), Link(100, 50), windows=1)

    def measure(name: str, link: Link) -> links.Launch:
        with skipped_without_namespaces():
            return links.measure(plan, BY_NAME[name], link)

    each = measure("DDP, pyccl", Link())
    burst = measure("DiLoCo, fp4_e3m0", Link())
    stream = measure("Streaming, fp4_e3m0", Link())
    assert each.sent_per_step > 100 * stream.sent_per_step
    assert burst.busiest > 7 * stream.busiest
    assert measure("DDP, Gloo", plan.link).utilisation < 0.2
    assert measure("Streaming, fp4_e3m0", plan.link).utilisation > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "links --mbit 50 --delay-ms 5 --layers 2 --width 64 --step-ms 10 --sync-every 8"
        " --overlap 1 --windows 1 --each-steps 2",
        "overhead --layers 2 --width 64 --pairs 4",
    ],
)
def test_small_runs(arguments: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(outer_steps.main, [*arguments.split(), "--json", str(file)])
    if "needs root" in done.output or "no namespaces" in done.output:
        pytest.skip(done.output)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "load average" in done.output
    told = json.loads(file.read_text())
    assert len(told.get("ways", told.get("optimizers"))) in (len(WAYS), len(overhead.NAMES))
