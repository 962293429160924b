"""``agentgate workflow new`` and ``agentgate init``, as a developer runs them on tools of their own."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from agentgate.approvals import root_digest
from agentgate.cli.main import app
from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.decision.hold import Question
from agentgate.gate.gate import Gate
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.values.refusal import AnswerRefused
from agentgate.values.request import Agent, User
from tests.preloaded import AGENTGATE, run_at_terminal, run_code

ROOT = Path(__file__).parent.parent
SHOP = """\
print("the module says hello")
from typing import Literal
from langchain_core.tools import tool

@tool
def orders_get(order_id: str, lang: Literal["en", "de"] = "en") -> dict:
    \"\"\"Look up an order by its number.\"\"\"
    return {"order_id": order_id, "status": "shipped"}

@tool
def orders_cancel(order_id: str, reason: str) -> str:
    \"\"\"Cancel an order.\"\"\"
    raise SystemExit("a tool that init must not call")

tools = [orders_get, orders_cancel]
nested = type("Holder", (), {"reads": [orders_get]})
acting = [orders_cancel]

@tool
def visits(order_id: str) -> str:
    \"\"\"Visits of an order.\"\"\"
    return order_id

silent = [visits]

@tool
def search_docs(query: str) -> str:
    \"\"\"Search the handbook.\"\"\"
    return query

open_ended = [search_docs]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module of tools, and an empty home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "app").mkdir()
    for name in ("SSH_AUTH_SOCK", "AGENTGATE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path / "app")
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("shop_module.py").write_text(SHOP)
    yield tmp_path
    sys.modules.pop("shop_module", None)
    structlog.reset_defaults()


@pytest.fixture
def key(place):
    (place / "home/.ssh").mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "home/.ssh/id_ed25519")], check=True)


def run(*args: str, code: int = 0):
    result = CliRunner().invoke(app, list(args), env={"NO_COLOR": "1", "COLUMNS": "100"})
    assert result.exit_code == code, f"{result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def new(*args: str, code: int = 0):
    return run("workflow", "new", "--id", "shop.orders", *args, code=code)


LANGCHAIN = ("--langchain", "shop_module:tools")


def test_a_draft_of_langchain_tools_passes_lint_and_its_tests(place):
    shown = new(*LANGCHAIN, "--tenant", "acme").stdout
    assert "wrote workflows/shop/orders.yaml" in shown
    assert "2 to decide (each is refused until then)" in shown
    assert "reason: free text; how long may it be, or which values?" in shown
    assert "undecided" in run("workflow", "lint", "workflows").stdout
    run("workflow", "lint", "--strict", "workflows", code=1)
    assert "cases hold" in run("workflow", "test", "workflows").stdout


def test_a_draft_for_a_program(place):
    said = json.loads(new(*LANGCHAIN, "--json").stdout)
    assert [(t["name"], t["effect"], t["undecided"]) for t in said["tools"]] == [
        ("orders_get", "read", []),
        ("orders_cancel", "destructive", ["reason"]),
    ]
    assert [d["line"] for d in said["decide"]] == sorted(d["line"] for d in said["decide"])


def test_nothing_is_overwritten(place):
    new(*LANGCHAIN)
    Path("workflows/shop/orders.yaml").write_text("mine")
    assert "there already" in new(*LANGCHAIN, code=1).stderr
    assert Path("workflows/shop/orders.yaml").read_text() == "mine"
    Path("workflows/shop/orders.yaml").unlink()
    new(*LANGCHAIN, code=1)  # its tests are still there
    assert not Path("workflows/shop/orders.yaml").exists()


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--langchain", "shop_module:tools", "--mcp", "shop_module.py"),
        ("--langchain", "shop_module:nothing"),
        ("--langchain", "gone:tools"),
        ("--mcp", "shop_module.py"),
        ("--mcp", "gone.json"),
        (*LANGCHAIN, "--out", "x.txt"),
        (*LANGCHAIN, "--out", "shop_module.py/x.yaml"),
        (*LANGCHAIN, "--tenant", "a b"),
        (*LANGCHAIN, "--id", "a b"),
    ],
)
def test_what_cannot_be_drafted_is_an_error_and_writes_nothing(place, args):
    assert new(*args, code=1).stderr
    assert not list(place.rglob("*.yaml"))


def test_only_the_module_that_was_named_is_imported(place):
    Path("tools.json").write_text(
        json.dumps({"tools": [{"name": "get_x", "inputSchema": {"type": "object"}, "description": "__import__('shop_module')"}]})
    )
    new("--mcp", "tools.json")
    assert "shop_module" not in sys.modules


