"""Proven identity: the only place where a `User` or `Agent` becomes `proven`.

Rules: no constructor argument of a host leads here. `proven_agent` and `proven_user` are for
code that has verified a credential (OIDC token, JWT-SVID); `restore_agent` and `restore_user`
rebuild what a gate wrote into its own run header.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple
from datetime import datetime
from typing import Any, Generic, TypeVar

from agentgate.values.request import Agent, Boundary, Posture, User
from agentgate.values.value_class import names_of, set_derived, value_class

Who = TypeVar("Who")


@value_class
class Proven(Generic[Who]):
    """What a credential proved.

    Attributes:
        who: a `User` or an `Agent`.
        expires_at: POSIX seconds; nothing is proven from then on.
        once: what tells this credential, or this attempt of a job, from every other of the same
            subject (`jti`, a run and its attempt, a digest).
        key: thumbprint of the key or certificate that its holder proved to hold; empty: none.
        nonce: what the token was asked for with (`nonce`, OpenID Connect Core 2); empty:
            nothing.
    """

    who: Who
    expires_at: float
    once: str = ""
    key: str = ""
    nonce: str = ""


def proven_agent(agent: str, **proven: Any) -> Agent:
    """An agent whose credential the caller has verified. Every argument must come from that
    credential.
    """
    out = Agent(agent)
    set_derived(out, **proven, identity="proven")
    return out


def placed(
    agent: Agent, *, posture: Posture | None, boundary: Boundary | None, via: tuple[str, ...]
) -> Agent:
    """A proven agent with what was proven beside its credential. Only for an agent that
    `proven_agent` built.
    """
    set_derived(agent, posture=posture, boundary=boundary, via=via)
    return agent


def narrowed(agent: Agent, claims: Collection[str]) -> Agent:
    """A proven agent with only these of its claims. As `placed`."""
    set_derived(
        agent, claims={name: value for name, value in agent.claims.items() if name in claims}
    )
    return agent


def proven_user(user: str, *, tenant: str, groups: tuple[str, ...] = (), **proven: Any) -> User:
    """A user whose token the caller has verified, with what else of them it proves."""
    out = User(user, tenant=tenant, groups=groups)
    set_derived(out, **proven, identity="proven")
    return out


def user_json(user: User | None) -> dict[str, Any] | None:
    """A user as JSON for a run's header."""
    return {name: getattr(user, name) for name in names_of(User)} if user else None


def restore_user(kept: Mapping[str, Any] | None) -> User | None:
    """The user of a run header that a gate wrote."""
    if kept is None:
        return None
    groups = tuple(kept["groups"])
    user = User(kept["id"], tenant=kept["tenant"], groups=groups)
    set_derived(
        user, **_fields_of(User, kept) | {"groups": groups, "amr": tuple(kept.get("amr", ()))}
    )
    return user


def _fields_of(kind: type, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a header has: one of 0.1.0's start lacks some."""
    return {name: kept[name] for name in names_of(kind) if name in kept}


def agent_json(agent: Agent) -> dict[str, Any]:
    """An agent as JSON for a run's header."""
    posture = agent.posture
    boundary = agent.boundary
    return {
        **{name: getattr(agent, name) for name in names_of(Agent)},
        "posture": [posture.image_signed_by, posture.attested_at.isoformat()]
        if posture
        else None,
        "boundary": astuple(boundary) if boundary else None,
    }


def restore_agent(kept: Mapping[str, Any]) -> Agent:
    """The agent of a run header that a gate wrote."""
    posture = kept["posture"]
    boundary = kept["boundary"]
    out = Agent(kept["id"])
    read = {
        "claims": dict(kept["claims"]),
        "posture": Posture(posture[0], datetime.fromisoformat(posture[1])) if posture else None,
        "boundary": Boundary(*boundary) if boundary else None,
        "via": tuple(kept["via"]),
    }
    set_derived(out, **_fields_of(Agent, kept) | read)
    return out
