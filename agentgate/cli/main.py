"""``agentgate``: the groups of commands. ``help.txt`` lists the commands, and names the
function of each.
"""

from __future__ import annotations

from typing import Annotated

import typer

from agentgate.cli.commands import LazyCommands

app = typer.Typer(
    name="agentgate",
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold tokens and prompts
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - its e-mail parser is a tenth of what starting takes

        typer.echo(f"agentgate {version('agentgate-mediator')}")
        raise typer.Exit


@app.callback()
def agentgate(
    show: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Decides whether a credential should exist at all: one token for one call of an agent."""
