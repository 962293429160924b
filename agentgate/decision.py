"""What is answered: `Allow`, `StepUp` or `Deny`; and inside, `Eligible` or `Deny` from the pure decision.

Rules: a refusal is a value with closed reasons; the model sees only a code from `Code`; the operator sees every `Failure`.
`Allow` is built in one place only (`agentgate.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agentgate.hold import Hold
    from agentgate.mint import CallToken
    from agentgate.origins import Value
    from agentgate.workflow import Limit, StepUpRule


class Code(StrEnum):
    """All that a model or a caller from outside learns of a refusal (a finer answer would teach it the edge)."""

    NOT_PERMITTED = "not_permitted"
    INVALID_ARGUMENTS = "invalid_arguments"
    NEEDS_APPROVAL = "needs_approval"
    ALREADY_DONE = "already_done"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UNAVAILABLE = "unavailable"


class Reason(StrEnum):
    """Why a call was refused or held, for operators, logs and tests. Closed: a new check adds its row here."""

    TENANT = "tenant"
    AGENT = "agent"
    USER = "user"
    HOPS = "hops"
    POSTURE = "posture"
    BOUNDARY = "boundary"
    ENVIRONMENT = "environment"
    HOURS = "hours"
    DATA_CLASS = "data_class"
    NETWORK = "network"
    TOOL_UNKNOWN = "tool_unknown"
    TOOL_DEFINITION = "tool_definition"
    ARGUMENT_UNKNOWN = "argument_unknown"
    ARGUMENT_MISSING = "argument_missing"
    ARGUMENT_FORM = "argument_form"
    ARGUMENT_VALUE = "argument_value"
    ARGUMENT_ORIGIN = "argument_origin"
    ENTITY_ORIGIN = "entity_origin"
    AT_MOST = "at_most"
    ONE_SOURCE = "one_source"
    ROLE = "role"
    INTENT_ABSENT = "intent_absent"
    INTENT_UNCLEAR = "intent_unclear"
    SEQUENCE = "sequence"
    STEP_UP = "step_up"
    UPSTREAM = "upstream"
    LIMIT = "limit"
    RUN_MISSING = "run_missing"
    RUN_CLOSED = "run_closed"
    RUN_EXPIRED = "run_expired"
    WORKFLOW_UNKNOWN = "workflow_unknown"
    WORKFLOW_EXPIRED = "workflow_expired"
    WORKFLOW_CHANGED = "workflow_changed"
    ALREADY_REDEEMED = "already_redeemed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    HOLD_REFUSED = "hold_refused"
    HOLD_EXPIRED = "hold_expired"
    REVOKED = "revoked"
    INPUT = "input"
    STORE = "store"
    AUDIT = "audit"

    @property
    def code(self) -> Code:
        """The closed code for the model."""
        return _CODES.get(self, Code.NOT_PERMITTED)


_CODES = {
    Reason.ARGUMENT_UNKNOWN: Code.INVALID_ARGUMENTS,
    Reason.ARGUMENT_MISSING: Code.INVALID_ARGUMENTS,
    Reason.ARGUMENT_FORM: Code.INVALID_ARGUMENTS,
    Reason.INPUT: Code.INVALID_ARGUMENTS,
    Reason.STEP_UP: Code.NEEDS_APPROVAL,
    Reason.INTENT_UNCLEAR: Code.NEEDS_APPROVAL,
    Reason.ALREADY_REDEEMED: Code.ALREADY_DONE,
    Reason.OUTCOME_UNKNOWN: Code.OUTCOME_UNKNOWN,
    Reason.STORE: Code.UNAVAILABLE,
    Reason.AUDIT: Code.UNAVAILABLE,
}
# The code of a denial with several reasons: the first of these that occurs. INVALID_ARGUMENTS is last, so that a call
# refused by policy too never learns that only its form was wrong.
_ORDER = (Code.UNAVAILABLE, Code.OUTCOME_UNKNOWN, Code.ALREADY_DONE, Code.NOT_PERMITTED, Code.NEEDS_APPROVAL, Code.INVALID_ARGUMENTS)


@dataclass(frozen=True, slots=True)
class Failure:
    """One condition that did not hold.

    Attributes:
        reason: the closed reason.
        field: what was looked at, e.g. ``args.payee``.
        got: what it was, as text for an operator (never given to the model; a `sensitive` value is masked).
        expected: what would have held.
        rule: ``file:line`` of the rule, or empty.
    """

    reason: Reason
    field: str
    got: str
    expected: str
    rule: str = ""

    def __str__(self) -> str:
        where = f" [{self.rule}]" if self.rule else ""
        return f"{self.reason}: {self.field}: got {self.got}, expected {self.expected}{where}"


class Reservation(NamedTuple):
    """What one limit takes for this call: `amount` is a count, or a sum in units of 10^-4."""

    limit: Limit
    amount: int
    currency: str = ""


@dataclass(frozen=True, slots=True)
class RequiredHold:
    """A person must say yes to this call, under `rule`, because of `why` (which conditions fired)."""

    rule: StepUpRule
    why: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Eligible:
    """Policy lets the call through, if the store grants `reservations` and every required hold is released.

    Attributes:
        reservations: one per limit that covers the tool.
        holds: step-up rules that fired; empty when nobody needs to be asked.
        intent: the present intent the mint is for, or ``none`` / ``any``.
        named: True when every argument came from the prompt (`trust: named`).
        values: the arguments as they were compared, for the decision's record.
    """

    reservations: tuple[Reservation, ...]
    holds: tuple[RequiredHold, ...]
    intent: str
    named: bool
    values: Mapping[str, Value] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Deny:
    """Refused, with *all* failing reasons."""

    failures: tuple[Failure, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The distinct reasons, in the order of the checks."""
        return tuple(dict.fromkeys(f.reason for f in self.failures))

    @property
    def code(self) -> Code:
        """The one code that the model sees."""
        codes = {reason.code for reason in self.reasons}
        return next(code for code in _ORDER if code in codes)


@dataclass(frozen=True, slots=True)
class StepUp:
    """The call waits for a person; nothing was minted. Authorise the same call again after the hold is released."""

    hold: Hold
    failures: tuple[Failure, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The distinct reasons why a person is asked."""
        return tuple(dict.fromkeys(f.reason for f in self.failures))

    @property
    def code(self) -> Code:
        """The one code that the model sees."""
        return Code.NEEDS_APPROVAL


@dataclass(frozen=True, slots=True)
class Allow:
    """Minted. `token` is good for exactly this call, once."""

    token: CallToken


Decision = Allow | StepUp | Deny
