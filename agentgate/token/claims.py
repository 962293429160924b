"""The pure part of redeeming: is this token from its sender, for this server, and for the call
really received?

Rules: checks run in the order of their numbers and end with the first that fails; only
`TokenRefused` is raised. Every claim is required or named as optional, and has its exact type;
any other claim is refused. The payload must be, byte for byte, what the issuer's encoder
writes: one comparison refuses duplicate keys, escapes, white space, other orders of members and
other encodings. Knows no workflow and no store; the burn follows, in
`agentgate.redemption.steps`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Iterable
from itertools import combinations
from operator import itemgetter
from typing import Any, Self

import orjson

from agentgate.errors import ConfigError, Refusal, TokenRefused
from agentgate.token import dpop, jws
from agentgate.token.dpop import DPoP
from agentgate.token.jws import PublicKeys
from agentgate.token.mint import DETAIL_TYPE, MintClaims, RunClaims, WorkflowRef
from agentgate.values.canonical import digest

__all__ = [
    "Claims",
    "DPoP",
    "PublicKeys",
    "check_authentication",
    "check_call",
    "check_proof",
    "check_token",
]

MAX_LIFETIME = 300  # seconds
MAX_LEEWAY = 5  # seconds
MAX_HOPS = 8  # nested `act`

# Names in the one order in which the issuer writes them; values are read by position.
_FIRST = tuple(
    "iss sub aud client_id iat exp jti txn scope authorization_details act tenant gen".split()
)
_OPTIONAL = ("cnf", "auth_time", "acr", "amr")
_SHAPES = frozenset(
    _FIRST + extra for size in range(5) for extra in combinations(_OPTIONAL, size)
)
_DETAIL = tuple(
    "type locations actions identifier tool_call_id workflow intent run call_digest "
    "arguments_digest tool_digest identity".split()
)
_DETAIL_SHAPES = frozenset(
    (*_DETAIL, *head, *releases)
    for head in ((), ("head_digest",))
    for releases in ((), ("releases",))
)
_WORKFLOW = ("id", "version", "digest")
_ARGUMENTS = ("alg", "c14n", "value")
_BODY_TEXTS = ("iss", "sub", "aud", "client_id", "jti", "txn", "scope", "tenant", "gen")
_DETAIL_TEXTS = ("identifier", "tool_call_id", "intent", "run", "call_digest")
_TEXTS = (
    *_BODY_TEXTS,
    *_DETAIL_TEXTS,
    "workflow.id",
    "workflow.digest",
    "arguments_digest.value",
)
_body_texts = itemgetter(*_BODY_TEXTS)
_detail_texts = itemgetter(*_DETAIL_TEXTS)
_SENDERS = frozenset({"jkt", "x5t#S256"})  # RFC 9449 section 6.1, RFC 8705 section 3.1
_HEX = "0123456789abcdef"
_JTI = re.compile(r"[A-Za-z0-9_-]{22,128}").fullmatch  # 22 characters of base64url are 128 bits
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch
_STR = {str}


class Claims(MintClaims):
    """The claims of a token that `check_token` accepted; nothing else builds them. Fields are
    those of `MintClaims`.
    """

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Self:
        """Refused (TypeError): only `check_token` builds claims."""
        raise TypeError("claims are built by check_token only")

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]  # noqa: ARG003 - what `_replace` calls
        raise TypeError("claims are built by check_token only")


def _claim(field: str, got: object, expected: str) -> TokenRefused:
    shown = (
        "missing"
        if got is None
        else repr(got)
        if isinstance(got, str | int)
        else type(got).__name__
    )
    return TokenRefused(Refusal.CLAIM, field[:64], shown, expected)


def _check_names(value: object, shapes: Collection[tuple[str, ...]], where: str) -> None:
    """An object whose names are one of `shapes`, in order."""
    if type(value) is not dict:
        raise _claim(where or "payload", value, "an object")
    names = tuple(value)
    if names in shapes:
        return
    required: set[str] = set.intersection(*map(set, shapes))
    for wrong, got, expected in (
        (set(names).difference(*shapes), "an unknown claim", "no such claim"),
        (required.difference(names), "missing", "a value"),
    ):
        if wrong:
            raise TokenRefused(
                Refusal.CLAIM, f"{where}.{min(wrong)}".strip(".")[:64], got, expected
            )
    raise TokenRefused(
        Refusal.PAYLOAD, where or "payload", "names in another order", "the issuer's order"
    )


def _texts(value: object, field: str) -> tuple[str, ...]:
    if (
        type(value) is not list
        or not value
        or any(type(item) is not str or not item for item in value)
    ):
        raise _claim(field, value, "a list of text")
    return tuple(value)


def _check_seconds(value: object, field: str) -> None:
    if type(value) is not int or not 0 <= value < 2**53:
        raise _claim(field, value, "whole seconds as an integer")


def _check_act(act: object) -> None:
    """Agent and brokers (RFC 8693 section 4.1): `sub`, perhaps `iss`, perhaps a nested
    `act`.
    """
    for _ in range(MAX_HOPS):
        if type(act) is not dict or "sub" not in act:
            raise _claim("act", act, "an object with sub")
        for name, value in act.items():
            if name != "act" and (
                name not in ("sub", "iss") or type(value) is not str or not value
            ):
                raise _claim(f"act.{name}", value, "sub and iss as text, not empty, and act")
        if "act" not in act:
            return
        act = act["act"]
    raise _claim("act", "deeper", f"at most {MAX_HOPS} levels")


def _check_identity(identity: object) -> None:
    if type(identity) is not dict or "agent" not in identity:
        raise _claim("identity", identity, "an object with agent")
    for name, how in identity.items():
        if name not in ("user", "agent", "host", "approver") or how not in (
            "proven",
            "in_process",
        ):
            raise _claim(
                f"identity.{name}", how, "user, agent, host, approver: proven or in_process"
            )


def _read_optional(
    value: dict[str, Any],
) -> tuple[str | None, int | None, str | None, tuple[str, ...], str | None]:
    """`cnf.jkt`, `auth_time`, `acr`, `amr`, `cnf.x5t#S256`; null is not the same as absent."""
    cnf: dict[str, str] = {}
    if "cnf" in value:
        cnf = value["cnf"]
        if type(cnf) is not dict or len(cnf) != 1 or not cnf.keys() <= _SENDERS:
            raise _claim(
                "cnf",
                ", ".join(cnf)[:64] if type(cnf) is dict else cnf,
                f"exactly one of {', '.join(sorted(_SENDERS))}",
            )
        for name, thumbprint in cnf.items():
            if type(thumbprint) is not str or not _THUMBPRINT(thumbprint):
                raise _claim(f"cnf.{name}", thumbprint, "a SHA-256 thumbprint, base64url")
    if "auth_time" in value:
        _check_seconds(value["auth_time"], "auth_time")
    if "acr" in value and (type(value["acr"]) is not str or not value["acr"]):
        raise _claim("acr", value["acr"], "text, not empty")
    amr = _texts(value["amr"], "amr") if "amr" in value else ()
    return cnf.get("jkt"), value.get("auth_time"), value.get("acr"), amr, cnf.get("x5t#S256")


def _parse(payload: bytes) -> Any:
    """The JSON value, in exactly the form the issuer's encoder gives it."""
    try:
        value = orjson.loads(payload)
        exact = orjson.dumps(value) == payload
    except (ValueError, TypeError):
        raise TokenRefused(
            Refusal.PAYLOAD, "payload", "not JSON in UTF-8", "a JSON object"
        ) from None
    if not exact:
        raise TokenRefused(
            Refusal.PAYLOAD,
            "payload",
            "another form (duplicate keys, escapes, white space)",
            "exactly the issuer's form",
        )
    return value


