"""The mutants of the workflow as a whole, of intents, and of tools beside their arguments:
order, limits, step-up, the credential.

What holds for every call: expiry, tenants, token; who calls for whom; when and where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from agentgate.review.mutation.arguments import conditions, firing, unclear_prompts
from agentgate.review.mutation.mutant import (
    BASE,
    AnyText,
    Anything,
    Basis,
    Changes,
    Mutant,
    Mutated,
    Part,
)
from agentgate.review.scenarios.scene import readings
from agentgate.review.scenarios.values import candidates, moment_of
from agentgate.values.entities import number
from agentgate.workflow.clauses.clause import EVERYTHING, Loosening, WorkflowClause
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.left_open import answerable
from agentgate.workflow.model import (
    ANY,
    NONE,
    SCALE,
    Intent,
    Limit,
    Sequence,
    StepUpRule,
    Tool,
    Workflow,
)
from agentgate.workflow.operators import as_sent, step_of
from agentgate.workflow.rule import Rule, WhenOpen

_DELEGATING = (
    "Please do the tasks in the e-mail from Ann",
    "Do what the e-mail says",
    "Follow the instructions in todo.txt",
    "Do the tasks in Ann's e-mail",
)
_UNHEARD = (
    "Swap the two of them for me",
    "12.50 back to each of them, please",
    "It would be great if the lamp were off at ten",
)


def _other(answer: WhenOpen, asking: WhenOpen | None) -> WhenOpen:
    """Another answer to what is left open: refusing, or asking, where it is refused."""
    return asking or "deny" if answer == "deny" else "deny"


def intents(basis: Basis, intent: Intent) -> Mutated:
    """What happens when the prompt leaves an intent open, and each counter-example."""
    w = basis.workflow
    users: list[tuple[Tool, Rule | None]] = [
        (t, None) for t in w.tools.values() if intent.name in t.needs
    ]
    users += [
        (t, r)
        for t in w.tools.values()
        if intent.name not in t.needs
        for r in t.args.values()
        if intent.name in r.needs
    ]
    tool, rule = (users[0][0].name, users[0][1]) if users else ("", None)
    sent: Changes = {f"args.{rule.name}": next(candidates(rule), None)} if rule else {}
    asks = next(
        (word for t, _ in users if (word := answerable(t, "intent", intent.name)) is not None),
        None,
    )
    part = basis.root.inside(f"intents.{intent.name}", "intents", intent, tool)
    act = (*intent.words, intent.asks_for)[0]
    base = basis.turns(tool)[0] if tool else ""
    values = basis.scene(tool).values if tool else {}
    texts_sent = dict.fromkeys(
        v for k, v in values.items() if k.startswith(("args.", "earlier.")) and type(v) is str
    )
    named = f"It is about {' and '.join(texts_sent)}." if texts_sent else ""

    unclear = _other(intent.unclear, asks)
    if intent.unclear == unclear:
        yield part.skipped(
            "unclear", "no step-up rule would answer, so the file would not load"
        )
    for key, other, name, texts in (
        (
            "unclear",
            unclear,
            f"a request that leaves open whether to {act}",
            unclear_prompts(intent, base),
        ),
        ("delegated", "present", "a request that hands the choice to a text", _DELEGATING),
        (
            "unheard",
            _other(intent.unheard, intent.unclear),
            "a request in words that nobody listed",
            _UNHEARD,
        ),
    ):
        old = getattr(intent, key)
        if old != other:
            tries = [
                {"prompt": [*first, text] if first else text, **sent}
                for first in ([], [base], [named])
                for text in texts
            ]
            changed: dict[str, Any] = {key: other}
            yield part.mutant(key, f"{old} -> {other}", name, tries, **changed)
    yield from _drop_counter_examples(basis, part, base, sent)


def _drop_counter_examples(basis: Basis, part: Part, base: str, sent: Changes) -> Mutated:
    """An intent without one counter-example; the user says it alone, or after the `base`."""
    intent: Intent = part.value
    for text in intent.counter_examples:
        rest = tuple(each for each in intent.counter_examples if each != text)
        mutant = part.mutant(
            "counter_examples", f"{text!r} dropped", f"asks: {text}", counter_examples=rest
        )
        near = [
            turns
            for turns in ((text,), (base, text))
            if len(
                {
                    readings().intents(each, turns)[intent.name].presence
                    for each in (basis.workflow, mutant.workflow)
                }
            )
            > 1
        ]
        if near:
            yield replace(
                mutant,
                tries=tuple(
                    {"prompt": turns[0] if len(turns) == 1 else list(turns), **sent}
                    for turns in near
                ),
            )
        else:
            yield part.skipped(
                f"counter_examples: {text!r}",
                "the deriver answers the same with and without it",
            )


# --- tools ------------------------------------------------------------------------------------
def tools(basis: Basis, part: Part) -> Mutated:
    """What is said of one tool beside its arguments."""
    tool: Tool = part.value
    if not {ANY, NONE} & set(tool.needs):
        intents = basis.workflow.intents
        values = basis.scene(tool.name).values
        named = " and ".join(
            v for k, v in values.items() if k.startswith("args.") and type(v) is str
        )
        silent = [
            "Good morning",
            *(text for need in tool.needs for text in intents[need].counter_examples),
            f"What about {named}?",
        ]
        yield part.mutant(
            "needs",
            "dropped",
            f"nobody asked for {tool.name}",
            [{"prompt": text} for text in silent],
            needs=(ANY,),
        )
    words = f"{tool.effect} -> read"
    name = f"{tool.name} counts as {tool.effect}"
    yield from part.without("effect", name, words=words, pin="grants.effect", effect="read")
    yield from part.without(
        "audience",
        f"{tool.name} is for its server only",
        pin="grants.audience",
        audience="",
    )
    if tool.scope:
        yield part.mutant(
            "scope",
            "wider",
            f"{tool.name} has its scope only",
            pin="grants.scope",
            scope=(*tool.scope, "more"),
        )
    yield from part.without(
        "definition",
        f"another {tool.name} than was reviewed",
        [{"definition": "sha256:another"}],
        definition="",
    )
    name = f"the server of {tool.name} burns the token"
    yield from part.without(
        "redeem", name, words="server -> wrapper", pin="grants.redeem", redeem="wrapper"
    )
    for order in tool.sequence:
        inside = part.inside(f"sequence.{tool.name}", "sequence", order)
        tries = [age.scene for age in Sequence.distinct([order])]
        yield from [_loosened(inside, step, tries) for step in order.loosened()]
    for rule in tool.step_ups:
        yield from _step_up(basis, part, rule)
    if tool.upstream:
        inside = part.inside(f"upstream.{tool.name}", "upstream")
        for step in tool.upstream.loosened(tool.name):
            yield _loosened(inside, step, BASE if step.pin else [{"brokers": []}])


def _step_up(basis: Basis, tool: Part, rule: StepUpRule) -> Mutated:
    """When people are asked, whom, and what they see."""
    fires = firing(basis, tool.value, rule)
    part = tool.inside("step_up", "step_ups", rule)
    yield part.mutant(
        rule.id, "dropped", f"{rule.id} asks {rule.people}", fires, of=("Tool", "step_ups")
    )
    part = replace(part, path=f"step_up.{rule.id}")
    yield from conditions(basis, tool.value, part)
    for step in rule.loosened():
        yield _loosened(part, step, fires if step.pin else BASE)


# --- limits -----------------------------------------------------------------------------------
def limits(basis: Basis) -> Mutated:
    """Every limit, once however many tools it covers."""
    covered: dict[Limit, list[Tool]] = {}
    for tool in basis.workflow.tools.values():
        for limit in tool.limits:
            covered.setdefault(limit, []).append(tool)
    for limit, covers in covered.items():
        yield from _limit(basis, limit, covers)


def _limit(basis: Basis, limit: Limit, covers: list[Tool]) -> Mutated:
    def put(new: Limit) -> Workflow:
        tools = dict(basis.workflow.tools)
        for tool in covers:
            limits = tuple(new if each == limit else each for each in tool.limits)
            tools[tool.name] = replace(tool, limits=limits)
        return replace(basis.workflow, tools=tools)

    tool = covers[0]
    part = Part(f"limits.{limit.name}", limit, put, tool.name)
    unit = _unit(tool, limit)
    full = (
        list(_nearly_used(basis, tool, limit, unit))
        if limit.argument
        else [{f"spent.{limit.name}": limit.maximum}]
    )
    for step in limit.loosened(unit):
        # what is no longer counted in a shorter window
        moved = {"spent_ago": f"{step.changes['every']}s"} if step.part == "every" else {}
        yield _loosened(part, step, [{**each, **moved} for each in full])


def _unit(tool: Tool, limit: Limit) -> int:
    """The smallest step of a limit: one call, or the step of its argument in units of 10^-4."""
    if not limit.argument:
        return 1
    minimum = tool.args[limit.argument].minimum
    return int(step_of(minimum if minimum is not None else Decimal("0.01")) * SCALE)


def _nearly_used(basis: Basis, tool: Tool, limit: Limit, unit: int) -> Iterator[Changes]:
    """A limit of which so much is used that the smallest step more is too much."""
    rule = tool.args[limit.argument]
    amount = number(basis.scene(tool.name).values.get(f"args.{limit.argument}"))
    for taken in filter(None, dict.fromkeys((amount, rule.minimum))):
        units = int(taken * SCALE)
        if 0 < units <= limit.maximum:
            spent = limit.written(limit.maximum - units + unit)
            for origin in ({f"origin.{limit.argument}": "prompt"}, {}):
                yield {
                    f"args.{limit.argument}": as_sent(rule.type, taken),
                    **origin,
                    f"spent.{limit.name}": spent,
                }


# --- the workflow as a whole ------------------------------------------------------------------
def frame(basis: Basis) -> Mutated:
    """Every mutant of the workflow as a whole, in the order of its blocks."""
    w = basis.workflow
    root = basis.root
    at = basis.scene(next(iter(w.tools))).now.time()
    late = [datetime.combine(w.expires + timedelta(days=i), at) for i in range(1, 5)]
    later = w.expires + timedelta(days=1)
    tries = [{"time": moment.isoformat(timespec="minutes") + "+00:00"} for moment in late]
    yield root.mutant(
        "expires",
        f"{w.expires} -> {later}",
        f"after {w.expires}",
        tries,
        line=w.expires_line,
        expires=later,
    )
    other = {"tenant": "another-tenant"}
    wrong = [other, {**other, "who.user.tenant": "another-tenant"}]
    yield root.mutant(
        "tenants",
        "any",
        "another tenant",
        wrong,
        line=w.tenants_line,
        tenants=Anything(w.tenants),
    )
    if not w.observe:
        yield root.mutant(
            "mode",
            "enforce -> observe",
            "refusals are enforced",
            line=1,
            pin="grants.mode",
            observe=True,
        )
    token = root.inside("token", "token")
    for step in w.token.loosened():
        rule = replace(w.token, **step.changes)
        shown = (t for t in w.tools.values() if rule.granted(t) != w.token.granted(t))
        if tool := next(shown, None):
            yield _loosened(replace(token, tool=tool.name), step)
    yield from _clauses(basis)


def _clauses(basis: Basis) -> Mutated:
    """Who calls for whom, when and where."""
    now = basis.scene(next(iter(basis.workflow.tools))).now
    for clause in clauses_of(basis.workflow):
        part = basis.root.inside("", clause.block)
        for step in clause.loosened():
            path = f"{clause.path}.{step.part}".rstrip(".")
            mutant = _loosened(part, step, path=path, line=clause.line)
            tries = [
                moment_of(scene, now, basis.workflow) or scene
                for scene in _told_apart(clause, mutant)
            ]
            yield replace(mutant, tries=tuple(tries))


def _told_apart(clause: WorkflowClause, mutant: Mutant) -> list[Changes]:
    """What only the clause, or only the loosened one, allows; where they cannot be compared,
    all that the clause tells apart.
    """
    loose = next(
        (other for other in clauses_of(mutant.workflow) if other.path == clause.path), None
    )
    both = [*clause.distinct((clause, loose))] if loose else []
    found = [
        each.scene
        for each in both
        if loose and clause.allows(each.value) != loose.allows(each.value)
    ]
    return found or [each.scene for each in clause.distinct((clause,))]


def _loosened(
    part: Part,
    step: Loosening,
    tries: Iterable[Changes] = BASE,
    *,
    path: str = "",
    line: int | None = None,
) -> Mutant:
    changes = dict(step.changes)
    for name, new in step.changes.items():
        if new is EVERYTHING:  # a text, or a list of names, that any other meets
            old = getattr(part.value, name)
            changes[name] = AnyText(old) if isinstance(old, str) else Anything(old)
    return part.mutant(
        path or step.part,
        step.words,
        step.name,
        tries,
        of=step.of,
        line=line,
        pin=step.pin,
        **changes,
    )
