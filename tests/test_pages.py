"""The approver's pages over HTTP: what each person is shown, how little a session may, and every way in that is not one."""

from __future__ import annotations

import html
import json
import re
import socket
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import httpx
import pytest
import redis
import time_machine
from starlette.responses import Response

from agentgate import Allow, Deny
from agentgate.audit import read_records
from agentgate.decision.batch_answer import MOST
from agentgate.decision.hold import Hold, Question, ShownArgument, ShownRule, State, moment
from agentgate.errors import RequestRefused
from agentgate.explain.evidence import MASKED
from agentgate.gate.holds import inbox as addressed
from agentgate.gate.holds.inbox import Addressed, WaitingPage
from agentgate.identity.proven import proven_user
from agentgate.service.app import PAGES, application
from agentgate.service.line import AT_ONCE
from agentgate.service.pages import judging, session
from agentgate.service.pages.rendering import page
from agentgate.service.settings import ServiceSettings
from agentgate.shell.drive import drive
from agentgate.token.signing import KeyRing
from agentgate.values.refusal import AnswerCode
from tests.approvers import Desk, Person, desk_of
from tests.passkey import NEW_KEY, PRESENT, Passkey
from tests.served import Process
from tests.servers import Server, redis_binary

GONE = "0" * 64
POSTS = ("/holds/challenge", "/holds/session", "/holds/passkey", "/holds/nonce", "/holds/answers")


@pytest.fixture(scope="module")
def place(tmp_path_factory, redis_server: Server) -> Iterator[tuple[Desk, Process]]:
    with desk_of(tmp_path_factory.mktemp("desk"), redis_server) as made:
        yield made


@pytest.fixture
def desk(place) -> Desk:
    made: Desk = place[0]
    return made


@pytest.fixture
def people(place) -> Iterator[Any]:
    """Whoever is asked for by name, signed in."""
    made: list[Person] = []

    def one(name: str, *, signed_in: bool = True) -> Person:
        made.append(Person(place[0], place[1], name))
        if signed_in:
            assert made[-1].sign_in().status_code == 204
        return made[-1]

    yield one
    for each in made:
        each.close()


def ids(answer: httpx.Response) -> list[str]:
    """The holds that a page links to, in order."""
    assert answer.status_code == 200
    return re.findall(r'href="/holds/([0-9a-f]{64})"', answer.text)


def code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["detail"]  # a sentence for the person
    return answer.status_code, body["code"]


def signed_out(answer: httpx.Response) -> bool:
    assert answer.status_code == 200
    return "Sign in with a passkey" in answer.text


# --- what is shown ----------------------------------------------------------------------------------------------------------
def test_a_person_sees_what_waits_for_them_and_nothing_of_anything_else(desk: Desk, people) -> None:
    _, leads = desk.held(why="for leads")
    _, confirm = desk.held("files.share", run=desk.run("kim"))
    _, abroad = desk.held(tenant="other", why="in another tenant")
    kim, lee = people("kim"), people("lee")
    listed = kim.get("/holds")
    assert {leads.id, confirm.id} <= set(ids(listed))
    assert abroad.id not in listed.text
    assert not {leads.id, confirm.id, abroad.id} & set(ids(lee.get("/holds")))  # lee asked for the first, and for nothing else
    unseen = [lee.get(f"/holds/{each}{more}") for each in (leads.id, confirm.id, abroad.id, GONE, "x") for more in ("", "/run")]
    unseen += [kim.get(f"/holds/{abroad.id}")]
    assert {each.status_code for each in unseen} == {404}
    assert len({each.text for each in unseen}) == 1  # a hold that is not theirs is told apart from none by nothing
    for each in (leads.id, abroad.id, GONE):
        assert code(lee.post("/holds/nonce", {"answers": {each: "release"}})) == (404, "missing")


def test_the_workflows_risk_goes_with_a_hold(desk: Desk) -> None:
    holds = [desk.held(why=f"run {n}")[1] for n in range(2)]
    mona = proven_user("mona", tenant="acme", groups=("leads",))
    found: dict[str, Addressed] = {}
    after: str | None = ""
    while after is not None:
        page: WaitingPage = drive(addressed.addressed(desk.host._core, "acme", mona, after), desk.host._store, desk.host._audit)
        found |= {each.hold.id: each for each in page.found}
        after = page.next or None
    assert [found[hold.id].risk for hold in holds] == ["low", "low"]


def test_the_list_begins_with_the_earliest_deadline_and_ends_with_what_was_answered(desk: Desk, people) -> None:
    mona = people("mona")
    run = desk.run()
    first, second, third = (desk.held(run=run, call=f"order-{n}", why=f"order {n}")[1] for n in range(3))
    assert mona.say({second.id: "refuse"}).status_code == 200
    mine = [each for each in ids(mona.get("/holds")) if each in {first.id, second.id, third.id}]
    assert mine == [first.id, third.id, second.id]
    assert "Refused. This call does not run" in mona.get(f"/holds/{second.id}").text


