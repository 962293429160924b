"""Which facts of sample results an argument of another tool may come from, by their names and
types.

Rules: a read may take what any read returned. A tool that acts takes only what a read returned
about one thing (a row of a list is whichever the agent picks), and only of a read that the user
alone steers: one that counts only where they named all that it was asked for (`trust: named`),
or one of which everything else is fixed. Of a tool that writes only a new id counts, of one
that sends or deletes nothing. An amount is bounded by what was read, and an id beside it is
that of the same read. Each link is a guess for a reviewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from agentgate.review.draft.argument import IDS, SAMPLES, SIGNS, Argument, constant
from agentgate.review.draft.results import AMOUNTS, FoundFact
from agentgate.review.draft.toolset import NAMES, words_of
from agentgate.values.entities import NUMERIC, TOKENISED
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Effect

_VERBS = (
    frozenset[str]().union(
        *(NAMES[effect] for effect in ("read", "write", "egress", "destructive"))
    )
    - NAMES["nouns"]
)
_VAGUE = (
    frozenset(
        "name type kind status state date time number ref reference code key value title "
        "text note count".split()
    )
    | IDS
)
# of a person or thing, and so what that is called alone
_FORMS = frozenset({"iban", "email", "mail", "phone", "url"})
Words = tuple[str, ...]


@value_class
class Returned:
    """A tool with its facts, as another tool's arguments may take them."""

    tool: str
    effect: Effect
    facts: Mapping[str, FoundFact]
    args: Mapping[str, Argument]

    @property
    def acting(self) -> bool:
        """Whether it is no read."""
        return self.effect != "read"

    @property
    def steered(self) -> Literal["named", "fixed", ""]:
        """How the user alone steers it: by naming all of it, or by naming some where the rest
        is or can be fixed; empty: not alone.
        """
        named = [a for a in self.args.values() if (a.rule or {}).get("from") == ["prompt"]]
        rest = [a for a in self.args.values() if a not in named]
        if named and not any(a.always for a in rest):
            return "named"
        return (
            "fixed"
            if all("is" in (a.rule or {}) or a.default is not None for a in rest)
            else ""
        )

    @property
    def fixed(self) -> tuple[Argument, ...]:
        """Its arguments with those fixed to their defaults that the user does not name."""
        return tuple(
            replace(
                a,
                rule={**typed(a.default), "from": ["model"], "optional": True},
                note="only its default: the model would choose",
            )
            if a.default is not None and "is" not in (a.rule or {})
            else a
            for a in self.args.values()
        )


@value_class
class Linked:
    """The arguments of a tool, and the facts that they take by tool: all, and those that get
    `trust: named`.
    """

    args: tuple[Argument, ...]
    taken: frozenset[tuple[str, str]] = frozenset()
    named: frozenset[tuple[str, str]] = frozenset()


def linked(tool: Returned, origins: Sequence[Returned], *, settle: bool) -> Linked:
    """The arguments of a tool with the facts of others that they may come from.

    `settle`: of a start, in which nothing is bounded, tied or fixed: its user is asked instead.
    """
    usable = {"named"} if settle else {"named", "fixed"}
    taken = set()
    named = set()
    out = list(tool.args.values())
    acting = tool.acting
    others = [origin for origin in origins if origin is not tool]
    for index, a in enumerate(out):
        for origin, fact in _matches(tool.tool, a, others):
            if (
                acting
                and origin.effect == "read"
                and (fact.listed or origin.steered not in usable)
            ):
                continue
            if made := _from(out[index], origin, fact):
                out[index] = made
                taken.add((origin.tool, fact.name))
                if acting and origin.steered == "named" and origin.effect == "read":
                    named.add((origin.tool, fact.name))
    if acting:
        for origin in others:
            if (
                origin.effect == "read"
                and origin.steered in usable
                and (bound := _bounded(tool.tool, out, origin, settle=settle))
            ):
                taken |= bound
                named |= bound if origin.steered == "named" else set()
    return Linked(tuple(map(_explained, out)), frozenset(taken), frozenset(named))


