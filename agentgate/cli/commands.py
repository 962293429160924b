"""Groups of commands: a usage error exits with 1 (2 is an answer here), and the module of a
command is imported when it is called.

`agentgate --help` would otherwise import the whole package to print fourteen lines.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_origin

import typer
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from agentgate.values.visible import visible

ERROR = 1
_METAVAR = re.compile(r"[^-$a-z]").match  # else it is a name, a variable, or a word of ours


class Help(NamedTuple):
    """What ``help.txt`` says of a command.

    ``module.function`` below `agentgate.cli`, its line in a list, of its arguments and options
    by parameter what is declared of it and the help, and what stands at the end.
    """

    target: str
    line: str
    options: Mapping[str, tuple[list[str], str]]
    examples: str


def _read(text: str) -> Mapping[str, Help]:
    """The commands by name (``workflow new``)."""
    found = dict[str, Help]()
    for block in text.split("\n\n")[1:]:
        head, *paragraphs = block.replace("\n  ", " ").strip().split("\n")
        name, _, rest = head.removeprefix("[").partition("]")
        target, _, line = rest.strip().partition(": ")
        options = {}
        for place, _, said in (
            each[1:].partition(": ") for each in paragraphs if each.startswith(":")
        ):
            parameter, *words = place.split()
            words, shared = (
                found["*"].options[of] if (of := place.partition(" =")[2]) else (words, "")
            )
            options[parameter] = words, said or shared
        found[name] = Help(target, line, options, "\n\n".join(paragraphs[len(options) :]))
    del found["*"]
    return found


HELP = _read(Path(__file__).with_name("help.txt").read_text("utf-8"))


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        # of a file's name, perhaps
        error.exit_code = ERROR
        error.message = visible(error.message)
        raise


class LazyCommands(TyperGroup):
    """A group whose commands are those of `HELP` within a prefix, imported when they are
    called; its help shows their lines.

    Usage errors, and named errors of a command, exit with 1.
    """

    def __init__(self, *, within: str = "", **more: Any) -> None:
        super().__init__(**more)
        self._within = within
        self._listing = False
        for name, help_ in HELP.items():
            if re.fullmatch(rf"{within}[\w-]+", name):
                short = name.removeprefix(within)
                self.commands.setdefault(short, _Named(short, help=help_.line))

    def make_context(self, *args: Any, **more: Any) -> Any:
        """See typer."""
        with _usage():
            return super().make_context(*args, **more)

    def invoke(self, *args: Any, **more: Any) -> Any:
        """See typer; a named error of a command is its message, and exit code 1."""
        from agentgate.errors import AgentGateError  # noqa: PLC0415 - help needs none

        with _usage():
            try:
                return super().invoke(*args, **more)
            except AgentGateError:
                from agentgate.cli.output import refusing  # noqa: PLC0415 - a list of commands prints nothing by it

                with refusing():
                    raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; while help is formatted, only its help line."""
        command = super().get_command(ctx, cmd_name)
        if isinstance(command, _Named) and not self._listing:
            command = self.commands[cmd_name] = _loaded(cmd_name, HELP[self._within + cmd_name])
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


def _loaded(name: str, help_: Help) -> Any:
    if not help_.target:
        return LazyCommands(
            within=f"{name} ",
            name=name,
            help=help_.line,
            epilog=help_.examples or None,
            no_args_is_help=True,
        )
    module, _, attribute = help_.target.partition(".")
    loaded = getattr(import_module(f"agentgate.cli.{module}"), attribute)
    _declare(loaded, help_)
    app = typer.Typer(add_completion=False)
    app.command(name)(loaded)
    command: Any = get_command(app)
    command.name = name
    _describe(command, help_)
    command.ignore_unknown_options = all(
        each.param_type_name == "argument" for each in command.params
    )  # a key's name may begin with a dash
    return command


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _declare(function: Any, help_: Help) -> None:
    """Give a function's parameters what the file declares of them, once. What
    must be given by position is an argument, anything else an option.
    """
    shape = inspect.signature(function, eval_str=True)
    declared = []
    for each in shape.parameters.values():
        words, _ = help_.options.get(each.name, ((), ""))
        by_name = each.default is not each.empty or each.kind is each.KEYWORD_ONLY
        if get_origin(each.annotation) is not Annotated and (words or by_name):
            option = (by_name or "option" in words) and "argument" not in words
            how: dict[str, Any] = {
                "exists": "existing" in words,
                "file_okay": "folder" not in words,
                "dir_okay": "file" not in words,
                "envvar": next((word[1:] for word in words if word[0] == "$"), None),
                "min": next((_number(word[4:]) for word in words if word[:4] == "min="), None),
            }
            names = [word for word in words if word[0] == "-"]
            info = Option(*names, **how) if option else Argument(**how)
            each = each.replace(annotation=Annotated[each.annotation, info])  # noqa: PLW2901 - the same, declared
        declared.append(each)
    function.__signature__ = shape.replace(parameters=declared)


def _describe(command: Any, help_: Help) -> None:
    """Put in what the file says. Typer keeps the source's line breaks in all paragraphs of a
    help but the first.
    """
    command.epilog = help_.examples
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    for each in command.params:
        words, each.help = help_.options.get(each.name, ((), each.help))
        each.metavar = next(filter(_METAVAR, words), each.metavar)
        if each.default is False:
            each.secondary_opts = []  # a flag that is off has no --no- twin
