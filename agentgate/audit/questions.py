"""Questions to a log that was verified: which calls there were, one call's story, how
many were allowed, held and refused; and records in the forms of others.

As a program it answers a question of a served gate, JSON on its standard input
(`answer_question`): reading a large log takes seconds of a processor, and the calls of the gate
have a deadline.

In ``forms.json`` (OCSF 1.3, API Activity 6003, and CEF) ``$FIELD`` is a field of the record, a
list the first of its members that is there, and a table with the name "$" translates a field.
What the record has not is left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from heapq import nlargest
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from agentgate.audit.segment import NO_GZIP, Content, open_segment, writer_of
from agentgate.audit.verify import (
    LogEvidence,
    LogVerdict,
    Verified,
    drop_entries,
    open_cache,
    spread,
    verify,
)
from agentgate.errors import AgentGateError, AuditDamaged, ConfigError
from agentgate.values.canonical import MAX_BYTES
from agentgate.values.times import seconds

T = TypeVar("T")
Record = Mapping[str, Any]
Words = Sequence[bytes]  # that stand in one line
Tenants = Collection[str] | None  # None: all, and records of none
# that records are looked for by
FIELDS = "tool decision user agent workflow type".split()
PAGE = 50  # records in an answer to a served gate
_DENIED = b'"decision":"deny"', b'"jti":"'
read_row = orjson.loads  # what `find_rows` found
_AT_ONCE = 256 << 10  # bytes


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


def ask_log(
    log: Callable[[], LogVerdict], question: Callable[[LogVerdict], T], cache: Path
) -> tuple[LogVerdict, T]:
    """What was found of a log, and what it answers. All that is read of it are bytes that were
    verified, now or before.

    Raises:
        AuditDamaged, OSError: it cannot be read, or changes again and again meanwhile.
    """
    for _ in range(2):
        found = log()
        try:
            return found, question(found)
        except AuditDamaged as error:
            drop_entries(cache, writer_of(Path(error.file)))
    return (found := log()), question(found)


def find_lines(wanted: Iterable[Words], each: Verified) -> Iterable[bytes]:
    """The lines of a verified segment in which all of some words stand, each once.

    Raises:
        AuditDamaged: it is no longer what was verified.
    """
    found = dict[bytes, None]()
    content = Content()
    path = Path(each.file)
    try:
        with open_segment(path) as file:
            while content.size < each.size and (
                lines := file.read(min(_AT_ONCE, each.size - content.size))
            ):
                if not lines.endswith(b"\n"):
                    lines += file.readline(MAX_BYTES)
                content.take(lines)
                for words in wanted:
                    found |= dict.fromkeys(_matching(lines, *words))
            more = path.suffix == ".gz" and not (each.finding or each.torn) and file.read(1)
    except (*NO_GZIP, FileNotFoundError) as error:
        raise AuditDamaged(each.file, 0, str(error), "what was verified") from error
    if more or content.digest != each.content:
        raise AuditDamaged(each.file, 0, "other bytes", "those that were verified")
    return found


def _matching(lines: bytes, first: bytes, *others: bytes) -> Iterator[bytes]:
    at = lines.find(first)
    while at >= 0:
        end = lines.find(b"\n", at)
        line = lines[lines.rfind(b"\n", 0, at) + 1 : end]
        if all(words in line for words in others):
            yield line
        at = lines.find(first, end)


def read_segments(log: LogVerdict, read: Callable[[Verified], T]) -> Iterator[T]:
    """What a function makes of each segment that is there."""
    there = [each for each in log.segments if each.size]
    return spread(read, there, sum(each.size for each in there))


def search_log(log: LogVerdict, words: bytes) -> Iterator[Record]:
    """The records of a log that was verified in whose line these words stand."""
    for lines in read_segments(log, partial(find_lines, [[words]])):
        yield from map(record_of, lines)


def record_of(line: bytes) -> dict[str, Any]:
    """The record of a line, with its ``writer`` and ``seq``."""
    value = orjson.loads(line)
    record: dict[str, Any] = value["record"]
    record |= {"writer": value["writer"], "seq": value["seq"]}
    return record


class Wanted(NamedTuple):
    """Which records are asked for: with these values (what is empty: any), then, of these
    tenants.
    """

    values: Mapping[str, str]
    since: float = 0.0
    until: float = inf
    tenants: Tenants = None

    @property
    def words(self) -> Words:
        """What stands in the line of each."""
        values = {
            "id" if name == "workflow" else name: value
            for name, value in self.values.items()
            if value
        }
        return [
            b'"%b":%b' % (name.encode(), orjson.dumps(value)) for name, value in values.items()
        ] or [b'{"prev":']

    def fits(self, record: Record) -> bool:
        """Whether a record is one."""
        here = self.since <= time_of(record) <= self.until and (
            self.tenants is None or record.get("tenant") in self.tenants
        )
        return here and all(
            value_of(record, name) == value for name, value in self.values.items() if value
        )


def find_rows(log: LogVerdict, wanted: Wanted) -> Iterator[bytes]:
    """What is wanted, but no allowance that a refusal of its `jti` took back; as JSON
    (`read_row`), which takes a fifth of the memory.
    """
    return read_calls(log, wanted, [wanted.words, _DENIED], orjson.dumps)


def read_calls(
    log: LogVerdict, wanted: Wanted, words: Sequence[Words], read: Callable[[Record], T]
) -> Iterator[T]:
    """What a function makes of these records. Of several decisions with one `jti`, all of which
    have such words, the last counts.
    """
    parts = [*read_segments(log, partial(_read_segment, wanted, words, read))]
    taken_back = {attempt for _, denied in parts for attempt in denied}
    return (
        value for found, _ in parts for attempt, value in found if attempt not in taken_back
    )


def _read_segment(
    wanted: Wanted, words: Sequence[Words], read: Callable[[Record], T], each: Verified
) -> tuple[list[tuple[str, T]], list[str]]:
    """What is wanted, with the attempt that was allowed; and which were refused."""
    found = list[tuple[str, T]]()
    denied = list[str]()
    for record in map(record_of, find_lines(words, each)):
        decision = record.get("decision")
        attempt = attempt_of(record)
        if decision == "deny" and record.get("jti"):
            denied.append(attempt)
        if wanted.fits(record):
            found.append((attempt if decision == "allow" else "", read(record)))
    return found, denied


def attempt_of(record: Record) -> str:
    """Run and `jti` of a decision, or of what became of it."""
    return f"{record.get('run')} {record.get('jti')}"


def find_story(
    log: LogVerdict, name: str, run: str = "", tenants: Tenants = None
) -> list[Record]:
    """A call's records in their order, the opening of its run first: by txn, jti, hold (12
    characters will do) or tool_call_id.

    Raises:
        NotFound: there is no such call of these tenants, or there are several.
    """
    rows = search_log(log, orjson.dumps(name)[:-1]) if name else ()
    named = [
        r
        for r in rows
        if _call_of(r)
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


def event(record: Record) -> str:
    """One line of a call's history."""
    kind = str(record.get("type"))
    text = {
        "decision": f"decided: {record.get('decision')}",
        "hold_answer": f"{record.get('by')} answered: {record.get('answer')} (then {record.get('state')})",
        "hold_answer_refused": f"an answer of {record.get('by')} does not count: {record.get('code')}",
        "redemption": "its token was redeemed",
        "outcome": f"ended: {record.get('outcome')}",
        "observation": f"the version that observes would decide: {record.get('would')}",
        "run_opened": f"{record.get('agent')} opened run {record.get('run')} for {record.get('user')}",
    }.get(kind, kind)
    return f"{datetime.fromtimestamp(float(record.get('time', 0.0)), UTC):%Y-%m-%d %H:%M:%S} {text}"