def _check_values(
    body: dict[str, Any],
    detail: dict[str, Any],
    workflow: dict[str, Any],
    hashed: dict[str, Any],
) -> None:
    """The type and form of each required claim."""
    texts = (
        *_body_texts(body),
        *_detail_texts(detail),
        workflow["id"],
        workflow["digest"],
        hashed["value"],
    )
    if set(map(type, texts)) != _STR or not all(texts):
        name, got = next(
            (name, got)
            for name, got in zip(_TEXTS, texts, strict=True)
            if type(got) is not str or not got
        )
        raise _claim(name, got, "text, not empty")
    iat = body["iat"]
    exp = body["exp"]
    gen = body["gen"]
    call_digest = detail["call_digest"]
    arguments_digest = hashed["value"]
    _check_seconds(iat, "iat")
    _check_seconds(exp, "exp")
    if not _JTI(body["jti"]):
        raise _claim("jti", "shorter or other characters", "at least 128 bits, base64url")
    if (
        len(gen) != 40
        or len(call_digest) != 64
        or len(arguments_digest) != 64
        or (gen + call_digest + arguments_digest).strip(_HEX)
    ):
        raise _claim(
            "gen, call_digest, arguments_digest", "another form", "40, 64 and 64 lower-case hex"
        )
    if detail["type"] != DETAIL_TYPE or detail["actions"] != ["invoke"]:
        raise _claim(
            "authorization_details.type", detail["type"], f"{DETAIL_TYPE}, actions invoke"
        )
    if hashed["alg"] != "sha-256" or hashed["c14n"] != "jcs":
        raise _claim("arguments_digest.alg", hashed["alg"], "sha-256 over jcs")
    if type(workflow["version"]) is not int or type(detail["tool_digest"]) is not str:
        raise _claim("workflow.version, tool_digest", workflow["version"], "an integer, text")
    _check_act(body["act"])
    _check_identity(detail["identity"])
    head_digest = detail.get("head_digest")
    if "head_digest" in detail and (
        type(head_digest) is not str or len(head_digest) != 64 or head_digest.strip(_HEX)
    ):
        raise _claim("head_digest", head_digest, "64 lower-case hex")


