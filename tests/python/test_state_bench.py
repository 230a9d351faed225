"""bench/state.py: its tables, and one small run of each command that needs no namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state as script
from rich.console import Console
from rich.table import Table
from synchronizing import copying, links, peers, tables

import pyccl


def run(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What it prints, and its JSON."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, script.__file__, *arguments, "--turns", "2", "--json", str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def text_of(table: Table) -> str:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_a_table_says_how_much_longer_than_what_stands_beside() -> None:
    rows = [tables.Row("sync", 10**9), tables.Row("copy", 10**9)]
    for row, seconds in zip(rows, ([3, 1, 2], [0.5]), strict=True):
        row.samples += [tables.Sample(one, 3 << 20, 0.25) for one in seconds]
    text = text_of(tables.table_of("all", rows, "copy"))
    assert "2000 (1000-3000)" in text
    assert "4.00" in text
    assert rows[0].speed == 0.5


def test_the_links_of_those_who_send_set_the_pace() -> None:
    way = links.Way((500, 500, 100), 2)
    assert way.least_seconds(125 * 10**6) == 1.0
    taken = links.Taken([4.0, 2.0], [[100 << 20, 0, 0], [70 << 20, 50 << 20, 0]])
    text = text_of(links.table_of({way: [taken]}, 125 * 10**6))
    for part in ("500+500", "4 (4-4)", "2 (2-2)", "50%", "70 + 50"):
        assert part in text


@pytest.mark.parametrize(("lacking", "changed"), [("all", 5000), ("one", 1), ("nothing", 0)])
def test_who_lacks_something_has_it_changed(lacking: str, changed: int) -> None:
    def changes(lacks: bool) -> tuple[int, int]:
        state = pyccl.SharedState(peers.make(20000, 5))
        peers.spoil(state, lacking, lacks=lacks)
        want = peers.make(20000, 5)
        same = [state[one].view(np.uint32) == want[one].view(np.uint32) for one in want]
        return sum(int(np.sum(~one)) for one in same), state.revision

    assert changes(lacks=True) == (changed, 0)
    assert changes(lacks=False) == (0, lacking != "nothing")


def test_what_was_not_brought_to_all_is_found() -> None:
    state = pyccl.SharedState(peers.make(20000, 5))
    made = state.digest()
    peers.check(state, made)
    state["tensor 4"][7] += 1
    with pytest.raises(RuntimeError, match="not what it was"):
        peers.check(state, made)


def test_a_copy_is_timed_at_its_receiver() -> None:
    sample = copying.copy(1 << 20)
    assert 0 < sample.seconds < 60
    assert sample.wire_bytes == 1 << 20


def test_hashing_is_measured(tmp_path: Path) -> None:
    text, content = run(tmp_path, "hash", "--mib", "1")
    assert "state.digest()" in text
    assert content["rows"][0]["bytes"] == 1 << 20
    assert all(len(row["samples"]) == 2 for row in content["rows"])


def test_joins_are_measured(tmp_path: Path) -> None:
    text, content = run(tmp_path, "join", "--mib", "2", "--peers", "2")
    assert "socket copy" in text
    wire = {row["name"]: row["samples"][0]["wire_bytes"] for row in content["rows"]}
    assert len(wire) == 5
    for name, sent in wire.items():
        assert (sent >= 2 << 20) == ("nobody" not in name)


def test_states_that_are_alike_move_next_to_nothing(tmp_path: Path) -> None:
    _, content = run(tmp_path, "same", "--mib", "3", "--peers", "2")
    sent = [row["samples"][0]["wire_bytes"] for row in content["rows"]]
    names = [row["name"] for row in content["rows"]]
    assert names[:2] == ["3 MiB, identical", "3 MiB, one number"]
    assert sent[0] < 4096
    assert 1 << 20 <= sent[1] < (1 << 20) + 4096
    assert names[2:] == ["10000 x 256 B, identical", "10000 x 256 B, one number"]
    assert sent[2] < 4096 < sent[3]


def test_no_size_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, script.__file__, "join", "--mib", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is no size" in done.stderr
