"""Compares two versions of a workflow and makes the reviewer's report of the change: that of
``agentgate workflow diff``.

Rules: each field that no program compares is a row with its value in both versions, or is named
in the one line of what decides nothing (titles, owners, the order of a list, a word less); of a
first version, all is. Where the words of an intent grew, the row shows a prompt that has it now
and did not have it, as the deriver reads both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any

from agentgate.diff import ENGINE, Finding, compare
from agentgate.diff.arguments import describe_rule, shown_value
from agentgate.errors import WorkflowError
from agentgate.explain.listing import conditions
from agentgate.loading.source import WorkflowText, find, lend_roles
from agentgate.review.report.changes import (
    Change,
    Changes,
    as_json,
    comment,
    page,
    plain,
    unified,
)
from agentgate.review.report.report import ExitStatus, Line
from agentgate.review.report.signers import still_to_sign
from agentgate.review.report.witness import Witness, witness
from agentgate.review.scenarios.scene import readings
from agentgate.review.scenarios.testfile import read_tests, tests_of
from agentgate.values.patterns import Glob, Pattern
from agentgate.values.value_class import Json, Names, Values, value_class
from agentgate.workflow.clauses.conditions import Hours
from agentgate.workflow.model import ANY, NONE, Intent, Tool, Workflow
from agentgate.workflow.rule import Fact, Rule


@value_class
class DiffReport:
    """What a proposed version permits that the approved one did not. `compared`: which two, in
    words.
    """

    changes: Changes
    compared: str

    @property
    def status(self) -> ExitStatus:
        """Whether a person must look."""
        return ExitStatus.LOOK if self.changes.looks else ExitStatus.YES

    def text(self, width: int) -> Iterator[Line]:
        """See `Report`."""
        return plain(self.changes, width)

    def to_json(self) -> Json:
        """See `Report`."""
        return as_json(self.changes)

    def to_markdown(self) -> Iterator[str]:
        """See `Report`."""
        return comment(self.changes)

    def to_html(self) -> str:
        """See `Report`."""
        return page([self.changes], subtitle=self.compared)


def compare_versions(old: str, new: str) -> DiffReport:
    """Compare two versions, each a file or ``REV:path``.

    Raises:
        ConfigError: one of them is not there.
        WorkflowError: one of them does not load.
    """
    before, after, notes = lend_roles(find(old), find(new))
    changes = changes_between(before, after)
    changes = changes_between(before, after, still_to_sign(before, after, changes))
    return DiffReport(replace(changes, notes=(*changes.notes, *notes)), f"{old} → {new}")


_FOR_PEOPLE = {"title", "owners"}
# of any other value: where it stands, and what it is called
_UNSAID = frozenset({"line", "name"})
_ONCE = {"run", "who", "where"}
# conditions on the run itself, the same for every workflow
_HIDDEN = {"run run", "workflow version"}
_HOW = ("Please {}", "Please {} it", "{} it", "Please {} ORD-10023344", "{}")


def rows(
    old: Workflow, new: Workflow, differs: Mapping[str, tuple[Any, Any]]
) -> tuple[tuple[Change, ...], Names]:
    """What is left to read, as rows; and what differs and decides nothing, in words."""
    told = []
    idle = []
    for path, (before, after) in differs.items():
        if path in _FOR_PEOPLE:
            idle.append(f"{path} ({text(before)} -> {text(after)})")
        elif path.endswith(".words") and after and set(after) < set(before or ()):
            idle.append(f"{path} (without {text(tuple(w for w in before if w not in after))})")
        elif (
            isinstance(before, tuple)
            and isinstance(after, tuple)
            and sorted(map(text, before)) == sorted(map(text, after))
        ):
            idle.append(f"{path} (another order)")
        else:
            told.append(Change(path, text(before), text(after), _effect(old, new, path)))
    return tuple(told), tuple(idle)


def _effect(old: Workflow, new: Workflow, path: str) -> str:
    """What a difference means for a prompt, where it is one of an intent's words."""
    block, _, rest = path.partition(".")
    name, _, key = rest.partition(".")
    if block != "intents" or name not in new.intents:
        return ""
    before = old.intents[name].words if name in old.intents else ()
    more = [word for word in new.intents[name].words if word not in before]
    examples = new.intents[name].examples
    swapped = (
        e.replace(known, word)
        for word in more
        for e in examples
        for known in before
        if known in e
    )
    offered = chain(
        examples if name not in old.intents else (),
        swapped,
        (how.format(word) for word in more for how in _HOW),
    )
    for prompt in offered if key in {"", "words"} else ():
        now = _presence(new, name, prompt)
        if now == "present" and _presence(old, name, prompt) != "present":
            return f"now asked for by: {prompt}"
    return ""


def _presence(workflow: Workflow, intent: str, prompt: str) -> str:
    found = readings().intents(workflow, (prompt,)).get(intent)
    return found.presence if found else "absent"


