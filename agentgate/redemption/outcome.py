"""What goes on record of a redeemed call: that it was not run, its facts, its outcome; also where
the tool server tells it later, over HTTP.

Facts are the declared fields of a tool's result, read as rows. Only declared fields are read;
the rest of a result never becomes an origin. One row holds values that belong together, so that
order A's id is never combined with order B's payee: a list is read element by element, a value
outside the list is repeated in each of its rows, and values of two different lists never share
a row. A value that is missing, null, not a scalar, too long or without a canonical form is no
fact: less is known, and less may be minted. A text is searched only where a fact declares it:
with `find: one` its one entity of that kind is the fact, and two are none; with `find: any`
each number in it is one row. Rows that were left out leave a mark, so that the largest of a
part does not pass for the largest of all.

Rules: facts are read from the real result, once; a failed call has none, nor has a result that
holds the upstream credential. What cannot be recorded is told when the call ends. What a later
report needs is kept beside the call's record, never the token. A report counts once, for the
redemption it is about (its `jti`), and of a result only the declared facts are taken. The end
of a read to which no other call refers is sent to the store, whose reply is read by the run's
next call, its end, the gate's, or when too many wait; beside other calls it is awaited.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    CanonicalError,
    NotDone,
    NotRecorded,
    ResultWithheld,
    StoreUnavailable,
)
from agentgate.redemption.credential import EndQueue, QueuedEnd, Redemption, ended
from agentgate.shell.drive import apart
from agentgate.shell.step import Afterwards, Flow, Receive, Record, Send, Step
from agentgate.stores import Op, ops
from agentgate.token.mint import MintClaims, WorkflowRef
from agentgate.values.canonical import canonical, parse
from agentgate.values.paths import CUT, EACH, FIND, KEY, MAX_FIND, NUMBERS, PAGE, VALUES
from agentgate.values.value_class import Json, Names, names_of, value_class

if TYPE_CHECKING:
    from agentgate.language.spans import SearchedText

# --- facts ------------------------------------------------------------------------------------
MAX_ROWS = 1000
MAX_TEXT = 4096  # characters of one value
# bytes of all rows as canonical JSON: half of what a call record may hold
MAX_TOTAL = 128 * 1024
# characters of one result's texts that are looked into; the rows behind are left out
MAX_LOOKED = 4 * MAX_FIND
# what an element of a list counts for: most of a result may be elements that have no facts
_ELEMENT = 16
_MAX_INT = 2**53 - 1

Row = Json


@dataclass(slots=True)
class _Level:
    """What is declared about one element: its own values by path, and the lists inside it by
    path.
    """

    values: dict[str, Names] = field(default_factory=dict)
    lists: dict[Names, _Level] = field(default_factory=dict)


def _levels(declared: Mapping[str, Names]) -> _Level:
    """Declared paths as a tree in which every list is one level, so facts of the same list meet
    in the same rows.
    """
    top = _Level()
    for name, path in declared.items():
        level = top
        rest = path
        while EACH in rest:
            at = rest.index(EACH)
            level = level.lists.setdefault(rest[:at], _Level())
            rest = rest[at + 1 :]
        level.values[name] = rest
    return top


@value_class
class _Entry:
    """One value of an object, with its key."""

    key: Any
    value: Any


@dataclass(slots=True)
class _Looked:
    """How much of a result's texts was looked into, and what was read there: many facts of one
    text cost one reading.
    """

    characters: int = 0
    texts: dict[str, SearchedText] = field(default_factory=dict)

    def into(self, text: str) -> SearchedText:
        """What is in a text."""
        if text not in self.texts:
            from agentgate.language.spans import SearchedText  # noqa: PLC0415 - who reads English only where a fact looks into a text

            self.texts[text] = SearchedText(text)
        return self.texts[text]


def _at(value: Any, path: Names, looked: _Looked) -> Any:
    """The value at a path of keys; None when any step is not an object or lacks the key."""
    for key in path:
        if key == KEY:
            return value.key if isinstance(value, _Entry) and type(value.key) is str else None
        value = value.value if isinstance(value, _Entry) else value
        if key in FIND or key == NUMBERS:
            if type(value) is not str or len(value) > MAX_FIND:
                return None
            looked.characters += len(value)
            if looked.characters > MAX_LOOKED:
                return None
            return (
                _numbers(looked.into(value))
                if key == NUMBERS
                else looked.into(value).only(FIND[key])
            )
        if type(value) is dict and key == VALUES:
            value = [_Entry(name, inner) for name, inner in value.items()]
        elif type(value) is dict and key in value:
            value = value[key]
        else:
            return None
    return value.value if isinstance(value, _Entry) else value


def _numbers(text: SearchedText) -> list[str]:
    """Every different number and amount in a text, without its currency, in the order of the
    text.
    """
    found = (
        e.key
        for e in text.entities
        if e.type in {"number", "money"} and isinstance(e.key, Decimal)
    )
    return list(dict.fromkeys(format(key, "f") for key in found))


def scalar(value: Any) -> Any:
    """The value as a fact (an exact JSON scalar; a Decimal becomes its text); None: it is no
    fact.
    """
    kind = type(value)
    if kind is bool:
        return value
    if kind is int:
        return value if -_MAX_INT <= value <= _MAX_INT else None
    if kind is float:
        return value if abs(value) <= _MAX_INT else None  # which neither NaN nor an infinity is
    if kind is Decimal:
        if not value.is_finite() or abs(value.adjusted()) > 15:
            return None
        return format(value, "f")
    if (
        kind is str
        and len(value) <= MAX_TEXT
        and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))
    ):
        return value
    return None


def _rows(level: _Level, element: Any, outer: Row, looked: _Looked) -> Iterator[Row]:
    known = dict(outer)
    for name, path in level.values.items():
        value = scalar(_at(element, path, looked))
        if value is not None:
            known[name] = value
    empty = True
    for path, inner in level.lists.items():
        items = _at(element, path, looked)
        for item in items if type(items) in {list, tuple} else ():
            looked.characters += _ELEMENT
            if looked.characters > MAX_LOOKED:
                yield known
                return
            for row in _rows(inner, item, known, looked):
                empty = False
                yield row
    if empty and known:
        yield known


def check_rows(declared: Iterable[str], rows: Any) -> None:
    """Check what a tool server says are the rows of the declared facts; their types and
    patterns are the decision's.

    Raises:
        CanonicalError: it is something else.
    """
    names = {CUT, PAGE, *declared}
    if (
        type(rows) is not list
        or len(rows) > MAX_ROWS
        or not all(type(row) is dict and row.keys() <= names for row in rows)
    ):
        raise CanonicalError(
            "facts", "something else", f"at most {MAX_ROWS} objects of declared facts"
        )
    if any(scalar(value) is None for row in rows for value in row.values()):
        raise CanonicalError(
            "facts", "another value, or a long one", "text, numbers and booleans"
        )


def recorded(declared: Mapping[str, list[str]], result: Any) -> bytes:
    """The declared facts of a result (name -> path), as the store keeps them.

    Raises:
        CanonicalError: a fact has no canonical form.
    """
    paths = {name: tuple(path) for name, path in declared.items()}
    return canonical(list(extract(paths, result)) if paths else [])


def to_read(declared: Mapping[str, list[str]]) -> int:
    """How many characters may be read in a result for these facts."""
    return (
        MAX_LOOKED
        if any(path and (path[-1] in FIND or NUMBERS in path) for path in declared.values())
        else 0
    )


def extract(declared: Mapping[str, Names], result: Any) -> tuple[Row, ...]:
    """The rows of facts in a tool's real result.

    Args:
        declared: fact name -> path into the result (`agentgate.workflow.rule.Fact.path`): keys
            of objects; ``[]`` walks a list; ``[values]`` is the list of an object's values,
            with a last ``[key]`` the key of each; a last ``[iban]`` (or another kind of `FIND`)
            is the one entity of that kind in the text there, ``[numbers]`` the list of all
            numbers in it; an empty path is the result itself. `PAGE` is no fact, but the list
            that is counted.
        result: what the tool returned: dicts, lists or tuples, and scalars. Anything else has
            no facts.

    Returns:
        At most `MAX_ROWS` rows, `MAX_TOTAL` bytes altogether, from at most `MAX_LOOKED`
            characters that were looked into; each maps
        names to str, int, float or bool. Later rows are left out, and the last one kept is
            marked with `CUT`.
    """
    rows: list[Row] = []
    total = 0
    looked = _Looked()
    listed = _at(result, declared[PAGE], looked) if PAGE in declared else None
    for row in _rows(
        _levels({name: path for name, path in declared.items() if name != PAGE}),
        result,
        {},
        looked,
    ):
        total += len(canonical(row)) + 1
        if len(rows) == MAX_ROWS or total > MAX_TOTAL or looked.characters > MAX_LOOKED:
            if rows:
                rows[-1][CUT] = True
            break
        rows.append(row)
    if rows and isinstance(listed, list | tuple):
        rows[-1][PAGE] = len(listed)
    return tuple(rows)


# --- records ----------------------------------------------------------------------------------
@value_class
class Reportable:
    """A redeemed call, as its server can report on it. `facts`: the declared ones, name ->
    path; `recorded_for`: as of its claims.
    """

    tenant: str
    run: str
    call_digest: str
    jti: str
    txn: str
    aud: str
    sub: str
    client_id: str
    tool_call_id: str
    workflow: WorkflowRef
    facts: Mapping[str, list[str]]
    recorded_for: str


def record_of(
    claims: MintClaims | Reportable,
    kind: str,
    *,
    refusal: bool = False,
    promised: bool = False,
    waits: bool = True,
    **more: object,
) -> Record:
    """The audit record of what became of a call."""
    # an autonomous agent's token has the agent as its subject
    user = None if claims.sub == claims.client_id else claims.sub
    body = {
        "type": kind,
        "time": round(time.time(), 6),
        "tenant": claims.tenant,
        "run": claims.run,
        "workflow": claims.workflow._asdict(),
        "user": user,
        "agent": claims.client_id,
        "txn": claims.txn,
        "jti": claims.jti,
        "tool_call_id": claims.tool_call_id,
        **more,
    }
    return Record(body, refusal, promised, waits)


_SEARCHING = 60.0  # seconds
MOST_QUEUED = 8  # ends of reads, each with a connection to the store
_log = structlog.get_logger("agentgate.redemption.outcome")


def _end_call(
    call: MintClaims | Reportable, outcome: ops.Outcome, **more: Any
) -> Op[ops.OutcomeReply]:
    """How a call's redemption ended, for the store; `more`: as of `ops.record_outcome`."""
    return ops.record_outcome(
        call.tenant,
        call.run,
        call.call_digest,
        outcome,
        call.jti,
        audience=call.recorded_for,
        **more,
    )


