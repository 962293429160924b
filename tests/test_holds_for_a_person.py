"""What waits for one person: only what they may answer, only with their own credential, and it answers nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import AsyncGate, Gate, User
from agentgate.errors import CredentialRefused
from agentgate.gate.holds import inbox
from agentgate.gate.notify import Webhook
from agentgate.identity.credential import OIDCToken
from agentgate.values.refusal import AnswerRefused
from tests.authority import Key, claims_of
from tests.served import Process
from tests.served_notes import LOGIN, Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.shop import BOSS, LEE, PROMPT, REFUND, WORKFLOW, looked_up, opened, run_of
from tests.test_notify import SECRET, Listener
from tests.test_notify import listener as listener  # noqa: PLC0414 - a fixture

CONFIRM = "approvers: {group: leads, count: 1, not: [requester]}"
BIG = {**REFUND, "amount": "150.00"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def shop(folder: Path) -> Iterator[Gate]:
    with opened(folder) as gate:
        yield gate


def held(gate: Gate, **more: Any) -> Any:
    run = run_of(gate, **more)
    looked_up(run)
    return run, run.authorize("payments.refund", BIG, tool_call_id="pay").hold


def test_a_lead_sees_what_waits_for_leads_with_the_users_words_and_who_asks(shop: Gate) -> None:
    run, hold = held(shop)
    (seen,) = shop.holds("acme", for_=BOSS)
    assert (seen.id, seen.run, seen.state, seen.question.requester, seen.question.words) == (hold.id, run.id, "pending", "lee", (PROMPT,))
    assert shop.holds("acme", for_=BOSS, run=run.id) == (seen,)
    assert shop.holds("acme", for_=BOSS, run="run_another") == ()


def test_a_hold_names_the_hosts_conversation_and_so_does_its_event(folder: Path, listener: Listener) -> None:
    with opened(folder, tell=(Webhook(listener.url, SECRET, private=True),)) as gate:
        run, hold = held(gate, conversation="chat-7")
        (seen,) = gate.holds("acme", for_=BOSS)
        assert seen.conversation == gate.hold(hold.id, tenant="acme").conversation == run.conversation == "chat-7"
        gate.release(hold.id, tenant="acme", by=BOSS)
        assert [(each["type"], each["conversation"], each["run"]) for each in listener.wait(2)] == [
            ("held", "chat-7", run.id),
            ("answered", "chat-7", run.id),
        ]
        held(gate)
        assert "conversation" not in listener.wait(3)[2]


@pytest.mark.parametrize(
    "who",
    [
        LEE,  # who asked for it
        User("boss", tenant="acme"),  # in no group
        User("boss", tenant="acme", groups=["sales"]),
        User("boss", tenant="other", groups=["leads"]),
        User("bot", tenant="acme", groups=["leads"]),  # the agent's name
    ],
)
def test_who_may_not_answer_learns_nothing_of_it(shop: Gate, who: User) -> None:
    held(shop)
    assert shop.holds("acme", for_=who) == ()
    assert shop.holds("other", for_=who) == ()


def test_a_user_sees_what_asks_them_and_nobody_elses(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(
        WORKFLOW.replace(CONFIRM, "approvers: {user: true}").replace("unclear: step_up", "unclear: deny")
    )
    with opened(folder) as gate:
        _, hold = held(gate)
        other = User("ann", tenant="acme", groups=["support"])
        held(gate, user=other)
        assert [each.id for each in gate.holds("acme", for_=LEE)] == [hold.id]
        assert gate.holds("acme", for_=BOSS) == ()


def test_what_is_answered_or_over_waits_no_more(shop: Gate) -> None:
    _, first = held(shop)
    second_run, _ = held(shop)
    shop.release(first.id, tenant="acme", by=BOSS)
    second_run.close()
    assert shop.holds("acme", for_=BOSS) == ()


def test_of_many_all_are_there(shop: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAGE", 2)
    ids = {held(shop)[1].id for _ in range(5)}
    assert {each.id for each in shop.holds("acme", for_=BOSS)} == ids


def test_who_is_revoked_sees_nothing(shop: Gate) -> None:
    held(shop)
    shop.revoke("user:boss@acme", tenants=["acme"], by="ana", reason="left")
    with pytest.raises(CredentialRefused, match="boss@acme, who is revoked"):
        shop.holds("acme", for_=User("boss@acme", tenant="acme", groups=["leads"]))


async def test_it_is_the_same_awaited(folder: Path) -> None:
    async with await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://") as gate:
        assert await gate.holds("acme", for_=BOSS) == ()
        with pytest.raises(CredentialRefused, match="identity settings"):
            await gate.holds("acme", for_=OIDCToken("a.b.c"))


# --- over HTTP ----------------------------------------------------------------------------------------------------------------
def login(place: Place, who: str = "kim", **claims: Any) -> str:
    return place.login.sign({**claims_of(LOGIN, who, place.issuer), "tenant": "acme", "groups": ["leads"], **claims})


def waiting(gate: Process, token: str, query: str = "?for=me") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return gate.http.get(f"/v1/holds{query}", headers=headers)


def urgent(notes: Notes, text: str) -> str:
    answer = notes.ask(text, arguments={"urgent": "yes"}, completion_mode="deferred").json()
    assert answer["error"] == "authorization_pending"
    return text


def test_a_person_gets_what_waits_for_them_by_their_own_token(notes: Notes, place: Place) -> None:
    text = urgent(notes, "for kim")
    answer = waiting(notes.gate, login(place))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    (found,) = [each for each in answer.json()["holds"] if text in each["text"]]
    assert found.keys() == {"hold", "tenant", "run", "tool", "state", "until", "text", "question", "risk"}
    assert (found["tenant"], found["tool"], found["state"], found["question"]["agent"]) == (
        "acme",
        "notes.write",
        "pending",
        "notes-service",
    )
    assert waiting(notes.gate, login(place, groups=["sales"])).json() == {"holds": [], "next": "", "total": 0}


def test_a_page_begins_behind_its_place(notes: Notes, place: Place) -> None:
    urgent(notes, "on a page")
    first = waiting(notes.gate, login(place)).json()
    ends = max(each["until"] for each in first["holds"])
    assert first["total"] == len(first["holds"]) > 0
    for seconds, left in ((-3600, first["holds"]), (60, [])):
        page = waiting(notes.gate, login(place), f"?for=me&after={(ends + seconds) * 1000:.0f}.{'0' * 64}").json()
        assert page == {"holds": left, "next": "", "total": first["total"]}


def test_nobody_elses_credential_counts(notes: Notes, place: Place) -> None:
    urgent(notes, "for nobody else")
    forged = Key("login").sign({**claims_of(LOGIN, "kim", place.issuer), "tenant": "acme", "groups": ["leads"]})
    expired = login(place, exp=int(time.time()) - 60, iat=int(time.time()) - 600)
    elsewhere = place.login.sign({**claims_of(LOGIN, "kim", "https://elsewhere.example"), "tenant": "acme", "groups": ["leads"]})
    for token in ("", "x.y.z", forged, expired, elsewhere, notes.host.assertion(), notes.server.assertion(), place.token()):
        answer = waiting(notes.gate, token)
        assert error_of(answer) == (401, "invalid_token"), token
        assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(notes.gate.http.get("/v1/holds?for=me", headers={"Authorization": f"Basic {login(place)}"}))[0] == 401


@pytest.mark.parametrize("query", ["", "?for=kim", "?for=me&for=me", "?for=me&tenant=other", "?for=me&after=x", "?for=me&run=run_x"])
def test_a_query_that_says_anything_else_is_refused(notes: Notes, place: Place, query: str) -> None:
    assert error_of(waiting(notes.gate, login(place), query)) == (400, "invalid_request")


def test_that_token_answers_nothing(notes: Notes, place: Place) -> None:
    """It was not issued for an answer: `gate.release` wants one whose nonce is of exactly that answer."""
    urgent(notes, "to be answered")
    hold = waiting(notes.gate, login(place)).json()["holds"][0]
    with Gate.open(
        place.workflows,
        root=place.root,
        issuer=place.issuer,
        keys=place.folder / "keys",
        store=place.store.url,
        audit=str(place.folder / "audit-beside"),
        identity=place.settings["identity"],
    ) as beside:
        assert hold["hold"] in {each.id for each in beside.holds("acme", for_=OIDCToken(login(place)))}
        with pytest.raises(AnswerRefused) as refused:
            beside.release(hold["hold"], tenant="acme", by=OIDCToken(login(place)))
        assert refused.value.code == "unproven"