def _explained(a: Argument) -> Argument:
    """With a question about who can write what it may come from."""
    places = [text for text in (a.rule or {}).get("from", ()) if "." in text]
    return a if not places or a.note else replace(a, note=f"who can write {', '.join(places)}?")


def declared_fact(
    fact: FoundFact, beside: Mapping[str, FoundFact], *, named: bool
) -> tuple[Mapping[str, Any], str]:
    """A fact as the workflow declares it, and what a reviewer should know of it. `beside`: all
    facts of its tool.
    """
    rows = [
        f
        for f in beside.values()
        if f.listed and f.path.rpartition(".")[0] == fact.path.rpartition(".")[0]
    ]
    labels = [f.name for f in rows if f.type == "text"]
    note = (
        f"any row counts; with named_by: [{labels[0]}] only the one that the user names"
        if fact.type == "id" and labels
        else ""
    )
    return {**fact.rule, **({"trust": "named"} if named else {})}, note


def stated(a: Argument) -> Argument:
    """An argument of a read that others refer to: where its value may come from has to be
    said.
    """
    if a.rule is None or "from" in a.rule:
        return a
    last = {key: value for key, value in a.rule.items() if key in {"optional", "nullable"}}
    return replace(
        a,
        rule={
            **{key: value for key, value in a.rule.items() if key not in last},
            "from": ["model"],
            **last,
        },
    )


# --- by name ----------------------------------------------------------------------------------
def _matches(
    tool: str, a: Argument, origins: Sequence[Returned]
) -> Iterator[tuple[Returned, FoundFact]]:
    wanted = _called(a.name, tool)
    for origin in origins:
        for fact in origin.facts.values():
            new = origin.effect == "write" and fact.type == "id" and not fact.listed
            if wanted & _called(fact.path, origin.tool) and (origin.effect == "read" or new):
                yield origin, fact


def _called(path: str, tool: str) -> frozenset[Words]:
    """What a value may be called: by its own name, unless that says nothing alone, with what it
    is in, and with what the tool is about.
    """
    *outer, last = [step for step in path.replace("[]", "").split(".") if step != "*"] or [""]
    own = _single(words_of(last))
    of = _single(words_of(outer[-1])) if outer else about(tool)
    whole = {
        own,
        (*of, *own),
        *([of] if outer and own and (own[-1] in _FORMS or own[-1] in _VAGUE) else []),
    }
    return frozenset(
        words for words in whole if len(words) > 1 or (words and words[0] not in _VAGUE)
    )


def about(tool: str) -> Words:
    """The things in a tool's name: ``order`` of ``orders_get``."""
    return _single(
        tuple(
            w
            for w in words_of(tool)
            if w not in _VERBS and w not in {"by", "for", "of", "to", "all", "my"}
        )
    )


def _single(words: Words) -> Words:
    return tuple(
        w[:-3] + "y"
        if w.endswith("ies")
        else w[:-1]
        if w.endswith("s") and not w.endswith(("ss", "us"))
        else w
        for w in words
    )


# --- rules ------------------------------------------------------------------------------------
def _from(a: Argument, origin: Returned, fact: FoundFact) -> Argument | None:
    """The argument with one more origin; None where it cannot have it."""
    source = f"{origin.tool}.{fact.name}"
    rule = a.rule
    if rule is None:  # free text, of which the results tell the type
        if fact.type in {"text", *NUMERIC} or not a.open or fact.type not in TOKENISED:
            return None
        first, second = SAMPLES[fact.type]
        made = {"type": fact.type, "from": ["prompt", source], **a.left_out}
        spoken = (
            first.replace("T", " ")
            if fact.type == "datetime"
            else SIGNS.get(fact.type, "") + first
        )
        return replace(
            a,
            rule=made,
            note="",
            proposal="",
            samples=(first, second),
            spoken=spoken,
            open=False,
        )
    sources = rule.get("from", [])
    if (
        "prompt" not in sources
        or source in sources
        or rule.get("type", "text") != fact.type
        or fact.type in NUMERIC
    ):
        return None
    return replace(a, rule={**rule, "from": [*sources, source]}, note="")


