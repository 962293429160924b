"""What is benchmarked: the full payment workflow of this repository, one run that has looked its order up, and the refund.

The refund is in order: five arguments, their origins in the user's words and in the order, a sequence, three limits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.gate.state import Readings
from agentgate.gate.view import TokenTemplate, template_of
from agentgate.identity.proven import Proven, proven_agent, proven_user
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.token.claims import Claims, check_call, check_token
from agentgate.token.jws import PublicKeys
from agentgate.token.mint import CallToken, draft_token, new_jti
from agentgate.token.signing import KeyRing, RunKey, SigningKey
from agentgate.values.request import Agent, Call, EarlierCall, Header, Posture, RunState, Surroundings, User
from agentgate.workflow.model import Workflow

ROOT = Path(__file__).parents[2]
FILE = ROOT / "workflows" / "payments" / "customer-refund.yaml"
ROLES = ROOT / "workflows" / "roles.yaml"
ISSUER = "https://gate.acme.example"
TENANT = "acme-eu"
PROMPT = "Please refund 0.05 EUR of order ORD-10023344, it arrived broken"
LOOKED_UP = {"order_id": "ORD-10023344"}
ORDER = {"total": "39.99", "currency": "EUR", "customer_id": "cus_Q7r4Zk2Lp9Xw3B", "status": "delivered"}
REFUND = {"order_id": "ORD-10023344", "amount": "0.05", "currency": "EUR", "payee": "cus_Q7r4Zk2Lp9Xw3B", "reason": "it arrived broken"}
GEN = "0123456789abcdef0123456789abcdef01234567"
ELSEWHERE = ("stock", "parcels")
_ID = "id: payments.customer-refund"
_BOUND = "bound_to: [call, agent_key]"


def text() -> str:
    """The workflow's YAML, as it lies in ``workflows/``."""
    return FILE.read_text(encoding="utf-8")


def renamed(source: str, name: str) -> str:
    """The same workflow under another id."""
    if _ID not in source:
        raise ValueError(f"{FILE}: got no '{_ID}', expected it")
    return source.replace(_ID, f"id: {name}")


def with_more_servers(source: str) -> str:
    """The same workflow with two more reads, each of a tool server of its own."""
    found = re.search(r"  orders\.get:\n(?:    .*\n)+", source)
    if found is None:
        raise ValueError(f"{FILE}: got no 'orders.get:', expected it")
    more = [found[0].replace("orders.get:", f"{name}.get:").replace("orders.acme", f"{name}.acme") for name in ELSEWHERE]
    return source.replace(found[0], "".join((found[0], *more)))


def without_agent_key(source: str) -> str:
    """The same workflow whose tokens are bound to the call only: no proof of possession."""
    if _BOUND not in source:
        raise ValueError(f"{FILE}: got no '{_BOUND}', expected it")
    return source.replace(_BOUND, "bound_to: [call]")


def without_upstream(source: str) -> str:
    """The same workflow without upstream credentials, whose fetching is no part of a cycle."""
    found = re.sub(r"^upstream:.*\n(?:  .*\n)+", "", source, flags=re.MULTILINE)
    if found == source:
        raise ValueError(f"{FILE}: got no 'upstream:', expected it")
    return found


def office_hours() -> datetime:
    """The last Wednesday, 10:30 UTC: a moment the workflow's conditions allow, not in the future."""
    now = datetime.now(UTC)
    day = now - timedelta(days=(now.weekday() - 2) % 7 or 7)
    return day.replace(hour=10, minute=30, second=0, microsecond=0)


NOW = office_hours()


def agent() -> Agent:
    """The support agent, attested a minute ago, behind one broker."""
    return proven_agent(
        "support-agent",
        spiffe="spiffe://acme.example/ns/prod/sa/support-agent",
        posture=Posture("release@acme.example", NOW - timedelta(minutes=1)),
        via=("spiffe://acme.example/ns/prod/sa/orchestrator",),
    )


def user() -> User:
    """A person of the workflow's groups and tenant."""
    return proven_user("lee", tenant=TENANT, groups=("support-l1",))


def lasting(who: Any) -> Any:
    """As a credential proved it that ends in an hour."""
    return Proven(who, time.time() + 3600)


def around() -> Surroundings:
    """Production, in office hours, with the upstream broker configured."""
    return Surroundings(NOW, environment="prod", brokers=frozenset({"provider"}))


def loaded(source: str) -> Workflow:
    """A workflow from its YAML."""
    return load_text(source, FILE.name, roles_of(ROLES.parent), derive)


def state(workflow: Workflow, run: str = "run_benchmark") -> RunState:
    """A run in which the order has been looked up."""
    turns = (PROMPT,)
    start = NOW.timestamp()
    header = Header(run, TENANT, user(), agent(), workflow.id, workflow.version, workflow.digest, start, start + 3600)
    found = EarlierCall("call_1", "orders.get", dict(LOOKED_UP), ({k: v for k, v in ORDER.items() if k != "status"},), True, start - 30)
    readings = Readings(derive)
    return RunState(header, turns, readings.intents(workflow, turns), readings.prompt(turns, NOW.date()), (found,), "1.1")


@dataclass(slots=True)
class Desk:
    """Decide, mint and verify one refund without a store: the same functions in the same order as in a gate."""

    workflow: Workflow = field(default_factory=lambda: loaded(text()))
    signer: SigningKey = field(default_factory=lambda: KeyRing.ephemeral().signer(time.time()))
    run_key: RunKey = field(default_factory=lambda: KeyRing.ephemeral().run_key(TENANT, "run_benchmark"))
    around: Callable[[], Surroundings] = around
    state: RunState = field(init=False)
    call: Call = field(init=False)
    keys: PublicKeys = field(init=False)
    templates: dict[str, TokenTemplate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = state(self.workflow)
        self.call = self.proposed()
        self.keys = PublicKeys.from_jwks({"keys": [self.signer.public_jwk()]})

    def proposed(self) -> Call:
        """The refund, copied, canonicalised and hashed."""
        return Call.of("payments.refund", REFUND, "call_7", self.workflow.tools["payments.refund"].definition)

    def eligible(self, call: Call) -> Eligible:
        """The decision.

        Raises:
            ValueError: the benchmark's own call is refused.
        """
        answer = decide(self.workflow, self.state, call, self.around())
        if not isinstance(answer, Eligible) or answer.holds:
            raise ValueError(f"the benchmark's call is refused: {answer}")
        return answer

    def minted(self, call: Call) -> CallToken:
        """Decide, digest and mint, with this run's key in `cnf`."""
        return self.signed(call, self.eligible(call).intent)

    def signed(self, call: Call, intent: str) -> CallToken:
        """The second half of `minted`: the token of a call that was decided on."""
        workflow = self.workflow
        template = template_of(self.templates, ISSUER, self.state.header, workflow, workflow.tools[call.tool])
        claims = template.claims(
            call,
            iat=int(time.time()),
            ttl=workflow.token.ttl,
            jti=new_jti(),
            gen=GEN,
            intent=intent,
            made=template.digest(call),
            cnf_jkt=self.run_key.jkt,
        )
        return draft_token(claims, self.run_key)(self.signer)

    def verified(self, token: str, data: bytes) -> Claims:
        """Verify a token against the call received, up to the proof of possession."""
        audience = self.workflow.tools["payments.refund"].audience
        claims = check_token(token, self.keys, issuer=ISSUER, tenants=(TENANT,), audience=audience, now=time.time())
        check_call(claims, "payments.refund", data)
        return claims


def json_order(**_: Any) -> dict[str, Any]:
    """What the order server returns."""
    return dict(ORDER)
