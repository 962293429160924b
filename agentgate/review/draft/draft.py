"""Drafts a first workflow for real tools, and its tests: as narrow as can be stated; the reviewer decides the rest.

Rules: two marks, each in a comment. ``# DECIDE:`` marks what is undecided; the gate refuses what depends on it until a reviewer writes it:
a placeholder that no tenant is called, words that no user says, an argument that is not declared. ``# CHECK:`` marks a guess. A draft
loads strictly. It quotes a tool's description and never follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from agentgate.errors import ConfigError, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.draft.argument import Argument, argument, inline
from agentgate.review.draft.first_tests import base_of, first_tests, refused
from agentgate.review.draft.phrasebook import act_of, example, listed, speaking, usual
from agentgate.review.draft.schema import leaves
from agentgate.review.draft.toolset import DeclaredTool, effect_of, verb_of, words_of
from agentgate.review.scenarios.statements import put_at, steps
from agentgate.values.visible import visible
from agentgate.workflow.model import Effect

UNDECIDED = "undecided"  # no tenant has this name
_MARK = re.compile(r"(?:^|\s)#[ ]*DECIDE:[ ]*(.*)$")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
_COLUMN = 44
_EFFECT_RISK = {"read": "low", "write": "medium", "egress": "medium", "destructive": "high"}
_OFTEN = 5  # calls of one acting tool for one message of the user: "close A and B" makes two
_RISKS = ("low", "medium", "high")
_Place = tuple[str, str]  # a tool and an argument of it


@dataclass(frozen=True, slots=True)
class DraftedTool:
    """One tool of a draft: its declaration, its probable effect and why, its arguments, the intent it needs (a read: empty)."""

    declared: DeclaredTool
    effect: Effect
    why: str
    args: tuple[Argument, ...]
    intent: str

    @property
    def name(self) -> str:
        """Its declared name."""
        return self.declared.name

    @property
    def ready(self) -> bool:
        """True when a call can be made with what is decided: no argument that is always sent is undecided."""
        return all(a.rule is not None and a.samples is not None for a in self.args if a.always)

    @property
    def spoken(self) -> str:
        """What a user would say about the arguments of a call."""
        return " and ".join(dict.fromkeys(a.spoken for a in self.args if a.always and a.spoken))

    @property
    def asked_about(self) -> str:
        """An argument that only the user may give: a step-up for values of the model's choice then holds no ordinary call. Else empty."""
        prompted = [a for a in self.args if a.rule is not None and a.rule.get("from") == ["prompt"]]
        return min(prompted, key=lambda a: not a.always).name if prompted and self.intent else ""

    @property
    def call(self) -> dict[str, Any]:
        """Arguments that the draft permits where the user said `spoken`."""
        args: dict[str, Any] = {}
        for a in self.args:
            if a.always and a.rule is not None and a.samples is not None:
                args = put_at(args, steps(a.name), a.samples[0]) if "." in a.name else {**args, a.name: a.samples[0]}
        return args

    @property
    def others(self) -> dict[str, Any]:
        """For each argument that must come from the prompt, another value of the same form."""
        given = [a for a in self.args if a.always and a.spoken and "." not in a.name]
        return {a.name: a.samples[1] for a in given if a.samples is not None and a.samples[1] is not None}


@dataclass(frozen=True, slots=True)
class Draft:
    """Two files.

    Attributes:
        text: the workflow.
        tests: its test file.
        example: the tool that the test file's base calls.
        prompt: what the user of that call says.
        tools: all drafted tools.
        left_out: tools whose names no workflow can declare.
    """

    text: str
    tests: str
    example: DraftedTool
    prompt: str
    tools: tuple[DraftedTool, ...]
    left_out: tuple[str, ...]


def undecided(text: str) -> tuple[tuple[int, int, str], ...]:
    """Every ``# DECIDE:`` left in a workflow file, as (line, column, question), both from 1."""
    marks = ((number, line, _MARK.search(line)) for number, line in enumerate(text.split("\n"), 1))
    return tuple((number, line.index("#", m.start()) + 1, visible(m[1])) for number, line, m in marks if m is not None)


