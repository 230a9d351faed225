"""Names that must not appear, where they must not, and why.

Decisions are pure: time, chance and waiting are arguments, so that a seed repeats a run exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CPP = (".cpp", ".hpp", ".h", ".c")


@dataclass(frozen=True)
class Ban:
    """A pattern, banned in files under `within` that end in `suffixes`, except under `besides`."""

    pattern: re.Pattern[str]
    why: str
    within: tuple[str, ...] = ("csrc/",)
    besides: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = _CPP

    def applies_to(self, path: str) -> bool:
        return (
            path.endswith(self.suffixes)
            and path.startswith(self.within)
            and not path.startswith(self.besides)
        )


BANNED = [
    Ban(
        re.compile(r"\bchrono::\w+_clock\b|\bclock_gettime\b|\bgettimeofday\b"),
        "time is an argument; only runtime/ knows a clock",
        besides=("csrc/runtime/",),
    ),
    Ban(
        re.compile(r"(?:\bstd::|(?<![\w.>:&*~]))time\s*\((?=\s*(?:0|NULL|nullptr|&))"),
        "time is an argument; only runtime/ knows a clock",
    ),
    Ban(
        re.compile(r"(?<![\w.>])s?rand\s*\(|\brandom_device\b|\bgetrandom\b|\bmt19937\w*"),
        "chance is base/prng.hpp with a seed; only runtime/ asks the system for one",
        within=("csrc/", "tests/"),
        besides=("csrc/runtime/",),
    ),
    Ban(
        re.compile(r"\bstd::\w+_distribution\b|\bstd::shuffle\b"),
        "gives other numbers with every library; draw from base/prng.hpp",
        within=("csrc/", "tests/"),
    ),
    Ban(
        re.compile(r"\bunordered_\w+|\bstd::hash\b"),
        "hashed order differs from run to run; decisions use ordered containers",
        within=("csrc/protocol/", "csrc/sim/"),
    ),
    Ban(
        re.compile(r"\bsleep_(?:for|until)\b|(?<![\w.>])(?:u|nano)?sleep\s*\("),
        "wait for what happens, with a bound, not for a while",
        within=("csrc/", "tests/"),
    ),
    Ban(
        re.compile(
            r"\bstd::(?:\w*mutex|condition_variable\w*|lock_guard|unique_lock|scoped_lock"
            r"|shared_lock)\b|\bpthread_mutex\w*"
        ),
        "locks live in base/queue and runtime/ only",
        besides=("csrc/base/queue", "csrc/runtime/"),
    ),
    Ban(
        re.compile(r"\bstd::j?thread\b|\bstd::async\b|\bpthread_create\b"),
        "only runtime/ starts threads",
        besides=("csrc/runtime/",),
    ),
    Ban(
        re.compile(r"^[ \t]*(?:import|from)[ \t]+torch\b", re.MULTILINE),
        "torch is imported in pyccl/torch and pyccl/optim only",
        within=("pyccl/",),
        besides=("pyccl/torch/", "pyccl/optim/"),
        suffixes=(".py", ".pyi"),
    ),
    Ban(
        re.compile(r"(?i)(?<![\w-])(?:master|slave)s?(?!\w)"),
        "it is called coordinator, peer or member",
        within=("csrc/", "pyccl/"),
        suffixes=(*_CPP, ".py", ".pyi"),
    ),
]
