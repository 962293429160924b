"""The approver's pages in a real Chromium with an authenticator of its own: a passkey is made, signs in, and answers held calls."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from agentgate import Allow, Deny
from agentgate.audit import read_records
from tests.abroad import PACKAGES
from tests.approvers import Desk, Person, desk_of
from tests.browser import SCREENS, Browser, Tab, browser
from tests.served import Process
from tests.servers import Server

AXE = PACKAGES / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory, redis_server: Server) -> Iterator[tuple[Desk, Process]]:
    with desk_of(tmp_path_factory.mktemp("desk"), redis_server) as made:
        yield made


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Tab]:
    with chromium.tab() as opened:
        yield opened
        refused = "Failed to load resource: the server responded with a status of 401"  # which the page tells
        assert [said for said in opened.logged() if refused not in said] == []  # nothing broke the policy, nothing was thrown


def signed_in(tab: Tab, desk: Desk, name: str, path: str = "/holds") -> str:
    """The authenticator of the person, who signed in with it on this page."""
    made = tab.authenticator(desk.people[name])
    tab.open(f"{desk.origin}{path}")
    assert "Signing in answers none of them" in tab.text()
    tab.click("[data-do=sign-in]")
    tab.until(f"signed in as {name}")
    return made


def test_a_person_makes_a_passkey_signs_in_and_releases_a_call_which_is_minted_then(tab: Tab, place) -> None:
    desk, _ = place
    run, hold = desk.held(why="it is old")
    tab.authenticator()
    tab.open(f"{desk.origin}/holds/passkey")
    tab.type("#name", "ann")
    tab.click("[data-do=make]")
    tab.until("Made. It counts once your operator")
    (row,) = tomllib.loads(tab.run("document.querySelector('pre').textContent"))["passkeys"]
    assert (row["user"], row["tenants"], row["groups"]) == ("ann", ["TENANT"], [])
    tab.open(f"{desk.origin}/holds")
    tab.click("[data-do=sign-in]")
    tab.until("This passkey is not in the gate's file")
    desk.rows.append({**row, "tenants": ["acme"], "groups": ["leads"]})  # as the operator does
    desk.write()
    end = time.monotonic() + 15
    while "signed in as ann" not in tab.text() and time.monotonic() < end:  # until the gate has looked at the file again
        tab.click("[data-do]")
        tab.when("!document.querySelector('button:disabled')")
    assert "files.delete" in tab.until("signed in as ann")
    assert type(desk.asked(run, why="it is old")).__name__ == "StepUp"  # signing in answered nothing
    tab.click(f"a[href='/holds/{hold.id}']")
    assert "Why you are asked\nit asks about every call of this tool" in tab.until("bot asks for lee of tenant acme")
    tab.click("summary")
    asked = tab.until("What it will be called with")
    for each in ("report.txt", "typed by the user", "it is old", "written by the model", "1 of leads", "lee of tenant acme", hold.id):
        assert each in asked
    tab.click("[data-answer=release]")
    tab.until("Released. The agent may make exactly this call, once")
    assert isinstance(desk.asked(run, why="it is old"), Allow)
    answers = [r for r in read_records(desk.folder / "audit") if r["type"] == "hold_answer" and r["hold"] == hold.id]
    assert [(r["by"], r["channel"], r["answer"]) for r in answers] == [("ann", "webauthn", "release")]
    tab.open(f"{desk.origin}/holds/{hold.id}")
    assert "Released, and used" in tab.text()


def test_a_refusal_ends_the_call_and_the_page_says_so(tab: Tab, place) -> None:
    desk, _ = place
    run, hold = desk.held(why="no")
    signed_in(tab, desk, "mona", f"/holds/{hold.id}")
    tab.click("[data-answer=refuse]")
    tab.until("Refused. This call does not run")
    assert isinstance(desk.asked(run, why="no"), Deny)


def test_the_runs_own_user_reveals_what_is_masked_and_confirms(tab: Tab, place) -> None:
    desk, _ = place
    run, hold = desk.held("files.share", password="hunter2-hunter2")
    signed_in(tab, desk, "lee", f"/holds/{hold.id}")
    assert "hunter2" not in tab.run("document.documentElement.outerHTML")
    tab.click("[data-answer=reveal]")
    assert "hunter2-hunter2" in tab.until("Shown above, and on record.")
    tab.click("[data-answer=release]")
    tab.until("Released.")
    assert isinstance(desk.asked(run, "files.share", password="hunter2-hunter2"), Allow)


def test_several_of_a_run_are_answered_by_one_signature_each_as_chosen(tab: Tab, place) -> None:
    desk, _ = place
    run = desk.run()
    holds = [desk.held(run=run, call=f"call-{n}", why=f"number {n}")[1] for n in range(3)]
    signed_in(tab, desk, "mona", f"/holds/{holds[0].id}")
    tab.click("a[href$='/run']")
    tab.until("3 calls of one run")
    for hold, said in zip(holds[:2], ("release", "refuse"), strict=True):
        tab.click(f"[name='{hold.id}'][value={said}]")
    tab.click("[data-do=together]")
    text = tab.until("Answered. What became of each")
    assert len(re.findall(r"Released\. The agent may|Refused\. This call does not", text)) == 2
    after = [type(desk.asked(run, call=f"call-{n}", why=f"number {n}")).__name__ for n in range(3)]
    assert after == ["Allow", "Deny", "StepUp"]


def test_a_device_that_does_not_verify_its_owner_answers_nothing_and_the_page_says_so(chromium: Browser, place) -> None:
    desk, _ = place
    with chromium.tab() as tab:
        run, hold = desk.held(why="unverified")
        device = signed_in(tab, desk, "mona", f"/holds/{hold.id}")
        tab.send("WebAuthn.setUserVerified", authenticatorId=device, isUserVerified=False)
        tab.click("[data-answer=release]")
        tab.until("Nothing was answered.")
        assert type(desk.asked(run, why="unverified")).__name__ == "StepUp"


def test_without_scripts_the_pages_can_be_read_and_say_how_else_to_answer(chromium: Browser, place) -> None:
    desk, _ = place
    with chromium.tab(scripts=False) as tab:
        tab.open(f"{desk.origin}/holds")
        html = tab.send("DOM.getOuterHTML", nodeId=tab.send("DOM.getDocument")["root"]["nodeId"])["outerHTML"]
        shown = tab.send("Accessibility.getFullAXTree")["nodes"]
        words = " ".join(str(each.get("name", {}).get("value", "")) for each in shown)
        assert "JavaScript is off, and a passkey needs it." in words
        assert "agentgate holds release ID" in words
        assert "<noscript>" in html


def test_where_a_browser_has_no_passkeys_the_page_says_so(chromium: Browser, place) -> None:
    desk, _ = place
    with chromium.tab() as tab:
        tab.send("Page.addScriptToEvaluateOnNewDocument", source="delete window.PublicKeyCredential")
        tab.open(f"{desk.origin}/holds")
        assert "This browser has no passkeys here" in tab.text()
        assert tab.run("document.querySelector('[data-do=sign-in]').disabled")


def test_at_another_address_than_the_gates_own_the_page_names_that(tab: Tab, place) -> None:
    desk, _ = place
    tab.open(f"http://127.0.0.1:{desk.port}/holds")
    assert f"Passkeys work at the gate's own address only: {desk.origin}/holds." in tab.text()
    assert tab.run("document.querySelector('[data-do=sign-in]').disabled")


SEEN = """(selector => { const at = document.querySelector(selector).getBoundingClientRect();
    return at.width > 0 && at.top >= 0 && at.bottom <= innerHeight && at.right <= innerWidth; })"""


def test_on_a_phone_the_sentence_and_both_buttons_are_seen_without_scrolling(tab: Tab, place) -> None:
    desk, _ = place
    _, hold = desk.held(why="it is a very long story " * 15)
    signed_in(tab, desk, "mona", f"/holds/{hold.id}")
    tab.send("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    for selector in ("[data-answer=release]", "[data-answer=refuse]", "h1"):
        assert tab.run(f"{SEEN}({json.dumps(selector)})"), selector


def test_a_no_has_a_reason_on_record_and_the_next_call_is_one_step_away(tab: Tab, place) -> None:
    desk, _ = place
    _, hold = desk.held(why="first")
    desk.held(why="second")
    signed_in(tab, desk, "mona", f"/holds/{hold.id}")
    tab.type("#reason", "not this \u202efile")
    tab.click("[data-answer=refuse]")
    tab.until("Refused. This call does not run")
    (answer,) = [r for r in read_records(desk.folder / "audit") if r["type"] == "hold_answer" and r["hold"] == hold.id]
    assert answer["reason"] == r"not this \u202efile"
    tab.when("document.activeElement.getAttribute('href') === '/holds/next'")
    tab.click("[href='/holds/next']")
    tab.until("Release this call")
    assert tab.run("location.pathname") != f"/holds/{hold.id}"


def test_a_stale_page_loses_its_buttons_and_the_list_keeps_the_focus(tab: Tab, place) -> None:
    desk, _ = place
    run, hold = desk.held(why="stale")
    signed_in(tab, desk, "mona", f"/holds/{hold.id}")
    kim = Person(desk, place[1], "kim")
    assert kim.sign_in().status_code == 204
    assert kim.say({hold.id: "refuse"}).status_code == 200
    kim.close()
    tab.run("refresh()")
    tab.until("Refused. This call does not run")
    assert not tab.run("!!document.querySelector('[data-answer]')")
    _, hold = desk.held(run=run, call="call-9", why="listed")
    tab.open(f"{desk.origin}/holds")
    tab.run(f"document.querySelector('a[href=\"/holds/{hold.id}\"]').focus()")
    before = tab.run("document.activeElement.getAttribute('href')")
    tab.run("window.kept = 1, refresh()")
    assert (tab.run("window.kept"), tab.run("document.activeElement.getAttribute('href')")) == (1, before)


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_axe_finds_nothing_serious(chromium: Browser, place, width: int, dark: Any, tmp_path) -> None:
    if not AXE.exists():
        pytest.skip(f"axe-core is not in {PACKAGES}: make test installs it (it needs npm and its registry)")
    desk, _ = place
    _, hold = desk.held(why="it is old")
    with chromium.tab() as tab:
        tab.send("Page.setBypassCSP", enabled=True)  # our policy runs no script but ours
        signed_in(tab, desk, "mona")
        for name, path in (
            ("holds", "/holds"),
            ("hold", f"/holds/{hold.id}"),
            ("run", f"/holds/{hold.id}/run"),
            ("passkey", "/holds/passkey"),
        ):
            tab.open(f"{desk.origin}{path}")
            tab.picture(tmp_path / f"{name}-{width}.png", width=width, dark=dark, height=844)
            tab.run(AXE.read_text())
            found = tab.run("axe.run().then(found => found.violations.map(each => [each.impact, each.id, each.nodes.map(n => n.html)]))")
            assert [each for each in found if each[0] in {"serious", "critical"}] == [], path


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_a_phone_and_a_desk_and_can_be_worked_by_keyboard(tab: Tab, place, width: int) -> None:
    desk, _ = place
    _, hold = desk.held(why="x" * 300)
    signed_in(tab, desk, "kim", f"/holds/{hold.id}")
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    tab.run("document.querySelector('[data-answer=refuse]').focus()")
    tab.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    tab.send("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    tab.until("Refused. This call does not run")


def test_the_list_refreshes_by_itself_and_says_when_nothing_waits(tab: Tab, place) -> None:
    desk, _ = place
    signed_in(tab, desk, "idle")
    assert "Nothing waits for you" in tab.text()
    assert 'http-equiv="refresh" content="15"' in tab.run("document.querySelector('noscript').textContent")
    tab.click("[data-do=sign-out]")
    tab.until("Sign in with a passkey")
    assert tab.cookies() == []
