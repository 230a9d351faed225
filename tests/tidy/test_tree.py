"""The tree keeps its own rules."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import pytest
from tidy import rules, tree


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: rules.Rule) -> None:
    faults = [fault for path, text in tree.texts().items() for fault in rule(path, text)]
    assert not faults, "\n" + "\n".join(faults)


def test_every_header_is_included_somewhere() -> None:
    faults = rules.unused_headers(tree.texts())
    assert not faults, "\n" + "\n".join(faults)


def compile_alone(header: Path, folder: Path, flags: list[str]) -> str:
    """What the compiler says about a file that includes this header and nothing else."""
    source = folder / (header.name + f"_{abs(hash(header))}.cpp")
    source.write_text(f'#include "{header}"\n', encoding="utf-8")
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stderr if done.returncode else ""


def include_flags() -> list[str]:
    folders = [tree.ROOT / "csrc", tree.ROOT / "csrc/include", tree.ROOT / "tests"]
    # What the bindings include beside our own headers.
    folders += [Path(sysconfig.get_path("include")), Path(pybind11.get_include())]
    return [f"-I{folder}" for folder in folders]


def test_every_header_compiles_alone(tmp_path: Path) -> None:
    """Those of which the build does not show it already."""
    headers = [tree.ROOT / path for path in rules.headers_behind_others(tree.texts())]
    assert headers
    flags = ["-Wall", "-Wextra", *include_flags()]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = pool.map(lambda header: compile_alone(header, tmp_path, flags), headers)
    faults = [outcome for outcome in outcomes if outcome]
    assert not faults, "\n".join(faults)


def test_a_header_that_needs_another_does_not_compile_alone(tmp_path: Path) -> None:
    header = tmp_path / "needy.hpp"
    header.write_text("#pragma once\ninline std::string name();\n", encoding="utf-8")
    assert "std" in compile_alone(header, tmp_path, [])
    header.write_text("#pragma once\n#include <string>\nstd::string name();\n", encoding="utf-8")
    assert compile_alone(header, tmp_path, []) == ""
