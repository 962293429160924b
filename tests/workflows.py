"""A small valid workflow for tests: each says what is its own, and takes the rest from here."""

from __future__ import annotations

_HEAD = {
    "agentgate": "workflow/v1",
    "id": "desk",
    "version": "1",
    "title": "What somebody asks for",
    "owners": "[lee]",
    "risk": "low",
    "expires": '"2099-05-31"',
    "tenants": "[acme]",
    "who": "{agent: {in_process: true}, for_user: {same_tenant: true}}",
}
_BODY = {
    "intents": "{close: {asks_for: Close a ticket., words: [close], examples: [Close ticket T-10001]}}",
    "tools": "{close: {effect: write, needs: [close], redeem: wrapper, args: {id: {type: id, from: [prompt]}}}}",
}


def workflow_text(id_: str, **parts: str) -> str:
    """YAML of this id with these parts: each is what stands behind its key, or a block that begins on the next line."""
    lines = [""]
    for key, text in {**_HEAD, "id": id_, **_BODY, **parts}.items():
        lines.append(f"{key}:{text.rstrip()}" if text[0] == "\n" else f"{key}: {text}")
    return "\n".join([*lines, ""])
