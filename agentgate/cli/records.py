"""``agentgate audit list``, ``show`` and ``stats``: questions to an audit log, answered from what was verified, and saying so."""

from __future__ import annotations

import csv
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgate.audit.auditor import unseal_values
from agentgate.audit.index import RecordIndex, RecordRow, read_rows
from agentgate.audit.note import NoteVerifier, read_checkpoint, read_public
from agentgate.audit.verify import Known, LogEvidence, LogVerdict, verify
from agentgate.cli.output import complain, fail, progress, refusing, rows, say, say_json, terminal
from agentgate.cli.signing import Json
from agentgate.errors import ConfigError
from agentgate.review.report.past import event
from agentgate.values.times import seconds

Directories = Annotated[
    list[Path], typer.Argument(help="An audit directory; also where older segments were moved to.", exists=True, file_okay=False)
]
Keys = Annotated[
    list[Path] | None,
    typer.Option(help="A gate's key directory (a verifier's heads), for its public key and newest checkpoints.", exists=True),
]
PublicKeys = Annotated[list[Path] | None, typer.Option("--key", help="The public key alone, audit.pub of a key directory.", exists=True)]
Cache = Annotated[Path | None, typer.Option(help="Where what was verified is kept for the next question.", file_okay=False)]
Since = Annotated[str, typer.Option(help="From then on: 7d, 12h, or a date as 2026-05-31.")]
_COLUMNS = ("time", "decision", "tool", "user", "agent", "workflow", "txn")


@dataclass(slots=True)
class Found:
    """A log that was read: what was found of it, and its rows."""

    verdict: LogVerdict
    checked: bool
    rows: list[RecordRow] = field(default_factory=list)

    def tell(self) -> None:
        """Say what the answers rest on; on standard error, since the answer may be JSON or CSV."""
        wrong = self.verdict.findings
        complain(*(each.wrong for each in wrong))
        count = sum(each.records for each in self.verdict.segments)
        state = "NOT WHOLE (agentgate audit verify)" if wrong else "verified" if self.checked else "chains only: give --keys or --key"
        complain(f"{count} records of {len(self.verdict.segments)} segments: {state}", colour="red" if wrong else "")


def read_log(directories: list[Path], evidence: LogEvidence, cache: Path | None, wanted: Callable[[RecordRow], object]) -> Found:
    """Verify a log, and collect the rows that are wanted, by time. Raises AgentGateError, OSError: it cannot be read."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    index = RecordIndex(cache or home / "agentgate" / "audit")
    verdict = verify(directories, evidence, lambda work, total: progress(work, "verify", total), index=index)
    found = Found(verdict, bool(evidence.keys))
    for each in verdict.segments:
        if each.entry:
            found.rows += [row for row in read_rows(Path(each.entry), each.file) if wanted(row)]
    found.rows.sort(key=lambda row: row.time or 0.0)
    return found


def moment(text: str, otherwise: float) -> float:
    """A time as POSIX seconds: so long ago, or a date. Raises ConfigError."""
    if not text:
        return otherwise
    if (ago := seconds(text)) is not None:
        return time.time() - ago
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("time", text, "a duration (7d, 12h) or a date (2026-05-31, 2026-05-31T10:00)") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def shown_time(at: float) -> str:
    """As lists show it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def evidence_of(
    keys: list[Path] | None, public: list[Path] | None, checkpoints: list[Path] | None = None, witness: str = ""
) -> LogEvidence:
    """What tells of the log, as it was given. Raises AgentGateError, OSError: it cannot be read."""
    found, signer = LogEvidence.of(keys or []), NoteVerifier.parse(witness) if witness else None
    known = [_known(path, signer) for path in checkpoints or []]
    return found._replace(keys=[*found.keys, *map(read_public, public or [])], known=[*found.known, *known])


def _known(path: Path, witness: NoteVerifier | None) -> Known:
    try:
        text = path.read_text("utf-8")
        found = read_checkpoint(text)
    except ValueError as error:
        raise ConfigError("checkpoint", str(path), f"a signed checkpoint ({error})") from error
    if witness is not None and not witness.signed(text):
        raise ConfigError("checkpoint", str(path), f"one that {witness.name} cosigned")
    return Known(str(path), found)


def list_(
    directory: Directories,
    *,
    keys: Keys = None,
    key: PublicKeys = None,
    tool: Annotated[str, typer.Option(help="Calls of this tool.")] = "",
    decision: Annotated[str, typer.Option(help="allow, deny, step_up or confirm.")] = "",
    user: Annotated[str, typer.Option(help="Calls for this user.")] = "",
    agent: Annotated[str, typer.Option(help="Calls of this agent.")] = "",
    workflow: Annotated[str, typer.Option(help="Under this workflow, by its id.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Records of this type (docs/audit-schema.md).")] = "decision",
    since: Since = "",
    until: Annotated[str, typer.Option(help="Up to then.")] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    cache: Cache = None,
) -> None:
    """Which calls were allowed, held or refused: for whom, under which workflow version."""
    equal = {"tool": tool, "decision": decision, "user": user, "agent": agent, "workflow": workflow, "tenant": tenant, "type": type_}
    equal = {name: value for name, value in equal.items() if value}
    with refusing():
        start, end = moment(since, 0.0), moment(until, float("inf"))
        found = _read(directory, keys, key, cache, _wanted(equal, start, end))
    if as_json:
        say_json([row.record() for row in found.rows])
    else:
        body = [_cells(row) for row in found.rows]
        say(*_csv(body)) if as_csv else rows(_COLUMNS, body, styles=("dim", "bold"))
    found.tell()


