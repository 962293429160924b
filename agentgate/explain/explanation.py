"""An explanation: every condition of a workflow with its verdict for one call, now or as a
decision's record says, the origin of every value, and what would make a condition hold; as text
and as JSON.

Rules: two texts. `agent` is the closed code that a model may see; all else is for a developer
or an operator and must never reach a model: it teaches the edge. No token; sensitive values
masked; control characters escaped. Verdicts are those of `agentgate.decision.decide` (or of the
record of its answer), never of a second evaluator. Of what failed, a concrete change is named
under which it holds, where there is one: only where `decide` finds that the condition holds with
it. A proposal takes its values from what the rule allows: its own list or bounds, the user's
words, the facts of earlier calls. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, field
from difflib import get_close_matches
from itertools import islice
from typing import Any, Literal

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.checks import required_holds
from agentgate.decision.decide import decide, judge
from agentgate.decision.origins.earlier_calls import Answer
from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.explain.evidence import MASKED, Evidence, Origin, secret
from agentgate.explain.listing import AT_MINT, Condition, conditions, matching, needs_of
from agentgate.language.prompt import Entity
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import normal
from agentgate.values.refusal import NOT_SHOWN, Code, Failure, Failures, Reason
from agentgate.values.request import Call, Derived, RunState, Surroundings
from agentgate.values.value_class import Json, Names, Values, value_class
from agentgate.values.visible import visible
from agentgate.workflow.clauses.clause import WorkflowClause
from agentgate.workflow.model import Sequence, StepUpRule, Workflow, flat, root
from agentgate.workflow.rule import PROMPT, USER, Rule, Source

Verdict = Literal["met", "failed", "asks", "not sent", "not reached", "at mint"]
"""Of a condition: it is met; it refuses the call; it asks a person; its optional argument was
left out; a condition before it failed; only the store knows, when it mints."""
Outcome = Literal["allow", "confirm", "step_up", "deny"]


@value_class
class Remedy:
    """A change under which one failed condition holds."""

    text: str  # for a reader: what is needed
    # the arguments to change, by name; empty when no argument is the way (None as a value:
    # leave it out)
    change: Values = field(default_factory=dict)
    # the workflow then allows the whole call, alone or after a person's yes
    enough: bool = False


@value_class
class Row:
    """One condition and what became of it."""

    condition: Condition
    verdict: Verdict
    # what was found, masked if sensitive; empty where nothing was checked. Of intents with the
    # evidence, which no `Failure` has
    got: str
    rule: str  # ``file:line`` of the rule, or empty
    origins: tuple[Origin, ...] = ()  # of an argument's value, one for each element of a list
    would_pass: Remedy | None = None  # of a row that failed or asks: what would make it hold
    # those of `agentgate.decision.decide` (or of the store) behind the verdict
    failures: Failures = ()

    @property
    def expected(self) -> str:
        """What would hold."""
        return self.condition.expected


@value_class
class Explanation:
    """Every condition that applies to one call."""

    # what the workflow decides; ``allow`` still needs what is known only to the store, at mint
    decision: Outcome
    code: str  # the closed code that the agent sees; empty for an allowed call
    tool: str
    tool_call_id: str
    workflow: str  # id and version; `digest` and `file` are the definition's
    digest: str
    file: str
    owners: Names  # whom to ask about the rules
    rows: tuple[Row, ...]  # the conditions, in the order of the checks
    # changes of several rows with which the engine allows the whole call; None: none known
    together: Remedy | None = None
    notes: Names = ()  # what this explanation could not know

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
        return "\n".join(line for _, line in text_lines(self))


# --- as text and as JSON ----------------------------------------------------------------------
def text_lines(shown: Explanation) -> Iterator[tuple[str, str]]:
    """The developer's text: what failed first and in full, then what is met; plain, one line
    each, behind what the line is of.

    That is the decision, a verdict, ``allowed`` or ``unknown`` of an origin, ``pass``,
    ``note``, or empty.
    """
    return ((kind, visible(line)) for kind, line in _lines(shown))


def _lines(shown: Explanation) -> Iterator[tuple[str, str]]:
    yield (
        shown.decision,
        f"{shown.decision.upper()}  {shown.tool}  {shown.workflow}"
        + (f" ({shown.file})" if shown.file else ""),
    )
    if shown.agent:
        yield "", f"the agent sees: {shown.agent}"
    for row in shown.failed:
        yield "", ""
        yield (
            row.verdict,
            f"{row.verdict.upper()} {row.condition.field} ({row.condition.word})"
            + (f"  {row.rule}" if row.rule else ""),
        )
        yield "", f"  got       {row.got}"
        yield "", f"  expected  {row.expected}"
        for origin in row.origins:
            yield (
                "allowed" if origin.allowed else "unknown",
                f"  origin    {origin.value}: {origin}",
            )
        if row.would_pass:
            yield (
                "pass",
                f"  would pass with {row.would_pass.text}"
                + ("; then the whole call would" if row.would_pass.enough else ""),
            )
    if shown.together:
        yield "", ""
        yield "pass", f"the whole call would pass with {shown.together.text}"
    yield "", ""
    for row in (row for row in shown.rows if row not in shown.failed):
        origins = f" | {'; '.join(map(str, row.origins))}" if row.origins else ""
        line = (
            f"{row.verdict:<11} {row.condition.field} ({row.condition.word}): "
            f"{row.got or '-'} | {row.expected}{origins}"
        )
        yield row.verdict, line + (f"  {row.rule}" if row.rule else "")
    yield from (("note", f"note: {note}") for note in shown.notes)
    yield "", f"ask: {shown.owner}"


def as_json(shown: Explanation) -> Json:
    """The explanation as JSON values."""
    names = "decision code tool tool_call_id workflow digest file".split()
    rows = [
        {
            "field": row.condition.field,
            "condition": row.condition.word,
            "about": row.condition.about,
            "verdict": row.verdict,
            "got": row.got,
            "expected": row.expected,
            "rule": row.rule,
            "reasons": list(dict.fromkeys(str(f.reason) for f in row.failures)),
            "origins": [asdict(origin) for origin in row.origins],
            "would_pass_with": None
            if row.would_pass is None
            else {"text": row.would_pass.text, "alone_enough": row.would_pass.enough},
        }
        for row in shown.rows
    ]
    return {
        **{name: getattr(shown, name) for name in names},
        "owners": list(shown.owners),
        "conditions": rows,
        "would_pass_with": shown.together.text if shown.together else None,
        "notes": list(shown.notes),
    }


# --- what became of each condition ------------------------------------------------------------
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
    failures: Failures = ()  # why, as recorded
    asked: Names = ()  # ids of the step-up rules that asked
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


def code_of(decision: Outcome, failures: Failures) -> str:
    """The closed code that the agent sees; empty for an allowed call."""
    if decision == "deny":
        return str(Deny(failures).code) if failures else str(Code.NOT_PERMITTED)
    return str(Code.NEEDS_APPROVAL) if decision in {"confirm", "step_up"} else ""


def bare_row(failure: Failure, verdict: Verdict, word: str, text: str) -> Row:
    """A failure that is of no condition at hand; `text`: what would pass."""
    reasons = frozenset({failure.reason})
    condition = Condition("store", failure.field, word, failure.expected, 0, reasons)
    return Row(
        condition, verdict, failure.got, failure.rule, (), Remedy(text), failures=(failure,)
    )


class _Table:
    """The rows of an explanation while they are filled."""

    def __init__(self, case: Case, kept: Kept) -> None:
        self._case = case
        self._kept = kept
        self._evidence = Evidence(case)
        self._listed = conditions(case.workflow, case.tool)
        self._given = flat(case.tool, case.call.args) if case.tool else case.call.args
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

    def explanation(self, decision: Outcome, failures: Failures) -> Explanation:
        """The rows, in the order of the checks, and what there is to say of all."""
        workflow = self._case.workflow
        call = self._case.call
        rows = [self._row(condition) for condition in self._listed]
        # what no condition of the workflow says: the store, the log, the keys, an input that is
        # none
        rows += [bare_row(f, verdict, "gate", f.expected) for f, verdict in self._others]
        whole = self._kept.alive and not self._kept.hidden
        together = (
            all_together([r.would_pass for r in rows if r.would_pass], self._case)
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

    def _failed_got(self, condition: Condition, failures: Failures) -> str:
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
        return f"{got}; read again here: {words}" if self._kept.decision else words

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
        if kept.decision:
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
            if sent
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


# --- what would make a condition hold ---------------------------------------------------------
_TRIED = 24  # proposals tried for one condition
_DROP = object()


def remedy(
    condition: Condition, reason: Reason, case: Case, evidence: Evidence, *, whole: bool = True
) -> Remedy:
    """What would make a condition of `case.workflow` that failed for this reason hold for this
    call, whose checks have all run.

    `whole`: all arguments of the call are known; without that, nothing is claimed of the whole
    call.
    """
    for change, text in islice(_proposals(condition, case, evidence), _TRIED):
        held, enough = _asked(condition, case, change)
        if held:
            return Remedy(
                text,
                {name: None if value is _DROP else value for name, value in change.items()},
                enough and whole,
            )
    return Remedy(_words(condition, reason, case))


def all_together(ways: Iterable[Remedy], case: Case) -> Remedy | None:
    """The changes of several conditions as one, if the engine allows the whole call with them;
    the last or the first of two wins.
    """
    changing = [way for way in ways if way.change]
    if len(changing) < 2 or any(way.enough for way in changing):
        return None
    for order in (changing, changing[::-1]):
        change: Json = {}
        by: dict[str, Remedy] = {}
        for way in order:
            change |= way.change
            by |= dict.fromkeys(way.change, way)
        call = _changed(
            case, {name: _DROP if value is None else value for name, value in change.items()}
        )
        answer = decide(case.workflow, case.run, call, case.around)
        if isinstance(answer, Eligible):
            return Remedy(
                "; ".join(dict.fromkeys(way.text for way in by.values())), change, enough=True
            )
    return None


def _changed(case: Case, change: Values) -> Call:
    """The call with these arguments changed."""
    args = {
        name: value
        for name, value in {**case.call.args, **change}.items()
        if value is not _DROP
    }
    data = canonical(args)
    return Call(case.call.tool, case.call.id, data, parse(data), case.call.definition)


def _asked(condition: Condition, case: Case, change: Values) -> tuple[bool, bool]:
    """Whether the condition holds with these arguments changed, and whether the engine then
    allows the whole call.
    """
    changed = Case(case.workflow, case.run, _changed(case, change), case.around)
    answer = judge(changed)
    listed = conditions(case.workflow, case.tool)
    failed = {
        c.key
        for failure in (*changed.denied, *changed.forced)
        for c in matching(failure, listed)
    }
    held = failed.isdisjoint({condition.key, *condition.after})
    return held, held and isinstance(answer, Eligible)


# --- proposals --------------------------------------------------------------------------------
Proposal = tuple[Mapping[str, Any], str]
Proposals = Iterator[Proposal]


def _proposals(condition: Condition, case: Case, evidence: Evidence) -> Proposals:
    rule = condition.rule if isinstance(condition.rule, Rule) else None
    if condition.word == "args":
        roots = {root(name) for name in (case.tool.args if case.tool else ())}
        unknown = [name for name in case.call.args if name not in roots]
        yield dict.fromkeys(unknown, _DROP), "without " + ", ".join(unknown)
    elif condition.word == "one source":
        yield from _together(case, evidence)
    elif rule is None:
        return
    elif condition.word == "needs":
        if rule.optional and rule.name in case.call.args:
            yield {rule.name: _DROP}, f"without {rule.name}"
    elif condition.word == "at_most" and rule.at_most:
        yield from _bounds(rule, rule.at_most, case, evidence)
    elif condition.word in {"from", "required", "type"}:
        if rule.optional and case.call.args.get(rule.name, "") is None:
            yield {rule.name: _DROP}, f"without {rule.name} (null is a value, and is sent)"
        yield from _allowed(rule)
        yield from _known(rule, case, evidence)
    elif condition.about == "argument":
        yield from _allowed(rule)
        if rule.max_items and condition.word == "max_items":
            yield (
                {rule.name: case.values[rule.name].raw[: rule.max_items]},
                f"{rule.name}: the first {rule.max_items} elements",
            )
        yield from _known(rule, case, evidence)


def _named(rule: Rule, value: Any, where: str, *, hidden: bool = False) -> Proposal:
    shown = MASKED if rule.sensitive or hidden else f"{value}"
    return {rule.name: [value] if rule.max_items else value}, f"{rule.name} {shown}{where}"


def _allowed(rule: Rule) -> Proposals:
    """The values that the rule itself lists, and its bounds, the upper first."""
    for operator in sorted(rule.operators, key=lambda each: not each.closed and -each.outwards):
        for value, words in operator.proposals(rule.type):
            change, _ = _named(rule, value, "")
            yield change, f"{rule.name} {words}"


def _bounds(rule: Rule, bound: Source, case: Case, evidence: Evidence) -> Proposals:
    for call, index in evidence.places(bound.tool):
        value = _held(bound, call, index)
        if kind_of(bound).spread:
            total = (
                call.total(bound, case.values[rule.name].currency)
                if rule.name in case.values
                else None
            )
            value = None if total is None else str(total)
        if value is not None:
            change, _ = _named(rule, value, "")
            shown = MASKED if rule.sensitive or secret(case.workflow, bound) else value
            text = f"{rule.name} at most {shown}"
            place = f" ({bound} of call {call.id})"
            yield change, text + place
            if (currency := _currency(bound, case, call, index)) and rule.currency:
                yield {**change, rule.currency: currency}, f"{text} in {currency}{place}"


def _held(source: Source, call: Answer, index: int) -> Any:
    """What a source says in a call and row, as it was returned or given; None where it is no
    origin.
    """
    if kind_of(source).spread or call.keys(source)[index] is None:
        return None
    return of_call(source).fields(call, call.rows[index]).get(source.field)


def _currency(source: Source, case: Case, call: Answer, index: int) -> str:
    """The currency beside a money value of an earlier call; empty where it has none."""
    kind = of_call(source)
    sibling = kind.declared(source, case.workflow.tools).currency
    return str(kind.fields(call, call.rows[index]).get(sibling, "")) if sibling else ""


def _known(rule: Rule, case: Case, evidence: Evidence) -> Proposals:
    """The values that the allowed origins hold now."""
    for source in rule.sources:
        if source == PROMPT:
            yield from _said(rule, case)
        elif source == USER:
            if (
                case.earlier.user is not None
                and normal(rule.type, case.earlier.user) is not None
            ):
                yield _named(rule, case.earlier.user, f", {kind_of(source).short}")
        elif source.tool:
            for call, index in evidence.places(source.tool):
                value = _held(source, call, index)
                if value is not None:
                    where = f", as {kind_of(source).words} {source.tool} ({source.field}, call {call.id})"
                    change, text = _named(
                        rule, value, where, hidden=secret(case.workflow, source)
                    )
                    yield change, text
                    if (currency := _currency(source, case, call, index)) and rule.currency:
                        yield {**change, rule.currency: currency}, f"{text}, in {currency}"


def _said(rule: Rule, case: Case) -> Proposals:
    tables = case.run.prompt.named if case.run.prompt else {}
    said: list[Entity] = [entity for table in tables.values() for entity in table.values()]
    if rule.type == "text":  # for which any of the user's words would do
        said = [
            entity
            for entity in said
            if isinstance(entity.key, str)
            and case.run.prompt.words("text", entity.key) is not None
        ]
    for entity in sorted(said, key=lambda e: e.type != rule.type):
        value = entity.key if isinstance(entity.key, str | bool) else str(entity.key)
        yield _named(
            rule,
            value,
            ", as the user wrote it" + ("" if rule.sensitive else f" ({entity.words!r})"),
        )


def _together(case: Case, evidence: Evidence) -> Proposals:
    """All arguments that refer to one tool, taken from one call and row."""
    rules = [v.rule for v in case.values.values() if not v.rule.any_call]
    for tool in dict.fromkeys(s.tool for rule in rules for s in rule.sources if s.tool):
        for call, index in evidence.places(tool):
            change: Json = {}
            for rule in rules:
                held = (
                    _held(source, call, index) for source in rule.sources if source.tool == tool
                )
                value = next((each for each in held if each is not None), None)
                if value is not None:
                    change |= _named(rule, value, "")[0]
            shown = ", ".join(
                f"{name} {MASKED if case.values[name].rule.sensitive else value}"
                for name, value in change.items()
                if name in case.values
            )
            if change:
                yield (
                    change,
                    f"{shown}: all of call {call.id} of {tool}"
                    + (f", row {index + 1}" if call.returned > 1 else ""),
                )


# --- where no argument is the way -------------------------------------------------------------
def _words(condition: Condition, reason: Reason, case: Case) -> str:
    rule = condition.rule
    if isinstance(rule, WorkflowClause | Sequence | StepUpRule):
        return rule.remedy
    if reason in _TOLD:
        return _TOLD[reason](condition, case)
    if not isinstance(rule, Rule) or condition.about not in {"argument", "origin"}:
        return f"{condition.field}: {condition.expected}"
    if condition.word == "from" and not rule.free:
        said = (
            "in the user's words, in their order"
            if rule.type == "text"
            else kind_of(PROMPT).words
        )
        return f"{rule.name} " + " or ".join(
            said if source == PROMPT else _source(source, case) for source in rule.sources
        )
    if condition.word == "at_most" and rule.at_most:
        if not case.earlier.of(rule.at_most.tool):
            return f"{rule.at_most.tool} called first: its {rule.at_most.field} is the bound"
        return (
            f"{rule.name} {condition.expected} (same currency)"
            if rule.currency
            else f"{rule.name} {condition.expected}"
        )
    if condition.word == "entities":
        allowed = " or ".join(_source(source, case) for source in rule.entities or ())
        return f"{rule.name} without that address, or with one {allowed}"
    return f"{rule.name}: {condition.expected}"


def _source(source: Source, case: Case) -> str:
    first = "" if kind_of(source).alone or case.earlier.of(source.tool) else " (call it first)"
    return f"{kind_of(source).told(source)}{first}"


def _intent(condition: Condition, case: Case) -> str:
    wanted = [
        case.workflow.intents[n]
        for n in needs_of(condition, case.tool)
        if n in case.workflow.intents
    ]
    asked = " or ".join(
        f"{i.name}: {i.asks_for}" + (f" (such as {i.examples[0]!r})" if i.examples else "")
        for i in wanted
    )
    return f"the user asking for {asked}" if asked else "a workflow that names who asks"


def _unknown_tool(_: Condition, case: Case) -> str:
    near = get_close_matches(case.call.tool, case.workflow.tools, n=1)
    return f"one of {', '.join(case.workflow.tools)}" + (
        f" (did you mean {near[0]}?)" if near else ""
    )


_TOLD: Mapping[Reason, Callable[[Condition, Case], str]] = {
    Reason.TOOL_UNKNOWN: _unknown_tool,
    Reason.INTENT_ABSENT: _intent,
    Reason.INTENT_UNCLEAR: _intent,
    Reason.STEP_UP: lambda c, _: c.expected,
    Reason.TENANT: lambda _, k: f"a run of tenant {', '.join(k.workflow.tenants)}",
    Reason.WORKFLOW_EXPIRED: lambda _, k: f"a new version of {k.workflow.id}",
    Reason.WORKFLOW_CHANGED: lambda _, k: (
        f"a new run, opened under version {k.workflow.version} of {k.workflow.id}"
    ),
    Reason.TWO_VERSIONS: lambda _, k: (
        f"a new run, opened under the version of {k.workflow.id} that is in force"
    ),
    Reason.RUN_CLOSED: lambda _, __: "a new run",
    Reason.TOO_MANY_DENIALS: lambda _, __: "a new run",
    Reason.TOOL_DEFINITION: lambda c, _: (
        f"the tool as it was reviewed ({c.expected}), or a review of the tool as it is now"
    ),
    Reason.ONE_SOURCE: lambda c, _: c.expected,
}
