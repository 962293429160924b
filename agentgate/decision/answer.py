"""The answers to a call: `Allow`, `StepUp` or `Deny`; inside the gate, `Eligible` or `Deny`
from the pure decision.

Rules: a refusal is a value with closed reasons; the model sees only a code from `Code`; the
operator sees every `Failure`. `Allow` is built in one place only (`agentgate.gate.flow`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from agentgate.decision.hold import Hold
from agentgate.values.refusal import Code, Failure, Reason, code_of
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Limit, StepUpRule

if TYPE_CHECKING:
    from agentgate.token.mint import CallToken


class Reservation(NamedTuple):
    """What one limit takes for this call: `amount` is a count, or a sum in units of 10^-4."""

    limit: Limit
    amount: int
    currency: str = ""


@value_class
class RequiredHold:
    """A person must say yes to this call, under `rule`, because of `why` (which conditions
    fired).
    """

    rule: StepUpRule
    why: tuple[Failure, ...]


def asked(holds: tuple[RequiredHold, ...]) -> Literal["confirm", "step_up"]:
    """How strict a question is: a confirm asks only the run's own user, a step-up somebody else
    (too).
    """
    return "confirm" if all(hold.rule.user for hold in holds) else "step_up"


class Eligible(NamedTuple):
    """Policy lets the call through, if the store grants `reservations` and every required hold
    is released.

    Attributes:
        reservations: one per limit that covers the tool.
        holds: step-up rules that fired; empty where no person is asked.
        intent: the present intent the mint is for, or ``none`` / ``any``.
        named: True when every argument came from the prompt (`trust: named`).
    """

    reservations: tuple[Reservation, ...]
    holds: tuple[RequiredHold, ...]
    intent: str
    named: bool

    @property
    def asks(self) -> Literal["allow", "confirm", "step_up"]:
        """How strict the answer is: nobody is asked, only the run's own user is, or somebody
        else is too.
        """
        return asked(self.holds) if self.holds else "allow"

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Why people are asked."""
        return tuple(failure for hold in self.holds for failure in hold.why)


class _Reasoned:
    """An answer with *all* failing reasons."""

    __slots__ = ()
    failures: tuple[Failure, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The distinct reasons, in the order of the checks."""
        return tuple(dict.fromkeys(f.reason for f in self.failures))


@value_class
class Deny(_Reasoned):
    """Refused."""

    failures: tuple[Failure, ...]
    asks: ClassVar[Literal["deny"]] = "deny"

    @property
    def code(self) -> Code:
        """The one code that the model sees."""
        return code_of(self.failures)

    @property
    def until(self) -> str:
        """Until when a limit of this run or turn is reached; empty: it is not known, or none of
        theirs.
        """
        return (
            next((str(f.data["until"]) for f in self.failures if "until" in f.data), "")
            if self.code is Code.LIMIT_REACHED
            else ""
        )


@value_class
class StepUp(_Reasoned):
    """The call waits for a person; nothing was minted. Authorise the same call again after the
    hold is released.

    `confirm`: only the run's own user is asked.
    """

    hold: Hold
    failures: tuple[Failure, ...]
    confirm: bool = False
    code: ClassVar[Code] = Code.NEEDS_APPROVAL


@value_class
class Allow:
    """Minted. `token` is good for exactly this call, once.

    `idempotency_key`: for what the tool calls in turn (`RedeemedCall.idempotency_key`); empty:
    the tool only reads.
    """

    token: CallToken
    idempotency_key: str = ""


Decision = Allow | StepUp | Deny
