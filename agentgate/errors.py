"""Every error agentgate raises, under one root.

Errors carry their evidence as fields: what was looked at, what it got, what was expected. A
refusal is a value (`Deny`, `StepUp`), not an error; an error says that no decision could be
used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as having
from enum import StrEnum
from typing import Any, Self


class AgentGateError(Exception):
    """Root of all errors of this package. A copy, and one that is sent to another process, has
    its message and its public fields.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _again,
            (type(self), self.args),
            {name: value for name, value in vars(self).items() if not name.startswith("_")},
        )


def _again(kind: type[AgentGateError], args: tuple[Any, ...]) -> AgentGateError:
    error = kind.__new__(kind)
    error.args = args
    return error


@dataclass(frozen=True, slots=True)
class Failure:
    """One condition that did not hold, from the place that finds it to whoever is told.

    Its texts are for people: code that has to know more of it reads `data`, and never the
    words.

    Attributes:
        reason: a member of a closed list; empty where what is wrong stands in a file or a
            setting.
        field: what was checked, e.g. ``args.payee``.
        got: what it was, as text for the host's own process; a `sensitive` value is masked.
        expected: what would have held.
        rule: ``file:line`` of the rule, or empty.
        data: what whoever goes on needs: the argument's name, the condition's key, the seconds
            of `max_age`.
    """

    reason: Any
    field: str
    got: str
    expected: str
    rule: str = ""
    data: Mapping[str, Any] = having(default_factory=dict, hash=False)

    @property
    def condition(self) -> str:
        """The key of its `agentgate.explain.listing.Condition`, where `field` alone does not
        identify it.
        """
        return str(self.data.get("condition", ""))

    @property
    def place(self) -> str:
        """``file:line:column`` of what is wrong in a file, as far as it is known."""
        return ":".join(
            str(self.data[key]) for key in ("file", "line", "column") if key in self.data
        )

    @property
    def hint(self) -> str:
        """``did you mean ...``, or empty."""
        return str(self.data.get("hint", ""))

    @property
    def argument(self) -> str:
        """The argument that it is about; empty: it is about none."""
        return str(self.data.get("argument", ""))

    def with_data(self, **data: Any) -> Failure:
        """The same, with more for whoever goes on."""
        return replace(self, data={**self.data, **data})

    def __str__(self) -> str:
        what = ": ".join(filter(None, (str(self.reason), self.place, self.field))) or "value"
        where = f" [{self.rule}]" if self.rule else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{what}: got {self.got}, expected {self.expected}{hint}{where}"


Failures = tuple[Failure, ...]


class Refused(AgentGateError):
    """Base of the errors that say why something was refused.

    Attributes:
        failures: every condition that did not hold.
        field, got, expected: of the first.
    """

    failures: Failures
    _between = "; "

    def __init__(self, field: str, got: object, expected: str, **data: Any) -> None:
        self._carry(Failure("", field, self._shown(got), expected, data=data))

    @classmethod
    def of(cls, *failures: Failure) -> Self:
        """One that carries these."""
        error = cls.__new__(cls)
        error._carry(*failures)  # noqa: SLF001 - of its own class
        return error

    def restate(self, **changes: Any) -> Self:
        """The same refusal, with its first failure changed."""
        return self.of(self.failure(**changes))

    def failure(self, **changes: Any) -> Failure:
        """The first failure, changed for whoever tells it next."""
        return replace(self.failures[0], **changes)

    def _carry(self, *failures: Failure) -> None:
        self.failures = failures
        super().__init__(self._text())

    def _text(self) -> str:
        return self._between.join(map(str, self.failures))

    @staticmethod
    def _shown(got: object) -> str:
        return ascii(got)[:240]

    @property
    def field(self) -> str:
        """What was looked at."""
        return self.failures[0].field

    @property
    def got(self) -> Any:
        """What it was."""
        return self.failures[0].got

    @property
    def expected(self) -> str:
        """What would have been accepted."""
        return self.failures[0].expected


class ConfigError(Refused):
    """A setting is missing, unknown or unusable; the message names it and the valid values.

    Attributes:
        setting: name of the setting.
        got: what it was.
        expected: what would be accepted.
    """

    def __init__(self, setting: str, got: object, expected: str, **data: Any) -> None:
        super().__init__(setting, got, expected, value=got, **data)

    def _text(self) -> str:
        return f"setting '{self.field}': got {self.got!r}, expected {self.expected}"

    @property
    def setting(self) -> str:
        """Name of the setting."""
        return self.field

    @property
    def got(self) -> Any:
        """What it was."""
        return self.failures[0].data.get("value", self.failures[0].got)


def problem_at(  # noqa: PLR0917 - a place, and what stands there
    file: str, line: int, column: int, field: str, got: str, expected: str, hint: str = ""
) -> Failure:
    """What is wrong in a file, at an exact place.

    Args:
        file: path as given to the loader.
        line: from 1.
        column: from 1.
        field: dotted path of the key, e.g. ``tools.payments.refund.args.amount.min``.
        got: what stands there.
        expected: what would be accepted.
        hint: ``did you mean ...`` or empty.
    """
    return Failure(
        "",
        field,
        got,
        expected,
        data={"file": file, "line": line, "column": column, "hint": hint},
    )


