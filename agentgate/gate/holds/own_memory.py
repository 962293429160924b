"""The gate's methods for what it remembers of a person: they list it, and forget it, by their
own credential.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any

from agentgate.gate.core import Core
from agentgate.gate.holds.inbox import person_of
from agentgate.gate.holds.memory import RememberedCall, forget_memory, list_memory
from agentgate.gate.holds.methods import HasCore
from agentgate.identity.credential import OIDCToken
from agentgate.shell.step import Flow, Step
from agentgate.values.request import User


def list_own(core: Core, tenant: str, who: User) -> Flow:
    """What is remembered of this person, the oldest first. Raises NameRefused,
    StoreUnavailable.
    """
    found: tuple[RememberedCall, ...] = yield from list_memory(
        core.history, core.keys, tenant, who.id
    )
    return tuple([each for each in found if each.who == who.remembered_as])


def forget_own(core: Core, tenant: str, who: User, ids: Collection[str]) -> Flow:
    """End these of it; returns how much it was. Raises as `list_own`, and AuditUnavailable."""
    own = {each.id for each in (yield from list_own(core, tenant, who))}
    places = sorted(own & {*ids})
    return (
        (yield from forget_memory(core.history, tenant, who.id, places, who.id))
        if places
        else 0
    )


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
    who: User = yield from person_of(self._core, for_)
    found: tuple[RememberedCall, ...] = yield from list_own(self._core, tenant, who)
    return found


def forget(
    self: HasCore, tenant: str, ids: Collection[str], *, by: User | OIDCToken
) -> Generator[Step, Any, int]:
    """End what is remembered of a person. Also what they were asked before, and confirm or
    confirmed since, is not remembered.

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
    who: User = yield from person_of(self._core, by)
    count: int = yield from forget_own(self._core, tenant, who, ids)
    return count
