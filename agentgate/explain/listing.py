"""The conditions of a workflow, one by one: everything that must hold before one of its tools
is minted for.

Rules: this module names conditions and decides nothing. `agentgate.decision.decide` says which
hold; a `Failure` carries the key of its condition, or names it by its field. A condition behind
others (`after`) is not checked when one of those fails. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Literal

from agentgate.values.entities import written
from agentgate.values.refusal import Failure, Reason
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.clauses.clause import WorkflowClause
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.model import ANY, NONE, Limit, Sequence, StepUpRule, Tool, Workflow
from agentgate.workflow.rule import Rule

About = Literal[
    "run",
    "who",
    "where",
    "tool",
    "argument",
    "origin",
    "intent",
    "order",
    "person",
    "limit",
    "store",
]

AT_MINT: frozenset[About] = frozenset({"limit", "store"})  # known only to the store, at mint


@value_class
class Condition:
    """One condition of a workflow for one of its tools."""

    about: About  # what kind of thing it checks
    field: str  # what it checks, as a `Failure` names it
    # the key of the workflow file that sets it (``pattern``, ``at_most``, ``from``, ...); with
    # `field` unique
    word: str
    expected: str  # what would hold, as text
    line: int  # line of its rule; 0 where the file has none
    reasons: frozenset[Reason]  # the reasons a failure of it may have
    argument: str = ""  # the argument it is about, or empty
    # `key` of the conditions that must hold before this one is checked
    after: frozenset[str] = frozenset()
    # the rule of the argument, the clause, the step-up rule or the limit behind it
    rule: Rule | WorkflowClause | Sequence | StepUpRule | Limit | None = None

    @property
    def key(self) -> str:
        """Its name within one tool."""
        return f"{self.field} {self.word}"


Conditions = Iterator[Condition]


def matching(failure: Failure, listed: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """The condition that a failure is of, by the key it carries or else by its field; none
    where no rule of the workflow says it.
    """
    return tuple(
        [
            c
            for c in listed
            if failure.reason in c.reasons
            and (failure.condition or failure.field) in {c.key, c.field}
        ][:1]
    )


def conditions(workflow: Workflow, tool: Tool | None) -> tuple[Condition, ...]:
    """Every condition a call of this tool must meet, in the order of the checks; None: a tool
    that is not of this workflow.
    """
    listed = [*_run(workflow), *_clauses(workflow)]
    known = ", ".join(workflow.tools)
    listed.append(
        _of(
            "tool",
            "tool",
            "tools",
            f"one of {known}",
            tool.line if tool else 0,
            Reason.TOOL_UNKNOWN,
        )
    )
    if tool:
        arguments = chain.from_iterable(map(_argument, tool.args.values()))
        listed += [*_tool(tool), *arguments, *_together(tool), *_call(workflow, tool)]
    return tuple(listed)


def _of(
    about: About,
    field: str,
    word: str,
    expected: str,
    line: int,
    *reasons: Reason,
    rule: Sequence | StepUpRule | Limit | None = None,
) -> Condition:
    return Condition(about, field, word, expected, line, frozenset(reasons), rule=rule)


_VERSION = (
    Reason.WORKFLOW_CHANGED,
    Reason.WORKFLOW_UNKNOWN,
    Reason.APPROVAL_EXPIRED,
    Reason.TWO_VERSIONS,
)


# --- the run and who it is for ----------------------------------------------------------------
def _run(workflow: Workflow) -> Conditions:
    opened = (
        Reason.RUN_CLOSED,
        Reason.TOO_MANY_DENIALS,
        Reason.RUN_MISSING,
        Reason.RUN_EXPIRED,
    )
    yield _of("run", "run", "run", "an open run within its lifetime", 0, *opened)
    in_force = f"{workflow.id} {workflow.digest}, in force now"
    yield _of("run", "workflow", "version", in_force, 0, *_VERSION)
    yield _of(
        "run",
        "expires",
        "expires",
        f"not after {workflow.expires}",
        workflow.expires_line,
        Reason.WORKFLOW_EXPIRED,
    )
    yield _of(
        "run",
        "tenant",
        "tenants",
        "one of " + ", ".join(workflow.tenants),
        workflow.tenants_line,
        Reason.TENANT,
    )


def _clauses(workflow: Workflow) -> Conditions:
    for clause in clauses_of(workflow):
        after = frozenset([f"{clause.after.field} {clause.after.key}"] if clause.after else ())
        about: About = "where" if clause.block == "conditions" else "who"
        reasons = frozenset({clause.reason})
        expected = clause.expected_under(workflow)
        yield Condition(
            about,
            clause.field,
            clause.key,
            expected,
            clause.line,
            reasons,
            after=after,
            rule=clause,
        )


# --- the tool and its arguments ---------------------------------------------------------------
def _tool(tool: Tool) -> Conditions:
    if tool.definition:
        field = f"tools.{tool.name}.definition"
        yield _of(
            "tool", field, "definition", tool.definition, tool.line, Reason.TOOL_DEFINITION
        )
    if tool.upstream:
        expected = f"broker {tool.upstream.broker}, configured"
        yield _of(
            "tool",
            f"upstream.{tool.name}.broker",
            "upstream",
            expected,
            tool.upstream.line,
            Reason.UPSTREAM,
        )
    known = "no argument but " + ", ".join(tool.args) if tool.args else "no argument"
    yield _of("argument", "args", "args", known, tool.line, Reason.ARGUMENT_UNKNOWN)


def _of_rule(
    rule: Rule,
    about: About,
    word: str,
    expected: str,
    *reasons: Reason,
    after: frozenset[str] = frozenset(),
) -> Condition:
    return Condition(
        about,
        f"args.{rule.name}",
        word,
        expected,
        rule.line,
        frozenset(reasons),
        rule.name,
        after,
        rule,
    )


def _argument(rule: Rule) -> Conditions:
    field = f"args.{rule.name}"
    one = partial(_of_rule, rule)
    if not rule.optional:
        yield one("argument", "required", "a value", Reason.ARGUMENT_MISSING)
    missing = frozenset({f"{field} required"})
    form = f"a list of {rule.type}" if rule.max_items else written(rule.type)
    yield one("argument", "type", form, Reason.ARGUMENT_FORM, after=missing)
    before = formed = missing | {f"{field} type"}
    stated = [(operator.key, operator.expected) for operator in rule.operators]
    if rule.max_items:
        stated.insert(0, ("max_items", f"at most {rule.max_items} elements"))
    for word, expected in stated:
        # the first that fails is the one reported
        yield one("argument", word, expected, Reason.ARGUMENT_VALUE, after=before)
        before |= {f"{field} {word}"}
    if rule.needs:
        yield one(
            "intent",
            "needs",
            " or ".join(rule.needs),
            Reason.INTENT_ABSENT,
            Reason.INTENT_UNCLEAR,
            after=formed,
        )
    if rule.role:
        yield one(
            "argument",
            "narrower_than_role",
            f"a strict subset of role {rule.role}",
            Reason.ROLE,
            after=formed,
        )
    if rule.at_most:
        yield one(
            "origin",
            "at_most",
            f"at most {rule.at_most} of an earlier call",
            Reason.AT_MOST,
            after=formed,
        )
    if rule.sources:
        yield one(
            "origin",
            "from",
            "a value from " + " or ".join(map(str, rule.sources)),
            Reason.ARGUMENT_ORIGIN,
            after=formed,
        )
    if rule.entities is not None:
        yield one(
            "origin",
            "entities",
            "found in " + " or ".join(map(str, rule.entities)),
            Reason.ENTITY_ORIGIN,
            after=before,
        )


def _together(tool: Tool) -> Conditions:
    """One call, one source: not checked until every reference can be met by itself."""
    if not tool.sequence and not any(
        rule.references and not rule.any_call for rule in tool.args.values()
    ):
        return
    after = {
        f"args.{r.name} {word}" for r in tool.args.values() for word in ("from", "at_most")
    }
    after |= {f"{tool.name} require {n}" for n in range(len(tool.sequence))}
    expected = "all that refers to an earlier call of one tool is met by the same call and row"
    yield Condition(
        "origin",
        tool.name,
        "one source",
        expected,
        tool.line,
        frozenset({Reason.ONE_SOURCE}),
        after=frozenset(after),
    )


# --- what was asked, in what order, how much, who must look -----------------------------------
def _call(workflow: Workflow, tool: Tool) -> Conditions:
    if ANY not in tool.needs and (NONE not in tool.needs or workflow.intents):
        yield _of(
            "intent",
            "intent",
            "needs",
            " or ".join(tool.needs),
            tool.line,
            Reason.INTENT_ABSENT,
            Reason.INTENT_UNCLEAR,
        )
    for number, order in enumerate(tool.sequence):
        yield _of(
            "order",
            tool.name,
            f"require {number}",
            order.expected,
            order.line,
            Reason.SEQUENCE,
            rule=order,
        )
    yield from _step_ups(tool)
    for number, limit in enumerate(tool.limits):
        what = "sum of " if limit.argument else ""
        yield _of(
            "limit",
            "limits",
            f"limit {number}",
            f"{what}{limit.counted}: {limit.bound}",
            limit.line,
            Reason.LIMIT,
            Reason.ARGUMENT_VALUE,
            rule=limit,
        )
    yield _of(
        "store", "revocations", "revoked", "nothing of this call revoked", 0, Reason.REVOKED
    )
    ran = (Reason.ALREADY_REDEEMED, Reason.FAILED, Reason.OUTCOME_UNKNOWN)
    yield _of("store", "call", "once", "a call that did not run yet, or may run again", 0, *ran)


def _step_ups(tool: Tool) -> Conditions:
    """Who must look, and that they did."""
    for rule in tool.step_ups:
        open_ = [
            {"intent": "an unclear intent", "origin": "an unknown origin"}[kind]
            for kind in rule.left_open
        ]
        when = " and ".join([*open_, *[each.condition for each in rule.when]]) or "every call"
        yield _of(
            "person",
            f"step_up.{rule.id}",
            "step_up",
            f"{when}: {rule.yes}",
            rule.line,
            Reason.STEP_UP,
            rule=rule,
        )
    if tool.step_ups:
        answered = (Reason.STEP_UP, Reason.HOLD_REFUSED, Reason.HOLD_EXPIRED)
        yield _of(
            "store",
            "hold",
            "hold",
            "a release for exactly this call, where a person must look",
            0,
            *answered,
        )


def needs_of(condition: Condition, tool: Tool | None) -> Names:
    """The intents that a condition of a tool, or of one of its arguments, wants."""
    return (
        condition.rule.needs if isinstance(condition.rule, Rule) else tool.needs if tool else ()
    )
