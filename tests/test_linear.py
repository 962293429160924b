"""Reading is linear: no text of a user, an agent or a tool takes longer to read than its length accounts for, in whatever field it is.

Every pattern that a module of the package holds is tried by itself, so a new one is, too; and every field that takes text from end to end.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, Reason, User
from agentgate.decision.origins import labels
from agentgate.explain import asking
from agentgate.gate import flow
from agentgate.gate.turns import MAX_SAID
from agentgate.intents import closeness
from agentgate.intents.lexical import derive
from agentgate.language import calculation, delegation, first_person, spans, stems, wording
from agentgate.language.prompt import MAX_TURN, Prompt
from agentgate.language.spans import SearchedText
from agentgate.language.turn import Turn
from agentgate.loading.catalog import Catalog
from agentgate.redemption.outcome import MAX_LOOKED, extract
from agentgate.shell import drive
from agentgate.shell.step import TextReading
from agentgate.values import entities, leaks, patterns, visible
from agentgate.values.paths import FINDABLE
from agentgate.values.refusal import RunRefused
from agentgate.values.request import OWN
from agentgate.workflow.rule import Selector
from tests import linear
from tests.effort import examples
from tests.shop import LEE, ORDER, PROMPT, WEEKDAY
from tests.shop import WORKFLOW as SHOP
from tests.test_attacks_size import NOTES, SlowClock

TODAY = date(2026, 6, 1)
HERE = Path(__file__).parent

# Searched for in a few characters only, whose number the code bounds: the most of them.
WINDOWS = {"language.spans._FORMS.words_after": 64, "language.turn._FORMS.signed": 200, "values.patterns._CLASS": 512}

PATTERNS = {**linear.patterns(), **{f"calculation {key}": pattern for key, pattern in calculation._phrases().items()}}


@pytest.mark.parametrize("name", [name for name in PATTERNS if name not in WINDOWS])
def test_no_pattern_takes_longer_than_its_text_accounts_for(name: str) -> None:
    pattern, only_matched = PATTERNS[name], linear.only_matched()

    def match(text: str) -> None:
        if name.partition("[")[0] in only_matched or name.rpartition(".")[2] in linear.MATCHES:
            pattern.match(text)
            pattern.fullmatch(text)
        else:
            for _ in pattern.finditer(text):
                pass

    tried = [
        *((known, "", "") for known in linear.KNOWN[:: examples(3, 6)]),
        *((sign, "", "\x00") for sign in " \na1.-"),  # what is read to its end, where something else follows
        *linear.fragments(name, linear.atoms_of(pattern, name), examples(10, 3)),
    ]
    assert linear.too_fast_growing(match, tried) == []


def test_every_pattern_is_found() -> None:
    assert len(PATTERNS) > 250
    assert {
        "language.spans._TOKEN",
        "language.whose._FORWARDED",
        "values.visible._MARKDOWN",
        "service.calls._ATTEMPT.fullmatch",
    } <= PATTERNS.keys()
    assert WINDOWS.keys() <= PATTERNS.keys()


@pytest.mark.parametrize("pattern", [r"\s+$", r"[\w.]+@", r"a[^b]*b"])
def test_a_pattern_that_reads_a_text_again_and_again_is_noticed(pattern: str) -> None:
    slow = re.compile(pattern)
    assert linear.too_fast_growing(lambda text: [*slow.finditer(text)], [("a", "", ""), (" ", "", "a")])


# --- the fields -----------------------------------------------------------------------------------------------------------
@cache
def many() -> Any:
    """Four intents of the workflow that has most of them."""
    catalogs = (Catalog.load(HERE / "benchmarks" / folder, derive) for folder in ("unseen", "agentdojo"))
    return max((tuple(workflow.intents.values()) for catalog in catalogs for workflow in catalog), key=len)[:4]


SELECTOR = Selector("drive.list", ("file", "invoice"), (("largest", "size"), ("newest", "date")))


def heard(text: str) -> None:
    turn = Turn(text)
    assert all(
        (
            turn.sentences is not None,
            turn.says_no is not None,
            turn.hesitates is not None,
            turn.may_say_no is not None,
            turn.voices is not None,
        )
    )


def prompt(text: str) -> Prompt:
    return Prompt.of((text,), TODAY)


def named(text: str) -> None:
    words = prompt(text)
    labels.heard_in(words)
    labels.affirmed(words)
    labels.chosen(SELECTOR, words.spoken)


def said(text: str) -> None:
    words = prompt(text)
    for each in (text, text[: len(text) // 2], text[3:]):
        wording.said(words, each)


def found(text: str) -> None:
    kinds = {kind: ("mail", f"[{kind}]") for kind in FINDABLE}
    extract({**kinds, "numbers": ("mail", "[numbers]", "[]")}, {"mail": text})


def shown(text: str) -> None:
    visible.markdown(text)
    visible.visible(text, 80)
    asking.shown_text(text)
    asking._own(Turn(text))


BEFORE = Prompt.of(("a b refund it " * 500,), TODAY)
FIELDS: dict[str, Callable[[str], object]] = {
    "a turn": heard,
    "a turn's own part": lambda text: heard(OWN + text),
    "intents of a prompt": lambda text: derive(many(), (text,)),
    "intents of a prompt's own part": lambda text: derive(many(), (OWN + text,)),
    "intents of a later turn": lambda text: derive(many(), ("Please refund ORD-1", text)),
    "a denial": lambda text: derive(many(), ("do not " + text,)),
    "a report": lambda text: derive(many(), ("she said " + text,)),
    "a quotation": lambda text: prompt(f'titled "{text}"'),
    "what a prompt names": prompt,
    "what a prompt's own part names": lambda text: prompt(OWN + text),
    "delegation": lambda text: delegation.handed_over(Turn(OWN + text)),
    "the user": lambda text: first_person.of_self([Turn(OWN + text)]),
    "calculations": lambda text: calculation.spoken([Turn(OWN + text)]),
    "labels and selectors": named,
    "wording": said,
    "wording of an argument": lambda text: wording.said(BEFORE, text),
    "quantities": closeness.quantities,
    "closeness": closeness._terms,
    "stems": stems.stems,
    "entities": lambda text: [*spans.entities(text, TODAY)],
    "text of an argument": lambda text: [*spans.embedded(text, TODAY)],
    "facts in a mail": found,
    "an address in a mail": lambda text: SearchedText("a@b.example " + text).only("email"),
    "an account in a mail": lambda text: SearchedText("DE89370400440532013000 " + text).only("iban"),
    "a link in a mail": lambda text: SearchedText("https://b.example/ " + text).only("url"),
    "values of each type": lambda text: [entities.normal(kind, text) for kind in entities.TYPES],
    "a reviewer's pattern": lambda text: patterns.Pattern.of("(a|b|[0-9]+)*").matches(text),
    "what a person is shown": shown,
    "a secret in a result": lambda text: leaks.holds({"result": [text]}, ["s" * 20]),
    "a secret of this text": lambda text: leaks.holds("s" * 20, [text]),
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_takes_longer_than_its_text_accounts_for(field: str) -> None:
    many()  # loaded before anything is timed
    each = examples(1, 5)  # quickly every fifth, and in the next field the next ones
    known = linear.KNOWN[[*FIELDS].index(field) % each :: each]
    tried = [*((slow, "", "") for slow in known), *linear.fragments(field, linear.ATOMS, examples(6, 2))]
    assert linear.too_fast_growing(FIELDS[field], tried) == []


def test_many_facts_of_one_text_cost_one_reading() -> None:
    mail = {"mail": "1% " * 10_000}
    one = linear.seconds(lambda _: extract({"a": ("mail", "[email]")}, mail), "", 3)
    many = linear.seconds(lambda _: extract({f"f{n}": ("mail", f"[{kind}]") for n, kind in enumerate([*FINDABLE] * 2)}, mail), "", 3)
    assert many < 2 * one


# --- a run ------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes.yaml").write_text(NOTES)
    (tmp_path / "refund.yaml").write_text(SHOP)
    return tmp_path


def opened(folder: Path, **settings: Any) -> Gate:
    return Gate.open_unsafe_unapproved(folder, issuer="https://gate.example", audit="memory://", **{"clock": lambda: WEEKDAY, **settings})


def test_all_turns_of_a_run_together_have_a_cap(folder: Path) -> None:
    with opened(folder) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        for _ in range(MAX_SAID // MAX_TURN - 1):
            run.add_turn("a " * (MAX_TURN // 2))
        with pytest.raises(RunRefused, match=f"at most {MAX_SAID}"):
            run.add_turn("a " * (MAX_TURN // 2))
        run.add_turn("Thanks")


class BusyClock(SlowClock):
    """A clock whose reading keeps a processor busy: as if the decision itself did."""

    def __call__(self) -> datetime:
        began = time.thread_time()
        while self.slow and time.thread_time() < began + flow.LATE + 0.01:
            pass
        return WEEKDAY


@pytest.mark.deadline
def test_a_decision_that_waits_for_a_busy_machine_is_no_denial(folder: Path) -> None:
    clock = SlowClock()  # it waits as for a processor that is busy with others
    with opened(folder, clock=clock, denials_per_run=1) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        clock.slow = True
        for n in range(3):
            late = run.authorize("orders.get", ORDER, tool_call_id=f"late{n}")
            assert isinstance(late, Deny)
            assert late.reasons == (Reason.STORE,)
        clock.slow = False
        assert isinstance(run.authorize("orders.get", ORDER), Allow)


@pytest.mark.deadline
def test_a_decision_that_is_late_by_itself_is_a_denial(folder: Path) -> None:
    clock = BusyClock()
    with opened(folder, clock=clock, denials_per_run=2) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        clock.slow = True
        late = [run.authorize("orders.get", ORDER, tool_call_id=f"late{n}") for n in range(2)]
        assert [answer.reasons for answer in late if isinstance(answer, Deny)] == [
            (Reason.OVERLOAD,),
            (Reason.OVERLOAD, Reason.TOO_MANY_DENIALS),
        ]
        clock.slow = False
        ended = run.authorize("orders.get", ORDER)
        assert isinstance(ended, Deny)
        assert ended.reasons == (Reason.TOO_MANY_DENIALS,)


# --- beside an event loop -----------------------------------------------------------------------------------------------------
class NotedThreads:
    """A clock and a deriver that note in which thread they are asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def clock(self) -> datetime:
        self.names.append(threading.current_thread().name)
        return WEEKDAY

    def derive(self, intents: Any, turns: Any) -> Any:
        self.names.append(threading.current_thread().name)
        return derive(intents, turns)


