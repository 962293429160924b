"""Why a call was decided as it was: every condition of its workflow with its verdict, and the origin of every value.

Rules: verdicts are those of `agentgate.checks`, never of a second evaluator. Two texts: `agent` is the closed code that a model
may see; all else is for a developer or an operator and must never reach a model. No token; sensitive values masked; control
characters escaped. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentgate.checks import Case, decide, required_holds
from agentgate.conditions import AT_MINT, Condition, conditions, matching
from agentgate.decision import Code, Deny, Eligible, Failure, Reason, RequiredHold
from agentgate.evidence import MASKED, Evidence, Origin
from agentgate.remedy import Remedy, looked_at, remedy
from agentgate.request import Call, RunState, Surroundings
from agentgate.workflow import Rule, StepUpRule, Workflow

Verdict = Literal["held", "failed", "asks", "not sent", "not reached", "at mint"]
Outcome = Literal["allow", "step_up", "deny"]
MEANING: Mapping[Verdict, str] = {
    "held": "it held",
    "failed": "it did not hold: the call is refused",
    "asks": "a person must say yes",
    "not sent": "an optional argument that the call leaves out",
    "not reached": "not looked at, because a condition before it did not hold",
    "at mint": "only the store knows, when it mints",
}
# What the store, a person or the gate itself answers after `decide` let a call through. Of `LIMIT`, only what names the field "limits".
LATER = frozenset(
    {
        Reason.LIMIT,
        Reason.ALREADY_REDEEMED,
        Reason.OUTCOME_UNKNOWN,
        Reason.HOLD_REFUSED,
        Reason.HOLD_EXPIRED,
        Reason.REVOKED,
        Reason.STORE,
        Reason.AUDIT,
    }
)


def plain(text: object) -> str:
    """One line of text that can do nothing to a terminal: what is not printable is escaped."""
    said = str(text)
    return said if said.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)


@dataclass(frozen=True, slots=True)
class Row:
    """One condition and what became of it.

    Attributes:
        got: what was found, masked if sensitive; empty where nothing was looked at.
        rule: ``file:line`` of the rule, or empty.
        origins: of an argument's value, one for each element of a list.
        would_pass: for what failed or asks: what would make it hold.
        failures: of `agentgate.checks` (or of the store), that say so.
    """

    condition: Condition
    verdict: Verdict
    got: str
    rule: str
    origins: tuple[Origin, ...] = ()
    would_pass: Remedy | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def expected(self) -> str:
        """What holds."""
        return self.condition.expected


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every condition that applies to one call.

    Attributes:
        decision: what the workflow decides; ``allow`` still needs what is known only to the store, at mint.
        code: the closed code that the agent sees; empty for an allowed call.
        workflow: id and version; `digest` and `file` are the definition's.
        owners: whom to ask about the rules.
        rows: the conditions, in the order of the checks.
        notes: what this explanation could not see.
    """

    decision: Outcome
    code: str
    tool: str
    tool_call_id: str
    workflow: str
    digest: str
    file: str
    owners: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def agent(self) -> str:
        """All that the model is told; empty when the call is allowed."""
        return f"agentgate: {self.code}" if self.code else ""

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that refuse the call or ask for a person."""
        return tuple(row for row in self.rows if row.verdict in {"failed", "asks"})

    @property
    def owner(self) -> str:
        """Whom to ask."""
        return ", ".join(self.owners) or "nobody is named"

    def __str__(self) -> str:
        return "\n".join(text_lines(self))


def explain(workflow: Workflow, run: RunState, call: Call, around: Surroundings, later: Sequence[Failure] = ()) -> Explanation:
    """Explain what `decide` answers to a call.

    Args:
        workflow: the workflow in force.
        run: the run as it was, or would be, decided on.
        call: the call.
        around: the decision time and what the gate itself knew.
        later: refusals that came after the decision: of the store, of a person, of the gate.
    """
    answer = decide(workflow, run, call, around)
    case = looked_at(workflow, run, call, around)
    holds = required_holds(case)
    denied = answer.failures if isinstance(answer, Deny) else ()
    forced = tuple(f for f in case.forced if f not in denied)
    evidence = Evidence(workflow, run, case.values, case.earlier)
    table = _Table(case, evidence, conditions(workflow, case.tool))
    table.put((*denied, *later), "failed")
    table.put(forced, "asks")
    for hold in holds:
        table.put_hold(hold)
    refusal = Deny((*denied, *later)) if denied or later else None
    outcome: Outcome = "deny" if refusal is not None else "step_up" if isinstance(answer, Eligible) and answer.holds else "allow"
    code = str(refusal.code) if refusal is not None else str(Code.NEEDS_APPROVAL) if outcome == "step_up" else ""
    return Explanation(
        outcome,
        code,
        call.tool,
        call.id,
        f"{workflow.id} v{workflow.version}",
        workflow.digest,
        workflow.file,
        workflow.owners,
        table.rows(),
    )


class _Table:
    """The rows of an explanation while they are filled."""

    def __init__(self, case: Case, evidence: Evidence, found: tuple[Condition, ...]) -> None:
        self._case, self._evidence, self._found = case, evidence, found
        self._failures: dict[str, list[Failure]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._others: list[tuple[Failure, Verdict]] = []

    def put(self, failures: Sequence[Failure], verdict: Verdict) -> None:
        """Give each failure to its condition; one that no condition of the workflow knows gets a row of its own."""
        for failure in failures:
            fit = matching(failure, self._found)
            if fit:
                self._failures.setdefault(fit[0].key, []).append(failure)
                if self._verdicts.get(fit[0].key) != "failed":
                    self._verdicts[fit[0].key] = verdict
            else:
                self._others.append((failure, verdict))

    def put_hold(self, hold: RequiredHold) -> None:
        """A step-up rule that fires, because of its own conditions or of what was forced."""
        key = f"step_up.{hold.rule.id} step_up"
        self._verdicts.setdefault(key, "asks")
        self._failures.setdefault(key, []).extend(hold.why)

    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order of the checks."""
        others = (
            Row(
                Condition("store", f.field, "gate", f.expected, 0, frozenset({f.reason})),
                verdict,
                f.got,
                f.rule,
                would_pass=Remedy(f.expected),
                failures=(f,),
            )
            for f, verdict in self._others
        )
        return (*map(self._row, self._found), *others)

    def _row(self, condition: Condition) -> Row:
        verdict, failures = self._verdict(condition), tuple(self._failures.get(condition.key, ()))
        got = "; ".join(dict.fromkeys(f.got for f in failures)) if failures else _got(condition, self._case, verdict)
        origins = self._evidence.of(condition.argument) if condition.word == "from" and verdict in {"held", "failed", "asks"} else ()
        way = None
        if verdict in {"failed", "asks"}:
            way = remedy(
                condition, failures[0].reason if failures and condition.about != "person" else Reason.STEP_UP, self._case, self._evidence
            )
        rule = f"{self._case.workflow.file}:{condition.line}" if condition.line else ""
        return Row(condition, verdict, got, rule, origins, way, failures)

    def _verdict(self, condition: Condition) -> Verdict:
        known = self._verdicts.get(condition.key)
        if known is not None:
            return known
        if condition.about in AT_MINT:
            return "not reached" if "failed" in self._verdicts.values() else "at mint"
        rule, name = condition.rule, condition.argument
        if name and name not in self._case.call.args and isinstance(rule, Rule) and rule.optional:
            return "not sent"
        behind = any(self._verdicts.get(key) == "failed" for key in condition.after)
        return "not reached" if behind else "held"


