"""SPIFFE identities: a JWT-SVID, or an X.509-SVID that a proxy received in TLS.

Rules (SPIFFE JWT-SVID and X.509-SVID): the id belongs to a configured trust domain and is
proven by that domain's bundle, which is a file and read again. A certificate counts only where
settings name the proxy's addresses and the form of its header, only from those addresses, and
only if it leads to the bundle's authorities by itself: the proxy's word alone proves nothing.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from agentgate.errors import CredentialRefused
from agentgate.identity.certificate import passed_on, thumbprint
from agentgate.identity.connection import inside, networks
from agentgate.identity.credential import JWTSVID, X509SVID
from agentgate.identity.keys import MIN_RSA, KeySource
from agentgate.identity.proven import Proven, proven_agent
from agentgate.identity.settings import ProxySettings, TrustDomainSettings
from agentgate.identity.signed import (
    ExpectedClaims,
    check_own,
    proven_key,
    shown_key,
    text_of,
    verified,
)
from agentgate.shell.step import OutsideFlow
from agentgate.values.request import Agent
from agentgate.values.value_class import value_class

# SPIFFE-ID 2: trust domain, path
_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_TYPES = frozenset({"", "jwt", "jose"})  # JWT-SVID 2
_CHAIN = 8  # certificates that a header may hold


def trust_domain(spiffe: str) -> str:
    """The trust domain of a SPIFFE id; empty: it is none, or one without a path."""
    found = _ID.fullmatch(spiffe)
    return (
        ""
        if not found or {".", ".."} & set(found[2].split("/")) or len(spiffe) > 2048
        else found[1]
    )


class Chain(NamedTuple):
    """The certificates that a proxy passed on: nothing is proven of them yet but that they came
    from the proxy.
    """

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...]
    spiffe: str


def chain_of(credential: X509SVID, proxies: ProxySettings | None) -> Chain:
    """The certificates in a proxy's header, and the one SPIFFE id of the first (X.509-SVID 2).

    Raises:
        CredentialRefused: no proxy is configured to pass any on, this is none of them, or the
            header holds something else.
    """
    what = "agent.x509"
    connection = credential.connection
    if not proxies or proxies.certificate is None:
        raise CredentialRefused(
            what,
            "a certificate in a header",
            "no such header (identity.proxies.certificate is not set)",
        )
    if not inside(connection.peer, networks(proxies.addresses)):
        raise CredentialRefused(
            f"{what}.peer", connection.peer, f"one of {', '.join(proxies.addresses)}"
        )
    pems = passed_on(connection.certificate, proxies.certificate)
    if not 0 < len(pems) <= _CHAIN:
        raise CredentialRefused(
            what, f"{len(pems)} certificates", f"1 to {_CHAIN}, of one client"
        )
    try:
        leaf, *others = dict.fromkeys(
            x509.load_pem_x509_certificate(pem.encode()) for pem in pems
        )
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CredentialRefused(
            what, type(error).__name__, "a certificate with a SPIFFE id"
        ) from None
    if len(names) != 1:
        raise CredentialRefused(what, f"{len(names)} URIs", "exactly one SPIFFE id")
    return Chain(leaf, tuple(others), names[0])


@value_class
class TrustDomain:
    """One configured trust domain and its bundle."""

    name: str
    settings: TrustDomainSettings
    source: KeySource

    def jwt(self, credential: JWTSVID, tenant: str, now: float) -> OutsideFlow[Proven[Agent]]:
        """Prove an agent by its JWT-SVID. `tenant`: of the run; `now`: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        what = "agent.spiffe"
        settings = self.settings
        expected = ExpectedClaims(
            what,
            settings.audience,
            None,
            _TYPES,
            ("sub", "aud", "exp"),
            max_lifetime=settings.max_lifetime,
        )
        claims = yield from verified(credential, self.source, expected, now)
        check_own(claims, what)
        spiffe = text_of(claims, "sub", what)
        self._check(spiffe, tenant)
        key = proven_key(credential, claims, what, now)
        agent = proven_agent(
            spiffe, spiffe=spiffe, subject=spiffe, key=key if credential.proof else ""
        )
        return Proven(agent, float(claims["exp"]), str(claims.get("jti", "")), key)

    def x509(
        self, credential: X509SVID, chain: Chain, tenant: str, now: float
    ) -> OutsideFlow[Proven[Agent]]:
        """Prove an agent by the certificate that its proxy passed on (`chain`: its `chain_of`).
        Raises as `jwt`.
        """
        roots = (yield from self.source.held()).roots
        try:
            store = Store(
                [
                    x509.load_der_x509_certificate(base64.b64decode(root, validate=True))
                    for root in roots
                ]
            )
            verifier = (
                PolicyBuilder()
                .store(store)
                .time(datetime.fromtimestamp(now, UTC))
                .build_client_verifier()
            )
            path = verifier.verify(chain.leaf, list(chain.others)).chain
            signs = chain.leaf.extensions.get_extension_for_class(
                x509.KeyUsage
            ).value.digital_signature
        except (VerificationError, ValueError, x509.ExtensionNotFound) as error:
            raise CredentialRefused(
                "agent.x509",
                str(error) or type(error).__name__,
                f"a certificate under {self.name}",
            ) from None
        if not signs:  # X509-SVID 4.3
            raise CredentialRefused(
                "agent.x509.key_usage", "none to sign with", "digitalSignature"
            )
        sizes = [
            public.key_size
            for each in path
            if isinstance(public := each.public_key(), RSAPublicKey)
        ]
        bits = min(sizes, default=MIN_RSA)
        if bits < MIN_RSA:
            raise CredentialRefused(
                "agent.x509.key", f"RSA of {bits} bits", f"at least {MIN_RSA} bits"
            )
        self._check(chain.spiffe, tenant)
        thumb = thumbprint(chain.leaf)
        if credential.thumbprint not in {None, thumb}:
            raise CredentialRefused(
                "agent.x509.thumbprint", thumb, "the certificate that was named"
            )
        key = shown_key(credential, None, "agent.x509", now)
        agent = proven_agent(chain.spiffe, spiffe=chain.spiffe, subject=chain.spiffe, key=key)
        # an authority may end first, and what it signed with it
        ends = min(each.not_valid_after_utc for each in path)
        return Proven(agent, ends.timestamp(), thumb, key or thumb)

    def _check(self, spiffe: str, tenant: str) -> None:
        if trust_domain(spiffe) != self.name:
            raise CredentialRefused(
                "agent.spiffe.sub", spiffe, f"an id of spiffe://{self.name}/"
            )
        if tenant not in self.settings.tenants:
            expected = f"a trust domain of {', '.join(self.settings.tenants)}"
            raise CredentialRefused(
                "agent.spiffe.sub", f"spiffe://{self.name} for tenant {tenant}", expected
            )
