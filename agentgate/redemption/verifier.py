"""The tool side: redeem a token against the call really received, burn it, and report what the tool did.

Rules: WIRE order (`agentgate.token.claims` up to the call binding, then the burn, then the durable record, then the tool). Only
`TokenRefused` leaves `redeem`. The tool runs from `RedeemedCall.args`, a re-parse of the bytes whose digest was compared. Facts
are read from the real result by this side, from the fields the workflow declared; once; a failed call has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from agentgate.audit import AuditLog, open_audit
from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    CanonicalError,
    ConfigError,
    NameRefused,
    Refusal,
    StoreUnavailable,
    TokenRefused,
)
from agentgate.redemption.facts import extract
from agentgate.shell.drive import adrive, drive
from agentgate.shell.step import Flow, Record
from agentgate.stores import AsyncStore, Store, async_ready_store, ops, ready_store
from agentgate.token.claims import Claims, check_call, check_proof, check_token
from agentgate.token.dpop import DPoP
from agentgate.token.jws import PublicKeys
from agentgate.token.mint import binding
from agentgate.values.canonical import canonical, parse

Result = TypeVar("Result")
Jwks = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
_log = structlog.get_logger("agentgate.redemption.verifier")
_REFRESH = 5.0  # seconds between looks at a changing key set


@dataclass(slots=True)
class Trust:
    """Whom this verifier believes, and who it is. Nothing here has a default.

    Attributes:
        jwks: the gate's key set, or a function that gives the newest one (key rotation).
    """

    jwks: Jwks
    issuer: str
    tenants: tuple[str, ...]
    audience: str
    _keys: PublicKeys | None = None
    _looked: float = 0.0

    def keys(self) -> PublicKeys:
        """The parsed key set; a function is asked again after a few seconds."""
        if self._keys is None or (callable(self.jwks) and time.monotonic() - self._looked > _REFRESH):
            self._keys = PublicKeys.from_jwks(self.jwks() if callable(self.jwks) else self.jwks)
            self._looked = time.monotonic()
        return self._keys

    def trusted_keys(self) -> PublicKeys:
        """`keys`, or TokenRefused when the newest set cannot be had: an old one may hold a key that was withdrawn."""
        try:
            return self.keys()
        except Exception as error:  # noqa: BLE001 - the function is anybody's; whatever it raises, nothing is accepted
            raise TokenRefused(Refusal.NO_KEYS, "jwks", type(error).__name__, "the gate's key set") from None


def trust(jwks: Jwks, issuer: str, tenants: Sequence[str], audience: str) -> Trust:
    """A checked `Trust`: empty is refusal.

    Raises:
        ConfigError: an issuer, tenant list or audience is missing. KeyRefused: the key set holds an unusable key.
    """
    for name, value in (("issuer", issuer), ("audience", audience)):
        if type(value) is not str or not value:
            raise ConfigError(name, value, "a URL")
    if isinstance(tenants, str) or not tenants or not all(type(t) is str and t for t in tenants):
        raise ConfigError("tenants", tenants, "a list of exact tenant names")
    out = Trust(jwks, issuer, tuple(tenants), audience)
    out.keys()
    return out


@dataclass(frozen=True, slots=True)
class _Redeemed:
    """What a redemption proved: claims, canonical arguments, and the head of the call's record."""

    claims: Claims
    data: bytes
    head: Mapping[str, Any]