def answer_question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The newest records that are wanted, from a place on backwards; or those of a `call`, the
    oldest first; none: there is no such call.

    What was verified is kept beside the keys, since whoever can write in the log's directory
    must not change it.

    Raises:
        AgentGateError, OSError: the log cannot be read.
    """
    keys = Path(asked["keys"])
    cache = open_cache(keys / "audit-seen")
    log, found = ask_log(
        partial(verify, [Path(asked["audit"])], LogEvidence.of([keys]), cache=cache),
        partial(_find_asked, asked),
        cache,
    )
    following = place_of(found[-1]) if len(found) == PAGE and not asked["call"] else None
    wrong = sorted({each.finding.name.lower() for each in log.findings if each.finding})
    return {"findings": wrong, "next": following, "records": found}


def _find_asked(asked: Mapping[str, Any], log: LogVerdict) -> list[Record]:
    if asked["call"]:
        with suppress(NotFound):
            return find_story(log, asked["call"], asked["run"], asked["tenants"])
        return []
    wanted = Wanted(
        {name: asked[name] for name in FIELDS}, asked["since"], asked["until"], asked["tenants"]
    )
    after = asked["after"]
    found = map(read_row, find_rows(log, wanted))
    return nlargest(
        PAGE, (each for each in found if not after or place_of(each) < after), key=place_of
    )


if __name__ == "__main__":
    os.nice(10)
    try:
        sys.stdout.buffer.write(
            orjson.dumps(answer_question(orjson.loads(sys.stdin.buffer.read())))
        )
    except (AgentGateError, OSError) as error:
        sys.exit(str(error))


KINDS = "allowed held refused unenforced unknown".split()
_DECISIONS = {"allow": "allowed", "deny": "refused", "observed": "unenforced"}
_WORDS = [b'"type":"decision"'], [b'"outcome":"unknown"']
_Names = tuple[tuple[str, str], ...]  # what it is, and its name


def count_calls(log: LogVerdict, wanted: Wanted) -> dict[str, dict[str, dict[str, int]]]:
    """Of each workflow, tool, user and approver: how many calls were allowed, held, refused,
    and ended nobody knows how.
    """
    calls = [*read_calls(log, wanted, _WORDS, _read_call)]
    decided = {attempt: names for attempt, names, kind in calls if kind != "unknown"}
    totals = Counter(
        [
            (decided.get(attempt, names) if kind == "unknown" else names, kind)
            for attempt, names, kind in calls
            if kind
        ]
    )
    counted = {
        name: dict[str, dict[str, int]]() for name in "workflow tool user approver".split()
    }
    for (names, kind), count in totals.items():
        for name, value in names:
            counted[name].setdefault(value, dict.fromkeys(KINDS, 0))[kind] += count
    return {name: dict(sorted(table.items())) for name, table in counted.items()}


def _read_call(record: Record) -> tuple[str, _Names, str]:
    """An attempt at a call, its names, and what became of it; empty: nothing that counts."""
    yes = record.get("approvals")
    named = [(name, value_of(record, name)) for name in ("workflow", "tool", "user")]
    named += (
        [("approver", each.get("by")) for each in yes if isinstance(each, dict)]
        if isinstance(yes, list)
        else []
    )
    names = _same(tuple(each for each in named if type(each[1]) is str))
    if record.get("type") == "decision":
        return attempt_of(record), names, _DECISIONS.get(str(record.get("decision")), "held")
    return attempt_of(record), names, "unknown" if record.get("outcome") == "unknown" else ""


@cache
def _same(names: _Names) -> _Names:
    """Equal names as one value, which is sent to another process once."""
    return names


_FORMS = orjson.loads(Path(__file__).with_name("forms.json").read_bytes())
_IN_HEAD = str.maketrans({"\\": r"\\", "|": r"\|"})
_IN_VALUE = str.maketrans({"\\": r"\\", "=": r"\=", "\n": r"\n", "\r": r"\r"})


def shape_record(record: Mapping[str, Any], form: str) -> str:
    """The line of a record as it is (jsonl), or in the form of others (ocsf, cef)."""
    known = {**record, "record": record, "ms": int(time_of(record) * 1000)}
    if form != "cef":
        return json.dumps(_filled(_FORMS[form], known))
    head = [str(_filled(each, known)).translate(_IN_HEAD) for each in _FORMS["cef_head"]]
    told = [
        "=".join((name, str(value).translate(_IN_VALUE)))
        for name, value in _filled(_FORMS[form], known).items()
    ]
    return "|".join((*head, " ".join(told)))


def _filled(form: Any, known: Any) -> Any:
    if isinstance(form, str) and form.startswith("$"):
        for part in form[1:].split("."):
            known = (
                known.get(part)
                if isinstance(known, dict)
                else known[0]
                if isinstance(known, list) and known
                else None
            )
        return known
    if isinstance(form, list):
        return next(
            (found for each in form if (found := _filled(each, known)) is not None), None
        )
    if isinstance(form, dict):
        if "$" in form:
            return form.get(str(_filled(form["$"], known)), form.get(""))
        return {
            name: found
            for name, each in form.items()
            if (found := _filled(each, known)) not in (None, {})
        }
    return form
