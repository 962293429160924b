"""What a caller shows, unverified: which verifier looks at it, and nothing more."""

from __future__ import annotations

from typing import Any

from agentgate.errors import CredentialRefused
from agentgate.identity.connection import Connection
from agentgate.identity.credential import (
    JWTSVID,
    X509_SVID,
    X509SVID,
    AgentCredential,
    Credential,
    OIDCToken,
)
from agentgate.identity.settings import ProxySettings
from agentgate.identity.signed import read
from agentgate.identity.svid import chain_of
from agentgate.token.dpop import DPoP
from agentgate.values.value_class import value_class

_TYPE = "urn:ietf:params:oauth:token-type:"


def user_credential(text: str, kind: str) -> OIDCToken:
    """A user's token. `kind`: its type, as the request names it.

    Raises:
        CredentialRefused: no JWT, or one of another type.
    """
    made = OIDCToken(text)
    _check_type(made, kind)
    return made


def _check_type(token: Credential, kind: str | None) -> None:
    """Refuse an access token that is shown as an ID token (RFC 9068 section 4), and the
    reverse; nothing else is believed of either yet.
    """
    form = read(token, "subject_token_type")
    typ = str(form.unverified_header.get("typ", "")).lower().removeprefix("application/")
    claims = form.unverified_claims
    if kind == f"{_TYPE}id_token" and typ == "at+jwt":
        raise CredentialRefused(
            "subject_token_type", kind, f"{_TYPE}access_token: its typ is {typ}"
        )
    if kind == f"{_TYPE}access_token" and (
        marks := claims.keys() & {"nonce", "at_hash", "c_hash", "s_hash"}
    ):
        raise CredentialRefused(
            "subject_token_type", kind, f"{_TYPE}id_token: it has {min(marks)}"
        )


def agent_credential(
    text: str, *, certificate: str = "", shown: str = "", **more: Any
) -> AgentCredential:
    """An agent's credential by its form: a JWT whose subject is a SPIFFE id, or another JWT.

    Args:
        text: the JWT.
        certificate: thumbprint of that by which its client was authenticated; empty: it was by
            other means.
        shown: thumbprint of that of the connection, which counts where the credential says to
            be bound to one; empty: none.
        more: as of `AgentCredential`.

    Raises:
        CredentialRefused: no JWT.
    """
    plain = Credential(text)
    unverified = read(plain, "agent").unverified_claims
    sub = unverified.get("sub")
    cnf = unverified.get("cnf")
    kind = JWTSVID if type(sub) is str and sub.startswith("spiffe://") else OIDCToken
    bound = type(cnf) is dict and "x5t#S256" in cnf
    made = kind(text, certificate=certificate or (shown if bound else ""), **more)
    made.unverified = plain.unverified
    return made


@value_class
class Shown:
    """What came with a request to the token endpoint, beside the form. `client`, `certificate`:
    as of `agent_credential`.
    """

    connection: Connection
    proof: DPoP | None
    client: str
    certificate: str

    def agent(
        self,
        text: str,
        kind: str | None,
        *,
        attestation: str | None = None,
        delegation: tuple[str, ...] = (),
    ) -> AgentCredential:
        """The agent's credential of this type, with all that belongs to it. Its `certificate`
        is what its tokens are bound to.

        Raises:
            CredentialRefused: no JWT.
        """
        more: dict[str, Any] = {
            "proof": self.proof,
            "attestation": attestation,
            "delegation": delegation,
        }
        if kind == X509_SVID:
            return X509SVID(self.connection, thumbprint=text, **more)
        made = agent_credential(
            text,
            certificate=self.client,
            shown=self.certificate,
            at_token_endpoint=True,
            **more,
        )
        _check_type(made, kind)
        return made


def unverified_name(agent: AgentCredential, proxies: ProxySettings | None) -> object:
    """The issuer of an agent's credential, or its SPIFFE id: what a client may be known by,
    once it is proven.

    Raises:
        CredentialRefused: it has none.
    """
    if isinstance(agent, X509SVID):
        return chain_of(agent, proxies).spiffe
    unverified = read(agent, "agent").unverified_claims
    return unverified.get("sub") if isinstance(agent, JWTSVID) else unverified.get("iss")
