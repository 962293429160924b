"""A run's handle: what a host authorises calls with. Thin shells over `agentgate.gate.flow`;
the run itself is in the store.

Rules: a handle keeps the state it last saw, which is good enough to allow and for nothing else;
only tools that say `redeem: wrapper` are redeemed here.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agentgate.audit import AuditLog
from agentgate.decision.answer import Deny, StepUp
from agentgate.decision.hold import Hold
from agentgate.errors import CanonicalError, Overloaded, StoreUnavailable
from agentgate.gate import call_steps, flow, turns
from agentgate.gate.conversation import is_over
from agentgate.gate.core import read_again
from agentgate.gate.explaining import explained
from agentgate.gate.holds import wait as waiting
from agentgate.gate.holds.answer import many
from agentgate.gate.holds.release import with_words
from agentgate.gate.locking import WAIT, bind_fence, wait_for_lock
from agentgate.gate.open_run import continue_for, renew
from agentgate.gate.revoking import void_token
from agentgate.gate.view import View
from agentgate.identity.credential import AgentCredential, OIDCToken
from agentgate.redemption.credential import Redemption
from agentgate.redemption.outcome import read_end
from agentgate.redemption.verifier import AsyncRedeemedCall, RedeemedCall, taken
from agentgate.shell.bound import Bound
from agentgate.shell.drive import adrive, arecording, awaited, blocking, busy, drive, recording
from agentgate.shell.step import Step
from agentgate.stores import ops
from agentgate.token.mint import new_jti
from agentgate.values.canonical import canonical, digest
from agentgate.values.refusal import Reason
from agentgate.values.request import (
    Agent,
    Args,
    CanonicalArguments,
    Derived,
    Header,
    RunState,
    Spoken,
    User,
)
from agentgate.values.value_class import Values
from agentgate.workflow.model import Workflow

if TYPE_CHECKING:
    from agentgate.explain.explanation import Explanation


class _RunBase:
    """What both handles offer."""

    def __init__(
        self, view: View, store: Any, audit: AuditLog, bound: Bound | None = None
    ) -> None:
        self._view = view
        self._store = store
        self._audit = audit
        self._bound = bound or Bound()
        self._redeemed: dict[str, Redemption | None] = {}

    @property
    def id(self) -> str:
        """The run's id."""
        return self.header.id

    @property
    def tenant(self) -> str:
        """The run's tenant."""
        return self.header.tenant

    @property
    def header(self) -> Header:
        """Whose run it is: tenant, user, agent and workflow version, as frozen when it was
        opened.
        """
        return self._view.header

    @property
    def state(self) -> RunState:
        """The run as this handle last saw it."""
        return self._view.state

    @property
    def conversation(self) -> str:
        """The host's id of the conversation; empty: it gave none."""
        return self.header.named_by_host

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, is about to, or is full: of a conversation, the user's
        next words open the one that follows.
        """
        return is_over(self.state)

    @property
    def intents(self) -> Mapping[str, Derived]:
        """What was derived from the user's turns, with the evidence."""
        return self.state.intents

    @property
    def workflow(self) -> Workflow:
        """The workflow in force; under two versions of it what both have."""
        return self._view.workflow

    def refusal(self, tool_call_id: str) -> Deny | StepUp | None:
        """Why this handle lately refused or held a call, with every failure; None if it did
        not. For the host, never for a model.
        """
        known = self._view.refused.get(tool_call_id)
        return None if known is None else known[1]

    def call_id(self, tool: str, args: Args) -> str:
        """The id of a call to which the runtime gave none: the same act in the same turn is the
        same call.

        So is a read that a person may be asked about, or its hold would never be found again;
        any other read is always a new one.
        """
        known = self._view.tool(tool)
        if known is None or (known.effect == "read" and not known.step_ups):
            return "call_" + new_jti()
        try:
            data = (
                args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")
            )
        except (CanonicalError, TypeError, ValueError):
            return "call_unreadable"  # it is refused
        turn = self.header.name_turn(len(self.state.turns))
        return "call_" + digest(canonical([tool, digest(data), turn]))[:32]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.header.workflow}>"