def first(workflow: Workflow) -> Iterator[Change]:
    """A first version, whole: who, for whom, where and when, what may be asked, and each tool
    with its arguments, limits and people.
    """
    if workflow.observe:
        yield Change(
            "mode",
            "",
            "observe",
            "a refused call runs its tool, without a token, a credential or facts",
        )
    yield Change(
        "title", "", workflow.title, f"risk {workflow.risk}, owners {text(workflow.owners)}"
    )
    yield from (
        Change(c.field, "", c.expected)
        for c in conditions(workflow, None)
        if c.about in _ONCE and c.key not in _HIDDEN
    )
    for intent in workflow.intents.values():
        yield Change(f"intents.{intent.name}", "", text(intent), _samples(intent))
    for tool in workflow.tools.values():
        yield from _tool(workflow, tool)
    yield Change("token", "", workflow.token.words)


def added(workflow: Workflow, tool: str) -> Names:
    """A new tool in words: a line each for what it is, its arguments and its limits."""
    return tuple(f"{row.where}: {row.new}" for row in _tool(workflow, workflow.tools[tool]))


def _tool(workflow: Workflow, tool: Tool) -> Iterator[Change]:
    asked = {ANY: "for whatever is asked", NONE: "without any request"}
    needs = " or ".join(asked.get(name, f"for intent {name}") for name in tool.needs)
    given = (
        f", with a credential of {tool.upstream.broker} ({text(tool.upstream.settings)})"
        if tool.upstream
        else ""
    )
    yield Change(
        tool.name,
        "",
        f"{tool.effect}, {needs}{given}",
        f"its token grants {text(tool.scope or (tool.name,))}",
    )
    if tool.title:
        yield Change(
            f"{tool.name}: title",
            "",
            tool.title,
            "what a person reads who is asked about a call",
        )
    for rule in tool.args.values():
        yield Change(
            f"{tool.name}: args.{rule.name}",
            "",
            describe_rule(rule) + ("" if rule.sources else ", from anywhere"),
        )
    for fact in tool.facts.values():
        yield Change(f"{tool.name}: facts.{fact.name}", "", text(fact))
    for condition in conditions(workflow, tool):
        if condition.about in {"order", "person", "limit"}:
            where = {"order": "sequence", "limit": "limits"}.get(
                condition.about, condition.field
            )
            yield Change(f"{tool.name}: {where}", "", condition.expected)


def _samples(intent: Intent) -> str:
    yes = f"asked for by: {intent.examples[0]}" if intent.examples else ""
    no = f"not by: {intent.counter_examples[0]}" if intent.counter_examples else ""
    return "; ".join(filter(None, (yes, no)))