def draft(
    tools: Sequence[DeclaredTool],
    *,
    id: str,  # noqa: A002 - the word of the vocabulary
    source: str,
    owner: str,
    expires: date,
    tenant: str = "",
    settle: bool = False,
) -> Draft:
    """Draft a workflow for these tools.

    `source` names where the tools come from, for the first comment; `tenant` is whose data (empty: undecided, so no tenant's). `settle`:
    write the proposals instead of asking (`agentgate init`, where the person who reads them signs at once).

    Raises ConfigError: no tool whose name a workflow can declare, or one name twice.
    """
    named = [tool for tool in tools if _TOOL_NAME.fullmatch(tool.name) and tool.name != "any"]
    left_out = tuple(visible(tool.name, 80) for tool in tools if tool not in named)
    if not named:
        wanted = "at least one tool named with ASCII letters, digits, '_', '.', ':', '/' or '-'"
        raise ConfigError("tools", ", ".join(left_out) or "none", wanted)
    names = [tool.name for tool in named]
    if len(set(names)) != len(names):
        raise ConfigError("tools", next(n for n in names if names.count(n) > 1), "each tool name once")
    writer = _Writer((), left_out, id, source, owner, expires, tenant, settle)
    barred: dict[_Place, str] = {}  # arguments whose drafted rule failed, and why: undecided after all
    while True:
        writer = replace(writer, tools=tuple(_tool(tool, names, barred, settle=settle) for tool in named))
        text = "\n".join(writer.lines()) + "\n"
        try:
            workflow = load_text(text, "draft.yaml", {}, derive)
        except WorkflowError as error:
            failed = {place: p.got for p in error.problems if (place := _argument_at(p.field, writer.tools)) is not None}
            if not failed:
                raise
        else:
            for tool in sorted(writer.tools, key=lambda t: (not t.ready, bool(t.intent))):
                prompt = writer.prompt(tool)
                base = base_of(tool.name, tool.call, prompt, workflow.tenants[0])
                fields = refused(workflow, base)
                if not fields:
                    tests = "\n".join(first_tests(workflow, base, tool.others)) + "\n"
                    return Draft(text, tests, tool, prompt, writer.tools, left_out)
            failed = {(tool.name, name): "no example was found for it" for name in _decided_at(fields, tool)}
        if not failed.keys() - barred.keys():
            raise ConfigError("tools", ", ".join(names), "tools that a workflow can describe (write it by hand: docs/workflows.md)")
        barred |= failed


def _argument_at(field: str, tools: Sequence[DraftedTool]) -> _Place | None:
    """The argument that a problem's dotted path names."""
    decided = ((tool.name, a.name) for tool in tools for a in tool.args if a.rule is not None)
    return next((place for place in decided if f"{field}.".startswith("tools.{}.args.{}.".format(*place))), None)


def _decided_at(fields: Sequence[str], tool: DraftedTool) -> Iterator[str]:
    """The decided arguments that refused fields name, contain or are inside of."""
    for at in (field.removeprefix("args.") for field in fields if field.startswith("args.")):
        for name in (a.name for a in tool.args if a.rule is not None):
            if at == name or name.startswith((f"{at}.", f"{at}[]")) or at.startswith((f"{name}.", f"{name}[]")):
                yield name


def _tool(tool: DeclaredTool, names: Sequence[str], barred: Mapping[_Place, str], *, settle: bool) -> DraftedTool:
    effect, reason = effect_of(tool)
    acting = effect != "read"
    mails = not {"mail", "email"}.isdisjoint(words_of(tool.name))
    args = []
    for leaf in leaves(tool.schema):
        a = argument(leaf.name, leaf.schema, tool.schema, required=leaf.required, acting=acting, plain=leaf.plain, mails=mails)
        why = barred.get((tool.name, a.name))
        if why is not None:
            a = Argument(a.name, None, f"its schema says what no workflow can hold ({visible(why, 60)})", always=a.always)
        elif settle:
            a = _settled(a, acting=acting)
        args.append(a)
    return DraftedTool(tool, effect, reason, tuple(args), _intent_name(tool.name, names) if acting else "")


