"""Minting: the exact wire form of a call token (RFC 9068 with one RFC 9396 detail), and the
opaque object that carries it.

Rules: the payload is orjson's compact output of names in one fixed order, so that a verifier
can demand exactly that form; it never holds the subject's own token, raw arguments or the
prompt. `CallToken` is built only here; only `reveal` and `headers` show its text.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, NoReturn

import orjson

from agentgate.errors import CanonicalError, KeyRefused
from agentgate.token.dpop import token_hash
from agentgate.token.jws import b64url, compact
from agentgate.token.signing import RunKey, SigningKey

DETAIL_TYPE = "https://agentgate.dev/rar/tool-call/v1"


class WorkflowRef(NamedTuple):
    """A reviewed workflow definition: id, version, ``sha256:...`` digest."""

    id: str
    version: int
    digest: str


class RunClaims(NamedTuple):
    """What the tokens of one run for one of its tools share.

    Attributes:
        iss: issuer, https URL.
        sub: user id; the agent's if it acts for no user.
        aud: the one resource: the tool server's.
        client_id: the agent runtime.
        scope: granted scopes, space-separated.
        act: the agent: `sub`, `iss`; nested `act` for each broker (RFC 8693 section 4.1).
        workflow: the definition that allowed the call.
        auth_time, acr, amr: copied from the user's credential; None or empty: unknown.
    """

    iss: str
    sub: str
    aud: str
    client_id: str
    scope: str
    tenant: str
    act: Mapping[str, Any]
    tool: str
    workflow: WorkflowRef
    run: str
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()


class MintClaims(NamedTuple):
    """What a call token says. Tuples, because building a frozen dataclass of this size costs
    three times as much.

    Attributes:
        shared: what it has in common with others; each of these claims is a property, too.
        iat, exp: POSIX seconds, integers.
        jti: at least 128 random bits (`new_jti`); the single-use key.
        txn: id of the call, stable across a step-up.
        gen: lineage of the state store, 40 hex.
        tool_call_id: of the bound call.
        intent: the intent it was minted for, ``any`` or ``none``.
        call_digest: see `call_digest`.
        arguments_digest: SHA-256 (hex) of the canonical arguments.
        tool_digest: the tool's definition digest; empty: unknown.
        identity: ``proven`` or ``in_process`` for `user`, `agent`, `host`.
        cnf_jkt: thumbprint of the sender's key (DPoP); None: it names none.
        cnf_x5t: SHA-256 thumbprint of the sender's certificate (RFC 8705 section 3.1); None: it
            names none. With neither, a bearer token.
        releases: ids of the holds whose release it spent.
        head_digest: SHA-256 (hex) of the head of the call's record; empty: in a run from before
            servers' records had keys of their own.
    """

    shared: RunClaims
    iat: int
    exp: int
    jti: str
    txn: str
    gen: str
    tool_call_id: str
    intent: str
    call_digest: str
    arguments_digest: str
    tool_digest: str
    identity: Mapping[str, str]
    cnf_jkt: str | None = None
    cnf_x5t: str | None = None
    releases: tuple[str, ...] = ()
    head_digest: str = ""

    def __getattr__(self, name: str) -> Any: ...

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scopes, one by one."""
        return frozenset(self.shared.scope.split(" "))

    @property
    def binding(self) -> str:
        """What the store must hold with the `jti` (see `binding`)."""
        return binding(self.call_digest, self.shared.aud, self.cnf_jkt, self.cnf_x5t)

    @property
    def recorded_for(self) -> str:
        """The audience under which the store records the call; empty: none (see
        `head_digest`).
        """
        return self.shared.aud if self.head_digest else ""


for _name in RunClaims._fields:  # each call reads many of them
    setattr(MintClaims, _name, property(attrgetter(f"shared.{_name}")))
del MintClaims.__getattr__  # it is for type checkers; with it every claim is found the slow way


class CallToken:
    """A minted token: no text form, no pickle, no copy, no attribute with the text; `reveal`
    returns it.
    """

    # the text is in a closure: a serialiser that walks __slots__ or __dict__ finds a function
    __slots__ = ("_claims", "_open", "_run_key")

    def __init__(
        self, opener: Callable[[], str], claims: MintClaims, run_key: RunKey | None
    ) -> None:
        self._open: Final = opener
        self._claims: Final = claims
        self._run_key: Final = run_key

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("CallToken is final")

    @property
    def txn(self) -> str:
        """Id of the call, stable across a step-up."""
        return self._claims.txn

    @property
    def jti(self) -> str:
        """The single-use key."""
        return self._claims.jti

    @property
    def claims(self) -> MintClaims:
        """What it says; no secret."""
        return self._claims

    @property
    def expires_at(self) -> float:
        """POSIX seconds."""
        return float(self._claims.exp)

    def reveal(self) -> str:
        """The JWT, for the request that carries it. Do not log, store or trace it."""
        return self._open()

    def headers(self, method: str, url: str, now: float | None = None) -> dict[str, str]:
        """Headers for one request: ``Authorization: DPoP`` and its proof, or ``Authorization:
        Bearer`` for a token without a key.

        One that is bound to a certificate is sent as Bearer, on a connection with that
        certificate (RFC 8705 section 3).

        `method` and the absolute `url` are the request's; `now` is POSIX seconds (None: the
        system clock).

        Raises:
            ValueError: `url` is not an absolute http(s) URL.
            KeyRefused: the token is bound to a key that only its client holds.
        """
        if self._run_key is None:
            if self._claims.cnf_jkt is not None:
                raise KeyRefused(
                    "call token: bound to its client's own key; only the client can prove it"
                )
            return {"Authorization": f"Bearer {self._open()}"}
        proof = self._run_key.proof_for(
            token_hash(self._open()),
            method=method,
            url=url,
            now=time.time() if now is None else now,
        )
        return {"Authorization": f"DPoP {self._open()}", "DPoP": proof}

    def __repr__(self) -> str:
        return f"<CallToken txn={self._claims.txn}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    # copy, deepcopy and every pickle protocol call it first
    def __getstate__(self) -> NoReturn:
        raise TypeError("a call token is neither copied nor pickled")


