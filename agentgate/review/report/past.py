"""Explains a past decision: found in the audit log by any of its ids, with what the store still
holds of its run.

Rules: the verdicts are the record's; nothing is decided again. While the store holds the run,
the user's words, the results and the minted arguments are known; afterwards only the record, in
which sensitive values and free text are digests. Arguments given by hand count only if their
digest is the record's. Nothing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

from agentgate.audit.questions import NotFound
from agentgate.errors import CanonicalError, NameRefused, WorkflowError
from agentgate.explain.evidence import Origin
from agentgate.explain.explanation import Explanation, Outcome, Row, Verdict
from agentgate.explain.listing import Condition
from agentgate.explain.remedy import Remedy
from agentgate.explain.verdicts import NOT_KEPT, Kept, code_of, explain_kept
from agentgate.gate.state import Readings, prompt_of, run_state
from agentgate.identity.proven import agent_json, restore_agent, restore_user
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.catalog import APPROVALS, roles_of, workflow_files
from agentgate.loading.definition import load_document, read_file
from agentgate.loading.yaml_nodes import Document, read_yaml
from agentgate.stores import Store, ops
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.conditions import CONFIGURED
from agentgate.workflow.model import Workflow
from agentgate.workflow.nested import root

Record = Mapping[str, Any]
STORE_SECONDS = 5.0
_REASONS = {reason.value: reason for reason in Reason}


def decision_of(records: Sequence[Record]) -> Record:
    """The decision on a call that counted: the newest that allowed it, else the newest. Raises
    NotFound: there is none.
    """
    decided = [record for record in records if record.get("type") == "decision"]
    if not decided:
        raise NotFound(
            "id: got a call without a decision, expected the txn, jti, hold or tool_call_id "
            "of a decision in this log"
        )
    # of those with one jti the last
    counted = {record.get("jti", n): record for n, record in enumerate(decided)}.values()
    same = [
        record
        for record in counted
        if record.get("arguments_digest") == decided[-1].get("arguments_digest")
    ]
    # a repetition decides nothing
    return next((r for r in reversed(same) if r["decision"] == "allow"), decided[-1])


def version_of(record: Record, folder: Path) -> Workflow | None:
    """The workflow version that a decision names, by its digest: a present file, or an approved
    definition. None: neither.
    """
    named = record.get("workflow", {})
    wanted = str(named.get("digest"))
    id_ = str(named.get("id"))
    version = named.get("version")
    roles = roles_of(folder)
    known = folder / APPROVALS
    candidates = [(file, False) for file in workflow_files(folder)]
    if known.is_dir() and type(version) is int:
        approved = known / id_ / str(version) / "definition.json"
        if approved.resolve().is_relative_to(known.resolve()) and approved.is_file():
            candidates.append((approved, True))
    for file, signed in candidates:
        with suppress(WorkflowError, ValueError):
            text = read_file(file)
            document = (
                Document(str(file), json.loads(text)) if signed else read_yaml(text, str(file))
            )
            workflow = load_document(document, roles, derive, signed=signed)
            if workflow.digest == wanted:
                return workflow
    return None


# --- what the store still holds of a run ------------------------------------------------------
@value_class
class Alive:
    """A run as it was when a call was decided, and the arguments that the store kept of the
    call.
    """

    state: RunState
    args: Mapping[str, Any]


def still_alive(
    store: Store, record: Record, workflow: Workflow, derive: Deriver
) -> Alive | None:
    """The run of a decision as it was then, with its turns and redeemed calls; None: the store
    no longer has it.

    Raises StoreUnavailable: the store does not answer in time. RunRefused: the run's record is
    unreadable.
    """
    tenant = str(record["tenant"])
    run = str(record["run"])
    try:
        op = ops.read_run(tenant, run)
    except NameRefused:
        return None
    stored = op.parse(store.call(op, time.monotonic() + STORE_SECONDS))
    if not stored:
        return None
    readings = Readings(derive)
    state = run_state(tenant, run, record=stored, workflow=workflow, readings=readings)
    header = state.header
    if header.succession != record.get("succession", 0):
        return None
    turns = state.turns[: _count(record, "turns", len(state.turns))]
    doubts = state.doubts[: _count({"doubts": 0, **record}, "doubts", len(state.doubts))]
    calls = state.calls[: _count(record, "calls", len(state.calls))]
    intents = readings.intents(workflow, turns, doubts, header.reader)
    prompt = prompt_of(readings, header, state.stored[: len(header.earlier)], turns, doubts)
    state = replace(
        state,
        turns=turns,
        doubts=doubts,
        intents=intents,
        prompt=prompt,
        calls=calls,
        closed=False,
    )
    heads = [parse(call.head) for call in stored.calls]
    args: Mapping[str, Any] = next(
        (
            h["args"]
            for h in heads
            if h.get("txn") == record.get("txn")
            and h.get("tool_call_id") == record["tool_call_id"]
        ),
        {},
    )
    return Alive(state, args)


def _count(record: Record, name: str, most: int) -> int:
    value = record.get(name)
    return value if type(value) is int and 0 <= value <= most else most


# --- the explanation --------------------------------------------------------------------------
def explain_record(
    record: Record,
    workflow: Workflow | None,
    alive: Alive | None,
    given: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain one decision from its record.

    `workflow`: the version it names; None: not known, so only what failed is listed. `alive`:
    what the store still holds of its run; None: nothing. `given`: the call's arguments, where
    known. Raises NotFound: these are other arguments than were decided on.
    """
    if given is not None:
        try:
            same = _digest_of(given) == record.get("arguments_digest")
        except CanonicalError as error:
            raise NotFound(f"args: {error}") from error
        if not same:
            raise NotFound(
                "args: got other arguments, expected the ones this decision was made on "
                "(their digest is on record)"
            )
    if not workflow:
        return _bare(record)
    args = {**record.get("args", {}), **(alive.args if alive else {}), **(given or {})}
    complete = _digest_of(args) == record.get("arguments_digest")
    hidden = (
        {}
        if complete
        else {
            n: f"(digest {mac})" for n, mac in record.get("hidden", {}).items() if n not in args
        }
    )
    if not complete:  # an argument with an origin was sent
        hidden |= {
            n: NOT_KEPT
            for n in map(root, map(str, record.get("origins", {})))
            if n not in args and n not in hidden
        }
    origins = {str(n): str(o) for n, o in record.get("origins", {}).items()}
    recorded = frozenset(
        name for name in (*CONFIGURED, "definition") if type(record.get(name)) is str
    )
    asked = tuple(map(str, record.get("rules", ())))
    kept = Kept(
        _decision_of(record),
        _failures_of(record),
        asked,
        hidden,
        origins,
        alive is not None,
        recorded,
    )
    tool = workflow.tools.get(str(record["tool"]))
    definition = str(record.get("definition", tool.definition if tool else ""))
    call = Call(
        str(record["tool"]), str(record["tool_call_id"]), canonical(args), args, definition
    )
    state = alive.state if alive else remains_of(record, workflow)
    explanation = explain_kept(
        workflow, state, call, _around(record, workflow, kept.failures), kept
    )
    return replace(explanation, notes=tuple(_notes(record, alive, hidden)))


