"""The chat backend of the examples: two real workers over one store, one of them killed between hold and answer; and who attacks it."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import itsdangerous
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from agentgate_demo.case import load_case
from tests.deadlines import python_path

PLACE = Path(__file__).parent.parent / "examples" / "chat-backend"
SMALL, BIG = "ORD-10023344", "ORD-10023377"
pytestmark = pytest.mark.server


@pytest.mark.thorough("the other tests of this file hold the same workers to the same")
def test_every_scene_ends_as_it_must() -> None:
    played: Any = load_case("chat").play()
    assert [(row.outcome, row.code, row.caller) for row in played.rows if not row.as_expected] == []
    assert [(row.outcome, row.code) for row in played.rows] == [
        ("allowed", "ok"),
        ("held", "needs_approval"),
        ("denied", "404"),
        ("held", "needs_approval"),
        *[("allowed", "ok")] * 4,
        ("denied", "refused"),
    ]
    assert played.ok, played.ending
    assert [(each["order_id"], each["amount"]) for each in played.facts["paid"]] == [
        (SMALL, "49.90"),
        (BIG, "180.00"),
        ("ORD-10023388", "50.00"),
        (SMALL, "49.90"),
    ]


def test_the_glue_is_short_and_the_line_for_a_real_model_is_there() -> None:
    glue = (PLACE / "app.py").read_text()
    lines = [line for line in glue.splitlines() if line.strip() and not line.lstrip().startswith(("#", '"""', "import ", "from "))]
    assert len(lines) <= 70
    assert "init_chat_model(" in glue


# --- two workers ---------------------------------------------------------------------------------------------------------------
class Chat:
    """The backend, and who comes to it."""

    def __init__(self, backend: Any, visitor: Any) -> None:
        self.backend, self._visitor, self.visitors = backend, visitor, list[Any]()

    def visitor(self, name: str, worker: int = 0) -> Any:
        """Somebody who signs in, at one of the workers."""
        self.visitors.append(self._visitor(name, self.backend.workers[worker]))
        return self.visitors[-1]

    @property
    def paid(self) -> list[Any]:
        """Refunds that were made."""
        books = self.backend.state / "paid.jsonl"
        return [json.loads(line) for line in books.read_text().splitlines()] if books.exists() else []

    @property
    def secret(self) -> str:
        """What the workers sign their cookies with."""
        found: str = self.backend.environment["SECRET"]
        return found


@pytest.fixture(scope="module", autouse=True)
def unhurried() -> Iterator[None]:
    """The workers, too, have the long deadline of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path(str(PLACE.parents[1])))
        yield


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    before = set(sys.modules)
    sys.path.insert(0, str(PLACE))
    try:
        from run import Backend, Visitor  # type: ignore[import-not-found]  # the example's own

        with Backend.running() as backend:
            yield (made := Chat(backend, Visitor))
            for visitor in made.visitors:
                visitor.http.close()
    finally:
        sys.path.remove(str(PLACE))
        for beside in {file.stem for file in PLACE.glob("*.py")} & (sys.modules.keys() - before):
            del sys.modules[beside]


def held(chat: Chat, name: str = "lee", worker: int = 0) -> tuple[Any, Any, str]:
    """Somebody whose refund waits; the lead, and its hold."""
    asker, kim = chat.visitor(name, worker), chat.visitor("kim", 1)
    kim.look()
    known = set(kim.holds)
    asker.say(f"Please refund order {BIG}, it arrived broken")
    kim.look()
    (hold,) = set(kim.holds) - known
    return asker, kim, hold


def test_a_call_that_one_worker_held_runs_once_at_the_other_after_the_first_was_killed(chat: Chat) -> None:
    lee, kim, hold = held(chat)
    before, killed = len(chat.paid), chat.backend.workers[0]
    killed.kill()
    try:
        assert kim.answer(hold).status_code == 200
        lee.worker = chat.backend.workers[1]
        with ThreadPoolExecutor(4) as pool:  # a page that asks several times at once
            list(pool.map(lambda _: lee.http.post(f"{lee.worker.url}/chat"), range(4)))
        assert len(chat.paid) == before + 1
        assert chat.paid[-1]["amount"] == "180.00"
        lee.look()
        assert "refunded" in lee.heard  # or, by one that came second: that it is refunded already
    finally:
        chat.backend.workers[0] = fresh = chat.backend.start(int(killed.url.rpartition(":")[2]))
        chat.backend.workers.pop()
        fresh.ready()


def test_a_manager_answers_and_nobodys_agent_runs_by_that(chat: Chat) -> None:
    lee, kim, hold = held(chat, worker=1)
    before = len(chat.paid)
    assert kim.answer(hold).status_code == 200
    kim.look()
    assert hold not in kim.holds
    time.sleep(0.5)
    assert len(chat.paid) == before
    assert "refunded 180.00 EUR" in lee.say()
    assert len(chat.paid) == before + 1


def test_who_may_not_answer_gets_nothing(chat: Chat) -> None:
    lee, kim, hold = held(chat, worker=1)
    ann = chat.visitor("ann", 1)
    for somebody in (lee, ann):
        somebody.look()
        assert hold not in somebody.page
        assert somebody.answer(hold).status_code == 404
    assert kim.http.post(f"{kim.worker.url}/holds/{'0' * 64}", data={"say": "release"}).status_code == 404
    assert kim.http.post(f"{kim.worker.url}/holds/{hold}", data={"say": "reveal"}).status_code == 404
    kim.answer(hold, "refuse")


def test_a_yes_is_by_whoever_signs_in_for_it_and_for_nothing_else(chat: Chat) -> None:
    """In Kim's browser Ann signs in for the yes; then a login that was not asked for it comes back; then the same code again."""
    _, kim, hold = held(chat, worker=1)
    asked = kim.http.post(f"{kim.worker.url}/holds/{hold}", data={"say": "release"})
    page = kim.http.post(asked.url, data={"who": "ann"}).text
    assert "That answer does not count (approver)." in page
    kim.sign_in(kim.http.get(f"{kim.worker.url}/login"))
    asked = kim.http.post(f"{kim.worker.url}/holds/{hold}", data={"say": "release"})
    login = kim.http.get(f"{kim.worker.url}/login")  # in another tab
    page = kim.http.post(login.url, data={"who": "kim"}).text
    assert hold in page  # nothing was answered by it
    back = kim.http.post(asked.url, data={"who": "kim"}, follow_redirects=False).headers["location"]
    stranger = chat.visitor("kim", 1)
    assert stranger.http.get(back).status_code == 400  # another browser did not ask
    kim.look()
    kim.answer(hold, "refuse")


