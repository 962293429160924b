"""Every error agentgate raises, under one root.

Errors carry their evidence as fields: what was looked at, what it got, what was expected. A refusal is a value
(`Deny`, `StepUp`), not an error; an error says that no decision could be used.
"""

from __future__ import annotations

from dataclasses import dataclass


class AgentGateError(Exception):
    """Root of all errors of this package."""


class ConfigError(AgentGateError):
    """A setting is missing, unknown or unusable; the message names it and the valid values.

    Attributes:
        setting: name of the setting.
        got: what it was.
        expected: what would be accepted.
    """

    def __init__(self, setting: str, got: object, expected: str) -> None:
        self.setting, self.got, self.expected = setting, got, expected
        super().__init__(f"setting '{setting}': got {got!r}, expected {expected}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a workflow file, at an exact place.

    Attributes:
        file: path as given to the loader.
        line: line, from 1.
        column: column, from 1.
        field: dotted path of the key, e.g. ``tools.payments.refund.args.amount.min``.
        got: what stands there.
        expected: what would be accepted.
        hint: ``did you mean ...`` or empty.
    """

    file: str
    line: int
    column: int
    field: str
    got: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.field}: got {self.got}, expected {self.expected}{hint}"


class WorkflowError(AgentGateError):
    """A workflow or trust file does not load. `problems` holds every finding, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


class CanonicalError(AgentGateError):
    """A value has no RFC 8785 form that is safe to compare (field, what it got, what was expected)."""

    def __init__(self, field: str, got: str, expected: str) -> None:
        self.field, self.got, self.expected = field, got, expected
        super().__init__(f"{field or 'value'}: got {got}, expected {expected}")


class KeyRefused(AgentGateError):
    """A key cannot be used: wrong type, weak, unreadable, or readable by others."""


class StoreUnavailable(AgentGateError):
    """The state store is down, hung, read-only, misconfigured or answered late. Nothing was minted."""


class AuditUnavailable(AgentGateError):
    """The audit record could not be made durable in time. Nothing was minted."""


class RunRefused(AgentGateError):
    """A run may not be opened, or is missing, closed or expired.

    Attributes:
        failures: tuple of `agentgate.decision.Failure`.
    """

    def __init__(self, failures: tuple[object, ...]) -> None:
        self.failures = failures
        super().__init__("; ".join(str(f) for f in failures))


class CallDenied(AgentGateError):
    """Raised by integrations where a framework needs an exception. Carries the closed code only."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"agentgate: {code}")


class StepUpRequired(CallDenied):
    """The call waits for a person; `hold_id` names the hold to release."""

    def __init__(self, hold_id: str) -> None:
        self.hold_id = hold_id
        super().__init__("needs_approval")