def _decision_of(record: Record) -> Outcome:
    """The recorded answer; an unknown one counts as a denial."""
    return next(
        (known for known in get_args(Outcome) if known == record.get("decision")), "deny"
    )


def _failures_of(record: Record) -> tuple[Failure, ...]:
    """The recorded reasons as failures, without unknown ones and the entry that counts those
    that did not fit.
    """
    reasons = (
        (_REASONS.get(str(each.get("reason"))), each) for each in record.get("reasons", ())
    )
    return tuple(_failure(reason, each) for reason, each in reasons if reason is not None)


def _failure(reason: Reason, record: Record) -> Failure:
    field, got, expected, rule, condition = (
        str(record.get(key, "")) for key in ("field", "got", "expected", "rule", "condition")
    )
    return Failure(reason, field, got, expected, rule, {"condition": condition})


def _digest_of(args: Mapping[str, Any]) -> str:
    return digest(canonical(dict(args)))


def remains_of(record: Record, workflow: Workflow) -> RunState:
    """A run that the store no longer has, with the identities of the record."""
    identity: Mapping[str, Any] = record.get("identity", {})
    user = None
    if record.get("user"):
        tenant = str(record["tenant"])
        kind = identity.get("user", "in_process")
        user = restore_user(
            {"id": str(record["user"]), "tenant": tenant, "groups": [], "identity": kind}
        )
    agent = restore_agent(
        {
            **agent_json(Agent(str(record["agent"]))),
            "identity": identity.get("agent", "in_process"),
        }
    )
    run = str(record["run"])
    at = float(record.get("time", 0.0))
    header = Header(
        run,
        str(record["tenant"]),
        user,
        agent,
        workflow.id,
        workflow.version,
        workflow.digest,
        at,
        at,
    )
    return RunState(header, (), {}, Prompt.of((), date(2000, 1, 1)), (), "")


