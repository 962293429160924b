"""The author of a change according to git: recorded in the approval's statement, and never counted as a reviewer."""

from __future__ import annotations

from pathlib import Path

from agentgate.loading.source import ask


def author_of(file: Path) -> str | None:
    """The author's address in the last commit of a file; None where git has none, or the file has changed since."""
    if ask("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--", str(file)) is None:
        return None
    address = ask("log", "-1", "--no-show-signature", "--no-ext-diff", "--no-mailmap", "--format=%ae", "--", str(file))
    text = (address or b"").decode("utf-8", "replace").strip()
    return text if text and text.isprintable() else None
