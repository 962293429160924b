"""``agentgate audit list``, ``show`` and ``stats``: questions to an audit log, answered from what was verified, and saying so."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgate.audit.auditor import unseal_values
from agentgate.audit.index import RecordRow, read_whole
from agentgate.audit.note import NoteVerifier, read_checkpoint, read_public
from agentgate.audit.questions import RowFilter, VerifiedLog, read_moment
from agentgate.audit.verify import Known, LogEvidence
from agentgate.cli.output import complain, fail, progress, refusing, rows, say, say_json, terminal
from agentgate.cli.signing import Json
from agentgate.errors import ConfigError
from agentgate.review.report.past import event

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
_KINDS = "allowed", "held", "refused", "unenforced", "unknown"
_COLUMNS = ("time", "decision", "tool", "user", "agent", "workflow", "txn")


def read_log(directories: list[Path], keys: list[Path] | None, public: list[Path] | None = None, cache: Path | None = None) -> VerifiedLog:
    """Verify a log, with a bar at a terminal; ends the command where it cannot be read."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        evidence = evidence_of(keys, public)
        return VerifiedLog.read(
            directories, evidence, cache or home / "agentgate" / "audit", lambda work, total: progress(work, "verify", total)
        )
    except OSError as error:
        fail(error)


def tell_state(log: VerifiedLog) -> None:
    """Say what the answers rest on; on standard error, since the answer may be JSON or CSV."""
    wrong = log.verdict.findings
    complain(*(each.wrong for each in wrong))
    count = sum(each.records for each in log.verdict.segments)
    state = "NOT WHOLE (agentgate audit verify)" if wrong else "verified" if log.checked else "chains only: give --keys or --key"
    complain(f"{count} records of {len(log.verdict.segments)} segments: {state}", colour="red" if wrong else "")


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
    would: Annotated[bool, typer.Option("--would", help="Calls that a version that only observes decides otherwise.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    cache: Cache = None,
) -> None:
    """Which calls were allowed, held or refused: for whom, under which workflow version."""
    equal = {"tool": tool, "decision": decision, "user": user, "agent": agent, "workflow": workflow, "tenant": tenant}
    equal = {name: value for name, value in {**equal, "type": "" if would else type_}.items() if value}
    with refusing():
        wanted = RowFilter(equal, read_moment(since, 0.0), read_moment(until, float("inf")))
        log = read_log(directory, keys, key, cache)
    found = [row for row in wanted.rows(log) if not would or row.would not in {None, row.decision}]
    found.sort(key=lambda row: row.time)
    if as_json:
        say_json(read_whole(found))
    else:
        body = [_cells(row) for row in found]
        say(*_csv(body)) if as_csv else rows(_COLUMNS, body, styles=("dim", "bold"))
    tell_state(log)


def _cells(row: RecordRow) -> tuple[str, ...]:
    version = "" if row.version is None else f" v{row.version}"
    what = row.decision or row.outcome or row.type
    if row.would:
        what = f"{what}, would be {row.would}"
    names = (str(each or "") for each in (what, row.tool, row.user, row.agent))
    return (shown_time(row.time), *names, f"{row.workflow or ''}{version}", row.txn or row.tool_call_id or "")


def _csv(body: list[tuple[str, ...]]) -> Iterator[str]:
    out = io.StringIO()
    for line in (_COLUMNS, *body):
        out.seek(0)
        out.truncate()
        csv.writer(out, lineterminator="").writerow(["'" + cell if cell[:1] in tuple("=+-@\t") else cell for cell in line])
        yield out.getvalue()  # a cell that a spreadsheet would take for a formula begins with an apostrophe


def show(
    txn: Annotated[str, typer.Argument(help="txn, jti, hold id or tool_call_id of the call.")],
    directory: Directories,
    *,
    keys: Keys = None,
    key: PublicKeys = None,
    run: Annotated[str, typer.Option(help="Its run, where several have such a call.")] = "",
    auditor_key: Annotated[Path | None, typer.Option(help="The auditor's private key, for what records hide.", exists=True)] = None,
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """A call's whole story in order: opened, decided, held, answered, minted, redeemed, done, repeated."""
    with refusing():
        log = read_log(directory, keys, key, cache)
        records = [_opened(record, auditor_key) for record in read_whole(log.story(txn, run=run))]
    if as_json:
        say_json(records)
    else:
        for record in records:
            say(event(record))
            hidden = {"type", "time", "v", "met"}
            say(*(f"    {name}: {value}" for name, value in record.items() if name not in hidden and value not in (None, [], {})))
    tell_state(log)


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
        start, end = read_moment(since, 0.0), read_moment(until, float("inf"))
        log = read_log(directory, keys, key, cache)
    tables = count_calls(log, start, end)
    if as_json:
        say_json(tables)
    else:
        for name, table in tables.items():
            most = max((sum(each.values()) for each in table.values()), default=1)
            body = [(value, *each.values(), _bar(sum(each.values()), most)) for value, each in table.items()]
            rows((name, *_KINDS, ""), body, styles=("bold", "green", "yellow", "red"))
    tell_state(log)


def count_calls(log: VerifiedLog, start: float, end: float) -> dict[str, dict[str, dict[str, int]]]:
    """Of each workflow, tool, user and approver: how many calls were allowed, held, refused, and ended nobody knows how."""
    counted: dict[str, dict[str, Counter[str]]] = {name: {} for name in ("workflow", "tool", "user", "approver")}

    def count(row: RecordRow, kind: str) -> None:
        told = [("workflow", row.workflow), ("tool", row.tool), ("user", row.user), *(("approver", each) for each in row.approvers)]
        for name, value in told:
            if value is not None:
                counted[name].setdefault(value, Counter())[kind] += 1

    unknown = {row.jti: row for row in RowFilter({"type": "outcome", "outcome": "unknown"}, start, end).rows(log)}
    for row in RowFilter({"type": "decision"}, start, end).rows(log):
        count(row, {"allow": "allowed", "deny": "refused", "observed": "unenforced"}.get(str(row.decision), "held"))
        if row.jti and unknown.pop(row.jti, None):
            count(row, "unknown")
    for row in unknown.values():
        count(row, "unknown")
    return {name: {value: {k: each[k] for k in _KINDS} for value, each in sorted(table.items())} for name, table in counted.items()}


def _bar(count: int, most: int) -> str:
    return "\u2588" * max(1, round(20 * count / most)) if terminal() is not None else ""
