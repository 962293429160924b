"""What a caller over HTTP learns of a refusal: for each reason the contract's error, never a 403, and none of the reasons themselves."""

from __future__ import annotations

import pytest

from agentgate.service.messages import oauth_error, problem, refused_by
from agentgate.values.refusal import Code, Failure, Reason

R = Reason
# A member for each row of the contract's table of errors; the rows about the request's form and its client need no decision.
ROWS: dict[tuple[int, str], tuple[Reason, ...]] = {
    (400, "invalid_request"): (R.AGENT, R.USER, R.HOPS, R.POSTURE, R.BOUNDARY),
    (400, "invalid_authorization_details"): (
        *(R.TENANT, R.ENVIRONMENT, R.HOURS, R.DATA_CLASS, R.NETWORK, R.TOOL_UNKNOWN, R.TOOL_DEFINITION),
        *(R.ARGUMENT_UNKNOWN, R.ARGUMENT_MISSING, R.ARGUMENT_FORM, R.ARGUMENT_VALUE, R.ARGUMENT_ORIGIN, R.ENTITY_ORIGIN, R.AT_MOST),
        *(R.ONE_SOURCE, R.ROLE, R.INTENT_ABSENT, R.SEQUENCE, R.UPSTREAM, R.RUN_MISSING),
        *(R.WORKFLOW_UNKNOWN, R.WORKFLOW_EXPIRED, R.APPROVAL_EXPIRED, R.WORKFLOW_CHANGED, R.INPUT),
    ),
    (400, "access_denied"): (
        *(R.HOLD_REFUSED, R.HOLD_EXPIRED, R.STEP_UP, R.INTENT_UNCLEAR, R.REVOKED, R.LIMIT),
        *(R.TOO_MANY_DENIALS, R.TOO_MANY_HOLDS, R.TOO_MANY_RUNS),
        *(R.ALREADY_REDEEMED, R.FAILED, R.OUTCOME_UNKNOWN, R.RUN_CLOSED, R.RUN_EXPIRED),
    ),
    (400, "insufficient_user_authentication"): (R.AUTHENTICATION,),
    (503, "temporarily_unavailable"): (R.KEYS, R.STORE, R.AUDIT, R.OVERLOAD),
}
INSIDE = "args.payee: the edge, 100.00 and line 7"


def failure(reason: Reason, field: str = INSIDE, **data: object) -> Failure:
    return Failure(reason, field, INSIDE, INSIDE, INSIDE, data)


@pytest.mark.parametrize(("reason", "row"), [(reason, row) for row, reasons in ROWS.items() for reason in reasons], ids=str)
def test_a_reason_is_the_error_of_its_row_and_503_says_when_to_come_again(reason: Reason, row: tuple[int, str]) -> None:
    refused = refused_by(failure(reason))
    assert (refused.status, refused.error, "Retry-After" in refused.headers) == (*row, row[0] == 503)


@pytest.mark.parametrize("reason", Reason)
def test_no_answer_is_a_403_or_tells_what_is_inside(reason: Reason) -> None:
    refused = refused_by(failure(reason))
    assert refused.status in {400, 503}
    assert refused.description in {*Code, "credential", "unavailable", "proof", ""}
    for answer in (oauth_error(refused), problem(refused)):
        assert answer.headers["Cache-Control"] == "no-store"
        assert INSIDE not in bytes(answer.body).decode()


def test_of_several_reasons_the_one_that_tells_least_counts() -> None:
    for others in (R.ARGUMENT_FORM, R.STEP_UP, R.REVOKED, R.AGENT):
        assert refused_by(failure(R.STORE), failure(others)).status == 503
    both = refused_by(failure(R.STEP_UP), failure(R.ARGUMENT_VALUE))  # else the model learned that a person would have been asked
    assert (both.error, both.description) == ("invalid_authorization_details", "not_permitted")


def test_a_proof_that_fails_is_told_apart_only_where_nothing_else_failed() -> None:
    assert refused_by(failure(R.AGENT, proof=True)).error == "invalid_dpop_proof"
    assert refused_by(failure(R.AGENT, proof=True), failure(R.USER)).error == "invalid_request"


def test_a_claim_that_is_named_like_a_proof_is_none() -> None:
    assert refused_by(failure(R.AGENT, "agent.oidc.claims.build.proof")).error == "invalid_request"


def test_how_a_user_has_to_sign_in_is_read_from_data_and_from_no_wording() -> None:
    weak = Failure(R.AUTHENTICATION, "user.acr", "'pwd'", "another sign-in", data={"acr_values": "mfa phr", "condition": "x"})
    old = Failure(R.AUTHENTICATION, "user.auth_time", "a while ago", "max_age=soon", data={"max_age": 900})
    assert refused_by(weak, old).more == {"acr_values": "mfa phr", "max_age": 900}
