"""The calls of a run, step by step: authorise one, redeem it, or both at once.
`agentgate.gate.run` makes the methods of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from agentgate.decision.answer import Allow, Decision, Deny, StepUp
from agentgate.errors import ConfigError, NotRecorded, Refusal, TokenRefused
from agentgate.gate import flow
from agentgate.gate.denial import log_refusal
from agentgate.gate.holds.confirm import confirmed
from agentgate.gate.view import View
from agentgate.identity.connection import Connection
from agentgate.redemption import outcome, steps
from agentgate.redemption.credential import Redemption
from agentgate.shell.step import Apart, Flow, Step
from agentgate.token.dpop import DPoP
from agentgate.token.mint import CallToken
from agentgate.values.request import Args, Call


def authorize(
    self: Any,
    tool: str,
    args: Args,
    *,
    tool_call_id: str | None = None,
    definition: str = "",
    connection: Connection | None = None,
) -> Generator[Step, Any, Decision]:
    """Decide one call; mint its token only if everything holds.

    Args:
        self: the handle.
        tool: exact tool name.
        args: the arguments (JSON values), or their canonical form.
        tool_call_id: the runtime's id. The same id with the same arguments is the same call;
            left out, see `call_id`.
        definition: ``sha256:...`` of the tool's definition, as the integration read it from the
            tool.
        connection: that on which the call came, for `conditions.network`; None: it came on
            none, so nothing is known.

    Returns:
        `Allow`, `StepUp` or `Deny`; refusals are values.
    """
    return _decided(self, tool, args, tool_call_id, definition, connection)


def _decided(  # noqa: PLR0917 - as `authorize`
    self: Any,
    tool: str,
    args: Args,
    tool_call_id: str | None,
    definition: str,
    connection: Connection | None,
    *,
    redeems: bool = False,
) -> Flow:
    view = self._view
    if view.core.queue:
        yield from outcome.read_end(view.core.queue, view.header.id)
    named = self.call_id(tool, args) if tool_call_id is None else tool_call_id
    call = flow.checked_call(tool, args, named, definition)
    deciding = (
        flow.unreadable(view, call)
        if isinstance(call, Deny)
        else flow.authorize(view, call, connection, redeems=redeems)
    )
    decision, state = yield from deciding
    taken = view.take(call, decision, state)
    if isinstance(taken, Deny):
        log_refusal(view, tool, named, taken)
    if view.core.confirm and isinstance(taken, StepUp) and isinstance(call, Call):
        taken = yield from confirmed(
            view, call, taken, connection, self._bound, redeems=redeems
        )
    return taken


def perform(
    self: Any,
    tool: str,
    args: Args,
    *,
    tool_call_id: str | None = None,
    definition: str = "",
    connection: Connection | None = None,
) -> Generator[Step, Any, Any]:
    """`authorize` and `redeem` in one step, for who runs the tool: one script where the permit
    need not leave this process.

        match run.perform("orders_get", {"order_id": "ORD-10023344"}):
            case RedeemedCall() as call:
                with call:
                    call.record_result(look_up(**call.args))

    Args:
        self: the handle.
        tool: as of `authorize`.
        args: as of `authorize`.
        tool_call_id: as of `authorize`.
        definition: as of `authorize`.
        connection: as of `authorize`.

    Returns:
        The redeemed call, whose facts go on record with its outcome; `StepUp` or `Deny`. Of a
            tool that its server redeems, the `Allow`.

    Raises:
        TokenRefused: the call was allowed, but what it needs beyond that (its key, an upstream
            credential) is missing.
    """
    decision = yield from _decided(
        self, tool, args, tool_call_id, definition, connection, redeems=True
    )
    # it is this handle's to redeem
    if isinstance(decision, Allow) and decision.token.jti in self._view.unspent.values():
        decision = yield Apart(redeem(self, decision.token, tool=tool, args=args))
    return _call_of(self, decision) if isinstance(decision, Redemption) else decision


def _call_of(self: Any, done: Redemption) -> Any:
    """A redeemed call, as its caller has it."""
    return self._call(done, self._store, self._audit, self._bound)


def redeem(self: Any, token: CallToken, *, tool: str, args: Args) -> Generator[Step, Any, Any]:
    """Redeem in the agent's process, for a tool with ``redeem: wrapper``.

    Raises:
        TokenRefused: and nothing else.
    """
    try:
        done: Redemption = yield from _verified(self._view, token, tool, args)
    except TokenRefused as error:
        if error.code is not Refusal.LINEAGE:
            _spent(self._view, token)
        raise
    _spent(self._view, token)
    # Of two calls under one id `record_result` finds neither, or one would get the other's
    # result.
    name = done.claims.tool_call_id
    self._redeemed = {
        known: call for known, call in self._redeemed.items() if call is None or not call.ended
    }
    self._redeemed[name] = None if name in self._redeemed else done
    return _call_of(self, done)


def _spent(view: View, token: CallToken) -> None:
    """The token was burned, or may have been."""
    if type(token) is CallToken:
        view.unspent = {call: jti for call, jti in view.unspent.items() if jti != token.jti}


def _verified(view: View, token: CallToken, tool: str, args: Args) -> Flow:
    if type(token) is not CallToken:
        raise TokenRefused(
            Refusal.NO_CREDENTIAL, "token", type(token).__name__, "the token of an Allow"
        )
    rule = view.tool(tool)
    # else the agent's process could report what a server's tool returned
    if rule is None or rule.redeem != "wrapper":
        ended = view.core.catalog.ended(view.state.header.workflow)
        got = (
            f"none: the {ended.what} ended at {ended.day}"
            if ended is not None
            else tool[:120]
            if type(tool) is str
            else "no text"
        )
        raise TokenRefused(
            Refusal.TOOL, "tool", got, "a tool whose workflow says redeem: wrapper"
        )
    core = view.core
    trust = core.trust(rule.audience or core.issuer, (view.state.header.tenant,))
    headers = token.headers("POST", trust.audience)
    proof = (
        DPoP(headers["DPoP"], method="POST", url=trust.audience) if "DPoP" in headers else None
    )
    done: Redemption = yield from steps.redeem(
        trust, token.reveal(), tool, args, proof, brokers=tuple(trust.brokers)
    )
    return (yield from steps.supplied(trust, done))


def record_result(self: Any, tool_call_id: str, result: Any) -> Generator[Step, Any, None]:
    """Record the declared facts of a call this run redeemed itself (integrations do this).

    Raises:
        ConfigError: no such redeemed call here. NotRecorded: the store or the log did not take
            them.
    """
    done = self._redeemed.get(tool_call_id) if type(tool_call_id) is str else None
    if done is None:
        raise ConfigError(
            "tool_call_id",
            type(tool_call_id).__name__,
            "the id of exactly one call that this run redeemed",
        )
    del self._redeemed[tool_call_id]
    yield from outcome.record_result(done, result)
    if done.missing:
        raise NotRecorded(done.claims.txn, tuple(done.missing), done.missing["facts"])
