"""Terminals are outputs: what a store, a log, a file or a server says moves no cursor and begins no line of its own, in any command."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
import typer
from typer.testing import CliRunner

import agentgate.cli
import agentgate_demo.show
from agentgate.audit import FileAudit
from agentgate.cli.commands import HELP
from agentgate.cli.main import app
from agentgate.decision.hold import Hold, text_lines
from agentgate.gate.holds.codec import hold_of
from agentgate.shell import log
from agentgate.stores import ops
from agentgate.values.visible import UNSEEN, markdown, visible
from agentgate_conformance._book import ask
from tests.shop import WORKFLOW
from tests.test_cli_holds import Desk
from tests.test_cli_holds import desk as desk  # noqa: PLC0414 - the fixture

HOSTILE = (
    "x\x1b[2J\x1b[1A\x9b2K\x1b]8;;https://evil.example\x07link\x1b]8;;\x07\r\b\x7f\u202e\u2066\u2028\u2029\u200b\u3164\ufeff"
    "\nFORGED [bold red]M[/bold red] :bomb:"
)
SHORT = "x\x1b[2J\x9b2K\r\u202e\u2028\u200b\nFORGED"
_STYLE = re.compile(r"\x1b\[[0-9;]*m|\r?\x1b\[(?:2K|1A|\?25[lh])")  # colours, and a progress bar's own moves
Command = Callable[..., str]


@pytest.fixture(params=["pipe", "terminal"])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command, where its output is looked at for whatever is not plain text."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: str, **env: str) -> str:
        done = CliRunner().invoke(app, list(words), env=env)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return plain(done.output)

    return run


def plain(output: str) -> str:
    """The output without its own colours; refused where a terminal would obey any of the rest."""
    text = _STYLE.sub("", output)
    assert [char for char in text if char != "\n" and not (char.isprintable() and UNSEEN.search(char) is None)] == []
    assert [line for line in text.split("\n") if line.lstrip(" │").startswith("FORGED")] == []
    return text


def filled(value: Any, *but: str) -> Any:
    """A JSON value with every text in it hostile, but those of these names."""
    if isinstance(value, dict):
        return {name: each if name in but else filled(each, *but) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, *but) for each in value]
    return HOSTILE if isinstance(value, str) else value


def every() -> Iterator[tuple[str, Any]]:
    """Each command by its words, with its parameters."""
    root: Any = typer.main.get_command(app)
    for name in HELP:
        found: Any = root
        for word in name.split():
            found = found.get_command(typer.Context(found), word)
        if not hasattr(found, "commands"):
            yield name, found


COMMANDS = dict(every())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_option_has_its_help_and_none_is_told_of_that_is_not_there(name: str) -> None:
    parameters = {each.name: each for each in COMMANDS[name].params}
    assert [each for each, parameter in parameters.items() if not parameter.help] == []
    assert HELP[name].options.keys() <= parameters.keys()


def test_a_flag_that_is_off_has_no_twin() -> None:
    twins = [(name, each.name) for name, found in COMMANDS.items() for each in found.params if getattr(each, "secondary_opts", ())]
    assert twins == [("root new", "sign_it"), ("workflow approve", "index")]


def test_no_module_of_the_commands_prints_but_one() -> None:
    folders = [Path(agentgate.cli.__file__).parent, Path(agentgate_demo.show.__file__).parent]
    ways = {"print", "echo", "secho", "Console", "Table", "track", "stdout", "stderr"}
    found = {
        (path.name, getattr(node, "attr", getattr(node, "id", "")))
        for folder in folders
        for path in folder.glob("*.py")
        if path.name != "output.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Name, ast.Attribute)) and getattr(node, "attr", getattr(node, "id", "")) in ways
    }
    # the version of this package; what ssh-add said; whether somebody is at the terminal; where a server process logs
    assert found == {("main.py", "echo"), ("signing.py", "stdout"), ("show.py", "stderr")}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_stands_on_the_command_line_is_no_command_to_the_terminal(
    command: Command, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of files, which a shell puts there, are somebody else's text."""
    monkeypatch.chdir(tmp_path)
    words = name.split()
    command(*words, f"--{HOSTILE}")
    arguments = [HOSTILE for each in COMMANDS[name].params if each.param_type_name == "argument"]
    command(*words, *arguments, HOSTILE)
    if name not in {"serve", "demo"}:
        command(*words, *arguments)
    for each in COMMANDS[name].params:
        if each.param_type_name == "option" and not each.is_flag and name != "demo":
            command(*words, *[SHORT] * len(arguments), each.opts[0], HOSTILE)


