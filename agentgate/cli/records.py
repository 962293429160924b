"""``agentgate audit list``, ``show`` and ``stats``: questions to an audit log, answered from
what was verified, and saying so.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from agentgate.audit.auditor import unseal_values
from agentgate.audit.counts import KINDS, count_calls
from agentgate.audit.forms import shape_record
from agentgate.audit.questions import (
    Record,
    Wanted,
    ask_log,
    event,
    find_rows,
    find_story,
    read_moment,
    read_row,
    time_of,
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
Until = Annotated[str, typer.Option(help="Up to then.")]
T = TypeVar("T")
_COLUMNS = ("time", "decision", "tool", "user", "agent", "workflow", "txn")


def ask(
    directories: list[Path],
    keys: list[Path] | None,
    cache: Path | None,
    question: Callable[[LogVerdict], T],
) -> tuple[LogVerdict, T]:
    """Verify a log, with a bar at a terminal, and ask it; ends the command where it cannot be
    read.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = open_cache(cache or home / "agentgate" / "audit")
        return ask_log(
            partial(verify, directories, LogEvidence.of(keys or []), progress, cache=folder),
            question,
            folder,
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
    until: Until = "",
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
        wanted = Wanted(equal, read_moment(since, 0.0), read_moment(until, inf))
        log, found = ask(
            directory,
            keys,
            cache,
            lambda log: sorted(map(read_row, find_rows(log, wanted)), key=time_of),
        )
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
        log, story = ask(directory, keys, cache, lambda log: find_story(log, txn, run))
        records = [_opened(record, auditor_key) for record in story]
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
    until: Until = "",
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """How many calls were allowed, held and refused, and of how many nobody knows the outcome:
    by workflow, tool, user and approver.
    """
    with refusing():
        wanted = Wanted({}, read_moment(since, 0.0), read_moment(until, inf))
        log, tables = ask(directory, keys, cache, lambda log: count_calls(log, wanted))
    if as_json:
        say_json(tables)
    else:
        for name, table in tables.items():
            most = max((sum(each.values()) for each in table.values()), default=1)
            body = [
                (value, *each.values(), _bar(sum(each.values()), most))
                for value, each in table.items()
            ]
            rows((name, *KINDS, ""), body, styles=("bold", "green", "yellow", "red"))
    tell_state(log)


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