def test_times_are_said_in_the_readers_own_zone_too_and_without_a_script(desk: Desk, people) -> None:
    _, hold = desk.held(why="zones")
    there = ZoneInfo("Pacific/Auckland")
    kims, monas = (people(name).get(f"/holds/{hold.id}").text for name in ("kim", "mona"))
    at = hold.question.deadline
    assert f"{moment(at, there)} ({moment(at)})</time>" in kims
    assert f"until {moment(hold.expires_at, there)}." in judging.became(hold, there)
    assert f">{moment(at)}</time>" in monas
    assert "NZ" not in monas
    assert moment(hold.question.opened, there) in people("kim").get("/holds").text


def test_a_page_shows_every_part_of_the_question_and_escapes_all_of_it() -> None:
    evil = iter(f"""<script>alert({n})</script>'"><img src=x onerror=alert({n})>&amp;{{{{7*7}}}}""" for n in range(100))
    rule = ShownRule(next(evil), next(evil), next(evil), (next(evil), next(evil)))
    arguments = tuple(ShownArgument(next(evil), next(evil), next(evil), by) for by in ("user", "result", "model", "unknown"))
    names = ("tenant", "workflow", "tool", "effect", "requester", "agent", "arguments_digest")
    texts: dict[str, Any] = {name: next(evil) for name in names}
    many: dict[str, Any] = {name: (next(evil), next(evil)) for name in ("via", "limits", "words")}
    question = Question(hold=GONE, **texts, **many, arguments=arguments, rules=(rule,), opened=1.0, deadline=2e9)
    hold = Hold(GONE, "acme", "run", "t", "c", ("r",), {}, (), 2e9, question)
    reader = session.Reader({next(evil): proven_user("mona", tenant="acme")}, "id", UTC)
    became = partial(judging.became, zone=UTC)
    values: dict[str, Any] = {"reader": reader, "origins": ["http://localhost:1"], "became": became, "masked": MASKED, "now": 0.0}
    values["zone"] = UTC
    shown = bytes(page("hold.html", **values, shown=Addressed(hold, "high"), others=0, most=10).body).decode()
    assert "<img" not in shown
    assert re.findall(r"<script[^>]*>", shown) == ['<script src="/holds/pages.js" defer>']
    plain = html.unescape(shown)
    for number in range(100 - len(list(evil))):
        assert f"<script>alert({number})</script>'\"><img src=x onerror=alert({number})>&amp;{{{{7*7}}}}" in plain, number
    assert moment(2e9) in plain
    assert "Its workflow is of high risk." in plain
    assert moment(1.0) in plain


