"""Where credentials become proven identities: one object, made of the settings, that a gate
keeps.

Rules: which verifier looks at a credential is decided by its kind and by the names in the
settings; nothing that a credential says of itself counts before its signature. What a
credential proves ends with it, and with the first end of all that came along. Proving yields
what it waits for (`Outside`) and does no I/O itself.

A client authenticates itself by `private_key_jwt` (RFC 7523 section 3, OpenID Connect Core
section 9) or mTLS (RFC 8705 section 2.2). A client is one that the settings name; its keys or
the thumbprints of its certificates stand there. An assertion is its own (`iss` and `sub`), for
this audience, lives an hour at most, and has a `jti`: whoever accepts it remembers that until
it ends: it counts once.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any, Self

from agentgate.errors import CredentialRefused, Failure
from agentgate.identity.attestation import (
    Attested,
    Attestor,
    Broker,
    Hops,
    attested,
    proven_hops,
)
from agentgate.identity.connection import Connection, caller, networks
from agentgate.identity.credential import (
    JWTSVID,
    X509SVID,
    AgentCredential,
    Credential,
    OIDCToken,
)
from agentgate.identity.keys import KeySource
from agentgate.identity.oidc import Issuer
from agentgate.identity.proven import Proven, placed
from agentgate.identity.settings import ClientSettings, IdentityGiven, IdentitySettings
from agentgate.identity.signed import ExpectedClaims, check_own, read, text_of, verified
from agentgate.identity.svid import TrustDomain, chain_of, trust_domain
from agentgate.shell.step import OutsideFlow
from agentgate.values.refusal import Reason
from agentgate.values.request import Agent, Boundary, User
from agentgate.values.value_class import value_class

MAX_LIFETIME = 3600  # seconds of an assertion; what usual clients ask for at most
_ASSERTIONS = frozenset({"", "jwt", "client-authentication+jwt"})
_CLIENT = "client"


@value_class
class ProvenClient:
    """A client that authenticated itself.

    Attributes:
        id: its name in the settings.
        tenants: the only tenants it may act in.
        expires_at: POSIX seconds until which `jti` has to be remembered; 0 for a certificate.
        jti: id of the assertion; empty for a certificate.
    """

    id: str
    tenants: tuple[str, ...]
    expires_at: float = 0.0
    jti: str = ""


@value_class
class Client:
    """One configured client and its keys."""

    name: str
    settings: ClientSettings
    source: KeySource | None

    def assertion(self, credential: Credential, now: float) -> OutsideFlow[ProvenClient]:
        """Prove the client by a `private_key_jwt` assertion. `now`: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        if not self.source:
            raise CredentialRefused(
                _CLIENT,
                "an assertion",
                f"a certificate: {self.name} has no keys in the settings",
            )
        required = tuple("iss sub aud exp iat jti".split())
        expected = ExpectedClaims(
            _CLIENT,
            self.settings.audience,
            self.name,
            _ASSERTIONS,
            required,
            max_lifetime=MAX_LIFETIME,
        )
        claims = yield from verified(credential, self.source, expected, now)
        check_own(claims, _CLIENT)
        if text_of(claims, "sub", _CLIENT) != self.name:
            raise CredentialRefused(f"{_CLIENT}.sub", claims["sub"], self.name)
        return ProvenClient(
            self.name,
            self.settings.tenants,
            float(claims["exp"]),
            text_of(claims, "jti", _CLIENT),
        )

    def certificate(self, thumbprint: str) -> ProvenClient:
        """Prove the client by its certificate: SHA-256 thumbprint (base64url), by whoever ended
        the TLS connection.

        Raises:
            CredentialRefused: it is none of the client's.
        """
        known = [
            each
            for each in self.settings.certificates
            if hmac.compare_digest(each.encode(), thumbprint.encode())
        ]
        if not known:
            raise CredentialRefused(
                f"{_CLIENT}.certificate", thumbprint or "none", f"a certificate of {self.name}"
            )
        return ProvenClient(self.name, self.settings.tenants)


