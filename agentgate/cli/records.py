"""``agentgate audit list``, ``show`` and ``stats``: questions to an audit log, answered from
what was verified, and saying so.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgate.audit.auditor import unseal_values
from agentgate.audit.forms import shape_record
from agentgate.audit.questions import (
    Record,
    find_records,
    find_story,
    find_taken_back,
    is_taken_back,
    read_moment,
    search_log,
    time_of,
    value_of,
)
from agentgate.audit.seen import open_cache
from agentgate.audit.segment import Line, read_lines, segment_files, writer_of
from agentgate.audit.verify import LogEvidence, LogVerdict, verify
from agentgate.cli.output import (
    Json,
    complain,
    fail,
    progress,
    refusing,
    rows,
    say,
    say_json,
    terminal,
)
from agentgate.errors import AuditDamaged, ConfigError
from agentgate.review.report.past import event

Directories = Annotated[
    list[Path],
    typer.Argument(
        help="An audit directory; also where older segments were moved to.",
        exists=True,
        file_okay=False,
    ),
]
Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--keys",
        "--key",
        help="A gate's key directory (a verifier's heads), or the public key alone (its audit.pub).",
        exists=True,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Where what was verified is kept for the next question.", file_okay=False
    ),
]
Since = Annotated[str, typer.Option(help="From then on: 7d, 12h, or a date as 2026-05-31.")]
_Names = tuple[tuple[str, Any], ...]
_KINDS = "allowed", "held", "refused", "unenforced", "unknown"
_COLUMNS = ("time", "decision", "tool", "user", "agent", "workflow", "txn")


def read_log(
    directories: list[Path], keys: list[Path] | None, cache: Path | None
) -> LogVerdict:
    """Verify a log, with a bar at a terminal; ends the command where it cannot be read."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        return verify(
            directories,
            LogEvidence.of(keys or []),
            progress,
            cache=open_cache(cache or home / "agentgate" / "audit"),
        )
    except OSError as error:
        fail(error)


def tell_state(log: LogVerdict) -> None:
    """Say what the answers rest on; on standard error, since the answer may be JSON or CSV."""
    complain(*(f"{each.name}: {each.wrong}" for each in log.findings))
    count = sum(each.records for each in log.segments)
    state = "verified" if log.is_checked else "chains only: give --keys"
    state = "NOT WHOLE (agentgate audit verify)" if log.findings else state
    complain(f"{count} records of {len(log.segments)} segments: {state}", colour="")


