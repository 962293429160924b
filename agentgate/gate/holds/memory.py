"""What a user's own yes lets later runs of theirs use again: read for a call that asks, written
with the release, listed, forgotten.

Rules: what is asked has one place in the memory of its user: the digest of who they are,
workflow, tool, and every argument that a yes can name. So values of two yeses have no place
together. What is kept there has a gate's seal; the store says whether it counts still: the call
was done, and nothing of it was forgotten, revoked or lost since (``scripts/_common.lua``). It
is read once, where a person would be asked otherwise, and the mint script looks at it again. In
a run whose user takes something back it does not count.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.explain.asking import shown_text
from agentgate.gate.core import Core
from agentgate.shell.step import Flow, Record
from agentgate.stores import ops
from agentgate.stores.history import History
from agentgate.token.keys import KeyRing
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.request import EarlierCall, RunState
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Tool
from agentgate.workflow.nested import flat
from agentgate.workflow.rule import CONFIRMED

Known = dict[str, EarlierCall | None]  # by place: what was read for one call


@value_class
class RememberedCall:
    """A call to which a user said yes, and whose values count for them again.

    Attributes:
        id: its place in their memory.
        who: the user's tenant, issuer (empty: the host's word) and subject.
        workflow: ``id@version`` under which they said yes.
        args: every value that the yes was about, as a person sees it.
        until: those of them that count, and until when (POSIX seconds).
        since: POSIX seconds.
    """

    id: str
    who: tuple[str, ...]
    workflow: str
    tool: str
    args: Mapping[str, str]
    until: Mapping[str, float]
    since: float


def add_memory(
    core: Core, case: Case, answer: Eligible | Deny, state: RunState, known: Known
) -> Flow:
    """The run with what is remembered of what a call asks; the run itself where nobody would be
    asked about that, or nothing is.

    Raises (through the driver):
        StoreUnavailable.
    """
    tool = case.tool
    traced = case.traced
    if (
        tool is None
        or traced is None
        or isinstance(answer, Deny)
        or not tool.remember.keys() & traced.unknown.keys()
    ):
        return state
    user = case.run.header.user
    place = _place(case)
    if (
        user is None
        or not user.remembered_as
        or core.readings.may_withdraw(case.workflow, state)
    ):
        return state
    if place not in known:
        tenant = state.header.tenant
        found: tuple[_Kept, ...] = yield from _recall(
            core.history, core.keys, tenant, user.id, (place,)
        )
        known[place] = _earlier(found[0], tool) if found else None
    return state if known[place] is None else replace(state, remembered=known[place])


def _earlier(kept: _Kept, tool: Tool) -> EarlierCall:
    """As the decision sees it: with those values that count still, by what was said then and by
    what the workflow says now.
    """
    since = kept.since
    said = kept.said
    now = time.time()
    spans = {
        name: min(span, tool.remember.get(name, 0)) for name, span in said["spans"].items()
    }
    return EarlierCall(
        id=f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d}",
        tool=said["tool"],
        args=said["args"],
        rows=(),
        named=False,
        redeemed_at=since,
        digest=kept.record.call,
        endorsed=frozenset(name for name, span in spans.items() if now < since + span),
    )


def memory_of(
    core: Core, case: Case, made: str, remembers: Mapping[str, int]
) -> ops.Memory | None:
    """What a mint has to do with what is remembered.

    Args:
        core: the gate.
        case: the call.
        made: its digest.
        remembers: what the release that it spends lets later runs use, and for how many
            seconds.
    """
    run = case.run
    rests_on = case.run.remembered
    user = run.header.user
    header = run.header
    place = _place(case)
    if user is None or (rests_on is None and not remembers):
        return None
    memory = ops.Memory(user.id, place, rests_on.digest if rests_on is not None else "")
    if not remembers:
        return memory
    tool = case.workflow.tools[case.call.tool]
    args = flat(tool, case.call.args)
    workflow = ops.workflow_subject(header.workflow, header.version)
    ends: Mapping[ops.RevokedKind, str] = {
        "tenant": "*",
        "user": user.id,
        "tool": tool.name,
        "workflow": workflow,
    }
    said = {
        "who": list(user.remembered_as),
        "workflow": workflow,
        "tool": tool.name,
        "args": {name: args[name] for name in _asked(case)},
        "spans": dict(remembers),
    }
    body = {
        "stops": [
            ops.revocation_name(header.tenant, kind, name) for kind, name in ends.items()
        ],
        "said": said,
    }
    sealed = canonical({**body, "seal": _seal(core.keys, header.tenant, place, made, body)})
    return memory._replace(body=sealed, span_ms=1000 * max(remembers.values()))


def _asked(case: Case) -> Mapping[str, list[str]]:
    """Each argument that a yes can name, with its type and elements, as they are compared."""
    return {
        name: [value.rule.type, *map(str, value.keys)]
        for name, value in case.values.items()
        if any(source.kind == CONFIRMED.kind for source in value.rule.sources)
    }


def _place(case: Case) -> str:
    user = case.run.header.user
    who = [] if user is None else list(user.remembered_as)
    return digest(canonical([who, case.workflow.id, case.call.tool, _asked(case)]))


def _seal(keys: KeyRing, tenant: str, place: str, made: str, body: Mapping[str, Any]) -> str:
    return keys.seal(tenant, canonical(["remembered", place, made, body]))


class _Kept(NamedTuple):
    """What the store has in one place, with what a gate said there."""

    record: ops.MemoryRecord
    said: Mapping[str, Any]

    @property
    def since(self) -> float:
        """POSIX seconds."""
        return self.record.at_ms / 1000


def _recall(
    history: History, keys: KeyRing | None, tenant: str, user: str, places: Collection[str]
) -> Flow:
    """What counts still; with `keys` only what has their seal. What cannot be read is not
    there.
    """
    sent = history.seen(tenant)
    got, records = yield ops.recall(tenant, user, places, history=sent)
    history.see(tenant, sent, got)
    found = []
    for record in records:
        try:
            body = parse(record.body)
            seal = body.pop("seal")
            if keys is None or hmac.compare_digest(
                _seal(keys, tenant, record.place, record.call, body), seal
            ):
                found.append(_Kept(record, body["said"]))
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(found)


def list_memory(history: History, keys: KeyRing | None, tenant: str, user: str) -> Flow:
    """What is remembered of whoever has this id, the oldest first.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    found: tuple[_Kept, ...] = yield from _recall(history, keys, tenant, user, ())
    return tuple(sorted([_told(each) for each in found], key=attrgetter("since", "id")))


def _told(kept: _Kept) -> RememberedCall:
    said = kept.said
    since = kept.since
    return RememberedCall(
        id=kept.record.place,
        who=tuple(said["who"]),
        workflow=said["workflow"],
        tool=said["tool"],
        args={name: shown_text(value) for name, value in said["args"].items()},
        until={name: since + span for name, span in said["spans"].items()},
        since=since,
    )


def forget_memory(
    history: History, tenant: str, user: str, places: Collection[str], by: str
) -> Flow:
    """End what is remembered in these places (without any, all), and whatever was asked before;
    returns how much it was.

    Raises (through the driver):
        NameRefused, StoreUnavailable. AuditUnavailable: it is forgotten.
    """
    sent = history.seen(tenant)
    got, count = yield ops.forget(tenant, user, places, history=sent)
    history.see(tenant, sent, got)
    more = {"tenant": tenant, "user": user, "by": by, "count": count, **history.note(got)}
    yield Record({"type": "forgotten", "time": round(time.time(), 6), **more})
    return count
