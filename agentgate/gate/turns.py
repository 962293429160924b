"""What a run's user says next, and its end: stored, and what that takes back is void in the
same script.

Rules: a turn is read before it is stored. One that names another value of a kind that a held
call has takes back, too: a yes to what the user no longer wants would run it. That it takes
nothing back is known only of the turns that this gate had seen; where another gate added one
meanwhile, the store refuses it, and it is read again behind that one. Where the others never
rest, it takes back.

Words that may be the user's, and may be an attacker's, void nothing, and are stored only where
they take something back: so they cannot fill a run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import date

from agentgate.decision.versions import under
from agentgate.errors import ConfigError
from agentgate.explain.evidence import MASKED
from agentgate.gate.core import Core, read_again, stamp
from agentgate.gate.holds.answer import many
from agentgate.gate.state import ENDED, Doubts, missing, prompt_of, turns_behind
from agentgate.language.spans import Entity, entities
from agentgate.language.turn import MAX_READ, MAX_TURN
from agentgate.shell.drive import apart
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.values.entities import Key
from agentgate.values.refusal import NOT_SHOWN, Failure, Reason, RunRefused
from agentgate.values.request import DOUBT, RunState, Spoken, answering, turn_text

MAX_TURNS = 200  # a gate that has not seen the run yet reads them all
# characters of all turns of a run: what each turn costs depends on what was said before it
MAX_SAID = 4 * MAX_TURN
# of one run, and of `MAX_READ` characters; after that, words in doubt leave everything unclear
MAX_DOUBTS = 10
_TRIES = 4  # other gates may add turns meanwhile
_HIDDEN = frozenset({MASKED, NOT_SHOWN})
_UNREADABLE = re.compile("[\x00-\x04\ud800-\udfff]")


_CLOSED = Failure(Reason.RUN_CLOSED, "run", "closed", "an open run")


def refused_input(field: str, got: str, expected: str) -> RunRefused:
    """The refusal of what a host gave in the wrong form."""
    return RunRefused((Failure(Reason.INPUT, field, got, expected),))


def checked_turn(spoken: Spoken) -> str:
    """A turn as it is stored."""
    try:
        text = turn_text(spoken)
    except ConfigError as error:
        raise refused_input("prompt", repr(error.got), error.expected) from error
    if len(text) > MAX_TURN or "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise refused_input(
            "prompt",
            f"{type(spoken).__name__} of length {len(text)}",
            f"Unicode text of at most {MAX_TURN} characters",
        )
    return text


def takes_back_in(core: Core, state: RunState, text: str) -> Flow:
    """Whether a turn may take back what was asked for, under any version, or changes what is
    held. A workflow that is gone: it may.
    """
    try:
        versions = yield from core.in_force.of(state.header)
    except RunRefused:
        return True

    def takes_back() -> bool:
        return any(
            core.readings.takes_back(each, under(state, each, core.readings.intents), text)
            for each in versions.each
        )

    heard = yield from apart(len(text) + sum(map(len, state.turns)), takes_back)
    return heard or (yield from _changes_held(core, state, text))


def _changes_held(core: Core, state: RunState, text: str) -> Flow:
    """Whether a turn names another value of a kind that a call that waits has (another amount,
    another order), or may have.
    """
    header = state.header
    day = date.fromisoformat(header.day)
    turn = core.readings.turn(text)
    named = yield from apart(
        len(text), lambda: _values(filter(turn.reshapes, entities(turn.own, day)))
    )
    for hold in (yield from many(header.tenant, header.id, None)) if named else ():
        if hold.state in {"pending", "released"}:
            shown = [each.value for each in hold.question.arguments]
            values = _values(each for value in shown for each in entities(value, day))
            kinds = {kind for kind, _ in values}
            if any(kind in kinds or _HIDDEN.intersection(shown) for kind, _ in named - values):
                return True
    return False


def _values(named: Iterable[Entity]) -> set[tuple[str, Key]]:
    return {
        ("number" if each.type in {"count", "money"} else each.type, each.key) for each in named
    }


def stored_turn(text: str, agent_said: object) -> str:
    """A checked turn, with what it answers."""
    try:
        return answering(agent_said, text)
    except ConfigError as error:
        raise refused_input(error.setting, str(error.got), error.expected) from error


def add(core: Core, state: RunState, text: str, stored: str) -> Flow:
    """Add a user's checked turn, as it is stored with what the agent had said before it.
    Returns the run's state after it.

    Raises (through the driver):
        RunRefused: missing or closed, or too many turns. StoreUnavailable, AuditUnavailable:
        not added.
    """
    header = state.header
    answer = "stale"
    over = time.time() >= header.expires_at
    for tries_left in reversed(range(_TRIES)):
        if len(state.turns) >= MAX_TURNS:
            raise refused_input(
                "turns", f"{len(state.turns)} turns", f"at most {MAX_TURNS}: open a new run"
            )
        if (length := len(text) + sum(map(len, state.turns))) > MAX_SAID:
            raise refused_input(
                "turns",
                f"{length} characters in all turns",
                f"at most {MAX_SAID}: open a new run",
            )
        takes_back = not tries_left or (yield from takes_back_in(core, state, text))
        if over and not takes_back:
            raise RunRefused((ENDED,))
        answer = yield ops.add_turn(
            header.tenant,
            header.id,
            stored,
            harmless_after=None if takes_back else len(state.stored),
        )
        if answer != "stale":
            break
        state = yield from read_again(core, state)
    if answer == "closed":
        raise RunRefused((_CLOSED,), header.id)
    state = yield from _changed(core, state, answer, "turn_added")
    if over:  # it ended what was held, and asks for nothing
        raise RunRefused((ENDED,))
    return state


def add_doubt(core: Core, state: RunState, words: str) -> Flow:
    """Add words that may be the user's. Returns the run's state after it.

    Raises (through the driver):
        RunRefused: missing or closed, or other gates never rest. StoreUnavailable,
        AuditUnavailable: not added.
    """
    header = state.header
    if _UNREADABLE.search(words):
        words = ""
    for _ in range(_TRIES):
        full = (
            len(state.doubts) >= MAX_DOUBTS
            or len(words) + sum(len(each) for _, each in state.doubts) > MAX_READ
        )
        doubts = (*state.doubts, (len(state.turns), "" if full else words))
        if not (yield from _lessens(core, state, doubts)):
            return state
        answer = yield ops.add_turn(
            header.tenant, header.id, DOUBT + doubts[-1][1], harmless_after=len(state.stored)
        )
        if answer == "closed":
            raise RunRefused((_CLOSED,), header.id)
        if answer != "stale":
            return (yield from _changed(core, state, answer, "doubt_added"))
        state = yield from read_again(core, state)
    raise RunRefused(
        (Failure(Reason.STORE, "run", "changed during every try", "a run at rest"),)
    )


def _lessens(core: Core, state: RunState, doubts: Doubts) -> Flow:
    """Whether the last of these words leave less than there was, under any version, in this run
    or with those before it.
    """
    versions, readings = (yield from core.in_force.of(state.header)), core.readings
    header = state.header
    turns = state.turns
    before = state.stored[: len(header.earlier)]
    remembers = any(tool.remember for each in versions.each for tool in each.tools.values())

    def left(doubts: Doubts) -> list[object]:
        named = prompt_of(readings, header, before, turns, doubts)
        said = (turns, doubts), turns_behind(before, turns, doubts)
        told = [
            readings.intents(each, *spoken, header.reader)
            for each in versions.each
            for spoken in said
        ]
        return [
            named.amounts,
            named.named,
            [answer.presence for intents in told for answer in intents.values()],
            remembers and readings.may_say_no(replace(state, doubts=doubts)),
        ]

    return (
        yield from apart(
            len(doubts[-1][1]) + sum(map(len, state.stored)),
            lambda: left(doubts) != left(state.doubts),
        )
    )


def close(core: Core, state: RunState) -> Flow:
    """Close the run. Returns its state after that.

    Raises (through the driver):
        RunRefused: missing. StoreUnavailable, AuditUnavailable: not closed.
    """
    answer = yield ops.close_run(state.header.tenant, state.header.id)
    return (yield from _changed(core, state, answer, "run_closed"))


def _changed(core: Core, state: RunState, answer: str, record: str) -> Flow:
    header = state.header
    if answer == "missing":
        raise missing(header.tenant, header.id)
    core.notifier.wake(header.tenant)  # a hold may be cancelled by that
    yield stamp(record, header)
    return (yield from read_again(core, state))
