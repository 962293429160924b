"""What a caller shows, unverified: which verifier looks at it, and nothing more."""

from __future__ import annotations

from typing import Any

from agentgate.identity.credential import JWTSVID, AgentCredential, Credential, OIDCToken
from agentgate.identity.signed import read


def agent_credential(text: str, **more: Any) -> AgentCredential:
    """An agent's credential by its form: a JWT whose subject is a SPIFFE id, or another JWT. `more`: as of `AgentCredential`.

    Raises:
        CredentialRefused: no JWT.
    """
    unverified_sub = read(Credential(text), "agent").unverified_claims.get("sub")
    kind = JWTSVID if type(unverified_sub) is str and unverified_sub.startswith("spiffe://") else OIDCToken
    return kind(text, **more)
