"""examples/diloco_char_gpt.py, as a user runs it."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "diloco_char_gpt.py"
TINY = (
    "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch", "8",
    "--lr", "0.01", "--sync-every", "8",
)  # fmt: skip


@contextlib.contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    example = subprocess.Popen(
        [sys.executable, str(EXAMPLE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        yield example
    finally:
        example.kill()  # and with it its peers


def run(tmp_path: Path, *arguments: str) -> str:
    with started(tmp_path, *arguments) as example:
        out, err = example.communicate(timeout=400)
    assert example.returncode == 0, out + err
    return out


def results(out: str) -> tuple[dict[str, tuple[float, float]], float]:
    """By method the held-out loss and the megabytes; and the entropy of the characters."""
    rows = re.findall(r"^(\w+) +(\d\.\d+) +(\d+\.\d+) +\d+\.\d$", out, re.MULTILINE)
    entropy = re.search(r"each character is: (\d\.\d+)", out)
    assert entropy
    return {name: (float(loss), float(sent)) for name, loss, sent in rows}, float(entropy[1])


def can_draw() -> bool:
    try:
        importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return False
    return True


def check_churn(out: str, method: str) -> None:
    """One was killed in the midst, and one has come who begins behind the steps that were done."""
    assert re.search(rf"^{method}, step \d+ of \d+: peer 1 is killed$", out, re.MULTILINE)
    comes = re.search(rf"^{method}, step (\d+) of \d+: peer \d comes$", out, re.MULTILINE)
    is_in = re.search(rf"^{method}, step .*: peer \d is in, from step (\d+)$", out, re.MULTILINE)
    assert comes
    assert is_in
    assert int(is_in[1]) >= int(comes[1]) - 8


def test_a_run_with_a_kill_and_a_join(tmp_path: Path) -> None:
    draws = can_draw()
    plot = () if draws else ("--no-plot",)
    out = run(tmp_path, *TINY, "--method", "diloco", "--peers", "2", "--steps", "96", *plot)
    check_churn(out, "diloco")
    found, entropy = results(out)
    assert found.keys() == {"diloco"}
    assert found["diloco"][0] < entropy - 0.2
    if draws:
        assert (tmp_path / "diloco_char_gpt.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_all_methods(tmp_path: Path) -> None:
    out = run(tmp_path, *TINY, "--steps", "160", "--no-plot")
    found, entropy = results(out)
    assert list(found) == ["dp", "diloco", "streaming", "noloco"]
    for method, (loss, _) in found.items():
        check_churn(out, method)
        assert loss < entropy - 0.2
    # One sync in 8 steps, and an eighth of its bytes.
    assert found["diloco"][1] < found["dp"][1] / 7
    assert found["noloco"][1] < found["dp"][1] / 6
    assert found["streaming"][1] < found["diloco"][1] / 6
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    arguments = (*TINY, "--method", "dp", "--no-plot", "--steps", "800000")
    with started(tmp_path, *arguments) as example:
        assert example.stdout is not None
        while ": loss" not in (line := example.stdout.readline()):
            assert line, example.communicate()[1]
        began = time.monotonic()
        os.killpg(example.pid, signal.SIGINT)
        _, err = example.communicate(timeout=60)
        assert example.returncode == 130
        assert "Traceback" not in err
        assert time.monotonic() - began < 10  # of which torch takes one or two to end
        assert not processes_of(example.pid)


def processes_of(session: int) -> list[str]:
    """Commands of the processes of a session that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # Behind the command, which may have spaces: state, parent, group, session.
            state, *numbers = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(numbers[2]) == session and state != "Z":
                found.append((folder / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended
    return found


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--steps 100 --sync-every 30", "a multiple of --sync-every, 30"),
        ("--steps 80 --sync-every 20", "8 times --sync-every"),
        ("--steps 80 --sync-every 5 --method streaming", "--sync-every must be 8 or more"),
        ("--width 30", "a multiple of --heads, 4"),
        ("--peers 1", "nobody to kill"),
        ("--batch 0", "--batch must be 1 or more"),
        ("--device warp", "warp"),
        ("--plot nowhere/x.png", "no such folder"),
        ("--text nowhere.txt", "nowhere.txt"),
    ],
)
def test_wrong_options_are_told_before_anything_begins(
    arguments: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    example = importlib.import_module(EXAMPLE.stem)
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, "--no-plot", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        example.main()
    out, err = capsys.readouterr()
    assert ended.value.code not in (None, 0)
    assert text in err + str(ended.value.code)
    assert not out


def test_fragments_need_not_divide_the_steps_between_syncs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    example = importlib.import_module(EXAMPLE.stem)
    arguments = "--no-plot --steps 80 --sync-every 10 --method streaming"
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, *arguments.split()])
    assert example.parse().sync_every == 10