def not_run(claims: MintClaims, why: str = "", *, attempt: str = "") -> Flow:
    """The token may be burned, and the tool is not going to run: without this its outcome would
    be unknown.

    `attempt`: the redemption that cannot tell whether it burned the token. Where another did,
    its tool may be running.
    """
    said: Json = {"why": why} if why else {}
    try:
        yield Afterwards(_end_call(claims, "not_run", attempt=attempt))
    except StoreUnavailable:  # the caller is refused, and the log says that nothing ran
        said["missing"] = ["outcome"]
    if said:
        with suppress(AuditUnavailable):
            yield record_of(
                claims, "outcome", refusal=True, promised=True, outcome="not_run", **said
            )


def record_result(done: Redemption, result: Any) -> Generator[Step, Any, None]:
    """Record the declared facts of a redeemed call's real result, or keep them until its
    end.
    """
    facts = yield from facts_of(done, result)
    if done.ends is not None:
        done.facts = facts or b""
    elif facts is not None:
        try:
            yield from report_result(done.claims, facts)
        except AgentGateError as error:
            lost(done, "facts", error)


def facts_of(done: Redemption, result: Any) -> Generator[Step, Any, bytes | None]:
    """The declared facts of a result as canonical JSON; None: they cannot be recorded, which is
    told at the end of the call.

    No deadline runs while a long text is searched, and no event loop waits for it: an attacker
    may have written it.

    Raises:
        ResultWithheld: it holds the upstream credential.
    """
    size = to_read(done.head["facts"]) if done.credential is None else MAX_LOOKED
    return (yield from apart(size, partial(_facts_of, done, result), _SEARCHING))