def _read_claims(payload: bytes) -> tuple[Claims, object]:
    """Step 7: the strict payload. Returns the claims, and `locations` for step 11."""
    body = _parse(payload)
    _check_names(body, _SHAPES, "")
    jkt, auth_time, acr, amr, x5t = (
        _read_optional(body) if len(body) > len(_FIRST) else (None, None, None, (), None)
    )
    details = body["authorization_details"]
    if type(details) is not list or len(details) != 1:
        raise _claim("authorization_details", details, "a list of one object")
    detail = details[0]
    _check_names(detail, _DETAIL_SHAPES, "authorization_details")
    workflow = detail["workflow"]
    hashed = detail["arguments_digest"]
    _check_names(workflow, (_WORKFLOW,), "workflow")
    _check_names(hashed, (_ARGUMENTS,), "arguments_digest")
    _check_values(body, detail, workflow, hashed)
    shared = RunClaims(
        iss=body["iss"],
        sub=body["sub"],
        aud=body["aud"],
        client_id=body["client_id"],
        scope=body["scope"],
        tenant=body["tenant"],
        act=body["act"],
        tool=detail["identifier"],
        workflow=WorkflowRef(workflow["id"], workflow["version"], workflow["digest"]),
        run=detail["run"],
        auth_time=auth_time,
        acr=acr,
        amr=amr,
    )
    claims = MintClaims.__new__(
        Claims,
        shared=shared,
        iat=body["iat"],
        exp=body["exp"],
        jti=body["jti"],
        txn=body["txn"],
        gen=body["gen"],
        tool_call_id=detail["tool_call_id"],
        intent=detail["intent"],
        call_digest=detail["call_digest"],
        arguments_digest=hashed["value"],
        tool_digest=detail["tool_digest"],
        identity=detail["identity"],
        cnf_jkt=jkt,
        cnf_x5t=x5t,
        releases=_texts(detail["releases"], "releases") if "releases" in detail else (),
        head_digest=detail.get("head_digest", ""),
    )
    return claims, detail["locations"]


def _check_place(claims: Claims, issuer: str, tenants: Collection[str], audience: str) -> None:
    if claims.iss != issuer:
        raise TokenRefused(Refusal.ISSUER, "iss", repr(claims.iss), repr(issuer))
    if claims.aud != audience:
        raise TokenRefused(Refusal.AUDIENCE, "aud", repr(claims.aud), repr(audience))
    if claims.tenant not in tenants:
        raise TokenRefused(
            Refusal.TENANT, "tenant", repr(claims.tenant), "a tenant of this server"
        )


def _check_time(claims: Claims, now: float, max_lifetime: int, leeway: int) -> None:
    """Each comparison is written so that a clock that is not a number refuses."""
    if not now < claims.exp + leeway:
        raise TokenRefused(Refusal.EXPIRED, "exp", str(claims.exp), f"later than {now}")
    if not claims.iat <= now + leeway:
        raise TokenRefused(Refusal.NOT_YET, "iat", str(claims.iat), f"not later than {now}")
    if not 0 < claims.exp - claims.iat <= max_lifetime:
        raise TokenRefused(
            Refusal.LIFETIME,
            "exp - iat",
            f"{claims.exp - claims.iat} s",
            f"at most {max_lifetime} s",
        )


