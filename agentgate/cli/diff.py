"""``agentgate workflow diff``: which calls a change newly permits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from agentgate.cli.output import LOOK, YES, complain, fail, refusing, say, say_json, styled
from agentgate.cli.signing import Json
from agentgate.errors import ConfigError
from agentgate.loading.source import find, lend_roles
from agentgate.review.report.changes import Changes, as_json, comment, page, plain
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.signers import still_to_sign


def diff(
    old: Annotated[str, typer.Argument(help="The approved version: a file, or REV:path.")],
    new: Annotated[str, typer.Argument(help="The proposed version: a file, or REV:path.")],
    as_json_: Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a comment for a pull request: at most 8 rows, the worst first.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.", dir_okay=False)] = None,
) -> None:
    """Say which calls NEW permits and OLD did not: for every call there can be, each with a value that shows it.

    What no program compares (an intent's words, another claim) is listed to be read by a person.
    """
    with refusing():
        if as_json_ and markdown:
            raise ConfigError("output", "--json and --markdown", "one of them")
        before, after, notes = lend_roles(find(old), find(new))
        changes = changes_between(before, after)
        changes = changes_between(before, after, still_to_sign(before, after, changes))
        changes = replace(changes, notes=(*changes.notes, *notes))
        if html is not None:
            save(html, [changes], f"{old} → {new}")
    if as_json_:
        say_json(as_json(changes))
    elif markdown:
        say(*comment(changes))
    else:
        tell(changes)
    raise typer.Exit(LOOK if changes.looks else YES)


def tell(changes: Changes) -> None:
    """Print a change as text, in colour at a terminal."""
    styled(plain(changes, max(80, shutil.get_terminal_size().columns)))


def save(file: Path, changes: Sequence[Changes], subtitle: str, errors: Sequence[str] = ()) -> None:
    """Write the page. Exits with 1 where it cannot be written."""
    try:
        file.write_text(page(changes, title="What this change permits", subtitle=subtitle, errors=errors), "utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    complain(f"wrote {file}", colour="")
