"""The tools of an MCP server, each behind a call token: verified against the call really
received, burned, and reported.

Rules: the order is the verifier's (`agentgate.redemption.verifier`): token, proof, tool and
arguments, burn; then the definition that the call was decided for must be the tool's own, else
nothing runs. A tool runs from the arguments that were decided on. Every tool of the server is
named when it is made; another one does not start it, and one that is added later is refused.
Only ``structuredContent`` has facts, never text. An ``isError`` result of an act leaves its
outcome unknown, unless the tool raised `NotDone`.

An SDK validates arguments after the decision, and may make other values of them: a text that is
parsed as JSON, ``"1"`` that becomes 1, a key that is dropped. So they are validated here
(`decided_values`), strictly and from their canonical bytes, and what came of it must dump to the
same bytes. A plain default is in the schema that a workflow pins. What is in no schema, or cannot be
compared, is refused at the start.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar, get_args, get_origin

import structlog
from anyio import CancelScope, Lock, to_thread
from mcp_types import Tool
from pydantic import (
    BaseModel,
    BeforeValidator,
    Json,
    PlainValidator,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentgate.errors import (
    CallDenied,
    CanonicalError,
    ConfigError,
    NotDone,
    NotRecorded,
    RequestRefused,
    ResultWithheld,
    TokenRefused,
)
from agentgate.integrations.asgi.received import of_token, refuse_request
from agentgate.integrations.asgi.server import ToolServer
from agentgate.integrations.mcp.carried import NOTHING, TAKEN, TakenToken
from agentgate.redemption.credential import raise_instead
from agentgate.redemption.verifier import AwaitedCall
from agentgate.shell.context import set_variables
from agentgate.values.canonical import canonical, definition_digest
from agentgate.values.refusal import NOT_SHOWN, Code
from agentgate.values.visible import visible

_REPLACING = BeforeValidator | PlainValidator | WrapValidator


class ArgumentsChanged(NotDone):
    """The tool would have been given other values than were decided on. Nothing ran."""


def check_signature(tool: str, model: type[BaseModel], *above: type[BaseModel]) -> None:
    """Check a tool's parameters when its server starts, and those of the models in them;
    `above`: the models that this one is in.

    Raises:
        ConfigError: a parameter whose value would not be the decided one; with why, and what to
            do.
    """
    for name, field in model.model_fields.items():
        shown = field.alias or name
        for got, expected in _unfit(field):
            raise ConfigError(f"tools.{tool}.{shown}", got, expected)
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in above:
                check_signature(f"{tool}.{shown}", part, *above, part)


def _unfit(field: Any) -> Iterator[tuple[str, str]]:
    if field.default_factory is not None:
        yield (
            "a default that is made for each call",
            "a plain default, which is in the definition that a workflow pins",
        )
    if field.validate_default:
        yield "a default that is validated", "the default as the tool is to have it"
    if not (field.validation_alias == field.serialization_alias == field.alias):
        yield "an alias for reading or writing alone", "one alias, or none"
    for part in (*field.metadata, *_parts(field.annotation)):
        if isinstance(part, _REPLACING) or part is Json or type(part) is Json:
            yield (
                f"{getattr(part, '__name__', type(part).__name__)}, which replaces the decided value",
                "the value as it is; convert it in the tool",
            )
        elif part in (set, frozenset):
            yield f"a {part.__name__}, which has no order", "a list"


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it, with what ``Annotated`` adds."""
    yield get_origin(annotation) or annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def decided_values(model: type[BaseModel], arguments: Mapping[str, Any]) -> BaseModel:
    """The arguments of a call as its tool takes them.

    Raises:
        ArgumentsChanged: they are not what the tool takes, or would be other values there. The
            message has names, and no values.
    """
    try:
        data = canonical(arguments, "args")
        values = model.model_validate_json(data, strict=True)
        executed = canonical(
            values.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings="none"),
            "args",
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        where = ".".join(
            ["args", *(str(part) for part in first["loc"] if part in model.model_fields)]
        )
        raise ArgumentsChanged(
            f"{where}: got a value that its tool does not take as it is ({first['type']})"
        ) from None
    except (CanonicalError, PydanticSerializationError, TypeError, ValueError) as error:
        raise ArgumentsChanged(
            f"args: got values without a JSON form ({type(error).__name__})"
        ) from None
    if executed != data:
        raise ArgumentsChanged(
            "args: got values that its tool would be given otherwise than they were decided on"
        )
    return values


_log = structlog.get_logger("agentgate.integrations.mcp")
_OF_MCP = b"content-type content-length mcp-session-id mcp-protocol-version mcp-method mcp-name".split()
_CALL: ContextVar[AwaitedCall | None] = ContextVar("agentgate_mcp_call", default=None)
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=BaseException)


