"""Ctrl-C during a sync, in processes of their own: signals go to main threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import pyccl

# Two members; what the other one does it does on a thread.
PRELUDE = """
    import os, signal, sys, threading, time
    import numpy as np
    import pyccl

    others = []
    other = threading.Thread(daemon=True, target=lambda: others.append(
        pyccl.connect(sys.argv[1], world_size_min=2, timeout=30, operation_timeout=8)))
    other.start()
    comm = pyccl.connect(sys.argv[1], world_size_min=2, timeout=30, operation_timeout=8)
    other.join(30)
    SIZE = int(sys.argv[2]) << 20
    x, y = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
    mine, others_state = pyccl.SharedState({"x": x}, 1), pyccl.SharedState({"x": y}, 2)
    main = threading.get_ident()

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt_once_it_waits():
        sync = pyccl.SharedState._sync.__code__
        while True:  # the call of the core is its argument
            caller = sys._current_frames()[main].f_back
            if caller is not None and caller.f_code is sync:
                break
        time.sleep(0.3)  # into the core
        interrupt()

    def interrupted():
        try:
            comm.sync(mine)
        except KeyboardInterrupt:
            return
        raise SystemExit("no interrupt came")

    def both():
        helper = threading.Thread(target=lambda: others[0].sync(others_state))
        helper.start()
        comm.sync(mine)
        helper.join(20)
        assert (mine.revision, mine.void) == (2, ())
        assert (x == 1).all()
"""


def run(address: str, size: int, script: str) -> str:
    """What the script prints; it must end by itself and well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script), address,
         str(size)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd="/",  # not where a source tree hides the package
        timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("boundary", [False, True])
def test_a_sync_that_waits_for_others_ends_at_once(
    coordinator: pyccl.Coordinator, boundary: bool
) -> None:
    out = run(
        coordinator.address,
        1,
        f"""
        if {boundary}:
            helper = threading.Thread(target=others[0].barrier)
            helper.start()
            comm.barrier()
            helper.join(20)
        threading.Thread(target=interrupt_once_it_waits).start()
        began = time.monotonic()
        interrupted()
        print(time.monotonic() - began)
        assert (mine.revision, mine.void) == (1, ()) and not x.any()
        assert comm.world_size == 2 and not comm.closed
        """,
    )
    # The others are awaited for 8 s.
    assert float(out) < 4


def test_a_sync_that_waited_at_a_boundary_can_be_repeated(coordinator: pyccl.Coordinator) -> None:
    run(
        coordinator.address,
        1,
        """
        helper = threading.Thread(target=others[0].barrier)
        helper.start()
        comm.barrier()
        helper.join(20)
        threading.Thread(target=interrupt_once_it_waits).start()
        interrupted()
        both()
        """,
    )


def test_a_sync_that_was_given_up_is_over_for_who_comes_later(
    coordinator: pyccl.Coordinator,
) -> None:
    run(
        coordinator.address,
        1,
        """
        threading.Thread(target=interrupt_once_it_waits).start()
        interrupted()
        try:
            others[0].sync(others_state)
        except pyccl.CancelledError as error:
            assert "given up by rank" in str(error), error
        else:
            raise SystemExit("it went on alone")
        both()
        """,
    )


@pytest.mark.parametrize("size", [16, 200])
def test_an_interrupt_while_blocks_move_is_an_error_for_the_others(
    coordinator: pyccl.Coordinator, size: int
) -> None:
    out = run(
        coordinator.address,
        size,
        """
        ends = []

        def help():
            try:
                # It waits for the other one's end, which then is an end for both.
                others[0].sync(others_state, progress=lambda *_: ends or (
                    ends.append("interrupted"), interrupt(), time.sleep(0.2)))
                ends.append("well")
            except pyccl.PycclError as error:
                ends.append(type(error).__name__)

        helper = threading.Thread(target=help)
        helper.start()
        interrupted()
        helper.join(30)
        print(ends)
        assert (mine.revision == 1) or (x == 1).all()
        assert mine.revision == 2 or mine.void or not x.any()
        both()
        """,
    )
    assert out == "['interrupted', 'CancelledError']\n"