def redeem(who: Trust, token: str, tool: str, args: Mapping[str, Any], proof: DPoP | None) -> Flow:
    """Steps 3 to 13: verify, bind to the call, burn, record. Returns `_Redeemed`.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    now = time.time()
    if type(tool) is not str:
        raise TokenRefused(Refusal.TOOL, "tool", type(tool).__name__, "a tool's name")
    try:
        data = canonical(dict(args), "args")
        claims = check_token(token, who.trusted_keys(), issuer=who.issuer, tenants=who.tenants, audience=who.audience, now=now)
        if proof is not None and type(proof) is not DPoP:
            raise TokenRefused(Refusal.PROOF, "proof", type(proof).__name__, "a DPoP")
        check_proof(claims, token, proof, now)
    except (CanonicalError, TypeError, ValueError, AttributeError) as error:
        raise TokenRefused(Refusal.ARGUMENTS, "args", type(error).__name__, "arguments with a canonical form") from None
    finally:
        del token  # a traceback with locals must not show it
    check_call(claims, tool, data)
    bound = binding(claims.call_digest, claims.aud, claims.cnf_jkt)
    workflow, version, _ = claims.workflow
    subjects = ops.Subjects(
        claims.client_id, claims.sub if "user" in claims.identity else "", tool, ops.workflow_subject(workflow, version)
    )
    try:
        op = ops.burn(ops.BurnRequest(claims.tenant, claims.jti, claims.gen, bound, claims.run, claims.call_digest, subjects))
        burned = ops.parse_burn(op, (yield op))
    except (StoreUnavailable, NameRefused) as error:
        raise TokenRefused(Refusal.STORE, "store", str(error), "a state store that answers in time") from None
    if burned.kind != "ok":
        code = {"revoked": Refusal.REVOKED, "lineage": Refusal.LINEAGE, "used": Refusal.USED, "binding": Refusal.BINDING}[burned.kind]
        raise TokenRefused(code, "jti", burned.kind, "an unspent, unrevoked token of this store's history")
    try:
        yield _record(claims, "redemption", tool=tool)
        head = parse(burned.head)
    except AuditUnavailable as error:
        raise TokenRefused(Refusal.AUDIT, "audit", str(error), "a durable record of the redemption before the tool runs") from None
    except (TypeError, ValueError):
        raise TokenRefused(Refusal.STORE, "call record", "unreadable", "the record the gate wrote") from None
    return _Redeemed(claims, data, head)


def _record(claims: Claims, kind: str, **more: object) -> Record:
    workflow, version, digest = claims.workflow
    who = {
        "tenant": claims.tenant,
        "run": claims.run,
        "workflow": {"id": workflow, "version": version, "digest": digest},
        "user": claims.sub,
        "agent": claims.client_id,
    }
    return Record(
        {
            "type": kind,
            "time": round(time.time(), 6),
            **who,
            "txn": claims.txn,
            "jti": claims.jti,
            "tool_call_id": claims.tool_call_id,
            **more,
        }
    )


def report(done: _Redeemed, rows: tuple[Mapping[str, Any], ...] | None, outcome: ops.Outcome | None) -> Flow:
    """Record the facts, or the outcome, of a redeemed call. Returns True when the store took it."""
    claims = done.claims
    if rows is not None:
        op = ops.record_result(claims.tenant, claims.run, claims.call_digest, canonical([dict(r) for r in rows]))
        return ops.parse_record(op, (yield op)) == "ok"
    op = ops.record_outcome(claims.tenant, claims.run, claims.call_digest, outcome or "unknown")
    taken = ops.parse_record(op, (yield op)) == "ok"
    yield _record(claims, "outcome", outcome=outcome or "unknown")
    return taken


class _Call:
    """What both redeemed calls are: the proven call, and the declared facts of its result."""

    def __init__(self, done: _Redeemed) -> None:
        self._done = done
        self.ended = False

    @property
    def args(self) -> dict[str, Any]:
        """A fresh copy of the arguments that were decided on; run the tool from these."""
        fresh: dict[str, Any] = parse(self._done.data)
        return fresh

    @property
    def claims(self) -> Claims:
        """The verified claims."""
        return self._done.claims

    @property
    def txn(self) -> str:
        """The call's id, stable across a step-up; a good idempotency key."""
        return self._done.claims.txn

    def _rows(self, result: Any) -> tuple[dict[str, Any], ...]:
        declared = {name: tuple(path) for name, path in self._done.head["facts"].items()}
        return extract(declared, result) if declared else ()

    def _ending(self, error: BaseException | None) -> ops.Outcome:
        self.ended = True
        if error is None:
            return "done"
        return "failed" if isinstance(error, Exception) else "unknown"

    def _lost(self, what: str, error: Exception) -> None:
        # The tool has run: failing now would invite a second try. What later calls may use is only less.
        _log.error("not_recorded", what=what, txn=self.txn, error=str(error))


