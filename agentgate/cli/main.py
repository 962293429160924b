"""``agentgate``: the list of commands. Each command stands in a file of its own here and is named in one line below."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from agentgate.cli import approve, check, demo, diff, evaluate, explain, init, keys, lint, new, root, status, test, words
from agentgate.cli.output import Commands, say

app = typer.Typer(
    name="agentgate",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold tokens and prompts
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        say(f"agentgate {version('agentgate-mediator')}")
        raise typer.Exit


@app.callback()
def agentgate(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Decides whether a credential should exist at all: one short-lived token per allowed call of an agent."""


workflow = typer.Typer(help="Workflow files: draft, check, test, compare and approve them.", cls=Commands, no_args_is_help=True)
app.add_typer(workflow, name="workflow")
app.add_typer(root.app, name="root")
app.add_typer(keys.app, name="keys")

workflow.command("new", epilog=new.EXAMPLES)(new.new)
workflow.command("words", epilog=words.EXAMPLES)(words.words)
workflow.command("lint", epilog=lint.EXAMPLES)(lint.lint)
workflow.command("test", epilog=test.EXAMPLES)(test.run_cases)
workflow.command("diff", epilog=diff.EXAMPLES)(diff.diff)
workflow.command("check", epilog=check.EXAMPLES)(check.check)
workflow.command("approve", epilog=approve.EXAMPLES)(approve.approve)
workflow.command("status", epilog=status.STATUS_EXAMPLES)(status.status)
workflow.command("index", epilog=status.INDEX_EXAMPLES)(status.index)
workflow.command("revoke", epilog=status.REVOKE_EXAMPLES)(status.revoke)
app.command("init", epilog=init.EXAMPLES)(init.init)
app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("explain", epilog=explain.EXAMPLES)(explain.explain)