def place_of(problem: Failure) -> tuple[int, int]:
    """Line and column, to sort by."""
    return problem.data["line"], problem.data["column"]


class WorkflowError(Refused):
    """A workflow or trust file does not load. `problems` holds every finding, in the order of
    the file.
    """

    _between = "\n"

    def __init__(self, problems: Iterable[Failure]) -> None:
        self._carry(*problems)

    @property
    def problems(self) -> Failures:
        """Every finding, in the order of the file."""
        return self.failures


class CanonicalError(Refused):
    """A value has no RFC 8785 form that is safe to compare."""

    @staticmethod
    def _shown(got: object) -> str:
        return str(got)


class KeyRefused(AgentGateError):
    """A key cannot be used: wrong type, weak, unreadable, or readable by others."""


class StoreUnavailable(AgentGateError):
    """The state store is down, hung, read-only, misconfigured or answered late. Nothing was
    minted.
    """


class Unconfirmed(StoreUnavailable):
    """A write was applied, and not confirmed by every replica that was asked for."""


class ClockSkewed(StoreUnavailable):
    """The clocks of this machine and of the state store differ by more than a second."""


class AuditUnavailable(AgentGateError):
    """The audit record could not be made durable in time. Nothing was minted."""


class Overloaded(Refused):
    """A gate or verifier has as much under way as it does at once (its setting `at_once`):
    refused before anything was read or sent.

    Attributes:
        under_way: how much was.
        at_once: how much may be.
    """

    def __init__(self, under_way: int, at_once: int) -> None:
        self.under_way = under_way
        self.at_once = at_once
        expected = (
            f"fewer than at_once={at_once}: try again after a moment; more processes carry more"
        )
        self._carry(Failure("overload", "load", f"{under_way} calls under way", expected))


class NotRecorded(AgentGateError):
    """A tool ran, and what it did could not be recorded. Its call must not be run again; asked
    for again it is `outcome_unknown`.

    Attributes:
        txn: the call.
        missing: what is on no record: `facts` (calls that need them are refused), `outcome`,
            `audit record`.
    """

    def __init__(self, txn: str, missing: tuple[str, ...], why: str) -> None:
        self.txn = txn
        self.missing = missing
        self.why = why
        what = " and ".join(missing)
        super().__init__(
            f"call {txn}: its tool ran, and its {what} could not be recorded ({why}); do not run it again"
        )


class AuditDamaged(AgentGateError):
    """A line of an audit segment is not what its writer wrote there (file, line from 1, what it
    got, what was expected).
    """

    def __init__(self, file: str, line: int, got: str, expected: str) -> None:
        self.file = file
        self.line = line
        self.got = got
        self.expected = expected
        super().__init__(f"{file}:{line}: got {got}, expected {expected}")


class NotDone(AgentGateError):
    """Raised by a tool: nothing happened, so the same call may run again. Any other exception
    of an act leaves its outcome unknown.
    """


class UpstreamRefused(Refused):
    """No upstream credential for this call, or none any more; for the operator.

    Attributes:
        field: what was looked at, e.g. ``upstream.vault.role``.
        got: what it was, shortened to visible ASCII; never a credential.
        expected: what would have been accepted.
    """


class ResultWithheld(AgentGateError):
    """The tool ran, and what it returned or raised holds its upstream credential: nobody is
    given it.
    """

    def __init__(self, what: str = "result") -> None:
        self.what = what
        super().__init__(
            f"the tool's {what} holds its upstream credential and is withheld (the tool ran; "
            "do not repeat an act)"
        )