def test_a_hold_that_somebody_wrote_into_the_store(command: Command, desk: Desk) -> None:
    _, made = desk.held()
    store: Any = redis.Redis.from_url(desk.server.url)
    key = f"ag:{{acme}}:hold:{made}"
    kept = store.hget(key, "body")
    who = {"id": HOSTILE, "tenant": "acme", "groups": [], "identity": "proven", "channel": "ssh", "proof": {"nonce": HOSTILE}}
    body = {**filled(json.loads(kept), "id", "tenant", "run"), "approvers": [who]}
    store.hset(key, mapping={"body": json.dumps(body), "sensitive": json.dumps({HOSTILE: HOSTILE})})
    where = ["--store", desk.server.url, "--tenant", "acme"]
    listed, shown = command("holds", "list", *where), command("holds", "show", made, *where)
    watched = command("holds", "watch", *where, "--seconds", "0.01")
    for text in (listed, shown):
        assert "not verified: as the store has it" in text
    assert all("\\nFORGED [bold red]M[/bold red] :bomb:" in text for text in (listed, shown, watched))
    command("holds", "list", "--json", *where)
    signing = ["--audit", str(desk.folder / "mine"), "--workflows", str(desk.folder / "w"), "--root", desk.root]
    for said in ("release", "refuse"):
        refused = command("holds", said, made, *where, *signing, "--key", str(desk.folder / "mona"), "--accept", HOSTILE)
        assert "Nothing was signed" in refused
    question = stored(desk, made).question
    for line in text_lines(replace(question, words=(HOSTILE,))):  # what the callback at a terminal shows, too
        assert plain(line + "\n")
    store.hset(key, "body", kept)


def stored(desk: Desk, hold_id: str) -> Hold:
    record = ask(desk.gate._store, ops.read_hold("acme", hold_id))
    assert record is not None
    return hold_of(record)


def test_what_is_revoked_and_why(command: Command, desk: Desk) -> None:
    ask(
        desk.gate._store,
        ops.revoke(
            "acme", "user", SHORT.replace("\n", " "), told=json.dumps({"by": HOSTILE, "reason": HOSTILE, "at": 1}).encode(), life_ms=60_000
        ),
    )
    where = ["--store", desk.server.url, "--tenant", "acme", "--audit", str(desk.folder / "audit")]
    assert "FORGED" in command("revoke", "--list", *where)
    command("revoke", f"user:{HOSTILE}", "--reason", HOSTILE, *where)
    command("revoke", "user:lee", "--lift", "--reason", HOSTILE, *where)