def _facts_of(done: Redemption, result: Any) -> bytes | None:
    if done.credential is not None:
        done.credential.check_result(result)
    try:
        return recorded(done.head["facts"], result)
    except AgentGateError as error:
        lost(done, "facts", error)
        return None


def outcome_of(done: Redemption, error: BaseException | None) -> ops.Outcome:
    """How a call ended, by what its tool raised."""
    nothing_happened = isinstance(error, NotDone) or (
        isinstance(error, Exception) and done.head.get("read") is True
    )
    # the tool had returned
    withheld = isinstance(error, ResultWithheld) and error.what == "result"
    return "done" if error is None or withheld else "failed" if nothing_happened else "unknown"


def tell_lost(done: Redemption, error: BaseException | None) -> None:
    """At the end of a call, tell what of it is on no record.

    Raises:
        NotRecorded: something is not. Where the tool raised, that says it instead, in a note.
    """
    if done.missing:
        why = NotRecorded(
            done.claims.txn, tuple(done.missing), next(iter(done.missing.values()))
        )
        if error is None:
            raise why
        error.add_note(str(why))


def record_outcome(done: Redemption, error: BaseException | None) -> Generator[Step, Any, None]:
    """Record how a redeemed call ended: what the tool raised, if anything. What is missing in
    the store is on the audit record.

    Raises (through the driver):
        NotRecorded: something of the call is on no record. Where the tool raised, that says it
        instead, in a note.
    """
    done.ended = True
    outcome = outcome_of(done, error)
    if outcome == "failed":
        done.facts = b""
    more: Json = {"withheld": True} if isinstance(error, ResultWithheld) else {}
    op = _end_call(done.claims, outcome, facts=done.facts, tell=done.ends is not None)
    try:
        if done.queue is None:
            _tell_gate(done, outcome, (yield op))
        else:
            yield from _queue_end(done.queue, done, outcome, op)
    except AgentGateError as failed:
        _lose_end(done, failed)
    try:
        yield _outcome_record(done, outcome, more)
    except AgentGateError as failed:
        lost(done, "audit record", failed)
    if done.credential is not None and (failure := (yield from ended(done.credential))):
        _log.error("not_ended", what="upstream credential", txn=done.claims.txn, error=failure)
    tell_lost(done, error)