@pytest.mark.parametrize("token", ["", "x.y.z", "forged"])
def test_a_session_whose_token_proves_nobody_leads_to_the_login(chat: Chat, token: str) -> None:
    lee = chat.visitor("lee", 1)
    if token == "forged":
        claims = {"iss": chat.backend.login.url, "aud": "chat", "sub": "kim", "tenant": "acme", "groups": ["leads"], "exp": 4102444800}
        parts = ({"alg": "none"}, claims)
        token = ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts) + "."
    session = base64.b64encode(json.dumps({"token": token}).encode())
    signed = itsdangerous.TimestampSigner(chat.secret).sign(session).decode()  # by somebody who has the secret of the cookies
    lee.http.cookies.clear()
    for path, method in (("/", "GET"), ("/chat", "POST"), (f"/holds/{'0' * 64}", "POST")):
        answer = lee.http.request(method, f"{lee.worker.url}{path}", headers={"Cookie": f"session={signed}"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_another_person_in_the_same_browser_begins_anew(chat: Chat) -> None:
    lee, kim, hold = held(chat, worker=1)
    lee.name = "ann"
    lee.sign_in(lee.http.get(f"{lee.worker.url}/login"))
    assert BIG not in re.sub(r"<li class=\"ai\">Hello.*?</li>", "", lee.page)
    kim.answer(hold)
    assert "refunded" not in lee.say()
    lee.name = "lee"
    lee.sign_in(lee.http.get(f"{lee.worker.url}/login"))
    assert "refunded 180.00 EUR" in lee.say()  # his conversation is where it was


def test_another_site_can_post_nothing_in_a_users_name(chat: Chat) -> None:
    lee = chat.visitor("lee", 1)
    answer = lee.http.get(f"{lee.worker.url}/login", follow_redirects=False)
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert "httponly" in answer.headers["set-cookie"].lower()


def test_what_is_said_is_text_on_the_page(chat: Chat) -> None:
    lee = chat.visitor("lee", 1)
    lee.say("<script>alert(1)</script> & <b>hi</b>")
    assert "<script>alert" not in lee.page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in lee.page
    policy = lee.http.get(lee.worker.url).headers["content-security-policy"]
    assert "script-src 'nonce-" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_a_user_whose_wish_is_unclear_is_asked_themselves(chat: Chat) -> None:
    ann, kim = chat.visitor("ann", 1), chat.visitor("kim", 1)
    before = len(chat.paid)
    ann.say(f"Maybe refund order {SMALL}")
    ann.look()
    (hold,) = ann.holds
    kim.look()
    assert hold not in kim.holds
    ann.answer(hold)
    assert "refunded 49.90 EUR" in ann.say()
    assert len(chat.paid) == before + 1


# --- its checkpoints -----------------------------------------------------------------------------------------------------------
async def test_its_saver_keeps_what_langgraph_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLACE))
    from threads import SqliteThreads  # type: ignore[import-not-found]  # as above

    saver, config = SqliteThreads(tmp_path / "t.sqlite"), {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
    assert await saver.aget_tuple(config) is None
    first, second = empty_checkpoint(), empty_checkpoint()
    at_first = await saver.aput(config, first, {"step": 1}, {})
    at_second = await saver.aput(at_first, second, {"step": 2}, {})
    await saver.aput_writes(at_second, [("messages", ["hello"]), ("__interrupt__", [1])], "task")
    newest = await SqliteThreads(tmp_path / "t.sqlite").aget_tuple(config)
    assert newest is not None
    assert (newest.checkpoint["id"], newest.metadata, newest.parent_config) == (second["id"], {"step": 2}, at_first)
    assert sorted(newest.pending_writes or []) == [("task", "__interrupt__", [1]), ("task", "messages", ["hello"])]
    older = await saver.aget_tuple(at_first)
    assert older is not None
    assert older.checkpoint["id"] == first["id"]
    assert await saver.aget_tuple({"configurable": {"thread_id": "2"}}) is None
    assert [each.checkpoint["id"] async for each in saver.alist(config)] == [second["id"]]
