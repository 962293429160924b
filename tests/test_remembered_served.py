"""What is remembered of a person, as they see and end it: on the pages, over HTTP by their own token; and by an operator's command."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from typer.testing import CliRunner

from agentgate import Allow, StepUp
from agentgate.audit import read_records
from agentgate.cli.main import app
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.stores import ops
from agentgate.token.signing import KeyRing
from tests.abroad import PACKAGES
from tests.approvers import Desk, Person, desk_of
from tests.authority import Key, claims_of, lasting, web
from tests.browser import browser
from tests.served import Process
from tests.served_notes import LOGIN, error_of
from tests.servers import Server
from tests.workflows import workflow_text

AXE = PACKAGES / "axe-core" / "axe.min.js"
WORKFLOW = workflow_text(
    "desk.files",
    tenants="[acme, other]",
    who="{agent: {spiffe: ['spiffe://acme.example/bot']}, for_user: {same_tenant: true}}",
    intents="{pay: {asks_for: Pay somebody., words: [pay], examples: [Pay 20 to kim@acme.example]}}",
    tools="""
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    remember: {arg: payee, for: 90d}
    args: {payee: {type: email, from: [prompt, confirmed, remembered], unknown_origin: confirm}}
""",
    step_up="""
  - {id: whom, for: pay, when: {payee: {origin: unknown}}, approvers: {user: true}, timeout: 10m}
""",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any, redis_server: Server) -> Iterator[tuple[Desk, Process, Key]]:
    login = Key("login")
    with web() as served_web:
        issuer = {"keys": served_web.publish("/login", login), "private_addresses": True, "audience": "https://gate.example"}
        identity = {"issuers": {"login": {"issuer": LOGIN, **issuer, "tenants": ["acme"], "user": {"tenant": "tenant"}}}}
        with desk_of(tmp_path_factory.mktemp("desk"), redis_server, workflow=WORKFLOW, identity=identity) as (desk, gate):
            yield desk, gate, login


@pytest.fixture
def desk(place: Any) -> Desk:
    made: Desk = place[0]
    client = redis.Redis.from_url(made.settings["store"])
    client.delete(*[key for tenant in ("acme", "other") for name in ("lee", "kim") for key in [ops.memory_key(tenant, name)]])
    client.close()
    return made


@pytest.fixture
def lee(place: Any, desk: Desk) -> Iterator[Person]:
    person = Person(desk, place[1], "lee")
    person.sign_in()
    yield person
    person.close()


def run_of(desk: Desk, name: str = "lee", tenant: str = "acme") -> Any:
    user = proven_user(name, tenant=tenant, groups=())
    for field, value in (("issuer", LOGIN), ("subject", name)):
        object.__setattr__(user, field, value)
    bot = proven_agent("bot", spiffe="spiffe://acme.example/bot")
    return desk.host.open_run("desk.files", tenant=tenant, user=lasting(user), agent=lasting(bot), prompt="Pay the winner, please")


def paid(desk: Desk, person: Person, payee: str) -> None:
    """A payment that the user confirmed on the page, and that was done."""
    run = run_of(desk)
    held = run.authorize("pay", {"payee": payee}, tool_call_id="c1")
    assert isinstance(held, StepUp)
    assert "Yes also lets the agent use this payee for pay for 90 days" in html.unescape(person.get(f"/holds/{held.hold.id}").text)
    assert person.say({held.hold.id: "release"}).status_code == 200
    answer = run.authorize("pay", {"payee": payee}, tool_call_id="c1")
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool="pay", args={"payee": payee}):
        pass


def asked(desk: Desk, payee: str) -> bool:
    return isinstance(run_of(desk).authorize("pay", {"payee": payee}, tool_call_id="c1"), StepUp)


def posted(person: Person, body: str, **headers: str | None) -> httpx.Response:
    """As a browser posts the page's form, without a script."""
    return person.post("/holds/remembered", body.encode(), **{"Content_Type": "application/x-www-form-urlencoded", **headers})