def text(value: Any) -> str:
    """A value of a workflow for a reader, whole."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Rule):
        return describe_rule(value)
    if isinstance(value, Hours):
        return value.window
    if isinstance(value, Pattern | Glob):
        return value.source
    if isinstance(value, Intent):
        return f"{value.asks_for} words: {text(value.words) or 'none, a model reads it'}"
    if isinstance(value, Fact):
        path = f", at {'.'.join(value.path)}" if value.path not in {(), (value.name,)} else ""
        where = (
            f", where {', '.join(f'{fact} is {argument}' for fact, argument in value.where)}"
            if value.where
            else ""
        )
        named = (", only what the user named" if value.named else "") + (
            f", only in rows that the user names by {', '.join(value.named_by)}"
            if value.named_by
            else ""
        )
        return f"{value.type}{path}{where}{named}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(inner)}" for key, inner in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(text, value))
    if is_dataclass(value) and not isinstance(value, type):
        shown = [
            (f.name, getattr(value, f.name)) for f in fields(value) if f.name not in _UNSAID
        ]
        return ", ".join(f"{name}: {text(inner)}" for name, inner in shown if inner)
    return str(value)


_LONGEST = 160  # characters of a reason
_ENGINE = f"agentgate diff engine {ENGINE}"
_GONE = "the workflow is gone: every call of it is refused"


def changes_between(
    old: WorkflowText | None, new: WorkflowText | None, signers: Names = ()
) -> Changes:
    """Compare the approved version (None: the workflow is new) with the proposed one (None: it
    is removed).

    `signers`: who must still sign, in words. Raises WorkflowError: one of them does not load.
    """
    before, after = (source.workflow() if source else None for source in (old, new))
    texts = [source.text if source else "" for source in (old, new)]
    names = [source.name if source else "/dev/null" for source in (old, new)]
    bases = (base_of(source) for source in (new, old) if source)
    base = next((each for each in bases if each is not None), None)
    return told(
        before,
        after,
        signers,
        lines=unified(texts[0], texts[1], (names[0], names[1])),
        base=base,
    )


def base_of(source: WorkflowText) -> Values | None:
    """The base call of the test file beside a workflow; None where there is none, or it cannot
    be read.
    """
    try:
        return (
            read_tests(source.tests, str(tests_of(source.path))).stated
            if source.tests is not None
            else None
        )
    except WorkflowError:
        return None


def told(
    before: Workflow | None,
    after: Workflow | None,
    signers: Names = (),
    *,
    lines: Names = (),
    base: Values | None = None,
) -> Changes:
    """Compare two loaded versions; see `changes_between`. `base`: the call that witnesses
    change as little as possible.
    """
    left = after or before
    if not left:
        raise ValueError("nothing to compare")
    was, now = (f"v{each.version}" if each else "nothing" for each in (before, after))
    report = Changes(
        left.id,
        was,
        now,
        about=(
            ("risk", left.risk),
            ("tenants", ", ".join(left.tenants)),
            ("last day", left.expires.isoformat()),
        ),
        signers=signers,
        lines=lines,
        engine=_ENGINE,
        digest=left.digest,
    )
    if not before:
        return replace(report, wider=tuple(first(left)))
    if not after:
        return replace(report, narrower=(Change("the workflow", "", "", _GONE),))
    diff = compare(before, after)
    more = [witness(before, after, finding, base) for finding in diff.wider]
    less = [witness(after, before, finding, base) for finding in diff.narrower]
    shown = [each for each in more if not each.reason]
    lines_of = [
        added(after, each.finding.tool) if each.finding.field == "tool" else ()
        for each in shown
    ]
    read, idle = rows(
        before,
        after,
        {path: diff.differs.get(path, (None, None)) for path in diff.read_yourself},
    )
    return replace(
        report,
        wider=tuple(sorted(map(_change, shown, lines_of), key=_weight)),
        narrower=tuple(_change(each, wider=False) for each in less),
        read_yourself=(
            *(_change(each) for each in more if each.reason),
            *sorted(read, key=_weight),
        ),
        alike=tuple(
            Change(path, text(diff.differs[path][0]), text(diff.differs[path][1]))
            for path in diff.same_calls
        ),
        idle=idle,
        notes=(f"two different workflows are compared: {before.id} and {after.id}",)
        if before.id != after.id
        else (),
    )


_HEAVY = (
    "mode args. step_up intents needs limits effect tool facts who".split()
)  # what an attacker would change first
_PAID = tuple(".from .any_call .at_most .max .pattern .entities".split())


def _weight(change: Change) -> tuple[int, int, bool]:
    """Worst first: calls that need no person, then calls that need one, then what no call
    shows; in these, payees and origins first.
    """
    field = change.where.rpartition(": ")[2]
    kind = (
        -1
        if field == "mode"
        else 2
        if not change.answers[1]
        else 0
        if change.answers[1] == _ALLOWED
        else 1
    )
    return (
        kind,
        next((n for n, head in enumerate(_HEAVY) if field.startswith(head)), len(_HEAVY)),
        not field.endswith(_PAID),
    )


_ALLOWED = "allowed"


def _change(found: Witness, lines: Names = (), *, wider: bool = True) -> Change:
    """A finding with the call that the engine answered differently, in the engine's words; a
    limit or a lifetime has no such call.

    Of what is no longer permitted (not `wider`), the older version allows the call, or asks
    fewer people for it. Where no call shows it, the reason stands there: the diff compares
    fields one by one, and other fields may block every such call.
    """
    finding = found.finding
    change = Change(
        f"{finding.tool}: {finding.field}" if finding.tool else finding.field,
        finding.old,
        finding.new,
        finding.effect,
    )
    if found.reason:
        why = found.reason[:_LONGEST]
        none = (
            f"no call shows that it permits more: {why}"
            if wider
            else f"{finding.effect} (no call shows it: {why})"
        )
        return replace(change, effect=none)
    if not found.scene or found.changes is None:
        return replace(change, lines=lines)
    answers = (found.before, found.after) if wider else (found.after, found.before)
    call = tuple((key, _value(old), _value(new)) for key, (old, new) in found.changes.items())
    values = found.scene.values
    whole = tuple(
        (key, _value(values[key]))
        for key in values
        if key in {"prompt", "call"} or key.startswith("args.")
    )
    was, would = (answer.partition(":")[0] for answer in answers)  # without its reasons
    effect = f"was {was}, would be {would}"
    return replace(
        change,
        example=_example(finding, call),
        call=call,
        whole=whole,
        answers=answers,
        effect=effect,
        lines=lines,
    )


def _example(finding: Finding, call: tuple[tuple[str, str, str], ...]) -> str:
    """The changed value of the call that the finding is about, or else the first one, by its
    name; empty: the base call shows it.
    """
    about = next(
        (value for key, _, value in call if f"{finding.field}.".startswith(f"{key}.")), None
    )
    return (
        shown_value(about)
        if about is not None
        else next((f"{key}: {shown_value(value)}" for key, _, value in call), "")
    )


def _value(value: Any) -> str:
    return (
        "(left out)"
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, default=str)
    )