class _NoSuccess(Exception):
    """The tool answered, and not with success."""


def definition_of(tool: Tool) -> str:
    """The ``sha256:...`` digest that a workflow pins as `definition`, of a tool as its server
    lists it.

    Raises:
        CanonicalError: the schema has no canonical form.
    """
    return definition_digest(tool.name, tool.description or "", tool.input_schema)


def redeemed_call() -> AwaitedCall:
    """The call being executed, inside a tool: its proven `args` and `claims`, `txn`, and the
    upstream `credential`.

    Raises:
        LookupError: not inside a protected tool.
    """
    call = _CALL.get()
    if call is None:
        raise LookupError("no redeemed call here: only a protected tool has one, while it runs")
    return call


def check_error(error: BaseException) -> None:
    """Look for the upstream credential in what a tool raised, before a framework logs or traces
    it.

    Raises:
        ResultWithheld, NotDone: it is in there; this stands for it.
    """
    if (call := _CALL.get()) is not None:
        raise_instead(call.showable(error), error)


class ProtectedTools:
    """Which tools an MCP server has, and whose tokens count there."""

    def __init__(self, server: ToolServer, names: Collection[str]) -> None:
        """The tools of one MCP server.

        Args:
            server: opens the verifier; its `audience` is the MCP endpoint's URL, over stdio a
                URL that stands for the server.
            names: every tool of the server, by the name it has in a workflow.

        Raises:
            ConfigError: no names.
        """
        if (
            isinstance(names, str)
            or not names
            or not all(type(name) is str and name for name in names)
        ):
            raise ConfigError(
                "tools", names, "the names of all tools of the server, as workflows have them"
            )
        self.server = server
        self.names = frozenset(names)
        self._connections = 0
        self._opening = Lock()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The verifier, open while at least one connection is: some transports begin and end
        the server's lifespan with each.

        Raises: what `AsyncVerifier.open` raises.
        """
        async with self._opening:
            await self.server.start()
            self._connections += 1
        try:
            yield
        finally:
            with CancelScope(shield=True):
                async with self._opening:
                    self._connections -= 1
                    if not self._connections:
                        await self.server.stop()

    def check_listed(self, tools: Iterable[Tool]) -> None:
        """Check what the server lists at its start.

        Raises:
            ConfigError: a tool that was not named, one that is missing, or a name that two
                have.
        """
        listed = [tool.name for tool in tools]
        for what, wrong in (
            ("not protected", set(listed) - self.names),
            ("not on the server", self.names - set(listed)),
            ("there twice", {name for name in listed if listed.count(name) > 1}),
        ):
            if wrong:
                expected = (
                    f"exactly {', '.join(sorted(self.names))}: a tool needs its rule "
                    "in a workflow, and its name in ProtectedTools"
                )
                raise ConfigError("tools", f"{what}: {', '.join(sorted(wrong))}", expected)

    def check_name(self, name: str) -> None:
        """Raises ConfigError: this tool was not named."""
        if name not in self.names:
            raise ConfigError(
                "tools",
                f"not protected: {name}",
                f"one of {', '.join(sorted(self.names))}: name it in ProtectedTools",
            )

    async def run(
        self,
        name: str,
        arguments: dict[str, Any],
        body: Callable[[dict[str, Any]], Awaitable[Result]],
        listed: Callable[[], Awaitable[Iterable[Tool]]],
    ) -> Result:
        """Redeem the token of a call, run the tool from the decided arguments, record facts and
        outcome.

        Args:
            name: the tool that was really called.
            arguments: as really received.
            body: runs it.
            listed: what the server lists now.

        Raises:
            CallDenied: nothing ran, or its result is withheld. What the tool raises is raised
                as it is.
        """
        if name not in self.names:
            got = await _known(name, listed)
            raise self._refused(
                refuse_request(
                    403, "insufficient_scope", "tool", got, "a tool named in ProtectedTools"
                ),
                "",
            )
        call = await self._redeemed(name, arguments, TAKEN.get())
        await call.__aenter__()
        try:
            await self._check_definition(call, name, listed)
            with set_variables((_CALL, call), (TAKEN, NOTHING)):
                result = await body(call.args)
            ended, structured = _read(result)
            with CancelScope(shield=True):  # whoever asked may have gone
                if call.has_credential:
                    await to_thread.run_sync(call.check_result, to_jsonable_python(result))
                if ended:
                    await call.record_result(structured)
                # it is logged; the tool ran, and its result is true
                with suppress(NotRecorded):
                    await (
                        call.__aexit__(None, None, None)
                        if ended
                        else call.__aexit__(_NoSuccess, _NoSuccess("an error result"), None)
                    )
        except BaseException as error:
            with CancelScope(shield=True):
                await self._left(call, name, error)
            raise
        return result

    async def _redeemed(
        self, name: str, arguments: dict[str, Any], taken: TakenToken
    ) -> AwaitedCall:
        refused = taken.refused
        sent = taken.token
        if sent is None and refused is None:
            refused = refuse_request(
                401,
                "",
                "_meta",
                "no call token",
                "one in _meta, or in the Authorization header",
            )
        if refused is None and sent is not None:
            proof = self.server.proof(sent, "POST", taken.path)
            try:
                certificate = None
                if taken.scope is not None:
                    certificate = self.server.certificates.shown(taken.scope)
                    self.server.headers.bind(taken.scope, *_OF_MCP)
                return await self.server.verifier.redeem(
                    sent.token, tool=name, args=arguments, proof=proof, certificate=certificate
                )
            except TokenRefused as error:
                refused = of_token(error)
            # the server has not started, or a proxy's header is there twice
            except RequestRefused as error:
                refused = error
        assert refused is not None  # noqa: S101 - one of the branches above
        raise self._refused(refused, name)

    def _refused(self, refused: RequestRefused, tool: str) -> CallDenied:
        self.server.refused(refused, tool=tool)
        return CallDenied(Code.UNAVAILABLE if refused.status == 503 else Code.NOT_PERMITTED)

    async def _check_definition(
        self, call: AwaitedCall, name: str, listed: Callable[[], Awaitable[Iterable[Tool]]]
    ) -> None:
        """What the call was decided for is what stands here now (an exchanged tool, an old
        server behind a new gate).
        """
        try:
            tools = [tool for tool in await listed() if tool.name == name]
            got = definition_of(tools[0]) if len(tools) == 1 else f"{len(tools)} tools"
        except Exception as error:  # noqa: BLE001 - the server's own listing: without it nothing runs
            got = type(error).__name__
        if got != call.claims.tool_digest:
            _log.error(
                "tool_definition_changed",
                tool=name,
                got=got,
                expected=call.claims.tool_digest or "a definition in the workflow",
            )
            raise _OtherDefinition(name)

    async def _left(self, call: AwaitedCall, name: str, error: BaseException) -> None:
        """Record how a call ended that raised. Raises CallDenied where what was raised is not
        to be shown.
        """
        shown = call.showable(error) or error
        cause = _cause(error, NotDone)
        withheld = _cause(error, ResultWithheld) or (None if shown is error else shown)
        outcome = (
            cause or shown
            if withheld is None
            else NotDone("its text held the upstream credential")
            if cause
            else withheld
        )
        with suppress(NotRecorded):  # it is logged
            await call.__aexit__(type(outcome), outcome, None)
        if withheld is not None:
            _log.error("result_withheld", tool=name, txn=call.txn, why=str(outcome))
            returned = getattr(withheld, "what", "") == "result"
            raise CallDenied(
                Code.FAILED
                if cause
                else Code.ALREADY_DONE
                if returned
                else Code.OUTCOME_UNKNOWN
            ) from None
        if isinstance(error, _OtherDefinition):
            raise CallDenied(Code.NOT_PERMITTED) from None
        if isinstance(cause, ArgumentsChanged):
            _log.error("arguments_changed", tool=name, txn=call.txn, why=str(cause))
            raise CallDenied(Code.INVALID_ARGUMENTS) from None


async def _known(name: str, listed: Callable[[], Awaitable[Iterable[Tool]]]) -> str:
    """The name of a tool that the server lists, as a log may hold it: any other may be made up
    by a model.
    """
    with suppress(Exception):
        if any(tool.name == name for tool in await listed()):
            return visible(name)[:120]
    return NOT_SHOWN


class _OtherDefinition(NotDone):
    """Nothing ran."""


def _read(result: Any) -> tuple[bool, Any]:
    """Whether a result says that the tool did what it was asked; its facts. An interim result
    (a task, a question) does not.
    """
    said = getattr(result, "is_error", True)
    whole = (
        said is False
        and type(getattr(result, "content", None)) is list
        and getattr(result, "input_required", None) is None
    )
    return whole, getattr(result, "structured_content", None) if whole else None


def _cause(error: BaseException, kind: type[Kind]) -> Kind | None:
    """What the tool raised, where a framework wraps it."""
    cause: BaseException | None = error
    for _ in range(8):
        if isinstance(cause, kind):
            return cause
        cause = None if cause is None else cause.__cause__
    return None