def test_an_audit_log(command: Command, desk: Desk, tmp_path: Path) -> None:
    run, made = desk.held()
    folder = tmp_path / "forged"
    records = [json.loads(line)["record"] for path in (desk.folder / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    decisions = [each for each in records if "tool_call_id" in each]
    assert decisions
    forged = FileAudit(folder)
    for each in decisions:
        forged.append(filled(each, "type", "tenant", "run", "tool_call_id", "id", "decision", "hold"), time.monotonic() + 5)
    answer = {"type": "hold_answer", "tenant": "acme", "run": run.id, "hold": made, "workflow": {"id": HOSTILE, "version": 1}}
    for number in range(25):
        rules = {"rules": [HOSTILE], "by": f"{HOSTILE}{number}", "answer": "release", "state": "released", "seconds": 1.0}
        forged.append({**answer, **rules, "time": 1.0 * number}, time.monotonic() + 5)
    forged.close()
    (folder / f"{SHORT}.jsonl").write_text("{}\n")
    command("audit", "verify", str(folder))
    command("doctor", "--audit", str(folder))
    command("holds", "stats", "--audit", str(folder))
    for name in ("pay", made, "look"):
        command("explain", name, "--audit", str(folder))
        command("explain", name, "--audit", str(folder), "--workflows", str(desk.folder / "w"))
    command("store", "reconcile", "--store", desk.server.url, "--audit", str(folder))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pull request with hostile names and texts."""
    monkeypatch.chdir(tmp_path)
    w = tmp_path / "w"
    w.mkdir()
    (w / "refund.yaml").write_text(WORKFLOW)

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.email=a@b.example", "-c", "user.name=a", *words], check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "one")
    title = r"\nFORGED [bold red]M[/bold red] <img src=x onerror=alert(1)> ![i](https://evil.example) | @team #12"
    changed = re.sub(r"(?m)^title:.*$", lambda _: f'title: "{title}"', WORKFLOW, count=1)
    (w / "refund.yaml").write_text(changed.replace("39.99", "49.99").replace("150.00", "250.00"))
    (w / f"{SHORT}.yaml").write_text(WORKFLOW.replace("id: shop.refund", f'id: "{SHORT!r}"'))
    (w / "bad.yaml").write_bytes(f"id: {HOSTILE}\n{HOSTILE}: [\n".encode())
    (w / "worse.yaml").write_text(WORKFLOW.replace("title:", f"{HOSTILE!r}: 1\ntitle:"))
    (w / "refund.test.yaml").write_text(f"base: {{prompt: {json.dumps(HOSTILE)}}}\ncases: []\n")
    return w


def test_the_files_of_a_pull_request(command: Command, repository: Path) -> None:
    w = str(repository)
    for words in (["lint"], ["test"], ["status"], ["check"], ["check", "--markdown"]):
        target = ["-d", w] if words[0] == "status" else [w]
        command("workflow", *words, *target)
    for file in sorted(map(str, repository.glob("*.yaml"))):
        for words in (["lint"], ["test", "-v"], ["approve"], ["heard"]):
            command("workflow", *words, file, *[HOSTILE] * (words[0] == "heard"))
        command("workflow", "diff", "HEAD:w/refund.yaml", file)
        command("workflow", "diff", "HEAD:w/refund.yaml", file, "--markdown")
        command("explain", "--workflow", file, "--tool", HOSTILE, "--args", "{}", "--prompt", HOSTILE)
        command(
            "explain", "--workflow", file, "--tool", "payments.refund", "--args", json.dumps({"order_id": HOSTILE}), "--prompt", HOSTILE
        )
    text = command("workflow", "check", w, "--markdown")
    assert not {"<img", "](http", "| @team", "@team"} & {part for part in ("<img", "](http", "@team") if part in text}
    command("doctor", "--workflows", w)
    command("root", "show", "-d", w)


def test_tools_that_somebody_declared(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    schema = {"type": "object", "properties": {HOSTILE: {"type": "string", "description": HOSTILE}}, "required": [HOSTILE]}
    tools = [{"name": name, "description": HOSTILE, "inputSchema": schema} for name in (HOSTILE, "send_mail")]
    Path("tools.json").write_text(json.dumps({"tools": tools}))
    command("workflow", "new", "tools.json", "--out", "w")
    command("init", "tools.json", "--accept", "no")
    Path("episodes.jsonl").write_text(
        json.dumps(filled({"id": "", "suite": "", "workflow": "", "prompt": "", "steps": [{"tool": "", "args": {}}]}))
    )
    Path("w2").mkdir()
    Path("w2/refund.yaml").write_text(WORKFLOW)
    for more in ([], ["--confused-deputy"], ["--list"]):
        command("evaluate", "episodes.jsonl", "--workflows", "w2", "--unsafe-unapproved", *more)


@pytest.fixture
def server() -> Iterator[str]:
    """A gate, or a tool server, that answers what it likes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = json.dumps({"error": HOSTILE, "error_description": HOSTILE, "access_token": HOSTILE, "token_type": HOSTILE}).encode()
            self.send_response(400 if "oauth2" in self.path else 200, "x\x9b2K")
            self.send_header("Content-Type", "application/json")
            self.send_header("WWW-Authenticate", 'DPoP error="x\x9b2K"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - as the server calls it

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_what_a_server_answers(command: Command, server: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.AAAA")
    given = ["--client", "c", "--workflow", "w", "--tool", "t", "--subject", f"file:{tmp_path / 'token'}"]
    assert "FORGED" in command("exchange", server, *given, "--args", "{}") + "FORGED"
    command("probe", server, *given)
    command("probe", server)


def test_the_log_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(structlog._config, "_CONFIG", structlog._config._Configuration())
        log.configure(0)
        structlog.get_logger("x").warning(HOSTILE, tenant=HOSTILE, reasons=[HOSTILE], error=ValueError(HOSTILE))
        assert "FORGED" in plain(stream.getvalue())


@pytest.mark.parametrize(
    "char", ["\x1b", "\x9b", "\x7f", "\u202e", "\u2028", "\u200b", "\u00ad", "\u034f", "\u115f", "\u3164", "\ufe0f", "\U000e0101"]
)
def test_no_character_that_is_not_seen_stays(char: str) -> None:
    assert visible(f"a{char}b").isascii()


def test_no_formula_of_a_forge_comes_of_text() -> None:
    assert "$" not in markdown("$x$")
