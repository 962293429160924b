from dataclasses import replace
from typing import Any

import pytest

from agentgate.decision.answer import Reservation
from agentgate.gate.view import TokenTemplate, template_of
from agentgate.token.mint import call_digest, payload
from tests.benchmarks import world

DESK = world.Desk()
HEADER = DESK.state.header
MADE: dict[str, TokenTemplate] = {}
REFUND, LOOK = (DESK.workflow.tools[name] for name in ("payments.refund", "orders.get"))


def template(header=HEADER, tool=REFUND, issuer=world.ISSUER):
    return template_of(MADE, issuer, header, DESK.workflow, tool)


def claims(**changes: Any):
    call, made = changes.pop("call", DESK.call), "c" * 64
    settled = {"iat": 5, "ttl": 60, "jti": "j", "gen": world.GEN, "intent": "refund", "made": made}
    return template(**changes.pop("of", {})).claims(call, **{**settled, **changes})


def test_a_template_is_put_together_once_for_a_run_and_a_tool():
    for other in ({"tool": LOOK}, {"tool": replace(REFUND)}, {"issuer": "https://other.example"}, {"header": replace(HEADER)}):
        first = template()
        assert template() is first
        made = template(**other)
        assert made is not first
        assert made is template(**other)


def test_the_digest_is_that_of_the_call_in_its_run():
    call, agent = DESK.call, HEADER.agent
    assert template().digest(call) == call_digest(
        tenant=HEADER.tenant,
        run=HEADER.id,
        tool_call_id=call.id,
        agent=agent.id,
        user="lee",
        tool=call.tool,
        audience=REFUND.audience,
        definition=call.definition,
        workflow_digest=DESK.workflow.digest,
        data=call.data,
    )


def test_claims_say_who_for_whom_under_what_and_which_call():
    found = claims(cnf_jkt="k", releases=("h",))
    workflow, call = DESK.workflow, DESK.call
    assert {**found.shared._asdict(), **found._asdict()} == {
        "shared": found.shared,
        "iss": world.ISSUER,
        "sub": "lee",
        "aud": REFUND.audience,
        "client_id": "support-agent",
        "iat": 5,
        "exp": 65,
        "jti": "j",
        "txn": "txn_" + "c" * 32,
        "scope": "refunds:create",
        "tenant": world.TENANT,
        "gen": world.GEN,
        "act": {"sub": HEADER.agent.spiffe, "iss": world.ISSUER, "act": {"sub": HEADER.agent.via[0], "iss": world.ISSUER}},
        "tool": "payments.refund",
        "tool_call_id": call.id,
        "workflow": (workflow.id, workflow.version, workflow.digest),
        "intent": "refund",
        "run": HEADER.id,
        "call_digest": "c" * 64,
        "arguments_digest": call.arguments_digest,
        "tool_digest": call.definition,
        "identity": {"user": "proven", "agent": "proven", "host": "in_process"},
        "cnf_jkt": "k",
        "cnf_x5t": None,
        "releases": ("h",),
        "auth_time": None,
        "acr": None,
        "amr": (),
        "head_digest": "",
    }
    assert payload(found)


def test_an_autonomous_workload_is_its_own_subject_and_a_wrapper_is_the_gates_own_audience():
    alone = template(header=replace(HEADER, user=None), tool=replace(LOOK, audience="", scope=()))
    assert (alone.subjects.user, alone.shared.aud, alone.shared.scope) == ("", world.ISSUER, "orders.get")
    assert "user" not in alone.identity
    assert claims(of={"header": replace(HEADER, user=None)}).sub == "support-agent"


@pytest.mark.parametrize(("per", "owner"), [("turn", f"{HEADER.id}:2"), ("run", HEADER.id), ("agent", "support-agent"), ("tenant", "*")])
def test_a_limit_counts_for_its_owner_and_its_currency(per, owner):
    limit = replace(REFUND.limits[-1], per=per, every=60, argument="amount", maximum=7)
    tool = replace(REFUND, limits=(limit,))
    takes = [template(tool=tool).take(Reservation(limit, 5, currency), 2) for currency in ("EUR", "GBP", "EUR")]
    assert takes[0] == takes[2] != takes[1]
    assert takes[0] == (f"payments.customer-refund:{limit.tool}:amount:{per}:60:EUR:{owner}", 5, 7, 60_000, per in {"turn", "run"})
    raised = replace(limit, maximum=9)
    assert template(tool=replace(REFUND, limits=(raised,))).take(Reservation(raised, 5, "EUR"), 2).key == takes[0].key