def _read(
    directories: list[Path], keys: list[Path] | None, public: list[Path] | None, cache: Path | None, wanted: Callable[[RecordRow], object]
) -> Found:
    try:
        return read_log(directories, evidence_of(keys, public), cache, wanted)
    except OSError as error:
        fail(error)


def _wanted(equal: dict[str, str], start: float, end: float) -> Callable[[RecordRow], bool]:
    places = [(RecordRow._fields.index(name), value) for name, value in equal.items()]
    return lambda row: start <= (row.time or 0.0) <= end and all(row[place] == value for place, value in places)


def _cells(row: RecordRow) -> tuple[str, ...]:
    version = "" if row.version is None else f" v{row.version}"
    what = row.decision or row.outcome or row.type
    names = (str(each or "") for each in (what, row.tool, row.user, row.agent))
    return (shown_time(row.time), *names, f"{row.workflow or ''}{version}", row.txn or "")


def _csv(body: list[tuple[str, ...]]) -> Iterator[str]:
    out = io.StringIO()
    for line in (_COLUMNS, *body):
        out.seek(0)
        out.truncate()
        csv.writer(out, lineterminator="").writerow(["'" + cell if cell[:1] in tuple("=+-@\t") else cell for cell in line])
        yield out.getvalue()  # a cell that a spreadsheet would take for a formula begins with an apostrophe


def show(
    directory: Directories,
    *,
    txn: Annotated[str, typer.Option(help="txn, jti, hold id or tool_call_id of the call.")],
    keys: Keys = None,
    key: PublicKeys = None,
    run: Annotated[str, typer.Option(help="Its run, where several have such a call.")] = "",
    auditor_key: Annotated[Path | None, typer.Option(help="The auditor's private key, for what records hide.", exists=True)] = None,
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """A call's whole story in order: opened, decided, held, answered, minted, redeemed, done, repeated."""
    with refusing():
        found = _read(directory, keys, key, cache, lambda row: row.type not in {"unproven", "workflows_loaded"})
        named = [row for row in found.rows if txn in {row.txn, row.jti, row.hold, row.tool_call_id} and run in {"", row.run}]
        calls = {(row.tenant, row.run, row.tool_call_id) for row in named if row.tool_call_id}
        if len(calls) != 1:
            listed = ", ".join(f"--run {each[1]}" for each in sorted(calls, key=str)[:5])
            fail(f"{txn}: got {len(calls)} calls, expected one" + (f"; say which: {listed}" if calls else " of this log"))
        (call,) = calls
        holds = {row.hold for row in named} - {None}
        story = [row for row in found.rows if (row.tenant, row.run, row.tool_call_id) == call or row.hold in holds]
        runs = [row for row in found.rows if row.run == call[1] and row.type in {"run_opened", "run_renewed"}]
        opened = [row for row in runs if row.time <= story[0].time]
        records = [_opened(row.record(), auditor_key) for row in (*opened[-1:], *story)]
    if as_json:
        say_json(records)
    else:
        for record in records:
            say(event(record))
            hidden = {"type", "time", "v", "met"}
            say(*(f"    {name}: {value}" for name, value in record.items() if name not in hidden and value not in (None, [], {})))
    found.tell()


def _opened(record: dict[str, Any], key: Path | None) -> dict[str, Any]:
    if key is not None and "sealed" in record:
        return {**record, "sealed": unseal_values(record["sealed"], key)}
    return record


def stats(
    directory: Directories,
    *,
    keys: Keys = None,
    key: PublicKeys = None,
    since: Since = "",
    until: Annotated[str, typer.Option(help="Up to then.")] = "",
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """How many calls were allowed, held and refused, and of how many nobody knows the outcome: by workflow, tool, user and approver."""
    with refusing():
        start, end = moment(since, 0.0), moment(until, float("inf"))
        found = _read(directory, keys, key, cache, lambda row: row.type in {"decision", "outcome"} and start <= row.time <= end)
    tables = count_rows(found.rows)
    if as_json:
        say_json(tables)
    else:
        for name, table in tables.items():
            most = max((sum(each.values()) for each in table.values()), default=1)
            body = [(value, *each.values(), _bar(sum(each.values()), most)) for value, each in table.items()]
            rows((name, "allowed", "held", "refused", "unknown", ""), body, styles=("bold", "green", "yellow", "red"))
    found.tell()


def count_rows(found: list[RecordRow]) -> dict[str, dict[str, dict[str, int]]]:
    """Of each workflow, tool, user and approver: how many calls were allowed, held, refused, and ended nobody knows how."""
    counted: dict[str, dict[str, Counter[str]]] = {name: {} for name in ("workflow", "tool", "user", "approver")}
    tools = {row.jti: row for row in found if row.type == "decision" and row.jti}
    for row in found:
        if row.type == "outcome" and row.outcome != "unknown":
            continue
        kind = "unknown" if row.type == "outcome" else {"allow": "allowed", "deny": "refused"}.get(str(row.decision), "held")
        of_call = tools.get(row.jti or "", row) if row.type == "outcome" else row
        told = [("workflow", of_call.workflow), ("tool", of_call.tool), ("user", of_call.user)]
        told += [("approver", each) for each in of_call.approvers]
        for name, value in told:
            if value is not None:
                counted[name].setdefault(value, Counter())[kind] += 1
    kinds = ("allowed", "held", "refused", "unknown")
    return {name: {value: {k: each[k] for k in kinds} for value, each in sorted(table.items())} for name, table in counted.items()}


def _bar(count: int, most: int) -> str:
    return "\u2588" * max(1, round(20 * count / most)) if terminal() is not None else ""
