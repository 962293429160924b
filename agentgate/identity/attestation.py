"""What others sign about an agent: where and as what it runs, and through whom its work came; never
what the request says.

A statement is about one workload and counts for no other; its attestor may speak of its
own clusters only. Two forms: a JWT, and a DSSE envelope (protocol v1) around an in-toto
Statement v1 with the predicate `PREDICATE`. How fresh it has to be is the workflow's word
(`attested_within`); it never counts before its time, and not after its own end.

A hop is signed by the broker that passes work on (nested `act`, RFC 8693 section 4.1), as a JWT:
`iss` is the broker, `sub` whose work it is, `aud` the
gate, `act` who may act now with everybody before nested inside. The hop of *scheduler* to
*api*, and that of *api* to *orchestrator*:

    iss scheduler   sub lee   act {sub: api,          act: {sub: scheduler}}
    iss api         sub lee   act {sub: orchestrator, act: {sub: api, act: {sub: scheduler}}}

No hop without its JWT; each continues exactly what the one before it says, for the same
`sub`, and the last names the agent that shows it. Whose work it is: the user, or where there is
none, the first broker itself. Which brokers and how many a workflow takes is its own word
(`via`, checked in `agentgate.decision.checks`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from agentgate.errors import CredentialRefused
from agentgate.identity.credential import MAX_CREDENTIAL, Credential
from agentgate.identity.keys import KeySource, strict_object
from agentgate.identity.settings import AttestorSettings, BrokerSettings
from agentgate.identity.signed import LEEWAY, ExpectedClaims, read, text_of, verified
from agentgate.shell.step import OutsideFlow
from agentgate.values.request import Posture
from agentgate.values.value_class import value_class

PREDICATE = "https://agentgate.dev/attestation/workload/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD = "application/vnd.in-toto+json"
MAX_SIGNATURES = 4
_WHAT = "agent.posture"


@value_class
class Attested:
    """What a statement says of one workload. `key`: thumbprint of the key it was attested with;
    empty: none is named. `issuers`: as set.
    """

    workload: str
    posture: Posture
    cluster: str
    namespace: str
    node_pool: str
    expires_at: float
    key: str = ""
    issuers: tuple[str, ...] | None = None


@value_class
class Attestor:
    """One configured attestor and its keys."""

    settings: AttestorSettings
    source: KeySource


def attested(
    credential: Credential, attestors: Iterable[Attestor], now: float
) -> OutsideFlow[Attested]:
    """The statement, proven. `now`: POSIX seconds.

    Raises:
        CredentialRefused, KeysUnavailable.
    """
    said: Mapping[str, Any]
    if credential.reveal().lstrip().startswith("{"):
        attestor, workload, said, ends = yield from _envelope(
            credential, [a for a in attestors if a.settings.format == "dsse"], now
        )
    else:
        issuer = read(credential, _WHAT).unverified_claims.get("iss")
        found = next(
            (
                a
                for a in attestors
                if a.settings.format == "jwt" and a.settings.issuer == issuer
            ),
            None,
        )
        if not found:
            raise CredentialRefused(f"{_WHAT}.iss", issuer, "a configured attestor")
        attestor = found
        settings = found.settings
        expected = ExpectedClaims(
            _WHAT, settings.audience or "", settings.issuer, max_lifetime=settings.max_lifetime
        )
        said = yield from verified(credential, attestor.source, expected, now)
        workload = text_of(said, "sub", _WHAT)
        ends = float(said["exp"])
    cluster = text_of(said, "cluster", _WHAT)
    if cluster not in attestor.settings.clusters:
        raise CredentialRefused(
            f"{_WHAT}.cluster",
            cluster,
            f"one of this attestor's: {', '.join(attestor.settings.clusters)}",
        )
    at = _time(said, "attested_at")
    if at > now + LEEWAY:
        raise CredentialRefused(
            f"{_WHAT}.attested_at", "a time to come", "when it was attested"
        )
    posture = Posture(
        text_of(said, "image_signed_by", _WHAT), datetime.fromtimestamp(min(at, now), UTC)
    )
    namespace = text_of(said, "namespace", _WHAT)
    pool = text_of(said, "node_pool", _WHAT)
    return Attested(
        workload,
        posture,
        cluster,
        namespace,
        pool,
        ends,
        _key(said.get("cnf", {})),
        attestor.settings.issuers,
    )


def _key(cnf: object) -> str:
    """The thumbprint of the key that the workload was attested with; empty: none is named."""
    match cnf:
        case {"jkt": str(key), **more} | {"x5t#S256": str(key), **more} if key and not more:
            return key
        case {**more} if not more:
            return ""
    raise CredentialRefused(f"{_WHAT}.cnf", "another way to confirm", "one of jkt, x5t#S256")


def _time(said: Mapping[str, Any], name: str) -> float:
    """A time as seconds since 1970 or RFC 3339 text."""
    value = said.get(name)
    if type(value) is int and 0 <= value < 2**40:
        return float(value)
    try:
        time = datetime.fromisoformat(value) if type(value) is str else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise CredentialRefused(
            f"{_WHAT}.{name}",
            type(value).__name__,
            "seconds since 1970, or RFC 3339 text with a zone",
        )
    return time.timestamp()


def _envelope(
    credential: Credential, attestors: list[Attestor], now: float
) -> OutsideFlow[tuple[Attestor, str, Mapping[str, Any], float]]:
    """Attestor, workload, predicate and end of a DSSE envelope
    (github.com/secure-systems-lab/dsse, v1.0.0).
    """
    envelope = _outer(credential)
    if isinstance(envelope, CredentialRefused):
        raise CredentialRefused(envelope.field, envelope.got, envelope.expected)
    payload, signatures = envelope
    signed = b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    for attestor in attestors:
        for kid, signature in signatures:
            key = (yield from attestor.source.held(kid)).keys.get(kid)
            if key and _is_signed(key.key, signature, signed):
                return (attestor, *_statement(payload, attestor.settings, now))
    raise CredentialRefused(
        f"{_WHAT}.signatures",
        f"{len(signatures)} that no attestor made",
        "one by a key of a configured attestor",
    )


def _outer(credential: Credential) -> tuple[bytes, list[tuple[str, bytes]]] | CredentialRefused:
    """Payload and named signatures. Returns a refusal where others raise: this frame holds the
    credential.
    """
    wrong = CredentialRefused(
        _WHAT,
        "another form",
        f"a DSSE envelope of type {_PAYLOAD}, at most {MAX_CREDENTIAL} characters",
    )
    try:
        text = credential.reveal()
        envelope = strict_object(text.encode(), _WHAT) if len(text) <= MAX_CREDENTIAL else {}
        listed = envelope["signatures"]
        if len(listed) > MAX_SIGNATURES:
            return wrong
        payload = base64.b64decode(envelope["payload"], validate=True)
        return payload, [
            (each["keyid"], base64.b64decode(each["sig"], validate=True))
            for each in listed
            if type(each["keyid"]) is str
        ]
    except (
        KeyError,
        TypeError,
        UnicodeEncodeError,
        binascii.Error,
        ValueError,
        CredentialRefused,
    ):
        return wrong


def _is_signed(key: object, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            key.verify(signature, data, ECDSA(SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _statement(
    payload: bytes, settings: AttestorSettings, now: float
) -> tuple[str, Mapping[str, Any], float]:
    statement = strict_object(payload, _WHAT)
    subjects = statement.get("subject")
    predicate = statement.get("predicate")
    if (
        statement.get("_type") != _STATEMENT
        or statement.get("predicateType") != PREDICATE
        or type(predicate) is not dict
    ):
        raise CredentialRefused(
            f"{_WHAT}.predicateType",
            statement.get("predicateType"),
            f"{PREDICATE} in a {_STATEMENT}",
        )
    if type(subjects) is not list or len(subjects) != 1 or type(subjects[0]) is not dict:
        raise CredentialRefused(f"{_WHAT}.subject", "none, or several", "exactly one workload")
    ends = min(
        _time(predicate, "expires_at"), _time(predicate, "attested_at") + settings.max_lifetime
    )
    if ends <= now - LEEWAY:
        raise CredentialRefused(f"{_WHAT}.expires_at", "past", "a time to come")
    return text_of(subjects[0], "name", _WHAT), predicate, ends


MAX_HOPS = 8  # as many as a workflow can allow
_VIA = "agent.via"


@value_class
class Broker:
    """One configured broker and its keys."""

    settings: BrokerSettings
    source: KeySource


@value_class
class Hops:
    """Proven hops. `via`: the brokers, nearest to the agent last; `expires_at`: when the first
    of the hops ends.
    """

    via: tuple[str, ...]
    expires_at: float
    settings: tuple[BrokerSettings, ...] = ()


def proven_hops(
    hops: tuple[Credential, ...],
    brokers: Mapping[str, Broker],
    *,
    agent: str,
    user: str | None,
    now: float,
) -> OutsideFlow[Hops]:
    """Prove how work came to an agent.

    Args:
        hops: the brokers' JWTs, nearest to the agent last; at least one.
        brokers: the configured brokers, by name.
        agent: the proven agent: its `sub`.
        user: the proven user's `sub`; None: there is no user.
        now: POSIX seconds.

    Raises:
        CredentialRefused, KeysUnavailable.
    """
    if len(hops) > MAX_HOPS:
        raise CredentialRefused(_VIA, f"{len(hops)} hops", f"at most {MAX_HOPS}")
    via = []
    before: Mapping[str, Any] = {}
    whose = user
    ends = float("inf")
    for place, hop in enumerate(hops):
        what = f"{_VIA}[{place}]"
        name = read(hop, what).unverified_claims.get("iss")
        broker = brokers.get(name) if type(name) is str else None
        if not broker:
            raise CredentialRefused(f"{what}.iss", name, "a configured broker")
        expected = ExpectedClaims(
            what, broker.settings.audience, name, max_lifetime=broker.settings.max_lifetime
        )
        claims = yield from verified(hop, broker.source, expected, now)
        if whose is None:
            whose = str(name)
        if claims["sub"] != whose:
            raise CredentialRefused(f"{what}.sub", claims["sub"], whose)
        act = claims.get("act")
        before = before or {"sub": name}
        if type(act) is not dict or act.keys() != {"sub", "act"} or act["act"] != before:
            raise CredentialRefused(
                f"{what}.act",
                "another chain",
                "who may act now, with exactly the hops before nested inside",
            )
        if before["sub"] != name:
            raise CredentialRefused(
                f"{what}.iss", name, f"{before['sub']}, to whom the hop before passed it"
            )
        via.append(name)
        before = act
        ends = min(ends, float(claims["exp"]))
    if before.get("sub") != agent:
        raise CredentialRefused(
            f"{_VIA}.act.sub", before.get("sub"), f"{agent}, which shows it"
        )
    return Hops(tuple(via), ends, tuple(brokers[name].settings for name in via))