def test_what_the_model_wrote_is_shown_as_text_and_said_to_be_its(desk: Desk, people) -> None:
    _, hold = desk.held(why="<script>alert(1)</script> p\u0430ypal \" onload='x'")
    text = people("mona").get(f"/holds/{hold.id}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; p\\u0430ypal" in text  # a letter of another alphabet stays visible
    assert "<script>alert" not in text
    assert "p\u0430ypal" not in text
    assert '<span class="by model">the model</span>' in text
    assert '<span class="by user">the user</span>' in text


def test_who_is_told_of_a_call_gets_the_address_of_its_page(desk: Desk, people) -> None:
    _, hold = desk.held(why="told")

    def pages() -> list[str]:
        told = desk.told.read_text().rpartition("\n")[0] if desk.told.exists() else ""  # the last line may be half written
        events = [json.loads(line) for line in told.splitlines() if line]
        return [event["page"] for event in events if event["hold"] == hold.id]

    in_time(lambda: bool(pages()))
    assert pages() == [f"{desk.origin}/holds/{hold.id}"]
    assert people("mona").get(pages()[0].removeprefix(desk.origin)).status_code == 200


@pytest.mark.parametrize("forged", ["value", "another hold's", "rules", "seal"])
def test_a_question_that_somebody_wrote_into_the_store_is_not_shown(redis_server: Server, desk: Desk, people, forged: str) -> None:
    mona = people("mona")
    run, hold = desk.held(why="forged")
    _, other = desk.held(run=run, call="call-2", why="harmless")
    store: Any = redis.Redis.from_url(redis_server.url)
    key, others = (f"ag:{{acme}}:hold:{each.id}" for each in (hold, other))
    body, harmless = (json.loads(store.hget(each, "body")) for each in (key, others))
    change: dict[str, Any] = {
        "value": {"question": json.loads(json.dumps(body["question"]).replace("report.txt", "holiday.txt"))},
        "another hold's": {name: harmless[name] for name in ("question", "seal")},
        "rules": {"rules": ["two"]},
        "seal": {"seal": "\u00e9"},
    }[forged]
    store.hset(key, "body", json.dumps({**body, **change}))
    assert hold.id not in ids(mona.get("/holds"))
    assert mona.get(f"/holds/{hold.id}").status_code == 404
    assert f'data-hold="{hold.id}"' not in mona.get(f"/holds/{other.id}/run").text
    assert code(mona.post("/holds/nonce", {"answers": {hold.id: "release"}})) == (404, "missing")
    store.hset(key, "body", json.dumps(body))
    assert mona.get(f"/holds/{hold.id}").status_code == 200


def signed_up(desk: Desk, people: Any, name: str, tenant: str, *groups: str) -> Person:
    """Somebody with a passkey for this tenant, signed in."""
    desk.people[name] = Passkey(rp_id="localhost")
    desk.rows.append(desk.people[name].row(name, *groups, tenants=(tenant,)))
    desk.write()
    one: Person = people(name, signed_in=False)
    in_time(lambda: one.sign_in().status_code == 204)
    return one


def all_pages(person: Person) -> tuple[list[str], list[str]]:
    """The holds of every page, in order; and what each page says of itself."""
    found: list[str] = []
    said: list[str] = []
    path = "/holds"
    while path:
        text = (got := person.get(path)).text
        found += ids(got)
        said += re.findall(r"<h1>(.*?)</h1>", text) + re.findall(r"\d+ to \d+ are here", text)
        path = next(iter(re.findall(r'rel="next" href="([^"]+)"', text)), "")
    return found, said


def test_200_runs_that_wait_for_one_group_hide_nobodys_hold_and_the_numbers_are_true(desk: Desk, people) -> None:
    solo, ann, mallory = (signed_up(desk, people, name, "many", *groups) for name, *groups in (("solo",), ("ann", "leads"), ("mallory",)))
    crowd = [desk.held(run=desk.run(f"user{n}", "many"), why=f"{n}")[1].id for n in range(200)]
    _, alone = desk.held("files.share", run=desk.run("solo", "many"))
    mine = desk.held(run=desk.run("ann", "many"), why="her own")[1].id
    assert all_pages(solo) == ([alone.id], ["1 call waits for you"])
    assert all_pages(mallory) == ([], ["Nothing waits for you"])
    found, said = all_pages(ann)
    assert (found, mine in found) == (crowd, False)
    assert said == [line for n in range(4) for line in ("200 calls wait for you", f"{50 * n + 1} to {50 * n + 50} are here")]
    assert solo.say({alone.id: "refuse"}).status_code == 200
    assert all_pages(solo)[1] == ["Nothing waits for you"]
    assert f"/holds/{alone.id}" in solo.get("/holds").text  # lately
    for wrong in ("x", "1.x", f"{'9' * 16}.{GONE}", f"-1.{GONE}"):
        assert len(ids(ann.get(f"/holds?after={wrong}"))) == 50
    assert ids(ann.get(f"/holds?after={'9' * 15}.{GONE}")) == []


def test_who_can_write_the_store_pushes_nobodys_hold_out_of_the_pages(redis_server: Server, desk: Desk, people) -> None:
    far, (_, hold) = signed_up(desk, people, "far", "pushed", "leads"), desk.held(tenant="pushed", why="pushed out")
    store: Any = redis.Redis.from_url(redis_server.url)
    start = "ag:{pushed}:hold:"
    kept = store.hgetall(f"{start}{hold.id}")
    (group,) = (key for key in kept[b"lists"].decode().split() if ":group:" in key)
    many, line, score = [f"{n:064x}" for n in range(1000)], store.pipeline(), store.zscore(group, hold.id)
    for number, each in enumerate(many):
        forged = kept if number % 2 else {**kept, b"body": b"{}"}
        line.hset(f"{start}{each}", mapping=forged).zadd(group, {each: score - 1})
    line.execute()
    assert all_pages(far)[0] == [hold.id]
    store.zrem(group, *many)
    store.delete(*(f"{start}{each}" for each in many))
    assert all_pages(far) == ([hold.id], ["1 call waits for you"])


def test_a_hold_that_an_earlier_version_opened_is_found_for_two_weeks(redis_server: Server, desk: Desk, people) -> None:
    run, old = desk.held(run=desk.run("lee", "before"), why="opened before")
    new = desk.held(run=desk.run("kim", "before"), why="opened after")[1]
    store: Any = redis.Redis.from_url(redis_server.url)
    lists = store.hget(f"ag:{{before}}:hold:{old.id}", "lists").decode().split()
    for key in lists:
        store.zrem(key, old.id)
    store.hdel(f"ag:{{before}}:hold:{old.id}", "lists")
    reader = signed_up(desk, people, "reader", "before", "leads")
    for days, found in ((15, [new.id]), (13, [old.id, new.id])):
        store.set("ag:{before}:holds:since", int((time.time() - days * 86400) * 1000))
        assert all_pages(reader)[0] == found
    assert all_pages(reader)[1] == ["2 calls wait for you"]
    assert [hold.id for hold in desk.host.holds("before", run=run.id)] == [old.id]
    assert reader.say({old.id: "refuse"}).status_code == 200
    assert all_pages(reader) == ([new.id, old.id], ["1 call waits for you"])


def test_danger_is_said_of_what_destroys_and_not_of_the_rest(desk: Desk, people) -> None:
    _, gone = desk.held(why="danger")
    _, shared = desk.held("files.share", run=desk.run("kim"))
    kim = people("kim")
    assert "This call destroys" in kim.get(f"/holds/{gone.id}").text
    assert "This call destroys" not in kim.get(f"/holds/{shared.id}").text


def test_no_page_has_a_script_or_style_of_its_own_and_browsers_are_told_so(desk: Desk, people) -> None:
    _, hold = desk.held(why="policy")
    mona, nobody = people("mona"), people("mona", signed_in=False)
    paths = ("/holds", "/holds/passkey", f"/holds/{hold.id}", f"/holds/{hold.id}/run", f"/holds/{GONE}")
    for answer in (*(mona.get(path) for path in paths), nobody.get("/holds"), mona.get("/holds/pages.js"), mona.get("/holds/pages.css")):
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["form-action"] == "'self'"  # the filter of the list, which changes nothing
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        wanted = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
        assert (wanted | {"x-frame-options": "DENY"}).items() <= dict(answer.headers).items()
        if answer.headers["content-type"].startswith("text/html"):
            others = answer.text.replace(desk.origin, "")
            assert not re.search(r"<script(?! src=)|<style|<[^>]+ (style|on\w+)=|javascript:|https?://", others)


# --- a session --------------------------------------------------------------------------------------------------------------
def test_the_cookie_is_of_this_host_out_of_scripts_reach_and_ends_after_fifteen_minutes(people) -> None:
    answer = people("mona", signed_in=False).sign_in()
    name, *rest = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-")
    assert {each.lower() for each in rest} == {"httponly", "max-age=900", "path=/", "samesite=strict", "secure"}


def sealed(desk: Desk, credential: str, at: float, **other: Any) -> str:
    """A cookie of a gate with these keys (or others), from this moment."""
    keys = other.get("keys") or KeyRing.existing(desk.folder / "keys")
    with time_machine.travel(at, tick=False):
        response = Response()
        session.opened(response, keys, credential)
    return str(response.headers["set-cookie"]).partition(";")[0]


def test_a_cookie_counts_as_it_was_sealed_for_its_time_and_by_these_keys_only(desk: Desk, people) -> None:
    mona = people("mona", signed_in=False)
    own, now = desk.rows[0]["id"], time.time()
    cookies = {
        "young": sealed(desk, own, now - 870),
        "old": sealed(desk, own, now - 901),
        "early": sealed(desk, own, now + 60),
        "keys": sealed(desk, own, now, keys=KeyRing.ephemeral()),
        "unknown": sealed(desk, "AAAA", now),
    }
    name, _, value = sealed(desk, own, now).partition("=")
    cookies |= {f"flipped {n}": f"{name}={value[:n]}{'AB'[value[n] == 'A']}{value[n + 1 :]}" for n in range(0, len(value), 7)}
    cookies |= {"cut": f"{name}={value[:-1]}", "empty": f"{name}=", "dots": f"{name}=..", "long": f"{name}={'a' * 5000}.1.b"}
    kim = desk.rows[1]["id"]
    cookies["another's"] = f"{name}={kim}.{value.partition('.')[2]}"
    cookies["later"] = f"{name}={own}.{int(now) + 1}.{value.rpartition('.')[2]}"
    found = {}
    for what, cookie in cookies.items():
        mona.cookie = cookie
        found[what] = signed_out(mona.get("/holds"))
    assert [what for what, out in found.items() if not out] == ["young"]
    assert signed_out(mona.http.get("/holds", headers={"Cookie": f"{name}={own}.{int(now)}.\u00e9".encode("latin-1")}))


def in_time(done: Callable[[], bool], pause: float = 0.1) -> None:
    """Until it is so."""
    end = time.monotonic() + 15
    while not done():
        assert time.monotonic() < end
        time.sleep(pause)


def test_a_passkey_that_was_taken_out_of_the_file_is_signed_out_at_once(desk: Desk, people) -> None:
    leaver = signed_up(desk, people, "leaver", "acme", "leads")
    assert not signed_out(leaver.get("/holds"))
    desk.rows.pop()
    desk.write()
    in_time(lambda: signed_out(leaver.get("/holds")))
    assert code(leaver.post("/holds/nonce", {"answers": {GONE: "release"}})) == (401, "signed_out")
    assert code(leaver.sign_in()) == (401, "passkey")


def test_who_is_revoked_is_signed_out_and_does_not_sign_in(desk: Desk, people) -> None:
    rev = signed_up(desk, people, "rev", "acme", "leads")
    assert not signed_out(rev.get("/holds"))
    desk.host.revoke("user:rev", tenants=["acme"], by="ana", reason="INC-1")
    assert signed_out(rev.get("/holds"))
    assert code(rev.sign_in()) == (401, "passkey")


def test_while_the_file_of_passkeys_is_wrong_nobody_is_signed_in_and_the_page_says_so(desk: Desk, people) -> None:
    mona = people("mona")
    desk.file.write_text("[[passkeys]]\nid = 1\n")
    in_time(lambda: mona.get("/holds").status_code == 503)
    assert "The gate cannot read its store or its passkey file" in mona.get("/holds").text
    assert mona.sign_in().status_code == 503
    desk.write()
    in_time(lambda: mona.sign_in().status_code == 204)


# --- signing in -------------------------------------------------------------------------------------------------------------
def test_a_challenge_counts_once_for_five_minutes_and_only_if_the_gate_made_it(desk: Desk, people) -> None:
    mona = people("mona", signed_in=False)
    keys, now = KeyRing.existing(desk.folder / "keys"), time.time()

    def tried(challenge: str) -> httpx.Response:
        answer: httpx.Response = mona.post("/holds/session", {"challenge": challenge, "assertion": mona.assertion(challenge.encode())})
        return answer

    def made(at: float, ring: KeyRing = keys) -> str:
        with time_machine.travel(at, tick=False):
            return session.make_challenge(ring)

    once = mona.challenge()
    assert tried(once).status_code == 204
    assert code(tried(once)) == (400, "challenge")
    assert tried(made(now - 270)).status_code == 204
    for bad in (made(now - 301), made(now + 60), made(now, KeyRing.ephemeral()), "x", "1.2.3", f"{once}0", "\u00e9.1.2", "1.2.\u00e9"):
        assert code(tried(bad)) == (400, "challenge")


def test_who_is_not_verified_or_known_or_signed_something_else_is_not_signed_in(desk: Desk, people) -> None:
    mona, other = (people("mona", signed_in=False) for _ in range(2))
    other.passkey = Passkey(rp_id="localhost")  # which nobody put into the file
    assert code(other.sign_in()) == (401, "passkey")
    changes: tuple[dict[str, Any], ...] = ({"flags": PRESENT}, {"rp_id": "evil.example"}, {"type": "webauthn.create"})
    for change in (*changes, {"origin": "http://localhost:1"}, {"crossOrigin": True}):
        assert code(mona.sign_in(**change)) == (401, "passkey"), change
        assert not mona.cookie
    challenge = mona.challenge()
    wrong: Any
    for wrong in (mona.assertion(mona.challenge().encode()), {}, [], "x", {"id": desk.rows[0]["id"]}):
        assert code(mona.post("/holds/session", {"challenge": challenge, "assertion": wrong})) == (401, "passkey")
    assert signed_out(mona.get("/holds"))


@pytest.mark.parametrize("path", POSTS)
def test_only_a_page_of_this_gate_posts_here(people, path: str) -> None:
    mona = people("mona")
    body = {"challenge": mona.challenge(), "assertion": {}, "credential": {}, "name": "x", "answers": {GONE: "release"}, "nonce": "x"}
    own = mona.desk.origin
    for origin in (None, "null", "https://evil.example", f"{own}.evil.example", own.replace("http:", "https:"), "http://localhost"):
        assert mona.post(path, body, Origin=origin).json()["detail"] == "origin: expected a page of this gate"
    for site in ("cross-site", "same-site", "none"):
        assert mona.post(path, body, Sec_Fetch_Site=site).json()["detail"] == "sec-fetch-site: expected a page of this gate"
    said = mona.post(path, body, Sec_Fetch_Site=None)  # an older browser: then it is about the body
    assert "origin" not in said.json().get("detail", "").lower()
    assert "sec-fetch" not in said.json().get("detail", "").lower()
    other_site = {"Origin": "https://evil.example", "Cookie": mona.cookie}
    assert code(mona.http.delete("/holds/session", headers=other_site)) == (400, "invalid_request")
    assert mona.post(path, body, Content_Type="text/plain").status_code == 415
    assert mona.post(path, b"x" * 40_000).status_code == 413
    assert mona.post(path, b'{"a": 1, "a": 2}').status_code == 400


# --- answers ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "release",
        {},
        {GONE: "reveal", "1" * 64: "release"},
        {GONE: "reveal", "1" * 64: "reveal"},
        {GONE: "yes"},
        {GONE: ""},
        {GONE: None},
        {GONE: ["release"]},
        {GONE: {"release": 1}},
        {GONE[:-1]: "release"},
        {GONE + "0": "release"},
        {"A" * 64: "release"},
        {f"{GONE}\n": "release"},
        {f"{n:064x}": "release" for n in range(MOST + 1)},
    ],
    ids=lambda given: str(given)[:40],
)
def test_answers_in_another_form_are_none(given: Any) -> None:
    with pytest.raises(RequestRefused) as refused:
        judging._answers(given)
    assert (refused.value.status, refused.value.error) == (400, "invalid_request")


