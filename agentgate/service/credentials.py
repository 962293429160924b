"""What a caller shows, unverified: which verifier looks at it, and nothing more."""

from __future__ import annotations

from typing import Any

from agentgate.identity.connection import Connection
from agentgate.identity.credential import JWTSVID, X509SVID, AgentCredential, Credential, OIDCToken
from agentgate.identity.settings import ProxySettings
from agentgate.identity.signed import read
from agentgate.identity.svid import chain_of
from agentgate.token.dpop import DPoP

X509_SVID = "https://agentgate.dev/token-type/x509-svid"  # whose text is the thumbprint of the certificate that the client shows in TLS


def agent_credential(text: str, **more: Any) -> AgentCredential:
    """An agent's credential by its form: a JWT whose subject is a SPIFFE id, or another JWT. `more`: as of `AgentCredential`.

    Raises:
        CredentialRefused: no JWT.
    """
    unverified_sub = read(Credential(text), "agent").unverified_claims.get("sub")
    kind = JWTSVID if type(unverified_sub) is str and unverified_sub.startswith("spiffe://") else OIDCToken
    return kind(text, **more)


def certificate(
    thumbprint: str, connection: Connection, *, proof: DPoP | None, attestation: str | None, delegation: tuple[str, ...]
) -> X509SVID:
    """The certificate that a proxy passed on, which must be the named one."""
    return X509SVID(connection, proof=proof, attestation=attestation, delegation=delegation, thumbprint=thumbprint)


def unverified_name(agent: AgentCredential, proxies: ProxySettings | None) -> object:
    """The issuer of an agent's credential, or its SPIFFE id: what a client may be known by, once it is proven.

    Raises:
        CredentialRefused: it has none.
    """
    if isinstance(agent, X509SVID):
        return chain_of(agent, proxies).spiffe
    unverified = read(agent, "agent").unverified_claims
    return unverified.get("sub") if isinstance(agent, JWTSVID) else unverified.get("iss")
