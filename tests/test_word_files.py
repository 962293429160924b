"""Files of words: what each mark of a phrase stands for."""

from __future__ import annotations

import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from agentgate.intents import deriver
from agentgate.intents.closeness import quantities
from agentgate.language.prompt import MAX_TURN
from agentgate.language.word_files import Forms, read

_MARKS = '''
[act.the]
class = "the|this"

[act.it]
class = """
it
THE _? bill(s)
"""

[act.end]
part = "(?=[.,]|\\\\Z)"

[act.1]
ways = "pay|send IT"

[act.2]
ways = "cut* ... by NUMBER"

[act.3]
ways = "half @END"

[act.4]
ways = "_'s turn"
'''
FILE = vars(Forms("act", _MARKS, number="[0-9]+"))


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (1, "pay it"),
        (1, "please send the bill"),
        (1, "send this\nlast bills"),
        (2, "cutting the rent by 5"),
        (2, "cut, if you can, by 5"),
        (3, "pay half, please"),
        (3, "pay half"),
        (4, "ann\u2019s turn"),
    ],
)
def test_a_phrase_is_found(n: int, text: str) -> None:
    assert FILE[str(n)].search(text)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (1, "prepay it"),
        (1, "re-send it"),
        (1, "pay items"),
        (1, "pay the of bill"),
        (1, "pay the old old bill"),
        (1, "pay  it"),
        (2, "cut the rent. Write by 5"),
        (2, "cut the rent thereby 5"),
        (2, "cut it by five"),
        (2, f"cut {'x' * 61} by 5"),
        (3, "half of it"),
        (3, "half-"),
        (4, "'s turn"),
    ],
)
def test_what_only_looks_like_a_phrase_is_not(n: int, text: str) -> None:
    assert FILE[str(n)].search(text) is None


@pytest.mark.parametrize("unit", ["all of the ", "every month ", "20 each ", "all three ", "all ", "each each "])
def test_a_longest_text_of_quantifiers_ends(unit: str) -> None:
    """Not a measurement: quadratic work on a longest turn takes minutes."""
    start = time.process_time()
    quantities((unit * MAX_TURN)[:MAX_TURN])
    assert time.process_time() - start < 5


def test_every_pattern_matches_its_examples_and_a_long_one_has_some() -> None:
    rows = tomllib.loads(read("forms.toml")) | tomllib.loads(read("quantities.toml"))
    intents = {path.stem for path in Path(deriver.__file__).parent.glob("*.py")}
    modules = {name: import_module(f"agentgate.{'intents' if name in intents else 'language'}.{name}") for name in rows}
    for table, forms in rows.items():
        for name, row in forms.items():
            assert {*row} <= {"is", "part", "ways", "class", "example"}
            assert "is" not in row or row.get("example") or "\n" not in row["is"].strip("\n"), (table, name)
            for example in row.get("example", ()):
                assert getattr(modules[table]._FORMS, name).search(example), (table, name, example)