def test_up_to_ten_holds_are_answered_together_and_one_is_revealed() -> None:
    many = {f"{n:064x}": ("release", "refuse")[n % 2] for n in range(MOST)}
    for given in (many, {GONE: "release"}, {GONE: "refuse"}, {GONE: "reveal"}):
        assert judging._answers(given) == given


def test_a_session_alone_answers_nothing(desk: Desk, people) -> None:
    mona = people("mona")
    run, hold = desk.held(why="session")
    answers = {hold.id: "release"}
    challenge = mona.challenge()
    assertion: Any
    for assertion in ({}, None, "x", mona.assertion(challenge.encode())):  # none, or the one that signs in
        nonce = mona.post("/holds/nonce", {"answers": answers}).json()["nonce"]
        got = mona.post("/holds/answers", {"answers": answers, "nonce": nonce, "assertion": assertion})
        assert got.status_code == 400
    out = people("mona", signed_in=False)
    assert all(signed_out(out.get(path)) for path in (f"/holds/{hold.id}", f"/holds/{hold.id}/run", f"/holds/{GONE}"))
    assert code(out.post("/holds/nonce", {"answers": answers})) == (401, "signed_out")
    assert code(out.post("/holds/answers", mona.signed(answers))) == (401, "signed_out")
    assert type(desk.asked(run, why="session")).__name__ == "StepUp"
    assert mona.say(answers).status_code == 200
    assert isinstance(desk.asked(run, why="session"), Allow)