def test_a_module_that_fails_to_import_is_named_and_no_traceback_is_shown(place):
    Path("broken_module.py").write_text("raise RuntimeError('\\x1b[31mno database')")
    shown = new("--langchain", "broken_module:tools", code=1).stderr
    assert "RuntimeError" in shown
    assert shown.replace("\n", "").isprintable()


IN_PROCESS = pytest.mark.thorough("test_terminal runs it in this process")


@pytest.mark.parametrize("command", ["new", "lint", *(pytest.param(each, marks=IN_PROCESS) for each in ("lint a draft", "test", "diff"))])
def test_what_files_hold_and_are_called_cannot_act_on_a_terminal(place, command):
    attack = "\x1b]0;owned\x07\x1b[2J\u202e\u200b"
    tools = [
        {"name": f"get_{n}", "description": attack, "inputSchema": {"properties": {attack: {"type": "string"}}}} for n in ("x", attack)
    ]
    Path("tools.json").write_text(json.dumps({"tools": tools}))
    Path(attack).mkdir()
    new("--mcp", "tools.json", "--out", f"{attack}/w.yaml")
    if command != "lint a draft":
        Path(f"{attack}/w.yaml").write_text(Path(f"{attack}/w.yaml").read_text().replace("effect: read", "effect: red"))
    arguments = {
        "new": ["--id", "a.b", "--mcp", "tools.json", "--out", f"{attack}/again.yaml"],
        "lint": [attack],
        "lint a draft": [attack],
        "test": [attack],
        "diff": [f"{attack}/w.yaml", f"{attack}/w.yaml"],
    }
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    done = run_at_terminal(AGENTGATE, "workflow", command.split()[0], *arguments[command], env=env)
    assert done.stdout
    assert re.sub(r"\x1b\[[0-9;]*m|[\r\n]", "", done.stdout).isprintable()  # colours are our own
    assert "Traceback" not in done.stdout


# --- init ----------------------------------------------------------------------------------------------------------------------


