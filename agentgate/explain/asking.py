"""Makes the question that a person judges a held call by, from the decision of that call.

Rules: the act is a sentence of the tool's `title`, or its name and arguments. Every argument
has its origin in words, as `agentgate.explain.evidence` finds it; of the arguments' values
those are shown that the rules' `show` names (all, where it names none), and no sensitive one.
Text is made visible and cut. Of a turn only what is the user's own is quoted. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentgate.decision.answer import Eligible, RequiredHold, Reservation
from agentgate.decision.case import Case
from agentgate.decision.hold import By, Question, ShownArgument, ShownRule
from agentgate.explain.evidence import MASKED, Evidence, Origin
from agentgate.language.turn import Turn
from agentgate.values.canonical import canonical
from agentgate.values.paths import EACH
from agentgate.values.refusal import NOT_SHOWN, Failure, Reason, place, without_values
from agentgate.values.request import OWN, PASTED
from agentgate.values.times import duration
from agentgate.values.value_class import Names, Values
from agentgate.values.visible import visible
from agentgate.workflow.model import ANY, PLACEHOLDER, SCALE, StepUpRule, Tool, emptied, flat
from agentgate.workflow.rule import CONFIRMED, REMEMBERED, Rule

Wording = tuple[str, By]

# characters that are shown of a value, of a turn, of an origin
MAX_VALUE = 2000
MAX_WORDS = 2000
MAX_ORIGIN = 300
MAX_SAID = 5  # turns, the newest
_WORD = re.compile(r"[\w@.,:/+-]{1,80}", re.ASCII)
# origins that name no call: in words, and who wrote the value
_ALONE: Mapping[str, Wording] = {
    "user": ("the user's own id", "user"),
    CONFIRMED.kind: ("confirmed by the user before", "user"),
    REMEMBERED.kind: ("confirmed by the user in an earlier run", "user"),
    "model": ("written by the model", "model"),
}
_NOT_THEIRS = frozenset({"forwarded", "pasted", "unsure"})


def shown_text(value: Any) -> str:
    """A value as a person sees it: visible, in quotation marks where it is more than a word,
    and cut where it is long, with its length.
    """
    text = value if isinstance(value, str) else canonical(value).decode()
    if not isinstance(value, str) or _WORD.fullmatch(text):
        return _cut(text, visible(text[:MAX_VALUE]))
    quoted = visible(text[:MAX_VALUE].replace("\\", "\\\\").replace('"', '\\"'))
    return _cut(text, f'"{quoted}"')


def _cut(text: str, shown: str) -> str:
    return (
        shown
        if len(text) <= MAX_VALUE
        else f"{shown} (the first {MAX_VALUE} of {len(text)} characters)"
    )


def shown_names(required: Iterable[RequiredHold], names: Iterable[str]) -> Names:
    """The arguments that the rules show, in their order."""
    every = tuple(names)
    return tuple(dict.fromkeys(name for hold in required for name in (hold.rule.show or every)))


def question_of(
    case: Case,
    answer: Eligible,
    used: tuple[int, ...],
    *,
    made: str,
    opened: float,
    deadline: float,
) -> Question:
    """The question of a call that waits for people.

    Args:
        case: the call, after all checks.
        answer: the rules that ask, and why, and what the call takes of limits.
        used: what is taken of each of these limits.
        made: the call digest.
        opened: POSIX seconds.
        deadline: POSIX seconds.
    """
    call = case.call
    header = case.run.header
    workflow = case.workflow
    required = answer.holds
    tool = workflow.tools[call.tool]
    evidence = Evidence(case)
    args = flat(tool, call.args)
    show = shown_names(required, tool.args)
    given = {
        name: args.get(name, [])
        for name in dict.fromkeys((*show, *tool.args))
        if name in args or emptied(name, call.args)
    }
    arguments = [
        ShownArgument(
            name,
            _shown_value(tool.args[name], value, show=name in show),
            *_origin(case, name, evidence.of(name)),
        )
        for name, value in given.items()
    ]
    readable = frozenset(name for name in show if not tool.args[name].sensitive)
    user = header.user
    agent = header.agent
    endorses = _endorsed(case, required, given, frozenset(show))
    own = user is not None and user.remembered_as and any(hold.rule.user for hold in required)
    return Question(
        hold=made,
        tenant=header.tenant,
        workflow=f"{workflow.id} v{workflow.version}",
        tool=tool.name,
        effect=tool.effect,
        arguments=tuple(arguments),
        requester=visible(user.id, MAX_ORIGIN) if user else "",
        agent=visible(agent.id, MAX_ORIGIN),
        via=tuple(visible(broker, MAX_ORIGIN) for broker in agent.via),
        rules=tuple(_shown_rule(case, hold, evidence, readable) for hold in required),
        limits=tuple(
            _used(tool, *each) for each in zip(answer.reservations, used, strict=True)
        ),
        opened=opened,
        deadline=deadline,
        arguments_digest=call.arguments_digest,
        endorses=endorses,
        remembers={
            name: span for name, span in tool.remember.items() if own and name in endorses
        },
        act=_act(tool, {each.name: each.value for each in arguments}),
    )


def _shown_value(rule: Rule, value: Any, *, show: bool) -> str:
    """A value, where the rules show it and it is not sensitive."""
    if rule.sensitive:
        return MASKED
    return shown_text(value) if show else NOT_SHOWN


def _shown_rule(
    case: Case, hold: RequiredHold, evidence: Evidence, show: frozenset[str]
) -> ShownRule:
    """A rule that asks, and why, each reason once."""
    rule = hold.rule
    file = case.workflow.file.rpartition("/")[2]  # where it lies is the server's own affair
    why = dict.fromkeys(_because(evidence, show, rule, each) for each in hold.why)
    return ShownRule(rule.id, place(file, rule.line), rule.whom, tuple(why))


def _endorsed(
    case: Case,
    required: tuple[RequiredHold, ...],
    given: Values,
    show: frozenset[str],
) -> Names:
    """The arguments that the question shows as open, each a whole value, and whose rule takes
    what the user confirmed.
    """
    names = [
        name
        for name in endorsable(case)
        if name in show and len(shown_text(given[name])) <= MAX_VALUE
    ]
    return named_by_yes(required, names)


def named_by_yes(required: tuple[RequiredHold, ...], names: Iterable[str]) -> Names:
    """Those of these arguments that a yes names: the user's own names all, a group's what each
    of its rules `endorses`.
    """
    own = any(hold.rule.user for hold in required)
    return tuple(
        [name for name in names if own or all(name in hold.rule.endorses for hold in required)]
    )


def endorsable(case: Case) -> list[str]:
    """The arguments that are open, each a whole value and no part of a list's elements, and
    whose rule takes what the user confirmed.
    """
    open_ = case.traced.unknown if case.traced else ()
    return [
        name
        for name in open_
        if EACH not in name
        and any(s.kind == CONFIRMED.kind for s in case.values[name].rule.sources)
    ]


def _act(tool: Tool, shown: Mapping[str, str]) -> Names:
    """The call in a sentence: text and values by turns."""
    text = tool.title or f"{tool.name}{':' if shown else ''}" + ",".join(
        f" {name} {{{name}}}" for name in shown
    )
    return tuple(
        shown.get(each, "(none)") if n % 2 else each
        for n, each in enumerate(PLACEHOLDER.split(text))
    )


def _used(tool: Tool, reservation: Reservation, used: int) -> str:
    """How much of a limit is used, how much the call takes, and how much there is."""
    limit = reservation.limit
    unit = f" {reservation.currency}" if reservation.currency else ""
    what = "calls" if limit.tool == ANY else limit.counted
    window = f" in {duration(limit.every)}" if limit.every else ""
    numbers = (used, reservation.amount, limit.maximum)
    taken, takes, most = (
        f"{number / SCALE:g}" if limit.argument else str(number) for number in numbers
    )
    if limit.argument and tool.args[limit.argument].sensitive:
        taken = takes = MASKED
    return (
        f"{what}: {taken}{unit} used, this call takes {takes}{unit}, at most {most}{unit} "
        f"per {limit.per}{window}"
    )


def _because(evidence: Evidence, show: frozenset[str], rule: StepUpRule, why: Failure) -> str:
    """Why a person is asked, in words, without a value that is not shown to them."""
    name = why.argument
    reason = why.reason
    when = next((each for each in rule.when if each.name == name), None)
    if why.data.get("every_call"):
        told = "it asks about every call of this tool"
    elif reason is Reason.INTENT_UNCLEAR:
        told = "it is not clear that the user asked for this"
    elif reason is Reason.ENTITY_ORIGIN:
        told = f"{why.got if name in show else 'what'} stands in {name}, and the user did not name it"
    elif reason is Reason.STEP_UP and when is not None and when.origin is None:
        told = (
            when.condition
            if name in show
            else f"it asks about some values of {name}, which are not shown"
        )
    elif reason in {Reason.STEP_UP, Reason.ARGUMENT_ORIGIN}:
        found = next(
            (each for each in evidence.of(name) if each.call and not each.allowed), None
        )
        where = f"; it stood in what {found.source} returned" if found else ""
        told = f"the user did not name this {name}{where}"
    else:
        told = str(replace(why if name in show else without_values(why), rule=""))
    return visible(told, MAX_VALUE)


def said(turns: Iterable[Turn]) -> Names:
    """The user's own words in their newest turns."""
    return tuple(_own(turn) for turn in tuple(turns)[-MAX_SAID:])


