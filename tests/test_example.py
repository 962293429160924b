"""The payment agent of the examples: its script runs, its pins are true, and its API refuses what it must."""

from __future__ import annotations

import http.client
import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, User
from agentgate.integrations.langchain import definition_of
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog

pytestmark = pytest.mark.server  # of what it shows

EXAMPLE = Path(__file__).parent.parent / "examples" / "payment-agent"
ORDER = {"order_id": "ORD-10023344"}
REFUND = {"order_id": "ORD-10023344", "amount": "49.90", "currency": "EUR", "payee": "cus_Hn4mQz8Ls2WvXa"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The example's modules, as its own script imports them."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = ("payment_api", "refund_tools", "agent")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    return loaded


class Shop:
    """The example's gate and API with one run, and requests to the API made by hand."""

    def __init__(self, example: SimpleNamespace, gate: Any, api: Any) -> None:
        self.example, self.gate, self.api = example, gate, api
        self.tools = {tool.name: tool for tool in example.refund_tools.refund_tools(api.url)}
        user, agent = User("lee", tenant="acme-eu", groups=["support-l1"]), Agent("support-agent")
        prompt = "Please refund order ORD-10023344, it arrived broken"
        self.run = gate.open_run(example.agent.WORKFLOW, tenant="acme-eu", user=user, agent=agent, prompt=prompt)

    def token(self, tool: str, args: dict[str, Any]) -> Any:
        decision = self.run.authorize(tool, args, definition=definition_of(self.tools[tool]))
        assert isinstance(decision, Allow), decision
        return decision.token

    def post(self, path: str, args: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer: tuple[int, dict[str, Any], dict[str, str]] = self.example.refund_tools.post(self.api.url + path, args, headers)
        return answer

    def raw(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """The status of a request that the example's own client would not send."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.api.server_address[1], timeout=5)) as connection:
            connection.request("POST", path, body, headers)
            with connection.getresponse() as answer:
                answer.read()
                return answer.status

    def refund_token(self) -> Any:
        """A token for `REFUND`, after the look-up that must come before."""
        self.post("/orders", ORDER, self.token("orders.get", ORDER).headers("POST", f"{self.api.url}/orders"))
        return self.token("payments.refund", REFUND)

    @property
    def refusal(self) -> str:
        """Why the API refused last, as its operator reads it."""
        return str(self.api.ledger.refused[-1].code)


@pytest.fixture
def shop(example: SimpleNamespace) -> Iterator[Shop]:
    with example.agent.open_gate(lambda: example.agent.OFFICE_HOURS) as gate, example.agent.serve(gate) as api:
        yield Shop(example, gate, api)


@pytest.mark.deadline
def test_the_script_pays_one_refund() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "agent.py")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(EXAMPLE.parent.parent), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "'amount': '49.90', 'currency': 'EUR', 'payee': 'cus_Hn4mQz8Ls2WvXa'" in done.stdout
    assert done.stderr.count("root_demo") + done.stdout.count("root_demo") == 1


def test_the_workflow_pins_the_tools_as_they_are(example: SimpleNamespace) -> None:
    catalog = Catalog.load(EXAMPLE / "workflows", derive)
    assert not catalog.quarantined
    workflow = catalog.get(example.agent.WORKFLOW)
    assert workflow is not None
    tools = example.refund_tools.refund_tools("http://127.0.0.1")
    assert {tool.name: definition_of(tool) for tool in tools} == {name: tool.definition for name, tool in workflow.tools.items()}


def test_the_api_serves_its_own_call_once(shop: Shop) -> None:
    token, url = shop.refund_token(), f"{shop.api.url}/refunds"
    status, body, _ = shop.post("/refunds", REFUND, token.headers("POST", url))
    assert (status, body["status"]) == (200, "paid")
    status, body, headers = shop.post("/refunds", REFUND, token.headers("POST", url))
    assert (status, body, shop.refusal) == (401, {"error": "invalid_token"}, "used")
    assert headers["WWW-Authenticate"] == 'DPoP algs="ES256", scope="refunds:create", error="invalid_token"'
    assert len(shop.api.ledger.paid) == 1


@pytest.mark.parametrize(
    ("path", "args", "headers", "challenge"),
    [
        ("/orders", ORDER, {}, 'Bearer scope="orders:read"'),
        ("/refunds", REFUND, {}, 'DPoP algs="ES256", scope="refunds:create"'),
        ("/refunds", REFUND, {"Authorization": "Basic bGVlOmxlZQ=="}, 'DPoP algs="ES256", scope="refunds:create"'),
        ("/orders", ORDER, {"Authorization": "Bearer x"}, 'Bearer scope="orders:read", error="invalid_token"'),
        ("/refunds", REFUND, {"Authorization": "DPoP x"}, 'DPoP algs="ES256", scope="refunds:create", error="invalid_dpop_proof"'),
    ],
    ids=["read without a token", "write without a token", "another scheme", "no JWT", "no proof"],
)
def test_without_a_good_credential_nothing_runs(shop: Shop, path, args, headers, challenge) -> None:
    status, _, answer = shop.post(path, args, headers)
    assert (status, answer["WWW-Authenticate"]) == (401, challenge)
    assert not shop.api.ledger.paid


def _bearer(shop: Shop, token: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "/refunds", REFUND, {"Authorization": f"Bearer {token.reveal()}"}


def _other_amount(shop: Shop, token: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "/refunds", {**REFUND, "amount": "49.91"}, token.headers("POST", f"{shop.api.url}/refunds")


def _other_url(shop: Shop, token: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "/refunds", REFUND, token.headers("POST", f"{shop.api.url}/orders")


def _other_tool(shop: Shop, token: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "/orders", ORDER, token.headers("POST", f"{shop.api.url}/orders")


@pytest.mark.parametrize(
    ("request_of", "status", "error", "why"),
    [
        (_bearer, 401, "invalid_token", "proof_missing"),
        (_other_amount, 403, "insufficient_scope", "arguments"),
        (_other_url, 401, "invalid_dpop_proof", "proof"),
        (_other_tool, 401, "invalid_token", "audience"),
    ],
    ids=["bound token as bearer", "one cent more", "proof for another URL", "token of another tool"],
)
def test_a_good_token_serves_no_other_request(shop: Shop, request_of, status, error, why) -> None:
    token = shop.refund_token()
    path, args, headers = request_of(shop, token)
    got, body, answer = shop.post(path, args, headers)
    assert (got, body, shop.refusal) == (status, {"error": error}, why)
    assert f'error="{error}"' in answer["WWW-Authenticate"]
    assert not shop.api.ledger.paid
    # nothing was burned on the way: the call it was minted for still runs
    assert shop.post("/refunds", REFUND, token.headers("POST", f"{shop.api.url}/refunds"))[0] == 200


def test_a_token_in_the_query_is_refused_as_a_second_method(shop: Shop) -> None:
    token = shop.refund_token()
    headers = token.headers("POST", f"{shop.api.url}/refunds")
    assert (shop.raw("/refunds?access_token=x", b"{}", headers), shop.refusal) == (400, "two_methods")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}'], ids=["empty", "a list", "no JSON", "a key twice"])
def test_a_body_that_is_no_plain_object_is_refused_before_any_token(shop: Shop, body: bytes) -> None:
    assert shop.raw("/refunds", body, {}) == 400
    assert not shop.api.ledger.refused


def test_a_store_that_is_gone_is_503_and_nothing_runs(shop: Shop) -> None:
    token = shop.refund_token()
    shop.gate.close()
    status, body, headers = shop.post("/refunds", REFUND, token.headers("POST", f"{shop.api.url}/refunds"))
    assert (status, body, headers["Retry-After"]) == (503, {}, "1")
    assert not shop.api.ledger.paid


@pytest.mark.parametrize(
    ("prompt", "order", "changed", "reason"),
    [
        ("Please refund order ORD-10023344", True, {"payee": "cus_Z0evilEvilEvi1"}, "argument_origin"),
        ("Please refund order ORD-10023344", True, {"amount": "49.91"}, "at_most"),
        ("Please refund order ORD-10023344", False, {}, "sequence"),
        ("What is the status of ORD-10023344?", True, {}, "intent_absent"),
    ],
    ids=["another payee", "one cent more", "no look-up", "another question"],
)
def test_what_the_readme_says_cannot_be_done(shop: Shop, prompt, order, changed, reason) -> None:
    text = (EXAMPLE / "README.md").read_text("utf-8")
    assert f"`{reason}`" in text
    user, agent = User("lee", tenant="acme-eu", groups=["support-l1"]), Agent("support-agent")
    shop.run = shop.gate.open_run(shop.example.agent.WORKFLOW, tenant="acme-eu", user=user, agent=agent, prompt=prompt)
    if order:
        shop.post("/orders", ORDER, shop.token("orders.get", ORDER).headers("POST", f"{shop.api.url}/orders"))
    decision = shop.run.authorize("payments.refund", {**REFUND, **changed}, definition=definition_of(shop.tools["payments.refund"]))
    assert isinstance(decision, Deny)
    assert reason in decision.reasons
