"""The holds that one person is asked about: what a page may show them.

Rules: who may not answer a hold learns nothing of it, not even its id. Whether they may is what
an answer is judged by (`agentgate.decision.hold.check_answer`): the rules that asked as they
decide now, the run's user and agent. A hold whose run is over can no longer be judged so: then
only those see it whose yes stands in it. A question that somebody wrote into the store is none:
each has the seal of a gate with these keys.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from agentgate.decision.hold import Hold, check_answer
from agentgate.errors import CredentialRefused, StoreUnavailable
from agentgate.gate.core import Core, read
from agentgate.gate.holds.answer import every, many, rules_of, shown
from agentgate.gate.holds.codec import hold_of
from agentgate.gate.holds.proof import refusal
from agentgate.gate.holds.release import with_words
from agentgate.gate.proving import identities_of
from agentgate.identity.credential import OIDCToken
from agentgate.shell.step import Apart, Flow, alone
from agentgate.stores import ops
from agentgate.values.refusal import AnswerCode, AnswerRefused, RunRefused
from agentgate.values.request import RunState, User, name_of, person
from agentgate.workflow.model import Workflow

# holds of a page: that wait, that ended
PAGE = ops.WAITING
LATELY = 20
# that are looked at for one page, where many of them are nothing to this person
_MOST_LOOKED = 10 * PAGE


class Addressed(NamedTuple):
    """A hold that this person may answer, or answered.

    Attributes:
        risk: of its workflow, empty where that cannot be read any more.
        place: among those that wait (`order`).
    """

    hold: Hold
    risk: str
    place: str = ""


class WaitingPage(NamedTuple):
    """A page of what waits for a person, the earliest deadline first.

    Attributes:
        next: the place after which the next page begins; empty: this is the last.
        total: how many wait in all. Only those of this page are judged; the others wait for a
            group or user as this person is.
        before: how many of them come before this page.
        ended: what ended lately.
    """

    found: tuple[Addressed, ...]
    next: str
    total: int
    before: int
    ended: tuple[Addressed, ...]


def order(place: str) -> tuple[int, str]:
    """What places are sorted by."""
    at, _, hold_id = place.partition(".")
    return int(at or 0), hold_id


def addressed(core: Core, tenant: str, who: User, after: str = "") -> Flow:
    """What waits for this person in a tenant, from the place `after` on.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    judge = _Judge(core, tenant, who)
    whose = (name_of(f"user {person(who.id)}", who.issuer), who.groups, who.id)
    earlier: list[ops.HoldRecord] = yield from every(partial(ops.old_holds, tenant))
    old = [
        each._replace(place=f"{each.hold.expires_at * 1000:.0f}.{each.hold.id}")
        for each in (yield from judge.all(earlier))
    ]
    waits = [each for each in old if each.hold.state == "pending"]
    here = [each for each in waits if order(each.place) > order(after)]
    found: list[Addressed] = []
    first: ops.HoldList | None = None
    looked = 0
    next_ = after
    while first is None or (next_ and len(found) < PAGE and looked < _MOST_LOOKED):
        page: ops.HoldList = yield Apart(alone(ops.waiting_holds(tenant, *whose, next_)))
        first = first or page
        next_ = page.next
        looked = looked + len(page.records)
        found += [
            each
            for each in (yield from judge.all(page.records))
            if each.hold.state == "pending"
        ]
    total = first.total - looked + len(found) + len(waits)
    before = first.before + len(waits) - len(here)
    found += [each for each in here if not next_ or order(each.place) <= order(next_)]
    found.sort(key=lambda each: order(each.place))
    if len(found) > PAGE:
        found, next_ = found[:PAGE], found[PAGE - 1].place
    ended: ops.HoldList = yield Apart(alone(ops.ended_holds(tenant, *whose[1:])))
    over = {each.hold.id: each for each in (yield from judge.all(ended.records, LATELY))}
    over |= {each.hold.id: each for each in old if each.hold.state != "pending"}
    return WaitingPage(tuple(found), next_, total, before, ended=tuple(over.values()))