def _own(turn: Turn) -> str:
    """A turn, in which text that is not plainly the user's own is only named."""
    out = []
    at = 0
    for start, end, whose in sorted(turn.parts):
        if whose in _NOT_THEIRS and start >= at:
            left = len(turn.text[start:end].strip(f"{OWN}{PASTED} \n"))
            out += [
                turn.text[at:start],
                f" [{left} characters that are not the user's own words] " if left else "",
            ]
            at = end
    text = "".join([*out, turn.text[at:]]).replace(OWN, "").replace(PASTED, "").strip()
    return visible(text, MAX_WORDS)


def _origin(case: Case, name: str, origins: tuple[Origin, ...]) -> Wording:
    """Where an argument came from, in words, and who wrote it: of a list's elements, the one
    that is trusted least.
    """
    ruled = name in case.values and bool(case.values[name].rule.sources)
    told = [_in_words(case, origin, ruled=ruled) for origin in origins] or [
        ("of a form that was not traced", "unknown")
    ]
    order = ("unknown", "model", "result", "user")
    words = "; ".join(dict.fromkeys(text for text, _ in told))
    return visible(words, MAX_ORIGIN), next(by for by in order if by in {by for _, by in told})


def _in_words(case: Case, origin: Origin, *, ruled: bool) -> Wording:
    if origin.source == "unknown" or not origin.allowed:
        return (
            ("of unknown origin: nothing that counts explains it", "unknown")
            if ruled
            else _ALONE["model"]
        )
    if origin.source == "prompt":
        return (
            f'typed by the user: "{origin.words}"'
            if origin.words and origin.words != MASKED
            else "typed by the user"
        ), "user"
    if origin.source == "computed":
        return f"computed from what the user said: {origin.words}", "user"
    if (kind := origin.source.partition(" ")[0]) in _ALONE:
        return _ALONE[kind]
    named = any(earlier.id == origin.call and earlier.named for earlier in case.run.calls)
    how = ", of what the user named" if named else ""
    return f"{'from' if origin.row else 'as in'} {origin.source}{how}", "result"
