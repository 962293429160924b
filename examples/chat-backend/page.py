"""The page: a conversation, what waits in it, and what waits for who looks at it. Without JavaScript, too; with it, it looks by itself."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from fastapi.responses import HTMLResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agentgate.decision.hold import moment, rows_of

PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    Path(__file__).with_name("page.html").read_text("utf-8")
)
WORDS = {  # what an outcome means to whoever reads the page; of 202 it has what waits
    401: "Please sign in again.",
    403: "That is not allowed here, or somebody said no.",
    409: "That was done before, or nobody knows what became of it.",
    422: "The assistant asked for it in a form that cannot be read.",
    429: "That is all for now. {until}",
    503: "Something does not answer at the moment. Please say it again.",
}
POLICY = "default-src 'none'; script-src 'nonce-{}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"


def render(me: Any, messages: Sequence[BaseMessage], holds: Iterable[Any], told: Iterable[Any]) -> HTMLResponse:
    """The page of one person.

    Args:
        me: who they are, and what waits for their answer.
        messages: their conversation.
        holds: all of its run, in whatever state.
        told: what became of the calls of their last message: status, until when; or why an answer does not count.
    """
    waits = [hold for hold in holds if hold.tool_call_id in open_calls(messages)]
    notes = [WORDS.get(status, f"That answer does not count ({status}).").format(until=until) for status, until in told if status != 202]
    spoken = [(each.type, str(each.text)) for each in messages if each.type in {"human", "ai"} and each.text]
    answered = any(hold.state != "pending" for hold in waits)
    shown = {"me": me, "spoken": spoken, "waits": waits, "answered": answered, "notes": notes, "rows_of": rows_of, "moment": moment}
    nonce = secrets.token_urlsafe(16)
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": POLICY.format(nonce)}
    return HTMLResponse(PAGE.render(shown, nonce=nonce), headers=headers)


def open_calls(messages: Sequence[BaseMessage]) -> set[str]:
    """The calls of a conversation that have no answer yet, or whose answer is that they wait."""
    made = {str(call["id"]) for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    answers = [each for each in messages if isinstance(each, ToolMessage)]
    done = {
        each.tool_call_id for each in answers if not (isinstance(each.artifact, dict) and each.artifact.get("type") == "agentgate.waits")
    }
    return {name.partition("-again-")[0] for name in made - done}
