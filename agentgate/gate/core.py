"""What a gate consists of, and what all its flows do: read a run, and put a refusal on
record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from agentgate.decision.case import Case
from agentgate.decision.checks import describe
from agentgate.decision.origins.tracing import origin_names
from agentgate.decision.versions import Versions
from agentgate.errors import CanonicalError, NameRefused
from agentgate.explain.listing import AT_MINT, Condition, conditions, matching
from agentgate.gate.call_context import Sources
from agentgate.gate.holds.callback import Callback
from agentgate.gate.holds.proof import Answerers
from agentgate.gate.notify import Notifier
from agentgate.gate.observer import Observer
from agentgate.gate.runs import InForce, Issued, States
from agentgate.gate.state import Readings, missing, run_state
from agentgate.identity.connection import Connection
from agentgate.intents.deriver import Deriver
from agentgate.redemption.credential import EndQueue, UpstreamBroker
from agentgate.redemption.steps import Trust, TrustedKeys
from agentgate.shell.bound import Refusals
from agentgate.shell.drive import apart
from agentgate.shell.spans import Tracing
from agentgate.shell.step import Flow, Outside, Record
from agentgate.stores import ops
from agentgate.stores._op import History
from agentgate.token.mint import txn
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical
from agentgate.values.entities import NUMERIC
from agentgate.values.refusal import Failures, Reason, RunRefused, told
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.values.value_class import Json, Names, Values, set_derived, value_class
from agentgate.workflow.model import Tool, Workflow, root
from agentgate.workflow.rule import MODEL, PROMPT, USER, Rule

if TYPE_CHECKING:
    from agentgate.approvals.opening import Other
    from agentgate.identity.door import Identities
    from agentgate.loading.catalog import Catalog


@value_class
class Allowances:
    """What a run or its user may use up (`agentgate.gate.settings`)."""

    denials: int
    holds: int
    runs: int


@value_class
class Core:
    """What a gate consists of; its flows share it and change none of it.

    Attributes:
        clock: the decision clock; moves conditions, workflow expiry and relative dates, never
            token times.
        issuer: the gate's URL; audience of wrapper-redeemed tools that name none.
        sources: where the surroundings of a call come from.
        brokers: upstream brokers by name; None: only tool servers have it.
        history: what this gate saw of its tenants' histories.
        answerers: whose signatures answer holds.
        confirm: asks the run's own user in this process (`agentgate.gate.holds.confirm`); None:
            it does not.
        budgets: what a run or its user may use up.
        notifier: tells people of holds and answers.
        identities: proves credentials; None: this gate takes none.
        find: reads an approved version that is not in force; None: this gate knows of none.
        trusted: its own keys, as those know them who redeem its tokens.
        states: runs that this gate read lately.
        readings: headers and turns that it read lately.
        in_force: which versions of its workflow a run is decided under.
        known_brokers: their names.
        held_brokers: those that this gate has itself.
        shared_runs: where the store may lose what it acknowledged, any gate acts in its runs
            until the store starts anew.
        issued: runs that it opened, and acts for which it issued a token lately.
        observer: records what the version that only observes says of calls.
        unproven: refusals of callers whom nobody proved, which go on record in sum.
        tracing: where spans go; None: nowhere.
        seal: seals what a record hides to the auditor's key; None: nobody reads it.
        forms: what the records of each workflow version and tool have in common.
        queue: ends of reads, whose replies nobody has read yet.
    """

    catalog: Catalog
    keys: KeyRing
    issuer: str
    derive: Deriver
    clock: Callable[[], datetime]
    sources: Sources
    brokers: Mapping[str, UpstreamBroker | None]
    history: History
    answerers: Answerers
    budgets: Allowances
    identities: Identities | None = None
    confirm: Callback | None = None
    notifier: Notifier = field(default_factory=Notifier)
    find: Callable[[str, int], Other] | None = None
    tracing: Tracing | None = None
    trusted: TrustedKeys = field(init=False)
    states: States = field(default_factory=States, init=False)
    readings: Readings = field(init=False)
    in_force: InForce = field(init=False)
    known_brokers: frozenset[str] = field(init=False)
    held_brokers: Mapping[str, UpstreamBroker] = field(init=False)
    shared_runs: bool = False
    seal: Callable[[Values], str] | None = None
    issued: Issued = field(default_factory=Issued, init=False)
    observer: Observer = field(default_factory=Observer, init=False)
    unproven: Refusals = field(default_factory=Refusals, init=False)
    forms: dict[Names, ToolForm] = field(default_factory=dict, init=False)
    queue: EndQueue = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        set_derived(
            self,
            trusted=TrustedKeys(lambda: self.keys.jwks(time.time())),
            readings=Readings(self.derive),
            in_force=InForce(self.catalog, self.find),
            known_brokers=frozenset(self.brokers),
            held_brokers={
                name: broker for name, broker in self.brokers.items() if broker is not None
            },
        )

    def close(self) -> None:
        """Tell and record what waits."""
        self.notifier.close()
        self.observer.close()

    def workflow(self, name: str) -> Workflow:
        """The workflow in force under this id. Raises RunRefused as `InForce.workflow`."""
        return self.in_force.workflow(name)

    def enforces(self, workflow: Workflow | None, header: Header) -> bool:
        """Whether refusals count: not where reviewers signed a workflow to observe of which
        they never had a version enforced.

        Over HTTP they do: who is answered there runs no tool that was refused.
        """
        return (
            workflow is None
            or not workflow.observe
            or self.find is None
            or bool(header.host or header.client)
        )

    def around(
        self,
        agent: Agent | None = None,
        network: str | None = None,
        data_class: str | None = None,
    ) -> Surroundings:
        """The decision time and what is known of a call's surroundings; read once per call."""
        environment = None
        if agent is not None:
            own = agent.environment
            environment = self.sources.environment if own is None else own or None
        return Surroundings(
            now=self.clock(),
            environment=environment,
            data_class=data_class,
            network=network,
            brokers=self.known_brokers,
        )

    def trust(self, audience: str, tenants: Names) -> Trust:
        """What this gate itself believes where it redeems tokens of its own."""
        return Trust(
            keys=self.trusted,
            issuer=self.issuer,
            tenants=tenants,
            audience=audience,
            history=self.history,
            brokers=self.held_brokers,
            tracing=self.tracing,
        )