def _find_amount(origin: Returned) -> FoundFact | None:
    """The amount that a read returned, a total before others."""
    amounts = (
        f
        for f in origin.facts.values()
        if not f.listed and f.type in NUMERIC and not AMOUNTS.isdisjoint(words_of(f.path))
    )
    return min(
        amounts, key=lambda f: {"total", "amount"}.isdisjoint(words_of(f.path)), default=None
    )


def _bounded(
    tool: str, args: list[Argument], origin: Returned, *, settle: bool
) -> set[tuple[str, str]]:
    """Bound the amount of a tool that acts by what a read returned of the same thing, and tie
    that thing's id to that read.
    """
    tie = _tie(tool, args, origin)
    about_it = set(about(tool)) & set(about(origin.tool))
    at = next(
        (
            i
            for i, a in enumerate(args)
            if a.rule is None and a.number and not AMOUNTS.isdisjoint(words_of(a.name))
        ),
        None,
    )
    fact = _find_amount(origin)
    if at is None or fact is None or not (tie or about_it):
        return set()
    a = args[at]
    source = f"{origin.tool}.{fact.name}"
    kind = fact.type
    found = {(origin.tool, fact.name)}
    beside = next((i for i, b in enumerate(args) if _currency_of(a, b)), None)
    spoken = "20"
    currency = dict[str, Any]()
    if kind == "money":
        if beside is None:
            args[at] = replace(
                a, note=f"how much at most? {source} has a currency, and this tool names none"
            )
            return set()
        code = f"{origin.tool}.{fact.currency}"
        found.add((origin.tool, fact.currency))
        args[beside] = replace(
            args[beside],
            rule={"from": [code]},
            note=f"the currency of {source}",
            proposal="",
            samples=("EUR", None),
            open=False,
        )
        spoken = "20 EUR"
        currency = {"currency": args[beside].name}
    else:
        kind = a.number
    bound = {} if settle else {"at_most": source}
    rule = {"type": kind, **currency, **bound, "from": ["prompt", source], **a.left_out}
    note = f"no more than {source}; and how much in any case? (min, max)"
    args[at] = replace(a, rule=rule, note=note, proposal="", samples=(20, 21), spoken=spoken)
    for index, name in tie.items() if not settle else ():
        rule = {**(args[index].rule or {}), "from": [f"{origin.tool}.{name}"]}
        args[index] = replace(
            args[index],
            rule=rule,
            note=f"what {origin.tool} was asked for, so all of it is of one call",
        )
    return found


def _tie(tool: str, args: Sequence[Argument], origin: Returned) -> dict[int, str]:
    """The arguments that name what the read was asked for, by the read's own."""
    found = {}
    for index, a in enumerate(args):
        for name, other in origin.args.items():
            same = _called(a.name, tool) & _called(name, origin.tool)
            if (
                same
                and a.always
                and other.always
                and (a.rule or {}).get("type") == (other.rule or {}).get("type", "") != ""
            ):
                found[index] = name
    return found


def _currency_of(amount: Argument, other: Argument) -> bool:
    """Whether another argument holds the currency of an amount: beside it, free text, always
    sent.
    """
    where = amount.name.rpartition(".")[0]
    here = other.name.rpartition(".")
    return (
        where == here[0]
        and words_of(here[2])[-1:] == ("currency",)
        and other.rule is None
        and other.open
        and other.always
    )


def typed(value: Any) -> dict[str, Any]:
    """A rule that allows exactly one value."""
    kind, shown = constant(value)
    return {**({"type": kind} if kind != "text" else {}), "is": shown}
