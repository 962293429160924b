"""A client authenticates itself: `private_key_jwt` (RFC 7523 section 3, OpenID Connect Core
section 9) or mTLS (RFC 8705 section 2.2).

Rules: a client is one that the settings name; its keys or the thumbprints of its certificates
stand there. An assertion is its own (`iss` and `sub`), for this audience, lives an hour at
most, and has a `jti`: whoever accepts it remembers that until it ends: it counts once.
"""

from __future__ import annotations

import hmac

from agentgate.errors import CredentialRefused
from agentgate.identity.credential import Credential
from agentgate.identity.keys import KeySource
from agentgate.identity.settings import ClientSettings
from agentgate.identity.signed import ExpectedClaims, text_of, verified
from agentgate.identity.token_kind import check_own
from agentgate.shell.step import OutsideFlow
from agentgate.values.value_class import value_class

MAX_LIFETIME = 3600  # seconds of an assertion; what usual clients ask for at most
_TYPES = frozenset({"", "jwt", "client-authentication+jwt"})
_WHAT = "client"


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
                _WHAT, "an assertion", f"a certificate: {self.name} has no keys in the settings"
            )
        required = ("iss", "sub", "aud", "exp", "iat", "jti")
        expected = ExpectedClaims(
            _WHAT,
            self.settings.audience,
            self.name,
            _TYPES,
            required,
            max_lifetime=MAX_LIFETIME,
        )
        claims = yield from verified(credential, self.source, expected, now)
        check_own(claims, _WHAT)
        if text_of(claims, "sub", _WHAT) != self.name:
            raise CredentialRefused(f"{_WHAT}.sub", claims["sub"], self.name)
        return ProvenClient(
            self.name,
            self.settings.tenants,
            float(claims["exp"]),
            text_of(claims, "jti", _WHAT),
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
                f"{_WHAT}.certificate", thumbprint or "none", f"a certificate of {self.name}"
            )
        return ProvenClient(self.name, self.settings.tenants)
