"""Names of people, agents, groups and tenants: the one form in which each is accepted, and how
two of them are compared.

Rules: a name is accepted exactly as given or refused, never repaired, so that no two names
differ only in what nobody sees: composed Unicode (NFC), no control, format or other invisible
character, no white space around it. Where equality grants something (a group, a tenant, the
user's own id as an origin), names are compared as they are: whoever may create the group
"Leads" is no member of "leads". Where equality refuses something (nobody answers for their own
call, each approver counts once), people and agents are compared by `person`, which ignores what
directories ignore: both directions fail closed. Pure.
"""

from __future__ import annotations

import unicodedata

from agentgate.errors import IdentityRefused
from agentgate.values.entities import normal
from agentgate.values.visible import UNSEEN

MAX_NAME = 512  # characters, as in a revocation
FORM = f"1 to {MAX_NAME} visible characters in composed form (NFC), with no white space at either end"


def is_name(value: object) -> bool:
    """Whether a value is a name in the accepted form."""
    if type(value) is not str or not 0 < len(value) <= MAX_NAME or value != value.strip():
        return False
    return (
        normal("text", value) is not None
        and not set("\n\t") & set(value)
        and UNSEEN.search(value) is None
    )


def checked_name(field: str, value: object) -> None:
    """Raise IdentityRefused for what is no name in the accepted form."""
    if not is_name(value):
        raise IdentityRefused(field, value, FORM)


def author(name: str) -> str:
    """What tells one author of a change from another: `person`, without the ``+tag`` of an
    address (RFC 5233).
    """
    local, at, host = person(name).rpartition("@")
    return f"{local.partition('+')[0] or local}{at}{host}"


def person(name: str) -> str:
    """What tells one person or agent from another: the id without case, compatibility forms and
    the sign of a user name.
    """
    return unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", name).casefold()
    ).removeprefix("@")


def name_of(name: str, issuer: str) -> str:
    """What tells a name from the same one of another issuer; without an issuer the name
    itself.
    """
    return f"{name}\n{issuer}" if issuer else name
