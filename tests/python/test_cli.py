"""`pyccl` on the command line, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pyccl

PYCCL = [sys.executable, "-m", "pyccl.cli"]


def environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "PYTHONPATH": paths, "XDG_STATE_HOME": str(home)}


@contextmanager
def coordinator(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PYCCL, "coordinator", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
        cwd=home,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_coordinator_logs_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with coordinator(tmp_path, "--bind", "127.0.0.1:0") as process:
        with pyccl.connect(address_of(process), timeout=30) as comm:
            peer = comm.peer
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert f"peer {peer} waits to join" in err
    assert "first peer of the run" in err
    assert f"peer {peer} (rank 0) left" in err
    assert f"ended by {number.name}" in err


def test_the_state_file_lies_in_the_state_directory(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    incarnations = []
    for _ in range(2):
        with coordinator(tmp_path, "--bind", f"127.0.0.1:{port}") as process:
            with pyccl.connect(address_of(process), timeout=30) as comm:
                incarnations.append(comm.epoch.incarnation)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert (tmp_path / "pyccl" / f"{port}.state").is_file()
    assert incarnations == [1, 2]


def test_no_state_file_where_none_is_wanted(tmp_path: Path) -> None:
    with coordinator(tmp_path, "--bind", "127.0.0.1:0", "--state", "none") as process:
        address_of(process)
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_said_clearly(tmp_path: Path) -> None:
    with coordinator(tmp_path, "--bind", "127.0.0.1:0") as first:
        address = address_of(first)
        with coordinator(tmp_path, "--bind", address) as second:
            _, err = second.communicate(timeout=20)
    assert second.returncode == 1
    assert address in err
    assert "in use" in err
    assert "Traceback" not in err


def output_of(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*PYCCL, *arguments],
        capture_output=True,
        text=True,
        env=environment(home),
        cwd=home,
        check=True,
    )
    return done.stdout


def test_help_names_the_commands(tmp_path: Path) -> None:
    text = output_of(tmp_path, "--help")
    assert "coordinator" in text
    assert "demo" in text
    assert "bench" in text


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert output_of(tmp_path, "--version").split() == ["pyccl,", "version", pyccl.__version__]