NOTHING: Mapping[str, object] = {}


def stamp(kind: str, header: Header, known: Values = NOTHING, /, **more: object) -> Record:
    """An audit record with who, where and which workflow, and what is `known`; never a prompt,
    a token or a raw argument.
    """
    who = header.memo.get("who") or header.memo.setdefault("who", _who(header))
    body = {**known, "type": kind, "time": round(time.time(), 6), **who, **more}
    return Record(body, refusal=bool(more.get("reasons")))  # or a hold


def subjects_of(header: Header, tool: str = "") -> ops.Subjects:
    """Whom a revocation may name that stops a run, or its calls of a tool."""
    return ops.Subjects(
        header.agent.id,
        header.reader,
        tool,
        ops.workflow_subject(header.workflow, header.version),
    )


def refuse_run(header: Header, refused: Failures) -> Flow:
    """Put it on record that a run is refused, and why. Raises RunRefused with these reasons."""
    yield stamp("run_refused", header, reasons=reasons_of(refused))
    raise RunRefused(refused, header.id)


def _who(header: Header) -> Json:
    """What every record of a run says of it: how user and agent are known, and what is between
    them.
    """
    user = header.user
    agent = header.agent
    known: Json = {"user": user.identity if user else None, "agent": agent.identity}
    if agent.via:
        known["via"] = agent.via
    if agent.posture is not None:
        known["posture"] = {
            "image_signed_by": agent.posture.image_signed_by,
            "attested_at": agent.posture.attested_at.isoformat(),
        }
    return {
        "tenant": header.tenant,
        "run": header.id,
        "workflow": {"id": header.workflow, "version": header.version, "digest": header.digest},
        "user": user.id if user else None,
        "agent": agent.id,
        "identity": known,
    }


def decided(answer: str, call: Call, header: Header, known: Values, **more: object) -> Record:
    """The audit record of a decision; `known`: what was `seen`."""
    return stamp(
        "decision",
        header,
        known,
        decision=answer,
        tool=call.tool,
        tool_call_id=call.id,
        arguments_digest=call.arguments_digest,
        **more,
    )


