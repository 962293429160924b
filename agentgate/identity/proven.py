"""Proven identity: the only place where a `User` or `Agent` becomes `proven`.

Rules: no constructor argument of a host leads here. `proven_agent` and `proven_user` are for code that has verified a credential (OIDC
token, JWT-SVID); `restore_agent` and `restore_user` rebuild what a gate wrote into its own run header.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agentgate.values.request import Agent, Boundary, Posture, User

__all__ = ["agent_json", "proven_agent", "proven_user", "restore_agent", "restore_user", "user_json"]


def _set(value: object, **fields: object) -> None:
    for name, item in fields.items():
        object.__setattr__(value, name, item)


def proven_agent(
    agent: str,
    *,
    spiffe: str = "",
    issuer: str = "",
    claims: Mapping[str, str] | None = None,
    posture: Posture | None = None,
    boundary: Boundary | None = None,
    via: tuple[str, ...] = (),
) -> Agent:
    """An agent whose credential the caller has verified. Every argument must come from that credential."""
    out = Agent(agent)
    _set(out, spiffe=spiffe, issuer=issuer, claims=dict(claims or {}), posture=posture, boundary=boundary, via=via, identity="proven")
    return out


def proven_user(user: str, *, tenant: str, groups: tuple[str, ...] = ()) -> User:
    """A user whose token the caller has verified."""
    out = User(user, tenant=tenant, groups=groups)
    _set(out, identity="proven")
    return out


def user_json(user: User | None) -> dict[str, Any] | None:
    """A user as JSON for a run's header."""
    if user is None:
        return None
    return {"id": user.id, "tenant": user.tenant, "groups": list(user.groups), "identity": user.identity}


def restore_user(kept: Mapping[str, Any] | None) -> User | None:
    """The user of a run header that a gate wrote."""
    if kept is None:
        return None
    user = User(kept["id"], tenant=kept["tenant"], groups=tuple(kept["groups"]))
    _set(user, identity=kept["identity"])
    return user


def agent_json(agent: Agent) -> dict[str, Any]:
    """An agent as JSON for a run's header."""
    posture, boundary = agent.posture, agent.boundary
    return {
        "id": agent.id,
        "spiffe": agent.spiffe,
        "issuer": agent.issuer,
        "claims": dict(agent.claims),
        "posture": None if posture is None else [posture.image_signed_by, posture.attested_at.isoformat()],
        "boundary": None if boundary is None else [boundary.cluster, boundary.namespace, boundary.node_pool, boundary.key],
        "via": list(agent.via),
        "identity": agent.identity,
    }


def restore_agent(kept: Mapping[str, Any]) -> Agent:
    """The agent of a run header that a gate wrote."""
    posture, boundary = kept["posture"], kept["boundary"]
    out = Agent(kept["id"])
    _set(
        out,
        spiffe=kept["spiffe"],
        issuer=kept["issuer"],
        claims=dict(kept["claims"]),
        posture=None if posture is None else Posture(posture[0], datetime.fromisoformat(posture[1])),
        boundary=None if boundary is None else Boundary(*boundary),
        via=tuple(kept["via"]),
        identity=kept["identity"],
    )
    return out
