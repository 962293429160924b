"""The clauses of `who.for_user`: for whom, and how they signed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from itertools import combinations
from typing import Any

from agentgate.values.refusal import Reason
from agentgate.values.value_class import set_derived, value_class
from agentgate.workflow.clauses.clause import (
    Checks,
    Distinct,
    ListedClause,
    RecentClause,
    Scene,
    Sides,
    Situation,
    WorkflowClause,
    check_of,
    compiled,
)


class ForUser(
    WorkflowClause, path="who.for_user", field="user", scene="who.user", reason=Reason.USER
):
    """``for_user``: there is a user, proven unless the host vouches."""

    form = ""
    forms = (("who.user.id", "name"), ("who.user.proven", "yes"))
    heads = True
    expected = "a user"
    told = ("a user", "no user")

    def found(self, case: Situation) -> bool:
        user = case.run.header.user
        return user is not None and (
            user.identity == "proven" or bool(case.workflow.agent.in_process)
        )

    def shown(self, case: Situation) -> str:
        user = case.run.header.user
        return "none" if user is None else f"{user.id} ({user.identity.replace('_', ' ')})"

    def expected_under(self, workflow: Any) -> str:
        return "a user" if workflow.agent.in_process else "a user proven by a token"

    def sample(self, given: Scene) -> Scene:
        proven = given["who.agent.proven"]
        return {
            "who.user.id": "user",
            "who.user.tenant": given["tenant"],
            "who.user.proven": proven,
        }


class NoUser(ForUser):
    """Without ``for_user``: an autonomous workload, and no user."""

    bars = True
    expected = "no user: this workflow is for an autonomous workload"

    def found(self, case: Situation) -> bool:
        return case.run.header.user is not None

    def allows(self, value: Any) -> bool:
        return not value

    def expected_under(self, workflow: Any) -> str:
        return self.expected

    def sample(self, given: Scene) -> Scene:
        return {}


class SameTenant(WorkflowClause, path="who.for_user.same_tenant", field="user.tenant"):
    """``same_tenant: true``: of the run's tenant (a confused deputy that serves several)."""

    after = ForUser
    form = "name"
    quoted = True
    expected = "the tenant of the run"
    another = "a user of another tenant"
    absent = "another-tenant"
    loose = ("dropped", False)
    told = ("a user", another)

    def found(self, case: Situation) -> bool:
        return bool(self.looked_at(case) == case.run.header.tenant)

    def shown(self, case: Situation) -> object:
        return self.looked_at(case)


class Groups(ListedClause, path="who.for_user.groups", field="user.groups"):
    """``groups: [...]``: of one of these groups."""

    after = ForUser
    form = "names"
    quoted = False
    another = "a user of another group"
    loose = ("any", ())

    def allows(self, value: Any) -> bool:
        return not set(self.value).isdisjoint(value)

    def shown(self, case: Situation) -> str:
        return ", ".join(self.found(case)) or "none"

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        first, last = (frozenset(side.value) for side in (sides[0], sides[-1]))
        picked = [min(kind) for kind in (first & last, first - last, last - first) if kind]
        chosen = [
            list(groups) for n in range(len(picked) + 1) for groups in combinations(picked, n)
        ]
        for groups in chosen:
            yield Distinct(
                groups, {cls.scene: groups}, f"a user in {', '.join(groups) or 'no group'}"
            )

    def sample(self, given: Scene) -> Scene:
        return {self.scene: [self.value[0]]}


class _SignedIn(WorkflowClause):
    """How they signed in (RFC 9470). A credential that does not say it, or a host's word, is
    not enough.
    """

    @property
    def remedy(self) -> str:
        return f"a user who signs in again: {self.expected}"

    def sample(self, given: Scene) -> Scene:
        # a host's word says nothing of it
        return {**super().sample(given), "who.user.proven": True}


class Acr(
    _SignedIn,
    ListedClause,
    path="who.for_user.acr",
    field="user.acr",
    reason=Reason.AUTHENTICATION,
):
    """``acr: [...]``: in which way."""

    after = ForUser
    another = "a user who signed in otherwise"
    loose = ("anyhow", ())
    stranger = "otherwise"

    @property
    def expected(self) -> str:
        return f'acr_values="{" ".join(self.value)}"'  # as section 3 says it

    @property
    def data(self) -> Mapping[str, Any]:
        return {"acr_values": " ".join(self.value)}


class MaxAge(
    _SignedIn,
    RecentClause,
    path="who.for_user.max_age",
    field="user.auth_time",
    scene="who.user.signed_in_ago",
    reason=Reason.AUTHENTICATION,
):
    """``max_age: 15m``: how long ago; an issuer's clock may be ahead."""

    after = ForUser
    another = "a user who signed in too long ago"
    leeway = 5

    def found(self, case: Situation) -> float | None:
        at = self.looked_at(case)
        return None if at is None else case.around.now.timestamp() - at

    def shown(self, case: Situation) -> str:
        age = self.found(case)
        return "unknown" if age is None else f"{age:.0f} s ago"

    @property
    def expected(self) -> str:
        return f"max_age={self.value}"

    @property
    def data(self) -> Mapping[str, Any]:
        return {"max_age": self.value}


USER = (ForUser, SameTenant, Groups, Acr, MaxAge)
NO_USER = (check_of(NoUser(True, 0)),)


@value_class
class UserRule:
    """For whom. None as `Workflow.for_user`: an autonomous workload, no user.

    Attributes:
        acr: how they signed in, one of these (RFC 9470); empty: anyhow.
        max_age: at most so many seconds ago; None: ever.
        person, authentication: its clauses, compiled.
    """

    line: int
    groups: tuple[str, ...] = ()
    same_tenant: bool = False
    acr: tuple[str, ...] = ()
    max_age: int | None = None
    person: Checks = field(init=False, compare=False, repr=False)
    authentication: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        person = (check_of(ForUser(True, self.line)), *compiled(self, SameTenant, Groups))
        set_derived(self, person=person, authentication=compiled(self, Acr, MaxAge))
