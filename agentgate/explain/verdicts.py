"""What became of every condition of a workflow for one call: now, or as a decision's record
says.

Rules: verdicts are those of `agentgate.decision.decide` (or of the record of its answer), never
of a second evaluator. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.decide import judge
from agentgate.decision.step_up import required_holds
from agentgate.explain.evidence import MASKED, Evidence, Origin
from agentgate.explain.explanation import Explanation, Outcome, Row, Verdict
from agentgate.explain.listing import AT_MINT, Condition, conditions, matching, needs_of
from agentgate.explain.remedy import Remedy, all_together, remedy
from agentgate.values.refusal import NOT_SHOWN, Code, Failure, Reason
from agentgate.values.request import Call, Derived, RunState, Surroundings
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.clause import WorkflowClause
from agentgate.workflow.clauses.sequence import Sequence
from agentgate.workflow.model import StepUpRule, Workflow
from agentgate.workflow.nested import flat, root
from agentgate.workflow.rule import Rule

# What the store, a person or the gate itself answers after `decide` let a call through. Of
# `LIMIT`, only what names the field "limits".
LATER = frozenset(
    map(
        Reason,
        "limit already_redeemed failed outcome_unknown hold_refused hold_expired revoked "
        "run_elsewhere store audit".split(),
    )
)
NOT_KEPT = "(not kept)"


@value_class
class Kept:
    """What a decision's record says, for a call that is no longer at hand in full."""

    # what was answered; None: nothing is read from a record, the call is decided now
    decision: Outcome | None = None
    failures: tuple[Failure, ...] = ()  # why, as recorded
    asked: tuple[str, ...] = ()  # ids of the step-up rules that asked
    # arguments (by their own names) of which only a digest is known -> how that is shown
    hidden: Mapping[str, str] = field(default_factory=dict)
    # argument -> the origin it had, as recorded
    origins: Mapping[str, str] = field(default_factory=dict)
    # the run's record is at hand; without it neither prompt nor results are known
    alive: bool = True
    # what it says of `environment` and `definition`, by these names
    recorded: frozenset[str] = frozenset()


def explain(
    workflow: Workflow,
    run: RunState,
    call: Call,
    around: Surroundings,
    later: Iterable[Failure] = (),
) -> Explanation:
    """Explain what `decide` answers to a call. `later`: refusals that came after the decision:
    of the store, of a person, of the gate.
    """
    case = Case(workflow, run, call, around)
    answer = judge(case)
    denied = answer.failures if isinstance(answer, Deny) else ()
    table = _Table(case, Kept())
    table.put((*denied, *later), "failed")
    table.put([failure for failure in case.forced if failure not in denied], "asks")
    for hold in required_holds(case):
        table.put_hold(hold.rule.id, hold.why)
    outcome: Outcome = (
        "deny" if denied or later else answer.asks if isinstance(answer, Eligible) else "deny"
    )
    return table.explanation(outcome, (*denied, *later))


def explain_kept(
    workflow: Workflow, run: RunState, call: Call, around: Surroundings, kept: Kept
) -> Explanation:
    """Explain a decision from its record, under the version that it names, with as much of the
    run and the arguments as is at hand.

    Of a run that is gone, `run` has only what the record says of it; `around` has only the
    decision time for sure.
    """
    case = Case(workflow, run, call, around)
    judge(case)
    table = _Table(case, kept)
    table.put(kept.failures, "failed" if kept.decision == "deny" else "asks")
    for rule in kept.asked:
        table.put_hold(rule)
    return table.explanation(kept.decision or "deny", kept.failures)


def code_of(decision: Outcome, failures: tuple[Failure, ...]) -> str:
    """The closed code that the agent sees; empty for an allowed call."""
    if decision == "deny":
        return str(Deny(failures).code) if failures else str(Code.NOT_PERMITTED)
    return str(Code.NEEDS_APPROVAL) if decision in {"confirm", "step_up"} else ""