def test_a_session_alone_keeps_nobody_else_from_answering(desk: Desk, people) -> None:
    """A hold keeps 64 nonces: with a cookie of one person's, the nonces of all others could be pushed out."""
    mona, thief = people("mona"), people("mona")
    run, hold = desk.held(why="pushed")
    answers = {hold.id: "release"}
    made = mona.signed(answers)
    assert {thief.post("/holds/nonce", {"answers": answers}).status_code for _ in range(70)} == {200, 429}
    assert mona.post("/holds/answers", made).status_code == 200
    assert isinstance(desk.asked(run, why="pushed"), Allow)


def test_an_assertion_answers_what_it_was_made_for_once_and_by_who_signed_in(desk: Desk, people) -> None:
    mona, kim = people("mona"), people("kim")
    run, hold = desk.held(why="exact")
    _, other = desk.held(run=run, call="call-2", why="another")
    made = mona.signed({hold.id: "release"})
    assert code(mona.post("/holds/answers", {**made, "answers": {hold.id: "refuse"}})) == (400, "signature")
    assert code(mona.post("/holds/answers", {**made, "answers": {other.id: "release"}})) == (400, "signature")
    assert code(mona.post("/holds/answers", {**made, "nonce": mona.signed({hold.id: "release"})["nonce"]})) == (400, "signature")
    assert code(mona.post("/holds/answers", {**made, "answers": {hold.id: "reveal"}})) == (400, "signature")
    assert code(kim.post("/holds/answers", made)) == (400, "signature")  # kim signed in, mona's passkey answers
    assert code(mona.say({hold.id: "release"}, flags=PRESENT)) == (400, "signature")
    assert code(mona.say({hold.id: "release"}, origin="http://localhost:1")) == (400, "signature")
    assert type(desk.asked(run, why="exact")).__name__ == "StepUp"
    assert mona.post("/holds/answers", made).status_code == 200
    assert code(mona.post("/holds/answers", made)) in {(409, "state"), (400, "nonce")}
    told = [r for r in read_records(desk.folder / "audit") if r["type"] == "hold_answer" and r["hold"] == hold.id]
    assert [(r["by"], r["channel"], r["answer"], r["state"]) for r in told] == [("mona", "webauthn", "release", "released")]