def _sealed(text: str) -> Callable[[], str]:
    return lambda: text


def new_jti() -> str:
    """128 random bits, hexadecimal: an id that begins with "-" is an option to a command
    (`agentgate explain JTI`).
    """
    return os.urandom(16).hex()


def detail_of(claims: MintClaims) -> dict[str, Any]:
    """What a token says of its call: its one `authorization_details`."""
    shared = claims.shared
    workflow_id, version, workflow_digest = shared.workflow
    detail = {
        "type": DETAIL_TYPE,
        "locations": (shared.aud,),
        "actions": ("invoke",),
        "identifier": shared.tool,
        "tool_call_id": claims.tool_call_id,
        "workflow": {"id": workflow_id, "version": version, "digest": workflow_digest},
        "intent": claims.intent,
        "run": shared.run,
        "call_digest": claims.call_digest,
        "arguments_digest": {"alg": "sha-256", "c14n": "jcs", "value": claims.arguments_digest},
        "tool_digest": claims.tool_digest,
        "identity": claims.identity,
    }
    if claims.head_digest:
        detail["head_digest"] = claims.head_digest
    if claims.releases:
        detail["releases"] = claims.releases
    return detail


def payload(claims: MintClaims) -> bytes:
    """The JSON a token signs, in the one form a verifier accepts.

    Raises:
        CanonicalError: a value is not JSON text, integer or object.
    """
    shared = claims.shared
    body = {
        "iss": shared.iss,
        "sub": shared.sub,
        "aud": shared.aud,
        "client_id": shared.client_id,
        "iat": claims.iat,
        "exp": claims.exp,
        "jti": claims.jti,
        "txn": claims.txn,
        "scope": shared.scope,
        "authorization_details": (detail_of(claims),),
        "act": shared.act,
        "tenant": shared.tenant,
        "gen": claims.gen,
    }
    if claims.cnf_jkt is not None:
        body["cnf"] = {"jkt": claims.cnf_jkt}
    elif claims.cnf_x5t is not None:
        body["cnf"] = {"x5t#S256": claims.cnf_x5t}
    if shared.auth_time is not None:
        body["auth_time"] = shared.auth_time
    if shared.acr is not None:
        body["acr"] = shared.acr
    if shared.amr:
        body["amr"] = shared.amr
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise CanonicalError("claims", str(error), "JSON with valid Unicode text") from None


def draft_token(
    claims: MintClaims, run_key: RunKey | None = None
) -> Callable[[SigningKey], CallToken]:
    """One call token, up to its signature: the returned function makes that with the gate's
    current key, once the call is decided, reserved and on record.

    `run_key` is the key in `cnf_jkt`, if this process presents the token.

    Raises:
        KeyRefused: `run_key` is not the key that the claims name, or they name a key and a
            certificate: a token has one sender.
        CanonicalError: a claim is not JSON.
    """
    if run_key is not None and run_key.jkt != claims.cnf_jkt:
        raise KeyRefused(
            f"run key: got {run_key.jkt}, expected the key {claims.cnf_jkt} of the claims"
        )
    if claims.cnf_jkt is not None and claims.cnf_x5t is not None:
        raise KeyRefused("call token: got a key and a certificate, expected one of them")
    encoded = b64url(payload(claims))
    return lambda signer: CallToken(
        _sealed(compact(signer.header, encoded, signer.sign)), claims, run_key
    )


def call_digest(
    *,
    tenant: str,
    run: str,
    tool_call_id: str,
    agent: str,
    user: str,
    tool: str,
    audience: str,
    definition: str,
    workflow_digest: str,
    data: bytes,
) -> str:
    """SHA-256 (hex) of the RFC 8785 form of the call: everything that distinguishes it from any
    other.

    `tool_call_id` is the runtime's, `agent` a client id, `user` the agent's id if it acts for
    no user, `definition` the tool's definition digest (empty: unknown), `workflow_digest`
    ``sha256:...``, `data` the canonical bytes of the arguments (`agentgate.values.canonical`).

    Raises:
        CanonicalError: a value is not Unicode text.
    """
    try:
        text = orjson.dumps(
            {  # keys in RFC 8785 order
                "agent": agent,
                "arguments": orjson.Fragment(data),
                "audience": audience,
                "run": run,
                "tenant": tenant,
                "tool": tool,
                "tool_call_id": tool_call_id,
                "tool_definition": definition,
                "user": user,
                "workflow_digest": workflow_digest,
            }
        )
    except orjson.JSONEncodeError as error:
        raise CanonicalError("call", str(error), "valid Unicode text") from None
    return hashlib.sha256(text).hexdigest()


def txn(made: str) -> str:
    """The id of the call with this digest, stable across a step-up."""
    return "txn_" + made[:32]


def binding(
    call_digest: str, audience: str, cnf_jkt: str | None, cnf_x5t: str | None = None
) -> str:
    """SHA-256 (hex) of [call digest, audience, sender's key or null, sender's certificate if
    any]: what the store holds with a `jti`.
    """
    bound = (
        [call_digest, audience, cnf_jkt]
        if cnf_x5t is None
        else [call_digest, audience, cnf_jkt, cnf_x5t]
    )
    return hashlib.sha256(orjson.dumps(bound)).hexdigest()