def _tell_gate(done: Redemption, outcome: ops.Outcome, reply: ops.OutcomeReply) -> None:
    if done.ends is not None:
        done.ends(reply, outcome, done.facts)


def _outcome_record(done: Redemption, outcome: ops.Outcome, more: Json) -> Record:
    """Whoever asks again of a read finds it in the store: nobody waits for its record."""
    missing: Json = {**more, "missing": list(done.missing)} if done.missing else more
    return record_of(
        done.claims,
        "outcome",
        refusal=bool(done.missing),
        promised=True,
        waits=done.head.get("read") is not True or bool(missing),
        outcome=outcome,
        **missing,
    )


def _queue_end(
    queue: EndQueue, done: Redemption, outcome: ops.Outcome, op: Op[ops.OutcomeReply]
) -> Flow:
    """Send how a read ended. One of a run waits for its reply, and so many of all runs."""
    run = done.claims.run
    yield from read_end(queue, run)
    end = QueuedEnd(done, outcome, Receive(op, (yield Send(op))))
    if queue.setdefault(run, end) is not end:  # of another thread
        yield from _read(end)
    if len(queue) > MOST_QUEUED:
        yield from read_end(queue, next(iter(list(queue))))


def read_end(queue: EndQueue, run: str) -> Flow:
    """Read what the store replied to the end that waits of a run, if one does. What it has not
    got is told in the log, and on record.
    """
    end = queue.pop(run, None)
    if end is not None:
        yield from _read(end)


