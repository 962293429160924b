"""Groups of commands: a usage error exits with 1 (2 is an answer here), and a command's module is imported when it is called.

`agentgate --help` would otherwise import the whole package to print fourteen lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

ERROR = 1
_Function = TypeVar("_Function", bound=Callable[..., Any])
Table = Mapping[str, tuple[str, str]]  # name -> (``module:function`` or ``module:app`` below `agentgate.cli`, first line of its help)


class Commands(TyperGroup):
    """A group of commands whose usage errors exit with 1."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """See typer."""
        with _usage():
            return super().make_context(*args, **more)

    def invoke(self, *args: Any, **more: Any) -> Any:
        """See typer."""
        with _usage():
            return super().invoke(*args, **more)


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        error.exit_code = ERROR
        raise


class LazyCommands(Commands):
    """A group whose commands are named in `table` and imported when they are called; its help shows the table's lines."""

    table: ClassVar[Table] = {}

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._listing = False
        for name, (_, line) in self.table.items():
            self.commands.setdefault(name, _Named(name, help=line))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; while help is formatted, only its help line."""
        command = super().get_command(ctx, cmd_name)
        if isinstance(command, _Named) and not self._listing:
            command = self.commands[cmd_name] = _loaded(cmd_name, *self.table[cmd_name])
        return command

    def format_help(self, *args: Any) -> None:
        """See typer."""
        self._listing = True
        try:
            super().format_help(*args)
        finally:
            self._listing = False


class _Named(TyperCommand):
    """A command with only its name and help line."""


def _loaded(name: str, target: str, line: str) -> Any:
    module, _, attribute = target.partition(":")
    loaded = getattr(import_module(f"agentgate.cli.{module}"), attribute)
    if isinstance(loaded, typer.Typer):
        loaded.info.help = line
        app = loaded
    else:
        app = typer.Typer(add_completion=False)
        app.command(name, epilog=loaded.examples)(loaded)
    command = get_command(app)
    command.name = name
    return command


def examples(text: str) -> Callable[[_Function], _Function]:
    """Decorates a command with the examples that its help ends with."""

    def mark(function: _Function) -> _Function:
        function.examples = text  # type: ignore[attr-defined]  # read by `_loaded`
        return function

    return mark
