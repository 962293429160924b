"""``agentgate``: the list of commands. Each is named in one line of the tables here and stands in a file of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer

from agentgate.cli.commands import LazyCommands, Table


class _Workflow(LazyCommands):
    table: ClassVar[Table] = {
        "new": ("new:new", "Draft a workflow for tools you have, as narrow as can be said, and a test file beside it."),
        "words": ("words:words", "Print the usual English words for an act, as the `words` of an intent."),
        "lint": (
            "lint:lint",
            "Check workflow files: every problem with file, line, column, what was expected and what was probably meant.",
        ),
        "test": (
            "test:run_cases",
            "Run the cases of NAME.test.yaml beside each workflow: the real engine decides, nothing in the files is executed.",
        ),
        "diff": ("diff:diff", "Say which calls NEW permits and OLD did not: for every call there can be, each with a value that shows it."),
        "check": (
            "check:check",
            "Check everything a reviewer would ask: does it load, do its tests hold, what does it newly permit, who signed it.",
        ),
        "approve": ("approve:approve", "Sign one version of a workflow."),
        "status": ("status:status", "Say what is in force, who signed what, and how many signatures are missing."),
        "index": ("status:index", "Sign the list of newest approved versions. Gates refuse one that is older than seven days."),
        "revoke": (
            "status:revoke",
            "End a workflow's versions, for good: one signature is enough, and gates refuse them from their next look on.",
        ),
    }


class _AgentGate(LazyCommands):
    table: ClassVar[Table] = {
        "init": (
            "init:init",
            "Draft a workflow for your tools, approve it with your own SSH key, open a gate on it, and prove one guarded call.",
        ),
        "demo": ("demo:demo", "Run a guarded payment agent: what is minted, refused, held, and why."),
        "evaluate": (
            "evaluate:evaluate",
            "Replay recorded episodes through a real gate (in memory) and count what passes, is held and is refused.",
        ),
        "explain": (
            "explain:explain",
            "Explain a decision: every condition, what it got and expected, where each value came from, what would pass, and whom to ask.",
        ),
        "doctor": ("doctor:doctor", "Look at store, keys, workflows and audit log: what holds, and what to do about what does not."),
        "root": ("root:app", "The root: who reviews what, with which keys, and how many signatures it takes."),
        "keys": ("keys:app", "Signing keys: publish, rotate."),
        "store": ("store:app", "The state store: reconcile it with the audit logs after a loss."),
    }


app = typer.Typer(
    name="agentgate",
    cls=_AgentGate,
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
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Decides whether a credential should exist at all: one short-lived token per allowed call of an agent."""


workflow = typer.Typer(help="Workflow files: draft, check, test, compare and approve them.", cls=_Workflow, no_args_is_help=True)


@workflow.callback()
def _workflow() -> None: ...


app.add_typer(workflow, name="workflow")