def test_a_person_sees_and_forgets_it_on_the_page_without_a_script(desk: Desk, lee: Person) -> None:
    assert "Nothing is remembered of you" in lee.get("/holds/remembered").text
    paid(desk, lee, "ann@acme.example")
    paid(desk, lee, "bob@acme.example")
    assert not asked(desk, "ann@acme.example")
    assert '<a href="/holds/remembered">' in lee.get("/holds").text
    shown = lee.get("/holds/remembered")
    assert shown.headers["referrer-policy"] == "same-origin"
    assert "ann@acme.example" in shown.text
    first = re.findall(r'name="id" value="([0-9a-f]{64})"', shown.text)[0]
    done = posted(lee, f"id={first}")
    assert (done.status_code, done.headers["location"]) == (303, "/holds/remembered")
    assert "ann@acme.example" not in lee.get("/holds/remembered").text
    assert asked(desk, "ann@acme.example")
    assert not asked(desk, "bob@acme.example")
    record = [each for each in read_records(desk.folder / "audit") if each["type"] == "forgotten"][-1]
    assert (record["tenant"], record["user"], record["by"], record["count"]) == ("acme", "lee", "lee", 1)
    assert record["history"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 400),
        ({"Origin": "null"}, 400),
        ({"Origin": None}, 400),
        ({"Sec_Fetch_Site": "cross-site"}, 400),
        ({"Cookie": None}, 303),
        ({"Content_Type": "text/plain"}, 415),
    ],
)
def test_another_page_or_nobody_forgets_nothing(desk: Desk, lee: Person, headers: dict[str, str | None], status: int) -> None:
    paid(desk, lee, "ann@acme.example")
    (id_,) = re.findall(r'name="id" value="([0-9a-f]{64})"', lee.get("/holds/remembered").text)
    assert posted(lee, f"id={id_}", **headers).status_code == status
    assert not asked(desk, "ann@acme.example")


def test_nobody_else_sees_or_forgets_it(place: Any, desk: Desk, lee: Person) -> None:
    paid(desk, lee, "ann@acme.example")
    (id_,) = re.findall(r'name="id" value="([0-9a-f]{64})"', lee.get("/holds/remembered").text)
    kim = Person(desk, place[1], "kim")
    assert "Sign in" in kim.get("/holds/remembered").text
    kim.sign_in()
    assert "Nothing is remembered of you" in kim.get("/holds/remembered").text
    assert posted(kim, f"id={id_}").status_code == 303
    kim.close()
    assert not asked(desk, "ann@acme.example")


def token_of(place: Any, name: str = "lee", **claims: Any) -> str:
    login: Key = place[2]
    return login.sign({**claims_of(LOGIN, name, "https://gate.example"), "tenant": "acme", **claims})


def called(place: Any, method: str, path: str, token: str) -> httpx.Response:
    found: httpx.Response = place[1].http.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
    return found


def test_a_program_lists_and_forgets_it_by_the_persons_own_token_alone(place: Any, desk: Desk, lee: Person) -> None:
    paid(desk, lee, "ann@acme.example")
    answer = called(place, "GET", "/v1/remembered?for=me", token_of(place))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    (one,) = answer.json()["remembered"]
    assert one.keys() == {"id", "user", "workflow", "tool", "args", "until", "since"}
    assert (one["tool"], one["args"], one["workflow"]) == ("pay", {"payee": "ann@acme.example"}, "desk.files@1")
    assert one["until"]["payee"] == pytest.approx(one["since"] + 90 * 86400)
    assert called(place, "GET", "/v1/remembered?for=me", token_of(place, "kim")).json() == {"remembered": []}
    forged = Key("login").sign({**claims_of(LOGIN, "lee", "https://gate.example"), "tenant": "acme"})
    for token in ("", "x.y.z", forged, token_of(place, exp=1, iat=0), token_of(place, aud="https://other.example")):
        assert error_of(called(place, "GET", "/v1/remembered?for=me", token)) == (401, "invalid_token")
        assert error_of(called(place, "DELETE", f"/v1/remembered/{one['id']}", token)) == (401, "invalid_token")
    for id_, token in ((one["id"], token_of(place, "kim")), ("0" * 64, token_of(place)), ("x", token_of(place))):
        assert error_of(called(place, "DELETE", f"/v1/remembered/{id_}", token))[0] == 404
    for query in ("", "?for=lee", "?for=me&for=me", "?for=me&tenant=other"):
        assert error_of(called(place, "GET", f"/v1/remembered{query}", token_of(place))) == (400, "invalid_request")
    assert not asked(desk, "ann@acme.example")
    assert called(place, "DELETE", f"/v1/remembered/{one['id']}", token_of(place)).status_code == 204
    assert asked(desk, "ann@acme.example")


