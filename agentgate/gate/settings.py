"""What a gate is opened with: one frozen object, checked when it is made, for each of the two
ways to open one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from functools import partial
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlsplit

from agentgate.audit.copies import place_of
from agentgate.errors import ConfigError
from agentgate.gate.call_context import DataClasses
from agentgate.gate.holds.callback import Confirm
from agentgate.gate.notify import Command, Webhook
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive
from agentgate.redemption.credential import UpstreamBroker, is_broker
from agentgate.shell.bound import AT_ONCE, checked_at_once
from agentgate.shell.spans import Tracing
from agentgate.token.jws import ALGS, Alg
from agentgate.values.request import is_name
from agentgate.values.urls import is_secure
from agentgate.values.value_class import Json, Names, Values, value_class

Directory = str | os.PathLike[str]
AnswerKeys = Mapping[str, Values | Directory]
# IdentitySettings | Values | Directory: naming the class would load pydantic for
# every gate
IdentityGiven = Any
PasskeysGiven = Any  # PasskeySettings | Values: as above


def _is_issuer(value: object) -> bool:
    url = urlsplit(value) if type(value) is str else urlsplit("")
    return is_secure(url) and not url.query and not url.fragment and url.username is None


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value))


def _is_audit(value: object) -> bool:
    return _is_path(value) and (value == "memory://" or "://" not in os.fspath(value))  # type: ignore[call-overload]  # a path by now


def _is_identity(value: object) -> bool:
    return (
        value is None
        or _is_path(value)
        or isinstance(value, Mapping)
        or type(value).__name__ == "IdentitySettings"
    )


def _is_passkeys(value: object) -> bool:
    return (
        value is None or isinstance(value, Mapping) or type(value).__name__ == "PasskeySettings"
    )


def _is_names(value: object) -> bool:
    # "a" is in "ab", so no text
    return isinstance(value, frozenset | set) and all(type(name) is str for name in value)


def _are_brokers(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(
            type(name) is str and (each is None or is_broker(each))
            for name, each in value.items()
        )
    return _is_names(value)


def _is_answer_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        is_name(tenant) and (isinstance(k, Mapping) or _is_path(k))
        for tenant, k in value.items()
    )


def _is_confirm(value: object) -> bool:
    return value is None or (callable(value) and not iscoroutinefunction(value))


# A budget is never off: what it may be at most.
MOST: Json = {
    "denials_per_run": 1000,
    "open_holds_per_run": 100,
    "runs_per_hour": 100_000,
}


def _is_budget(most: int, value: object) -> bool:
    return type(value) is int and 0 < value <= most


def _is_tell(value: object) -> bool:
    return type(value) is tuple and all(isinstance(hook, Webhook | Command) for hook in value)


# setting -> whether a value will do, and what will
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "workflows": (_is_path, "a directory of workflow files"),
    "issuer": (
        _is_issuer,
        "an https URL without query or fragment (RFC 8414 section 2; http only on loopback)",
    ),
    "audit": (_is_audit, "a directory, or memory://"),
    "store": (
        lambda value: type(value) is str,
        (
            "memory://, embedded:///absolute/path, redis://, rediss://, unix://, "
            "redis+sentinel:// or redis+cluster://"
        ),
    ),
    "environment": (
        lambda value: value is None or type(value) is str,
        "the name of an environment, or None",
    ),
    "clock": (
        lambda value: value is None or callable(value),
        "a callable that returns an aware datetime, or None",
    ),
    "alg": (lambda value: value in ALGS, " or ".join(ALGS)),
    "brokers": (
        _are_brokers,
        (
            "name -> broker (agentgate.credentials), or None where only tool servers have it; or "
            "a set of such names"
        ),
    ),
    "answer_keys": (_is_answer_keys, "tenant -> a JWK set, or the path of its file"),
    "passkeys": (
        _is_passkeys,
        "passkey settings (agentgate.identity.settings), or their values: file, rp_id, origins",
    ),
    "confirm": (
        _is_confirm,
        "a plain callable (called in a thread): question, or *questions -> True, False or None; or None",
    ),
    "shared_runs": (lambda value: type(value) is bool, "True or False"),
    "at_once": (lambda value: bool(checked_at_once(value)), ""),
    "tell": (_is_tell, "a tuple of Webhook and Command (agentgate.gate.notify)"),
    "pages": (
        lambda value: value == "" or _is_issuer(value),
        "the URL that a hold's id follows, https without query or fragment; or empty",
    ),
    "checkpoints": (
        lambda value: type(value) is tuple and all(map(place_of, value)),
        "a tuple of directories, URLs and witnesses",
    ),
    "auditor": (lambda value: value is None or _is_path(value), "the file of a public key"),
    "deriver": (callable, "a callable: intents, turns -> answers"),
    "identity": (_is_identity, "identity settings, their values, or a TOML file"),
    **{
        name: (partial(_is_budget, most), f"an integer from 1 to {most:,}")
        for name, most in MOST.items()
    },
    "data_classes": (
        lambda value: value is None or _is_path(value) or callable(value),
        "a TOML file, or a callable: tool, args -> class",
    ),
}


@value_class
class GateSettings(ABC):
    """Settings of a gate.

    Args:
        workflows: directory of workflow files (and roles.yaml), with ``approvals/`` where
            approvals count.
        issuer: this gate's URL, the `iss` of its tokens.
        audit: directory of the audit log; memory:// keeps it in this process only, and only an
            unsafe opening takes it.
        store: memory:// (one process), embedded:///path, redis://, rediss://, unix://,
            redis+sentinel://, redis+cluster://.
        environment: where this gate runs, for `conditions.environment`.
        clock: the decision clock (aware datetimes), for demos, tests and replays; tokens and
            approvals always end by real time.
        alg: ES256 or EdDSA.
        brokers: upstream brokers (`agentgate.credentials`) by name, for the tools that this
            gate redeems for; None, or only a set of names: the tools' servers have them.
        deriver: derives intents from the user's turns.
        identity: what is believed of credentials (`agentgate.identity.settings`): the object,
            its values, or a TOML file; None: nothing.
        answer_keys: tenant -> the public keys (JWK set, or the path of its file) of what may
            sign people's answers to holds there, such as a front end out of the agent's reach;
            none: no `JWSAnswer` counts.
        passkeys: the file of whose passkeys answer holds, and in which pages
            (`agentgate.identity.passkeys`), or their values; None: no `WebAuthnAnswer` counts.
        confirm: asks the run's own user in this process, only for a workflow with ``in_process:
            true``: gets the question, says True or False (`agentgate.integrations.terminal.ask`
            asks at the terminal); None: the call is held. One that takes ``*questions`` is
            asked about up to ten calls of a run at once, and may answer each
            (`agentgate.gate.holds.callback`).
        denials_per_run: with so many denied calls a run closes; so many of a wrong form alone
            close none, and end what is told of them.
        open_holds_per_run: how many holds of a run may wait for a person at once.
        runs_per_hour: how many runs of one user a tenant opens in any hour (up to a minute
            longer); without a user, of one agent.
        tell: who learns that a call waits, and what was answered: `Webhook` and `Command`
            (`agentgate.gate.notify`).
        pages: where people answer: the URL that a hold's id follows; events name the hold's
            page. Empty: they name none.
        data_classes: the catalogue for `conditions.data_class`: a TOML file, or a callable:
            tool, args -> class or None.
        shared_runs: who mints acts where the store may lose what it acknowledged
            (docs/state.md). False: the gate that opened the run; a restart of the store stops
            nothing. True: any gate, until the store restarts or fails over; then acts need a
            new run.
        at_once: how many calls and openings of runs are under way at once; more are refused at
            once (`overload`).
        tracing: where spans go, such as `agentgate.integrations.otel.OpenTelemetry()`; None:
            none are made.
        checkpoints: where copies of the audit log's newest checkpoint are kept beside the
            store: directories, URLs that take it by POST, and witnesses (``VERIFIER_KEY URL``).
        auditor: the file of a public X25519 key (PEM), to which records seal the values that
            they hide; None: only their HMACs are there.
    """

    workflows: Directory
    _: KW_ONLY
    issuer: str
    audit: str
    store: str = field(default="memory://", repr=False)  # its URL may hold a password
    environment: str | None = None
    clock: Callable[[], datetime] | None = None
    alg: Alg = "ES256"
    brokers: Mapping[str, UpstreamBroker | None] | AbstractSet[str] = field(
        default=frozenset(), repr=False
    )
    deriver: Deriver = derive
    identity: IdentityGiven | None = None
    data_classes: DataClasses | Directory | None = None
    answer_keys: AnswerKeys = field(default_factory=dict)
    passkeys: PasskeysGiven | None = None
    confirm: Confirm | None = None
    tell: tuple[Webhook | Command, ...] = ()
    pages: str = ""
    denials_per_run: int = 20
    open_holds_per_run: int = 50
    runs_per_hour: int = 60
    shared_runs: bool = False
    at_once: int = AT_ONCE
    tracing: Tracing | None = None
    checkpoints: Names = ()
    auditor: Directory | None = None

    def __post_init__(self) -> None:
        for name, (fits, expected) in _RULES.items():
            value = getattr(self, name)
            if not fits(value):
                raise ConfigError(
                    name, type(value).__name__ if name == "store" else value, expected
                )
        self._check_kept()

    @abstractmethod
    def _check_kept(self) -> None:
        """Check what each way to open a gate requires of `keys` and `audit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedSettings(GateSettings):
    """Of one that enforces what reviewers approved.

    Args:
        root: digest of the root of approvals, from your settings and not from that directory.
        keys: directory of the signing keys, created if absent; also keeps which versions were
            in force.
    """

    root: str
    keys: Directory

    def _check_kept(self) -> None:
        for name, value in (("keys", self.keys), ("audit", self.audit)):
            if not _is_path(value) or (name == "audit" and value == "memory://"):
                raise ConfigError(
                    name,
                    value,
                    "a directory (only Gate.open_unsafe_unapproved keeps it in memory)",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnapprovedSettings(GateSettings):
    """Of one that enforces whatever is in the directory.

    Args:
        keys: directory of the signing keys, created if absent; None: keys that end with the
            process (only with memory audit).
    """

    keys: Directory | None = None

    def _check_kept(self) -> None:
        if not (_is_path(self.keys) if self.keys is not None else self.audit == "memory://"):
            raise ConfigError(
                "keys",
                self.keys,
                "a directory for the signing keys (left out only with audit='memory://')",
            )
