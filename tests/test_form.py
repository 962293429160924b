"""A module is read aloud: no function is long, and where a room was gone through, lines are short and say one thing."""

from __future__ import annotations

import pytest

from tests.form import Size, long_functions, measure
from tests.test_layers import MODULES, ROOMS, room

MOST_LINES = 60  # of a function, without its docstring and blank lines
MOST_TOKENS = 8.5  # on a line of code, on the average of a room


def test_no_function_is_long() -> None:
    found = {(m, name): lines for m, path in MODULES.items() for name, lines in long_functions(path.read_text(), MOST_LINES)}
    assert found == {}


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_line_says_one_thing(name: str) -> None:
    sources = [path.read_text() for module, path in MODULES.items() if room(module) == name]
    tokens, lines = (sum(sizes) for sizes in zip(*(measure(source) for source in sources), strict=True))
    assert tokens <= max(lines, 1) * MOST_TOKENS


def test_what_is_no_code_does_not_count() -> None:
    packed = 'def f():\n    """Says\n    what."""\n    return a, f"{b}c"  # why\n'
    spread = 'def f():\n    """Says what."""\n\n    # why\n    return (\n        a,\n        f"{b}c",\n    )\n'
    assert measure(packed) == Size(9, 2)
    assert measure(spread) == Size(12, 5)
    assert [*long_functions(packed, 1)] == [("f", 2)]
    assert [*long_functions(packed, 2)] == []
