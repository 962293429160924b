"""``agentgate audit``: is an audit log what its writers wrote? And questions to it, answered from what
was verified, and saying so.
"""

from __future__ import annotations

import csv
import getpass
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Literal, TypeVar

import typer

from agentgate.audit.auditor import unseal_values
from agentgate.audit.questions import (
    KINDS,
    Record,
    Wanted,
    ask_log,
    count_calls,
    event,
    find_rows,
    find_story,
    read_moment,
    read_row,
    shape_record,
    time_of,
)
from agentgate.audit.retention import AT_ONCE, compress_segment, ended_before, remove_segments
from agentgate.audit.segment import Line, read_lines, segment_files, writer_of
from agentgate.audit.tree import NoteVerifier, log_verifier, read_checkpoint
from agentgate.audit.verify import (
    Known,
    LogEvidence,
    LogVerdict,
    Sealed,
    Verified,
    open_cache,
    verify,
)
from agentgate.cli.output import (
    LOOK,
    YES,
    complain,
    fail,
    note,
    progress,
    rows,
    say,
    say_json,
    table,
    terminal,
)
from agentgate.errors import AuditDamaged, ConfigError
from agentgate.stores import open_store, ops

T = TypeVar("T")
Decision = Literal["allow", "deny", "step_up", "confirm", "observed"]
_COLUMNS = "time decision tool user agent workflow txn".split()


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
    directory: list[Path],
    *,
    keys: list[Path] | None = None,
    tool: str = "",
    decision: Decision | None = None,
    user: str = "",
    agent: str = "",
    workflow: str = "",
    tenant: str = "",
    type_: str = "decision",
    would: bool = False,
    since: str = "",
    until: str = "",
    as_json: bool = False,
    as_csv: bool = False,
    cache: Path | None = None,
) -> None:
    """Which calls were allowed, held or refused: for whom, under which workflow version."""
    equal = {
        "tool": tool,
        "decision": decision or "",
        "user": user,
        "agent": agent,
        "workflow": workflow,
        "tenant": tenant,
    }
    equal["type"] = "" if would else type_
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
        if not body:
            complain("No record is like that.", colour="yellow")
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
    txn: str,
    directory: list[Path],
    *,
    keys: list[Path] | None = None,
    run: str = "",
    auditor_key: Path | None = None,
    as_json: bool = False,
    cache: Path | None = None,
) -> None:
    """A call's whole story in order: opened, decided, held, answered, minted, redeemed, done,
    repeated.
    """
    log, story = ask(directory, keys, cache, lambda log: find_story(log, txn, run))
    records = [_opened(record, auditor_key) for record in story]
    if as_json:
        say_json(records)
    else:
        for record in records:
            say(event(record))
            hidden = "type time v met writer seq".split()
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
    directory: list[Path],
    *,
    keys: list[Path] | None = None,
    since: str = "",
    until: str = "",
    as_json: bool = False,
    cache: Path | None = None,
) -> None:
    """How many calls were allowed, held and refused, and of how many nobody knows the outcome:
    by workflow, tool, user and approver.
    """
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
    directory: list[Path],
    *,
    jsonl: bool = False,
    ocsf: bool = False,
    cef: bool = False,
    since: str = "",
    follow: bool = False,
) -> None:
    """Print records, a line each, for whoever keeps logs elsewhere; their chains are verified
    as they are read.
    """
    last = dict[str, Line]()
    wrong = set[Path]()
    wanted = [name for name, given in (("jsonl", jsonl), ("ocsf", ocsf), ("cef", cef)) if given]
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


