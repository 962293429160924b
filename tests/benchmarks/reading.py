"""Rows of reading: what a gate does with a user's turn, seen for the first time, and with the hundredth of a conversation."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import date
from itertools import count

from agentgate.gate.state import Readings
from agentgate.intents.lexical import derive
from agentgate.workflow.model import Workflow
from tests.benchmarks import world
from tests.benchmarks.row import MS, Bare, Measuring, Row, Scale, token_size
from tests.benchmarks.sidebyside import Pair, compare

LENGTH = 2000  # characters
_DAY = date(2026, 3, 4)
_KINDS = {
    "read_prose": (
        "I have been thinking about the summer party {n} times this week, and I still do not know where it should be.",
        "Last year we sat by the river and most people liked it, although it was rather cold after dinner that evening.",
        "Maybe you could look at what others wrote about room {n} and tell me which of their ideas you would follow.",
        "There is no hurry, but it would be nice to have something that I can show to the others before they go home.",
    ),
    "read_dense": (
        "Please refund 39.{n} EUR of order ORD-100233{n}, it arrived broken.",
        "Then pay GB29NWBK60161331926819 fifteen euros by June {d}rd at 10am, subject 'Lunch {n}'.",
        "Add kim{n}@acme.example and @lee to #team-{n}, see https://acme.example/t/{n} or bill-{n}.txt.",
        "If it's not shipped, cancel ORD-{n}; don't forget to let Ann Müller know on 2026-06-{d}!",
    ),
}


def _texts(sentences: tuple[str, ...]) -> Iterator[str]:
    """Texts of one kind, no clause twice among them: nothing that is remembered about one helps with the next."""
    numbers = count(1000)
    while True:
        text = ""
        while len(text) < LENGTH:
            for sentence in sentences:
                n = next(numbers)
                text += f"{n}. " if "{" not in sentence else ""
                text += sentence.format(n=n, d=10 + n % 20) + " "
        yield text[:LENGTH]


def reading(scale: Scale) -> Measuring:
    """The payment workflow's intents and a prompt's index, for prose and for text that is dense with what can be named."""
    workflow = world.loaded(world.text())
    bare = Bare(token_size(world.Desk()))
    rows = []
    for name, sentences in _KINDS.items():
        texts, readings = _texts(sentences), Readings(derive)

        def read(texts: Iterator[str] = texts, readings: Readings = readings) -> None:
            _heard(readings, workflow, (next(texts),))

        timing = yield from compare(Pair(read, bare.sign, scale.rounds // 4))
        note = f"derive the payment workflow's intent from {LENGTH} characters never read before, and index them"
        rows.append(Row(name, timing.median_us, "", None, timing.median_us, "us", 2 * MS, False, note))
    return [*rows, (yield from _conversation(scale, workflow))]


def _conversation(scale: Scale, workflow: Workflow) -> Generator[None, None, Row]:
    """The hundredth added turn against the first one, by a gate that heard the ones before; the prompt's intent is at stake in both."""
    texts, readings = _texts(_KINDS["read_prose"]), Readings(derive)
    prompt = "Please refund order ORD-10023344, it arrived broken"
    before = (prompt, *(next(texts) for _ in range(99)))
    _heard(readings, workflow, before)

    def hundredth() -> None:
        _heard(readings, workflow, (*before, next(texts)))

    def first() -> None:
        _heard(readings, workflow, (prompt, next(texts)))

    timing = yield from compare(Pair(hundredth, first, scale.rounds // 4))
    note = f"hear the hundredth added turn of {LENGTH} characters"
    return Row("turn_100", timing.median_us, "the first one", timing.baseline_us, timing.ratio, "x", 1.5, False, note)


def _heard(readings: Readings, workflow: Workflow, turns: tuple[str, ...]) -> None:
    readings.intents(workflow, turns)
    readings.prompt(turns, _DAY)
