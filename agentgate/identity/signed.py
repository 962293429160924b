"""A signed JWT becomes claims. PyJWT verifies the signature and what RFC 7519 says of claims;
here stands what it leaves open.

In this order: (1) three parts in canonical base64url, not too long; (2) a header of known
members, of an expected `typ`, with a `kid`, so that nothing in it points to a key (`jku`,
`x5u`, `jwk`, `x5c`) or changes how it is read (`crit`, `b64`, `zip`); (3) the key of that name
from the configured source, with the one algorithm of that key; (4) PyJWT: signature, `exp`,
`iat`, `nbf`, `iss`, `aud`, required claims; (5) times that are numbers, a lifetime that is
short enough, this one audience and no other. No JSON in it has a key twice.

The credential's text is in no local variable of a frame that raises.

What kind of token it is, a person's sign-in, a workload's own, or something that proves nobody, its
claims tell: one issuer signs all of them, often for one audience and under one `typ`, so what
proves a person must not pass as a workload (RFC 8725 section 3.11). A mark only refuses. `acr`
alone marks no sign-in: Keycloak writes it into the tokens of service accounts.

Who shows a credential holds its key: a DPoP proof (RFC 9449) or the certificate of the TLS
connection (RFC 8705). A credential that names a key (`cnf`) proves nothing without that key: a
stolen one is worth nothing. One that names none may be shown with a proof of any key, which is
then the key of this agent. An unknown way of confirmation is refused, never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NewType

import jwt

from agentgate.errors import CredentialRefused, KeysUnavailable, TokenRefused
from agentgate.identity.credential import MAX_CREDENTIAL, AgentCredential, Credential
from agentgate.identity.keys import ALGORITHMS, KeySource, strict_object
from agentgate.shell.step import OutsideFlow
from agentgate.token.dpop import check_proof, token_hash
from agentgate.token.jws import split, unb64url
from agentgate.values.value_class import value_class

SignedClaims = NewType("SignedClaims", Mapping[str, Any])
LEEWAY = 5  # seconds two clocks may differ
_MEMBERS = frozenset("alg kid typ x5t x5t#S256".split())
# what PyJWT found -> the claim, and what is expected of it
_OF_ERROR = json.loads(Path(__file__).with_name("claims.json").read_text("utf-8"))


@value_class
class ExpectedClaims:
    """What a kind of credential must say.

    Attributes:
        what: how refusals name it, e.g. ``agent.oidc``.
        audience: the one audience; of several, a token is for exactly one.
        issuer: exact `iss`; None: it has none that counts.
        types: accepted `typ` in lower case; empty text: none is stated.
        required: claims that must be there.
        algorithms: what a key of the source may be for.
        max_lifetime: seconds from `iat` (or from now, where there is none) to `exp`.
    """

    what: str
    audience: str | tuple[str, ...]
    issuer: str | None
    types: frozenset[str] = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
    required: tuple[str, ...] = ("iss", "sub", "aud", "exp", "iat")
    algorithms: frozenset[str] = ALGORITHMS
    max_lifetime: int = 24 * 3600

    @property
    def audiences(self) -> tuple[str, ...]:
        """Each of which will do."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience


@value_class
class Unverified:
    """The header and claims of a credential that has the right form; they prove nothing yet."""

    unverified_header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]


def read(credential: Credential, what: str) -> Unverified:
    """Steps 1 and 2 without `typ`.

    Raises:
        CredentialRefused: form or header.
    """
    if credential.unverified is None:
        credential.unverified = _parts(credential)
    found: Unverified | CredentialRefused = credential.unverified
    if not isinstance(found, Unverified):
        raise found.restate(field=f"{what}.{found.field}" if found.field else what)
    header = found.unverified_header
    if not header.keys() <= _MEMBERS:
        raise CredentialRefused(
            f"{what}.header",
            min(header.keys() - _MEMBERS),
            f"only {', '.join(sorted(_MEMBERS))}",
        )
    return found


def _parts(credential: Credential) -> Unverified | CredentialRefused:
    """Returns a refusal where `read` raises it: this frame holds the credential."""
    try:
        parts = split(credential.reveal(), MAX_CREDENTIAL)
        return Unverified(
            strict_object(unb64url(parts.header), "header"),
            strict_object(parts.unverified_payload, "claims"),
        )
    except TokenRefused as error:
        return CredentialRefused.of(error.failure(reason="", field=""))
    except CredentialRefused as error:
        return error.restate()
    except ValueError:
        return CredentialRefused("header", "another encoding", "canonical base64url")


