"""The steps of a redemption: judge a token, bind it to the call really received, burn it,
record that, fetch the upstream credential.

Rules: the checks of `agentgate.token.claims` up to how the user signed in, then room in the
log, then the burn, then the durable record, then the upstream credential, if the workflow names
one. Whatever fails is a `TokenRefused`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Mapping
from typing import Any

from agentgate.errors import (
    AuditUnavailable,
    CanonicalError,
    NameRefused,
    Refusal,
    StoreUnavailable,
    TokenRefused,
    UpstreamRefused,
)
from agentgate.redemption.outcome import not_run
from agentgate.redemption.records import record_of
from agentgate.redemption.trust import Trust
from agentgate.redemption.upstream import Redemption, ended, fetch
from agentgate.shell.spans import UNKNOWN_TOOL, Tracing, call_attributes, spanned
from agentgate.shell.step import Apart, Flow, Room, Step, alone
from agentgate.stores import history_name, ops
from agentgate.token.claims import (
    Claims,
    check_authentication,
    check_call,
    check_proof,
    check_token,
)
from agentgate.token.dpop import DPoP
from agentgate.token.mint import MintClaims
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.request import Args, CanonicalArguments

_UNSPENT = "an unspent, unrevoked token of this store's history"
_BROKERS = "a broker of this name in `brokers` of whoever redeems; the token is not burned"
_WHOLE = "a store that has lost nothing of this tenant (agentgate store reconcile)"


def judged(
    who: Trust, token: str, proof: DPoP | None, now: float, *, certificate: str | None = None
) -> Generator[Step, Any, Claims]:
    """Steps 3 to 10: what can be said of a token without its call. `now`: POSIX seconds;
    `certificate`: as of `check_proof`.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    try:
        keys = yield from who.keys.newest()
        claims = check_token(
            token, keys, issuer=who.issuer, tenants=who.tenants, audience=who.audience, now=now
        )
        with _InRun(claims):
            if proof is not None and type(proof) is not DPoP:
                raise TokenRefused(Refusal.PROOF, "proof", type(proof).__name__, "a DPoP")
            check_proof(claims, token, proof, now, certificate=certificate)
    finally:
        del token  # a traceback with locals must not show it
    return claims


class _InRun:
    """What is refused here is refused in the run of a good token: an operator finds it by that.
    No generator: each call enters three.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TokenRefused):
            error.run = self._claims.run


def called(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    certificate: str | None = None,
) -> Generator[Step, Any, tuple[Claims, bytes]]:
    """Steps 3 to 12: the claims, and the canonical bytes of the arguments, of a token that is
    for exactly this call and user.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    now = time.time()
    steps = judged(who, token, proof, now, certificate=certificate)
    del token  # a traceback with locals must not show it
    if type(tool) is not str:
        raise TokenRefused(Refusal.TOOL, "tool", type(tool).__name__, "a tool's name")
    claims: Claims = yield from steps
    with _InRun(claims):
        try:
            data = (
                args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")
            )  # costs most: only for a good token
        except (CanonicalError, TypeError, ValueError, AttributeError) as error:
            raise TokenRefused(
                Refusal.ARGUMENTS,
                "args",
                type(error).__name__,
                "arguments with a canonical form",
            ) from None
        check_call(claims, tool, data)
        check_authentication(claims, now, acr_values=who.acr_values, max_age=who.max_age)
    return claims, data


def build_redemption(
    claims: MintClaims, data: bytes, head: bytes, tracing: Tracing | None
) -> Redemption:
    """The redemption of a call whose token was burned; `head`: what its record says of it, as
    JSON.

    Raises:
        TypeError, ValueError, KeyError: it is unreadable.
    """
    done = Redemption(claims, data, parse(head), tracing=tracing)
    _ = done.asked, done.head["facts"].items()
    return done


def redeem(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    known: bool = True,
    **more: Any,
) -> Flow:
    """`burned`, in a span. `known`: the tool's name is one that a workflow or this server has,
    and not whatever was sent.
    """
    steps = burned(who, token, tool, args, proof, **more)
    del token  # a traceback with locals must not show it
    named = {"gen_ai.tool.name": tool if known and type(tool) is str else UNKNOWN_TOOL}
    return spanned(
        who.tracing,
        f"redeem {named['gen_ai.tool.name']}",
        named,
        steps,
        lambda done: (told(done.claims), ""),
    )


def told(claims: MintClaims) -> dict[str, str | int]:
    """What spans say of a call."""
    workflow, version, _ = claims.workflow
    return call_attributes(
        claims.tool, claims.tool_call_id, claims.client_id, workflow, version
    )