def test_one_command_and_one_answer_lead_to_an_approved_workflow_and_a_guarded_call(place, key):
    env = {**os.environ, "COLUMNS": "100"}
    done = run_at_terminal(AGENTGATE, "init", *LANGCHAIN, "--name", "lee@acme.example", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Sign it? yes or no") == 1
    assert "refused" in done.stdout
    assert root_digest("workflows") in done.stdout
    run("workflow", "status", "-d", "workflows")


def test_the_one_reviewer_widens_what_they_made_and_nobody_else_is_asked_for(place, key):
    said = json.loads(run("init", *LANGCHAIN, "--yes", "--json", "--name", "lee@acme.example").stdout)
    [file] = [path for path in Path("workflows").rglob("*.yaml") if path.read_text().startswith("# Drafted") and ".test." not in path.name]
    text = file.read_text()
    file.write_text(text.replace("version: 1", "version: 2").replace("max: 20, per: turn", "max: 30, per: turn"))
    [name] = re.findall(r"^id: (.*)$", text, re.MULTILINE)
    shown = run("workflow", "approve", name, "-d", "workflows", "--accept", f"{name} v2, 1 wider").stdout
    assert "STILL TO SIGN: 1 of lee@acme.example for **" in shown
    assert "another reviewer" not in shown
    assert "in force: v2" in shown
    assert root_digest("workflows") == said["root"]


MODEL = """\
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

class Model(GenericFakeChatModel):
    def bind_tools(self, *tools, **more):
        return self

def ask_for(*orders):
    calls = [{"name": "orders_get", "args": {"order_id": order}, "id": order} for order in orders]
    return Model(messages=iter([AIMessage("", tool_calls=calls), AIMessage("done")]))
"""


ONE = pytest.param(("A-1",), id="one call", marks=pytest.mark.thorough("each of two calls in one step is answered in the same way"))


@pytest.mark.parametrize("orders", [ONE, pytest.param(("A-1", "A-2"), id="two calls in one step")])
def test_the_lines_it_prints_run_and_those_for_an_agent_answer_whatever_is_held(place, key, orders):
    said = json.loads(run("init", *LANGCHAIN, "--yes", "--json").stdout)
    assert len(said["paste"]) == 13
    lines = "\n".join([*said["paste"], MODEL, *said["agent"], "print([message.content for message in out['messages']])"])
    done = run_code(lines.replace('"provider:model"', f"ask_for{orders}").replace(", confirm=ask", ""))
    results = [json.dumps({"order_id": order, "status": "shipped"}) for order in orders]
    assert "{'order_id': 'A-10023344', 'status': 'shipped'}" in done.stdout, done.stderr  # of the call that the first lines make
    assert "root_solo" in done.stdout + done.stderr
    assert str(["...", "", *results, "done"]) in done.stdout, done.stderr


def test_every_tool_can_be_used_and_an_act_waits_for_the_users_own_yes(place, key, tmp_path):
    said = json.loads(run("init", *LANGCHAIN, "--yes", "--json", "--tenant", "acme").stdout)
    with Gate.open("workflows", root=said["root"], issuer="https://g.example", keys=tmp_path / "k", audit=str(tmp_path / "a")) as gate:
        [workflow] = gate.catalog
        assert (list(workflow.tools), workflow.risk, workflow.tenants) == (["orders_get", "orders_cancel"], "low", ("acme",))
        user, definitions = User("kim", tenant="acme"), {t.name: t.definition for t in workflow.tools.values()}
        opened = gate.open_run(workflow.id, tenant="acme", user=user, agent=Agent("a"), prompt="Cancel A-10023344")
        args = {"order_id": "A-10023344", "reason": "too late"}
        held = opened.authorize("orders_cancel", args, tool_call_id="c1", definition=definitions["orders_cancel"])
        assert isinstance(held, StepUp), held
        with pytest.raises(AnswerRefused):
            gate.release(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
        gate.release(held.hold.id, tenant="acme", by=user)
        answer = opened.authorize("orders_cancel", args, tool_call_id="c1", definition=definitions["orders_cancel"])
        assert isinstance(answer, Allow), answer
        named, found = ({"order_id": order} for order in ("A-10023344", "A-10023399"))
        assert isinstance(opened.authorize("orders_get", named, definition=definitions["orders_get"]), Allow)
        assert isinstance(opened.authorize("orders_get", found, definition=definitions["orders_get"]), StepUp)
        looking = gate.open_run(workflow.id, tenant="acme", user=user, agent=Agent("a"), prompt="What is A-10023344?")
        assert isinstance(looking.authorize("orders_cancel", args, definition=definitions["orders_cancel"]), Deny)


ODD = """\
from typing import Annotated, Literal
from langchain.tools import InjectedState, ToolRuntime
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel

class Period(BaseModel):
    since: str
    until: str | None = None

@tool
async def search_bikes(query: str, most: int = 5) -> list[dict]:
    \"\"\"Search the catalogue.\"\"\"
    return [{"sku": "BK-1001", "query": query}]

@tool
def list_repairs(customer: str, user_id: Annotated[str, InjectedToolArg], status: list[Literal["open", "done"]] = []) -> str:
    \"\"\"List repairs.\"\"\"
    return user_id

@tool
def revenue(shop: Literal["north", "south"], period: Period, runtime: ToolRuntime) -> str:
    \"\"\"Get the revenue of a shop.\"\"\"
    return shop

@tool(response_format="content_and_artifact")
def note_repair(note: str, state: Annotated[dict, InjectedState]) -> tuple[str, dict]:
    \"\"\"Add a note.\"\"\"
    return note, {"note": note}

schema = {"type": "object", "properties": {"path": {"type": "string"}, "$deep": {"type": "boolean"}, "more": {"type": "object"}}}
async def listing(**values): return sorted(values.items())
over_mcp = StructuredTool(name="list_files", description="List files.", args_schema=schema, coroutine=listing)
tools = [search_bikes, list_repairs, revenue, note_repair, over_mcp]
searching = [search_bikes]
injected = [list_repairs]
"""


def test_tools_of_every_kind_are_drafted_whole(place, key):
    Path("odd_module.py").write_text(ODD)
    said = json.loads(run("init", "--langchain", "odd_module:tools", "--yes", "--json").stdout)
    text = Path(said["workflow"]).read_text()
    assert "DECIDE" not in text
    for part in (
        "most: {type: integer, optional: true}",
        "status: {each_in: [open, done], max_items: 50, optional: true}",
        "period.until: {text: 2000, optional: true, nullable: true}",
        "effect: read                            # CHECK: its description begins with 'get'",
        "note: {text: 2000, from: [model]}",
        "'$deep': {type: boolean, optional: true}",
        "more: {type: json, text: 4000, optional: true}",
        "{id: ask-note_repair, for: note_repair, approvers: {user: true}, timeout: 10m}",
    ):
        assert part in text, part
    assert "user_id" not in text
    agent = "\n".join(said["agent"])
    assert 'inject=lambda context: {"user_id": ...})' in agent
    assert "asyncio.run(agent.ainvoke(" in agent
    compile(agent, "agent", "exec")


DESK = """\
from typing import Annotated, Literal
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel

class Money(BaseModel):
    amount: float
    currency: str

@tool
async def search_orders(query: str, status: list[Literal["open", "shipped"]] = []) -> dict:
    \"\"\"Search orders by words.\"\"\"
    return {"orders": [{"id": "ORD-1001", "customer": "kim@acme.example"}]}

@tool
def get_order(order_id: str) -> dict:
    \"\"\"Look up one order.\"\"\"
    return {"order_id": order_id, "total": 49.9, "currency": "EUR", "customer": "kim@acme.example"}

@tool
def refund_order(order_id: str, money: Money) -> dict:
    \"\"\"Refund an order.\"\"\"
    return {"refund_id": "RF-77"}

@tool
def list_notes(customer: str, user_id: Annotated[str, InjectedToolArg]) -> str:
    \"\"\"List notes about a customer.\"\"\"
    return f"notes of {customer} for {user_id}"

async def listing(**values): return "a.txt", {"files": [{"id": "F-1"}]}
schema = {"type": "object", "properties": {"folder": {"type": "string", "maxLength": 80}}, "required": ["folder"]}
mcp_files = StructuredTool(
    name="list_files", description="List files.", args_schema=schema, coroutine=listing, response_format="content_and_artifact"
)
tools = [search_orders, get_order, refund_order, list_notes, mcp_files]
"""


def test_five_tools_of_every_kind_can_all_be_used_and_what_one_returned_the_next_may_take(place, key):
    Path("desk_module.py").write_text(DESK)
    found, order = {"orders": [{"id": "ORD-7", "customer": "x@y.example"}]}, {"order_id": "ORD-7", "total": 3, "currency": "EUR"}
    lines = [("search_orders", found), ("get_order", {**order, "customer": "x@y.example"}), ("list_notes", "no facts")]
    Path("results.jsonl").write_text("\n".join(json.dumps({"tool": name, "result": result}) for name, result in lines))
    tools = ("--langchain", "desk_module:tools", "--results", "results.jsonl")
    said = run("init", *tools, "--id", "desk", "--tenant", "acme", "--yes").stdout
    assert "facts of get_order: total, currency, customer" in said
    assert "facts of list_notes: none: text is not read" in said
    assert json.loads(run("workflow", "new", *tools, "--id", "b", "--out", "b/b.yaml", "--json").stdout)["tools"][0]["facts"] == [
        "id",
        "customer",
    ]
    desk, asked = importlib.import_module("desk_module"), list[str]()

    def yes(question: Question) -> bool:
        asked.append(question.tool)
        return True

    with Gate.open("workflows", root=root_digest("workflows"), issuer="https://g", keys="k", audit="a", confirm=yes) as gate:
        lee = User("lee", tenant="acme")
        opened = gate.open_run("desk", tenant="acme", user=lee, agent=Agent("a"), prompt="Please refund my hose")
        tool = {t.name: t for t in guard_tools(desk.tools)}

        def call(name: str, **args: object) -> str:
            return str(asyncio.run(tool[name].ainvoke({"type": "tool_call", "name": name, "id": name, "args": args})).content)

        with use_run(opened, inject={"user_id": "u7"}):
            assert "ORD-1001" in call("search_orders", query="hose")
            assert "49.9" in call("get_order", order_id="ORD-1001")  # found, not named
            assert "notes of kim@acme.example for u7" in call("list_notes", customer="kim@acme.example")
            assert call("list_files", folder="in") == "a.txt"
            assert "RF-77" in call("refund_order", order_id="ORD-1001", money={"amount": 49.9, "currency": "EUR"})
    assert asked == ["refund_order"]
    sys.modules.pop("desk_module")


FREE = """\
from typing import Annotated
from langchain_core.tools import tool
from pydantic import BaseModel, Field

class Line(BaseModel):
    sku: str
    count: int = 1

@tool
def send_message(recipients: list[str], text: str, channel: str = "general") -> str:
    \"\"\"Send a message.\"\"\"
    return "sent"

@tool
def remind(date: str, ticket: Annotated[str, Field(examples=["T-12"])]) -> str:
    \"\"\"Create a reminder.\"\"\"
    return "reminded"

@tool
def order_parts(lines: list[Line], deadline: str) -> str:
    \"\"\"Order parts.\"\"\"
    return "ordered"

@tool
def read_file(path: str) -> str:
    \"\"\"Read a file.\"\"\"
    return "read"

tools = [send_message, remind, order_parts, read_file]
"""


def test_what_a_start_only_guesses_refuses_nothing_that_the_tool_takes(place, key):
    Path("free_module.py").write_text(FREE)
    run("init", "--langchain", "free_module:tools", "--id", "free", "--tenant", "acme", "--yes")
    free = importlib.import_module("free_module")
    with Gate.open("workflows", root=root_digest("workflows"), issuer="https://g", keys="k", audit="a", confirm=lambda _: True) as gate:
        for said, name, args in (
            ("Please send Kim and Lee a message", "send_message", {"recipients": ["Kim", "Lee"], "text": "late", "channel": "#ops!"}),
            ("Create a reminder for Friday", "remind", {"date": "Friday at nine", "ticket": "the big one"}),
            ("Order two hoses", "order_parts", {"lines": [{"sku": "H 1", "count": 2}, {"sku": "NZ"}], "deadline": "soon"}),
            ("Read ../plan for June", "read_file", {"path": "../plan for June"}),
        ):
            opened = gate.open_run("free", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("a"), prompt=said)
            with use_run(opened):
                tool = next(t for t in guard_tools(free.tools) if t.name == name)
                assert tool.invoke({"type": "tool_call", "name": name, "id": name, "args": args}).content in {
                    "sent",
                    "reminded",
                    "ordered",
                    "read",
                }
    sys.modules.pop("free_module")


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ("odd_module:searching", "'query': 'hello'"),
        pytest.param("odd_module:injected", "", marks=pytest.mark.thorough("what is injected is tested in test_langchain_injection")),
        ("shop_module:acting", ""),
    ],
)
def test_the_lines_it_prints_run_for_awaited_injected_and_acting_tools(place, key, tools, says):
    Path("odd_module.py").write_text(ODD)
    Path("shop_module.py").write_text(SHOP.replace('raise SystemExit("a tool that init must not call")', "return order_id"))
    said = json.loads(run("init", "--langchain", tools, "--yes", "--json").stdout)
    done = run_at_terminal("\n".join(said["paste"]).replace('"user_id": ...', '"user_id": "u7"'))
    expected = {"odd_module:searching": "BK-1001", "odd_module:injected": "u7", "shop_module:acting": "A-10023344"}[tools]
    assert expected in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert says in "\n".join(said["paste"])
    assert done.stdout.count("agentgate asks you") == (tools == "shop_module:acting")


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ("shop_module:open_ended", "query {text: 2000}"),
        ("shop_module:acting", "orders_cancel"),
        ("shop_module:nested.reads", "orders_get"),
        ("shop_module:silent", 'visits.metadata = {"readOnlyHint": True}'),
    ],
)
def test_other_kinds_of_tools_get_a_workflow_too(place, key, tools, says):
    shown = run("init", "--langchain", tools, "--yes").stdout
    assert says in shown
    assert "allowed  " in shown


