"""A reviewer's report of one change: the same facts for a terminal, a pull request's comment, a page and a program.

Rules: what is newly permitted comes first, the worst first; what no program could compare is named, never omitted; whoever prints a text
from a file makes it visible (`agentgate.values.visible`). The page has no script and makes no request; its content security policy forbids
scripts, requests and forms, and allows exactly one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agentgate.review.draft.template import render
from agentgate.values.visible import code, markdown, visible

MOST_ROWS = 8  # of a comment; further rows are only counted


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    where: str  # tool and field, or the block
    old: str  # the text of each version; empty where it has none
    new: str
    effect: str = ""  # the consequence for a call, in words ("was refused, would be allowed")
    example: str = ""  # the value that shows it, or empty
    # a call that shows it: (field, before, after) of each field in which it differs from an allowed one
    call: tuple[tuple[str, str, str], ...] = ()
    answers: tuple[str, str] = ("", "")  # the engine's answer to that call under the old and the new version; empty where there is none


@dataclass(frozen=True, slots=True)
class Changes:
    """The report of one change."""

    id: str  # the workflow's
    old: str  # versions (``v7``), or ``nothing`` for a new or removed workflow
    new: str
    wider: tuple[Change, ...] = ()  # what is newly and what no longer permitted
    narrower: tuple[Change, ...] = ()
    read_yourself: tuple[str, ...] = ()  # what no program compared, or could show by a call
    signers: tuple[str, ...] = ()  # who must still sign, in words, one line each; empty: not known here
    lines: tuple[str, ...] = ()  # the change of the file, as a unified diff
    engine: str = ""  # what compared the versions
    digest: str = ""  # ``sha256:...`` of the new definition
    notes: tuple[str, ...] = ()  # further remarks

    @property
    def looks(self) -> bool:
        """True when a person must look: more is permitted, or something was not compared."""
        return bool(self.wider or self.read_yourself)

    @property
    def verdict(self) -> str:
        """The result, in one sentence."""
        if self.wider:
            return f"MORE permitted: {len(self.wider)}"
        if self.read_yourself:
            return "nothing proved wider, but not everything could be compared"
        return "nothing more is permitted" if self.narrower else "nothing that decides differs"


def unified(old: str, new: str, names: tuple[str, str]) -> tuple[str, ...]:
    """The lines of a unified diff, at most 2,000."""
    return tuple(islice(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=2), 2000))


def plain(changes: Changes, width: int = 100) -> Iterator[str]:
    """The change as visible text, one block per kind."""
    yield visible(f"{changes.id}  {changes.old} -> {changes.new}     {changes.verdict}")
    yield from _numbered(changes.wider, width)
    if changes.narrower:
        yield f"LESS permitted: {len(changes.narrower)}"
        yield from _numbered(changes.narrower, width)
    if changes.read_yourself:
        yield visible("READ YOURSELF: " + ", ".join(changes.read_yourself))
    for line in changes.signers:
        yield visible(f"STILL TO SIGN: {line}")
    yield from map(visible, changes.notes)


def _numbered(changes: Sequence[Change], width: int) -> Iterator[str]:
    """Each change on one line where it fits, else one part per line."""
    where = max((len(visible(c.where)) for c in changes), default=0)
    for number, c in enumerate(changes, 1):
        parts = [part for part in (visible(c.where), visible(arrow(c)), visible(consequence(c))) if part]
        line = f"{number:>3}. {parts[0]:<{where}}  {'  '.join(parts[1:])}".rstrip()
        if len(line) <= width:
            yield line
        else:
            yield f"{number:>3}. {parts[0]}"
            yield from (f"       {part}" for part in parts[1:])


def arrow(change: Change) -> str:
    """``old -> new``."""
    return f"{change.old or '(nothing)'} -> {change.new or '(nothing)'}" if change.old or change.new else ""


def consequence(change: Change) -> str:
    """The effect, with the value that shows it."""
    return f"{change.example}: {change.effect}" if change.example else change.effect


def as_json(changes: Changes) -> dict[str, Any]:
    """The change for a program."""
    return {
        "workflow": changes.id,
        "old": changes.old,
        "new": changes.new,
        "digest": changes.digest,
        "verdict": "wider" if changes.wider else "read_yourself" if changes.read_yourself else "narrower" if changes.narrower else "same",
        "wider": [_row(c) for c in changes.wider],
        "narrower": [_row(c) for c in changes.narrower],
        "read_yourself": list(changes.read_yourself),
        "still_to_sign": list(changes.signers),
        "engine": changes.engine,
        "notes": list(changes.notes),
    }


def _row(c: Change) -> dict[str, Any]:
    return {
        "where": c.where,
        "old": c.old,
        "new": c.new,
        "effect": c.effect,
        "example": c.example,
        "call": [{"field": key, "before": before, "after": after} for key, before, after in c.call],
        "engine_said": {"old": c.answers[0], "new": c.answers[1]} if c.answers[1] else None,
    }


def comment(changes: Changes) -> Iterator[str]:
    """The change as a pull request's comment: at most eight rows, the worst first, and who must still sign."""
    for paragraph in _paragraphs(changes):
        yield from (*paragraph, "")
    yield f"<sub>{code(changes.digest)} {code(changes.engine)}</sub>"


def _paragraphs(changes: Changes) -> Iterator[Sequence[str]]:
    sign = "⛔" if changes.wider else "⚠️" if changes.read_yourself else "✅"
    yield [f"### {sign} {code(changes.id)} {markdown(changes.old)} → {markdown(changes.new)}"]
    yield [f"**{markdown(changes.verdict)}**" + (f" · less permitted: {len(changes.narrower)}" if changes.narrower else "")]
    if changes.wider:
        rows = enumerate(changes.wider[:MOST_ROWS], 1)
        table = [f"| {n} | {code(c.where, 60)} | {_cell(c)} | {code(consequence(c), 120) if c.effect else ''} |" for n, c in rows]
        yield ["| | what | approved → proposed | effect |", "|--:|---|---|---|", *table]
    more = len(changes.wider) - MOST_ROWS
    if more > 0:
        yield [f"… and {more} more: `agentgate workflow diff` lists them all."]
    if changes.read_yourself:
        shown = ", ".join(code(path, 80) for path in changes.read_yourself[:MOST_ROWS])
        more = len(changes.read_yourself) - MOST_ROWS
        yield [f"**Read yourself** (not compared by a program): {shown}" + (f" and {more} more" if more > 0 else "")]
    yield from ([f"**Still to sign:** {code(line, 200)}"] for line in changes.signers)
    yield from ([code(note, 300)] for note in changes.notes)


def _cell(c: Change) -> str:
    return " → ".join(code(part or "(nothing)", 60) for part in (c.old, c.new)) if c.old or c.new else ""


# --- as a page ------------------------------------------------------------------------------------------------------------------
_TEMPLATES = Path(__file__).parent / "templates"


def page(changes: Sequence[Changes], *, title: str, subtitle: str) -> str:
    """The page, as HTML: changes, one per workflow, and a subtitle that says what was compared with what."""
    style = (_TEMPLATES / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values = {"changes": changes, "title": title, "subtitle": subtitle, "style": style, "style_digest": digest, "visible": visible}
    return render(_TEMPLATES / "page.html", **values)
