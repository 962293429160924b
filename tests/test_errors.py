"""Errors: each can be copied, and sent to another process, with what it says and its fields, and nothing else."""

from __future__ import annotations

import copy
import pickle

import pytest

from agentgate.errors import (
    AgentGateError,
    AuditDamaged,
    CanonicalError,
    ConfigError,
    CredentialRefused,
    IdentityRefused,
    NameRefused,
    NotRecorded,
    Overloaded,
    Refusal,
    ResultWithheld,
    StepUpRequired,
    TokenRefused,
    UpstreamRefused,
    WorkflowError,
)
from agentgate.integrations.exchange import ExchangeRefused
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason, RunRefused

FAILURE = Failure(Reason.TENANT, "tenant", "a", "b")


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("root", None, "a digest"),
        WorkflowError(()),
        CanonicalError("args", "a set", "JSON"),
        Overloaded(9, 8),
        NotRecorded("txn", ("facts",), "late"),
        AuditDamaged("a.jsonl", 3, "x", "y"),
        UpstreamRefused("upstream", "ü", "ascii"),
        ResultWithheld(),
        StepUpRequired("h", {"tool": "pay"}, run=object()),
        TokenRefused(Refusal.AUDIENCE, "aud", "a", "b"),
        IdentityRefused("user.id", "", "a name"),
        CredentialRefused("agent.oidc.aud", "ü", "ours"),
        NameRefused("tenant", "", "a name"),
        AnswerRefused(AnswerCode.NONCE, (FAILURE,)),
        RunRefused((FAILURE,)),
        ExchangeRefused(400, "invalid_request", "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was(error: AgentGateError) -> None:
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert (type(made), str(made), repr(made)) == (type(error), str(error), repr(error))
        assert vars(made) == {name: value for name, value in vars(error).items() if not name.startswith("_")}