def check_token(
    text: str,
    keys: PublicKeys,
    *,
    issuer: str,
    tenants: Collection[str],
    audience: str,
    now: float,
    max_lifetime: int = MAX_LIFETIME,
    leeway: int = MAX_LEEWAY,
) -> Claims:
    """Steps 3 to 9: who issued the token, is it for this server, is it valid now?

    Args:
        text: the JWT as received.
        keys: the issuer's public keys.
        issuer: exact `iss`.
        tenants: tenants this server serves; empty: every token is refused.
        audience: this server's resource, exact `aud`.
        now: POSIX seconds.
        max_lifetime: longest `exp` - `iat` in seconds.
        leeway: clock difference in seconds, at most 5.

    Raises:
        TokenRefused: with the code of the first check that failed.
        ConfigError: a setting that would loosen a check.
    """
    if (
        type(tenants) is str
        or not 0 <= leeway <= MAX_LEEWAY
        or not 0 < max_lifetime <= MAX_LIFETIME
    ):
        raise ConfigError(
            "tenants, leeway, max_lifetime",
            (tenants, leeway, max_lifetime),
            "names, at most 5 s, at most 300 s",
        )
    try:
        payload = jws.verify(text, keys)  # (3) form, (4) header, (5) key, (6) signature
        claims, locations = _read_claims(payload)  # (7)
        _check_place(claims, issuer, tenants, audience)  # (8)
        _check_time(claims, now, max_lifetime, leeway)  # (9)
        if locations != [audience]:  # the part of (11) that needs no call
            raise TokenRefused(Refusal.LOCATION, "locations", "another place", repr(audience))  # noqa: TRY301 - leaves as the others do
    except TokenRefused as refused:
        del text  # a traceback with locals must not show a token that may still be valid
        raise refused.with_traceback(None) from None
    return claims


def check_proof(
    claims: Claims,
    token_text: str,
    proof: DPoP | None,
    now: float,
    *,
    certificate: str | None = None,
) -> None:
    """Step 10, of the JWT as received: its sender holds the key or the certificate that it
    names.

    Args:
        claims: what `check_token` returned.
        token_text: the JWT as received.
        proof: the DPoP proof that came with it; None: it was sent as plain Bearer.
        now: POSIX seconds.
        certificate: SHA-256 thumbprint (base64url) of the certificate that its sender showed in
            TLS (RFC 8705 section 3); None: none. It counts for a token that names one, and is
            nothing to any other.

    Raises:
        TokenRefused: `CERTIFICATE`, `PROOF_MISSING`, `PROOF_UNBOUND` or `PROOF`.
    """
    ath = dpop.token_hash(token_text) if claims.cnf_jkt is not None else ""
    del token_text  # as above
    if claims.cnf_x5t is not None:
        shown = certificate if type(certificate) is str else ""
        if not hmac.compare_digest(shown.encode("utf-8", "replace"), claims.cnf_x5t.encode()):
            raise TokenRefused(
                Refusal.CERTIFICATE,
                "certificate",
                "another" if shown else "none",
                "the certificate that the token names",
            )
    if claims.cnf_jkt is None:
        if proof is not None:
            bound = "none" if claims.cnf_x5t is None else "x5t#S256"
            raise TokenRefused(
                Refusal.PROOF_UNBOUND, "cnf", bound, "a token bound to the key of the proof"
            )
        return
    if proof is None:
        raise TokenRefused(
            Refusal.PROOF_MISSING, "proof", "none", "a DPoP proof by the key the token names"
        )
    dpop.check_proof(proof, now, jkt=claims.cnf_jkt, ath=ath)


def check_call(claims: Claims, tool: str, data: bytes, *, scopes: Collection[str] = ()) -> None:
    """Step 11: the token was minted for exactly this call.

    Args:
        claims: what `check_token` returned.
        tool: name of the tool really called.
        data: canonical bytes of the arguments really received; run the tool from these.
        scopes: scopes that the tool requires.

    Raises:
        TokenRefused: `TOOL`, `ARGUMENTS` or `SCOPE`.
    """
    if claims.tool != tool:
        raise TokenRefused(Refusal.TOOL, "identifier", repr(claims.tool), repr(tool))
    if digest(data) != claims.arguments_digest:
        raise TokenRefused(
            Refusal.ARGUMENTS,
            "arguments_digest",
            "other arguments",
            "the arguments that were decided on",
        )
    if scopes and not claims.scopes.issuperset(scopes):
        raise TokenRefused(Refusal.SCOPE, "scope", repr(claims.scope), " ".join(sorted(scopes)))


def check_authentication(
    claims: Claims, now: float, *, acr_values: Collection[str] = (), max_age: int | None = None
) -> None:
    """Step 12: how and when the user authenticated (RFC 9470); a token that does not tell is
    refused.

    `acr_values` are the acceptable `acr` (empty: any), `max_age` the most seconds since
    `auth_time` (None: any), `now` POSIX seconds.

    Raises:
        TokenRefused: `AUTHENTICATION`.
    """
    if acr_values and claims.acr not in acr_values:
        wanted = " ".join(acr_values)
        raise TokenRefused(
            Refusal.AUTHENTICATION,
            "acr",
            repr(claims.acr),
            f'acr_values="{wanted}"',
            acr_values=wanted,
        )
    if max_age is not None and (
        claims.auth_time is None or not now - claims.auth_time <= max_age
    ):
        raise TokenRefused(
            Refusal.AUTHENTICATION,
            "auth_time",
            str(claims.auth_time),
            f"max_age={max_age}",
            max_age=max_age,
        )
