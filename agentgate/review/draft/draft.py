"""Drafts a first workflow for real tools, and its tests: as narrow as can be stated; the
reviewer decides the rest.

Rules: two marks, each in a comment. ``# DECIDE:`` marks what is undecided: a placeholder that
no tenant is called, words that no user says, an argument that is not declared; no file with one
is signed. ``# CHECK:`` marks a guess. What is unheard, unclear or unknown asks the run's own
user. A draft loads strictly. It quotes a tool's description and never follows it. The engine
decides each case of the test file before it is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

from agentgate.errors import ConfigError, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.intents.phrases import overlaps
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import inline
from agentgate.review.draft.argument import Argument, argument, asked_about, opened
from agentgate.review.draft.first_tests import first_tests, refused
from agentgate.review.draft.phrasebook import example, listed, speaking, usual
from agentgate.review.draft.results import (
    Linked,
    Returned,
    Samples,
    declared_fact,
    facts_of,
    linked,
    stated,
)
from agentgate.review.draft.template import render
from agentgate.review.draft.toolset import DeclaredTool, effect_of, leaves, verb_of, words_of
from agentgate.review.scenarios.values import put_at, steps
from agentgate.values.value_class import Json, Names, Values, value_class
from agentgate.values.visible import visible
from agentgate.workflow.model import Effect

UNDECIDED = "undecided"  # no tenant has this name
_MARK = re.compile(r"(?:^|\s)#[ ]*DECIDE:[ ]*(.*)$")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
_COLUMN = 44
_EFFECT_RISK = {"read": "low", "write": "medium", "egress": "medium", "destructive": "high"}
_TEMPLATE = "review/draft/templates/workflow.yaml.j2"
_RISKS = ("low", "medium", "high")
_Place = tuple[str, str]  # a tool and an argument of it


@value_class
class DraftedTool:
    """One tool of a draft: its declaration, its probable effect and why, its arguments, the
    intent it needs (a read: empty), a label.

    `facts` of its sample results: rule and note by name. `sampled`: there were any.
    """

    declared: DeclaredTool
    effect: Effect
    why: str
    args: tuple[Argument, ...]
    intent: str
    label: str
    facts: Mapping[str, tuple[Values, str]] = field(default_factory=dict)
    sampled: bool = False

    @property
    def name(self) -> str:
        """Its declared name."""
        return self.declared.name

    @property
    def decided(self) -> list[Argument]:
        """The arguments with a rule."""
        return [a for a in self.args if a.rule is not None]

    @property
    def undecided(self) -> list[Argument]:
        """The arguments without one."""
        return [a for a in self.args if a.rule is None]

    @property
    def ready(self) -> bool:
        """True when a call can be made with what is decided: no argument that is always sent is
        undecided.
        """
        return all(a.rule is not None and a.samples is not None for a in self.args if a.always)

    @property
    def spoken(self) -> str:
        """What a user would say about the arguments of a call."""
        return " and ".join(dict.fromkeys(a.spoken for a in self.args if a.always and a.spoken))

    @property
    def asks(self) -> bool:
        """Whether somebody is asked where the intent is unclear: some argument is one that only
        the user may give.
        """
        return bool(self.intent) and any(
            "prompt" in (a.rule or {}).get("from", ()) for a in self.decided
        )

    def questions(self, settle: bool) -> Mapping[str, str]:  # noqa: FBT001 - a template calls it
        """Id and condition of each rule that asks the user; of a start, one that asks before
        each act.
        """
        if settle and self.intent:
            return {f"ask-{self.label}": ""}
        unnamed = any("unknown_origin" in (a.rule or {}) for a in self.decided)
        return {
            **({f"ask-{self.label}": "when: {intent: unclear}, "} if self.asks else {}),
            **({f"ask-{self.label}-value": "when: {origin: unknown}, "} if unnamed else {}),
        }

    @property
    def call(self) -> Json:
        """Arguments that the draft permits where the user said `spoken`."""
        args: Json = {}
        for a in self.decided:
            if a.always and a.samples:
                args = (
                    put_at(args, steps(a.name), a.samples[0])
                    if "." in a.name
                    else {**args, a.name: a.samples[0]}
                )
        return args

    @property
    def others(self) -> Json:
        """For each argument that must come from the prompt, another value of the same form."""
        return {
            a.name: a.samples[1]
            for a in self.args
            if a.always and a.spoken and "." not in a.name
            if a.samples and a.samples[1] is not None
        }


@value_class
class Draft:
    """Two files."""

    text: str  # the workflow
    tests: str  # its test file
    example: DraftedTool  # the tool that the test file's base calls
    prompt: str  # what the user of that call says
    tools: tuple[DraftedTool, ...]  # all drafted tools
    left_out: Names  # tools whose names no workflow can declare


def undecided(text: str) -> tuple[tuple[int, int, str], ...]:
    """Every ``# DECIDE:`` left in a workflow file, as (line, column, question), both from 1."""
    return tuple(
        (number, line.index("#", m.start()) + 1, visible(m[1]))
        for number, line in enumerate(text.split("\n"), 1)
        if (m := _MARK.search(line))
    )