def test_nothing_is_written_without_an_answer_or_a_key(place):
    assert "no SSH key was found, and --yes alone makes none" in run("init", *LANGCHAIN, "--yes", code=1).stderr
    assert "nobody is here to answer" in run("init", *LANGCHAIN, code=1).stderr
    assert not Path("workflows").exists()
    assert not (place / "home/.ssh").exists()


def test_a_key_is_made_only_with_consent_and_only_its_owner_can_read_it(place):
    run("init", *LANGCHAIN, "--yes", "--make-key")
    made = place / "home/.ssh/id_ed25519_agentgate"
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert "ssh-ed25519" in subprocess.run(["ssh-keygen", "-y", "-f", str(made)], check=True, capture_output=True, text=True).stdout
    assert made.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")  # what a team's root takes
    run("workflow", "index")  # finds the key again


def test_a_folder_with_approvals_is_left_alone(place, key):
    run("init", *LANGCHAIN, "--yes")
    before = {p: p.read_bytes() for p in Path("workflows").rglob("*") if p.is_file()}
    assert "there already" in run("init", *LANGCHAIN, "--yes", "--id", "other.one", code=1).stderr
    assert before == {p: p.read_bytes() for p in Path("workflows").rglob("*") if p.is_file()}


def test_help_says_that_code_is_run():
    for command in (["init"], ["workflow", "new"]):
        assert "code runs" in run(*command, "--help").stdout
