"""An MCP client whose every `tools/call` carries a token of its own: `GatedClient`, around
`mcp.Client` or `fastmcp.Client`.

Rules: the gate decides before the server is asked; a refusal is a result with ``isError``. The
token is in ``_meta`` of that one request and nowhere else: not in the arguments, no result, no
log. A token that the server did not spend is void in the store before its answer is shown, also
where the call was cancelled; the answer, and what the server sends beside it, is searched for
it, too, and no such search is complete. What is sent are the arguments that were decided on.
The tool's definition is read from the server before each call; a description that changed since
it was reviewed is refused, and not shown to the model. What a server returns is no fact: facts
are what the server that redeemed the call puts on record.

What a server answers does not speak as the gate. A line that begins as one of the gate's
denials does is marked as the server's, wherever it stands, and in another script's letters; of
what a server says to be a refusal only the code counts, with whose it is: a hold is told by the
gate alone. The same holds of what a server sends beside its answers (progress, log messages,
questions) before a handler of the host has it. A token is looked for in one piece and in
pieces, over all fields together, turned round, and encoded. What a model reads of a server is
the server's word, and the token in it is void before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

import structlog
from mcp_types import (
    INVALID_REQUEST,
    CallToolResult,
    ElicitRequestURLParams,
    ErrorData,
    TextContent,
    Tool,
)
from pydantic import BaseModel
from pydantic_core import to_json, to_jsonable_python

from agentgate.errors import AgentGateError, CanonicalError, ConfigError
from agentgate.gate.run import AsyncRun, Run
from agentgate.integrations.exchange import check_secure
from agentgate.integrations.mcp.carried import DENIAL, NEXT, as_meta, denied
from agentgate.integrations.mcp.protected import definition_of
from agentgate.integrations.mcp.tokens import CallTokens, Granted, NoToken, RunTokens, tokens_of
from agentgate.shell.drive import to_the_end
from agentgate.values.canonical import parse
from agentgate.values.entities import canonical_form, describe_forms
from agentgate.values.leaks import forms
from agentgate.values.refusal import NOT_SHOWN, Code
from agentgate.values.request import CanonicalArguments

BY_SERVER: Final = "The server says: "
_OURS: Final = "dev.agentgate/"
_ALIKE: Final = str.maketrans(
    "\u0430\u0435\u0442\u0433\u0501\u0261\u03b1\u03b5\u03c4\u0578", "aetgdgaetn"
)  # as Latin letters look
_HANDLERS: Final = (
    "_logging_callback _message_handler _elicitation_callback _sampling_callback".split()
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


_log = structlog.get_logger("agentgate.integrations.mcp")
_MAX_PAGES = 100


class GatedClient:
    """``GatedClient(client, run, audience="https://orders.acme.example/mcp")``, inside ``async
    with client``.
    """

    def __init__(
        self,
        client: Any,
        tokens: Run | AsyncRun | CallTokens,
        *,
        audience: str,
        wait: float = 0.0,
        elicit: Callable[[ElicitRequestURLParams], Awaitable[object]] | None = None,
        pages: str = "",
    ) -> None:
        """Around a connected client.

        Args:
            client: an `mcp.Client` or a `fastmcp.Client`.
            tokens: a run, or `ExchangeTokens` for a served gate.
            audience: the resource URL of the server at the other end, by your own
                configuration; no other server's token goes there.
            wait: seconds to wait for a person who must release a call; 0: the hold is the
                result.
            elicit: shows the user the page of a call that waits (MCP's elicitation in URL
                mode), before that time begins. What it returns, an accept, its content or a no,
                answers nothing: the page does.
            pages: the URL that a hold's id follows there; with `elicit`.

        Raises:
            ConfigError: a setting that is none of these.
        """
        if not callable(getattr(client, "call_tool", None)) or not callable(
            getattr(client, "list_tools", None)
        ):
            raise ConfigError(
                "client", type(client).__name__, "an mcp.Client or a fastmcp.Client"
            )
        if type(wait) not in {int, float} or not 0 <= wait < float("inf"):
            raise ConfigError("wait", wait, "seconds, 0 or more")
        check_secure("audience", audience)
        if elicit is not None:
            check_secure("pages", pages)
        self._client = client
        self._tokens = tokens_of(tokens)
        self._audience = audience
        self._wait = wait
        self._elicit = elicit
        self._pages = pages

    async def list_tools(self) -> list[Tool]:
        """The tools that the model may be shown: those of the workflow, with the definitions
        that were reviewed, and nothing else of them.

        Title, annotations, output schema and ``_meta`` are in no digest, and could say
        anything.
        """
        listed = await self._listed()
        offered = []
        for tool in listed:
            definition = _digest(tool, listed)
            if definition and self._tokens.offers(tool.name, definition, self._audience):
                offered.append(
                    Tool(
                        name=tool.name,
                        description=tool.description,
                        input_schema=tool.input_schema,
                    )
                )
            else:
                _log.warning(
                    "tool_not_offered",
                    tool=tool.name,
                    definition=definition or "none: listed twice, or not canonical",
                )
        return offered

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        tool_call_id: str | None = None,
    ) -> CallToolResult:
        """Ask for a token, and call the tool with it.

        Args:
            name: the tool.
            arguments: as the model proposes them.
            tool_call_id: the runtime's id, so that a retry is the same call.

        Returns:
            The server's result; or a refusal's, with ``isError``: nothing was sent, unless its
                code is ``outcome_unknown``.

        Raises:
            What the client raises, unless the token is in it: a connection that is lost, an
                error of the protocol. The call may have run.
        """
        listed = await self._listed()
        tool = next((tool for tool in listed if tool.name == name), None)
        schema = tool.input_schema if tool else {}
        # a served gate knows it
        declared = self._tokens.declared(name) if isinstance(self._tokens, RunTokens) else None
        try:
            args = CanonicalArguments(canonical_form(arguments or {}, schema, declared))
        except (CanonicalError, TypeError, ValueError) as error:
            shown = name if tool else NOT_SHOWN  # a model may have made it up
            _log.warning(
                "call_refused",
                tool=shown,
                code=str(Code.INVALID_ARGUMENTS),
                reasons=[f"args: {type(error).__name__}"],
            )
            return denied(Code.INVALID_ARGUMENTS)
        definition = _digest(tool, listed) if tool else ""
        ask = partial(
            self._tokens.ask,
            name,
            args,
            tool_call_id=tool_call_id,
            definition=definition,
            audience=self._audience,
        )
        answer = await ask(wait=self._wait if self._elicit is None else 0)
        if isinstance(answer, NoToken) and answer.hold and self._elicit is not None:
            page = f"{self._pages}{quote(answer.hold.id, safe='')}"
            await self._elicit(
                ElicitRequestURLParams(
                    message=str(answer.hold), url=page, elicitation_id=answer.hold.id
                )
            )
            answer = await ask(wait=self._wait)
        if isinstance(answer, NoToken):
            return denied(
                answer.code, answer.hold, describe_forms(schema, answer.misformed), answer.until
            )
        with sent(answer.secret):
            try:
                got = await self._answer_to(name, args, answer)
            finally:  # of a cancelled call, too
                not_void = await to_the_end(_void(name, answer))
        if not_void:
            return _withheld(name, not_void)
        if holds_token(got, answer.secret):
            return _withheld(name, "the server's answer holds the call's token")
        return _hand_on(name, got)

    async def _answer_to(self, name: str, args: CanonicalArguments, granted: Granted) -> Any:
        """What the server answers, or what the client raises."""
        # FastMCP's `call_tool` raises instead
        send = getattr(self._client, "call_tool_mcp", self._client.call_tool)
        try:
            return await send(name, parse(args.data), meta=as_meta(granted.headers()))
        except Exception as error:  # noqa: BLE001 - raised by `call_tool`, unless the token is in it or it speaks as the gate
            return error

    async def _listed(self) -> list[Tool]:
        """What the server lists now."""
        guard_handlers(self._client)  # of this session: a client may have begun another
        page_of = getattr(self._client, "list_tools_mcp", self._client.list_tools)
        found = list[Tool]()
        cursor = None
        for _ in range(_MAX_PAGES):
            page = await page_of(cursor=cursor, cache_mode="refresh")
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ConfigError(
            "client", "a listing without end", f"at most {_MAX_PAGES} pages of tools"
        )


async def _void(tool: str, granted: Granted) -> str:
    """Void a call's token; why it is not known to be void, or empty."""
    try:
        if await granted.void():
            _log.warning(
                "token_not_spent", tool=tool, why="the call ended without being redeemed"
            )
    except AgentGateError as error:
        return f"the call's token is not known to be void: {error}"
    return ""


def _hand_on(tool: str, got: Any) -> CallToolResult:
    """The server's result; or what the client raised, unless it speaks as the gate."""
    if isinstance(got, CallToolResult):
        return of_server(got)
    if not isinstance(got, Exception):
        return _withheld(tool, f"the server's answer is {type(got).__name__}, not a result")
    if speaks_as_gate(str(got)):
        return CallToolResult(
            content=[TextContent(type="text", text=f"{BY_SERVER}{got}")], is_error=True
        )
    raise got


def _withheld(tool: str, why: str) -> CallToolResult:
    _log.error("result_withheld", tool=tool, why=why)
    return denied(Code.OUTCOME_UNKNOWN)


def _digest(tool: Tool, listed: list[Tool]) -> str:
    """The digest of a tool's definition; empty: two tools have the name, or it has none."""
    try:
        return (
            definition_of(tool) if [each.name for each in listed].count(tool.name) == 1 else ""
        )
    except CanonicalError:
        return ""