def test_where_two_must_say_yes_each_is_told_who_is_asked_still(desk: Desk, people) -> None:
    mona, kim = people("mona"), people("kim")
    run, hold = desk.held(why="two people")
    first = mona.say({hold.id: "release"}).json()["answered"][hold.id]
    assert first.startswith("Your yes counts. Waits for 2 of leads and 1 of leads")
    assert first.endswith("Yes so far from: mona.")
    assert type(desk.asked(run, why="two people")).__name__ == "StepUp"
    assert kim.say({hold.id: "release"}).json()["answered"][hold.id].startswith("Released.")
    assert isinstance(desk.asked(run, why="two people"), Allow)
    run.close()
    assert hold.id in ids(mona.get("/holds"))  # her own yes, although the run is over
    assert "Yes from: mona, kim." in mona.get(f"/holds/{hold.id}").text


def test_several_are_answered_by_one_assertion_each_as_was_said(desk: Desk, people) -> None:
    mona, run = people("mona"), desk.run()
    holds = [desk.held(run=run, call=f"call-{n}", why=f"several {n}")[1] for n in range(3)]
    shown = mona.get(f"/holds/{holds[1].id}/run").text
    assert all(f'data-hold="{hold.id}"' in shown for hold in holds)
    answers = {holds[0].id: "release", holds[1].id: "refuse", holds[2].id: "release"}
    made = mona.signed(answers)
    assert code(mona.post("/holds/answers", {**made, "answers": {**answers, holds[1].id: "release"}})) == (400, "signature")
    assert code(mona.post("/holds/answers", {**made, "answers": {holds[0].id: "release"}})) == (400, "signature")
    became = mona.post("/holds/answers", made).json()["answered"]
    assert [became[hold.id].partition(".")[0] for hold in holds] == ["Released", "Refused", "Released"]
    assert [type(desk.asked(run, call=f"call-{n}", why=f"several {n}")) for n in range(3)] == [Allow, Deny, Allow]