def _explain(
    self: _RunBase,
    tool: str = "",
    args: Values | None = None,
    *,
    tool_call_id: str | None = None,
    definition: str = "",
) -> Generator[Step, Any, Explanation]:
    """Why a call is allowed, held or refused: every condition, the origin of each value, what
    would pass. Decides and mints nothing.

    For developers and operators: an explanation teaches where the limits are, so nothing of it
    belongs in front of a model. Sensitive values are masked.

    Args:
        self: the handle.
        tool: exact tool name; with `args`, a call to look at.
        args: its arguments; left out: those of the call that was refused or held under
            `tool_call_id` by this handle.
        tool_call_id: the runtime's id.
        definition: as for `authorize`.

    Raises:
        ConfigError: no such call is known here. RunRefused: the run is gone. StoreUnavailable.
    """
    from agentgate.explain import explanation  # noqa: PLC0415 - no call that is authorised or redeemed needs it

    made = (
        None
        if args is None
        else flow.checked_call(tool, args, tool_call_id or "explained", definition)
    )
    # so that the import is over before the deadline runs
    return explained(self._view, tool, made, tool_call_id, explanation)


def _add_turn(
    self: _RunBase, text: Spoken, *, agent_said: str = ""
) -> Generator[Step, Any, None]:
    """Add the user's next words, or their parts; what takes something back withdraws its
    intent.

    `agent_said`: the agent's words that they answer ("yes"): whoever is asked about a call sees
    them; they grant nothing.

    Raises:
        RunRefused: the run is missing or closed. StoreUnavailable, AuditUnavailable: not added.
    """
    checked = turns.checked_turn(text)
    self._view.seen = yield from turns.add(
        self._view.core, self.state, checked, turns.stored_turn(checked, agent_said)
    )


def _add_doubt(self: _RunBase, words: str) -> Generator[Step, Any, None]:
    """Add words that may be the user's: they grant nothing and void nothing, and what they
    would take back is unclear from now on.

    Raises:
        RunRefused: the run is missing or closed. StoreUnavailable, AuditUnavailable: not added.
    """
    self._view.seen = yield from turns.add_doubt(self._view.core, self.state, words)


def _continue_for(
    self: _RunBase,
    *,
    tenant: str,
    user: User | OIDCToken | None,
    agent: Agent | AgentCredential,
) -> Generator[Step, Any, None]:
    """Go on with the run for whoever comes now, if that is the tenant, user and agent it was
    opened for.

    Issuer, subject and key are compared, and what the workflow asks of them is asked again: a
    group that was lost counts. What they come with becomes the run's, as in `renew`. A word of
    the host never stands for a credential.

    Raises:
        RunRefused: the run is missing or closed, or they are somebody else, or the workflow
            does not take them (any more).
        StoreUnavailable, AuditUnavailable.
    """
    self._view.seen = yield from continue_for(
        self._view.core, self.state, tenant=tenant, user=user, agent=agent
    )


def _renew(
    self: _RunBase, *, agent: AgentCredential | None = None, user: OIDCToken | None = None
) -> Generator[Step, Any, None]:
    """Go on with the run under fresh credentials: of the same issuer, subject, tenant and key.
    What is left out stays as it is.

    Raises:
        RunRefused: the run is missing, closed or in process; or a credential proves nothing
            here, or somebody else.
        StoreUnavailable, AuditUnavailable.
    """
    self._view.seen = yield from renew(self._view.core, self.state, user=user, agent=agent)


def _close(self: _RunBase) -> Generator[Step, Any, None]:
    """End the run; nothing is minted in it any more."""
    yield from read_end(self._view.core.queue, self._view.header.id)
    self._view.seen = yield from turns.close(self._view.core, self.state)


def _take_lock(self: _RunBase, holder: str, wait: float = WAIT) -> Generator[Step, Any, int]:
    """Take the run's lock, shared by all of this holder; returns its fence. Raises RunRefused:
    another has it.
    """
    return wait_for_lock(self.header, holder, wait)


def _give_lock(self: _RunBase, holder: str) -> Generator[Step, Any, None]:
    """Give the run's lock back, as often as it was taken; what cannot be given back ends by
    itself.
    """
    with suppress(StoreUnavailable):
        yield ops.lock_run(self.tenant, self.id, holder, 0)


def _facts(self: _RunBase, tool_call_id: str) -> Generator[Step, Any, tuple[Values, ...]]:
    """The declared facts of the one redeemed call of this id: a mapping for each row; empty
    where there is none, or more than one call.

    Raises:
        RunRefused: the run is gone. StoreUnavailable.
    """
    self._view.seen = state = yield from read_again(self._view.core, self.state)
    found = [call.rows for call in state.calls if call.id == tool_call_id]
    return (
        tuple({n: v for n, v in row.items() if not n.startswith("[")} for row in found[0])
        if len(found) == 1
        else ()
    )


