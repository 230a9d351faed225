"""Each rule finds what it is there for, and lets its like pass."""

from __future__ import annotations

import pytest
from tidy import cpp, rules

# Put together here, so that this file passes the rule on versions itself.
VERSION = ".".join("123")
LONG_CPP = "// A file.\nint long_one(int x) {\n" + "  ++x;\n" * 69 + "}\n"
LONG_PY = '"""A file."""\n\n\ndef long_one():\n' + "    pass\n" * 70

# rule, path, text that breaks it, words of the fault, text that keeps it
CASES = [
    (rules.file_length, "csrc/base/a.cpp", "\n" * 501, "501 lines", "\n" * 500),
    (rules.file_length, "pyccl/a.py", "\n" * 501, "501 lines", "\n" * 500),
    (rules.line_length, "csrc/a.hpp", "x" * 101, ":1: 101 columns", "x" * 100),
    (rules.function_length, "csrc/a.cpp", LONG_CPP, ":2: long_one has 71", "int f() {}\n"),
    (rules.function_length, "pyccl/a.py", LONG_PY, ":4: long_one has 71", "def f(): ...\n"),
    (
        rules.include_direction,
        "csrc/collectives/a.cpp",
        '#include "transport/channel.hpp"\n',
        "collectives may not include transport/channel.hpp",
        '#include "base/ids.hpp"\n#include <vector>\n#include "pyccl.h"\n',
    ),
    (
        rules.include_direction,
        "csrc/sim/a.cpp",
        '#include "runtime/work.hpp"\n',
        "sim may not include runtime/work.hpp",
        '#include "engine/peer.hpp"\n',
    ),
    (
        rules.include_direction,
        "csrc/base/a.cpp",
        '#include "../engine/peer.hpp"\n',
        "does not begin with a layer",
        '// #include "engine/peer.hpp"\n',
    ),
    (rules.include_direction, "csrc/other/a.cpp", "", "is no layer", None),
    (rules.opens_with_idea, "csrc/a.hpp", "#pragma once\n", "opens with no comment", "// A.\n"),
    (rules.opens_with_idea, "pyccl/a.py", "import os\n", "opens with no comment", '"""A."""\n'),
    (rules.include_guard, "csrc/a.hpp", "// A.\n", "included twice", "// A.\n#pragma once\n"),
    (
        rules.include_guard,
        "csrc/a.h",
        "#ifndef A_H\n#define B_H\n",
        "included twice",
        "/* A. */\n#ifndef A_H\n#define A_H\n#endif\n",
    ),
    (rules.no_reminders, "csrc/a.cpp", "// TO" + "DO: later\n", "do it or drop it", "// To do\n"),
    (rules.no_reminders, "README.md", "FIX" + "ME\n", "do it or drop it", "fix me\n"),
    (
        rules.version_once,
        "pyccl/__init__.py",
        f'__version__ = "{VERSION}"\n',
        "pyproject.toml only",
        '__version__ = version("pyccl-ft")\n',
    ),
    (
        rules.version_once,
        "CMakeLists.txt",
        f"project(pyccl VERSION {VERSION})\n",
        "pyproject.toml only",
        "cmake_minimum_required(VERSION 3.22)\n",
    ),
]

# path, text with a banned name, the same name where it is allowed
BANNED = [
    ("csrc/engine/a.cpp", "auto t = std::chrono::steady_clock::now();", "csrc/runtime/a.cpp"),
    ("csrc/engine/a.cpp", "auto t = std::time(nullptr);", None),
    ("csrc/engine/a.cpp", "auto t = time(0);", None),
    ("csrc/engine/a.cpp", "int x = rand();", None),
    ("tests/sim/a.cpp", "std::random_device device;", "csrc/runtime/a.cpp"),
    ("csrc/sim/a.cpp", "std::uniform_int_distribution<int> draw(1, 6);", None),
    ("csrc/protocol/a.hpp", "std::unordered_map<int, int> map;", "csrc/transport/a.hpp"),
    ("tests/engine/a.cpp", "std::this_thread::sleep_for(1ms);", None),
    ("csrc/engine/a.hpp", "std::mutex mutex_;", "csrc/base/queue.hpp"),
    ("csrc/engine/a.hpp", "std::lock_guard guard(m);", "csrc/runtime/a.hpp"),
    ("csrc/sim/a.hpp", "std::thread thread_;", "csrc/runtime/a.hpp"),
    ("pyccl/communicator.py", "import torch\n", "pyccl/torch/process_group.py"),
    ("pyccl/communicator.py", "    from torch import nn\n", "pyccl/optim/diloco.py"),
    ("csrc/engine/a.hpp", "int master = 0;", None),
]


