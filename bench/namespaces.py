"""Network namespaces for shaped links: the machine's own network stays as it is. They need root,
`ip` and `tc`, and a kernel that has all of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator


class NoNamespacesError(Exception):
    """There are none here, or no shaping; the text says why."""


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, timeout=20)


def name_of(space: int | str) -> str:
    return f"pyccl-{os.getpid()}-{space}"


@contextlib.contextmanager
def spaces(names: Iterable[int | str], first: Iterable[str]) -> Iterator[None]:
    """Namespaces of these names, and the commands that use what not every kernel has: where one of
    them fails, it is a NoNamespacesError. Whatever fails later is a failure."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        raise NoNamespacesError("needs root, ip and tc")
    made = [name_of(name) for name in names]
    try:
        try:
            for command in (*(f"ip netns add {name}" for name in made), *first):
                run(command)
        except subprocess.CalledProcessError as error:
            why = error.stderr.decode().strip()
            raise NoNamespacesError(f"no namespaces or no shaping here: {why}") from error
        yield
    finally:
        for name in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                run(f"ip netns del {name}")


def in_space(space: int | str, *command: str) -> subprocess.Popen[str]:
    """A Python process whose network is that of the namespace."""
    return subprocess.Popen(
        ["ip", "netns", "exec", name_of(space), sys.executable, *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