def verify_(  # noqa: PLR0917 - as `explain`
    directory: list[Path],
    keys: list[Path] | None = None,
    checkpoint: list[Path] | None = None,
    witness: str = "",
    store: str = "",
    as_json: bool = False,
) -> None:
    """Read every segment and seal again: chains, tree, signatures, and what checkpoints kept
    elsewhere know.
    """
    try:
        evidence = LogEvidence.of(keys or [])
        signer = NoteVerifier.parse(witness) if witness else None
        known = [*evidence.known, *(_known(path, signer) for path in checkpoint or [])]
        known += _stored(store, evidence.keys) if store else []
        found = verify(directory, evidence._replace(known=known), progress)
    except OSError as error:
        fail(error)
    if not found.segments:
        fail(f"{', '.join(map(str, directory))}: no segments (*.jsonl)")
    status = found.findings[0].finding if found.findings else YES if found.is_checked else LOOK
    if as_json:
        # a copy of its heads would call their type wrongly in Python 3.11
        logs = [
            asdict(replace(log, heads={})) | {"heads": len(log.heads)} for log in found.logs
        ]
        segments = [{**asdict(each), "tail": each.tail} for each in found.segments]
        say_json(
            {
                "whole": status == YES,
                "truncation_checked": found.is_checked,
                "logs": logs,
                "segments": segments,
            }
        )
    else:
        _tell_verdict(found)
    raise typer.Exit(int(status or 0))


def prune(
    directory: Path,
    keys: Path,
    before: str = "",
    compress: str = "",
) -> None:
    """Remove segments whose time is over, with a seal and a record that say so, and compress
    others.
    """
    moment = read_moment(before, 0.0)
    try:
        found = verify([directory], LogEvidence.of([keys]), progress)
        tell_state(found)
        gone = ended_before(found, moment)
        for start in range(0, len(gone), AT_ONCE):
            remove_segments(
                directory,
                keys,
                gone[start : start + AT_ONCE],
                before=moment,
                by=getpass.getuser(),
            )
        packed = [
            path
            for path in ended_before(found, read_moment(compress, 0.0))
            if path.suffix != ".gz" and path not in gone
        ]
        for path in packed:
            compress_segment(path)
    except OSError as error:
        fail(error)
    say(f"{len(gone)} segments removed, {len(packed)} compressed")


def _known(path: Path, witness: NoteVerifier | None) -> Known:
    try:
        text = path.read_text("utf-8")
        found = read_checkpoint(text)
    except ValueError as error:
        raise ConfigError("checkpoint", str(path), f"a signed checkpoint ({error})") from error
    if witness is not None and not witness.signed(text):
        raise ConfigError("checkpoint", str(path), f"one that {witness.name} cosigned")
    return Known(str(path), found)


def _stored(url: str, keys: Sequence[bytes]) -> Iterator[Known]:
    """The checkpoints in a state store that one of these keys signed."""
    from agentgate.cli.store import ask_store  # noqa: PLC0415 - half a second that other commands do not need

    with closing(open_store(url)) as store:
        for text in ask_store(store, ops.read_checkpoints()):
            with suppress(ValueError):
                found = read_checkpoint(text)
                if any(log_verifier(found.origin, key).signed(text) for key in keys):
                    yield Known("the state store", found)


def _tell_verdict(found: LogVerdict) -> None:
    body = [
        (
            each.writer,
            each.records,
            "-" if each.sealed is None else each.sealed,
            each.torn or "",
            _state(each),
        )
        for each in found.segments
    ]
    table("bold:segment | records | sealed | torn bytes | state", body)
    for log in found.logs:
        say(f"log {log.origin}: {log.size} leaves, key {log.verifier}")
        for before, after in log.gaps:
            what = "no process wrote it" if before < after else "its clock went back"
            note(f"{what} from {shown_time(before / 1000)} to {shown_time(after / 1000)}")
    complain(*(f"{each.name}: {each.wrong}" for each in found.findings))
    if found.findings:
        note(
            "Restore what is missing from where your logs are shipped to, or give that "
            "directory too; keep what is here."
        )
    if any(each.torn for each in found.segments):
        note("A torn last line was never acknowledged: nothing was issued or run on it.")
    if not found.is_checked:
        note(
            "Not checked: what was cut off, forged or deleted (give --keys; or no seal is here)."
        )
    for each in found.segments:
        if each.unsealed:
            note(
                f"{each.writer}: its process did not close its log; {each.unsealed} records were under "
                "no checkpoint until the next began"
            )
    tail = (
        sum(each.tail for each in found.segments if each.finding is None)
        if found.is_checked
        else 0
    )
    total = sum(each.records for each in found.segments)
    say(
        f"{len(found.segments)} segments, {total} records"
        + (f", {tail} of them under no checkpoint yet" if tail else "")
    )


def _state(each: Verified | Sealed) -> str:
    return "whole" if each.finding is None else each.finding.name.lower().replace("_", " ")