def surroundings(
    core: Core, versions: Versions, header: Header, call: Call, connection: Connection | None
) -> Flow:
    """What reads the clock, and returns the surroundings of a call; the catalogue is asked only
    where a version asks for a data class.
    """
    kind = None
    if [each for each in versions.each if each.conditions.data_class]:
        kind = yield Outside(lambda: core.sources.class_of(call.tool, call.args))
    where = None if connection is None else core.sources.network(connection)
    return lambda: core.around(header.agent, where, kind)


def read(core: Core, tenant: str, run: str, known: RunState | None = None) -> Flow:
    """The run's state, from the store; where an earlier state is `known` (or to this gate), the
    store sends only what changed since.

    Raises (through the driver):
        RunRefused: missing, unreadable, or its workflow is no longer loaded.
    """
    if type(tenant) is not str or type(run) is not str:
        raise missing(type(tenant).__name__, type(run).__name__, "no names")
    known = core.states.find(tenant, run) if known is None else known
    try:
        op = ops.read_run(tenant, run, known.revision if known is not None else "")
    except NameRefused as error:
        raise missing(tenant, run, str(error)) from error
    return (yield from found(core, tenant, run, (yield op), known))


def read_again(core: Core, known: RunState) -> Flow:
    """What the store has now of a run that was read before. Raises as `read`."""
    return read(core, known.header.tenant, known.header.id, known)


def found(
    core: Core,
    tenant: str,
    run: str,
    record: ops.RunRecord | None,
    known: RunState | None = None,
) -> Flow:
    """The state of a run that was read, or opened. Raises as `read`."""
    if record is None:
        raise missing(tenant, run)
    try:
        header, _ = core.readings.read_header(record, known)
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, "unreadable header") from error
    workflow = yield from core.in_force.own(header)
    state = partial(
        run_state,
        tenant,
        run,
        record=record,
        workflow=workflow,
        readings=core.readings,
        known=known,
    )
    return core.states.keep((yield from apart(sum(map(len, record.turns)), state)))


_MAX_REASONS = 50
_MAX_WORDS = 300


def reasons_of(failures: Failures) -> list[Mapping[str, str]]:
    """What a record holds of failures, cut to what always fits it: a call must not keep its
    refusal off the record by its size.
    """
    tellable = told(failures)
    kept: list[Mapping[str, str]] = [
        {name: words[:_MAX_WORDS] for name, words in each.items()}
        for each in describe(tellable[:_MAX_REASONS])
    ]
    left = len(tellable) - len(kept)
    return [*kept, {"reason": "more", "field": str(left)}] if left else kept


_SHOWN = 500  # bytes of an argument that a record holds as it is
_ROOM = 64 << 10  # bytes of all that it holds in full, or sealed; each has the same share