class _Table:
    """The rows of an explanation while they are filled."""

    def __init__(self, case: Case, kept: Kept) -> None:
        self._case = case
        self._kept = kept
        self._evidence = Evidence(case.workflow, case.run, case.values, case.earlier)
        self._listed = conditions(case.workflow, case.tool)
        self._given = case.call.args if case.tool is None else flat(case.tool, case.call.args)
        self._failures: dict[str, list[Failure]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._others: list[tuple[Failure, Verdict]] = []

    def put(self, failures: Iterable[Failure], verdict: Verdict) -> None:
        """Give each failure to its condition; one that no condition of the workflow knows gets
        a row of its own.
        """
        for failure in failures:
            for condition in matching(failure, self._listed):
                self._failures.setdefault(condition.key, []).append(failure)
                if self._verdicts.get(condition.key) != "failed":
                    self._verdicts[condition.key] = verdict
                break
            else:
                self._others.append((failure, verdict))

    def put_hold(self, rule: str, why: Iterable[Failure] = ()) -> None:
        """A step-up rule that asks, because of its own conditions or of what was forced; of a
        record, only that it asked.
        """
        key = f"step_up.{rule} step_up"
        self._verdicts.setdefault(key, "asks")
        self._failures.setdefault(key, []).extend(why)

    def explanation(self, decision: Outcome, failures: tuple[Failure, ...]) -> Explanation:
        """The rows, in the order of the checks, and what there is to say of all."""
        workflow = self._case.workflow
        call = self._case.call
        rows = [self._row(condition) for condition in self._listed]
        # what no condition of the workflow says: the store, the log, the keys, an input that is
        # none
        for f, verdict in self._others:
            condition = Condition(
                "store", f.field, "gate", f.expected, 0, frozenset({f.reason})
            )
            rows.append(
                Row(
                    condition,
                    verdict,
                    f.got,
                    f.rule,
                    would_pass=Remedy(f.expected),
                    failures=(f,),
                )
            )
        whole = self._kept.alive and not self._kept.hidden
        together = (
            all_together([r.would_pass for r in rows if r.would_pass is not None], self._case)
            if whole
            else None
        )
        version = f"{workflow.id} v{workflow.version}"
        code = code_of(decision, failures)
        place = (version, workflow.digest, workflow.file, workflow.owners)
        return Explanation(decision, code, call.tool, call.id, *place, tuple(rows), together)

    def _row(self, condition: Condition) -> Row:
        verdict = self._verdict(condition)
        failures = tuple(self._failures.get(condition.key, ()))
        got = (
            self._failed_got(condition, failures) if failures else self._got(condition, verdict)
        )
        origins = (
            self._origins(condition.argument)
            if condition.word == "from" and verdict in {"met", "failed", "asks"}
            else ()
        )
        rule = f"{self._case.workflow.file}:{condition.line}" if condition.line else ""
        way = None
        if verdict in {"failed", "asks"}:
            if not self._kept.alive and condition.about in {"origin", "order", "intent"}:
                # what there was to take it from is gone
                way = Remedy(f"{condition.field}: {condition.expected}")
            else:
                reason = (
                    failures[0].reason
                    if failures and condition.about != "person"
                    else Reason.STEP_UP
                )
                way = remedy(
                    condition, reason, self._case, self._evidence, whole=not self._kept.hidden
                )
        return Row(condition, verdict, got, rule, origins, way, failures)

    def _failed_got(self, condition: Condition, failures: tuple[Failure, ...]) -> str:
        """What a condition that did not hold got. Of an intent also why; its failure, which is
        recorded, does not say.
        """
        got = "; ".join(dict.fromkeys(f.got for f in failures))
        if got == NOT_SHOWN:  # the record's reasons hold no value
            sent = self._case.values.get(condition.argument)
            got = (
                self._kept.hidden.get(root(condition.argument), got)
                if sent is None
                else sent.shown
            )
        words = heard(self._case, condition) if condition.about == "intent" else ""
        if not words or not self._kept.alive:
            return got
        return words if self._kept.decision is None else f"{got}; read again here: {words}"

    def _origins(self, name: str) -> tuple[Origin, ...]:
        kept = self._kept
        if kept.alive and root(name) not in kept.hidden:
            return self._evidence.of(name)
        said = kept.origins.get(name)
        value = kept.hidden.get(root(name)) or ", ".join(
            o.value for o in self._evidence.of(name)
        )
        return () if said is None else (Origin(said, said != "unknown", value or NOT_KEPT),)

    def _verdict(self, condition: Condition) -> Verdict:
        known = self._verdicts.get(condition.key)
        if known is not None:
            return known
        if condition.about in AT_MINT:
            if self._kept.decision == "allow":
                return "met"
            return "not reached" if "failed" in self._verdicts.values() else "at mint"
        rule = condition.rule
        name = condition.argument
        sent = (
            name in self._given or root(name) in self._kept.hidden or name in self._kept.origins
        )
        if name and not sent and isinstance(rule, Rule) and rule.optional:
            return "not sent"
        behind = any(self._verdicts.get(key) == "failed" for key in condition.after)
        return "not reached" if behind else "met"

    def _got(self, condition: Condition, verdict: Verdict) -> str:
        """What a condition that did not fail checked."""
        kept = self._kept
        if verdict in {"not sent", "not reached", "at mint"} or condition.about in AT_MINT:
            return ""
        if kept.decision is not None:
            if condition.field == "args":
                sent = [*self._case.call.args, *kept.hidden, *map(root, kept.origins)]
                return ", ".join(dict.fromkeys(sent)) or NOT_KEPT
            if condition.argument and condition.argument not in self._given:
                return kept.hidden.get(root(condition.argument), NOT_KEPT)
            gone = (
                not kept.alive
                and condition.about in {"who", "intent", "order"}
                and condition.field not in {"user", "agent"}
            )
            looked = "definition" if condition.word == "definition" else condition.field
            configured = (
                isinstance(condition.rule, WorkflowClause) and condition.rule.configured
            )
            if gone or ((configured or looked == "definition") and looked not in kept.recorded):
                return NOT_KEPT
        return _got(condition, self._case)


def _got(condition: Condition, case: Case) -> str:
    """The value that a condition which held checked."""
    if condition.about == "intent":
        return heard(case, condition)
    if condition.argument:
        sent = case.values.get(condition.argument)
        return (
            sent.shown
            if sent is not None
            else MASKED
            if isinstance(condition.rule, Rule) and condition.rule.sensitive
            else ""
        )
    if isinstance(condition.rule, StepUpRule):
        return "nothing that it asks for"
    if isinstance(condition.rule, WorkflowClause):
        return str(condition.rule.shown(case))
    header = case.run.header
    around = case.around
    checked = {
        "run": header.id,
        "workflow": f"{header.workflow} v{header.version}",
        "expires": f"{around.now:%Y-%m-%d}",
        "tenant": header.tenant,
        "tool": case.call.tool,
        "args": ", ".join(case.call.args) or "none",
        f"tools.{case.call.tool}.definition": case.call.definition,
    }
    value = checked.get(condition.field)
    if value is not None:
        return str(value)
    # the newest earlier call that it asks for, and how old that is
    if isinstance(condition.rule, Sequence):
        last = case.earlier.of(condition.rule.require)[-1:]
        return "".join(
            f"{each.tool} (call {each.id}), {around.now.timestamp() - each.redeemed_at:.0f} s before"
            for each in last
        )
    return ""


def heard(case: Case, condition: Condition) -> str:
    """Each intent that the tool, or the argument of a condition, needs, what was derived of it
    and why (word, clause, counter-example).
    """
    return heard_of(needs_of(condition, case.tool), case.run.intents)


def heard_of(needs: Iterable[str], intents: Mapping[str, Derived]) -> str:
    """As `heard`, of these intents."""
    derived = ((name, intents[name]) for name in needs if name in intents)
    return "; ".join(
        f"{name} {d.presence}" + (f" ({d.evidence})" if d.evidence else "")
        for name, d in derived
    )
