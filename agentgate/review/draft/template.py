"""Text from jinja templates: the drafts of a workflow and of a root, the lines to paste after a
start, the page of a report.

Rules: HTML is escaped, and a name that the template uses and nobody gave is an error. What was
read from elsewhere is a value that a template shows, and never a template; `quoted` shows one
as JSON, which is also a Python literal of a text.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


@cache
def _environment(folder: Path) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["quoted"] = json.dumps
    return made


def render(template: Path, **values: Any) -> str:
    """The text of a template with these values (functions among them are called in it)."""
    return _environment(template.parent).get_template(template.name).render(values)