def person_of(core: Core, by: User | OIDCToken) -> Flow:
    """Whose holds are wanted: the user whom a token proves, or whom the host vouches for.

    Raises (through the driver):
        CredentialRefused: nobody is proven, or they are revoked. NameRefused, StoreUnavailable.
    """
    now = time.time()
    who: User = (
        by if isinstance(by, User) else (yield from identities_of(core).user(by, now)).who
    )
    if (yield ops.revoked(who.tenant, who.id, int(now * 1000))):
        raise CredentialRefused(
            "user", f"{who.id}, who is revoked", "a person who is not revoked"
        )
    return who


def waiting_for(core: Core, tenant: str, by: User | OIDCToken) -> Flow:
    """All holds that wait for this person, the earliest deadline first. Raises as
    `person_of`.
    """
    who: User = yield from person_of(core, by)
    page: WaitingPage = yield from addressed(core, tenant, who)
    found = [*page.found]
    while page.next:
        page = yield from addressed(core, tenant, who, page.next)
        found += page.found
    return tuple([each.hold for each in found])


def addressed_in(core: Core, tenant: str, who: User, run: str) -> Flow:
    """What waits for this person in one run, the earliest deadline first. Raises as
    `addressed`.
    """
    known = None
    found: list[Addressed] = []
    for hold in (yield from many(tenant, run, "pending")):
        known = known or (yield Apart(_run(core, hold)))
        if (risk := _risk(core, hold, who, known)) is not None:
            found.append(Addressed(hold, risk))
    return tuple(found)


class _Judge:
    """What of stored holds is for one person: each is judged by its run, which is read once."""

    def __init__(self, core: Core, tenant: str, who: User) -> None:
        self._core = core
        self._tenant = tenant
        self._who = who
        self._runs: dict[str, tuple[RunState, Workflow] | None] = {}

    def all(
        self, records: tuple[ops.HoldRecord, ...] | list[ops.HoldRecord], most: int = 0
    ) -> Flow:
        """Those that are, at most so many; a record that cannot be read hides no other."""
        found: list[Addressed] = []
        for record in records:
            try:
                hold = hold_of(record)
            except StoreUnavailable:
                continue
            # and no copy under another id
            own = (hold.tenant, hold.id) == (self._tenant, order(record.place)[1])
            if not own or not self._core.answerers.asked(hold):
                continue
            if hold.run not in self._runs:
                self._runs[hold.run] = yield Apart(_run(self._core, hold))
            known = self._runs[hold.run]
            if (risk := _risk(self._core, hold, self._who, known)) is not None:
                hold = replace(hold, state=hold.state_at(time.time()))
                hold = hold if known is None else with_words(self._core, hold, known[0])
                found.append(Addressed(hold, risk, record.place))
                if len(found) == most:
                    break
        return found


def addressed_one(core: Core, tenant: str, hold_id: str, who: User) -> Flow:
    """One hold, with the user's words, if `addressed` has it.

    Raises (through the driver):
        AnswerRefused: `MISSING`: this tenant has none of this id, or it is nothing to this
        person. StoreUnavailable.
    """
    hold: Hold = yield from shown(core, tenant, hold_id)
    risk = _risk(core, hold, who, (yield from _run(core, hold)))
    if risk is None:
        raise refusal(
            AnswerCode.MISSING,
            "hold",
            f"one that {who.id} may not answer",
            "a hold that they may answer, or said yes to",
        )
    return Addressed(hold, risk)


def _run(core: Core, hold: Hold) -> Flow:
    """The run and what decides in it; None: it is over."""
    try:
        state: RunState = yield from read(core, hold.tenant, hold.run)
        workflow = (yield from core.in_force.of(state.header)).minted
    except RunRefused:
        return None
    return state, workflow


def _risk(
    core: Core, hold: Hold, who: User, known: tuple[RunState, Workflow] | None
) -> str | None:
    """The workflow's risk; None: the hold is nothing to this person, or its question is none
    that a gate made.
    """
    if not core.answerers.asked(hold):
        return None
    if known is not None:
        state, workflow = known
        try:
            if not check_answer(
                rules_of(workflow, hold),
                who,
                state.header.user,
                state.header.agent,
                hold.tenant,
            ):
                return workflow.risk
        except AnswerRefused:  # the rules that asked are not those that ask now
            pass
    # what an earlier version wrote of a yes names no issuer
    yes = {
        (each.id, each.tenant, each.proof.get("issuer", who.issuer)) for each in hold.approvers
    }
    return "" if (who.id, who.tenant, who.issuer) in yes else None
