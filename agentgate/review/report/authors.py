"""Who made a change, as git says it: a name for the statement, which never counts as a reviewer's."""

from __future__ import annotations

from pathlib import Path

from agentgate.loading.source import ask


def author_of(file: Path) -> str | None:
    """The author's address of the last commit that touched a file; None where git has none, or the file has changed since."""
    if ask("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--", str(file)) is None:
        return None
    found = ask("log", "-1", "--no-show-signature", "--no-ext-diff", "--no-mailmap", "--format=%ae", "--", str(file))
    text = (found or b"").decode("utf-8", "replace").strip()
    return text if text and text.isprintable() else None