def burned(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    certificate: str | None = None,
    attempt: str = "",
    brokers: tuple[str, ...] | None = None,
) -> Flow:
    """Steps 3 to 13: verify, bind to the call, burn, record. Returns a `Redemption`, still
    without an upstream credential.

    Somebody else who runs the tool may name this `attempt`, and the `brokers` that it has;
    None: nobody tells.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    steps = called(who, token, tool, args, proof, certificate=certificate)
    del token  # a traceback with locals must not show it
    claims, data = yield from steps
    with _InRun(claims):
        return (yield from _burnt(who, claims, data, attempt or secrets.token_hex(16), brokers))


def burn_request(
    claims: MintClaims,
    *,
    history: str = "",
    attempt: str = "",
    brokers: tuple[str, ...] | None = None,
) -> ops.BurnRequest:
    """What the store is asked about a token; the last three are as in
    `agentgate.stores.ops.BurnRequest`.
    """
    shared = claims.shared
    workflow, version, _ = shared.workflow
    user = shared.sub if "user" in claims.identity else ""
    return ops.BurnRequest(
        tenant=shared.tenant,
        jti=claims.jti,
        gen=claims.gen,
        binding=claims.binding,
        run=shared.run,
        call_digest=claims.call_digest,
        subjects=ops.Subjects(
            shared.client_id, user, shared.tool, ops.workflow_subject(workflow, version)
        ),
        history=history,
        attempt=attempt,
        brokers=brokers,
        audience=claims.recorded_for,
    )


def _burnt(
    who: Trust, claims: Claims, data: bytes, attempt: str, brokers: tuple[str, ...] | None
) -> Flow:
    """Step 13, and its record."""
    audience = claims.recorded_for
    name = history_name(claims.tenant, audience)
    sent = who.history.seen(name)
    try:
        yield Room()
    except AuditUnavailable as error:  # and the token is not burned
        raise TokenRefused(
            Refusal.AUDIT, "audit", str(error), "room for the record of the redemption"
        ) from None
    try:
        reply: ops.BurnReply = yield ops.burn(
            burn_request(claims, history=sent, attempt=attempt, brokers=brokers)
        )
    except NameRefused as error:
        raise TokenRefused(
            Refusal.STORE, "store", str(error), "names that a store can hold"
        ) from None
    except StoreUnavailable as error:
        yield from not_run(claims, attempt=attempt)
        raise TokenRefused(
            Refusal.STORE, "store", str(error), "a state store that answers in time"
        ) from None
    if reply.kind == "upstream":
        raise TokenRefused(
            Refusal.UPSTREAM,
            "upstream.broker",
            ascii(reply.head.decode("utf-8", "replace")),
            _BROKERS,
        )
    if reply.kind != "ok":
        raise TokenRefused(
            Refusal(reply.kind), "jti", reply.kind, _WHOLE if reply.kind == "lost" else _UNSPENT
        )
    who.history.see(name, sent, reply.history)
    done = yield from record_redemption(
        claims, data, reply.head, who.history.note(reply.history, audience), who.tracing
    )
    # before any broker is asked for what the record says
    if audience and digest(reply.head) != claims.head_digest:
        yield from not_run(
            claims,
            why="the call's record is another than the one that the token was signed for",
        )
        raise TokenRefused(
            Refusal.STORE,
            "call record",
            "another head",
            "the head whose digest is in the token",
        )
    return done


def record_redemption(
    claims: MintClaims,
    data: bytes,
    head: bytes,
    noted: Mapping[str, Any] | None,
    tracing: Tracing | None,
) -> Flow:
    """The redeemed call, once that is durable, with what is `noted`; None: it is on record
    already, and forgetting more does no harm.

    Raises (through the driver):
        TokenRefused: the tool must not run.
    """
    try:
        if noted is not None:
            yield record_of(
                claims,
                "redemption",
                promised=True,
                tool=claims.tool,
                call_digest=claims.call_digest,
                **noted,
            )
        return build_redemption(claims, data, head, tracing)
    except AuditUnavailable as error:
        yield from not_run(claims)
        raise TokenRefused(
            Refusal.AUDIT,
            "audit",
            str(error),
            "a durable record of the redemption before the tool runs",
        ) from None
    except (TypeError, ValueError, KeyError):
        yield from not_run(claims)
        raise TokenRefused(
            Refusal.STORE, "call record", "unreadable", "the record the gate wrote"
        ) from None


def supplied(who: Trust, done: Redemption) -> Flow:
    """The redemption with the upstream credential that its workflow names, if it names one.
    Without it the call is not run.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    claims = done.claims
    asked = done.asked
    if asked is not None:
        try:
            done.credential = yield from fetch(who.brokers, done, asked)
            got: dict[str, Any] = {
                "broker": asked.broker,
                "role": asked.settings.get("role"),
                "expires_at": done.credential.expires_at,
            }
            # the time of the call may be used up
            yield Apart(alone(record_of(claims, "credential", promised=True, **got)))
        except (UpstreamRefused, AuditUnavailable) as error:
            if done.credential is not None:
                yield from ended(done.credential)
            yield Apart(not_run(claims, why=str(error)))
            if isinstance(error, AuditUnavailable):
                raise TokenRefused(
                    Refusal.AUDIT,
                    "audit",
                    str(error),
                    "a durable record of the credential before the tool runs",
                ) from None
            raise TokenRefused.of(error.failure(reason=Refusal.UPSTREAM)) from None
    return done