def command(desk: Desk, *words: str, audit: bool = False, user: str = "lee") -> Any:
    where = ["--store", desk.settings["store"], "--tenant", "acme", "--user", user]
    where += ["--audit", str(desk.folder / "mine")] if audit else []
    return CliRunner().invoke(app, ["remembered", *words, *where], env={"COLUMNS": "250"})


def test_an_operator_lists_and_forgets_it(desk: Desk, lee: Person) -> None:
    for payee in ("ann@acme.example", "bob@acme.example"):
        paid(desk, lee, payee)
    listed = command(desk, "list")
    assert listed.exit_code == 0, listed.output
    assert "payee ann@acme.example" in listed.output
    found = json.loads(command(desk, "list", "--json", "--keys", desk.settings["keys"]).output)
    assert [(each["args"], each["issuer"], each["user"]) for each in found] == [
        ({"payee": "ann@acme.example"}, LOGIN, "lee"),
        ({"payee": "bob@acme.example"}, LOGIN, "lee"),
    ]
    assert "nothing is remembered of kim in tenant acme" in command(desk, "list", user="kim").output
    wrong = command(desk, "forget", "0" * 12, audit=True)
    assert wrong.exit_code == 1
    assert "expected ids of what is remembered of lee" in wrong.output
    done = command(desk, "forget", found[0]["id"][:12], audit=True)
    assert done.output.strip() == "forgotten: 1 of 2", done.output
    assert asked(desk, "ann@acme.example")
    assert not asked(desk, "bob@acme.example")
    assert command(desk, "forget", audit=True).output.strip() == "forgotten: 1 of 1"
    assert asked(desk, "bob@acme.example")
    assert [each["type"] for each in read_records(desk.folder / "mine")] == ["forgotten", "forgotten"]
    own = CliRunner().invoke(app, ["remembered", "list", "--store", "memory://", "--tenant", "acme", "--user", "lee"])
    assert "memory:// is this process's own" in own.output


def test_a_stranger_gates_keys_see_nothing_that_is_remembered(desk: Desk, lee: Person, tmp_path: Path) -> None:
    paid(desk, lee, "ann@acme.example")
    KeyRing.open(tmp_path / "keys", "ES256")
    assert json.loads(command(desk, "list", "--json", "--keys", str(tmp_path / "keys")).output) == []


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_page_in_a_browser(place: Any, lee: Person, tmp_path: Path, width: int, dark: Any) -> None:
    """It fits a phone, its button forgets by a plain form, and axe finds nothing serious."""
    desk: Desk = place[0]
    paid(desk, lee, "ann@acme.example")
    with browser() as chromium, chromium.tab() as tab:
        tab.send("Page.setBypassCSP", enabled=True)  # our policy runs no script but ours
        tab.authenticator(desk.people["lee"])
        tab.open(f"{desk.origin}/holds")
        tab.click("[data-do=sign-in]")
        tab.until("signed in as lee")
        tab.open(f"{desk.origin}/holds/remembered")
        tab.picture(tmp_path / f"remembered-{width}.png", width=width, dark=dark, height=844)
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        if AXE.exists():
            tab.run(AXE.read_text())
            found = tab.run("axe.run().then(found => found.violations.map(each => [each.impact, each.id, each.nodes.map(n => n.html)]))")
            assert [each for each in found if each[0] in {"serious", "critical"}] == []
        tab.click("form button.refuse")
        tab.until("Nothing is remembered of you")
    assert asked(desk, "ann@acme.example")