class CallDenied(AgentGateError):
    """Raised by integrations where a framework needs an exception. Carries the closed code
    only.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"agentgate: {code}")


class StepUpRequired(CallDenied):
    """The call waits for a person.

    Attributes:
        hold_id: of the hold to release.
        asks: what a host shows to whom it asks: who may answer, the arguments, why, the
            deadline.
    """

    _run: Any = None

    def __init__(
        self, hold_id: str, asks: Mapping[str, Any] | None = None, run: Any = None
    ) -> None:
        self.hold_id = hold_id
        self.asks = dict(asks or {})
        self._run = run
        super().__init__("needs_approval")
        self.add_note(
            "a person must say yes (error.asks): gate.release(error.hold_id, tenant=..., "
            "by=...), then the same call again"
        )

    def wait(self, *, timeout: float | None = None) -> Any:
        """Wait as `Run.wait` does (with an `AsyncRun`: await it), then make the same call
        again.

        Raises:
            ConfigError: it carries no run.
        """
        if self._run is None:
            raise ConfigError("wait", "an error without its run", "run.wait(hold_id)")
        return self._run.wait(self.hold_id, timeout=timeout)


class Refusal(StrEnum):
    """Why a call token was not accepted. Closed; one member per check of the verifier, in its
    order.

    `http_status` and `error` are what a resource server answers (RFC 6750 section 3.1, RFC 9449
    section 7.1, RFC 9470).
    """

    NO_CREDENTIAL = "no_credential"
    TWO_METHODS = "two_methods"
    SIZE = "size"
    FORM = "form"
    HEADER = "header"
    NO_KEYS = "no_keys"
    SIGNATURE = "signature"
    PAYLOAD = "payload"
    CLAIM = "claim"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    TENANT = "tenant"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    LIFETIME = "lifetime"
    PROOF_MISSING = "proof_missing"
    PROOF_UNBOUND = "proof_unbound"
    PROOF = "proof"
    CERTIFICATE = "certificate"
    LOCATION = "location"
    TOOL = "tool"
    ARGUMENTS = "arguments"
    SCOPE = "scope"
    AUTHENTICATION = "authentication"
    REVOKED = "revoked"
    LINEAGE = "lineage"
    LOST = "lost"
    USED = "used"
    BINDING = "binding"
    STORE = "store"
    AUDIT = "audit"
    OVERLOAD = "overload"
    UPSTREAM = "upstream"
    GATE = "gate"

    @property
    def http_status(self) -> int:
        """Status code of the answer."""
        return _ANSWERS.get(self, (401, "invalid_token"))[0]

    @property
    def error(self) -> str:
        """The `error` of the ``WWW-Authenticate`` header or problem; empty where none may be
        given (no credential, 503).
        """
        return _ANSWERS.get(self, (401, "invalid_token"))[1]


_ANSWERS = {
    Refusal.NO_CREDENTIAL: (401, ""),
    Refusal.TWO_METHODS: (400, "invalid_request"),
    Refusal.NO_KEYS: (503, ""),
    Refusal.PROOF: (401, "invalid_dpop_proof"),
    Refusal.LOCATION: (403, "insufficient_scope"),
    Refusal.TOOL: (403, "insufficient_scope"),
    Refusal.ARGUMENTS: (403, "insufficient_scope"),
    Refusal.SCOPE: (403, "insufficient_scope"),
    Refusal.AUTHENTICATION: (401, "insufficient_user_authentication"),
    Refusal.LOST: (503, ""),
    Refusal.STORE: (503, ""),
    Refusal.AUDIT: (503, ""),
    Refusal.OVERLOAD: (503, ""),
    Refusal.UPSTREAM: (503, ""),
    Refusal.GATE: (503, ""),
}


class TokenRefused(Refused):
    """A call token, its proof or its use was refused; nothing was executed.

    Attributes:
        code: the closed reason.
        field: what was looked at, e.g. ``aud`` or ``proof.htm``.
        got: what it was, shortened; never a token, a proof or an argument's value.
        expected: what would have been accepted.
        run: id of the token's run, where the token itself was good; empty otherwise.
    """

    run = ""

    def __init__(self, code: Refusal, field: str, got: str, expected: str, **data: Any) -> None:
        self._carry(Failure(code, field, got[:120], expected, data=data))

    @property
    def code(self) -> Refusal:
        """The closed reason."""
        return Refusal(self.failures[0].reason)


class IdentityRefused(Refused, ValueError):
    """The id, tenant or group of a user or an agent has no accepted form (field, what it got,
    what was expected).
    """

    @staticmethod
    def _shown(got: object) -> str:
        return ascii(got)[:80] if type(got) is str else type(got).__name__


class CredentialRefused(Refused):
    """A credential proves nothing here; for the operator (an outside caller learns a closed
    code).

    Attributes:
        field: what was looked at, e.g. ``agent.oidc.aud``.
        got: what it was, shortened to visible ASCII; a claim's value or a word about it, never
            the credential.
        expected: what would have been accepted.
    """


class KeysUnavailable(CredentialRefused):
    """The keys that would prove a credential cannot be had now, nor were they lately (field,
    what happened, what is expected).
    """


class NameRefused(Refused):
    """A name cannot be part of a store key (field, what it got, what was expected). Nothing was
    sent.
    """

    @staticmethod
    def _shown(got: object) -> str:
        return repr(str(got)[:80])


class RequestRefused(Refused):
    """A request over HTTP that is answered by a refusal and not carried out.

    Attributes:
        status: of the answer.
        error: its closed code (of RFC 6749, 6750 or their extensions, or of ours); empty where
            none may be given.
        description: one of few fixed words; what is inside stands in `failures`, for the log.
        headers: of the answer.
        more: further members of the answer.
        run: id of the run, for the log; empty: none is known.
    """

    run = ""

    def __init__(
        self,
        status: int,
        error: str,
        description: str = "",
        *failures: Failure,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.error = error
        self.description = description
        self.headers = dict(headers or {})
        self.more = dict(more or {})
        self._carry(*failures)

    def _text(self) -> str:
        answer = f"{self.status} {self.error}".strip()
        return f"{answer}: {super()._text()}" if self.failures else answer
