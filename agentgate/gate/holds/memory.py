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
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.explain.asking import shown_text
from agentgate.gate.core import Core
from agentgate.shell.step import Flow, Record, date_event
from agentgate.stores import ops
from agentgate.stores._op import History
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.request import EarlierCall, RunState, User
from agentgate.values.value_class import Json, Values, value_class
from agentgate.workflow.model import flat
from agentgate.workflow.rule import CONFIRMED

Recalled = dict[str, EarlierCall | None]  # what was read for one call, by place


@value_class
class RememberedCall:
    """A call to which a user said yes, and whose values count for them again.

    Attributes:
        id: its place in their memory.
        call: its digest.
        who: the user's tenant, issuer (empty: the host's word) and subject; `user`: their id.
        workflow: ``id@version`` under which they said yes.
        args: every value that the yes was about.
        spans: those of them that count, and for how many seconds.
        since: POSIX seconds.
    """

    id: str
    call: str
    since: float
    user: str
    who: list[str]
    workflow: str
    tool: str
    args: Values
    spans: Mapping[str, int]

    def is_of(self, who: User) -> bool:
        """Whether it is this person's, whatever their issuer calls them today; without an issuer
        their id counts, as in an answer to a hold.
        """
        if who.issuer:
            return tuple(self.who) == who.remembered_as
        return (self.who[0], self.user) == (who.tenant, who.id)

    @property
    def told(self) -> Json:
        """As a person or program is told of it: with values as they are shown, and until when
        each counts (POSIX seconds).
        """
        return {
            "id": self.id,
            "user": self.user,
            "workflow": self.workflow,
            "tool": self.tool,
            "since": self.since,
            "args": {name: shown_text(value) for name, value in self.args.items()},
            "until": {name: self.since + span for name, span in self.spans.items()},
        }


def add_memory(
    core: Core, case: Case, answer: Eligible | Deny, state: RunState, known: Recalled
) -> Flow:
    """The run with what is remembered of what a call asks; the run itself where nobody would be
    asked about that, or nothing is.

    Raises (through the driver):
        StoreUnavailable.
    """
    tool = case.tool
    traced = case.traced
    user = state.header.user
    if (
        tool is None
        or traced is None
        or isinstance(answer, Deny)
        or not tool.remember.keys() & traced.unknown.keys()
    ):
        return state
    if user is None or core.readings.may_withdraw(case.workflow, state):
        return state
    if (place := _place(case, user)) not in known:
        found: list[RememberedCall] = yield from recall_memory(
            core.history, core.keys, state.header.tenant, user.id, (place,)
        )
        known[place] = _earlier(found[0], tool.remember) if found else None
    return state if known[place] is None else replace(state, remembered=known[place])


def _earlier(yes: RememberedCall, remember: Mapping[str, int]) -> EarlierCall:
    """As the decision sees it, with those values that count still: by what was said then, and
    by what the workflow says now.
    """
    age = time.time() - yes.since
    spans = yes.spans
    return EarlierCall(
        id=datetime.fromtimestamp(yes.since, UTC).date().isoformat(),
        tool=yes.tool,
        args=yes.args,
        rows=(),
        named=False,
        redeemed_at=yes.since,
        digest=yes.call,
        endorsed=frozenset(
            name for name in spans if age < min(spans[name], remember.get(name, 0))
        ),
    )


def memory_of(
    core: Core, case: Case, made: str, remembers: Mapping[str, int]
) -> ops.Memory | None:
    """What a mint has to do with what is remembered.

    `made`: the call's digest; `remembers`: what the release that it spends lets later runs use,
    and for how many seconds.
    """
    header = case.run.header
    rests_on = case.run.remembered
    call = case.call
    user = header.user
    if user is None:
        return None
    place = _place(case, user)
    tenant = header.tenant
    memory = ops.Memory(user.id, place, rests_on.digest if rests_on is not None else "")
    if not remembers:
        return memory
    args = flat(case.workflow.tools[call.tool], call.args)
    workflow = ops.workflow_subject(header.workflow, header.version)
    body = {
        "stops": ops.revocations_of_memory(
            tenant, ops.Subjects(header.agent.id, user.id, call.tool, workflow), header.id
        ),
        "said": {
            "since": round(time.time(), 3),
            "user": user.id,
            "who": list(user.remembered_as),
            "workflow": workflow,
            "tool": call.tool,
            "args": {name: args[name] for name in _asked(case)},
            "spans": dict(remembers),
        },
    }
    sealed = canonical({**body, "seal": _seal(core.keys, tenant, place, made, body)})
    return memory._replace(body=sealed, span_ms=1000 * max(remembers.values()))


def _asked(case: Case) -> Mapping[str, list[str]]:
    """Each argument that a yes can name, with its type and elements, as they are compared: in
    any order.
    """
    values = {
        name: value
        for name, value in case.values.items()
        if any(s.kind == CONFIRMED.kind for s in value.rule.sources)
    }
    return {
        name: [value.rule.type, *sorted({str(key) for key in value.keys})]
        for name, value in values.items()
    }


def _place(case: Case, user: User) -> str:
    return digest(
        canonical([list(user.remembered_as), case.workflow.id, case.call.tool, _asked(case)])
    )


def _seal(keys: KeyRing, tenant: str, *what: Any) -> str:
    return keys.seal(tenant, canonical(["remembered", *what]))


def recall_memory(
    history: History, keys: KeyRing | None, tenant: str, user: str, places: Collection[str] = ()
) -> Flow:
    """What counts still in these places of a user's memory (without any, all), the oldest
    first.

    With `keys` only what has their seal. What cannot be read is not there.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    sent = history.seen(tenant)
    got, records = yield ops.recall_memory(tenant, user, places, history=sent)
    history.see(tenant, sent, got)
    found = []
    for place, made, since, text in records:
        try:
            body = parse(text)
            seal = body.pop("seal")
            if keys is None or hmac.compare_digest(
                _seal(keys, tenant, place, made, body), seal
            ):
                said = body["said"]
                said["since"] = min(since, said["since"])  # only what is sealed makes it young
                call = RememberedCall(id=place, call=made, **said)
                if _is_readable(call):
                    found.append(call)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=attrgetter("since", "id"))


def _is_readable(call: RememberedCall) -> bool:
    """Whether it has the types of what a gate writes: who reads without its keys gets whatever
    lies there.
    """
    spans = call.spans
    return (
        all(type(each) is str for each in (call.user, call.workflow, call.tool, *call.who))
        and len(call.who) == len(("tenant", "issuer", "subject"))
        and set() < spans.keys() <= call.args.keys()
        and all(type(span) is int for span in spans.values())
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
    got, count = yield ops.forget_memory(tenant, user, places, history=sent)
    history.see(tenant, sent, got)
    said = {"tenant": tenant, "user": user, "by": by, "count": count}
    yield Record(date_event("forgotten", **said, **history.note(got)))
    return count
