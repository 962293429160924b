"""What a server answers, as the model and the host may have it: it does not speak as the gate,
and holds no token.

Rules: a line that begins as one of the gate's denials does is marked as the server's, wherever
it stands, and in another script's letters; of what a server says to be a refusal only the code
counts, with whose it is: a hold is told by the gate alone. The same holds of what a server
sends beside its answers (progress, log messages, questions) before a handler of the host has
it. A token is looked for in one piece and in pieces, over all fields together, turned round,
and encoded. Neither search is complete: what a model reads of a server is the server's word,
and the token in it is void before (`agentgate.integrations.mcp.client`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

import structlog
from mcp_types import INVALID_REQUEST, CallToolResult, ErrorData
from pydantic import BaseModel
from pydantic_core import to_json, to_jsonable_python

from agentgate.integrations.mcp.denial import DENIAL, NEXT
from agentgate.values.leaks import forms
from agentgate.values.refusal import Code

BY_SERVER: Final = "The server says: "
_OURS: Final = "dev.agentgate/"
_ALIKE: Final = str.maketrans(
    "\u0430\u0435\u0442\u0433\u0501\u0261\u03b1\u03b5\u03c4\u0578", "aetgdgaetn"
)  # as Latin letters look
_HANDLERS: Final = (
    "_logging_callback",
    "_message_handler",
    "_elicitation_callback",
    "_sampling_callback",
)
_log = structlog.get_logger("agentgate.integrations.mcp")
_PIECE: Final = 16  # characters of a signature, of 96 random bits
_WORDS: Final = re.compile(r"[^a-z0-9]+")


def _letters(text: str) -> str:
    return _WORDS.sub("", text.lower()).lstrip("0123456789")  # of a list


_BEGINNINGS: Final = (
    "agentgate",
    *(_letters(text.partition(".")[0]) for text in NEXT.values()),
)
_HOLD: Final = re.compile(r"hold[0-9a-z]*waitsfor")


def speaks_as_gate(text: str) -> bool:
    """Whether a line begins as the gate's denials do."""
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_ALIKE)
    return any(
        line.startswith(_BEGINNINGS) or _HOLD.match(line) is not None
        for line in map(_letters, plain.splitlines())
    )


def of_server(result: CallToolResult) -> CallToolResult:
    """A server's result, marked where it speaks as the gate."""
    told = (result.meta or {}).get(DENIAL)
    code = told.get("code") if isinstance(told, Mapping) and result.is_error else None
    plain = _plain(result)
    marked = _marked(plain)
    texts = [block for block in marked.get("content", ()) if block.get("type") == "text"]
    together = "".join(block["text"] for block in texts)
    if texts and not together.startswith(BY_SERVER) and speaks_as_gate(together):
        texts[0]["text"] = BY_SERVER + texts[0]["text"]
    if code in set(Code) - {Code.NEEDS_APPROVAL}:
        marked.setdefault("_meta", {})[DENIAL] = {"code": code, "by": "server"}
    return result if marked == plain else CallToolResult.model_validate(marked)


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return BY_SERVER + value if speaks_as_gate(value) else value
    if isinstance(value, dict):
        return {
            _marked(name): _marked(inner)
            for name, inner in value.items()
            if not name.startswith(_OURS)
        }
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def _plain(message: BaseModel) -> dict[str, Any]:
    return message.model_dump(mode="json", by_alias=True, exclude_unset=True)


_sent_tokens = set[str]()


@contextmanager
def sent(token: str) -> Iterator[None]:
    """While a server has a token that is not known to be spent or void."""
    _sent_tokens.add(token)
    try:
        yield
    finally:
        _sent_tokens.discard(token)


def guard_handlers(client: Any) -> None:
    """Have what the server of a connected client sends beside its answers marked before the
    host's handlers see it.
    """
    session = client.session
    # the SDKs hand them out nowhere
    for owner, names in ((client, ("_progress_handler",)), (session, _HANDLERS)):
        for name in names:
            handler = getattr(owner, name, None)
            if handler is not None and not isinstance(handler, _GuardedHandler):
                setattr(owner, name, _GuardedHandler(handler))


class _GuardedHandler:
    """A handler of the host: its last argument is the server's message."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def __call__(self, *args: Any) -> Any:
        *context, message = args
        if any(holds_token(message, token) for token in tuple(_sent_tokens)):
            _log.error("message_withheld", why="the server's message holds a call's token")
            return ErrorData(code=INVALID_REQUEST, message="withheld: a call's token is in it")
        return await self._handler(*context, _message_of_server(message))


def _message_of_server(message: Any) -> Any:
    if isinstance(message, Exception):
        return (
            RuntimeError(f"{BY_SERVER}{message}") if speaks_as_gate(str(message)) else message
        )
    if not isinstance(message, BaseModel):
        return _marked(message)
    plain = _plain(message)
    marked = _marked(plain)
    return message if marked == plain else type(message).model_validate(marked)


def holds_token(answer: Any, token: str) -> bool:
    """Whether an answer holds the signature of a token, without which it is none."""
    signature = token.rpartition(".")[2]
    value = (
        [repr(answer), vars(answer)]
        if isinstance(answer, Exception)
        else to_jsonable_python(answer, serialize_unknown=True)
    )
    whole = to_json(value, serialize_unknown=True).decode()
    if any(form in whole for form in forms(signature) | forms(signature[::-1])):
        return True
    texts = unquote("".join(_texts(to_jsonable_python(value, serialize_unknown=True))))
    bare = _bare(texts)
    looked_for = _bare(signature)
    pieces = {looked_for[at : at + _PIECE] for at in range(len(looked_for) - _PIECE + 1)}
    return any(piece in bare or piece[::-1] in bare for piece in pieces)


def _bare(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "", text).casefold()


def _texts(value: Any) -> Iterator[str]:
    """Every text of a JSON value, as it stands."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