def _read(end: QueuedEnd) -> Flow:
    try:
        _tell_gate(end.done, end.outcome, (yield end.step))
    except AgentGateError as failed:
        _lose_end(end.done, failed)
        with suppress(AgentGateError):
            yield _outcome_record(end.done, end.outcome, {})


def read_ends(queue: EndQueue) -> Flow:
    """`read_end` of all runs."""
    for run in list(queue):
        yield from read_end(queue, run)


def _lose_end(done: Redemption, error: Exception) -> None:
    for what in ("facts", "outcome") if done.facts else ("outcome",):
        lost(done, what, error)


def lost(done: Redemption, what: str, error: Exception) -> None:
    """Something of the call is on no record."""
    # Told when the call ends: its result is the caller's in any case, and without the record
    # later calls may use less.
    done.missing[what] = str(error)
    _log.error("not_recorded", what=what, txn=done.claims.txn, error=str(error))


LIFE = 24 * 3600  # seconds in which a call can be reported on


def keep_for_report(done: Redemption) -> Flow:
    """Keep what a report will need.

    Raises (through the driver):
        StoreUnavailable.
    """
    names = [name for name in names_of(Reportable) if name not in {"facts", "workflow"}]
    claims = done.claims
    body = {
        "v": 1,
        **{name: getattr(claims, name) for name in names},
        "workflow": list(claims.workflow),
        "facts": done.head["facts"],
    }
    yield ops.keep(
        claims.tenant, "redeemed", claims.txn, canonical(body), ttl_ms=LIFE * 1000, replace=True
    )


def reportable(tenant: str, txn: str) -> Flow:
    """The redeemed call of this id, or None.

    Raises (through the driver):
        StoreUnavailable: also where what is kept cannot be read.
    """
    data = yield ops.kept(tenant, "redeemed", txn)
    if data is None:
        return None
    try:
        body = parse(data)
        if body.pop("v") != 1 or body["tenant"] != tenant:
            raise StoreUnavailable("redeemed call: of another version or tenant")
        return Reportable(
            **{"recorded_for": "", **body, "workflow": WorkflowRef(*body["workflow"])}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"redeemed call: unreadable ({type(error).__name__})") from error


def checked_facts(declared: Mapping[str, list[str]], rows: Any) -> bytes:
    """Facts that the tool's server read out of the result itself
    (`agentgate.redemption.outcome.extract`), as the store keeps them.

    Raises:
        CanonicalError: rows of something else than the declared facts.
    """
    check_rows(declared, rows)
    if len(data := canonical(rows)) > MAX_TOTAL:
        raise CanonicalError("facts", f"{len(data)} bytes", f"at most {MAX_TOTAL} bytes")
    return data


def report_result(call: MintClaims | Reportable, facts: bytes) -> Flow:
    """Record facts. Returns what the store says of it (`agentgate.stores.ops.Recorded`)."""
    return (
        yield ops.record_result(
            call.tenant, call.run, call.call_digest, facts, audience=call.recorded_for
        )
    )


def report_outcome(call: Reportable, outcome: ops.Outcome, attempt: str = "") -> Flow:
    """Record how the call ended; with an `attempt` only if that redemption burned the token.
    Returns as `report_result`.
    """
    answer = (yield _end_call(call, outcome, attempt=attempt)).kind
    if answer == "ok":
        yield record_of(call, "outcome", outcome=outcome)
    return answer