def test_several_of_which_one_is_not_theirs_are_not_answered_at_all(desk: Desk, people) -> None:
    mona, run = people("mona"), desk.run()
    _, own = desk.held(run=run, why="hers")
    _, lees = desk.held("files.share", run=run, call="call-2")
    made = mona.signed({own.id: "release"})
    both = {own.id: "release", lees.id: "release"}
    assert code(mona.post("/holds/nonce", {"answers": both})) == (404, "missing")
    assert code(mona.post("/holds/answers", {**made, "answers": both})) == (404, "missing")
    assert desk.host.hold(own.id, tenant="acme").state == "pending"


def test_one_of_several_that_somebody_else_answered_meanwhile_says_so_and_the_others_count(desk: Desk, people) -> None:
    mona, kim, run = people("mona"), people("kim"), desk.run()
    holds = [desk.held(run=run, call=f"call-{n}", why=f"meanwhile {n}")[1] for n in range(2)]
    made = mona.signed({hold.id: "release" for hold in holds})
    assert kim.say({holds[0].id: "refuse"}).status_code == 200
    became = mona.post("/holds/answers", made).json()["answered"]
    assert became[holds[0].id] == judging.REFUSED[AnswerCode.STATE]
    assert became[holds[1].id].startswith("Released.")


def test_masked_values_are_shown_to_who_may_answer_and_asks_on_record(desk: Desk, people) -> None:
    lee, mona = people("lee"), people("mona")
    _, hold = desk.held("files.share", password="hunter2-hunter2")
    shown = lee.get(f"/holds/{hold.id}").text
    assert "hunter2" not in shown
    assert 'data-masked="password"' in shown
    assert code(mona.post("/holds/nonce", {"answers": {hold.id: "reveal"}})) == (404, "missing")
    assert lee.say({hold.id: "reveal"}).json() == {"values": {"password": "hunter2-hunter2"}}
    assert [r["by"] for r in read_records(desk.folder / "audit") if r["type"] == "hold_revealed" and r["hold"] == hold.id] == ["lee"]


@pytest.mark.parametrize(
    "answers",
    [
        *({}, [], "x", None, {"x": "release"}, {GONE: "maybe"}, {GONE: 1}, {GONE: "reveal", "1" * 64: "release"}),
        {f"{n:064x}": "release" for n in range(11)},
    ],
)
def test_answers_of_another_form_are_refused(people, answers: Any) -> None:
    mona = people("mona")
    for path, more in (("/holds/nonce", {}), ("/holds/answers", {"nonce": "x", "assertion": {}})):
        status, _ = code(mona.post(path, {"answers": answers, **more}))
        assert status in {400, 404}


def test_holds_of_two_runs_are_not_one_question(desk: Desk, people) -> None:
    mona = people("mona")
    answers = {desk.held(why="one run")[1].id: "release", desk.held(why="another run")[1].id: "release"}
    assert code(mona.post("/holds/nonce", {"answers": answers})) == (400, "form")


@pytest.mark.parametrize("answer", AnswerCode)
def test_a_refusal_is_a_sentence_that_says_what_to_do(answer: AnswerCode) -> None:
    assert re.fullmatch(r"[A-Z].+[.:,] [^.]+.*\.", judging.REFUSED[answer])


@pytest.mark.parametrize("state", get_args(State))
def test_a_state_is_a_sentence(state: Any) -> None:
    question = Question(GONE, "acme", "w v1", "t", "write", (), "lee", "bot", (), (), (), 1.0, 2e9, "")
    hold = Hold(GONE, "acme", "run", "t", "c", ("two",), {}, (), 2e9, question, state)
    assert re.fullmatch(r"[A-Z][^{}]+\.", judging.became(hold, UTC))


# --- a passkey is made ------------------------------------------------------------------------------------------------------
def test_a_new_passkey_becomes_lines_for_the_operator_and_nothing_else(desk: Desk, people) -> None:
    nobody = people("mona", signed_in=False)
    own, before = Passkey(rp_id="localhost"), desk.file.read_bytes()
    challenge = nobody.challenge()
    posted = {"challenge": challenge, "credential": own.create(challenge.encode(), origin=desk.origin), "name": 'ann"\n\u202e[[passkeys]]'}
    made = nobody.post("/holds/passkey", posted)
    (row,) = tomllib.loads(made.json()["lines"])["passkeys"]
    whole = own.row("ann")
    assert row == {**whole, "tenants": ["TENANT"], "user": 'ann"\\n\\u202e[[passkeys]]'}  # visible, and one value
    assert desk.file.read_bytes() == before
    assert code(nobody.post("/holds/passkey", posted)) == (400, "challenge")
    nobody.passkey = own
    assert code(nobody.sign_in()) == (401, "passkey")