def draft(
    tools: Sequence[DeclaredTool],
    *,
    id: str,  # noqa: A002 - the word of the vocabulary
    source: str,
    owner: str,
    expires: date,
    tenant: str = "",
    settle: bool = False,
    last: Collection[str] = (),
    results: Samples | None = None,
) -> Draft:
    """Draft a workflow for these tools.

    `source` names where the tools come from, for the first comment; `tenant` is whose data
    (empty: undecided, so no tenant's); `last` are tools that are no good example. `settle` is
    for a start (`agentgate init`, where the person who reads the draft signs at once): every
    tool can be called, the run's own user is asked before each act and where a read takes what
    they did not name, and what is undecided the model may write. `results` are sample results
    of the tools.

    Raises ConfigError: no tool whose name a workflow can declare, or one name twice.
    """
    named, left_out = _split_by_name(tools)
    said = {
        "left_out": left_out,
        "id": id,
        "source": source,
        "owner": owner,
        "expires": expires,
        "tenant": tenant,
    }
    # arguments whose drafted rule failed, and why: undecided after all
    barred: dict[_Place, str] = {}
    while True:
        drafted = _drafted(named, barred, results or {}, settle=settle)
        text = _text(drafted, settle=settle, **said)
        try:
            workflow = load_text(text, "draft.yaml", {}, derive)
        except WorkflowError as error:
            failed = {
                place: p.got
                for p in error.problems
                if (place := _argument_at(p.field, drafted)) is not None
            }
            if not failed:
                raise
        else:
            for tool in sorted(
                drafted,
                key=lambda t: (not t.ready, t.name in last, bool(t.intent), not t.spoken),
            ):
                prompt = _prompt(tool, settle=settle)
                base = {
                    "call": tool.name,
                    "tenant": workflow.tenants[0],
                    "prompt": prompt,
                    "args": tool.call,
                }
                fields = refused(workflow, base)
                if not fields:
                    tests = first_tests(workflow, base, tool.others)
                    return Draft(text, tests, tool, prompt, drafted, left_out)
            failed = {
                (tool.name, name): "no example was found for it"
                for name in _decided_at(fields, tool)
            }
        if not failed.keys() - barred.keys():
            wanted = "tools that a workflow can describe (write it by hand: docs/workflows.md)"
            raise ConfigError("tools", ", ".join(tool.name for tool in named), wanted)
        barred |= failed


def _split_by_name(
    tools: Sequence[DeclaredTool],
) -> tuple[list[DeclaredTool], Names]:
    """The tools whose names a workflow can declare, and the names of the others."""
    named = [tool for tool in tools if _TOOL_NAME.fullmatch(tool.name) and tool.name != "any"]
    left_out = tuple(visible(tool.name, 80) for tool in tools if tool not in named)
    if not named:
        wanted = "at least one tool named with ASCII letters, digits, '_', '.', ':', '/' or '-'"
        raise ConfigError("tools", ", ".join(left_out) or "none", wanted)
    names = [tool.name for tool in named]
    if len(set(names)) != len(names):
        raise ConfigError(
            "tools", next(n for n in names if names.count(n) > 1), "each tool name once"
        )
    return named, left_out


