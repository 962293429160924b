"""What a gate is made of, and the two things all its flows do: read a run, and put a refusal on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agentgate.canonical import parse
from agentgate.catalog import Catalog
from agentgate.checks import describe
from agentgate.decision import Deny, Failure, Reason
from agentgate.errors import AuditUnavailable, NameRefused, RunRefused
from agentgate.intents import Deriver
from agentgate.keys import KeyRing
from agentgate.request import Call, Header, Surroundings
from agentgate.runs import missing, run_state
from agentgate.steps import Flow, Record
from agentgate.stores import ops
from agentgate.workflow import Tool, Workflow


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


def read(core: Core, tenant: str, run: str) -> Flow:
    """The run's state and its workflow, from the store.

    Raises (through the driver):
        RunRefused: missing, unreadable, or its workflow is no longer loaded.
    """
    if type(tenant) is not str or type(run) is not str:
        raise missing(type(tenant).__name__, type(run).__name__, "no names")
    try:
        op = ops.read_run(tenant, run)
    except NameRefused as error:
        raise missing(tenant, run, str(error)) from error
    record = ops.parse_read_run(op, (yield op))
    if record is None:
        raise missing(tenant, run)
    try:
        workflow = core.workflow(parse(record.header)["workflow"])
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, "unreadable header") from error
    return run_state(tenant, run, record=record, workflow=workflow, derive=core.derive)


_MAX_REASONS, _MAX_WORDS = 50, 300


def _brief(failures: tuple[Failure, ...]) -> list[Mapping[str, str]]:
    """The reasons at a length that always fits a record: a call made large must not keep its refusal off the record."""
    kept: list[Mapping[str, str]] = [
        {name: words[:_MAX_WORDS] for name, words in each.items()} for each in describe(failures[:_MAX_REASONS])
    ]
    left = len(failures) - len(kept)
    return [*kept, {"reason": "more", "field": str(left)}] if left else kept


def deny(header: Header, call: Call, failures: tuple[Failure, ...]) -> Flow:
    """Record a refusal. It stands even when the record cannot be written: then that is one more reason."""
    try:
        yield stamp(
            "decision",
            header,
            decision="deny",
            tool=call.tool,
            tool_call_id=call.id,
            arguments_digest=call.arguments_digest,
            reasons=_brief(failures),
        )
    except AuditUnavailable as error:
        return Deny((*failures, Failure(Reason.AUDIT, "audit", str(error), "a durable audit record")))
    return Deny(failures)
