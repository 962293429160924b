"""Questions to a log, answered from what was verified (`agentgate.audit.index`): which calls there were, and one call's story.

As a program it answers a question of a served gate, JSON on its standard input (`answer_question`): reading a large log takes seconds of a
processor, and the calls of the gate have a deadline.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from agentgate.audit.index import RecordIndex, RecordRow, read_rows, read_whole
from agentgate.audit.verify import LogEvidence, LogVerdict, Watch, verify
from agentgate.errors import AgentGateError, ConfigError
from agentgate.values.times import seconds

PAGE = 50  # records in an answer to a served gate
SHORT = 12  # characters of a hold's id, as lists show it


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
        raise ConfigError("time", text, "a duration (7d, 12h) or a date (2026-05-31, 2026-05-31T10:00)") from None


class RowFilter(NamedTuple):
    """Which rows are wanted: those with these values, in these tenants (None: in any or none), from then to then."""

    values: Mapping[str, str]
    since: float = 0.0
    until: float = float("inf")
    tenants: Collection[str] | None = None

    def rows(self, log: VerifiedLog) -> Iterator[RecordRow]:
        """Those of a log. A decision that another of the same `jti` took back is none of them."""
        taken_back = {(row.run, row.jti) for row in log.rows(b'"deny"') if row.decision == "deny" and row.jti}
        places = [(RecordRow._fields.index(name), value) for name, value in self.values.items()]
        rarest = sorted(map(orjson.dumps, self.values.values()), key=len)[-1:]
        for row in log.rows(*rarest):
            here = self.since <= row.time <= self.until and (self.tenants is None or row.tenant in self.tenants)
            counts = row.decision != "allow" or (row.run, row.jti) not in taken_back
            if here and counts and all(row[place] == value for place, value in places):
                yield row


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A log that was read.

    Attributes:
        verdict: what was found of it.
        checked: against its seals; else only chains were looked at.
    """

    verdict: LogVerdict
    checked: bool

    @classmethod
    def read(cls, directories: Sequence[Path], evidence: LogEvidence, cache: Path, watch: Watch[Any] = lambda work, _: work) -> Self:
        """Verify it. Raises AgentGateError, OSError: it cannot be read."""
        return cls(verify(directories, evidence, watch, index=RecordIndex(cache)), bool(evidence.keys))

    def rows(self, *wanted: bytes) -> Iterator[RecordRow]:
        """As `read_rows`, of all of it."""
        for each in self.verdict.segments:
            if each.entry:
                yield from read_rows(Path(each.entry), each.file, wanted)

    def story(self, name: str, *, run: str = "", wanted: Callable[[RecordRow], bool] = lambda _: True) -> list[RecordRow]:
        """A call's records in their order, the opening of its run first: by txn, jti, hold (12 characters will do) or tool_call_id.

        Raises:
            NotFound: there is no such call, or there are several.
        """
        named = [row for row in self.rows(orjson.dumps(name)[:-1]) if row.tool_call_id and run in {"", row.run} and wanted(row)]
        # the gate's own ids go before those of a runtime, which may give a call the id of another
        ours = [row for row in named if name in {row.txn, row.jti, (row.hold or "")[: max(SHORT, len(name))]}]
        found = (ours or [row for row in named if row.tool_call_id == name]) if name else []
        calls = {(row.tenant, row.run, row.tool_call_id) for row in found}
        if len(calls) != 1:
            if not calls:
                raise NotFound(f"id: got {name!r}, expected the txn, jti, hold or tool_call_id of a decision in this log")
            listed = ", ".join(f"--tenant {each[0]} --run {each[1]}" for each in sorted(calls, key=str)[:5])
            raise NotFound(f"id: {name!r} names {len(calls)} calls; say which: {listed}")
        ((tenant, its, call),) = calls
        mine = sorted((row for row in self.rows(orjson.dumps(its)) if (row.tenant, row.run) == (tenant, its)), key=lambda row: row.time)
        holds = {row.hold for row in mine if row.tool_call_id == call} - {None}
        about = [row for row in mine if row.tool_call_id == call or row.hold in holds]
        opened = [row for row in mine if row.type in {"run_opened", "run_renewed"} and row.time <= about[0].time]
        return [*opened[-1:], *about]


def answer_question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The newest records that are wanted, from a place on backwards; or those of a `call`, the oldest first; none: there is no such call.

    What was verified is kept beside the keys, since whoever can write in the log's directory must not change it.

    Raises:
        AgentGateError, OSError: the log cannot be read.
    """
    keys = Path(asked["keys"])
    log = VerifiedLog.read([Path(asked["audit"])], LogEvidence.of([keys]), keys / "audit-index")
    found, after = list[RecordRow](), tuple(asked["after"])
    if asked["call"]:
        with suppress(NotFound):
            found = log.story(asked["call"], run=asked["run"], wanted=lambda row: row.tenant in asked["tenants"])
    else:
        rows = RowFilter(asked["values"], asked["since"], asked["until"], asked["tenants"]).rows(log)
        found = nlargest(PAGE, (row for row in rows if not after or row.place < after), key=lambda row: row.place)
    following = "~".join(map(str, found[-1].place)) if len(found) == PAGE and not asked["call"] else None
    wrong = sorted({each.finding.name.lower() for each in log.verdict.findings if each.finding})
    return {"findings": wrong, "next": following, "records": read_whole(found)}


if __name__ == "__main__":
    os.nice(10)
    try:
        sys.stdout.buffer.write(orjson.dumps(answer_question(orjson.loads(sys.stdin.buffer.read()))))
    except (AgentGateError, OSError) as error:
        sys.exit(str(error))