class Identities:
    """See the module."""

    __slots__ = (
        "_attestors",
        "_brokers",
        "_clients",
        "_domains",
        "_issuers",
        "_proxies",
        "_settings",
    )

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = s = settings
        self._issuers = {
            each.issuer: Issuer(each, _source(each)) for each in s.issuers.values()
        }
        self._domains = {
            name: TrustDomain(
                name, each, KeySource(each.bundle, private=each.private_addresses, spiffe=True)
            )
            for name, each in s.trust_domains.items()
        }
        self._attestors = tuple(Attestor(each, _source(each)) for each in s.attestors.values())
        self._brokers = {name: Broker(each, _source(each)) for name, each in s.brokers.items()}
        self._clients = {
            name: Client(name, each, None if each.keys is None else _source(each))
            for name, each in s.clients.items()
        }
        self._proxies = networks(s.proxies.addresses) if s.proxies else ()

    @classmethod
    def of(cls, given: IdentityGiven) -> Self:
        """From the settings of a gate. Raises ConfigError as `IdentitySettings.of`."""
        return cls(IdentitySettings.of(given))

    def become(self, other: Identities) -> None:
        """Prove by the settings of another; what is being proven meanwhile goes on by those
        that it began with.
        """
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def caller(self, connection: Connection | None) -> str | None:
        """The address that a call came from; None: unknown."""
        return caller(connection, self._proxies)

    def client(self, name: str) -> Client:
        """A configured client.

        Raises:
            CredentialRefused: there is none of this name.
        """
        found = self._clients.get(name)
        if not found:
            raise CredentialRefused("client", name, "a configured client")
        return found

    def user(self, credential: object, now: float) -> OutsideFlow[Proven[User]]:
        """Prove a user. `now`: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        if type(credential) is not OIDCToken:
            raise CredentialRefused.of(
                Failure(Reason.USER, "user", type(credential).__name__, "an OIDCToken")
            )
        if credential.attestation or credential.delegation:
            got = "an attestation or hops"
            expected = "those of the agent, with its own credential"
            raise CredentialRefused.of(Failure(Reason.USER, "user", got, expected))
        try:
            return (yield from self._issuer(credential, "user.oidc").user(credential, now))
        except CredentialRefused as error:
            raise error.restate(reason=Reason.USER) from None

    def agent(
        self, credential: object, tenant: str, user: User | None, now: float
    ) -> OutsideFlow[Proven[Agent]]:
        """Prove an agent, where it runs and through whom its work came.

        Args:
            credential: an `AgentCredential`.
            tenant: of the run.
            user: the run's user, proven already; None: none.
            now: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        if not isinstance(credential, OIDCToken | JWTSVID | X509SVID):
            raise CredentialRefused(
                "agent", type(credential).__name__, "an OIDCToken, JWTSVID or X509SVID"
            )
        found = yield from self._proven(credential, tenant, now)
        agent = found.who
        ends = found.expires_at
        statement = None
        via: tuple[str, ...] = ()
        if credential.attestation:
            try:
                statement = yield from attested(credential.attestation, self._attestors, now)
                _check_about(statement, agent, found.key)
                self._check_names(agent, statement.issuers, "agent.posture.sub")
            except CredentialRefused as error:
                raise error.restate(reason=Reason.POSTURE) from None
            ends = min(ends, statement.expires_at)
        if credential.delegation:
            try:
                hops = yield from self._hops(credential, agent, user, tenant, now)
            except CredentialRefused as error:
                raise error.restate(reason=Reason.HOPS) from None
            via = hops.via
            ends = min(ends, hops.expires_at)
        boundary = Boundary("", "", "", found.key) if found.key else None
        if statement:
            boundary = Boundary(
                statement.cluster, statement.namespace, statement.node_pool, found.key
            )
        who = placed(
            agent, posture=statement.posture if statement else None, boundary=boundary, via=via
        )
        return replace(found, who=who, expires_at=ends, once=found.once or _once(credential))

    def _hops(
        self,
        credential: AgentCredential,
        agent: Agent,
        user: User | None,
        tenant: str,
        now: float,
    ) -> OutsideFlow[Hops]:
        whose = None if not user else user.subject or user.id
        hops = yield from proven_hops(
            credential.delegation, self._brokers, agent=agent.subject, user=whose, now=now
        )
        for broker in hops.settings:
            for who in (agent, user):
                self._check_names(who, broker.issuers, "agent.via")
            if broker.tenants is not None and tenant not in broker.tenants:
                raise CredentialRefused(
                    "agent.via.tenant",
                    tenant,
                    f"one of the broker's: {', '.join(broker.tenants)}",
                )
        return hops

    def _check_names(
        self, who: Agent | User | None, named: tuple[str, ...] | None, what: str
    ) -> None:
        """Refuse a subject of another issuer: a `sub` is unique within its own alone (RFC 7519
        section 4.1.2), a SPIFFE id everywhere.
        """
        if not who or not who.issuer:
            return
        known = named
        if known is None:
            all_of_them = [each.settings for each in self._issuers.values()]
            known = tuple(
                s.issuer
                for s in all_of_them
                if (s.user if isinstance(who, User) else s.agent or s.shape != "oidc")
            )
        if who.issuer not in known or (named is None and len(known) > 1):
            expected = (
                "one that the setting issuers names, of the attestor or broker: "
                "several issuers have such subjects"
            )
            raise CredentialRefused(f"{what}.issuer", who.issuer, expected)

    def _proven(
        self, credential: OIDCToken | JWTSVID | X509SVID, tenant: str, now: float
    ) -> OutsideFlow[Proven[Agent]]:
        if isinstance(credential, OIDCToken):
            return (
                yield from self._issuer(credential, "agent.oidc").agent(credential, tenant, now)
            )
        if isinstance(credential, X509SVID):
            chain = chain_of(credential, self._settings.proxies)
            return (yield from self._domain(chain.spiffe).x509(credential, chain, tenant, now))
        spiffe = read(credential, "agent.spiffe").unverified_claims.get("sub")
        return (yield from self._domain(spiffe).jwt(credential, tenant, now))

    def _issuer(self, credential: Credential, what: str) -> Issuer:
        name = read(credential, what).unverified_claims.get("iss")
        found = self._issuers.get(name) if type(name) is str else None
        if not found:
            raise CredentialRefused(
                f"{what}.iss", name, "a configured issuer (identity.issuers)"
            )
        return found

    def _domain(self, spiffe: object) -> TrustDomain:
        found = self._domains.get(trust_domain(spiffe)) if type(spiffe) is str else None
        if not found:
            raise CredentialRefused(
                "agent.spiffe.sub",
                spiffe,
                "an id of a configured trust domain (identity.trust_domains)",
            )
        return found


def _once(credential: AgentCredential) -> str:
    """What tells a credential without `jti` from every other: all that was signed (a signature
    may have several forms).
    """
    signed = (
        credential.reveal()
        if isinstance(credential, X509SVID)
        else credential.reveal().rpartition(".")[0]
    )
    return hashlib.sha256(signed.encode()).hexdigest()


def _source(settings: Any) -> KeySource:
    return KeySource(settings.keys, private=settings.private_addresses)


def _check_about(statement: Attested, agent: Agent, key: str) -> None:
    """Raise CredentialRefused for a statement about another workload, or about one with another
    key.
    """
    if statement.workload != agent.subject:
        raise CredentialRefused(
            "agent.posture.sub", statement.workload, f"{agent.subject}, which shows it"
        )
    if statement.key and statement.key != key:
        raise CredentialRefused(
            "agent.posture.cnf", "another key", "the key that the agent proved"
        )
