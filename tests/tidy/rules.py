"""The rules of the tree, as pure functions from a path and its text to a list of faults.

Limits only ratchet down; a rule that turns out wrong is changed here, never excused at a place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import PurePosixPath

from tidy import cpp
from tidy.banned import BANNED

Rule = Callable[[str, str], list[str]]

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

CPP = (".cpp", ".hpp", ".h", ".c")
CODE = (*CPP, ".py", ".pyi")

# Who may include whom. The four between base and engine never include one another.
_BRACED = {"protocol", "collectives", "kernels", "transport"}
_ENGINE = {"base", *_BRACED, "engine"}
INCLUDES: dict[str, set[str]] = {
    "include": set(),
    "base": {"base"},
    **{layer: {"base", layer} for layer in _BRACED},
    "engine": _ENGINE,
    "runtime": {*_ENGINE, "runtime"},
    "sim": {*_ENGINE, "sim"},
    "api": {*_ENGINE, "runtime", "api"},
    "bindings": {*_ENGINE, "runtime", "bindings"},
}


def layer_of(path: str) -> str | None:
    """The layer of csrc/ that a file belongs to."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 and parts[0] == "csrc" else None


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def file_length(path: str, text: str) -> list[str]:
    lines = len(text.splitlines())
    if not path.endswith(CODE) or lines <= FILE_LINES_MAX:
        return []
    return [f"{path}: {lines} lines, at most {FILE_LINES_MAX}: find the seam and cut there"]


def line_length(path: str, text: str) -> list[str]:
    if not path.endswith(CODE):
        return []
    return [
        f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}"
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS_MAX
    ]


def function_length(path: str, text: str) -> list[str]:
    if path.endswith(CPP):
        sizes = [(one.name, one.first_line, one.lines) for one in cpp.functions(text)]
    elif path.endswith(".py"):
        sizes = [
            (node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
    else:
        return []
    return [
        f"{path}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
        for name, line, lines in sizes
        if lines > FUNCTION_LINES_MAX
    ]


def include_direction(path: str, text: str) -> list[str]:
    layer = layer_of(path)
    if layer is None or not path.endswith(CPP):
        return []
    if layer not in INCLUDES:
        return [f"{path}: {layer} is no layer that the table of includes knows"]
    faults = []
    for match in re.finditer(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE):
        target = match.group(1)
        where = f"{path}:{line_of(text, match.start())}"
        if target in ("pyccl.h", "pyccl_state.h", "pyccl_types.h"):
            continue
        if "/" not in target or target.startswith("."):
            faults.append(f'{where}: "{target}" does not begin with a layer')
        elif target.split("/")[0] not in INCLUDES[layer]:
            faults.append(f"{where}: {layer} may not include {target}")
    return faults


def banned_names(path: str, text: str) -> list[str]:
    faults = []
    code = cpp.blank(text) if path.endswith(CPP) else text
    for ban in BANNED:
        if not ban.applies_to(path):
            continue
        faults += [
            f"{path}:{line_of(code, match.start())}: {match.group().strip()}: {ban.why}"
            for match in ban.pattern.finditer(code)
        ]
    return faults


def opens_with_idea(path: str, text: str) -> list[str]:
    """Every file begins with what it is; package markers may be empty."""
    if path.endswith(CPP):
        opened = text.startswith(("//", "/*"))
    elif path.endswith((".py", ".pyi")):
        tree = ast.parse(text)
        opened = not tree.body or ast.get_docstring(tree) is not None
    else:
        return []
    return [] if opened else [f"{path}: opens with no comment that says what the file is"]


def include_guard(path: str, text: str) -> list[str]:
    if path.endswith(".hpp"):
        guarded = re.search(r"^#pragma once$", text, re.MULTILINE) is not None
    elif path.endswith(".h"):
        guarded = re.search(r"^#ifndef (\w+)\n#define \1$", text, re.MULTILINE) is not None
    else:
        return []
    return [] if guarded else [f"{path}: nothing keeps it from being included twice"]


def no_reminders(path: str, text: str) -> list[str]:
    # Put together here, so that this file passes its own rule.
    words = "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"])
    return [
        f"{path}:{line_of(text, match.start())}: {match.group()}: do it or drop it"
        for match in re.finditer(rf"\b({words})\b", text)
    ]


def version_once(path: str, text: str) -> list[str]:
    """The version stands in pyproject.toml; everything else asks there, or asks the package."""
    if not (path.endswith((*CODE, ".cmake", "Makefile", "CMakeLists.txt"))):
        return []
    pattern = r"""(?ix) \b\w*version\w* \s* (?: = | \s | :\s*str\s*= ) \s* ["']? \d+\.\d+\.\d+ """
    return [
        f"{path}:{line_of(text, match.start())}: {match.group().strip()}: "
        "the version stands in pyproject.toml only"
        for match in re.finditer(pattern, text)
    ]


RULES: list[Rule] = [
    file_length,
    line_length,
    function_length,
    include_direction,
    banned_names,
    opens_with_idea,
    include_guard,
    no_reminders,
    version_once,
]


def unused_headers(texts: dict[str, str]) -> list[str]:
    """Headers that no other file includes."""
    included = {
        target
        for path, text in texts.items()
        if path.endswith(CPP)
        for target in re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', text, re.MULTILINE)
    }
    # A header beside its only user may be included by its bare name.
    return [
        f"{path}: nobody includes it"
        for path in headers(texts)
        if not _included_as(path) & included and PurePosixPath(path).name not in included
    ]


def headers_behind_others(texts: dict[str, str]) -> list[str]:
    """Headers that no source of the build includes before all else: of the others the build itself
    shows that they need nothing before them. Both builds take their sources by folder."""
    first = set()
    for path, text in texts.items():
        if path.endswith(".cpp") and path.startswith(("csrc/", "tests/")):
            code = cpp.blank(text, strings=False).lstrip()
            match = re.match(r'#\s*include\s+"([^"]+)"', code)
            if match:
                first.add(match.group(1))
    return [path for path in headers(texts) if not _included_as(path) & first]


def headers(texts: dict[str, str]) -> list[str]:
    return [path for path in texts if path.endswith((".hpp", ".h"))]


def _included_as(path: str) -> set[str]:
    roots = ("csrc/include/", "csrc/", "tests/")
    return {path.removeprefix(root) for root in roots if path.startswith(root)}