async def test_long_texts_are_read_outside_the_event_loop_and_short_ones_in_it(folder: Path) -> None:
    noted, here = NotedThreads(), threading.current_thread().name
    long = "note " * drive.SHORT
    settings: dict[str, Any] = {"issuer": "https://gate.example", "audit": "memory://", "clock": noted.clock, "deriver": noted.derive}
    async with await AsyncGate.open_unsafe_unapproved(folder, **settings) as gate:

        async def where(work: Any) -> set[str]:
            noted.names.clear()
            await work
            return {*noted.names}

        who: dict[str, Any] = {"tenant": "acme", "user": User("lee", tenant="acme"), "agent": Agent("bot")}
        assert "agentgate-reading" in await where(gate.open_run("notes", prompt=f"Write a note {long}", **who))
        assert await where(gate.open_run("notes", prompt="Write a note to Ann", **who)) == {here}
        run = await gate.open_run("notes", prompt="Write a note", **who)
        assert await where(run.authorize("note", {"title": "a"})) == {here}
        assert await where(run.authorize("note", {"body": long})) == {"agentgate-reading"}
        assert await where(run.add_turn("Write another note")) == {here}
        assert await where(run.add_turn(f"Write a note {long}")) == {"agentgate-reading"}
        assert "agentgate-reading" in await where(run.add_turn("Write one more"))  # beside what was said before


async def test_the_shortest_text_is_read_first() -> None:
    free, order = threading.Event(), list[int]()

    def work(size: int) -> Callable[[], None]:
        return lambda: order.append(size)

    held = [asyncio.ensure_future(drive.read_in_thread(TextReading(0, lambda: free.wait(10)))) for _ in range(drive.THREADS)]
    await asyncio.sleep(0.05)
    sizes = [MAX_LOOKED, 60_000, 3000, 10_000]
    waiting = [asyncio.ensure_future(drive.read_in_thread(TextReading(size, work(size)))) for size in sizes]
    await asyncio.sleep(0.05)
    free.set()
    await asyncio.gather(*held, *waiting)
    assert order[0] == 3000
    assert order[-1] == MAX_LOOKED
