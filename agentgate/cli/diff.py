"""``agentgate workflow diff``: which calls a change newly permits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from agentgate.cli.output import LOOK, YES, fail, refusing, say_json, terminal
from agentgate.errors import ConfigError
from agentgate.review.changes import Changes, as_json, comment, plain
from agentgate.review.comparison import changes_between
from agentgate.review.page import page
from agentgate.review.signers import still_to_sign
from agentgate.review.source import find

EXAMPLES = (
    "Examples:\n\n"
    "agentgate workflow diff main:workflows/payments/customer-refund.yaml workflows/payments/customer-refund.yaml\n\n"
    "agentgate workflow diff old.yaml new.yaml --html change.html\n\n"
    "agentgate workflow diff v1.2:workflows/refund.yaml HEAD:workflows/refund.yaml --markdown > comment.md\n\n"
    "REV:path is read as git has it, from the repository's root (./ from here); nothing of the repository is executed.\n\n"
    "Exit codes: 0 nothing more is permitted, 2 something is or must be read by a person, 1 an error."
)


def diff(
    old: Annotated[str, typer.Argument(help="The approved version: a file, or REV:path.")],
    new: Annotated[str, typer.Argument(help="The proposed version: a file, or REV:path.")],
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a comment for a pull request: at most 8 rows, the worst first.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.", dir_okay=False)] = None,
) -> None:
    """Say which calls NEW permits and OLD did not: exactly, for every call there can be, each with a value that shows it.

    What no program compares (an intent's words, who answers for what) is listed to be read by a person.
    """
    with refusing():
        if as_json_ and markdown:
            raise ConfigError("output", "--json and --markdown", "one of them")
        before, after = find(old), find(new)
        changes = changes_between(before, after)
        changes = changes_between(before, after, still_to_sign(before, after, changes))
        if html is not None:
            save(html, [changes], f"{old} → {new}")
    if as_json_:
        say_json(as_json(changes))
    elif markdown:
        print("\n".join(comment(changes)))
    else:
        tell(changes)
    raise typer.Exit(LOOK if changes.looks else YES)


def tell(changes: Changes) -> None:
    """The change as text: in colour at a terminal."""
    console = terminal()
    if console is None:
        print("\n".join(plain(changes, max(80, shutil.get_terminal_size().columns))))
        return
    for line in plain(changes, console.width):
        style = "bold red" if "MORE permitted" in line else "yellow" if line.startswith(("READ YOURSELF", "STILL TO SIGN")) else ""
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def save(file: Path, changes: Sequence[Changes], subtitle: str) -> None:
    """Write the page. Exits with 1 where it cannot be written."""
    try:
        file.write_text(page(changes, title="What this change permits", subtitle=subtitle), "utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    print(f"wrote {file}", file=sys.stderr)
