"""Just enough of C++ to measure it: comments and strings blanked out, functions found by braces."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Raw strings first, since quotes and slashes mean nothing inside them.
_NOT_CODE = re.compile(
    r"""R"(?P<tag>[^()\s\\]*)\(.*?\)(?P=tag)"   # raw string
      | //(?:\\\n|[^\n])*                       # line comment
      | /\*.*?\*/                               # block comment
      | "(?:\\.|[^"\\\n])*"                     # string
      | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'     # character, but not the mark in 1'000
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = ("//", "/*")
_CONTROL = re.compile(r"\b(if|for|while|switch|catch|do|else|try)\b")
_SCOPE = re.compile(r"\b(namespace|class|struct|enum|union|extern)\b")


@dataclass(frozen=True)
class Function:
    """A function body with its head, in lines counted from 1, both ends included."""

    name: str
    first_line: int
    last_line: int

    @property
    def lines(self) -> int:
        return self.last_line - self.first_line + 1


def blank(text: str, *, strings: bool = True) -> str:
    """Replace comments, and strings too unless told otherwise, by spaces; lines stay lines."""

    def spaces(match: re.Match[str]) -> str:
        found = match.group()
        if not strings and not found.startswith(_COMMENT):
            return found
        return re.sub(r"[^\n]", " ", found)

    return _NOT_CODE.sub(spaces, text)


def _blank_directives(code: str) -> str:
    """Blank preprocessor lines with their continuations: braces in macros need not match."""
    return re.sub(
        r"^[ \t]*#(?:\\\n|[^\n])*",
        lambda match: re.sub(r"[^\n]", " ", match.group()),
        code,
        flags=re.MULTILINE,
    )


def _closing(code: str, opening: int) -> int:
    """Position of the brace that closes the one at `opening`; the end of the text if none does."""
    depth = 0
    for position in range(opening, len(code)):
        if code[position] == "{":
            depth += 1
        elif code[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return len(code) - 1


def _without_parentheses(head: str) -> str:
    previous = None
    while previous != head:
        previous, head = head, re.sub(r"\([^()]*\)", " @ ", head)
    return head


def _is_function(head: str) -> bool:
    flat = _without_parentheses(re.sub(r"\boperator\s*[^\s\w(]+", "operator", head))
    if "@" not in flat or _CONTROL.search(flat):
        return False
    # What stands before the parameters tells a function from a type or an initialized variable.
    before = re.sub(r"\btemplate\s*<[^{}]*>", "", flat.split("@")[0])
    return not (_SCOPE.search(before) or "=" in before)


def _is_member_initializer(code: str, head: str, opening: int, closing: int) -> bool:
    """Is this brace one of `Type() : member_{...}, other_{...} {`?"""
    after = code[closing + 1 :].lstrip()[:1]
    flat = _without_parentheses(head)
    named = re.search(r"[\w>]\s*$", code[:opening])
    return bool(named and re.search(r"@[^:]*:[^:]", flat) and after in {",", "{"})


def functions(text: str) -> list[Function]:
    """The outermost functions of a file, lambdas inside them included in their length."""
    code = _blank_directives(blank(text))
    found: list[Function] = []
    position = head_start = 0
    while position < len(code):
        character = code[position]
        if character in ";}":
            head_start = position + 1
        elif character == "{":
            head = code[head_start:position]
            closing = _closing(code, position)
            inside_parameters = head.count("(") > head.count(")")
            if inside_parameters or _is_member_initializer(code, head, position, closing):
                position = closing
            elif _is_function(head):
                start = head_start + len(head) - len(head.lstrip())
                name = re.search(r"([\w:~]+)\s*\(", head)
                first, last = (code.count("\n", 0, at) + 1 for at in (start, closing))
                found.append(Function(name.group(1) if name else "?", first, last))
                position = closing
                head_start = closing + 1
            else:
                head_start = position + 1
        position += 1
    return found
