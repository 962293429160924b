"""Credentials as a host hands them over: unverified, opaque, and shown nowhere.

Rules: a credential has no text form, no pickle, no attribute with its text; only `reveal`
returns it, and only verifiers call that. What belongs to a credential (proof of its key,
attestation, hops) comes with it.

The signature of a credential that comes back to its run (`returning`) need not be verified each
time: see `agentgate.identity.keys.Verifications`. That is for whoever knows the run to say;
what founds a run, renews it or counts once is verified whole, and not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from agentgate.errors import ConfigError
from agentgate.identity.connection import Connection
from agentgate.token.dpop import DPoP

MAX_CREDENTIAL = 16 * 1024  # characters
# whose text is the thumbprint of the certificate that the client shows in TLS
X509_SVID = "https://agentgate.dev/token-type/x509-svid"


class Credential:
    """See the module. Use one of its kinds."""

    __slots__ = ("_open", "keep", "known", "returning", "unverified")

    def __init__(self, text: str) -> None:
        """Hold the text of a credential.

        Raises:
            ConfigError: no text.
        """
        if type(text) is not str:
            raise ConfigError("credential", type(text).__name__, "text")
        self._open: Final[Callable[[], str]] = lambda: text
        # what `agentgate.identity.signed.read` found in it: it is read once
        self.unverified: Any = None
        # `known`: its signature was verified before, and not now
        self.returning = self.known = False
        self.keep: Callable[[], None] = lambda: None  # what was verified now, for the next time

    def reveal(self) -> str:
        """The text. Do not log, store or trace it."""
        return self._open()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> str:
        raise TypeError(f"a {type(self).__name__} is not copied or pickled")


class AgentCredential(Credential):
    """What an agent may bring along with its own credential.

    Args:
        text: the credential.
        proof: a DPoP proof of the agent's key, and the request it came with (RFC 9449).
        at_token_endpoint: the proof came with a token request, so it names no token (RFC 9449
            section 5).
        certificate: SHA-256 thumbprint (base64url) of the certificate that the client showed in
            TLS, by whoever ended that TLS (RFC 8705).
        attestation: a signed statement about the workload: a JWT, or a DSSE envelope as JSON.
        delegation: one JWT for each hop, signed by its broker, nearest to the agent last.
    """

    __slots__ = ("at_token_endpoint", "attestation", "certificate", "delegation", "proof")

    def __init__(
        self,
        text: str,
        *,
        proof: DPoP | None = None,
        at_token_endpoint: bool = False,
        certificate: str = "",
        attestation: str | None = None,
        delegation: Iterable[str] = (),
    ) -> None:
        super().__init__(text)
        self.proof = proof
        self.at_token_endpoint = at_token_endpoint
        self.certificate = certificate
        self.attestation = None if attestation is None else Credential(attestation)
        self.delegation = tuple(map(Credential, delegation))


class OIDCToken(AgentCredential):
    """An ID or access token (JWT) of a configured issuer: of a user, a service, a partner or a
    CI job.
    """

    __slots__ = ()


class JWTSVID(AgentCredential):
    """A SPIFFE JWT-SVID."""

    __slots__ = ()


class X509SVID(AgentCredential):
    """A SPIFFE X.509-SVID that a trusted proxy received in TLS and passed on in its header, on
    this connection.

    A proof of a key of its own counts at the token endpoint only: it names no token.
    `thumbprint`: the certificate must have this one, too.
    """

    __slots__ = ("connection", "thumbprint")

    def __init__(
        self,
        connection: Connection,
        *,
        proof: DPoP | None = None,
        attestation: str | None = None,
        delegation: Iterable[str] = (),
        thumbprint: str | None = None,
    ) -> None:
        super().__init__(
            connection.certificate,
            proof=proof,
            at_token_endpoint=True,
            certificate=thumbprint or "",
            attestation=attestation,
            delegation=delegation,
        )
        self.connection = connection
        self.thumbprint = thumbprint
