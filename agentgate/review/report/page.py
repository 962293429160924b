"""One self-contained page about changes: no script, nothing loaded, light and dark, and it prints.

Rules: everything from a file goes through `visible` and the template's escaping; the page's policy forbids scripts, requests and
forms, and allows exactly one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2

from agentgate.review.report.changes import Changes
from agentgate.values.visible import visible

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters["visible"] = visible
    return found


def page(changes: Sequence[Changes], *, title: str, subtitle: str) -> str:
    """The page, as HTML.

    Args:
        changes: one per workflow.
        title: what the page is about.
        subtitle: what was compared with what.
    """
    style = (_TEMPLATES / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made: str = (
        _environment().get_template("page.html").render(changes=changes, title=title, subtitle=subtitle, style=style, style_digest=digest)
    )
    return made
