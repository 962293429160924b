"""Through whom work came to an agent: hops, each proven by the broker that signed it (nested
`act`, RFC 8693 section 4.1).

A broker that passes work on signs a JWT: `iss` is the broker, `sub` whose work it is, `aud` the
gate, `act` who may act now with everybody before nested inside. The hop of *scheduler* to
*api*, and that of *api* to *orchestrator*:

    iss scheduler   sub lee   act {sub: api,          act: {sub: scheduler}}
    iss api         sub lee   act {sub: orchestrator, act: {sub: api, act: {sub: scheduler}}}

Rules: no hop without its JWT; each continues exactly what the one before it says, for the same
`sub`, and the last names the agent that shows it. Whose work it is: the user, or where there is
none, the first broker itself. Which brokers and how many a workflow takes is its own word
(`via`, checked in `agentgate.decision.caller`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import CredentialRefused
from agentgate.identity.credential import Credential
from agentgate.identity.keys import KeySource
from agentgate.identity.settings import BrokerSettings
from agentgate.identity.signed import ExpectedClaims, read, verified
from agentgate.shell.step import OutsideFlow
from agentgate.values.value_class import value_class

MAX_HOPS = 8  # as many as a workflow can allow
_WHAT = "agent.via"


@value_class
class Broker:
    """One configured broker and its keys."""

    settings: BrokerSettings
    source: KeySource


@value_class
class Hops:
    """Proven hops. `via`: the brokers, nearest to the agent last; `expires_at`: when the first
    of the hops ends.
    """

    via: tuple[str, ...]
    expires_at: float
    settings: tuple[BrokerSettings, ...] = ()


def proven_hops(
    hops: tuple[Credential, ...],
    brokers: Mapping[str, Broker],
    *,
    agent: str,
    user: str | None,
    now: float,
) -> OutsideFlow[Hops]:
    """Prove how work came to an agent.

    Args:
        hops: the brokers' JWTs, nearest to the agent last; at least one.
        brokers: the configured brokers, by name.
        agent: the proven agent: its `sub`.
        user: the proven user's `sub`; None: there is no user.
        now: POSIX seconds.

    Raises:
        CredentialRefused, KeysUnavailable.
    """
    if len(hops) > MAX_HOPS:
        raise CredentialRefused(_WHAT, f"{len(hops)} hops", f"at most {MAX_HOPS}")
    via = []
    before: Mapping[str, Any] = {}
    whose = user
    ends = float("inf")
    for place, hop in enumerate(hops):
        what = f"{_WHAT}[{place}]"
        name = read(hop, what).unverified_claims.get("iss")
        broker = brokers.get(name) if type(name) is str else None
        if not broker:
            raise CredentialRefused(f"{what}.iss", name, "a configured broker")
        expected = ExpectedClaims(
            what, broker.settings.audience, name, max_lifetime=broker.settings.max_lifetime
        )
        claims = yield from verified(hop, broker.source, expected, now)
        if whose is None:
            whose = str(name)
        if claims["sub"] != whose:
            raise CredentialRefused(f"{what}.sub", claims["sub"], whose)
        act = claims.get("act")
        before = before or {"sub": name}
        if type(act) is not dict or act.keys() != {"sub", "act"} or act["act"] != before:
            raise CredentialRefused(
                f"{what}.act",
                "another chain",
                "who may act now, with exactly the hops before nested inside",
            )
        if before["sub"] != name:
            raise CredentialRefused(
                f"{what}.iss", name, f"{before['sub']}, to whom the hop before passed it"
            )
        via.append(name)
        before = act
        ends = min(ends, float(claims["exp"]))
    if before.get("sub") != agent:
        raise CredentialRefused(
            f"{_WHAT}.act.sub", before.get("sub"), f"{agent}, which shows it"
        )
    return Hops(tuple(via), ends, tuple(brokers[name].settings for name in via))