def shown_time(at: float) -> str:
    """As lists show it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def list_(
    directory: Directories,
    *,
    keys: Keys = None,
    tool: Annotated[str, typer.Option(help="Calls of this tool.")] = "",
    decision: Annotated[str, typer.Option(help="allow, deny, step_up or confirm.")] = "",
    user: Annotated[str, typer.Option(help="Calls for this user.")] = "",
    agent: Annotated[str, typer.Option(help="Calls of this agent.")] = "",
    workflow: Annotated[str, typer.Option(help="Under this workflow, by its id.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant.")] = "",
    type_: Annotated[
        str, typer.Option("--type", help="Records of this type (docs/audit-schema.md).")
    ] = "decision",
    would: Annotated[
        bool,
        typer.Option(
            "--would", help="Calls that a version that only observes decides otherwise."
        ),
    ] = False,
    since: Since = "",
    until: Annotated[str, typer.Option(help="Up to then.")] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    cache: Cache = None,
) -> None:
    """Which calls were allowed, held or refused: for whom, under which workflow version."""
    equal = {
        "tool": tool,
        "decision": decision,
        "user": user,
        "agent": agent,
        "workflow": workflow,
        "tenant": tenant,
    }
    equal["type"] = "" if would else type_
    with refusing():
        start = read_moment(since, 0.0)
        end = read_moment(until, float("inf"))
        log = read_log(directory, keys, cache)
    found = sorted(find_records(log, equal, start, end), key=time_of)
    if would:
        found = [
            record
            for record in found
            if record.get("would") not in (None, record.get("decision"))
        ]
    if as_json:
        say_json(found)
    else:
        body = [_cells(record) for record in found]
        say(*_csv(body)) if as_csv else rows(_COLUMNS, body, styles=("dim", "bold"))
    tell_state(log)


def _cells(record: Record) -> tuple[str, ...]:
    workflow = record.get("workflow")
    version = (
        f"{workflow.get('id')} v{workflow.get('version')}" if isinstance(workflow, dict) else ""
    )
    what = record.get("decision") or record.get("outcome") or record.get("type")
    if record.get("would"):
        what = f"{what}, would be {record['would']}"
    names = (str(each or "") for each in (what, *map(record.get, ("tool", "user", "agent"))))
    called = str(record.get("txn") or record.get("tool_call_id") or "")
    return (shown_time(time_of(record)), *names, version, called)


def _csv(body: list[tuple[str, ...]]) -> Iterator[str]:
    out = io.StringIO()
    for line in (_COLUMNS, *body):
        out.seek(0)
        out.truncate()
        csv.writer(out, lineterminator="").writerow(
            ["'" + cell if cell[:1] in tuple("=+-@\t") else cell for cell in line]
        )
        # a cell that a spreadsheet would take for a formula begins with an apostrophe
        yield out.getvalue()


def show(
    txn: Annotated[str, typer.Argument(help="txn, jti, hold id or tool_call_id of the call.")],
    directory: Directories,
    *,
    keys: Keys = None,
    run: Annotated[str, typer.Option(help="Its run, where several have such a call.")] = "",
    auditor_key: Annotated[
        Path | None,
        typer.Option(help="The auditor's private key, for what records hide.", exists=True),
    ] = None,
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """A call's whole story in order: opened, decided, held, answered, minted, redeemed, done,
    repeated.
    """
    with refusing():
        log = read_log(directory, keys, cache)
        records = [_opened(record, auditor_key) for record in find_story(log, txn, run)]
    if as_json:
        say_json(records)
    else:
        for record in records:
            say(event(record))
            hidden = {"type", "time", "v", "met", "writer", "seq"}
            say(
                *(
                    f"    {name}: {value}"
                    for name, value in record.items()
                    if name not in hidden and value not in (None, [], {})
                )
            )
    tell_state(log)


def _opened(record: Record, key: Path | None) -> Record:
    if key is not None and "sealed" in record:
        return {**record, "sealed": unseal_values(record["sealed"], key)}
    return record


def stats(
    directory: Directories,
    *,
    keys: Keys = None,
    since: Since = "",
    until: Annotated[str, typer.Option(help="Up to then.")] = "",
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """How many calls were allowed, held and refused, and of how many nobody knows the outcome:
    by workflow, tool, user and approver.
    """
    with refusing():
        start = read_moment(since, 0.0)
        end = read_moment(until, float("inf"))
        log = read_log(directory, keys, cache)
    tables = count_calls(log, start, end)
    if as_json:
        say_json(tables)
    else:
        for name, table in tables.items():
            most = max((sum(each.values()) for each in table.values()), default=1)
            body = [
                (value, *each.values(), _bar(sum(each.values()), most))
                for value, each in table.items()
            ]
            rows((name, *_KINDS, ""), body, styles=("bold", "green", "yellow", "red"))
    tell_state(log)


def count_calls(
    log: LogVerdict, start: float, end: float
) -> dict[str, dict[str, dict[str, int]]]:
    """Of each workflow, tool, user and approver: how many calls were allowed, held, refused,
    and ended nobody knows how.
    """
    totals = Counter[tuple[_Names, str]]()
    decided = dict[str, _Names]()
    unknown = list[tuple[str, _Names]]()
    taken_back = find_taken_back(log)
    kinds = {"allow": "allowed", "deny": "refused", "observed": "unenforced"}
    for record in search_log(log, b'"type":"decision"', b'"outcome":"unknown"'):
        if start <= time_of(record) <= end and not is_taken_back(record, taken_back):
            yes = record.get("approvals")
            jti = str(record.get("jti"))
            named = [(name, value_of(record, name)) for name in ("workflow", "tool", "user")]
            named += (
                [("approver", each.get("by")) for each in yes if isinstance(each, dict)]
                if isinstance(yes, list)
                else []
            )
            names = tuple([each for each in named if type(each[1]) is str])
            if record.get("type") == "decision":
                decided[jti] = names
                totals[names, kinds.get(str(record.get("decision")), "held")] += 1
            elif record.get("outcome") == "unknown":
                unknown.append((jti, names))
    totals.update([(decided.get(jti, names), "unknown") for jti, names in unknown])
    counted = {
        name: dict[str, dict[str, int]]() for name in ("workflow", "tool", "user", "approver")
    }
    for (names, kind), count in totals.items():
        for name, value in names:
            counted[name].setdefault(value, dict.fromkeys(_KINDS, 0))[kind] += count
    return {name: dict(sorted(table.items())) for name, table in counted.items()}


def export(
    directory: Directories,
    *,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Each as it is, with its segment and number.")
    ] = False,
    ocsf: Annotated[bool, typer.Option("--ocsf", help="As OCSF 1.3 (API Activity).")] = False,
    cef: Annotated[bool, typer.Option("--cef", help="As CEF.")] = False,
    since: Since = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is written from now on.")
    ] = False,
) -> None:
    """Print records, a line each, for whoever keeps logs elsewhere; their chains are verified
    as they are read.
    """
    last = dict[str, Line]()
    wrong = set[Path]()
    with refusing():
        wanted = [
            name for name, given in (("jsonl", jsonl), ("ocsf", ocsf), ("cef", cef)) if given
        ]
        if len(wanted) != 1:
            raise ConfigError(
                "form", " ".join(wanted) or "none", "one of --jsonl, --ocsf and --cef"
            )
        start = read_moment(since, 0.0)
        while True:
            for path in chain.from_iterable(map(segment_files, directory)):
                writer = writer_of(path)
                try:
                    for line in read_lines(path, last.get(writer)):
                        last[writer], record = (
                            line,
                            {**line.record, "writer": writer, "seq": line.seq},
                        )
                        if start <= time_of(record):
                            say(shape_record(record, *wanted))
                except (AuditDamaged, FileNotFoundError) as error:  # the others go on
                    if path not in wrong:
                        complain(error)
                    wrong.add(path)
            complain()  # what is printed leaves
            if not follow:
                raise typer.Exit(bool(wrong))
            time.sleep(1.0)


def _bar(count: int, most: int) -> str:
    return "\u2588" * max(1, round(20 * count / most)) if terminal() is not None else ""
