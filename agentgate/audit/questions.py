"""Questions to a log that was verified: which calls there were, and one call's story.

As a program it answers a question of a served gate, JSON on its standard input
(`answer_question`): reading a large log takes seconds of a processor, and the calls of the gate
have a deadline.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from heapq import nlargest
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from agentgate.audit.seen import open_cache
from agentgate.audit.segment import open_segment
from agentgate.audit.verify import LogEvidence, LogVerdict, verify
from agentgate.errors import AgentGateError, ConfigError
from agentgate.values.times import seconds

Record = Mapping[str, Any]
Tenants = Collection[str] | None  # None: all, and records of none
# that records are looked for by
FIELDS = ("tool", "decision", "user", "agent", "workflow", "type")
PAGE = 50  # records in an answer to a served gate


class NotFound(AgentGateError):
    """No decision, or more than one call, has this id (what it got, what to do next)."""


def read_moment(text: str, otherwise: float) -> float:
    """A time as POSIX seconds: so long ago, or a date. Raises ConfigError."""
    if not text:
        return otherwise
    if (ago := seconds(text)) is not None:
        return time.time() - ago
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise ConfigError(
            "time", text, "a duration (7d, 12h) or a date (2026-05-31, 2026-05-31T10:00)"
        ) from None


def time_of(record: Record) -> float:
    """When a record was written; 0 where no time stands there, as in a line that nobody sealed
    anything may stand.
    """
    at: Any = record.get("time")
    return float(at) if type(at) in {int, float} else 0.0


def value_of(record: Record, name: str) -> Any:
    """A field of a record; of its workflow the id."""
    value = record.get(name)
    return value.get("id") if name == "workflow" and isinstance(value, dict) else value


def place_of(record: Record) -> str:
    """Where a record stands among all of a log, so that these sort as they do."""
    return f"{time_of(record):017.6f}~{record['writer']}~{record['seq']:09}"


def search_log(log: LogVerdict, *wanted: bytes) -> Iterator[Record]:
    """The records of a log that was verified in whose line one of these stands, each with its
    ``writer`` and ``seq``; without any, all.
    """
    for each in log.segments:
        with open_segment(Path(each.file)) if each.file else BytesIO() as lines:
            for line in islice(lines, each.records):
                if not wanted or any(words in line for words in wanted):
                    value = orjson.loads(line)
                    value["record"] |= {"writer": each.writer, "seq": value["seq"]}
                    yield value["record"]


def find_records(
    log: LogVerdict,
    values: Mapping[str, str],
    since: float = 0.0,
    until: float = float("inf"),
    tenants: Tenants = None,
) -> Iterator[Record]:
    """Those with these values (what is empty: any), then, of these tenants, but no allowance
    that a refusal of its `jti` took back.
    """
    taken_back = find_taken_back(log)
    values = {name: value for name, value in values.items() if value}
    rarest = sorted(map(orjson.dumps, values.values()), key=len)[-1:]
    for record in search_log(log, *rarest):
        here = since <= time_of(record) <= until and (
            tenants is None or record.get("tenant") in tenants
        )
        if (
            here
            and not is_taken_back(record, taken_back)
            and all(value_of(record, name) == value for name, value in values.items())
        ):
            yield record


def find_taken_back(log: LogVerdict) -> Collection[str]:
    """Run and `jti` of the calls whose last decision is a refusal: of several decisions with
    one `jti` the last counts.
    """
    return {
        _attempt_of(record)
        for record in search_log(log, b'"decision":"deny"')
        if record.get("jti")
    }


def is_taken_back(record: Record, taken_back: Collection[str]) -> bool:
    """Whether a record is an allowance that was taken back."""
    return record.get("decision") == "allow" and _attempt_of(record) in taken_back


def _attempt_of(record: Record) -> str:
    return f"{record.get('run')} {record.get('jti')}"


def find_story(
    log: LogVerdict, name: str, run: str = "", tenants: Tenants = None
) -> list[Record]:
    """A call's records in their order, the opening of its run first: by txn, jti, hold (12
    characters will do) or tool_call_id.

    Raises:
        NotFound: there is no such call of these tenants, or there are several.
    """
    rows = search_log(log, orjson.dumps(name)[:-1])
    named = [
        r
        for r in rows
        if name
        and _call_of(r)
        and run in ("", r.get("run"))
        and (tenants is None or r["tenant"] in tenants)
    ]
    # the gate's own ids go before those of a runtime, which may give a call the id of another
    ours = [
        r
        for r in named
        if name in (r.get("txn"), r.get("jti"), str(r.get("hold", ""))[: max(12, len(name))])
    ]
    calls = {
        _call_of(record) for record in ours or named if ours or record["tool_call_id"] == name
    }
    if len(calls) > 1:
        listed = ", ".join(
            f"--tenant {tenant} --run {its}" for tenant, its, _ in sorted(calls)[:5]
        )
        raise NotFound(f"id: {name!r} names {len(calls)} calls; say which: {listed}")
    if not calls:
        raise NotFound(
            f"id: got {name!r}, expected the txn, jti, hold or tool_call_id of a decision in this log"
        )
    ((tenant, its, call),) = calls
    own = (
        record
        for record in search_log(log, orjson.dumps(its))
        if (record.get("tenant"), record.get("run")) == (tenant, its)
    )
    mine = sorted(own, key=time_of)
    holds = [
        record["hold"]
        for record in mine
        if record.get("tool_call_id") == call and record.get("hold")
    ]
    about = [
        record
        for record in mine
        if record.get("tool_call_id") == call or record.get("hold") in holds
    ]
    opened = [
        r
        for r in mine
        if r.get("type") in ("run_opened", "run_renewed") and time_of(r) <= time_of(about[0])
    ]
    return [*opened[-1:], *about]


def _call_of(record: Record) -> tuple[str, ...]:
    """Tenant, run and id of a record's call; empty: it has none."""
    call = [record.get(name) for name in ("tenant", "run", "tool_call_id")]
    return tuple(map(str, call)) if all(type(each) is str for each in call) else ()


def answer_question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The newest records that are wanted, from a place on backwards; or those of a `call`, the
    oldest first; none: there is no such call.

    What was verified is kept beside the keys, since whoever can write in the log's directory
    must not change it.

    Raises:
        AgentGateError, OSError: the log cannot be read.
    """
    keys = Path(asked["keys"])
    log = verify(
        [Path(asked["audit"])], LogEvidence.of([keys]), cache=open_cache(keys / "audit-seen")
    )
    found = list[Record]()
    after = asked["after"]
    if asked["call"]:
        with suppress(NotFound):
            found = find_story(log, asked["call"], asked["run"], asked["tenants"])
    else:
        values = {name: asked[name] for name in FIELDS}
        fitting = find_records(log, values, asked["since"], asked["until"], asked["tenants"])
        found = nlargest(
            PAGE,
            (each for each in fitting if not after or place_of(each) < after),
            key=place_of,
        )
    following = place_of(found[-1]) if len(found) == PAGE and not asked["call"] else None
    wrong = sorted({each.finding.name.lower() for each in log.findings if each.finding})
    return {"findings": wrong, "next": following, "records": found}


if __name__ == "__main__":
    os.nice(10)
    try:
        sys.stdout.buffer.write(
            orjson.dumps(answer_question(orjson.loads(sys.stdin.buffer.read())))
        )
    except (AgentGateError, OSError) as error:
        sys.exit(str(error))
