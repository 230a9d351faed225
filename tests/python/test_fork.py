"""What a forked child has of its parent's communicator: nothing, and it harms nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import pyccl

PRELUDE = """
    import os, sys, time
    import numpy as np
    import pyccl
"""


def start(address: str, script: str, prelude: str = PRELUDE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(script), address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd="/",  # not where a source tree hides the package
    )


def test_a_child_does_not_make_a_dead_peer_look_alive() -> None:
    with pyccl.Coordinator("127.0.0.1:0", heartbeat_limit=30.0) as coordinator:
        process = start(
            coordinator.address,
            """
            comm = pyccl.connect(sys.argv[1], world_size_min=2, timeout=30)
            comm.barrier()
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            print(child, flush=True)
            comm.barrier(tag=1, timeout=60)
            """,
        )
        assert process.stdout is not None
        with pyccl.connect(
            coordinator.address, world_size_min=2, timeout=30, heartbeat_limit=30.0
        ) as comm:
            comm.barrier(timeout=30)
            child = int(process.stdout.readline())
            try:
                began = time.monotonic()
                process.kill()
                assert comm.all_reduce(np.ones(3), timeout=30).world_size == 1
                # Far below the heartbeat limit, and below the grace of a peer that can be reached.
                assert time.monotonic() - began < 1.5
            finally:
                os.kill(child, signal.SIGKILL)
                process.communicate()


def test_what_a_child_asks_of_its_parents_communicator(coordinator: pyccl.Coordinator) -> None:
    process = start(
        coordinator.address,
        """
        comm = pyccl.connect(sys.argv[1], world_size_min=2, timeout=30)
        work = comm.all_reduce(np.ones(3), async_op=True, timeout=60)
        child = os.fork()
        if child == 0:
            closed = 0
            for use in (work.wait, lambda: comm.all_reduce(np.ones(3)), comm.update):
                try:
                    use()
                except pyccl.ClosedError:
                    closed += 1
            comm.close()
            os._exit(closed)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        print(work.wait(30).world_size, flush=True)
        """,
    )
    assert process.stdout is not None
    with pyccl.connect(coordinator.address, world_size_min=2, timeout=30) as comm:
        assert process.stdout.readline() == "3\n"
        # What the child has closed was its own copy: the parent and its operation go on.
        comm.all_reduce(np.ones(3), timeout=30)
        out, _ = process.communicate(timeout=30)
    assert out == "2\n"
    assert process.returncode == 0


def test_a_child_may_begin_afresh(coordinator: pyccl.Coordinator) -> None:
    process = start(
        coordinator.address,
        """
        inherited = [pyccl.Coordinator("127.0.0.1:0"), pyccl.connect(sys.argv[1], timeout=30)]
        child = os.fork()
        if child == 0:
            with pyccl.Coordinator("127.0.0.1:0") as own:
                with pyccl.connect(own.address, timeout=30) as comm:
                    inherited.clear()
                    comm.all_reduce(np.ones(3))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        inherited[1].leave()
        inherited[0].stop()
        print(os.waitstatus_to_exitcode(status))
        """,
    )
    out, _ = process.communicate(timeout=30)
    assert out == "0\n"
    assert process.returncode == 0


@pytest.mark.parametrize("call", ["all_reduce(np.ones(3))", "barrier()", "update()"])
def test_daemon_threads_do_not_keep_a_program_from_its_end(
    coordinator: pyccl.Coordinator, call: str
) -> None:
    for _ in range(3):
        process = start(
            coordinator.address,
            f"""
            import threading
            comm = pyccl.connect(sys.argv[1], timeout=30)
            started = threading.Event()
            def wait():
                started.set()
                while True:
                    comm.{call}
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            started.wait()
            sys.exit(3)
            """,
        )
        process.communicate(timeout=30)
        assert process.returncode == 3


def test_the_thread_that_ends_the_program_may_still_use_it(coordinator: pyccl.Coordinator) -> None:
    process = start(
        coordinator.address,
        """
        with pyccl.connect(sys.argv[1], timeout=20) as comm:
            comm.barrier()
        """,
        # Registered before the package's own handler, and so called after it.
        prelude="""
        import atexit, sys

        def late():
            with pyccl.connect(sys.argv[1], timeout=20) as comm:
                print(comm.all_reduce(np.ones(3)).world_size)

        atexit.register(late)
        import numpy as np
        import pyccl
        """,
    )
    out, _ = process.communicate(timeout=30)
    assert out == "1\n"


@pytest.mark.parametrize("what", ["pyccl.Coordinator()", "pyccl.connect(sys.argv[1], timeout=5)"])
def test_too_few_descriptors_are_an_error(coordinator: pyccl.Coordinator, what: str) -> None:
    process = start(
        coordinator.address,
        f"""
        import resource, signal
        pyccl.connect(sys.argv[1], timeout=5).close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        os.close(taken.pop())
        try:
            {what}
        except pyccl.PycclError as error:
            print(type(error).__name__, signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """,
    )
    out, _ = process.communicate(timeout=30)
    assert out == "LimitExceededError set()\n"
