"""``agentgate audit``: is an audit log what its writers wrote?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from agentgate.audit.heads import FOLDER, kept
from agentgate.audit.verify import Verified, verify
from agentgate.cli.output import LOOK, YES, fail, note, refusing, rows, say, say_json
from agentgate.cli.signing import Json

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _audit() -> None: ...


@app.command("verify")
def verify_(
    directory: Annotated[
        list[Path], typer.Argument(help="An audit directory; also where older segments were moved to.", exists=True, file_okay=False)
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            help="The gate's key directory (a verifier's heads), which keeps how far each segment came.", exists=True, file_okay=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read every segment again: chain, numbers, writer, torn lines; with --keys also what was cut off or deleted."""
    with refusing():
        try:
            heads = kept(keys) if keys is not None else {}
            found = verify(directory, heads)
        except OSError as error:
            fail(error)
        if keys is not None and not heads:
            fail(f"{keys / FOLDER}: no heads of segments; expected the key directory of the gate that wrote this log")
        if not found:
            fail(f"{', '.join(map(str, directory))}: no segments (*.jsonl)")
    whole = keys is not None and not any(each.wrong for each in found)
    if as_json:
        say_json({"whole": whole, "truncation_checked": keys is not None, "segments": [asdict(each) for each in found]})
    else:
        _tell(found, checked=keys is not None)
    raise typer.Exit(YES if whole else LOOK)


def _tell(found: tuple[Verified, ...], *, checked: bool) -> None:
    body = [
        (each.writer, each.records, "-" if each.kept is None else each.kept, each.torn or "", each.wrong.partition(":")[0] or "whole")
        for each in found
    ]
    rows(("segment", "records", "kept head", "torn bytes", "state"), body, styles=("bold",))
    wrong = [each for each in found if each.wrong]
    note(*(f"{each.file or each.writer}: {each.wrong}" for each in wrong), colour="red")
    if wrong:
        note("Restore what is missing from where your logs are shipped to, or give that directory too; keep what is here.")
    if any(each.torn for each in found):
        note("A torn last line was never acknowledged: nothing was issued or run on it.")
    if not checked:
        note("Not checked: what was cut off or deleted (give --keys).")
    late = sum(each.records - each.kept for each in found if each.kept is not None and not each.wrong)
    total = sum(each.records for each in found)
    say(f"{len(found)} segments, {total} records" + (f", {late} of them after the kept heads" if checked and late > 0 else ""))
