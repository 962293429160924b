"""A run's record in the store, and what `decide` sees of it.

Rules: the header is written when the run is opened or renewed; a record that cannot be read is
`RunRefused`, never an empty run. Intents and entities are derived from the turns; a gate keeps
what it derived lately (`Readings`), because the same words always read the same. Words that may
be the user's (`doubts`) are no turns: no deriver hears them as such, and no count includes
them. What they would take back, said by the user, is unclear (a value: not named) until a later
turn asks for it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache, lru_cache, partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from agentgate.errors import CanonicalError
from agentgate.identity.proven import agent_json, restore_agent, restore_user, user_json
from agentgate.intents.deriver import CLARITY, Deriver, after, answers, fold
from agentgate.language.prompt import Prompt
from agentgate.language.turn import Turn
from agentgate.redemption.outcome import check_rows
from agentgate.stores.ops import CallRecord, RunRecord
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import spell_value
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import DOUBT, Derived, EarlierCall, Header, RunState, split_turns
from agentgate.values.value_class import Names, Values
from agentgate.workflow.model import Doubt, Intent, Workflow
from agentgate.workflow.rule import Fact

_SHOWN = 80  # characters of words in doubt
_STEP = 32  # turns that are heard in one go, each inside the next
_KEPT = 1024  # headers, prompts and answers that one gate keeps of each
Doubts = tuple[tuple[int, str], ...]
Days = tuple[date, ...]
# fields stored as they are
_PLAIN = tuple("id tenant workflow version digest opened_at expires_at day".split())
# fields that are absent where there is nothing to say, and what they are
_OPTIONAL: Mapping[str, type] = {
    **dict.fromkeys(("user_until", "agent_until", "held_until"), float),
    **dict.fromkeys(("host", "client", "conversation"), str),
    "succession": int,
    "earlier": tuple,
    "said_no": bool,
}


def header_bytes(header: Header) -> bytes:
    """The stored form of a header."""
    fields = {name: getattr(header, name) for name in _PLAIN}
    for name, kind in _OPTIONAL.items():
        if value := getattr(header, name):  # a whole float has a slower canonical form
            fields[name] = (
                int(value) if kind is float else list(value) if kind is tuple else value
            )
    return canonical(
        {"v": 1, **fields, "user": user_json(header.user), "agent": agent_json(header.agent)}
    )


def _header(data: bytes) -> Header:
    stored = parse(data)
    if stored["v"] != 1:
        raise ValueError(f"header version {stored['v']!r}")
    fields = {name: stored[name] for name in _PLAIN}
    fields |= {name: float(stored[name]) for name in ("opened_at", "expires_at")}
    fields |= {name: kind(stored[name]) for name, kind in _OPTIONAL.items() if name in stored}
    return Header(
        **fields, user=restore_user(stored["user"]), agent=restore_agent(stored["agent"])
    )


class Readings:
    """What was read lately of headers and turns, for one deriver; a gate has its own.

    Each turn is read once, and heard once by the deriver: what was said before it is known.

    Attributes:
        header: the header in some bytes, one object for as long as they are read again and
            again.
        turn: a turn's text -> what it says.
    """

    __slots__ = ("_answers", "_prompt", "header", "turn")

    def __init__(self, derive: Deriver) -> None:
        hearing = fold(derive)
        turn = lru_cache(_KEPT)(Turn)

        @lru_cache(_KEPT)
        def state(intents: tuple[Intent, ...], turns: Names, reader: str) -> Any:
            if not turns:
                return hearing.begun(intents)
            # a gate that sees a long conversation for the first time
            for heard in range(_STEP, len(turns), _STEP):
                state(intents, turns[:heard], reader)
            return after(
                hearing,
                intents,
                state(intents, turns[:-1], reader),
                turn(*_given(turns[-1], reader)),
            )

        @lru_cache(_KEPT)  # shared by every run, of any tenant, with these words
        def told(
            intents: tuple[Intent, ...], turns: Names, reader: str
        ) -> Mapping[str, Derived]:
            return MappingProxyType(answers(hearing, intents, state(intents, turns, reader)))

        @lru_cache(_KEPT)
        def prompt(turns: Names, days: Days, reader: str) -> Prompt:
            for heard in range(_STEP, len(turns), _STEP):
                prompt(turns[:heard], days, reader)
            if not turns:
                return Prompt()
            return prompt(turns[:-1], days, reader).after(
                turn(*_given(turns[-1], reader)), days[min(len(turns), len(days)) - 1]
            )

        self._answers = told
        self._prompt = prompt
        self.header: Callable[[bytes], Header] = lru_cache(_KEPT)(_header)
        self.turn: Callable[[str], Turn] = turn

    def read_header(self, record: RunRecord, known: RunState | None) -> tuple[Header, Names]:
        """The header and the turns of a run as it was read, or, where they are left out, as they
        are `known`.
        """
        if record.header or known is None:
            return self.header(record.header), record.turns
        return known.header, known.stored

    def prompt(
        self,
        turns: Names,
        day: date,
        doubts: Doubts = (),
        user: str = "",
        before: Days = (),
    ) -> Prompt:
        """The entities of the turns; `day`: of "today", in those of other days `before`;
        `user`: the id of the run's own.
        """
        reader = _reader(turns, user)
        days = (*before, day)
        found = self._prompt(turns, days, reader)
        # it may deny every value named before it
        unread = max((n for n, (_, words) in enumerate(doubts) if not words), default=0)
        for at, words in doubts[unread:]:
            denied = self._prompt((*turns[:at], words), days, reader) if words else Prompt()
            since = self._prompt(turns[at:], days[at:] or days[-1:], reader)
            found = found.doubted(self._prompt(turns[:at], days, reader), denied, since)
        return found

    def intents(
        self, workflow: Workflow, turns: Names, doubts: Doubts = (), user: str = ""
    ) -> Mapping[str, Derived]:
        """What the turns say of every intent of the workflow: what a deriver leaves out is
        absent, a failing one is unclear.

        An intent in doubt (`Workflow.in_doubt`) is unclear at most.
        """
        vocabulary = tuple(workflow.intents.values())
        reader = _reader(turns, user)
        told = (
            self._told(vocabulary, turns, doubts, reader)
            if doubts
            else self._answers(vocabulary, turns, reader)
        )
        return (
            told
            if not workflow.in_doubt
            else MappingProxyType({**told, **_doubted(told, workflow.in_doubt)})
        )

    def _told(
        self, intents: tuple[Intent, ...], turns: Names, doubts: Doubts, reader: str
    ) -> Mapping[str, Derived]:
        """The answers, where an intent that some words doubt is unclear until turns behind
        these words ask for it by themselves.
        """
        since: dict[str, tuple[int, str]] = {}

        def answers_of(heard: Names) -> dict[str, Derived]:
            found = dict(self._answers(intents, heard, reader))
            for name, (at, words) in since.items():
                if (
                    found[name].presence == "present"
                    and self._answers(intents, heard[at:], reader)[name].presence != "present"
                ):
                    shown = " ".join(words.split())[:_SHOWN] or "they cannot be read"
                    found[name] = Derived(
                        "unclear",
                        f"perhaps withdrawn, in words that may not be the user's: {shown}",
                    )
            return found

        no = max((n for n, (_, words) in enumerate(doubts) if self._denies(words)), default=-1)
        if no >= 0:  # which leaves nothing of what was asked for before it
            since.update({intent.name: doubts[no] for intent in intents})
        for at, words in doubts[no + 1 :]:
            before = answers_of(turns[:at])
            said = answers_of((*turns[:at], words))
            since |= {
                name: (at, words)
                for name in before
                if CLARITY[said[name].presence] < CLARITY[before[name].presence]
            }
        return answers_of(turns)

    def ended(
        self, workflow: Workflow, turns: Names, doubts: Doubts, user: str, heard: int
    ) -> bool:
        """Whether a yes that was given after so many turns (0: none was) counts no more: a
        later one took something back, or may have.
        """
        if not heard:
            return False
        if any(
            map(self._denies, (*turns[heard:], *[words for at, words in doubts if at >= heard]))
        ):
            return True
        before = self.intents(workflow, turns[:heard], (), user)
        # turn by turn: what is asked for once more is asked for anew
        for count in range(heard, len(turns) + 1):
            now = self.intents(
                workflow,
                turns[:count],
                tuple([each for each in doubts if each[0] <= count]),
                user,
            )
            if any(
                CLARITY[now[name].presence] < CLARITY[answer.presence]
                for name, answer in before.items()
            ):
                return True
            before = now
        return False

    def may_withdraw(self, workflow: Workflow, state: RunState) -> bool:
        """Whether a turn of the conversation took something back, or may have: then nothing
        counts for it that is remembered.
        """
        return self.may_say_no(state) or self.ended(
            workflow, state.turns, state.doubts, state.header.reader, 1
        )

    def may_say_no(self, state: RunState) -> bool:
        """Whether a turn of the conversation said no to anything, or may have; also one that is
        no longer known.
        """
        turns, doubts = turns_behind(
            state.stored[: len(state.header.earlier)], state.turns, state.doubts
        )
        said = (*turns, *[words for _, words in doubts])
        return state.header.said_no or any(map(self._denies, said))

    def _denies(self, words: str) -> bool:
        """Whether words say no to anything; those that cannot be read do."""
        return not words or self.turn(words).says_no or self.turn(words).may_say_no

    def takes_back(self, workflow: Workflow, state: RunState, text: str) -> bool:
        """Whether one more turn says no to anything, or leaves an intent less clear than it
        was.
        """
        if self.turn(text).says_no:
            return True
        told = self.intents(workflow, (*state.turns, text), state.doubts, state.header.reader)
        return any(
            name not in told or CLARITY[told[name].presence] < CLARITY[answer.presence]
            for name, answer in state.intents.items()
        )


def _reader(turns: Names, user: str) -> str:
    """The user, where it matters to the reading who they are: a letter has several lines."""
    return user if any("\n" in turn for turn in turns) else ""


def _given(turn: str, reader: str) -> Names:
    # a turn that no letter is in is read once for all
    return (turn, reader) if reader else (turn,)


def _doubted(told: Mapping[str, Derived], in_doubt: tuple[Doubt, ...]) -> dict[str, Derived]:
    return {
        doubt.intent: Derived(
            "unclear", f"this deriver reads an example of it otherwise: {doubt}"
        )
        for doubt in in_doubt
        if told[doubt.intent].presence == "present"
    }


ENDED = Failure(
    Reason.RUN_EXPIRED,
    "run",
    "expired",
    "a run within its lifetime, and that of its credentials (run.renew)",
)


def missing(tenant: str, run: str, why: str = "no such run") -> RunRefused:
    """The refusal for a run that does not exist or cannot be read."""
    return RunRefused(
        (
            Failure(
                Reason.RUN_MISSING,
                "run",
                f"{tenant}/{run}: {why}",
                "an open run of this tenant",
            ),
        )
    )


def prompt_of(
    readings: Readings,
    header: Header,
    before: Names,
    turns: Names,
    doubts: Doubts,
) -> Prompt:
    """What the user named in a run: in its turns, and in the stored ones `before` them, of
    earlier runs of the conversation.
    """
    day = date.fromisoformat(header.day)
    if not before:
        return readings.prompt(turns, day, doubts, header.reader)
    days = tuple(
        [
            date.fromisoformat(said)
            for said, text in zip(header.earlier, before, strict=True)
            if not text.startswith(DOUBT)
        ]
    )
    said, unsure = turns_behind(before, turns, doubts)
    return readings.prompt(said, day, unsure, header.reader, days)


def turns_behind(before: Names, turns: Names, doubts: Doubts) -> tuple[Names, Doubts]:
    """The turns and doubts of a run, behind the stored ones of earlier runs."""
    earlier = split_turns(before)
    return (*earlier.turns, *turns), (
        *earlier.doubts,
        *[(at + len(earlier.turns), words) for at, words in doubts],
    )


def run_state(
    tenant: str,
    run: str,
    *,
    record: RunRecord | None,
    workflow: Workflow,
    readings: Readings,
    known: RunState | None = None,
    whole: bool = False,
) -> RunState:
    """The run as `decide` sees it: only redeemed calls, without those that failed or never
    started, in the order of redemption.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        record: what the store holds.
        workflow: the version that the run was opened with.
        readings: reads the turns, with the gate's deriver.
        whole: what earlier runs of its conversation were told and did counts as well.
        known: the state whose revision the store was told, where the record holds only what
            changed since.

    Raises:
        RunRefused: missing or unreadable.
    """
    if record is None:
        raise missing(tenant, run)
    if record.since and known is None:
        raise missing(tenant, run, "only a part was read")
    try:
        header, stored = readings.read_header(record, known)
        before = () if whole else stored[: len(header.earlier)]
        turns, doubts, agent_said = split_turns(stored[len(before) :])
        ended = cache(partial(readings.ended, workflow, turns, doubts, header.reader))
        earlier: tuple[EarlierCall, ...] = ()
        tried = frozenset[str]()
        if record.since and known is not None:
            tried = known.tried
            earlier = known.calls if known.header.succession == header.succession else ()
        still = [
            replace(call, endorsed=frozenset(), marked=False)
            if call.turns and ended(call.turns)
            else call
            for call in earlier
        ]
        succession = None if whole else header.succession
        ordered, tried = _with_calls(
            still, tried, record.calls, workflow, ended, succession=succession
        )
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, f"unreadable ({type(error).__name__})") from error
    if header.tenant != tenant or header.id != run:
        raise missing(tenant, run, "the record is of another run")
    return RunState(
        header=header,
        turns=turns,
        intents=readings.intents(workflow, turns, doubts, header.reader),
        prompt=prompt_of(readings, header, before, turns, doubts),
        calls=ordered,
        revision=record.revision,
        closed=record.closed,
        denials_spent=record.denials_spent,
        acts=record.acts,
        owned=record.owned,
        full=record.full,
        doubts=doubts,
        agent_said=agent_said,
        tried=tried,
        stored=stored,
        whole=whole,
    )


def _earlier_call(
    workflow: Workflow, call: CallRecord, head: Values, ended: Callable[[int], bool]
) -> EarlierCall:
    tool = workflow.tools.get(head["tool"])
    yes = head.get("yes") or {"turns": 0}
    live = not ended(yes["turns"])
    return EarlierCall(
        id=head["tool_call_id"],
        tool=head["tool"],
        args=head["args"],
        rows=_rows(head["facts"], call.facts, tool.facts if tool is not None else {}),
        named=head["named"] is True,
        redeemed_at=call.redeemed_at or 0.0,
        digest=call.digest,
        turns=yes["turns"],
        endorsed=frozenset(yes.get("to", ())) if live else frozenset(),
        marked=live and yes.get("read") is True,
    )


def after_call(
    state: RunState, call: CallRecord, revision: str, workflow: Workflow, readings: Readings
) -> RunState:
    """The run once nothing but this call changed in it, as it would be read."""
    ended = partial(readings.ended, workflow, state.turns, state.doubts, state.header.reader)
    calls, tried = _with_calls(
        state.calls, state.tried, (call,), workflow, ended, succession=state.header.succession
    )
    return state.with_calls(calls, tried, revision)


def _with_calls(
    earlier: Iterable[EarlierCall],
    tried: frozenset[str],
    new: Iterable[CallRecord],
    workflow: Workflow,
    ended: Callable[[int], bool],
    *,
    succession: int | None,
) -> tuple[tuple[EarlierCall, ...], frozenset[str]]:
    """The redeemed calls and the acts that were tried, with new records of calls. Raises
    KeyError, TypeError, ValueError: unreadable.
    """
    calls = {call.digest: call for call in earlier}
    for call in new:
        if call.status != "redeemed":
            continue
        head = parse(call.head)
        tried = tried | {attempt_of(head)[0]} if "key" in head else tried
        if succession is not None and head.get("succession", 0) != succession:
            # of an earlier run of the conversation: nothing of it is an origin, nor comes
            # before anything
            continue
        if call.outcome in {"failed", "not_run"}:
            calls.pop(call.digest, None)
        else:
            calls[call.digest] = _earlier_call(workflow, call, head, ended)
    return tuple(sorted(calls.values(), key=attrgetter("redeemed_at", "digest"))), tried


def attempt_of(head: Values) -> tuple[str, int]:
    """Which act a call attempts (`Minting.act`), under which number; an empty one: a read, or a
    call of an earlier version.
    """
    act, _, number = head.get("key", "-0").rpartition("-")
    return act, int(number)


def _rows(
    declared: Values, recorded: bytes | None, facts: Mapping[str, Fact]
) -> tuple[Values, ...]:
    """The facts of a call as their types spell them: its server wrote them, and what is not the
    declared facts is none.
    """
    try:
        rows = parse(recorded or b"[]")
        check_rows(declared, rows)
    except (CanonicalError, ValueError):
        return ()
    return tuple(
        [
            {n: spell_value(facts[n].type, v) if n in facts else v for n, v in row.items()}
            for row in rows
        ]
    )