def _got(condition: Condition, case: Case, verdict: Verdict) -> str:
    """What stands where a condition that did not fail looked."""
    if verdict in {"not sent", "not reached", "at mint"}:
        return ""
    if condition.argument:
        value = case.values.get(condition.argument)
        return value.shown if value is not None else MASKED if isinstance(condition.rule, Rule) and condition.rule.sensitive else ""
    if condition.about == "intent":
        return intent_words(case)
    if isinstance(condition.rule, StepUpRule):
        return "nothing that it asks for"
    header, agent, around = case.run.header, case.run.header.agent, case.around
    user = header.user
    found: Mapping[str, object] = {
        "run": header.id,
        "workflow": f"{header.workflow} v{header.version}",
        "expires": f"{around.now:%Y-%m-%d}",
        "tenant": header.tenant,
        "user": "none" if user is None else f"{user.id} ({user.identity})",
        "user.tenant": "" if user is None else user.tenant,
        "user.groups": "" if user is None else ", ".join(user.groups),
        "agent": f"{agent.id} ({agent.identity})",
        "agent.spiffe": agent.spiffe,
        "agent.oidc.issuer": agent.issuer,
        "agent.via": ", ".join(agent.via) or "no hop",
        "environment": around.environment,
        "data_class": around.data_class,
        "network": around.network,
        "hours": f"{around.now:%a %H:%M %Z}",
        "tool": case.call.tool,
        "args": ", ".join(case.call.args) or "none",
    }
    if condition.field in found:
        return str(found[condition.field] if found[condition.field] is not None else "")
    if condition.field.startswith("agent.oidc.claims."):
        return str(agent.claims.get(condition.field.removeprefix("agent.oidc.claims."), ""))
    if condition.word == "definition":
        return case.call.definition
    return ""


