"""The gate's methods for what it remembers of a person: they list it, and forget it, by their
own credential.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any

from agentgate.gate.holds.inbox import person_of
from agentgate.gate.holds.memory import RememberedCall, forget, recall
from agentgate.gate.holds.methods import HasCore
from agentgate.identity.credential import OIDCToken
from agentgate.shell.step import Step
from agentgate.values.request import User


def remembered(
    self: HasCore, tenant: str, *, for_: User | OIDCToken
) -> Generator[Step, Any, tuple[RememberedCall, ...]]:
    """What a person's own yeses let later runs of theirs use again, the oldest first.

    Args:
        self: the gate.
        tenant: exact tenant.
        for_: the person: their own token, or a `User` that the host vouches for.

    Raises:
        CredentialRefused: the token proves nobody, or somebody who is revoked. NameRefused,
            StoreUnavailable.
    """
    core, who = self._core, (yield from person_of(self._core, for_))
    found: list[RememberedCall] = yield from recall(core.history, core.keys, tenant, who.id)
    # without an issuer the id counts, as in an answer to a hold
    names = who.remembered_as if who.issuer else ()
    return tuple(
        [
            each
            for each in found
            if each.user == who.id
            and each.who[0] == who.tenant
            and names in {(), tuple(each.who)}
        ]
    )


def forget_own(
    self: HasCore, tenant: str, ids: Collection[str], *, by: User | OIDCToken
) -> Generator[Step, Any, int]:
    """End what is remembered of a person. What they were asked before is not remembered,
    either, whenever it is done.

    Args:
        self: the gate.
        tenant: exact tenant.
        ids: `RememberedCall.id` of each.
        by: the person, as in `remembered`.

    Returns:
        How much of it was theirs, and is forgotten.

    Raises:
        As `remembered`. AuditUnavailable: it is forgotten, and on no record.
    """
    places = {
        each.id: each.user
        for each in (yield from remembered(self, tenant, for_=by))
        if each.id in ids
    }
    count: int = 0
    if places:
        user = next(iter(places.values()))
        count = yield from forget(self._core.history, tenant, user, tuple(places), user)
    return count