def _intent_name(tool: str, names: Sequence[str]) -> str:
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60] for name in (tool, *names)]
    intent = plain[0] if re.match("[A-Za-z_]", plain[0]) and plain[0] not in {"any", "none"} else f"use_{plain[0]}"[:60]
    return f"{intent}_{names.index(tool)}" if plain[1:].count(intent) > 1 else intent


def _settled(a: Argument, *, acting: bool) -> Argument:
    """Undecided free text as its proposal has it; what needs a number or a list of values stays undecided."""
    if a.rule is not None or "text: 200" not in a.proposal or "max_items" in a.proposal:
        return a
    rule = {"text": 200} | ({"from": ["model"], "entities": ["prompt"]} if acting else {}) | ({} if a.always else {"optional": True})
    rule |= {"nullable": True} if "nullable: true" in a.proposal else {}
    return Argument(a.name, rule, "free text, written by the model", samples=("hello", None), always=a.always)


# --- the text -------------------------------------------------------------------------------------------------------------------


def _quoted(text: str, limit: int) -> str:
    """A tool's description, on one line, without our marks."""
    return visible(" ".join(text.split()), limit).replace("DECIDE:", "DECIDE").replace("CHECK:", "CHECK")


def _marked(line: str, mark: str, note: str) -> str:
    return f"{line:<{_COLUMN - 2}}  # {mark}: {note}" if note else line


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the workflow. Attributes as the parameters of `draft`."""

    tools: tuple[DraftedTool, ...]
    left_out: tuple[str, ...]
    id: str
    source: str
    owner: str
    expires: date
    tenant: str
    settle: bool

    def prompt(self, tool: DraftedTool) -> str:
        """What a user says to have a tool called."""
        return f"Please {self._request(tool) if tool.intent else 'look this up'} {tool.spoken}".rstrip()

    def lines(self) -> Iterator[str]:
        """The workflow, line by line."""
        acting = [tool for tool in self.tools if tool.intent]
        risk = "low" if self.settle else max((_EFFECT_RISK[tool.effect] for tool in self.tools), key=_RISKS.index)
        count = f"{len(self.tools)} tool{'' if len(self.tools) == 1 else 's'}"
        yield f"# Drafted from {count} of {visible(self.source, 80)}. Nothing here is in force until its reviewers sign it."
        if not self.settle:
            yield "# DECIDE marks what nobody has decided: it is refused until you write it and delete the mark."
            yield "# CHECK marks a guess: read it, correct it, delete the mark."
        yield "agentgate: workflow/v1"
        yield f"id: {inline(self.id)}"
        yield "version: 1"
        calls = ", ".join(tool.name for tool in self.tools[:4]) + (", ..." if len(self.tools) > 4 else "")
        yield self._check(f"title: {inline(visible(f'An agent calls {calls}', 200))}", "what is it for, in one sentence?")
        yield f"owners: [{inline(visible(self.owner, 100))}]"
        yield self._check(f"risk: {risk}", "low, medium or high; it decides how many reviewers sign")
        yield self._check(f'expires: "{self.expires.isoformat()}"', "the last day on which anything is granted")
        if self.tenant:
            yield f"tenants: [{inline(self.tenant)}]"
        else:
            yield _marked(f"tenants: [{UNDECIDED}]", "DECIDE", "whose data, by exact name; until then nobody's")
        yield self._check("who: {agent: {in_process: true}, for_user: {same_tenant: true}}", "the host process vouches for agent and user")
        yield ""
        yield "intents:" if acting else 'intents: {none: "Only looks; nothing here changes or sends anything."}'
        for tool in acting:
            yield from self._intent(tool)
        yield ""
        yield "tools:"
        for tool in self.tools:
            yield from _block(tool)
        for name in self.left_out:
            yield f"  # CHECK: {name} is left out: no workflow can hold its name, so every call of it is refused."
        yield ""
        yield "limits:"
        for tool in acting:
            yield self._check(f"  - {{count: {inline(tool.name)}, max: {_OFTEN}, per: turn}}", "how often for one message of the user?")
        yield "  - {count: any, max: 20, per: run}"
        yield from self._people([tool for tool in acting if tool.asked_about])

    def _check(self, line: str, question: str) -> str:
        return line if self.settle else _marked(line, "CHECK", question)

    def _request(self, tool: DraftedTool) -> str:
        if not self.settle:
            return f"{UNDECIDED} {tool.intent}"
        words, verb = _words(tool)
        return example(((verb,), *usual(words, verb)), words, verb)

    def _intent(self, tool: DraftedTool) -> Iterator[str]:
        yield f"  {tool.intent}:"
        yield f"    asks_for: {inline(_quoted(tool.declared.description, 300) or f'Call {tool.name}.')}"
        words, verb = _words(tool)
        deletes = act_of(verb, words) == "delete"
        unheard, then = ("deny", "refused; step_up: a person is asked") if deletes else ("step_up", "a person is asked")
        asking = ["unclear: step_up", f"{f'unheard: {unheard}':<{_COLUMN - 4}}# in other words: {then}"] if tool.asked_about else []
        if not self.settle:
            phrases = usual(words, verb)
            yield f"    # DECIDE: with which words does a user ask for {tool.name}? Until then it is refused."
            yield "    # For example:"
            yield from (f"    # {line}" for line in (*listed(phrases), *asking))
            yield f"    # examples: [{inline(f'Please {example(phrases, words, verb)} {tool.spoken}'.strip())}]"
            yield f"    # counter_examples: [{inline(f'{verb.capitalize()} all of them')}]"
        yield f"    words: [{inline(self._request(tool))}]"
        yield from (f"    {line}" for line in asking if self.settle)
        yield f"    examples: [{inline(self.prompt(tool))}]"

    def _people(self, tools: Sequence[DraftedTool]) -> Iterator[str]:
        """Who answers `unclear: step_up` and `unheard: step_up`; commented out as long as these are. No line holds an ordinary call."""
        mark = "" if self.settle else "# "
        if tools:
            yield ""
            group = " (the group is a guess):" if self.settle else ", with these lines; the group is a guess."
            yield f"# Whom an intent with step_up asks{group}"
            yield f"{mark}step_up:"
        for tool in tools:
            when = inline({tool.asked_about: {"origin": ["model"]}})
            people = f"when: {when}, approvers: {{group: owners, count: 1}}, timeout: 10m"
            yield f"{mark}  - {{id: {inline(f'ask-{tool.intent}')}, for: {inline(tool.name)}, {people}}}"


def _words(tool: DraftedTool) -> tuple[tuple[str, ...], str]:
    """The words of a tool's name, and the one that says what it does."""
    words = words_of(tool.name)
    return words, speaking(words, verb_of(tool.name))


def _block(tool: DraftedTool) -> Iterator[str]:
    yield f"  {inline(tool.name)}:"
    if not tool.intent and tool.declared.description:
        yield f"    # Its own words: {_quoted(tool.declared.description, 110)}"
    yield _marked(f"    effect: {tool.effect}", "CHECK", tool.why + "; read, write, egress or destructive?")
    yield f"    needs: {f'[{tool.intent}]' if tool.intent else 'any'}"
    yield f"    definition: {tool.declared.definition}"
    yield "    redeem: wrapper"
    decided = [a for a in tool.args if a.rule is not None]
    if decided:
        yield "    args:"
    elif tool.args:
        yield _marked("    args: {}", "DECIDE", "no argument is decided; write those below here")
    for a in decided:
        yield _marked(f"      {inline(a.name)}: {inline(a.rule)}", "CHECK", a.note)
    for a in (a for a in tool.args if a.rule is None):
        until = "Until then every call is refused." if a.always else "Until then a call with it is refused."
        yield f"      # DECIDE: {visible(a.name, 80)}: {a.note}{'' if a.note.endswith('?') else '.'} {until}"
        if a.proposal:
            yield f"      # {a.proposal}"