def intent_words(case: Case) -> str:
    """Each intent the tool needs, what was derived of it and the evidence."""
    needs = case.tool.needs if case.tool is not None else ()
    found = ((name, case.run.intents[name]) for name in needs if name in case.run.intents)
    return "; ".join(f"{name} {d.presence}" + (f" ({d.evidence})" if d.evidence else "") for name, d in found)


# --- as text and as JSON ---------------------------------------------------------------------------------------------------
def text_lines(found: Explanation) -> list[str]:
    """The developer's text: what failed first and in full, then what held; plain, one line each."""
    lines = [f"{found.decision.upper()}  {found.tool}  {found.workflow} ({found.file})"]
    if found.agent:
        lines.append(f"the agent sees: {found.agent}")
    for row in found.failed:
        lines += ["", f"{row.verdict.upper()} {row.condition.field} ({row.condition.word})" + (f"  {row.rule}" if row.rule else "")]
        lines.append(f"  got       {row.got}")
        lines.append(f"  expected  {row.expected}")
        lines += [f"  origin    {origin.value}: {origin}" for origin in row.origins]
        if row.would_pass is not None:
            lines.append(f"  would pass with {row.would_pass.text}" + ("; then the whole call would" if row.would_pass.enough else ""))
    rest = [row for row in found.rows if row.verdict not in {"failed", "asks"}]
    lines += ["", *(_line(row) for row in rest)]
    lines += [f"note: {note}" for note in found.notes]
    lines.append(f"ask: {found.owner}")
    return [plain(line) for line in lines]


def _line(row: Row) -> str:
    origin = "; ".join(map(str, row.origins))
    said = f"{row.verdict:<11} {row.condition.field} ({row.condition.word}): {row.got or '-'} | {row.expected}"
    return said + (f" | {origin}" if origin else "") + (f"  {row.rule}" if row.rule else "")


def as_json(found: Explanation) -> dict[str, Any]:
    """The explanation as JSON values."""
    return {
        "decision": found.decision,
        "code": found.code,
        "tool": found.tool,
        "tool_call_id": found.tool_call_id,
        "workflow": found.workflow,
        "digest": found.digest,
        "file": found.file,
        "owners": list(found.owners),
        "conditions": [_row_json(row) for row in found.rows],
        "notes": list(found.notes),
    }


def _row_json(row: Row) -> dict[str, Any]:
    way = row.would_pass
    return {
        "field": row.condition.field,
        "condition": row.condition.word,
        "about": row.condition.about,
        "verdict": row.verdict,
        "got": row.got,
        "expected": row.expected,
        "rule": row.rule,
        "reasons": list(dict.fromkeys(str(f.reason) for f in row.failures)),
        "origins": [
            {
                "source": o.source,
                "allowed": o.allowed,
                "value": o.value,
                "words": o.words,
                "turn": o.turn,
                "start": o.start,
                "call": o.call,
                "row": o.row,
            }
            for o in row.origins
        ],
        "would_pass_with": None if way is None else {"text": way.text, "alone_enough": way.enough},
    }