def test_a_passkey_of_another_page_or_an_unverified_person_is_none(desk: Desk, people) -> None:
    nobody, own = people("mona", signed_in=False), Passkey(rp_id="localhost")
    changes: tuple[dict[str, Any], ...] = ({"flags": PRESENT | NEW_KEY}, {"rp_id": "evil.example"}, {"type": "webauthn.get"})
    for change in (*changes, {"origin": "https://evil.example"}):
        challenge = nobody.challenge()
        credential = own.create(challenge.encode(), **{"origin": desk.origin, **change})
        assert code(nobody.post("/holds/passkey", {"challenge": challenge, "credential": credential, "name": "x"})) == (401, "passkey")
    credential = own.create(nobody.challenge().encode(), origin=desk.origin)
    assert code(nobody.post("/holds/passkey", {"challenge": nobody.challenge(), "credential": credential, "name": "x"})) == (401, "passkey")
    with time_machine.travel(time.time() - 301, tick=False):
        old = session.make_challenge(KeyRing.existing(desk.folder / "keys"))
    for kept in (old, session.make_challenge(KeyRing.ephemeral()), "x"):  # whoever holds an old answer, or made up what it answers
        credential = own.create(kept.encode(), origin=desk.origin)
        assert code(nobody.post("/holds/passkey", {"challenge": kept, "credential": credential, "name": "x"})) == (400, "challenge")


# --- around -----------------------------------------------------------------------------------------------------------------
def test_no_log_line_holds_a_cookie_an_assertion_or_the_users_words(place, desk: Desk, people) -> None:
    mona = people("mona")
    _, hold = desk.held(why="a very secret reason")
    mona.get(f"/holds/{hold.id}")
    made = mona.signed({hold.id: "release"})
    assert mona.post("/holds/answers", made).status_code == 200
    assert mona.post("/holds/answers", made).status_code in {400, 409}
    log = place[1].stderr.read_text()
    sent = (mona.cookie.rpartition(".")[2], made["nonce"], made["assertion"]["response"]["signature"])
    for secret in (*sent, "secret reason", "report.txt", hold.id):
        assert secret not in log
    assert '"path": "/holds/{hold}"' in log


def test_who_is_slow_with_an_answer_keeps_nobody_waiting(place, desk: Desk, people) -> None:
    mona, kim = people("mona"), people("kim")
    head = f"POST /holds/answers HTTP/1.1\r\nHost: x\r\nOrigin: {desk.origin}\r\nCookie: {mona.cookie}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as lines:
        for _ in range(AT_ONCE):
            lines.enter_context(socket.create_connection(("127.0.0.1", place[1].port))).sendall(head.encode())
        time.sleep(0.5)
        assert kim.get("/holds").status_code == 200


def test_too_many_requests_and_a_store_that_is_away_are_said_on_the_page(tmp_path: Path) -> None:
    store = Server(redis_binary(), tmp_path / "redis")
    try:
        (tmp_path / "desk").mkdir()
        with desk_of(tmp_path / "desk", store, rate=1) as (desk, gate), closing(Person(desk, gate, "mona")) as mona:
            assert mona.sign_in().status_code == 204
            assert mona.get("/holds").status_code == 200
            in_time(lambda: mona.get("/holds").status_code == 429, pause=0)
            assert "Too many requests" in mona.get("/holds").text
            cookie, mona.cookie = mona.cookie, ""
            asks: list[Callable[[], httpx.Response]] = [partial(mona.get, path) for path in ("/holds", "/holds/passkey")]
            asks += [partial(mona.post, path, {}) for path in POSTS]
            assert 429 not in {ask().status_code for ask in asks * 15}  # whom nobody proved uses up nothing of who shares the address
            store.stop()
            mona.cookie = cookie
            in_time(lambda: mona.get("/holds").status_code == 503, pause=1.1)
            in_time(lambda: '<meta http-equiv="refresh"' in mona.get("/holds").text, pause=1.1)
    finally:
        store.stop()


def test_a_gate_without_passkeys_has_no_such_pages(desk: Desk) -> None:
    paths = [
        {getattr(route, "path", "") for route in application(ServiceSettings(**desk.settings | more)).routes}
        for more in ({}, {"passkeys": None, "clients": {"desk": {"role": "host", "tenants": ["acme"], "keys": "desk.json"}}})
    ]
    assert {path for path, *_ in PAGES} == paths[0] - paths[1]
    assert not [path for path in paths[1] if path.startswith("/holds")]
