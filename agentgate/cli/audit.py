"""``agentgate audit``: is an audit log what its writers wrote?"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from agentgate.audit.note import NoteVerifier, log_verifier, read_checkpoint
from agentgate.audit.questions import read_moment
from agentgate.audit.retention import AT_ONCE, compress_segment, ended_before, remove_segments
from agentgate.audit.verify import Known, LogEvidence, LogVerdict, Sealed, Verified, verify
from agentgate.cli import records
from agentgate.cli.output import (
    LOOK,
    YES,
    Json,
    complain,
    fail,
    note,
    progress,
    refusing,
    rows,
    say,
    say_json,
)
from agentgate.cli.records import Directories, Keys, shown_time, tell_state
from agentgate.errors import ConfigError
from agentgate.stores import open_store, ops

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("verify")
def verify_(  # noqa: PLR0917 - as `explain`
    directory: Directories,
    keys: Keys = None,
    checkpoint: Annotated[
        list[Path] | None,
        Option(
            help="A checkpoint that is kept elsewhere: of a second folder, an endpoint, a witness.",
            exists=True,
        ),
    ] = None,
    witness: Annotated[
        str,
        Option(
            help="The verifier key of a witness, which must have cosigned each --checkpoint."
        ),
    ] = "",
    store: Annotated[
        str, Option(help="A gate's state store, for the newest checkpoints there (read only).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Read every segment and seal again: chains, tree, signatures, and what checkpoints kept
    elsewhere know.
    """
    with refusing():
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
        logs = [{**asdict(log), "heads": len(log.heads)} for log in found.logs]
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
        _tell(found)
    raise typer.Exit(int(status or 0))


@app.command()
def prune(
    directory: Annotated[Path, typer.Argument(help="An audit directory.", exists=True)],
    keys: Annotated[
        Path,
        typer.Option(
            help="The key directory of its log, whose key seals what is removed.", exists=True
        ),
    ],
    before: Annotated[
        str, typer.Option(help="Remove segments that ended before then: 400d, or a date.")
    ] = "",
    compress: Annotated[
        str, typer.Option(help="Compress (gzip) those that ended before then.")
    ] = "",
) -> None:
    """Remove segments whose time is over, with a seal and a record that say so, and compress
    others.
    """
    with refusing():
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


def _tell(found: LogVerdict) -> None:
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
    rows(("segment", "records", "sealed", "torn bytes", "state"), body, styles=("bold",))
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
                f"{each.writer}: its process was killed; {each.unsealed} records were under "
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


app.command("list")(records.list_)
app.command("show")(records.show)
app.command("stats")(records.stats)
app.command("export")(records.export)