def _around(record: Record, workflow: Workflow, failures: tuple[Failure, ...]) -> Surroundings:
    """The decision time; the gate's other knowledge counts as allowed, unless a recorded reason
    says otherwise.
    """
    reasons = {failure.reason for failure in failures}
    clauses = [
        clause
        for _, _, clause in workflow.conditions.clauses
        if clause.configured and clause.reason not in reasons
    ]
    allowed = {key: value for clause in clauses for key, value in clause.sample({}).items()}
    at = record.get("at")
    now = (
        datetime.fromisoformat(at)
        if type(at) is str
        else datetime.fromtimestamp(float(record.get("time", 0.0)), UTC)
    )
    return Surroundings(
        now,
        brokers=frozenset(
            t.upstream.broker
            for t in workflow.tools.values()
            if t.upstream and Reason.UPSTREAM not in reasons
        ),
        **{
            name: str(record[name]) if name in record else allowed.get(name)
            for name in CONFIGURED
        },
    )


def _notes(record: Record, alive: Alive | None, hidden: Mapping[str, str]) -> Iterator[str]:
    if not alive:
        yield (
            "the run's record is gone or not at hand: the user's words and the results of "
            "earlier calls are not shown"
        )
    if hidden:
        yield f"only a digest is known of: {', '.join(hidden)} (give them with --args to see the rest)"
    more = next(
        (
            each.get("field")
            for each in record.get("reasons", ())
            if each.get("reason") == "more"
        ),
        None,
    )
    if more is not None:
        yield f"{more} more reasons did not fit the record"


def _bare(record: Record) -> Explanation:
    """The explanation from a record alone: the reasons, and the values' origins."""
    decision = _decision_of(record)
    failures = _failures_of(record)
    rows = list[Row]()
    failed = {f.field for f in failures}
    for f in failures:
        condition = Condition(
            "store", f.field, str(f.reason), f.expected, 0, frozenset({f.reason})
        )
        verdict: Verdict = "failed" if decision == "deny" else "asks"
        rows.append(
            Row(
                condition,
                verdict,
                f.got,
                f.rule,
                would_pass=Remedy(f"{f.field}: {f.expected}"),
                failures=(f,),
            )
        )
    for name, origin in record.get("origins", {}).items():
        if f"args.{name}" not in failed:
            condition = Condition(
                "origin", f"args.{name}", "from", "an allowed origin", 0, frozenset(), str(name)
            )
            value = str(record.get("args", {}).get(name, NOT_KEPT))
            rows.append(Row(condition, "met", value, "", (Origin(str(origin), True, value),)))
    named = record.get("workflow", {})
    call = (str(record["tool"]), str(record["tool_call_id"]))
    version = f"{named.get('id')} v{named.get('version')}"
    notes = (
        "this version of the workflow is not at hand (--workflows): only what the record says is listed",
    )
    code = code_of(decision, failures)
    return Explanation(
        decision,
        code,
        *call,
        version,
        str(named.get("digest")),
        "",
        (),
        tuple(rows),
        notes=notes,
    )
