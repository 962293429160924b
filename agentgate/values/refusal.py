"""Why a call or a run was refused: closed reasons, the one code that the model sees, and the
condition that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any

from agentgate.errors import Failure as Failure  # noqa: PLC0414 - it belongs to what this module says
from agentgate.errors import Failures as Failures  # noqa: PLC0414 - as `Failure`
from agentgate.errors import Refused


class Code(StrEnum):
    """All that a model or an outside caller learns of a refusal (a finer answer would teach it
    the edge).

    Beside `INVALID_ARGUMENTS` a wrapper says what the tool's own schema says of arguments in a
    wrong form.
    """

    NOT_PERMITTED = "not_permitted"
    INVALID_ARGUMENTS = "invalid_arguments"
    NEEDS_APPROVAL = "needs_approval"
    REFUSED = "refused"  # a person said no
    LIMIT_REACHED = "limit_reached"
    ALREADY_DONE = "already_done"
    FAILED = "failed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UNAVAILABLE = "unavailable"


class Reason(StrEnum):
    """Why a call was refused or held, for operators, logs and tests. Closed: a new check adds
    its row here.
    """

    TENANT = "tenant"
    AGENT = "agent"
    USER = "user"
    AUTHENTICATION = "authentication"
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
    RUN_BUSY = "run_busy"
    TOO_MANY_DENIALS = "too_many_denials"
    TOO_MANY_HOLDS = "too_many_holds"
    TOO_MANY_RUNS = "too_many_runs"
    RUN_EXPIRED = "run_expired"
    RUN_ELSEWHERE = "run_elsewhere"
    WORKFLOW_UNKNOWN = "workflow_unknown"
    WORKFLOW_EXPIRED = "workflow_expired"
    APPROVAL_EXPIRED = "approval_expired"
    WORKFLOW_CHANGED = "workflow_changed"
    TWO_VERSIONS = "two_versions"
    ALREADY_REDEEMED = "already_redeemed"
    FAILED = "failed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    HOLD_REFUSED = "hold_refused"
    HOLD_EXPIRED = "hold_expired"
    REVOKED = "revoked"
    INPUT = "input"
    KEYS = "keys"
    STORE = "store"
    AUDIT = "audit"
    OVERLOAD = "overload"

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
    Reason.HOLD_REFUSED: Code.REFUSED,
    Reason.LIMIT: Code.LIMIT_REACHED,
    Reason.TOO_MANY_HOLDS: Code.LIMIT_REACHED,
    Reason.ALREADY_REDEEMED: Code.ALREADY_DONE,
    Reason.FAILED: Code.FAILED,
    Reason.OUTCOME_UNKNOWN: Code.OUTCOME_UNKNOWN,
    Reason.KEYS: Code.UNAVAILABLE,
    Reason.STORE: Code.UNAVAILABLE,
    Reason.AUDIT: Code.UNAVAILABLE,
    Reason.OVERLOAD: Code.UNAVAILABLE,
    Reason.RUN_ELSEWHERE: Code.UNAVAILABLE,
    Reason.RUN_BUSY: Code.UNAVAILABLE,
}
# The code of a denial with several reasons: the first of these that occurs. INVALID_ARGUMENTS
# is last, so that a call refused by policy too never learns that only its form was wrong.
_ORDER = (
    *(Code.UNAVAILABLE, Code.OUTCOME_UNKNOWN, Code.ALREADY_DONE, Code.FAILED),
    *(
        Code.NOT_PERMITTED,
        Code.REFUSED,
        Code.LIMIT_REACHED,
        Code.NEEDS_APPROVAL,
        Code.INVALID_ARGUMENTS,
    ),
)


def code_of(failures: Iterable[Failure]) -> Code:
    """The one code that the model sees of a denial. What a limit cannot sum has reached
    none.
    """
    codes = {
        Code.NOT_PERMITTED
        if each.reason is Reason.LIMIT and "argument" in each.data
        else each.reason.code
        for each in failures
    }
    return next(code for code in _ORDER if code in codes)


# Of the call's form alone: counted apart, and no run closes for it.
FORM = frozenset({Reason.ARGUMENT_FORM, Reason.ARGUMENT_MISSING, Reason.ARGUMENT_UNKNOWN})


def of_argument(  # noqa: PLR0917 - as `Failure`
    reason: Reason, name: str, got: str, expected: str, rule: str, condition: str
) -> Failure:
    """One condition on an argument that did not hold."""
    return Failure(
        reason, f"args.{name}", got, expected, rule, {"argument": name, "condition": condition}
    )


def place(file: str, line: int) -> str:
    """``file:line`` of a rule; empty where it has no line of its own."""
    return f"{file}:{line}" if line else ""


def misformed(failures: Failures) -> list[str]:
    """The fields that a call lacks or has in another form, where nothing else is wrong with
    it.
    """
    known = [
        failure.field for failure in failures if failure.reason is not Reason.ARGUMENT_UNKNOWN
    ]
    return known if {failure.reason for failure in failures} <= FORM else []


NOT_SHOWN = "(not shown)"
# whose field may be a name that the model made up
_NAMING = frozenset({Reason.ARGUMENT_UNKNOWN, Reason.INPUT})
_WITHOUT_VALUE = frozenset(
    {Reason.ARGUMENT_MISSING, Reason.INTENT_ABSENT, Reason.INTENT_UNCLEAR}
)


def told(failures: Iterable[Failure]) -> Failures:
    """Failures as audit record and log hold them: without any value of the call and without
    names that the model made up.

    What is the same then is told once. In process (`Deny.failures`, `run.explain`) failures are
    whole; the model sees only the code.
    """
    return tuple(dict.fromkeys(map(without_values, failures)))


def without_values(failure: Failure) -> Failure:
    """One failure as `told`."""
    if failure.argument and failure.reason in _NAMING:
        return replace(failure, field="args", data={"condition": failure.condition})
    if (failure.argument and failure.reason not in _WITHOUT_VALUE) or failure.field == "tool":
        return replace(failure, got=NOT_SHOWN)
    return failure


def sign_in_wanted(failures: Iterable[Failure]) -> dict[str, Any]:
    """RFC 9470 section 3: how the user has to sign in for what was refused."""
    return {
        name: value
        for failure in failures
        for name, value in failure.data.items()
        if name in {"acr_values", "max_age"}
    }


class AnswerCode(StrEnum):
    """Why a hold was not answered, for whoever answered, logs and tests. Closed."""

    # no such hold of this tenant: another tenant's, a forgotten one, a made-up id
    MISSING = "missing"
    STATE = "state"  # answered, expired, cancelled or spent
    RUN = "run"  # its run is over, or cannot be read
    WORKFLOW = "workflow"  # another version is in force than the one it was held under
    FORM = "form"  # a signed answer that cannot be read
    # by no key that counts here, or over something else: another hold, tenant, run, rule,
    # answer or nonce
    SIGNATURE = "signature"
    NONCE = "nonce"  # unknown to this hold, used, or too old
    CHANNEL = "channel"  # this gate has no such way to answer
    UNPROVEN = "unproven"  # a person built in process, where the workflow wants a proven one
    # this person may not: the requester, the agent, another group or tenant
    APPROVER = "approver"
    OVERTAKEN = "overtaken"  # somebody else's answer, or a mint, came first


class AnswerRefused(Refused):
    """A person's answer does not count: the hold stays as it was, and the attempt is on record.

    Attributes:
        code: the closed reason.
        failures: every condition that did not hold.
    """

    def __init__(self, code: AnswerCode, failures: Failures) -> None:
        self.code = code
        self._carry(*failures)

    def _text(self) -> str:
        return f"{self.code}: {super()._text()}"


class RunRefused(Refused):
    """A run may not be opened, or is missing, closed or expired.

    Attributes:
        failures: every condition that did not hold.
        run: id of the run that its record names; empty: there is none.
    """

    def __init__(self, failures: Failures, run: str = "") -> None:
        self.run = run
        self._carry(*failures)
