"""Ctrl-C, in processes of their own: signals go to main threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import pyccl

# What every script begins with: two members of which the other one takes part in nothing.
PRELUDE = """
    import os, signal, sys, threading, time
    import numpy as np
    import pyccl

    # At the end of this thread the communicator would be closed.
    others = []
    other = threading.Thread(daemon=True, target=lambda: others.append(
        pyccl.connect(sys.argv[1], world_size_min=2, timeout=30)))
    other.start()
    comm = pyccl.connect(sys.argv[1], world_size_min=2, timeout=30)
    other.join(30)
    x = np.arange(1000.0)
    main = threading.get_ident()

    def interrupt_once_it_waits(sent):
        # These are the ones that wait in the core; it lends this thread the lock meanwhile.
        waiting = tuple(function.__code__ for function in (
            pyccl.Communicator._run, pyccl.Communicator._run_pair, pyccl.Communicator._finish,
            pyccl.Work.wait))
        while sys._current_frames()[main].f_code not in waiting:
            pass
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def seconds_to_interrupt(function):
        sent = []
        thread = threading.Thread(target=interrupt_once_it_waits, args=[sent])
        thread.start()
        try:
            function()
        except KeyboardInterrupt:
            thread.join()
            return time.monotonic() - sent[0]
        raise SystemExit("no interrupt came")
"""


def run(address: str, script: str) -> str:
    """What the script prints; it must end by itself and well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script), address],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd="/",  # not where a source tree hides the package
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("call", ["all_reduce(x)", "barrier()", "update()", "recv(x, None)"])
def test_a_blocking_call_ends_within_200_ms(coordinator: pyccl.Coordinator, call: str) -> None:
    out = run(
        coordinator.address,
        f"""
        print(seconds_to_interrupt(lambda: comm.{call}))
        assert (x == np.arange(1000.0)).all()
        assert comm.world_size == 2 and not comm.closed
        """,
    )
    assert float(out) < 0.2


def test_the_communicator_stays_usable(coordinator: pyccl.Coordinator) -> None:
    out = run(
        coordinator.address,
        """
        seconds_to_interrupt(lambda: comm.all_reduce(x))
        reduced = np.ones(3)

        def help():
            try:
                others[0].all_reduce(np.ones(3), timeout=30)
            except (pyccl.CancelledError, pyccl.MismatchError):
                # It came before the others knew that the call was given up, and so was counted.
                others[0].all_reduce(np.ones(3), timeout=30)

        helper = threading.Thread(target=help)
        helper.start()
        comm.all_reduce(reduced, timeout=30)
        helper.join(30)
        print(reduced.tolist())
        """,
    )
    assert out == "[2.0, 2.0, 2.0]\n"


def test_a_receive_from_any_source_that_was_given_up_has_not_happened(
    coordinator: pyccl.Coordinator,
) -> None:
    out = run(
        coordinator.address,
        """
        seconds_to_interrupt(lambda: comm.recv(x, None))
        work = others[0].send(np.ones(1000), comm.rank, async_op=True, timeout=30)
        print(comm.recv(x, None, timeout=30).source == others[0].rank, x[999])
        print(work.wait(30).attempts, comm.epoch == others[0].epoch)
        """,
    )
    assert out == "True 1.0\n1 True\n"


def test_an_update_that_was_given_up_can_be_asked_for_again(
    coordinator: pyccl.Coordinator,
) -> None:
    out = run(
        coordinator.address,
        """
        seconds_to_interrupt(comm.update)
        helper = threading.Thread(target=lambda: others[0].update(30))
        helper.start()
        print(comm.update(30).world_size)
        helper.join(30)
        """,
    )
    assert out == "2\n"


def test_an_asynchronous_operation_goes_on(coordinator: pyccl.Coordinator) -> None:
    out = run(
        coordinator.address,
        """
        work = comm.all_reduce(x, async_op=True, timeout=30)
        seconds_to_interrupt(work.wait)
        assert not work.done()
        others[0].all_reduce(np.ones(1000), timeout=30)
        print(work.wait(30).world_size, x[999])
        """,
    )
    assert out == "2 1000.0\n"


def test_connecting_can_be_interrupted(coordinator: pyccl.Coordinator) -> None:
    with pyccl.connect(coordinator.address, timeout=30) as comm:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import pyccl, sys; pyccl.connect(sys.argv[1], timeout=60)",
                coordinator.address,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            cwd="/",
        )
        try:
            while process.poll() is None and not comm.barrier(timeout=30).peers_pending:
                pass
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
        assert "KeyboardInterrupt" in err
        # The joiner's end disturbs nobody.
        assert comm.update(30).world_size == 1