@pytest.mark.parametrize(("rule", "path", "bad", "words", "good"), CASES)
def test_rule_finds_what_breaks_it(
    rule: rules.Rule, path: str, bad: str, words: str, good: str | None
) -> None:
    faults = rule(path, bad)
    assert len(faults) == 1, faults
    assert words in faults[0]
    if good is not None:
        assert rule(path, good) == []


@pytest.mark.parametrize(("path", "bad", "elsewhere"), BANNED)
def test_banned_name_is_found(path: str, bad: str, elsewhere: str | None) -> None:
    assert len(rules.banned_names(path, bad)) == 1
    if path.endswith((".cpp", ".hpp")):
        assert rules.banned_names(path, "// " + bad) == []
    if elsewhere is not None:
        assert rules.banned_names(elsewhere, bad) == []


def test_like_names_are_not_banned() -> None:
    innocent = "run_time(0); host.time(now); Time time(now.nanoseconds); grand(); asleep(3);"
    assert rules.banned_names("csrc/engine/a.cpp", innocent) == []


def test_header_that_nobody_includes_is_found() -> None:
    texts = {
        "csrc/base/used.hpp": "// A.",
        "csrc/base/unused.hpp": '#include "base/unused_too.hpp"',
        "tests/engine/helper.hpp": "// B.",
        "csrc/include/pyccl.h": "/* C. */",
        "csrc/base/a.cpp": '#include "base/used.hpp"\n#include <pyccl.h>\n',
        "tests/engine/a.cpp": '#include "engine/helper.hpp"\n',
    }
    assert rules.unused_headers(texts) == ["csrc/base/unused.hpp: nobody includes it"]


def test_headers_that_the_build_does_not_show_to_stand_alone_are_found() -> None:
    texts = {
        "csrc/base/shown.hpp": "// A.",
        "csrc/base/second.hpp": "// B.",
        "csrc/base/behind_a_macro.hpp": "// C.",
        "csrc/base/of_a_header.hpp": "// D.",
        "tests/engine/shown_too.hpp": '// E.\n#include "base/of_a_header.hpp"\n',
        "bench/base/elsewhere.hpp": "// F.",
        "csrc/include/pyccl.h": "/* G. */",
        "csrc/base/a.cpp": '// H.\n\n/* I. */ #include "base/shown.hpp"\n'
        '#include "base/second.hpp"\n',
        "csrc/base/b.cpp": '// J.\n#define K\n#include "base/behind_a_macro.hpp"\n',
        "csrc/base/c.cpp": '// L.\n#include <vector>\n#include "base/second.hpp"\n',
        "csrc/base/d.cpp": '// #include "base/second.hpp"\n#include "pyccl.h"\n',
        "tests/engine/a.cpp": '// M.\n#include "engine/shown_too.hpp"\n',
        "bench/a.cpp": '// N.\n#include "base/elsewhere.hpp"\n',
    }
    assert rules.headers_behind_others(texts) == [
        "csrc/base/second.hpp",
        "csrc/base/behind_a_macro.hpp",
        "csrc/base/of_a_header.hpp",
        "bench/base/elsewhere.hpp",
    ]


def test_functions_are_found_with_their_lines() -> None:
    text = """// A file.
#define BRACE {
namespace a {
struct Thing : Base {
  Thing(int x)
      : x_{x}, y_(x) {
    f("}", '}');  // }
  }
  int get() const { return x_; }
  Thing& operator=(const Thing&) { return *this; }
  int values_[2] = {1, 2};
};
auto table = make({1, 2});
template <class T>
  requires(sizeof(T) > 1)
auto deep(T x = {}) -> std::vector<T> {
  if (x) { return [&] { return x; }(); }
  const char* raw = R"(})";
  return {};
}
TEST_CASE("name") {
  x = 1'000'000;
}
}  // namespace a
"""
    found = [(one.name, one.first_line, one.last_line) for one in cpp.functions(text)]
    assert [(first, last) for _, first, last in found] == [
        (5, 8),
        (9, 9),
        (10, 10),
        (14, 20),
        (21, 23),
    ]
    assert found[0][0] == "Thing"
    assert found[-1][0] == "TEST_CASE"
