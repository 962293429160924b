"""A first workflow for real tools, and its tests: as narrow as can be said, the rest left to the reviewer and refused until then.

Rules: two marks, each in a comment. ``# DECIDE:`` is undecided, and what it stands for is refused until somebody writes it: a
placeholder that no tenant is called, words that no user says, an argument that is not declared. ``# CHECK:`` is a guess. A
draft loads strictly. What tools say of themselves is quoted, never obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from agentgate.errors import ConfigError, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.draft.acts import act_of, example, speaking, usual
from agentgate.review.draft.argument import Argument, argument, inline
from agentgate.review.draft.first_tests import base_of, first_tests, refused
from agentgate.review.draft.leaves import leaves
from agentgate.review.draft.phrasebook import listed
from agentgate.review.draft.toolset import DeclaredTool, effect_of, verb_of, words_of
from agentgate.review.scenarios.structure import put_at, steps
from agentgate.values.visible import visible
from agentgate.workflow.model import Effect

UNDECIDED = "undecided"  # nobody's tenant
_MARK = re.compile(r"(?:^|\s)#[ ]*DECIDE:[ ]*(.*)$")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
_COLUMN = 44
_EFFECT_RISK = {"read": "low", "write": "medium", "egress": "medium", "destructive": "high"}
_OFTEN = 5  # calls of one acting tool for one message of the user: "close A and B" is two
_RISKS = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class DraftedTool:
    """One tool of a draft: as declared, what it probably does and why, its arguments, the intent it needs (reads: none)."""

    declared: DeclaredTool
    effect: Effect
    why: str
    args: tuple[Argument, ...]
    intent: str

    @property
    def ready(self) -> bool:
        """True when a call can be made with what is decided: nothing that is always sent is left open."""
        return all(a.rule is not None and a.samples is not None for a in self.args if a.always)

    @property
    def spoken(self) -> str:
        """What a user would say to have this tool called, without its intent."""
        return " and ".join(dict.fromkeys(a.spoken for a in self.args if a.always and a.spoken))

    @property
    def asked_about(self) -> str:
        """An argument that only the user may say, so that a step-up for the model's own choice of it asks about no plain call; or empty."""
        said = [a for a in self.args if a.rule is not None and a.rule.get("from") == ["prompt"]]
        return min(said, key=lambda a: not a.always).name if said and self.intent else ""

    @property
    def call(self) -> dict[str, Any]:
        """Arguments that the draft permits where `spoken` was said."""
        out: dict[str, Any] = {}
        for a in self.args:
            if a.always and a.rule is not None and a.samples is not None:
                out = put_at(out, steps(a.name), a.samples[0]) if "." in a.name else {**out, a.name: a.samples[0]}
        return out

    @property
    def others(self) -> dict[str, Any]:
        """Per argument that must come from the prompt, another value of the same form."""
        return {
            a.name: a.samples[1]
            for a in self.args
            if a.always and a.spoken and a.samples is not None and a.samples[1] is not None and "." not in a.name
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """Two files.

    Attributes:
        text: the workflow.
        tests: its test file.
        example: the tool that the test file's base calls; `prompt` is what its user says.
        left_out: tools that no workflow can name.
    """

    text: str
    tests: str
    example: DraftedTool
    prompt: str
    tools: tuple[DraftedTool, ...]
    left_out: tuple[str, ...]


def undecided(text: str) -> tuple[tuple[int, int, str], ...]:
    """Every ``# DECIDE:`` left in a workflow file, as (line, column, question), both from 1."""
    found = ((number, line, _MARK.search(line)) for number, line in enumerate(text.split("\n"), 1))
    return tuple((number, line.index("#", m.start()) + 1, visible(m[1])) for number, line, m in found if m is not None)


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

    Args:
        tools: as declared; each name once.
        id: the workflow's id.
        source: where the tools were found, for the first comment.
        owner: who answers for it.
        expires: its last day.
        tenant: whose data; empty: undecided, so nobody's.
        settle: write the proposals instead of asking (`agentgate init`, where the person who reads them signs at once).

    Raises:
        ConfigError: no tool whose name a workflow can hold, or one name twice.
    """
    named = [tool for tool in tools if _TOOL_NAME.fullmatch(tool.name) and tool.name != "any"]
    left_out = tuple(visible(tool.name, 80) for tool in tools if tool not in named)
    if not named:
        raise ConfigError(
            "tools", ", ".join(left_out) or "none", "at least one tool named with ASCII letters, digits, '_', '.', ':', '/' or '-'"
        )
    names = [tool.name for tool in named]
    if len(set(names)) != len(names):
        raise ConfigError("tools", next(n for n in names if names.count(n) > 1), "each tool name once")
    barred: dict[tuple[str, str], str] = {}  # arguments whose rule does not load: undecided after all
    while True:
        drafted = tuple(_tool(tool, names, barred, settle=settle) for tool in named)
        lines = _lines(drafted, left_out, id=id, source=source, owner=owner, expires=expires, tenant=tenant, settle=settle)
        text = "\n".join(lines) + "\n"
        try:
            workflow = load_text(text, "draft.yaml", {}, derive)
        except WorkflowError as error:
            found = {place: p.got for p in error.problems if (place := _argument_at(p.field, drafted)) is not None}
            if not found:
                raise
        else:
            for example in sorted(drafted, key=lambda t: (not t.ready, bool(t.intent))):
                prompt = _prompt(example, settle=settle)
                base = base_of(example.declared.name, example.call, prompt, workflow.tenants[0])
                fields = refused(workflow, base)
                if not fields:
                    tests = "\n".join(first_tests(workflow, base, example.others)) + "\n"
                    return Draft(text, tests, example, prompt, drafted, left_out)
            found = {(example.declared.name, name): "no example was found for it" for name in _decided_at(fields, example)}
        if not found.keys() - barred.keys():
            raise ConfigError("tools", ", ".join(names), "tools that a workflow can describe (write it by hand: docs/workflows.md)")
        barred |= found


def _argument_at(field: str, tools: Sequence[DraftedTool]) -> tuple[str, str] | None:
    """The tool and argument that a problem's dotted path names."""
    for tool in tools:
        for a in tool.args:
            if a.rule is not None and f"{field}.".startswith(f"tools.{tool.declared.name}.args.{a.name}."):
                return tool.declared.name, a.name
    return None


def _decided_at(fields: Sequence[str], tool: DraftedTool) -> Iterator[str]:
    """The drafted arguments that refused fields are, are in, or hold."""
    for field in fields:
        for a in tool.args if field.startswith("args.") else ():
            at, name = field.removeprefix("args."), a.name
            if a.rule is not None and (at == name or name.startswith((f"{at}.", f"{at}[]")) or at.startswith((f"{name}.", f"{name}[]"))):
                yield name


def _tool(tool: DeclaredTool, names: Sequence[str], barred: Mapping[tuple[str, str], str], *, settle: bool) -> DraftedTool:
    effect, reason = effect_of(tool)
    acting = effect != "read"
    mails = not {"mail", "email"}.isdisjoint(words_of(tool.name))
    args = [
        argument(leaf.name, leaf.schema, tool.schema, required=leaf.required, acting=acting, plain=leaf.plain, mails=mails)
        for leaf in leaves(tool.schema)
    ]
    args = [
        Argument(a.name, None, f"its schema says what no workflow can hold ({visible(why, 60)})", always=a.always)
        if (why := barred.get((tool.name, a.name))) is not None
        else a
        for a in args
    ]
    if settle:
        args = [a if (tool.name, a.name) in barred else _settled(a, acting=acting) for a in args]
    intent = ""
    if acting:
        intent = re.sub(r"[^A-Za-z0-9_-]", "_", tool.name)[:60]
        intent = intent if re.match("[A-Za-z_]", intent) and intent not in {"any", "none"} else f"use_{intent}"[:60]
        if sum(re.sub(r"[^A-Za-z0-9_-]", "_", n)[:60] == intent for n in names) > 1:
            intent = f"{intent}_{names.index(tool.name)}"
    return DraftedTool(tool, effect, reason, tuple(args), intent)


def _settled(a: Argument, *, acting: bool) -> Argument:
    """The undecided free text of an argument as its proposal says it; what needs a number or a list of values stays undecided."""
    if a.rule is not None or "text: 200" not in a.proposal or "max_items" in a.proposal:
        return a
    rule = {"text": 200} | ({"from": ["model"], "entities": ["prompt"]} if acting else {}) | ({} if a.always else {"optional": True})
    rule |= {"nullable": True} if "nullable: true" in a.proposal else {}
    return Argument(a.name, rule, "free text, written by the model", samples=("hello", None), always=a.always)


# --- the workflow -------------------------------------------------------------------------------------------------------------


def _verb(tool: DraftedTool) -> str:
    return speaking(words_of(tool.declared.name), verb_of(tool.declared.name))


def _asked(tool: DraftedTool, *, settle: bool) -> str:
    if not settle:
        return f"{UNDECIDED} {tool.intent}"
    named, verb = words_of(tool.declared.name), _verb(tool)
    return example(((verb,), *usual(named, verb)), named, verb)


def _quoted(text: str, limit: int) -> str:
    """What a tool says of itself, on one line, without a mark of ours."""
    return visible(" ".join(text.split()), limit).replace("DECIDE:", "DECIDE").replace("CHECK:", "CHECK")


def _prompt(tool: DraftedTool, *, settle: bool) -> str:
    what = (_asked(tool, settle=settle) if tool.intent else "look this up") + (f" {tool.spoken}" if tool.spoken else "")
    return f"Please {what}"


def _noted(line: str, mark: str, note: str) -> str:
    return f"{line:<{_COLUMN - 2}}  # {mark}: {note}" if note else line


def _lines(
    tools: Sequence[DraftedTool],
    left_out: Sequence[str],
    *,
    id: str,  # noqa: A002 - as above
    source: str,
    owner: str,
    expires: date,
    tenant: str,
    settle: bool,
) -> Iterator[str]:
    acting = [tool for tool in tools if tool.intent]
    risk = max((_EFFECT_RISK[tool.effect] for tool in tools), key=_RISKS.index) if not settle else "low"
    count = f"{len(tools)} tool{'' if len(tools) == 1 else 's'}"
    yield f"# Drafted from {count} of {visible(source, 80)}. Nothing here is in force until its reviewers sign it."
    if not settle:
        yield "# DECIDE marks what nobody has decided: it is refused until you write it and delete the mark."
        yield "# CHECK marks a guess: read it, correct it, delete the mark."
    yield "agentgate: workflow/v1"
    yield f"id: {inline(id)}"
    yield "version: 1"
    doing = ", ".join(tool.declared.name for tool in tools[:4]) + (", ..." if len(tools) > 4 else "")
    yield _noted(f"title: {inline(visible(f'An agent calls {doing}', 200))}", "CHECK", "" if settle else "what is it for, in one sentence?")
    yield f"owners: [{inline(visible(owner, 100))}]"
    yield _noted(f"risk: {risk}", "CHECK", "" if settle else "low, medium or high; it decides how many reviewers sign")
    yield _noted(f'expires: "{expires.isoformat()}"', "CHECK", "" if settle else "the last day on which anything is granted")
    if tenant:
        yield f"tenants: [{inline(tenant)}]"
    else:
        yield _noted(f"tenants: [{UNDECIDED}]", "DECIDE", "whose data, by exact name; until then nobody's")
    who = "who: {agent: {in_process: true}, for_user: {same_tenant: true}}"
    yield who if settle else _noted(who, "CHECK", "the host process vouches for agent and user")
    yield ""
    if acting:
        yield "intents:"
        for tool in acting:
            yield from _intent(tool, settle=settle)
    else:
        yield 'intents: {none: "Only looks; nothing here changes or sends anything."}'
    yield ""
    yield "tools:"
    for tool in tools:
        yield from _block(tool, settle=settle)
    for name in left_out:
        yield f"  # CHECK: {name} is left out: no workflow can hold its name, so every call of it is refused."
    yield ""
    yield "limits:"
    for tool in acting:
        often = f"  - {{count: {inline(tool.declared.name)}, max: {_OFTEN}, per: turn}}"
        yield _noted(often, "CHECK", "" if settle else "how often for one message of the user?")
    yield "  - {count: any, max: 20, per: run}"
    yield from _people([tool for tool in acting if tool.asked_about], settle=settle)


def _people(tools: Sequence[DraftedTool], *, settle: bool) -> Iterator[str]:
    """Whom `unclear: step_up` and `unheard: step_up` ask; in a comment as long as these are. Each asks about no plain call."""
    mark = "" if settle else "# "
    if tools:
        yield ""
        yield "# Whom an intent with step_up asks" + (" (the group is a guess):" if settle else ", with these lines; the group is a guess.")
        yield f"{mark}step_up:"
    for tool in tools:
        when = inline({tool.asked_about: {"origin": ["model"]}})
        people = f"when: {when}, approvers: {{group: owners, count: 1}}, timeout: 10m"
        yield f"{mark}  - {{id: {inline(f'ask-{tool.intent}')}, for: {inline(tool.declared.name)}, {people}}}"


def _intent(tool: DraftedTool, *, settle: bool) -> Iterator[str]:
    said = _quoted(tool.declared.description, 300) or f"Call {tool.declared.name}."
    yield f"  {tool.intent}:"
    yield f"    asks_for: {inline(said)}"
    named, verb = words_of(tool.declared.name), _verb(tool)
    unheard = ("deny", "refused; step_up: a person is asked") if act_of(verb, named) == "delete" else ("step_up", "a person is asked")
    asking = ["unclear: step_up", f"{f'unheard: {unheard[0]}':<{_COLUMN - 4}}# in other words: {unheard[1]}"]
    if not settle:
        words = usual(named, verb)
        yield f"    # DECIDE: with which words does a user ask for {tool.declared.name}? Until then it is refused."
        yield "    # For example:"
        yield from (f"    # {line}" for line in listed(words))
        yield from (f"    # {line}" for line in asking if tool.asked_about)
        yield f"    # examples: [{inline(f'Please {example(words, named, verb)} {tool.spoken}'.strip())}]"
        yield f"    # counter_examples: [{inline(f'{verb.capitalize()} all of them')}]"
    yield f"    words: [{inline(_asked(tool, settle=settle))}]"
    yield from (f"    {line}" for line in asking if settle and tool.asked_about)
    yield f"    examples: [{inline(_prompt(tool, settle=settle))}]"


def _block(tool: DraftedTool, *, settle: bool) -> Iterator[str]:
    declared = tool.declared
    yield f"  {inline(declared.name)}:"
    if not tool.intent and declared.description:
        yield f"    # Its own words: {_quoted(declared.description, 110)}"
    yield _noted(f"    effect: {tool.effect}", "CHECK", tool.why + "; read, write, egress or destructive?")
    yield f"    needs: {f'[{tool.intent}]' if tool.intent else 'any'}"
    yield f"    definition: {declared.definition}"
    yield "    redeem: wrapper"
    decided = [a for a in tool.args if a.rule is not None]
    if decided:
        yield "    args:"
    elif tool.args:
        yield _noted("    args: {}", "DECIDE", "no argument is decided; write those below here")
    for a in decided:
        yield _noted(f"      {inline(a.name)}: {inline(a.rule)}", "CHECK", a.note)
    for a in tool.args:
        if a.rule is None:
            until = "Until then every call is refused." if a.always else "Until then a call with it is refused."
            yield f"      # DECIDE: {visible(a.name, 80)}: {a.note}{'' if a.note.endswith('?') else '.'} {until}"
            if a.proposal:
                yield f"      # {a.proposal}"
    del settle