class RedeemedCall(_Call):
    """A call whose token was burned. Use as a context manager: leaving it reports the outcome."""

    def __init__(self, done: _Redeemed, store: Store, audit: AuditLog) -> None:
        super().__init__(done)
        self._store, self._audit = store, audit

    def record_result(self, result: Result) -> Result:
        """Read the declared facts from the tool's real result and record them, once; returns the result.

        Args:
            result: what the tool returned: JSON values (dict, list, scalars).
        """
        try:
            drive(report(self._done, self._rows(result), None), self._store, self._audit)
        except AgentGateError as error:
            self._lost("result", error)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            drive(report(self._done, None, self._ending(error)), self._store, self._audit)
        except AgentGateError as failed:
            self._lost("outcome", failed)


class AsyncRedeemedCall(_Call):
    """`RedeemedCall`, awaited: an asynchronous context manager."""

    def __init__(self, done: _Redeemed, store: AsyncStore, audit: AuditLog) -> None:
        super().__init__(done)
        self._store, self._audit = store, audit

    async def record_result(self, result: Result) -> Result:
        """See `RedeemedCall.record_result`."""
        try:
            await adrive(report(self._done, self._rows(result), None), self._store, self._audit)
        except AgentGateError as error:
            self._lost("result", error)
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await adrive(report(self._done, None, self._ending(error)), self._store, self._audit)
        except AgentGateError as failed:
            self._lost("outcome", failed)


def _open(audit: str, store: str) -> AuditLog:
    for name, value in (("audit", audit), ("store", store)):
        if value.startswith("memory:"):
            raise ConfigError(name, value, "what another process can share; in one process use gate.verifier(audience)")
    return open_audit(audit)


class Verifier:
    """Redeems call tokens for one tool server."""

    def __init__(self, who: Trust, store: Store, audit: AuditLog) -> None:
        self._who, self._store, self._audit = who, store, audit

    @classmethod
    def open(cls, jwks: Jwks, *, issuer: str, tenants: Sequence[str], audience: str, store: str, audit: str) -> Verifier:
        """Open a verifier; no argument has a default.

        Args:
            jwks: the gate's key set (RFC 7517), or a function that returns the newest.
            issuer: the gate's exact `iss`.
            tenants: exact tenant names this server serves.
            audience: this server's resource URL, the exact `aud`.
            store: the gate's state store (redis://, rediss://, unix://, embedded://).
            audit: directory of this process's audit log.

        Raises:
            ConfigError: something is missing or unusable. KeyRefused: an unusable key. StoreUnavailable: the store fails
                its start-up check.
        """
        who, log = trust(jwks, issuer, tenants, audience), _open(audit, store)
        return cls(who, ready_store(store), log)

    def redeem(self, token: str, *, tool: str, args: Mapping[str, Any], proof: DPoP | None = None) -> RedeemedCall:
        """Verify the token against the call really received, and burn it.

        Args:
            token: the credential as received.
            tool: the tool really called.
            args: the arguments really received (JSON values).
            proof: the DPoP proof and the request it came with; required for a token with `cnf`.

        Raises:
            TokenRefused: and nothing else.
        """
        steps = redeem(self._who, token, tool, args, proof)
        del token  # a traceback with locals must not show it
        return RedeemedCall(drive(steps, self._store, self._audit), self._store, self._audit)

    def close(self) -> None:
        """Give up the store and the log."""
        self._store.close()
        self._audit.close()


class AsyncVerifier:
    """`Verifier`, awaited."""

    def __init__(self, who: Trust, store: AsyncStore, audit: AuditLog) -> None:
        self._who, self._store, self._audit = who, store, audit

    @classmethod
    async def open(cls, jwks: Jwks, *, issuer: str, tenants: Sequence[str], audience: str, store: str, audit: str) -> AsyncVerifier:
        """See `Verifier.open`."""
        who, log = trust(jwks, issuer, tenants, audience), _open(audit, store)
        return cls(who, await async_ready_store(store), log)

    async def redeem(self, token: str, *, tool: str, args: Mapping[str, Any], proof: DPoP | None = None) -> AsyncRedeemedCall:
        """See `Verifier.redeem`."""
        steps = redeem(self._who, token, tool, args, proof)
        del token  # a traceback with locals must not show it
        return AsyncRedeemedCall(await adrive(steps, self._store, self._audit), self._store, self._audit)

    async def close(self) -> None:
        """Give up the store and the log."""
        await self._store.close()
        self._audit.close()