def _argument_at(field: str, tools: Sequence[DraftedTool]) -> _Place | None:
    """The argument, or the fact, that a problem's dotted path names."""
    places = [("args", tool.name, a.name) for tool in tools for a in tool.decided]
    places += [("facts", tool.name, name) for tool in tools for name in tool.facts]
    return next(
        (
            (tool, name)
            for block, tool, name in places
            if f"{field}.".startswith(f"tools.{tool}.{block}.{name}.")
        ),
        None,
    )


def _decided_at(fields: Sequence[str], tool: DraftedTool) -> Iterator[str]:
    """The decided arguments that refused fields name, contain or are inside of."""
    for at in (each.removeprefix("args.") for each in fields if each.startswith("args.")):
        for name in (a.name for a in tool.decided):
            if (
                at == name
                or name.startswith((f"{at}.", f"{at}[]"))
                or at.startswith((f"{name}.", f"{name}[]"))
            ):
                yield name


def _drafted(
    named: Sequence[DeclaredTool],
    barred: Mapping[_Place, str],
    results: Samples,
    *,
    settle: bool,
) -> tuple[DraftedTool, ...]:
    origins = [_returned(tool, barred, results.get(tool.name, ())) for tool in named]
    links = {o.tool: linked(o, origins, settle=settle) for o in origins}
    relied = {other for o in origins if o.acting for other, _ in links[o.tool].taken}
    links |= {
        o.tool: Linked(o.fixed) for o in origins if o.tool in relied and o.steered == "fixed"
    }
    taken = {other for link in links.values() for other, _ in link.taken}
    trusted = {place for link in links.values() for place in link.named}
    out = []
    for tool, origin in zip(named, origins, strict=True):
        schemas = {leaf.name: leaf for leaf in leaves(tool.schema)}
        acting = origin.acting
        drafted = links[tool.name].args
        if settle:
            drafted = tuple(
                opened(a, schemas[a.name].schema, tool.schema, acting=acting)
                if schemas[a.name].plain and (tool.name, a.name) not in barred
                else a
                for a in drafted
            )
        if not acting and tool.name in taken:
            drafted = tuple(map(stated, drafted))
        drafted = tuple(asked_about(a, origin.effect) for a in drafted)
        label = _intent_name(tool.name, [each.name for each in named])
        facts = {
            name: declared_fact(fact, origin.facts, named=(tool.name, name) in trusted)
            for name, fact in origin.facts.items()
        }
        out.append(
            DraftedTool(
                tool,
                *effect_of(tool),
                drafted,
                label if acting else "",
                label,
                facts,
                tool.name in results,
            )
        )
    return tuple(out)


def _returned(
    tool: DeclaredTool, barred: Mapping[_Place, str], samples: Sequence[Any]
) -> Returned:
    effect, _ = effect_of(tool)
    args = {a.name: a for a in _arguments(tool, barred, acting=effect != "read")}
    found = facts_of(samples, args)
    kept = {
        f.name: f
        for f in found
        if (tool.name, f.name) not in barred and (effect == "read" or f.type == "id")
    }
    return Returned(tool.name, effect, kept, args)


def _arguments(
    tool: DeclaredTool, barred: Mapping[_Place, str], *, acting: bool
) -> list[Argument]:
    mails = not {"mail", "email"}.isdisjoint(words_of(tool.name))
    args = []
    for leaf in leaves(tool.schema):
        a = argument(
            leaf.name,
            leaf.schema,
            tool.schema,
            required=leaf.required,
            acting=acting,
            plain=leaf.plain,
            mails=mails,
        )
        why = barred.get((tool.name, a.name))
        if why is not None:
            a = Argument(
                a.name,
                None,
                f"its schema says what no workflow can hold ({visible(why, 60)})",
                always=a.always,
            )
        args.append(a)
    return args


