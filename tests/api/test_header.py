"""The header by itself: as C99, as C++, against what the library exports, and as an example."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .conftest import HEADER, ROOT, Library, declarations

WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{HEADER.parent}"]


@pytest.mark.parametrize(
    "command",
    [["cc", "-x", "c", "-std=c99"], ["c++", "-x", "c++", "-std=c++11"]],
    ids=["c99", "c++11"],
)
def test_compiles_alone_and_twice(command: list[str]) -> None:
    source = "#include <pyccl.h>\n#include <pyccl.h>\nint main(void) { return 0; }\n"
    done = subprocess.run(
        [*command, *WARNINGS, "-"], input=source, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_library_exports_what_the_header_declares_and_nothing_else(lib: Library) -> None:
    declared = set(re.findall(r"\b(pyccl_\w+)\(", declarations()))
    table = subprocess.run(
        ["nm", "-D", "--defined-only", str(lib.path)], text=True, capture_output=True, check=True
    )
    assert {line.split()[-1] for line in table.stdout.splitlines()} == declared


def test_version_is_that_of_the_project(lib: Library) -> None:
    found = re.search(r'(?m)^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert found
    assert lib.ffi.string(lib.c.pyccl_version()).decode() == found.group(1)


def test_each_code_has_its_name(lib: Library) -> None:
    codes = lib.ffi.typeof("pyccl_code").elements
    for number, name in codes.items():
        assert lib.ffi.string(lib.c.pyccl_code_name(number)).decode() == name
    for number in (max(codes) + 1, 1000, 0xFFFFFFFF):
        assert lib.ffi.string(lib.c.pyccl_code_name(number)) == b"unknown"


def test_counts_are_those_of_the_enumerations(lib: Library) -> None:
    assert len(lib.ffi.typeof("pyccl_dtype").elements) == lib.constants.DTYPE_COUNT
    assert len(lib.ffi.typeof("pyccl_redop").elements) == lib.constants.REDOP_COUNT


def test_example_runs(lib: Library, tmp_path: Path) -> None:
    binary = tmp_path / "hello"
    subprocess.run(
        [
            *("cc", "-std=c99", *WARNINGS[:4], WARNINGS[-1], str(ROOT / "examples/hello.c")),
            *(
                "-o",
                str(binary),
                f"-L{lib.path.parent}",
                f"-Wl,-rpath,{lib.path.parent}",
                "-lpyccl",
            ),
        ],
        check=True,
    )
    done = subprocess.run([binary], text=True, capture_output=True, timeout=60, check=True)
    assert sorted(done.stdout.splitlines()) == [
        "rank 0: sum of 2 peers is 3",
        "rank 1: sum of 2 peers is 3",
    ]
