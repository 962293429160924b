"""What a gate is made of, and the two things all its flows do: read a run, and put a refusal on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agentgate.decision.answer import Deny
from agentgate.decision.arguments import check_arguments
from agentgate.decision.case import Case
from agentgate.decision.checks import describe
from agentgate.decision.earlier import Earlier
from agentgate.decision.value import Value
from agentgate.errors import AuditUnavailable, NameRefused
from agentgate.explain.evidence import origin_names
from agentgate.gate.state import missing, run_state
from agentgate.intents.deriver import Deriver
from agentgate.loading.catalog import Catalog
from agentgate.shell.step import Flow, Record
from agentgate.stores import ops
from agentgate.token.keys import KeyRing
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Call, Header, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.nested import root
from agentgate.workflow.rule import Rule


@dataclass(frozen=True, slots=True)
class Core:
    """What a gate is made of, all of it shared by its flows and none of it changed by them.

    Attributes:
        clock: the decision clock; moves conditions, workflow expiry and relative dates, never token times.
        issuer: the gate's URL; audience of wrapper-redeemed tools that name none.
    """

    catalog: Catalog
    keys: KeyRing
    issuer: str
    derive: Deriver
    clock: Callable[[], datetime]
    environment: str | None
    brokers: frozenset[str]

    def workflow(self, name: str) -> Workflow:
        """The workflow in force under this id, or RunRefused."""
        found = self.catalog.get(name) if type(name) is str else None
        if found is None:
            raise RunRefused(
                (
                    Failure(
                        Reason.WORKFLOW_UNKNOWN,
                        "workflow",
                        repr(name) if type(name) is str else type(name).__name__,
                        "the id of a loaded workflow",
                    ),
                )
            )
        return found

    def around(self) -> Surroundings:
        """The decision time and what this gate knows of its surroundings; read once per call."""
        return Surroundings(self.clock(), environment=self.environment, brokers=self.brokers)

    def audience(self, tool: Tool) -> str:
        """The tool server's resource, or this gate's own where the wrapper redeems."""
        return tool.audience or self.issuer


def stamp(kind: str, header: Header, **more: object) -> Record:
    """An audit record with who, where and which workflow; never a prompt, a token or a raw argument."""
    body = {
        "type": kind,
        "time": round(time.time(), 6),
        "tenant": header.tenant,
        "run": header.id,
        "workflow": {"id": header.workflow, "version": header.version, "digest": header.digest},
        "user": header.user.id if header.user else None,
        "agent": header.agent.id,
        "identity": {"user": header.user.identity if header.user else None, "agent": header.agent.identity},
        **more,
    }
    return Record(body)


def read(core: Core, tenant: str, run: str, known: RunState | None = None) -> Flow:
    """The run's state, from the store; where it is `known` as of an earlier moment, of its calls only what changed since.

    Raises (through the driver):
        RunRefused: missing, unreadable, or its workflow is no longer loaded.
    """
    if type(tenant) is not str or type(run) is not str:
        raise missing(type(tenant).__name__, type(run).__name__, "no names")
    try:
        op = ops.read_run(tenant, run, known.revision if known is not None else "")
    except NameRefused as error:
        raise missing(tenant, run, str(error)) from error
    record = ops.parse_read_run(op, (yield op))
    if record is None:
        raise missing(tenant, run)
    try:
        workflow = core.workflow(parse(record.header)["workflow"])
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, "unreadable header") from error
    return run_state(tenant, run, record=record, workflow=workflow, derive=core.derive, known=known)


_MAX_REASONS, _MAX_WORDS = 50, 300
_NOTHING: Mapping[str, object] = {}


def _brief(failures: tuple[Failure, ...]) -> list[Mapping[str, str]]:
    """The reasons at a length that always fits a record: a call made large must not keep its refusal off the record."""
    kept: list[Mapping[str, str]] = [
        {name: words[:_MAX_WORDS] for name, words in each.items()} for each in describe(failures[:_MAX_REASONS])
    ]
    left = len(failures) - len(kept)
    return [*kept, {"reason": "more", "field": str(left)}] if left else kept


_SHOWN = 500  # bytes of an argument that a record holds as it is


def seen(
    core: Core,
    workflow: Workflow,
    state: RunState,
    call: Call,
    around: Surroundings | None,
    *,
    values: Mapping[str, Value] | None = None,
) -> Mapping[str, object]:
    """What a decision's record holds so that it can be explained later: on how much of the run, from where, when and with which values.

    `turns` and `calls` are how many turns and redeemed calls were known; `origins` names the allowed origin of each argument;
    `environment` is the gate's and `definition` what the integration read from the tool, where there is one. With
    `around`, for what is not minted and leaves no other record: the decision time `at` and the declared arguments, in `args` as
    they are, in `hidden` as HMAC where one is sensitive, free text or long. A minted call's are in its own record, while the run lives.
    `values` are the arguments as `decide` compared them, where it says.
    """
    known: dict[str, object] = {"turns": len(state.turns), "calls": len(state.calls)}
    tool = workflow.tools.get(call.tool)
    if values is None:
        case = Case(workflow, state, call, around or core.around())
        check_arguments(case)
        values = case.values
    known["origins"] = origin_names(values, state.prompt, Earlier.of_run(state, workflow.tools))
    if core.environment:
        known["environment"] = core.environment
    if call.definition:
        known["definition"] = call.definition
    if around is not None:
        known["at"] = around.now.isoformat()
        known["args"], known["hidden"] = _shown(core, state.header.tenant, tool, call.args)
    return known


def _shown(core: Core, tenant: str, tool: Tool | None, given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """The declared arguments that a record may hold as they are, and the HMACs of the others."""
    args: dict[str, object] = {}
    hidden: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for name, rule in tool.args.items() if tool is not None else ():
        rules.setdefault(root(name), []).append(rule)
    for name, inside in rules.items():
        if name in given:
            data = canonical(given[name])
            if given[name] is None and all(rule.nullable for rule in inside):
                args[name] = None  # as left out
            elif len(data) > _SHOWN or b"{" in data or any(map(_kept_back, inside)):  # a structure may hold what no rule names
                hidden[name] = core.keys.masked(tenant, data)
            else:
                args[name] = given[name]
    return args, hidden


def _kept_back(rule: Rule) -> bool:
    """A value that no record holds as it is: a sensitive one, or free text that nothing narrows."""
    return rule.sensitive or (rule.type in {"text", "json"} and not (rule.one_of or rule.equals or rule.pattern or rule.glob))


def deny(header: Header, call: Call, failures: tuple[Failure, ...], known: Mapping[str, object] = _NOTHING) -> Flow:
    """Record a refusal, with what was `seen`. It stands even when the record cannot be written: then that is one more reason."""
    try:
        yield stamp(
            "decision",
            header,
            decision="deny",
            tool=call.tool,
            tool_call_id=call.id,
            arguments_digest=call.arguments_digest,
            reasons=_brief(failures),
            **known,
        )
    except AuditUnavailable as error:
        return Deny((*failures, Failure(Reason.AUDIT, "audit", str(error), "a durable audit record")))
    return Deny(failures)
