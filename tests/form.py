"""The form of a module: its functions' lengths, its widest line, and how much stands on a line of code."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

_CODE = {tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING}
# From Python 3.12 on an f-string is several tokens; here it is one, as it was before.
_F_START, _F_END = getattr(tokenize, "FSTRING_START", None), getattr(tokenize, "FSTRING_END", None)


class Size(NamedTuple):
    """Tokens and lines of code; blank lines, comments and docstrings do not count."""

    tokens: int
    lines: int


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines on which a docstring stands."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            found |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return found


def measure(source: str) -> Size:
    """The size of a module's code."""
    docs, lines, tokens, depth = docstring_lines(ast.parse(source)), set[int](), 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.start[0] in docs:
            continue
        inside = depth > 0
        depth += (token.type == _F_START) - (token.type == _F_END)
        if token.type in _CODE or token.type in {_F_START, _F_END}:
            lines |= set(range(token.start[0], token.end[0] + 1))
            tokens += not inside
    return Size(tokens, len(lines))


def long_functions(source: str, most: int) -> Iterator[tuple[str, int]]:
    """The functions of more than `most` lines, blank ones and docstrings not counted, with their lines."""
    tree, text = ast.parse(source), source.splitlines()
    docs = docstring_lines(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            within = range(node.lineno, (node.end_lineno or 0) + 1)
            lines = sum(number not in docs and bool(text[number - 1].strip()) for number in within)
            if lines > most:
                yield node.name, lines
