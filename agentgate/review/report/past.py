"""Explains a past decision, found in the audit log by any of its ids, with what the store still
holds of its run; or a hypothetical one, given by prompt and arguments, or as a case of the test
file beside the workflow.

Rules: the verdicts are the record's; nothing is decided again. While the store holds the run,
the user's words, the results and the minted arguments are known; afterwards only the record, in
which sensitive values and free text are digests. Arguments given by hand count only if their
digest is the record's. Nothing is written.

What another version would have decided is told as far as the records do: each call by itself,
after what happened before it, as it was allowed, or else decided last. What the version said
where it observed goes first. Else it refuses for sure what it refuses by values that are on
record; and each difference that hangs on what no record has (the user's words, results, people,
limits, hidden values) leaves the answer open. Such calls are counted apart, by that difference;
nothing is guessed.

Of a hypothetical call, what is not given is filled with values that the workflow allows, and the
explanation names them. Arguments are sent as given: a missing one is left out, never filled, and
a null is sent.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import orjson

from agentgate.audit.questions import NotFound, time_of
from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.decide import decide, judge
from agentgate.diff import compare
from agentgate.errors import (
    AgentGateError,
    CanonicalError,
    ConfigError,
    NameRefused,
    WorkflowError,
)
from agentgate.explain.evidence import Origin
from agentgate.explain.explanation import (
    NOT_KEPT,
    Explanation,
    Kept,
    Outcome,
    Row,
    Verdict,
    bare_row,
    code_of,
    explain,
    explain_kept,
)
from agentgate.explain.listing import Condition
from agentgate.gate.state import Readings, prompt_of, run_state
from agentgate.identity.proven import agent_json, restore_agent, restore_user
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.catalog import APPROVALS, roles_of, workflow_files
from agentgate.loading.definition import load_document, read_file
from agentgate.loading.source import WorkflowText
from agentgate.loading.yaml_nodes import Document, did_you_mean, read_yaml
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, scenes
from agentgate.review.scenarios.values import flatten
from agentgate.stores import Store, ops
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.refusal import Failure, Failures, Reason
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.values.value_class import Json, Values, value_class
from agentgate.values.visible import visible
from agentgate.workflow.clauses.conditions import CONDITIONS, CONFIGURED, DataClass
from agentgate.workflow.model import Workflow, root

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
    args: Record


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
    args: Record = next(
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
    given: Record | None = None,
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
    origins = {str(n): str(o) for n, o in record.get("origins", {}).items()}
    hidden = dict[str, str]()
    if _digest_of(args) != record.get("arguments_digest"):
        hidden = {n: f"(digest {mac})" for n, mac in record.get("hidden", {}).items()}
        for name in origins:  # an argument with an origin was sent
            hidden.setdefault(root(name), NOT_KEPT)
        hidden = {n: shown for n, shown in hidden.items() if n not in args}
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


def _failures_of(record: Record) -> Failures:
    """The recorded reasons as failures, without unknown ones and the entry that counts those
    that did not fit.
    """
    reasons = (
        (_REASONS.get(str(each.get("reason"))), each) for each in record.get("reasons", ())
    )
    return tuple(_failure(reason, each) for reason, each in reasons if reason is not None)


def _failure(reason: Reason, record: Record) -> Failure:
    field, got, expected, rule, condition = (
        str(record.get(key, "")) for key in "field got expected rule condition".split()
    )
    return Failure(reason, field, got, expected, rule, {"condition": condition})


def _digest_of(args: Record) -> str:
    return digest(canonical(dict(args)))


def remains_of(record: Record, workflow: Workflow) -> RunState:
    """A run that the store no longer has, with the identities of the record."""
    identity: Record = record.get("identity", {})
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


def _around(record: Record, workflow: Workflow, failures: Failures) -> Surroundings:
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
        brokers=frozenset() if Reason.UPSTREAM in reasons else workflow.brokers,
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
    failed = {f.field for f in failures}
    verdict: Verdict = "failed" if decision == "deny" else "asks"
    rows = [bare_row(f, verdict, str(f.reason), f"{f.field}: {f.expected}") for f in failures]
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


# --- what another version would have decided --------------------------------------------------
# another catalogue may know another class of the same call
_ON_RECORD = [kind for kind in CONDITIONS if kind is not DataClass]
_SURE = {
    *(
        "tool_unknown tool_definition argument_unknown argument_missing argument_form "
        "argument_value tenant workflow_expired"
    ).split(),
    *(kind.reason for kind in _ON_RECORD),
}
_TOLD = re.compile(  # the differences that those tell of, and those that decide nothing
    rf"args\..*\.(is|in|pattern|glob|text|min|max|max_items)|conditions\.({'|'.join(kind.field for kind in _ON_RECORD)})|tool|tenants"
    r"|expires|(mode|risk|title|owners|version|token)(\..*)?"
)


def decide_again(records: Iterable[Record], old: Workflow, new: Workflow) -> Json:
    """Of the workflow's calls how many would be decided `otherwise`, and of how many it cannot
    be told (`untold`), by what it hangs on.

    `records`: of its decisions and observations, in any order; no more of each call is kept
    than what came out.
    """
    diff = compare(old, new)
    found = dict[str, tuple[tuple[bool, float], str, str]]()
    differing = [
        *((each.tool, each.field) for each in (*diff.wider, *diff.narrower)),
        *(("", path) for path in diff.read_yourself if not path.endswith(".record")),
    ]
    for record in (each for each in records if each.get("type") in ("decision", "observation")):
        call = f"{record.get('run')} {record.get('tool_call_id')}"
        told = ("", "")
        # a repetition of what was allowed decides nothing
        at = record.get("decision") == "allow", time_of(record)
        try:
            fields = [
                name
                for tool, name in differing
                if tool in {"", record["tool"]} or name.startswith("facts.")
            ]
            if record["type"] == "decision":
                known = record["workflow"]["digest"] == old.digest and {
                    "at",
                    "in_force",
                } & record.keys() == {"at"}
                told = (
                    _decided_again(record, new, fields)
                    if known
                    else ("untold", "that other versions decided")
                )
            elif record["observed"]["digest"] == new.digest:
                told = _as_observed(record, fields)
        # whoever wrote it
        except (AgentGateError, KeyError, TypeError, ValueError, AttributeError):
            call = f"{call}?"
            told = ("untold", "that no gate recorded so")
        if told[0] and at >= found.get(call, (at,))[0]:
            found[call] = at, *told
    counted = {
        name: Counter(what for _, each, what in found.values() if each == name)
        for name in ("otherwise", "untold")
    }
    return {
        "calls": len(found),
        **{name: dict(each.most_common()) for name, each in counted.items()},
    }


def retrial_lines(counted: Values, since: str) -> Iterator[str]:
    """What came out, in words."""
    told = {
        name: ", ".join(f"{count} {what}" for what, count in counted[name].items()) or "none"
        for name in ("otherwise", "untold")
    }
    otherwise, untold = (sum(counted[name].values()) for name in told)
    yield (
        f"and {otherwise} recorded calls of the last {since} would be decided otherwise: "
        f"{told['otherwise']}"
    )
    yield f"of {untold} of {counted['calls']} calls the log cannot tell: {told['untold']}"


def _as_observed(record: Record, differing: list[str]) -> tuple[str, str]:
    was = record["decision"]
    would = record.get("would", "")
    # later, by the store and by people
    settled = {"deny": (), "allow": ("limits.",)}.get(would, ("limits.", "step_up."))
    unknown = [name for name in differing if was == would and name.startswith(settled)]
    if "unknown" in record or unknown:
        return "untold", f"for {record.get('unknown') or unknown[0]}"
    return _compared(
        record,
        was,
        would,
        ", ".join(each["field"] for each in record["reasons"]) or "no reason is left",
    )


def _compared(record: Record, was: str, would: str, why: str) -> tuple[str, str]:
    return "same" if was == would else "otherwise", f"{record['tool']} {was} -> {would} ({why})"


def _decided_again(record: Record, new: Workflow, differing: list[str]) -> tuple[str, str]:
    hidden = {*record.get("hidden", ())}
    args = {**dict.fromkeys(hidden, ""), **record.get("args", {})}
    call = Call(
        record["tool"],
        record["tool_call_id"],
        canonical(args),
        args,
        record.get("definition", ""),
    )
    known: Json = {name: record.get(name) for name in CONFIGURED}
    around = Surroundings(datetime.fromisoformat(record["at"]), **known)
    case = Case(new, remains_of(record, new), call, around)
    judge(case)
    was = "step_up" if record.get("releases") else record.get("would", record["decision"])
    for failure in case.denied:
        if failure.reason in _SURE and root(failure.argument) not in hidden:
            return _compared(record, was, "deny", failure.field)
    untold = [
        name for name in differing if not _TOLD.fullmatch(name) or hidden & {*name.split(".")}
    ]
    if was == "deny":
        again = [
            each["field"] for each in record["reasons"] if each["reason"] in _SURE or not untold
        ]
        if any(not any(field in name for name in differing) for field in again):
            return "same", ""  # what refused it does not differ
        untold.append("what is behind a refusal that differs")
    return ("untold", f"for {untold[0]}") if untold else ("same", "")


# --- a hypothetical call ----------------------------------------------------------------------
_LISTED = 30  # filled values that an explanation names
_CUT = 80  # characters of each


def arguments(text: str) -> Json:
    """The arguments of a call, from JSON. Raises ConfigError: not a JSON object."""
    try:
        args = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError("args", text[:_CUT], f"a JSON object ({error})") from error
    if type(args) is not dict:
        raise ConfigError("args", text[:_CUT], 'a JSON object, such as {"order_id": "ORD-1"}')
    return args


def changes(pairs: Sequence[str]) -> Json:
    """``key=value`` pairs as changes of a scene: a value is text, unless it is a JSON list,
    object, boolean or null (null: left out).

    Raises ConfigError: a pair without ``=``, or a key given twice.
    """
    changed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key or key in changed:
            raise ConfigError(
                "set",
                pair[:_CUT],
                "key=value with each key once, such as facts.orders.get.total=80.00",
            )
        changed[key] = text
        if text.startswith(("[", "{")) or text in {"true", "false", "null"}:
            with suppress(orjson.JSONDecodeError):
                changed[key] = orjson.loads(text)
    return changed


def stated(
    workflow: Workflow, tool: str, args: Values, prompts: Sequence[str], more: Values
) -> Scene:
    """A call exactly as given: its arguments are sent as they are, nulls too, and no other is.

    `prompts`: the user's turns, oldest first; none: filled. `more`: other keys of a scene
    (``tenant``, ``time``, ``who.user.groups``, ``facts.orders.get.total``, ...); ``args.``
    among them changes an argument (null: left out).

    Raises SceneError: a key or value that no scene can have.
    """
    declared = workflow.tools[tool].args if tool in workflow.tools else {}
    left_out = {
        f"args.{name}": None for name in sorted(set(map(root, declared))) if name not in args
    }
    base = {"call": tool, **left_out, **{f"args.{name}": value for name, value in args.items()}}
    if prompts:
        base["prompt"] = list(prompts)
    scene = Scene.of(workflow, {**base, **more})
    changed = {
        root(key.removeprefix("args."))
        for key, _, _ in flatten(more)
        if key.startswith("args.")
    }
    sent = {name: value for name, value in args.items() if name not in changed}
    return scene.sending(
        {**{name: value for name, value in scene.call.args.items() if name not in sent}, **sent}
    )


def case_of(source: WorkflowText, workflow: Workflow, name: str, more: Values) -> Scene:
    """A case of the test file beside a workflow (``base``: its base), with changes.

    Raises ConfigError: no test file, or no such case. WorkflowError: the test file is wrong.
    SceneError: a change is wrong.
    """
    if source.tests is None:
        raise ConfigError(
            "case", name, f"a test file beside {source.name} (its name with .test.yaml)"
        )
    cases = scenes(workflow, read_tests(source.tests, f"tests of {source.name}"))
    by_name = {case.name: scene for case, scene in cases}
    scene = cases[0][1] if name == "base" else by_name.get(name)
    if not scene:
        near = did_you_mean(name, by_name)
        raise ConfigError(
            "case",
            name,
            "base, or one of "
            + "; ".join(list(by_name)[1:20])
            + (f" ({near})" if near else ""),
        )
    return scene.set(more) if more else scene


def answer(scene: Scene) -> Explanation:
    """Explain a scene's decision, with the scene's answers of the store, and name what was
    filled.
    """
    workflow = scene.workflow
    settled = scene.decide()
    policy = decide(workflow, scene.run, scene.call, scene.around)
    later = (
        settled.failures if isinstance(settled, Deny) and isinstance(policy, Eligible) else ()
    )
    explanation = explain(workflow, scene.run, scene.call, scene.around, later)
    notes = [f"could not have come about: {failure}" for failure in scene.unreached]
    tool = workflow.tools.get(scene.call.tool)
    secret = (
        {f"args.{rule.name}" for rule in tool.args.values() if rule.sensitive}
        if tool
        else set[str]()
    )
    filled = [
        f"{key} = {visible(value, _CUT)}"
        for key, value in scene.filled.items()
        if value is not None and key not in secret
    ]
    if filled:
        more = f" and {len(filled) - _LISTED} more" if len(filled) > _LISTED else ""
        notes.append("nobody said, so made up: " + ", ".join(filled[:_LISTED]) + more)
    return replace(explanation, notes=(*explanation.notes, *notes))
