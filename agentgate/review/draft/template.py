"""Text from jinja templates: the drafts of a workflow and of a root, the lines to paste after a
start, the page of a report, its lines at a terminal.

Rules: HTML is escaped, and a name that the template uses and nobody gave is an error. What was
read from elsewhere is a value that a template shows, and never a template; `quoted` shows one
as JSON, which is also a Python literal of a text. In a template of lines each value is visible:
none begins a line of its own, or a style.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from agentgate.values.visible import visible

PACKAGE = Path(__file__).parents[2]


@cache
def _environment(suffix: str) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=visible if suffix == "lines" else None,
    )
    made.filters["quoted"] = json.dumps
    return made


def render(template: str, **values: Any) -> str:
    """The text of a template, by its path in the package, with these values (functions among
    them are called in it).
    """
    environment = _environment(template.rpartition(".")[2])
    return environment.get_template(template).render(values)


def render_lines(template: str, **values: Any) -> Iterator[tuple[str, str]]:
    """The lines of a ``.lines`` template, each with its style at a terminal: what stands before
    the first ``|``.
    """
    for line in render(template, **values).splitlines():
        style, _, text = line.partition("|")
        yield text, style
