"""A reviewer's report of one change: the same facts for a terminal, a pull request's comment, a
page and a program.

Rules: what is newly permitted comes first, the worst first; what no program could compare is
named, never omitted; whoever prints a text from a file makes it visible
(`agentgate.values.visible`). The page has no script and makes no request; its content security
policy forbids scripts, requests and forms, and allows exactly one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agentgate.review.draft.template import PACKAGE, render
from agentgate.review.report.contrast import contrast, shortened
from agentgate.values.value_class import Json, Names, value_class
from agentgate.values.visible import code, markdown, visible

_TEMPLATES = "review/report/templates"
MOST_ROWS = 8  # of a comment, in sight; further rows are folded away below
_MOST_FOLDED = 200  # a forge takes a comment of some 65,000 characters
_MOST_TEXT = 1_000  # characters of one cell of a comment


_Pairs = tuple[tuple[str, str], ...]


@value_class
class Change:
    """One difference."""

    where: str  # tool and field, or the block
    old: str  # the text of each version; empty where it has none
    new: str
    # the consequence for a call, in words ("was refused, would be allowed"); with `answers`,
    # the engine's own
    effect: str = ""
    example: str = ""  # the value of `call` that shows it, or empty
    # a call that shows it: (field, before, after) of each field in which it differs from an
    # allowed one
    call: tuple[tuple[str, str, str], ...] = ()
    # the engine's answer to that call under the old and the new version; empty where there is
    # none
    answers: tuple[str, str] = ("", "")
    # that call, whole: the user's words, then its arguments
    whole: _Pairs = ()
    lines: Names = ()  # more about it, a line each (what a new tool is)


Rows = tuple[Change, ...]


@value_class
class Changes:
    """The report of one change."""

    id: str  # the workflow's
    old: str  # versions (``v7``), or ``nothing`` for a new or removed workflow
    new: str
    wider: Rows = ()  # what is newly and what no longer permitted
    narrower: Rows = ()
    read_yourself: Rows = ()  # what no program compared, or could show by a call
    # rules that differ, although no call does, as roles and other rules are today
    alike: Rows = ()
    # what decides nothing: titles, owners, the order of a list, a word less
    idle: Names = ()
    # who must still sign, in words, one line each; empty: not known here
    signers: Names = ()
    lines: Names = ()  # the change of the file, as a unified diff
    # what a reviewer asks first: risk, tenants, last day, who proposes it
    about: _Pairs = ()
    engine: str = ""  # what compared the versions
    digest: str = ""  # ``sha256:...`` of the new definition
    notes: Names = ()  # further remarks

    @property
    def looks(self) -> bool:
        """True when a person must look: more is permitted, or something was not compared."""
        return bool(self.wider or self.read_yourself or self.idle)

    @property
    def first(self) -> bool:
        """Whether there is no older version: all of it is new."""
        return self.old == "nothing"

    @property
    def verdict(self) -> str:
        """The result, in one sentence."""
        if self.first:
            return "NEW: all of it is to be read"
        if self.wider:
            return f"MORE permitted: {len(self.wider)}"
        if self.read_yourself:
            return "nothing proved wider, but not everything could be compared"
        return "nothing more is permitted" if self.narrower else "nothing that decides differs"

    @property
    def counts(self) -> str:
        """How many rows of each other kind there are, in words; empty for none."""
        kinds = (
            ("less permitted", self.narrower),
            ("read yourself", self.read_yourself),
            ("same calls", self.alike),
        )
        return ", ".join(f"{name}: {len(found)}" for name, found in kinds if found)


def unified(old: str, new: str, names: tuple[str, str]) -> Names:
    """The lines of a unified diff, all of them: what came last would else be what nobody
    reads.
    """
    return tuple(
        difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=2)
    )


def plain(changes: Changes, width: int = 100) -> Iterator[tuple[str, str]]:
    """The change as visible text, one block per kind: each line with its style at a
    terminal.
    """
    counts = f" ({changes.counts})" if changes.counts else ""
    colour = "red" if changes.wider else "yellow" if changes.looks else "green"
    yield (
        visible(f"{changes.id}  {changes.old} -> {changes.new}     {changes.verdict}{counts}"),
        f"bold {colour}",
    )
    if changes.about:
        yield visible("  ".join(f"{name}: {value}" for name, value in changes.about)), "dim"
    yield from _numbered(
        [_alone(c) for c in changes.wider] if changes.first else changes.wider, width, "red"
    )
    for (heading, found), style in zip(
        kinds(changes)[1:], ("green", "yellow", "dim"), strict=True
    ):
        if found:
            yield f"{heading}: {len(found)}", f"bold {style}"
            yield from _numbered(found, width, style)
    if changes.idle:
        yield visible("ALSO DIFFERS, decides nothing: " + "; ".join(changes.idle)), "dim"
    for line in changes.signers:
        yield visible(f"STILL TO SIGN: {line}"), "bold yellow"
    yield from ((visible(note), "dim") for note in changes.notes)


def kinds(changes: Changes) -> tuple[tuple[str, Sequence[Change]], ...]:
    """The rows by kind, each with its heading."""
    return (
        ("MORE permitted", changes.wider),
        ("LESS permitted", changes.narrower),
        ("READ YOURSELF", changes.read_yourself),
        ("SAME CALLS today, by other rules", changes.alike),
    )


def _alone(change: Change) -> Change:
    """A row without an older version beside it."""
    return replace(
        change, old="", new="", effect="; ".join(filter(None, (change.new, change.effect)))
    )


def _numbered(changes: Sequence[Change], width: int, style: str) -> Iterator[tuple[str, str]]:
    """Each change on one line where it fits, else one part per line."""
    where = max((len(visible(c.where)) for c in changes), default=0)
    for number, c in enumerate(changes, 1):
        parts = [
            part
            for part in (
                visible(c.where),
                visible(arrow(c)),
                visible(consequence(c)),
                *map(visible, c.lines),
            )
            if part
        ]
        line = f"{number:>3}. {parts[0]:<{where}}  {'  '.join(parts[1:])}".rstrip()
        if len(line) <= width and not c.lines:
            yield line, style
        else:
            yield f"{number:>3}. {parts[0]}", style
            yield from ((f"       {part}", "") for part in parts[1:])


def arrow(change: Change) -> str:
    """``old -> new``; of what had nothing before and is not compared, only what it is."""
    return (
        f"{change.old or '(nothing)'} -> {change.new or '(nothing)'}"
        if change.old or change.new
        else ""
    )


def consequence(change: Change) -> str:
    """The effect, with the value that shows it."""
    return f"{change.example}: {change.effect}" if change.example else change.effect


def as_json(changes: Changes) -> Json:
    """The change for a program."""
    return {
        "workflow": changes.id,
        "old": changes.old,
        "new": changes.new,
        "digest": changes.digest,
        "verdict": "wider"
        if changes.wider
        else "read_yourself"
        if changes.looks
        else "narrower"
        if changes.narrower
        else "same",
        "wider": [_row(c) for c in changes.wider],
        "narrower": [_row(c) for c in changes.narrower],
        "read_yourself": [_row(c) for c in changes.read_yourself],
        "same_calls": [_row(c) for c in changes.alike],
        "decides_nothing": list(changes.idle),
        "still_to_sign": list(changes.signers),
        "about": dict(changes.about),
        "engine": changes.engine,
        "notes": list(changes.notes),
    }


def _row(c: Change) -> Json:
    return {
        "where": c.where,
        "old": c.old,
        "new": c.new,
        "effect": c.effect,
        "example": c.example,
        "call": [
            {"field": key, "before": before, "after": after} for key, before, after in c.call
        ],
        "engine_said": {"old": c.answers[0], "new": c.answers[1]} if c.answers[1] else None,
        "whole": [{"field": key, "value": value} for key, value in c.whole],
        "lines": list(c.lines),
    }


def comment(changes: Changes) -> Iterator[str]:
    """The change as a pull request's comment: eight rows in sight, the worst first, the rest
    folded; and who must still sign.
    """
    shown = {
        "code": code,
        "markdown": markdown,
        "contrast": contrast,
        "shortened": shortened,
        "consequence": consequence,
        "kinds": kinds,
    }
    most = {"most_rows": MOST_ROWS, "most_folded": _MOST_FOLDED, "most_text": _MOST_TEXT}
    yield from (
        render(f"{_TEMPLATES}/comment.md", c=changes, **shown, **most).rstrip("\n").split("\n")
    )


# --- as a page --------------------------------------------------------------------------------
_TITLE = "What this change permits"


def page(
    changes: Sequence[Changes],
    *,
    title: str = _TITLE,
    subtitle: str,
    errors: Sequence[str] = (),
) -> str:
    """The page, as HTML: changes, one per workflow, a subtitle that says what was compared with
    what, and what does not hold.
    """
    style = (PACKAGE / _TEMPLATES / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values: Json = {
        "changes": changes,
        "title": title,
        "subtitle": subtitle,
        "style": style,
        "style_digest": digest,
    }
    values |= {"errors": errors, "visible": visible, "contrast": contrast, "kinds": kinds}
    return render(f"{_TEMPLATES}/page.html", **values)