def verified(
    credential: Credential, source: KeySource, expected: ExpectedClaims, now: float
) -> OutsideFlow[SignedClaims]:
    """The claims of a credential, proven by a key of `source`. `now`: POSIX seconds.

    Raises:
        CredentialRefused: with the first step that failed. KeysUnavailable: nothing can be
            proven now.
    """
    what = expected.what
    form = read(credential, what)
    header = form.unverified_header
    claims = form.unverified_claims
    typ = header.get("typ", "")
    kid = header.get("kid")
    if type(typ) is not str or typ.lower() not in expected.types:  # (2)
        raise CredentialRefused(
            f"{what}.typ", typ, " or ".join(sorted(filter(None, expected.types)))
        )
    if type(kid) is not str:
        raise CredentialRefused(f"{what}.kid", "none", "the name of a key")
    try:
        key, verifications = yield from source.key(kid)  # (3)
    except KeysUnavailable as error:
        raise error.restate(field=f"{what}.keys") from None
    except CredentialRefused as error:
        raise CredentialRefused(f"{what}.kid", kid, error.expected) from None
    if key.algorithm_name not in expected.algorithms:
        raise CredentialRefused(
            f"{what}.alg", key.algorithm_name, " or ".join(sorted(expected.algorithms))
        )
    for name in ("exp", "iat", "nbf"):  # before PyJWT rounds them
        if name in claims and (
            type(claims[name]) not in {int, float} or not 0 <= claims[name] < 2**53
        ):
            raise CredentialRefused(
                f"{what}.{name}", type(claims[name]).__name__, "seconds since 1970"
            )
    entry = (
        (expected, sha256(credential.reveal().encode()).digest())
        if credential.returning
        else None
    )
    credential.known = (
        entry is not None
        and verifications.holds(claims.get("sub"), entry)
        and _is_current(claims, now)
    )
    problem = "" if credential.known else _proved(credential, key, expected)  # (4)
    if problem:
        field, wanted = _found_by(problem, claims, expected, now)
        got = {"signature": "no match", "alg": header.get("alg"), "claims": problem}.get(
            field, claims.get(field, "none")
        )
        raise CredentialRefused(f"{what}.{field}", got, wanted)
    _check_claims(claims, expected, now)  # (5)
    if entry and not credential.known:
        credential.keep = partial(verifications.keep, claims.get("sub"), entry)
    return SignedClaims(claims)


def _check_claims(claims: Mapping[str, Any], expected: ExpectedClaims, now: float) -> None:
    """This one audience and no other, and a lifetime that is short enough."""
    if not any(claims["aud"] in (each, [each]) for each in expected.audiences):
        raise CredentialRefused(
            f"{expected.what}.aud",
            claims["aud"],
            f"{' or '.join(expected.audiences)} and no other",
        )
    lifetime = claims["exp"] - claims.get("iat", now)
    if not 0 < lifetime <= expected.max_lifetime:
        raise CredentialRefused(
            f"{expected.what}.exp",
            f"{lifetime:.0f} s",
            f"a lifetime of at most {expected.max_lifetime} s",
        )


def _is_current(claims: Mapping[str, Any], now: float) -> bool:
    """Whether PyJWT would find its times as good as when it verified them; else it is asked."""
    return (
        int(claims["exp"]) > now - LEEWAY
        and max(claims.get("iat", 0), claims.get("nbf", 0)) <= now + LEEWAY
    )


