"""What another version of a workflow would have decided on recorded calls, as far as their
records tell.

Rules: each call by itself, after what happened before it, as it was allowed, or else decided
last. What the version said where it observed goes first. Else it refuses for sure what it
refuses by values that are on record; and each difference that hangs on what no record has (the
user's words, results, people, limits, hidden values) leaves the answer open. Such calls are
counted apart, by that difference; nothing is guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from agentgate.audit.questions import time_of
from agentgate.decision.case import Case
from agentgate.decision.decide import judge
from agentgate.diff import compare
from agentgate.errors import AgentGateError
from agentgate.review.report.past import Record, remains_of
from agentgate.values.canonical import canonical
from agentgate.values.request import Call, Surroundings
from agentgate.workflow.clauses.conditions import CONDITIONS, CONFIGURED, DataClass
from agentgate.workflow.model import Workflow
from agentgate.workflow.nested import root

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


def decide_again(records: Iterable[Record], old: Workflow, new: Workflow) -> dict[str, Any]:
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


def retrial_lines(counted: Mapping[str, Any], since: str) -> Iterator[str]:
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
    yield f"of {untold} of {counted['calls']} calls it cannot be told: {told['untold']}"


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
    known: dict[str, Any] = {name: record.get(name) for name in CONFIGURED}
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
