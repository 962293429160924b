"""What a token, a run or a store's request is made of is named where it is built: a swapped pair of texts is no type error."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import MODULES, room

MOST = 4  # values given by position
ROOMS = ("token", "gate", "stores", "redemption")
_MAKERS = {"__new__", "_make"}  # of a tuple: around its constructor, by position


def fields(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The classes of a module, and how many values one takes as far as its body says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            made = [f.args for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
            yield node.name, len(made[0].args) - 1 if made else sum(isinstance(each, ast.AnnAssign) for each in node.body)


def constructions(tree: ast.Module, classes: dict[str, int]) -> Iterator[tuple[int, str, int]]:
    """Line and class of what is built, and how many values it gets by position."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            within = {"cls": classes.get(node.name, 0), "Self": 0}
            yield from ((n, node.name, given) for n, name, given in _built(node, within) if name == "cls")
    yield from _built(tree, classes)


def _built(tree: ast.AST, classes: dict[str, int]) -> Iterator[tuple[int, str, int]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if name in _MAKERS and isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            if called.value.id in {*classes, "tuple"} and len(node.args) > (name == "__new__"):
                yield node.lineno, f"{called.value.id}.{name}", MOST + 1
        elif name in classes:
            yield node.lineno, name, sum(_given(each, classes[name]) for each in node.args)


def _given(argument: ast.expr, most: int) -> int:
    if not isinstance(argument, ast.Starred):
        return 1
    return len(argument.value.elts) if isinstance(argument.value, ast.Tuple | ast.List) else most


def test_nothing_is_built_of_more_than_four_values_by_position() -> None:
    classes: dict[str, int] = {}
    for path in MODULES.values():
        for name, size in fields(ast.parse(path.read_text())):
            classes[name] = max(size, classes.get(name, 0))  # two of one name: the larger
    found = {
        f"{module}:{line}: {name} of {given}"
        for module, path in MODULES.items()
        if room(module) in ROOMS
        for line, name, given in constructions(ast.parse(path.read_text()), classes)
        if given > MOST
    }
    assert found == set()


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("P(1, 2, 3, 4)", 4),
        ("module.P(1, 2, 3, 4, 5)", 5),
        ("P(1, *(2, 3), **more)", 3),
        ("P(*values)", 7),
        ("P(e=1, *values)", 7),
        ("tuple.__new__(P, (1, 2))", 5),
        ("P._make(values)", 5),
        ("P.__new__(P, a=1)", None),
        ("super().__new__(P, 1)", None),
        ("other(1, 2, 3, 4, 5)", None),
    ],
)
def test_what_counts_as_given_by_position(code: str, given: int | None) -> None:
    assert [n for _, _, n in constructions(ast.parse(code), {"P": 7})] == ([] if given is None else [given])


def test_a_class_method_builds_its_own_class() -> None:
    tree = ast.parse("class P:\n    a: int\n    b: int\n    def of(cls, x):\n        return cls(1, 2, 3, 4, 5)\n")
    assert dict(fields(tree)) == {"P": 2}
    assert [*constructions(tree, {"P": 2})] == [(5, "P", 5)]