def seen(core: Core, versions: Versions, case: Case, made: str, **named: object) -> Json:
    """What the record of a decision holds so that it can be explained later: how much of the
    run was known, when, and which values.

    Its fields are those of `agentgate.audit.schema`. `made`: the call's digest; empty: its
    workflow does not have the tool. `named`: what names it in all its records.
    """
    run = case.run
    around = case.around
    newer = versions.newer
    form = (
        ToolForm() if case.tool is None else form_of(core, versions, case.workflow, case.tool)
    )
    args, hidden = _shown(form, case)
    data = {name: canonical(value) for name, value in hidden.items()}
    more = {
        "doubts": len(run.doubts),
        "succession": run.header.succession,
        "definition": case.call.definition,
        "environment": around.environment,
        "data_class": around.data_class,
        "network": around.network,
        "in_force": newer and {"version": newer.version, "digest": newer.digest},
        "txn": made and txn(made),
        "lengths": {name: len(value) for name, value in hidden.items() if type(value) is str},
        "sealed": hidden
        and core.seal
        and core.seal({n: hidden[n] for n in data if len(data[n]) <= _ROOM // len(data)}),
    }
    return {
        "turns": len(run.turns),
        "calls": len(run.calls),
        "origins": origin_names(case),
        "at": around.now.isoformat(),
        "args": args,
        "hidden": {
            name: core.keys.masked(run.header.tenant, each) for name, each in data.items()
        },
        "met": _met(form, case),
        **{name: value for name, value in more.items() if value},
        **named,
    }


class ToolForm(NamedTuple):
    """What is the same in all records of a workflow version's calls to one of its tools.

    Attributes:
        conditions, keys: what each call must meet, and how that is named.
        args: each declared argument, its rules, whether it may be left out as null, and how
            many bytes of it a record shows at most.
        alone: they only read, and are decided as if the run had no other calls.
    """

    conditions: tuple[Condition, ...] = ()
    keys: Names = ()
    args: tuple[tuple[str, tuple[Rule, ...], bool, int], ...] = ()
    alone: bool = False


def form_of(core: Core, versions: Versions, workflow: Workflow, tool: Tool) -> ToolForm:
    """The form of a tool's records under these versions, each of which masks what the other
    says is sensitive; made once.
    """
    name = *[each.digest for each in versions.each], tool.name
    if (form := core.forms.get(name)) is None:
        listed = tuple(
            [
                each
                for each in conditions(workflow, tool)
                if each.about not in {*AT_MINT, "person"}
            ]
        )
        rules: dict[str, list[Rule]] = {}
        for rule in tool.args.values():
            rules.setdefault(root(rule.name), []).append(rule)
        full = sum(rule.record == "full" for rule in tool.args.values())
        share = _ROOM // full if full and core.seal is None else 0
        args = [
            (each, tuple(inside), all(r.nullable for r in inside), _most_of(inside, share))
            for each, inside in rules.items()
        ]
        form = core.forms[name] = ToolForm(
            listed, tuple([each.key for each in listed]), tuple(args), stands_alone(tool)
        )
    return form


def stands_alone(tool: Tool) -> bool:
    """Whether its calls only read, and no earlier call matters to their decision: whatever may
    refer to one is none of these origins.
    """
    named = {
        source
        for rule in tool.args.values()
        for source in (*rule.sources, *rule.references, *(rule.entities or ()))
    }
    return (
        tool.effect == "read"
        and not (tool.sequence or tool.step_ups)
        and named <= {PROMPT, USER, MODEL}
    )


def _met(form: ToolForm, case: Case) -> Names:
    """The keys of the conditions that held, as far as they were checked."""
    failures = (*case.denied, *case.forced)
    if not failures:
        return form.keys
    failed = {each.key for failure in failures for each in matching(failure, form.conditions)}
    return tuple(
        [
            each.key
            for each in form.conditions
            if each.key not in failed and not failed & each.after
        ]
    )


def _shown(form: ToolForm, case: Case) -> tuple[Json, Json]:
    """The declared arguments that a record may hold as they are, and the others."""
    args: Json = {}
    hidden: Json = {}
    given = case.call.args
    refused = {
        failure.argument
        for failure in case.denied
        if failure.reason in {Reason.ARGUMENT_FORM, Reason.ARGUMENT_VALUE}
    }
    for name, rules, nullable, most in form.args:
        if name in given:
            value = given[name]
            if value is None and nullable:
                args[name] = None  # as left out
            elif not _fits(value, most) or (
                refused
                and any(
                    # a value that its rule refuses, where that may be any text
                    rule.name in refused
                    and (rule.name not in case.values or rule.type not in NUMERIC)
                    for rule in rules
                )
            ):
                hidden[name] = value
            else:
                args[name] = value
    return args, hidden


def _most_of(rules: list[Rule], share: int) -> int:
    """How many bytes of a value a record shows: of a sensitive one none, of free text none but
    its `share` where the file says so.
    """
    if any(rule.sensitive for rule in rules):
        return 0
    if share and rules[0].record == "full":
        return share
    free = [
        rule
        for rule in rules
        if rule.type in {"text", "json"}
        and not (rule.one_of or rule.equals or rule.pattern or rule.glob)
    ]
    return 0 if free else _SHOWN


def _fits(value: object, most: int) -> bool:
    """Whether a record may show a value: no long one, and no structure, which may hold what no
    rule names, but in full.
    """
    # no character is longer than \\u0000
    if not most or (type(value) is str and len(value) < most // 6 and "{" not in value):
        return most > 0
    try:
        data = canonical([[[value]]])[3:-3]  # as deep as in the record, which must not fail
    except CanonicalError:
        return False
    return len(data) <= most and (most > _SHOWN or b"{" not in data)
