"""Renders changes as one self-contained page: no script, no request, light and dark, printable.

Rules: every text from a file goes through `visible` and the template's escaping; the page's content security policy forbids scripts,
requests and forms, and allows exactly one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from agentgate.review.draft.template import render
from agentgate.review.report.changes import Changes
from agentgate.values.visible import visible

_TEMPLATES = Path(__file__).parent / "templates"


def page(changes: Sequence[Changes], *, title: str, subtitle: str) -> str:
    """The page, as HTML: changes, one per workflow, and a subtitle that says what was compared with what."""
    style = (_TEMPLATES / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values = {"changes": changes, "title": title, "subtitle": subtitle, "style": style, "style_digest": digest, "visible": visible}
    return render(_TEMPLATES / "page.html", **values)
