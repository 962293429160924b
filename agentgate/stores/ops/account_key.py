"""The key of a service account (`same_key_as_last_token`): recorded with its first token,
compared by each mint, and never forgotten.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from agentgate.stores._op import (
    MAX_AMOUNT,
    Op,
    checked_history,
    checked_number,
    checked_subject,
    history_of,
    one_of,
    prefix,
)

ChangeKind = Literal["ok", "lost", "other", "old"]


class ChangeReply(NamedTuple):
    """`ok`; or `lost`: the store has lost history; `other`: another key is on record; `old`: a
    statement from before that.
    """

    kind: ChangeKind
    history: str


def change_key(
    tenant: str, account: str, key: str, *, old: str = "", signed_ms: int = 0, history: str = ""
) -> Op[ChangeReply]:
    """Record an account's new key.

    Args:
        tenant: tenant of the account.
        account: the agent's id.
        key: RFC 7638 thumbprint of the new key.
        old: the key that signed for it; empty: a person did.
        signed_ms: when it signed; must be after its own record.
        history: what this process last saw of the tenant.
    """
    start = prefix(tenant)
    args = (
        checked_subject("key", key),
        checked_subject("old key", old) if old else "",
        checked_number("signed_ms", signed_ms, 0, MAX_AMOUNT),
        checked_history(history),
    )
    return Op(
        "change_key",
        lambda kind, seen: ChangeReply(one_of(ChangeKind)(kind), history_of(seen)),
        (f"{start}lastkey:{checked_subject('account', account)}", f"{start}history"),
        args,
        confirm=True,
    )
