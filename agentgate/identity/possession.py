"""Who shows a credential holds its key: a DPoP proof (RFC 9449) or the certificate of the TLS
connection (RFC 8705).

Rules: a credential that names a key (`cnf`) proves nothing without that key: a stolen one is
worth nothing. One that names none may be shown with a proof of any key, which is then the key
of this agent. An unknown way of confirmation is refused, never passed over.
"""

from __future__ import annotations

from agentgate.errors import CredentialRefused, TokenRefused
from agentgate.identity.credential import AgentCredential
from agentgate.identity.signed import SignedClaims
from agentgate.token.dpop import check_proof, token_hash

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