def _found_by(
    problem: str, claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> tuple[str, str]:
    """The claim that PyJWT's error is about, and what is expected of it."""
    if problem == "MissingRequiredClaimError":
        field = next(
            (name for name in (*expected.required, "aud") if not claims.get(name)), "claims"
        )
        wanted = "a value"
    else:
        field, wanted = _OF_ERROR.get(
            problem, ("claims", f"{', '.join(expected.required)}, in their forms")
        )
    if field == "iat" and claims.get("nbf", 0) > now + LEEWAY:
        field = "nbf"
        wanted = "valid already"
    return field, {
        "aud": " or ".join(expected.audiences),
        "iss": expected.issuer or wanted,
    }.get(field, wanted)


def _proved(credential: Credential, key: jwt.PyJWK, expected: ExpectedClaims) -> str:
    """Empty, or the name of what PyJWT found."""
    try:
        jwt.decode(
            credential.reveal(),
            key,
            algorithms=[key.algorithm_name],
            audience=expected.audiences,
            issuer=expected.issuer,
            leeway=LEEWAY,
            options={
                "require": list(expected.required),
                "verify_signature": True,
                "verify_exp": True,
                "verify_iat": True,
                "verify_nbf": True,
                "verify_aud": True,
                "verify_iss": expected.issuer is not None,
                "verify_sub": True,
                "verify_jti": True,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        return type(error).__name__
    return ""


def text_of(claims: Mapping[str, Any], name: str, what: str) -> str:
    """A claim that is text and not empty.

    Raises:
        CredentialRefused: missing, or anything else.
    """
    value = claims.get(name)
    if type(value) is not str or not value:
        raise CredentialRefused(
            f"{what}.{name}",
            "none" if value is None else type(value).__name__ if value else "empty",
            "text",
        )
    return value


# claim -> values that mark a token, with spaces between; none: any value does
Marks = Mapping[str, str]
# OpenID Connect Core sections 2, 3.3.2.11 and 5.1, Front-Channel Logout section 3, Keycloak,
# Entra ID, Cognito, Auth0
_PERSON: Marks = {
    **dict.fromkeys(
        "nonce auth_time amr at_hash c_hash s_hash sid session_state given_name family_name "
        "picture upn".split(),
        "",
    ),
    "typ": "ID",
    "idtyp": "user",
    "token_use": "id",
    "gty": "password",
}
# Entra ID, Auth0, Kubernetes, Keycloak
_WORKLOAD: Marks = {
    "idtyp": "app",
    "gty": "client-credentials",
    **dict.fromkeys("kubernetes.io clientHost clientAddress".split(), ""),
}
# hops and call tokens (`act`), RFC 8417 and logout tokens, RFC 9493, RFC 9701, credentials to
# present, RFC 9101, RFC 9449; Keycloak
_OTHER: Marks = {
    **dict.fromkeys(
        "act may_act events sub_id token_introspection vc response_type htm".split(), ""
    ),
    "typ": "Refresh Offline Logout",
}


def check_agent(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what is no workload's own token."""
    _check_subject(claims, what)
    _check_marks(claims, _PERSON, what, "a workload's own token, with no mark of a sign-in")
    for name in ("scope", "scp"):
        value = claims.get(name)
        if "openid" in (
            value.split() if type(value) is str else value if type(value) is list else ()
        ):
            raise CredentialRefused(
                f"{what}.{name}",
                "openid",
                "a workload's own token: openid is what a person logs in with",
            )


def check_user(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what is no person's token."""
    _check_subject(claims, what)
    _check_marks(claims, _WORKLOAD, what, "a person's token")
    # RFC 9068 section 2.2
    if claims["sub"] in {claims.get(name) for name in ("client_id", "azp", "cid")}:
        raise CredentialRefused(
            f"{what}.sub", "a client", "a person's token, not the client's own"
        )


def check_own(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what was signed for something else: a client that is a
    broker, too, hands its hops to others.
    """
    _check_marks(
        claims,
        _OTHER,
        what,
        "an ID or access token, or a client's assertion (hops are proven by the brokers that signed them)",
    )


def _check_subject(claims: SignedClaims, what: str) -> None:
    check_own(claims, what)
    subject = claims["sub"]
    # a client's assertion (RFC 7523 section 3), an SVID
    if subject == claims["iss"] or subject.startswith("spiffe://"):
        raise CredentialRefused(
            f"{what}.sub", subject, "somebody of the issuer's (an SVID is shown as one)"
        )


def _check_marks(claims: SignedClaims, marks: Marks, what: str, expected: str) -> None:
    for name, values in marks.items():
        got = claims.get(name)
        if name in claims and (not values or (type(got) is str and got in values.split())):
            raise CredentialRefused(f"{what}.{name}", got if values else "one", expected)


_WAYS = {"jkt", "x5t#S256"}


def proven_key(credential: AgentCredential, claims: SignedClaims, what: str, now: float) -> str:
    """Thumbprint of the key that was proven; empty: none was, and none had to be.

    Raises:
        CredentialRefused: the credential is bound to a key that was not proven.
    """
    cnf = claims.get("cnf", {})
    if (
        type(cnf) is not dict
        or not cnf.keys() <= _WAYS
        or not all(type(value) is str and value for value in cnf.values())
    ):
        raise CredentialRefused(
            f"{what}.cnf", "another way to confirm", " or ".join(sorted(_WAYS))
        )
    shown = shown_key(credential, cnf.get("jkt"), what, now)
    bound = cnf.get("x5t#S256")
    if bound is not None and credential.certificate != bound:
        raise CredentialRefused(
            f"{what}.cnf",
            "another certificate or none",
            "the certificate that the credential names",
        )
    return shown or credential.certificate


def shown_key(credential: AgentCredential, jkt: str | None, what: str, now: float) -> str:
    """The thumbprint of the key that signed the proof; empty: there is none, and `jkt` asks for
    none. Raises as `proven_key`.
    """
    if not credential.proof:
        if jkt is not None:
            raise CredentialRefused(
                f"{what}.proof",
                "none",
                "a DPoP proof by the key that the credential names",
                proof=True,
            )
        return ""
    try:
        ath = None if credential.at_token_endpoint else token_hash(credential.reveal())
        return check_proof(credential.proof, now, jkt=jkt, ath=ath)
    except TokenRefused as error:
        refused = error.failure(reason="", field=f"{what}.{error.field}", data={"proof": True})
    raise CredentialRefused.of(refused)