def _intent_name(tool: str, names: Sequence[str]) -> str:
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60] for name in (tool, *names)]
    intent = (
        plain[0]
        if re.match("[A-Za-z_]", plain[0]) and plain[0] not in {"any", "none"}
        else f"use_{plain[0]}"[:60]
    )
    return f"{intent}_{names.index(tool)}" if plain[1:].count(intent) > 1 else intent


# --- the text ---------------------------------------------------------------------------------
def _quoted(text: str, limit: int) -> str:
    """A tool's description, on one line, without our marks."""
    return (
        visible(" ".join(text.split()), limit)
        .replace("DECIDE:", "DECIDE")
        .replace("CHECK:", "CHECK")
    )


def _marked(line: str, mark: str, note: str) -> str:
    return f"{line:<{_COLUMN - 2}}  # {mark}: {note}" if note else line


def _text(tools: Sequence[DraftedTool], *, settle: bool, **said: Any) -> str:
    """The workflow; `said`: as the parameters of `draft`."""
    acting = [tool for tool in tools if tool.intent]
    words = _vocabularies(acting)
    calls = ", ".join(tool.name for tool in tools[:4]) + (", ..." if len(tools) > 4 else "")
    return render(
        _TEMPLATE,
        tools=tools,
        settle=settle,
        **said,
        acting=acting,
        title=visible(f"An agent calls {calls}", 200),
        risk="low"
        if settle
        else max((_EFFECT_RISK[tool.effect] for tool in tools), key=_RISKS.index),
        yaml=inline,
        visible=visible,
        quoted=_quoted,
        marked=_marked,
        check=lambda line, question: line if settle else _marked(line, "CHECK", question),
        phrases=lambda tool: _phrases(tool, words[tool.intent]),
        request=partial(_request, settle=settle),
        words=lambda tool: listed(words[tool.intent]),
        prompt=partial(_prompt, settle=settle),
    )


def _prompt(tool: DraftedTool, *, settle: bool) -> str:
    """What a user says to have a tool called."""
    return (
        f"Please {_request(tool, settle=settle) if tool.intent else 'look this up'} "
        f"{tool.spoken}"
    ).rstrip()


def _request(tool: DraftedTool, *, settle: bool) -> str:
    if not settle:
        return f"{UNDECIDED} {tool.intent}"
    words, verb = _words(tool)
    return example(((verb,), *usual(words, verb)), words, verb)


def _vocabularies(tools: Sequence[DraftedTool]) -> dict[str, list[list[str]]]:
    """The words of each intent, its example's first, then the usual ones; none of them begins
    or ends a longer phrase of another intent.
    """
    asked = {tool.intent: _request(tool, settle=True) for tool in tools}
    usually = {tool.intent: usual(*_words(tool)) for tool in tools}
    spoken = {name: [asked[name], *chain(*groups)] for name, groups in usually.items()}
    left_out = {
        (name, phrase)
        if (phrase[0] == "^" and phrase != asked[name]) or longer == asked[other]
        else (other, longer)
        for name, phrase, other, longer in overlaps(spoken)
    }
    left_out |= {*asked.items()}
    return {
        name: [
            [asked[name]],
            *filter(
                None, [[p for p in group if (name, p) not in left_out] for group in groups]
            ),
        ]
        for name, groups in usually.items()
    }


def _phrases(tool: DraftedTool, words: Sequence[Sequence[str]]) -> Iterator[str]:
    """Words and examples for an intent, for a reviewer to choose from."""
    yield from listed(words)
    _, verb = _words(tool)
    yield f"examples: [{inline(f'Please {words[0][0]} {tool.spoken}'.strip())}]"
    yield f"counter_examples: [{inline(f'{verb.capitalize()} all of them')}]"


def _words(tool: DraftedTool) -> tuple[Names, str]:
    """The words of a tool's name, and the one that says what it does."""
    words = words_of(tool.name)
    return words, speaking(words, verb_of(tool.name))