def _holds(self: _RunBase) -> Generator[Step, Any, tuple[Hold, ...]]:
    """This run's holds, in whatever state they are now, with the user's words: so a host learns
    of answers, and what to resume.

    Raises:
        RunRefused: the run is gone. StoreUnavailable.
    """
    core = self._view.core
    self._view.seen = state = yield from read_again(core, self.state)
    return tuple(
        [
            with_words(core, hold, state)
            for hold in (yield from many(self.tenant, self.id, None))
        ]
    )


def _busy(error: Overloaded) -> Deny:
    return Deny((error.failure(reason=Reason.OVERLOAD),))


class Run(_RunBase):
    """One piece of work for one user under one workflow, opened by the trusted host."""

    _call = RedeemedCall
    authorize = blocking(call_steps.authorize, busy=_busy)
    explain = blocking(_explain, busy=busy)
    add_turn = blocking(_add_turn)
    add_doubt = blocking(_add_doubt)
    continue_for = blocking(_continue_for)
    renew = blocking(_renew)
    close = blocking(_close)
    take_lock = blocking(_take_lock)
    give_lock = blocking(_give_lock)
    redeem = blocking(call_steps.redeem)
    perform = blocking(call_steps.perform, busy=_busy)
    record_result = recording(call_steps.record_result)
    facts = blocking(_facts)
    holds = blocking(_holds)
    void = blocking(void_token)

    @contextmanager
    def lock(self, *, wait: float = WAIT) -> Iterator[None]:
        """One resume of the conversation at a time, around the calls that a resume makes.

        Others wait for `wait` seconds, then RunRefused says so (`run_busy`). It ends by itself
        after thirty; whoever held it mints nothing once another has taken it. It is bound to
        this thread.
        """
        holder = secrets.token_urlsafe(12)
        with bind_fence(self.id, self.take_lock(holder, wait)):
            try:
                yield
            finally:
                self.give_lock(holder)

    def wait(self, hold: Hold | str, *, timeout: float | None = None) -> Hold:
        """Wait until one of this run's holds is answered or over, then authorise the same call
        again: waiting grants nothing.

        Args:
            hold: the hold of a `StepUp`, or its id; only the id counts.
            timeout: seconds to wait at most; None: until the hold's deadline.

        Returns:
            The hold as the store has it: released, refused, expired, cancelled or spent;
                pending only after `timeout`.

        Raises:
            AnswerRefused: this run has no such hold. ConfigError: no such timeout.
                StoreUnavailable: at the deadline or `timeout`.
        """
        found: Hold = drive(
            waiting.wait(self.tenant, self.id, hold, timeout), self._store, self._audit
        )
        return found


class AsyncRun(_RunBase):
    """`Run`, awaited."""

    _call = AsyncRedeemedCall
    authorize = awaited(call_steps.authorize, busy=_busy)
    explain = awaited(_explain, busy=busy)
    add_turn = awaited(_add_turn)
    add_doubt = awaited(_add_doubt)
    continue_for = awaited(_continue_for)
    renew = awaited(_renew)
    close = awaited(_close)
    take_lock = awaited(_take_lock)
    give_lock = awaited(_give_lock)
    redeem = awaited(call_steps.redeem, around=taken)
    perform = awaited(call_steps.perform, busy=_busy, around=taken)
    record_result = arecording(call_steps.record_result)
    facts = awaited(_facts)
    holds = awaited(_holds)
    void = awaited(void_token)

    @asynccontextmanager
    async def lock(self, *, wait: float = WAIT) -> AsyncIterator[None]:
        """See `Run.lock`; it is bound to this task."""
        holder = secrets.token_urlsafe(12)
        with bind_fence(self.id, await self.take_lock(holder, wait)):
            try:
                yield
            finally:
                await self.give_lock(holder)

    async def wait(self, hold: Hold | str, *, timeout: float | None = None) -> Hold:  # noqa: ASYNC109 - the twin of a blocking method
        """See `Run.wait`."""
        found: Hold = await adrive(
            waiting.wait(self.tenant, self.id, hold, timeout), self._store, self._audit
        )
        return found
