"""Where the simulator is, how it is run, and what its sources name."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 3000.0
# What the state world is about; the other two never get there.
STATE_SOURCES = {
    ROOT / "csrc" / f"{name}.cpp"
    for name in (
        "engine/block_intake",
        "engine/shared_state",
        "engine/state_schema",
        "engine/state_sync",
        "engine/state_sync_messages",
        "engine/state_sync_moving",
        "protocol/block_moves",
        "protocol/shared_state",
    )
}

Result = subprocess.CompletedProcess[str]
Simulate = Callable[..., Result]


def find() -> Path | None:
    """What PYCCL_SIM names, or the newest that a build folder of the tree holds."""
    named = os.environ.get("PYCCL_SIM")
    if named:
        return Path(named)
    built = [path for path in ROOT.glob("build*/**/pyccl_sim") if path.is_file()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def run(simulator: Path, *arguments: object) -> Result:
    """In a process of its own: a failed assertion must not take pytest along."""
    command = [str(simulator), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


def sweep(simulate: Simulate, count: int, *arguments: object) -> list[Result]:
    """Seeds 0 to count - 1, by as many processes as there are processors, with their marks."""
    jobs = min(count, os.cpu_count() or 1)
    ends = [count * job // jobs for job in range(jobs + 1)]
    with ThreadPoolExecutor(jobs) as pool:
        return list(
            pool.map(
                lambda job: simulate(
                    *arguments, "--seeds", f"{ends[job]}:{ends[job + 1]}", "--marks"
                ),
                range(jobs),
            )
        )


def faults(results: list[Result]) -> str:
    """What runs that failed have said, without their marks; empty if none has."""
    return "\n".join(
        f"{' '.join(map(str, result.args))} gave {result.returncode}\n"
        + re.sub(r"^(mark|never) .*\n", "", result.stdout, flags=re.MULTILINE)
        for result in results
        if result.returncode != 0
    )


@contextmanager
def hunts(
    simulate: Simulate, mutants: Iterable[str], *arguments: object
) -> Iterator[dict[str, Future[Result]]]:
    """For each planted bug a run that looks for it, as many at once as there are processors."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield {
            mutant: pool.submit(simulate, *arguments, "--mutant", mutant)
            for mutant in sorted(mutants)
        }
    finally:
        pool.shutdown(cancel_futures=True)


def marks(*results: Result) -> set[str]:
    """The coverage marks that runs with --marks have hit."""
    return {
        line.removeprefix("mark ")
        for result in results
        for line in result.stdout.splitlines()
        if line.startswith("mark ")
    }


def sites(macro: str, *folders: str) -> set[str]:
    """All names that are given to PYCCL_MARK or PYCCL_MUTANT in these folders of csrc, but for
    what only the state world runs."""
    paths = {path for folder in folders for path in (ROOT / "csrc" / folder).rglob("*.cpp")}
    return _names(macro, paths - STATE_SOURCES)


def state_sites(macro: str) -> set[str]:
    """The same of the state world."""
    return _names(macro, STATE_SOURCES)


def _names(macro: str, paths: set[Path]) -> set[str]:
    pattern = re.compile(macro + r'\(\s*"([^"]+)"')
    return {name for path in paths for name in pattern.findall(path.read_text())}
