"""For whom an agent runs: what the host's `identify` says of the runtime context, and what
tells one answer from every other.

Rules: a run goes on for the tenant, user and agent it was opened for, and nobody else;
`Run.continue_for` says who that is. What somebody showed is the same only if all of it is: a
credential without the proof of its key is another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from agentgate.identity.credential import AgentCredential, OIDCToken
from agentgate.values.request import Agent, Header, User

Identity = tuple[str, User | OIDCToken | None, Agent | AgentCredential]
Shown = tuple[str, User | str | None, Agent | str]


def identity_of(identify: Callable[[Any], Any], context: Any) -> Identity | str:
    """Tenant, user and agent of a runtime context; or why nobody is proven."""
    try:
        given = identify(context)
    except Exception as error:  # noqa: BLE001 - the host's function failed (no context on resume, say): no identity is proven
        return f"identify raised {type(error).__name__}: nobody is proven, so no tool runs"
    match given:
        case [tenant, User() | OIDCToken() | None as user, agent] if type(
            tenant
        ) is str and isinstance(agent, Agent | AgentCredential):
            return tenant, user, agent
    got = ", ".join(
        type(each).__name__ for each in (given if isinstance(given, tuple | list) else (given,))
    )
    return (
        f"got {got}; identify must return (tenant text, User or OIDCToken or None, Agent "
        "or a credential of one)"
    )


def shown(identity: Identity) -> Shown:
    """An identity as it can be kept: values of this process as they are, of credentials a
    digest of all that came with them.
    """
    tenant, user, agent = identity
    return (
        tenant,
        _digest(user) if isinstance(user, AgentCredential) else user,
        _digest(agent) if isinstance(agent, AgentCredential) else agent,
    )


def _digest(credential: AgentCredential) -> str:
    proof = credential.proof
    attested = credential.attestation
    parts = (
        type(credential).__name__,
        credential.reveal(),
        (proof.header, proof.method, proof.url, proof.nonce) if proof else None,
        credential.at_token_endpoint,
        credential.certificate,
        attested.reveal() if attested else None,
        [hop.reveal() for hop in credential.delegation],
        getattr(credential, "thumbprint", None),
        getattr(getattr(credential, "connection", None), "peer", None),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def is_theirs(header: Header, identity: Identity) -> bool:
    """Whether a run is this tenant's and user's, as far as it can be told without proving a
    credential.
    """
    tenant, user, _ = identity
    if tenant != header.tenant:
        return False
    if isinstance(user, AgentCredential) or not user or not header.user:
        return (user is None) == (header.user is None)
    return _person(user) == _person(header.user)


def _person(user: User) -> tuple[str, ...]:
    return user.id, user.tenant, user.issuer, user.subject
