"""The form in which the store keeps a hold, and an answer to it that is to be told."""

from __future__ import annotations

from agentgate.decision.hold import Approver, Hold, as_dict, as_json, from_json
from agentgate.errors import StoreUnavailable
from agentgate.stores import ops
from agentgate.values.canonical import canonical, parse
from agentgate.values.value_class import Json

# fields of a hold that are stored as they are
_PLAIN = ("id", "tenant", "run", "tool", "tool_call_id")
_EVENT = ("by", "channel", "answer", "state")


def body_of(hold: Hold) -> bytes:
    """The stored form of a hold."""
    return canonical(
        {
            "v": 1,
            **{name: getattr(hold, name) for name in _PLAIN},
            "rules": list(hold.rules),
            "shown": dict(hold.shown),
            "why": list(hold.why),
            "expires_at": hold.expires_at,
            "question": as_json(hold.question.without_words),
            "seal": hold.seal,
            **_named(hold),
            "approvers": [_kept(a) for a in hold.approvers],
        }
    )


def _named(hold: Hold) -> Json:
    return {"conversation": hold.conversation} if hold.conversation else {}


def _kept(approver: Approver) -> Json:
    return {**as_dict(approver), "groups": list(approver.groups), "proof": dict(approver.proof)}


def hold_of(record: ops.HoldRecord) -> Hold:
    """The hold of a stored record.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        stored = parse(record.body)
        if stored["v"] != 1:
            raise StoreUnavailable(f"hold: got version {stored['v']!r}, expected 1")
        return Hold(
            **{name: stored[name] for name in _PLAIN},
            rules=tuple(stored["rules"]),
            shown=stored["shown"],
            why=tuple(stored["why"]),
            expires_at=float(stored["expires_at"]),
            state=record.state,
            approvers=tuple(
                Approver(**{**each, "groups": tuple(each["groups"])})
                for each in stored["approvers"]
            ),
            revision=record.revision,
            question=from_json(stored["question"]),
            seal=str(stored["seal"]),
            conversation=str(stored.get("conversation", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"hold: unreadable ({type(error).__name__})") from error


def told_of(hold: Hold) -> Json:
    """What people and hosts are told of a hold, as JSON values."""
    told: Json = {name: getattr(hold, name) for name in ("tenant", "run", "tool", "state")}
    return (
        told
        | _named(hold)
        | {
            "hold": hold.id,
            "until": hold.expires_at,
            "text": str(hold.question),
            "question": as_json(hold.question),
        }
    )


def event_of(by: str, channel: str, answer: str, state: str) -> bytes:
    """What is told of an answer: who gave it, how, what they said, and the state after it."""
    return canonical(dict(zip(_EVENT, (by, channel, answer, state), strict=True)))


def event_from(stored: bytes) -> dict[str, str]:
    """The event that `event_of` wrote.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        found = parse(stored)
        return {name: str(found[name]) for name in _EVENT}
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(
            f"hold: an event that cannot be read ({type(error).__name__})"
        ) from error
