"""Loading a workflow: each rule refuses at its line and column, says what was expected, and guesses what was meant."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.blocks import written_out
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text, parse_roles, read_file
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.values.canonical import canonical, definition_digest, digest, parse
from agentgate.values.patterns import Pattern
from agentgate.workflow.clauses.conditions import Hours
from agentgate.workflow.clauses.who import ClaimRule
from agentgate.workflow.model import Limit, Sequence
from agentgate.workflow.rule import Source

WORKFLOWS = Path(__file__).parent.parent / "workflows"
PAYMENT = (WORKFLOWS / "payments/customer-refund.yaml").read_text()
ROLES = roles_of(WORKFLOWS)

SMALL = """\
agentgate: workflow/v1
id: shop.status
version: 1
title: Assistant says where an order is
owners: [lee]
risk: low
expires: "2031-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents: {none: "Reads one order and nothing else."}
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}'}}
"""

# Two tools in reach of each other, for rules about one argument: `X` stands for its operators.
PAIR = """\
agentgate: workflow/v1
id: pair
version: 1
title: A read and a write
owners: [lee]
risk: low
expires: "2031-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  send: {asks_for: Send something., words: [send], examples: [Send it]}
tools:
  look:
    effect: read
    needs: any
    redeem: wrapper
    args: {key: {type: id, from: [prompt]}}
    facts:
      mail: {type: email}
      link: {type: url}
      note: {type: text}
      cost: {type: money, currency: unit}
      bare: {type: money}
      unit: {type: text}
      size: {type: integer}
      when: {type: date}
      live: {type: boolean}
  look.up:
    effect: read
    needs: any
    redeem: wrapper
    args: {of: {type: id, from: [prompt]}}
    facts: {name: {type: text}}
  send:
    effect: write
    needs: [send]
    redeem: wrapper
    args:
      unit: {in: [EUR, GBP], from: [look.unit]}
      x: {X}
    facts: {receipt: {type: id}, echo: {type: text}}
  follow:
    effect: write
    needs: [send]
    redeem: wrapper
    args: {receipt: {type: id, from: [send.receipt]}}
"""


def load(text, roles=ROLES, deriver=derive):
    return load_text(text, "w.yaml", roles, deriver)


def problems(text, roles=ROLES, deriver=derive):
    with pytest.raises(WorkflowError) as caught:
        load(text, roles, deriver)
    return caught.value.problems


def marked(text):
    """The text without its mark ``@@``, and the line and column where the mark stood."""
    head, mark, tail = text.partition("@@")
    assert mark
    return head + tail, (head.count("\n") + 1, len(head) - head.rfind("\n"))


def changed(text, old, new):
    assert old in text, old
    return text.replace(old, new, 1)


def expect_one(text, field, expected, hint="", roles=ROLES):
    """Exactly one problem: at the mark, about the field, with the fragment in what it got or expected, and the hint."""
    text, place = marked(text)
    found = problems(text, roles)
    assert [(p.field, (p.data["line"], p.data["column"])) for p in found] == [(field, place)], "\n".join(map(str, found))
    assert expected in f"{found[0].got} | {found[0].expected}"
    assert found[0].hint == (f"did you mean '{hint}'?" if hint else "")
    assert str(found[0]).startswith(f"w.yaml:{place[0]}:{place[1]}: {field}: got ")


# --- what loads ----------------------------------------------------------------------------------------------------------


def test_the_payment_workflow_becomes_what_it_says():
    workflow = load(PAYMENT)
    refund, look = workflow.tools["payments.refund"], workflow.tools["orders.get"]
    assert (workflow.id, workflow.version, workflow.risk, workflow.expires) == ("payments.customer-refund", 7, "high", date(2031, 12, 31))
    assert workflow.tenants == ("acme-eu", "acme-uk")
    assert workflow.agent.attested_within == 600
    assert workflow.conditions.hours == Hours(workflow.conditions.hours.line, frozenset(range(5)), 480, 1200, "Europe/Berlin")
    amount = refund.args["amount"]
    assert (amount.minimum, amount.maximum, amount.at_most) == (Decimal("0.01"), Decimal(500), Source("fact", "orders.get", "total"))
    assert amount.sources == (Source("prompt"), Source("fact", "orders.get", "total"))
    assert refund.args["order_id"].sources == (Source("arg", "orders.get", "order_id"),)
    assert refund.args["payee"].pattern is Pattern.of("cus_[A-Za-z0-9]{14}")
    assert refund.args["reason"].entities == (Source("prompt"),)
    assert (refund.args["notify"].optional, refund.args["payee"].sensitive) == (True, True)
    assert look.referenced == {"order_id"}
    assert look.facts["total"].path == ("total",)
    assert refund.sequence == (Sequence(refund.sequence[0].line, "payments.refund", "orders.get", 900),)
    assert [(x.tool, x.argument, x.maximum, x.per, x.every) for x in refund.limits] == [
        ("payments.refund", "", 1, "run", None),
        ("payments.refund", "amount", 50_000_000, "tenant", 86400),
        ("any", "", 20, "run", None),
    ]
    assert look.limits == (Limit(refund.limits[2].line, "any", "", 20, "run", None),)
    (rule,) = refund.step_ups
    assert (rule.id, rule.group, rule.count, rule.exclude, rule.timeout, rule.when[0].above) == (
        "big-refund",
        "support-leads",
        1,
        ("requester",),
        600,
        Decimal(100),
    )
    assert (workflow.token.ttl, workflow.token.agent_key) == (60, True)
    assert refund.upstream.broker == "provider"
    assert dict(refund.upstream.settings) == {"scopes": ("refunds:create",), "narrower_than": "payments-support", "duration": 300}
    assert PAYMENT.splitlines()[amount.line - 1].lstrip().startswith("amount:")
    assert PAYMENT.splitlines()[refund.line - 1].strip() == "payments.refund:"


def test_the_smallest_workflow_loads_with_the_narrow_defaults():
    workflow = load(SMALL)
    tool = workflow.tools["orders.get"]
    assert (tool.audience, tool.scope, tool.definition, tool.limits, tool.step_ups, tool.upstream) == ("", (), "", (), (), None)
    assert (workflow.token.ttl, workflow.token.agent_key, workflow.observe, workflow.via) == (60, False, False, None)
    assert dict(workflow.intents) == {}


def test_a_workflow_cannot_be_changed_after_loading():
    workflow = load(PAYMENT)
    with pytest.raises(FrozenInstanceError):
        workflow.version = 8
    for mapping in (workflow.tools, workflow.intents, workflow.tools["payments.refund"].args, workflow.tools["orders.get"].facts):
        with pytest.raises(TypeError):
            mapping["x"] = None


def test_the_digest_is_of_the_deciding_values_not_of_comments_or_layout():
    text = "# another comment\n" + PAYMENT.replace("owners: [team:payments]", "owners:\n  - team:payments")
    assert load(text).digest == load(PAYMENT).digest == "sha256:" + digest(canonical(written_out(read_yaml(PAYMENT, "w").value)))
    assert load(changed(PAYMENT, '"500.00"', '"500.01"')).digest != load(PAYMENT).digest


@pytest.mark.parametrize(
    "path",
    sorted(
        p for p in WORKFLOWS.rglob("*.yaml") if p.name != "roles.yaml" and not p.name.endswith(".test.yaml") and "approvals" not in p.parts
    ),
    ids=lambda p: p.stem,
)
def test_founding_workflows_load_and_pin_the_tools_their_comments_describe(path):
    text = path.read_text()
    workflow = load(text)
    described = re.findall(r"((?:^ +# .*\n)+) +definition: (\S+)", text, re.MULTILINE)
    assert len(described) == len([t for t in workflow.tools.values() if t.definition])
    for comment, pinned in described:
        lines = [line.strip().removeprefix("# ") for line in comment.splitlines()]
        tool = parse(" ".join(lines[next(i for i, line in enumerate(lines) if line.startswith("{")) :]).encode())
        assert definition_digest(tool["name"], tool["description"], tool["input_schema"]) == pinned
        assert set(tool["input_schema"]["properties"]) == set(workflow.tools[tool["name"]].args)
        assert set(tool["input_schema"]["required"]) == {a.name for a in workflow.tools[tool["name"]].args.values() if not a.optional}


def test_the_longest_declared_tool_name_wins():
    text = PAIR.replace("X", "from: [look.up.name]")
    assert load(text).tools["send"].args["x"].sources == (Source("fact", "look.up", "name"),)


def test_a_new_id_of_a_write_is_an_origin():
    assert load(PAIR.replace("X", "text: 9, from: [model]")).tools["follow"].args["receipt"].sources == (Source("fact", "send", "receipt"),)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("transactions[].recipient", ("transactions", "[]", "recipient")),
        ("[].a", ("[]", "a")),
        ("a[][].b", ("a", "[]", "[]", "b")),
        (".", ()),
        ("a.b c", ("a", "b c")),
        ("products.*.id", ("products", "[values]", "[]", "id")),
        ("*", ("[values]", "[]")),
        ("orders[].lines.*[].sku", ("orders", "[]", "lines", "[values]", "[]", "[]", "sku")),
    ],
)
def test_a_fact_says_where_it_stands_in_the_result(path, steps):
    text = changed(PAIR, "mail: {type: email}", f"mail: {{type: email, path: '{path}'}}").replace("X", "text: 9, from: [model]")
    assert load(text).tools["look"].facts["mail"].path == steps


@pytest.mark.parametrize("path", ["a.{}", "{}", "a{}.b", "a*", "*a.b", "a.**", "a.*b", "a.[*]"])
def test_a_path_that_can_match_nothing_is_refused(path):
    text = changed(PAIR, "mail: {type: email}", f"mail: {{type: email, path: '{path}'}}").replace("X", "text: 9, from: [model]")
    (problem,) = problems(text)
    assert (problem.field, problem.got) == ("tools.look.facts.mail.path", f"'{path}'")
    assert "* alone for each value of an object" in problem.expected


def test_the_key_of_an_object_is_a_fact():
    text = changed(PAIR, "mail: {type: email}", "mail: {type: email, path: 'people.*', key: true}").replace("X", "text: 9, from: [model]")
    assert load(text).tools["look"].facts["mail"].path == ("people", "[values]", "[]", "[key]")


@pytest.mark.parametrize(
    "fact",
    [
        "{type: email, key: true}",
        "{type: email, path: people, key: true}",
        "{type: email, path: 'people[]', key: true}",
        "{type: email, path: 'people.*.mail', key: true}",
        "{type: email, path: 'people.*[]', key: true}",
        "{type: email, path: 'people.*', key: true, find: one, trust: named}",
        "{type: number, path: 'people.*', key: true}",
        "{type: boolean, path: 'people.*', key: true}",
    ],
)
def test_the_key_of_nothing_is_refused(fact):
    found = problems(changed(PAIR, "mail: {type: email}", f"mail: {fact}").replace("X", "text: 9, from: [model]"))
    assert {problem.field for problem in found} == {"tools.look.facts.mail.key"}


def test_a_range_without_a_type_is_of_numbers_and_constants_are_kept_in_normal_form():
    rule = load(PAIR.replace("X", 'min: "1", max: 5, in: [1, "2.50"], from: [model]')).tools["send"].args["x"]
    assert (rule.type, rule.minimum, rule.maximum, rule.one_of) == ("number", Decimal(1), Decimal(5), (Decimal(1), Decimal("2.50")))


def test_lists_roles_and_claims():
    dispatch = load((WORKFLOWS / "orchestration/internal-dispatch.yaml").read_text()).tools["jobs.dispatch"].args["scopes"]
    assert (dispatch.max_items, dispatch.role, dispatch.role_scopes) == (3, "orchestrator", ROLES["orchestrator"])
    agent = load((WORKFLOWS / "ci/deploy.yaml").read_text()).agent
    assert ClaimRule(agent.claims[2].line, 0, ()) != agent.claims[2]
    assert {c.name: c.one_of for c in agent.claims}["ref"] == ("refs/heads/main",)
    assert load((WORKFLOWS / "identity/service-account-refresh.yaml").read_text()).agent.same_key_as_last_token


# --- shape ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "field", "expected", "hint"),
    [
        pytest.param("risk: low", "risk: @@lo", "risk", "low, medium or high", "low", id="unknown word"),
        pytest.param("risk: low", "@@risc: low", "risc", "unknown key", "risk", id="misspelt key, once"),
        pytest.param("version: 1", "version: @@0", "version", "at least 1", "", id="version zero"),
        pytest.param("version: 1", "version: @@'1'", "version", "a whole number", "", id="version as text"),
        pytest.param("version: 1", "version: @@true", "version", "a whole number", "", id="version as boolean"),
        pytest.param("agentgate: workflow/v1", "agentgate: @@workflow/v2", "agentgate", "workflow/v1", "workflow/v1", id="unknown format"),
        pytest.param("title: Assistant says where an order is", "title: @@''", "title", "not empty", "", id="empty text"),
        pytest.param("title: Assistant says where an order is", "title: @@7", "title", "text", "", id="number as text"),
        pytest.param("owners: [lee]", "owners: @@[]", "owners", "grants nothing", "", id="empty list"),
        pytest.param("owners: [lee]", f"owners: @@{[f'o{n}' for n in range(201)]}", "owners", "at most 200", "", id="endless list"),
        pytest.param("owners: [lee]", f"owners: [@@{'o' * 2001}]", "owners[0]", "at most 2000", "", id="endless text"),
        pytest.param("owners: [lee]", "owners: @@lee", "owners", "a list in brackets", "", id="text as list"),
        pytest.param("owners: [lee]", "owners: @@[lee, lee]", "owners", "repeated", "", id="repeated element"),
        pytest.param("owners: [lee]", "owners: [@@7]", "owners[0]", "text", "", id="number in a list of text"),
        pytest.param("tenants: [acme]", "tenants: [@@'acme-*']", "tenants[0]", "exact tenant name", "", id="tenant wildcard"),
        pytest.param("tenants: [acme]", "tenants: [@@'ac me']", "tenants[0]", "exact tenant name", "", id="tenant with space"),
        pytest.param("tenants: [acme]", f"tenants: [@@{'a' * 65}]", "tenants[0]", "1 to 64", "", id="tenant too long"),
        pytest.param("tenants: [acme]", "tenants: [@@\u0430cme]", "tenants[0]", "exact tenant name", "", id="tenant in another script"),
        pytest.param('expires: "2031-05-31"', 'expires: @@"2031-02-30"', "expires", "a date in quotes", "", id="no such day"),
        pytest.param('expires: "2031-05-31"', "expires: @@2031-05-31", "expires", "quotes", "", id="unquoted date"),
        pytest.param('expires: "2031-05-31"', "expires: @@never", "expires", "a date in quotes", "", id="never expires"),
        pytest.param("id: shop.status", "id: @@suppörtt", "id", "ASCII", "", id="id not ASCII"),
        pytest.param("id: shop.status", "id: @@a b", "id", "ASCII", "", id="id with space"),
        pytest.param("  orders.get:", "  @@örders.get:", "tools.örders.get", "ASCII", "", id="tool not ASCII"),
        pytest.param("{order_id:", "{@@order id:", "tools.orders.get.args.order id", "ASCII", "", id="argument with space"),
        pytest.param(
            "who: {agent: {in_process: true}",
            "who: {agent: {in_process: @@false}",
            "who.agent.in_process",
            "true",
            "",
            id="in_process false",
        ),
        pytest.param("who: {agent: {in_process: true}", "who: {@@agent: {}", "who.agent", "exactly one of", "", id="nobody"),
        pytest.param("for_user: {same_tenant: true}", "@@for_user: {}", "who.for_user", "same_tenant", "", id="empty user rule"),
        pytest.param("for_user: {same_tenant: true}", "for_user: @@lee", "who.for_user", "a mapping", "", id="user as text"),
        pytest.param(
            "in_process: true}",
            "in_process: true, @@posture: {attested_within: 5m}}",
            "who.agent.posture",
            "proven identity",
            "",
            id="posture in process",
        ),
        pytest.param(
            "in_process: true}",
            "in_process: true, @@boundary: {cluster: [a]}}",
            "who.agent.boundary",
            "proven identity",
            "",
            id="boundary in process",
        ),
        pytest.param("effect: read", "effect: @@reed", "tools.orders.get.effect", "read", "read", id="unknown effect"),
        pytest.param("redeem: wrapper", "redeem: @@agent", "tools.orders.get.redeem", "wrapper", "", id="unknown redeemer"),
        pytest.param("needs: any", "needs: @@all", "tools.orders.get.needs", "any or none", "", id="needs a word that is none"),
        pytest.param("type: id", "type: @@idd", "tools.orders.get.args.order_id.type", "one of boolean", "id", id="unknown type"),
        pytest.param(
            "type: id,", "type: id, @@matches: x,", "tools.orders.get.args.order_id.matches", "unknown key", "", id="unknown operator"
        ),
        pytest.param(
            "type: id,", "type: id, @@not_in: [x],", "tools.orders.get.args.order_id.not_in", "unknown key", "", id="negation in a grant"
        ),
        pytest.param(
            "type: id,",
            "type: id, optional: @@'yes',",
            "tools.orders.get.args.order_id.optional",
            "true or false",
            "",
            id="text as boolean",
        ),
        pytest.param(
            "type: id,", "type: id, max_items: @@0,", "tools.orders.get.args.order_id.max_items", "at least 1", "", id="max_items zero"
        ),
        pytest.param("tools:\n", "mode: @@dry\ntools:\n", "mode", "observe", "", id="unknown mode"),
        pytest.param("tools:\n", "token: {ttl: @@60}\ntools:\n", "token.ttl", "a duration", "", id="duration without unit"),
        pytest.param("tools:\n", "token: {ttl: @@10m}\ntools:\n", "token.ttl", "at most 300s", "", id="token lives too long"),
        pytest.param("tools:\n", "token: {uses: @@2}\ntools:\n", "token.uses", "1", "", id="token used twice"),
        pytest.param(
            "tools:\n",
            "token: {bound_to: @@[agent_key]}\ntools:\n",
            "token.bound_to",
            "bound to its call",
            "",
            id="token not bound to its call",
        ),
        pytest.param("tools:\n", "@@conditions: {}\ntools:\n", "conditions", "at least one of", "", id="empty conditions"),
        pytest.param(
            "tools:\n", "conditions: {network: [@@10.0.0.1/8]}\ntools:\n", "conditions.network[0]", "CIDR", "", id="network with host bits"
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: [@@monday], from: '08:00', to: '09:00', zone: UTC}}\ntools:\n",
            "conditions.hours.days[0]",
            "mon",
            "mon",
            id="unknown day",
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: @@[mon, mon], from: '08:00', to: '09:00', zone: UTC}}\ntools:\n",
            "conditions.hours.days",
            "'mon' is repeated",
            "",
            id="day twice",
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: [mon], from: @@'8:00', to: '09:00', zone: UTC}}\ntools:\n",
            "conditions.hours.from",
            "time of day",
            "",
            id="hour of one digit",
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: [mon], from: @@'08:00', to: '08:00', zone: UTC}}\ntools:\n",
            "conditions.hours.from",
            "ambiguous",
            "",
            id="empty window",
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: [mon], from: '08:00', to: '09:00', zone: @@Europe/Berln}}\ntools:\n",
            "conditions.hours.zone",
            "IANA",
            "",
            id="unknown zone",
        ),
        pytest.param(
            "tools:\n",
            "conditions: {hours: {days: [mon], from: '08:00', to: '09:00', zone: @@../etc/passwd}}\ntools:\n",
            "conditions.hours.zone",
            "IANA",
            "",
            id="zone outside the data",
        ),
        pytest.param("in_process: true", "in_process: @@1", "who.agent.in_process", "true", "", id="one for true"),
        pytest.param("same_tenant: true", "same_tenant: @@1", "who.for_user.same_tenant", "true", "", id="one for true, again"),
        pytest.param("tools:\n", "token: {uses: @@true}\ntools:\n", "token.uses", "1", "", id="true for one"),
        pytest.param("tools:\n", "@@when: {}\ntools:\n", "when", "unknown key", "", id="unknown block"),
    ],
)
def test_refuses_the_wrong_shape(old, new, field, expected, hint):
    expect_one(changed(SMALL, old, new), field, expected, hint)


def test_a_missing_key_is_named_at_its_block():
    expect_one(changed(SMALL, "  orders.get:\n    effect: read\n", "  @@orders.get:\n"), "tools.orders.get.effect", "effect: (required)")
    expect_one("@@" + changed(SMALL, "risk: low\n", ""), "risk", "risk: (required)")


@pytest.mark.parametrize("text", ["[1, 2]", "text", "3"])
def test_a_file_that_is_no_mapping_is_refused(text):
    expect_one("@@" + text, "document", "a mapping that starts with agentgate: workflow/v1")


@pytest.mark.parametrize(
    ("agent", "field", "expected"),
    [
        ("spiffe: [@@'spiffe://acme.example/*']", "who.agent.spiffe[0]", "no wildcards"),
        ("spiffe: [@@'https://acme.example/a']", "who.agent.spiffe[0]", "spiffe://"),
        ("oidc: {issuer: @@'http://idp.example', claims: {sub: {is: a}}}", "who.agent.oidc.issuer", "https://"),
        ("oidc: {issuer: 'https://idp.example', claims: @@{}}", "who.agent.oidc.claims", "at least one"),
        ("oidc: {issuer: 'https://idp.example', claims: {@@sub: {}}}", "who.agent.oidc.claims.sub", "exactly one of is, in"),
        ("oidc: {issuer: 'https://idp.example', claims: {@@sub: {is: a, in: [b]}}}", "who.agent.oidc.claims.sub", "exactly one of is, in"),
        ("oidc: {issuer: 'https://idp.example', claims: {sub: {@@like: a}}}", "who.agent.oidc.claims.sub.like", "unknown key"),
        ("oidc: {issuer: 'https://idp.example', claims: {sub: {is: @@5}}}", "who.agent.oidc.claims.sub.is", "text"),
        ("spiffe: ['spiffe://a/b'], @@posture: {}", "who.agent.posture", "at least one of"),
        ("spiffe: ['spiffe://a/b'], @@boundary: {}", "who.agent.boundary", "at least one of"),
        ("spiffe: ['spiffe://a/b'], boundary: {same_key_as_last_token: @@false}", "who.agent.boundary.same_key_as_last_token", "true"),
    ],
)
def test_refuses_an_agent_that_is_not_exactly_named(agent, field, expected):
    expect_one(changed(SMALL, "in_process: true", agent), field, expected)


@pytest.mark.parametrize(
    "ways",
    [
        "in_process: true, spiffe: ['spiffe://a/b']",
        "in_process: true, oidc: {issuer: 'https://i.example', claims: {sub: {is: a}}}",
        "spiffe: ['spiffe://a/b'], oidc: {issuer: 'https://i.example', claims: {sub: {is: a}}}",
    ],
)
def test_an_agent_is_known_in_one_way_only(ways):
    expect_one(
        changed(SMALL, "{agent: {in_process: true}", "{@@agent: {" + ways + "}"), "who.agent", "exactly one of in_process, spiffe, oidc"
    )


@pytest.mark.parametrize("hops", ["@@0", "@@9", "@@'1'"])
def test_delegation_is_short_and_counted(hops):
    expect_one(changed(SMALL, "for_user: {same_tenant: true}", "via: {max_hops: " + hops + ", brokers: [a]}"), "who.via.max_hops", "")


# --- meaning: one argument -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "field", "expected", "hint"),
    [
        pytest.param("@@x: {text: 9}", "x", "from: where the value may come from (a write tool)", "", id="write argument without from"),
        pytest.param("@@x: {from: [model]}", "x", "at least one operator", "", id="no rule at all"),
        pytest.param("@@x: {type: text, from: [model, look.note]}", "x", "at least one operator", "", id="model with nothing to hold it"),
        pytest.param("x: {from: [@@promt], type: id}", "x.from[0]", "prompt, model", "prompt", id="unknown origin"),
        pytest.param("x: {from: [@@lok.note]}", "x.from[0]", "a declared tool", "look.note", id="origin from an undeclared tool"),
        pytest.param(
            "x: {from: [@@look.noet]}",
            "x.from[0]",
            "a fact or argument that look declares",
            "look.note",
            id="origin from an undeclared fact",
        ),
        pytest.param(
            "x: {from: [@@look.up.note]}",
            "x.from[0]",
            "that look.up declares (name, of)",
            "look.note",
            id="longest tool name wins, even if it lacks the fact",
        ),
        pytest.param("x: {from: [@@look]}", "x.from[0]", "a fact or argument", "look.key", id="a tool is no origin"),
        pytest.param("x: {from: [@@send.echo]}", "x.from[0]", "launder", "", id="result of a write"),
        pytest.param("x: {type: boolean, from: [@@prompt]}", "x.from[0]", "a type that is found in a prompt", "", id="prompt for a yes"),
        pytest.param("x: {type: boolean, from: [@@prompt]}", "x.from[0]", "prompt for type boolean", "", id="prompt for boolean"),
        pytest.param("x: {type: email, from: [@@look.link]}", "x.from[0]", "a email from a url", "", id="types that never equal"),
        pytest.param("x: {type: number, from: [@@look.note]}", "x.from[0]", "a number from a text", "", id="number from text"),
        pytest.param(
            "x: {type: number, from: [@@look.cost]}", "x.from[0]", "a number from a money", "", id="money without its currency, as number"
        ),
        pytest.param(
            "x: {type: money, currency: unit, from: [@@look.size]}", "x.from[0]", "a money from a integer", "", id="money from a number"
        ),
        pytest.param(
            "x: {type: money, currency: unit, from: [@@look.bare]}",
            "x.from[0]",
            "never compared without",
            "",
            id="money from money without currency",
        ),
        pytest.param("@@x: {type: money, from: [look.cost]}", "x", "money without a currency", "", id="money compared without currency"),
        pytest.param(
            '@@x: {type: money, min: "1", max: "2", from: [model]}',
            "x",
            "money without a currency",
            "",
            id="money in a range without currency",
        ),
        pytest.param(
            "x: {type: money, currency: @@unti, from: [model]}", "x.currency", "an argument of send", "unit", id="currency nobody sends"
        ),
        pytest.param(
            "x: {type: number, @@currency: unit, from: [model]}", "x.currency", "only on type money", "", id="currency of a number"
        ),
        pytest.param(
            "x: {type: money, currency: @@x, from: [model]}", "x.currency", "one text and not optional", "", id="currency that is not text"
        ),
        pytest.param(
            "x: {type: number, at_most: @@look.note, from: [model]}", "x.at_most", "number at most text", "", id="bound of another type"
        ),
        pytest.param(
            "x: {type: number, at_most: @@look.cost, from: [model]}", "x.at_most", "number at most money", "", id="number bounded by money"
        ),
        pytest.param(
            "x: {type: money, currency: unit, at_most: @@look.bare, from: [model]}",
            "x.at_most",
            "without a currency",
            "",
            id="bound without currency",
        ),
        pytest.param("x: {type: id, at_most: @@look.key, from: [model]}", "x.at_most", "a fact", "", id="bound by an argument"),
        pytest.param(
            "x: {type: number, at_most: @@look.siez, from: [model]}", "x.at_most", "declares", "look.size", id="bound by an undeclared fact"
        ),
        pytest.param('x: {@@min: "1", from: [model]}', "x.min", "min and max, both", "", id="min alone"),
        pytest.param('x: {@@max: "1", from: [model]}', "x.max", "min and max, both", "", id="max alone"),
        pytest.param('x: {min: @@"2", max: "1", from: [model]}', "x.min", "nothing is inside", "", id="range upside down"),
        pytest.param('x: {type: integer, min: @@"0.5", max: "2", from: [model]}', "x.min", "whole numbers", "", id="half integers"),
        pytest.param(
            'x: {type: id, @@min: "1", max: "2", from: [model]}', "x.min", "only on money, number or integer", "", id="range of ids"
        ),
        pytest.param('x: {min: @@"1e3", max: "2", from: [model]}', "x.min", "a number", "", id="exponent"),
        pytest.param('x: {min: @@"1_000", max: "2000", from: [model]}', "x.min", "a number", "", id="underscores"),
        pytest.param('x: {min: @@"1234567890123456", max: "2", from: [model]}', "x.min", "15 digits", "", id="sixteen digits"),
        pytest.param("x: {min: @@true, max: 2, from: [model]}", "x.min", "a number", "", id="boolean as number"),
        pytest.param("x: {pattern: @@'^a$', from: [model]}", "x.pattern", "no ^ $", "", id="anchored by hand"),
        pytest.param("x: {pattern: @@'a(?=b)', from: [model]}", "x.pattern", "RE2", "", id="look-around"),
        pytest.param("x: {pattern: @@'a(', from: [model]}", "x.pattern", "RE2", "", id="broken pattern"),
        pytest.param("x: {glob: @@'a/../b', from: [model]}", "x.glob", "never matches", "", id="dots in a glob"),
        pytest.param("x: {glob: @@'a/***', from: [model]}", "x.glob", "* or **", "", id="three stars"),
        pytest.param("x: {type: number, @@pattern: a, from: [model]}", "x.pattern", "only on text", "", id="pattern on a number"),
        pytest.param("x: {type: email, @@text: 9, from: [model]}", "x.text", "text beside type email", "", id="free text of a type"),
        pytest.param("x: {text: @@0, from: [model]}", "x.text", "at least 1", "", id="text of nothing"),
        pytest.param("x: {is: a, @@in: [b], from: [model]}", "x.in", "one of them", "", id="is and in"),
        pytest.param("x: {type: integer, is: @@one, from: [model]}", "x.is", "integer in normal form", "", id="constant not of its type"),
        pytest.param(
            "x: {type: email, in: [a@b.example, @@A@b.example], from: [model]}",
            "x.in[1]",
            "email in normal form",
            "",
            id="constant not in normal form",
        ),
        pytest.param(
            "x: {in: @@[b, c], pattern: a, from: [model]}", "x.in", "outside the other operators", "", id="constants outside the pattern"
        ),
        pytest.param(
            'x: {is: @@9, min: "1", max: "2", from: [model]}', "x.is", "outside the other operators", "", id="constant outside the range"
        ),
        pytest.param("x: {@@each_in: [a], from: [model]}", "x.each_in", "max_items", "", id="each_in without max_items"),
        pytest.param("x: {in: [a], @@max_items: 2, from: [model]}", "x.max_items", "each_in", "", id="in on a list"),
        pytest.param("x: {in: [a], @@each_in: [a], max_items: 2, from: [model]}", "x.each_in", "one of them", "", id="in and each_in"),
        pytest.param("x: {each_in: @@[], max_items: 2, from: [model]}", "x.each_in", "grants nothing", "", id="each_in of nothing"),
        pytest.param(
            "x: {narrower_than_role: @@orchestratr, max_items: 2, from: [model]}",
            "x.narrower_than_role",
            "a role of roles.yaml",
            "orchestrator",
            id="unknown role",
        ),
        pytest.param(
            "x: {@@narrower_than_role: orchestrator, from: [model]}", "x.narrower_than_role", "max_items", "", id="role of one value"
        ),
        pytest.param(
            "x: {narrower_than_role: orchestrator, each_in: [@@jobs:raed], max_items: 2, from: [model]}",
            "x.each_in[0]",
            "a scope of role",
            "jobs:read",
            id="scope outside the role",
        ),
        pytest.param(
            "x: {type: id, @@unknown_origin: step_up}", "x.unknown_origin", "without from", "", id="unknown origin without known ones"
        ),
        pytest.param("x: {type: id, @@any_call: true, from: [prompt]}", "x.any_call", "earlier call", "", id="any_call without a call"),
        pytest.param(
            "x: {type: email, @@entities: [prompt], from: [prompt]}", "x.entities", "only on free text", "", id="entities of an email"
        ),
        pytest.param(
            "x: {text: 9, entities: [@@model], from: [model]}",
            "x.entities[0]",
            "every address the model writes",
            "",
            id="entities by the model",
        ),
        pytest.param(
            "x: {text: 9, entities: [@@look.mial], from: [model]}",
            "x.entities[0]",
            "declares",
            "look.mail",
            id="entities from an undeclared fact",
        ),
        pytest.param("x: {in: [@@[a]], from: [model]}", "x.in[0]", "text, a whole number", "", id="a list among constants"),
        pytest.param("x: {glob: @@" + "a" * 600 + ", from: [model]}", "x.glob", "at most 512", "", id="endless glob"),
        pytest.param(
            "x: {narrower_than_role: @@one, max_items: 2, from: [model]}",
            "x.narrower_than_role",
            "narrower than itself",
            "",
            id="role of one scope",
        ),
        pytest.param("x: {text: 9, from: @@[]}", "x.from", "grants nothing", "", id="from nothing"),
        pytest.param("x: {text: 9, from: @@model}", "x.from", "a list in brackets", "", id="from as text"),
    ],
)
def test_refuses_an_argument_that_can_never_hold_or_is_not_said(rule, field, expected, hint):
    text = changed(PAIR, "x: {X}", rule)
    if rule.startswith("x: {type: id, @@unknown_origin"):
        found = problems(marked(text)[0])
        assert {p.field for p in found} == {"tools.send", "tools.send.args.x", "tools.send.args.x.unknown_origin"}
        return
    expect_one(text, f"tools.send.args.{field}", expected, hint, {**ROLES, "one": frozenset({"a"})})


@pytest.mark.parametrize(
    ("old", "new", "field", "expected", "hint"),
    [
        pytest.param(
            "mail: {type: email}",
            "mail: {type: email, @@currency: unit}",
            "mail.currency",
            "only on type money",
            "",
            id="currency of an email",
        ),
        pytest.param("currency: unit}", "currency: @@unti}", "cost.currency", "a fact of look", "unit", id="currency nobody returns"),
        pytest.param("currency: unit}", "currency: @@size}", "cost.currency", "a fact of type text", "", id="currency that is a number"),
        pytest.param("mail: {type: email}", "mail: {@@typ: email}", "mail.typ", "unknown key", "type", id="misspelt key of a fact"),
        pytest.param("mail: {type: email}", "mail: {type: email, path: @@'a..b'}", "mail.path", "joined by dots", "", id="empty step"),
        pytest.param("mail: {type: email}", "mail: {type: email, path: @@'a[0].b'}", "mail.path", "[] after a list", "", id="index"),
        pytest.param(
            "mail: {type: email}", "mail: {type: email, path: @@'a.[].b'}", "mail.path", "[] after a list", "", id="list after a dot"
        ),
        pytest.param("mail: {type: email}", "mail: {type: email, trust: @@always}", "mail.trust", "named", "", id="unknown trust"),
        pytest.param("mail: {type: email}", "mail: {type: email, pattern: @@'a$'}", "mail.pattern", "no ^ $", "", id="anchored pattern"),
        pytest.param(
            "size: {type: integer}", "size: {type: integer, @@pattern: a}", "size.pattern", "only on text", "", id="pattern on a number"
        ),
        pytest.param(
            "mail: {type: email}",
            "mail: {type: email}\n      @@key: {type: id}",
            "key",
            "also an argument",
            "",
            id="fact named like an argument",
        ),
    ],
)
def test_refuses_a_fact_that_nobody_can_read(old, new, field, expected, hint):
    text = changed(PAIR, old, new).replace("{X}", "{text: 9, from: [model]}")
    expect_one(text, f"tools.look.facts.{field}", expected, hint)


def test_a_named_fact_needs_arguments_from_the_prompt():
    text = changed(PAIR, "mail: {type: email}", "mail: {type: email, trust: @@named}").replace("{X}", "{type: email, from: [look.mail]}")
    load(marked(text)[0])
    expect_one(
        changed(text, "key: {type: id, from: [prompt]}", "key: {type: id, from: [model]}"),
        "tools.look.facts.mail.trust",
        "from: [prompt] on every argument",
    )


def test_a_read_that_others_refer_to_says_where_its_arguments_come_from():
    text = PAIR.replace("{X}", "{text: 9, from: [model]}")
    expect_one(changed(text, "{key: {type: id, from: [prompt]}}", "{@@key: {type: id}}"), "tools.look.args.key", "steers")
    load(changed(text, "{of: {type: id, from: [prompt]}}", "{of: {type: id}}"))  # nobody refers to look.up


# --- meaning: tools, order, amounts, people ---------------------------------------------------------------------------------

BLOCKS = PAIR.replace("{X}", '{type: money, currency: unit, min: "1", max: "100", from: [prompt]}')


@pytest.mark.parametrize(
    ("old", "new", "field", "expected", "hint"),
    [
        pytest.param(
            "    needs: [send]\n",
            "    needs: [@@sned]\n",
            "tools.send.needs[0]",
            "never be reached",
            "send",
            id="intent that does not exist",
        ),
        pytest.param("    needs: [send]\n", "    needs: @@any\n", "tools.send.needs", "only reads may say any", "", id="any on a write"),
        pytest.param(
            "    needs: [send]\n",
            "    needs: @@none\n",
            "tools.send.needs",
            "none is for a workflow whose intents say none",
            "",
            id="none on a write",
        ),
        pytest.param("    needs: [send]\n", "    needs: [send, @@any]\n", "tools.send.needs[1]", "alone", "", id="any among intents"),
        pytest.param("    needs: [send]\n", "    needs: @@[]\n", "tools.send.needs", "grants nothing", "", id="needs nothing"),
        pytest.param(
            "  send: {asks",
            "  @@any: {asks_for: A., words: [aa], examples: [aa]}\n  send: {asks",
            "intents.any",
            "reserved",
            "",
            id="intent named any",
        ),
        pytest.param("  send: {asks", "  none: Nothing.\n  send: {asks", None, "'none' alone", "", id="none beside intents"),
        pytest.param("  look.up:", "  @@any:", "tools.any", "all tools", "", id="tool named any"),
        pytest.param(
            "  send:\n    effect: write\n    needs: [send]\n    redeem: wrapper",
            "  @@send:\n    effect: write\n    needs: [send]\n    redeem: server",
            "tools.send",
            "audience, scope, definition",
            "",
            id="server without a pin",
        ),
        pytest.param(
            "  send:\n    effect: write",
            "  send:\n    audience: @@'https://a.example?x=1'\n    effect: write",
            "tools.send.audience",
            "without query",
            "",
            id="audience with query",
        ),
        pytest.param(
            "  send:\n    effect: write",
            "  send:\n    audience: @@'http://a.example'\n    effect: write",
            "tools.send.audience",
            "https://",
            "",
            id="audience without TLS",
        ),
        pytest.param(
            "  send:\n    effect: write",
            "  send:\n    scope: [@@'all:*']\n    effect: write",
            "tools.send.scope[0]",
            "'*'",
            "",
            id="wildcard scope",
        ),
        pytest.param(
            "  send:\n    effect: write",
            "  send:\n    definition: @@sha256:ABC\n    effect: write",
            "tools.send.definition",
            "64 lower-case hex",
            "",
            id="digest that is none",
        ),
        pytest.param(
            "words: [send],",
            "words: [send], unclear: @@allow,",
            "intents.send.unclear",
            "deny, confirm, step_up or reader",
            "",
            id="unclear means allow",
        ),
        pytest.param(
            "examples: [Send it]", "examples: [@@Look at it]", "intents.send.examples[0]", "present", "", id="example that is not present"
        ),
        pytest.param(
            "examples: [Send it]",
            "examples: [Send it], @@counter_examples: [Send it]",
            "intents.send.counter_examples",
            "not also an example",
            "",
            id="example and counter-example",
        ),
        pytest.param(
            "tools:\n",
            "sequence: [{before: send, require: @@loook}]\ntools:\n",
            "sequence[0].require",
            "a declared tool",
            "look",
            id="require an undeclared tool",
        ),
        pytest.param(
            "tools:\n",
            "sequence: [{before: @@snd, require: look}]\ntools:\n",
            "sequence[0].before",
            "a declared tool",
            "send",
            id="before an undeclared tool",
        ),
        pytest.param(
            "tools:\n",
            "sequence: [{before: send, require: @@send}]\ntools:\n",
            "sequence[0].require",
            "never be first",
            "",
            id="require itself",
        ),
        pytest.param(
            "tools:\n",
            "sequence: [{before: send, require: look, within: @@soon}]\ntools:\n",
            "sequence[0].within",
            "a duration",
            "",
            id="within soon",
        ),
        pytest.param("tools:\n", "sequence: [@@{before: send}]\ntools:\n", "sequence[0].require", "(required)", "", id="require nothing"),
        pytest.param(
            "tools:\n",
            "limits: [{count: @@sendd, max: 1, per: run}]\ntools:\n",
            "limits[0].count",
            "a declared tool",
            "send",
            id="count an undeclared tool",
        ),
        pytest.param(
            "tools:\n", "limits: [{count: send, max: @@0, per: run}]\ntools:\n", "limits[0].max", "from 1", "", id="count of none"
        ),
        pytest.param(
            "tools:\n",
            'limits: [{count: send, max: @@"1.5", per: run}]\ntools:\n',
            "limits[0].max",
            "a whole number",
            "",
            id="one and a half calls",
        ),
        pytest.param(
            "tools:\n", "limits: [@@{max: 1, per: run}]\ntools:\n", "limits[0]", "exactly one of count, sum", "", id="limit of nothing"
        ),
        pytest.param(
            "tools:\n",
            "limits: [@@{count: send, sum: send.x, max: 1, per: run}]\ntools:\n",
            "limits[0]",
            "exactly one of count, sum",
            "",
            id="count and sum",
        ),
        pytest.param(
            "tools:\n",
            "limits: [{count: send, max: 1, per: @@user}]\ntools:\n",
            "limits[0].per",
            "run, conversation, agent or tenant",
            "",
            id="per nobody",
        ),
        pytest.param(
            "tools:\n",
            'limits: [{sum: @@send.y, max: "9", per: run}]\ntools:\n',
            "limits[0].sum",
            "tool.argument",
            "send.x",
            id="sum of an undeclared argument",
        ),
        pytest.param(
            "tools:\n",
            'limits: [{sum: @@send.unit, max: "9", per: run}]\ntools:\n',
            "limits[0].sum",
            "money, number or integer",
            "",
            id="sum of text",
        ),
        pytest.param(
            "tools:\n",
            'limits: [{sum: send.x, max: @@"0.00001", per: run}]\ntools:\n',
            "limits[0].max",
            "4 decimals",
            "",
            id="sum too fine",
        ),
        pytest.param(
            "tools:\n",
            'limits: [{sum: send.x, max: @@"0.5", per: run}]\ntools:\n',
            "limits[0].max",
            "nothing would ever fit",
            "",
            id="sum below the least amount",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: @@sendd, approvers: {group: g}, timeout: 1m}]\ntools:\n",
            "step_up[0].for",
            "a declared tool",
            "send",
            id="step-up for an undeclared tool",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, approvers: {group: g}, timeout: 1m, show: [@@unti]}]\ntools:\n",
            "step_up[0].show[0]",
            "an argument of send",
            "unit",
            id="show an undeclared argument",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, when: {@@unti: {not_in: [EUR]}}, approvers: {group: g}, timeout: 1m}]\ntools:\n",
            "step_up[0].when.unti",
            "an argument of send",
            "unit",
            id="when an undeclared argument",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, when: {@@x: {}}, approvers: {group: g}, timeout: 1m}]\ntools:\n",
            "step_up[0].when.x",
            "operator",
            "",
            id="when without an operator",
        ),
        pytest.param(
            "tools:\n",
            'step_up: [{id: a, for: send, when: {unit: {@@above: "1"}}, approvers: {group: g}, timeout: 1m}]\ntools:\n',
            "step_up[0].when.unit.above",
            "above on a text",
            "",
            id="text above",
        ),
        pytest.param(
            "tools:\n",
            'step_up: [{id: a, for: send, when: {x: {above: @@"100"}}, approvers: {group: g}, timeout: 1m}]\ntools:\n',
            "step_up[0].when.x.above",
            "never ask",
            "",
            id="above the maximum",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, when: {x: {origin: @@unknown}}, approvers: {group: g}, timeout: 1m}]\ntools:\n",
            "step_up[0].when.x.origin",
            "unknown_origin: step_up",
            "",
            id="unknown origin that is refused first",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, when: {x: {origin: [@@look.csot]}}, approvers: {group: g}, timeout: 1m}]\ntools:\n",
            "step_up[0].when.x.origin[0]",
            "declares",
            "look.cost",
            id="undeclared origin",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, approvers: {group: g, count: @@0}, timeout: 1m}]\ntools:\n",
            "step_up[0].approvers.count",
            "at least 1",
            "",
            id="nobody approves",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, approvers: {group: g, not: @@[]}, timeout: 1m}]\ntools:\n",
            "step_up[0].approvers.not",
            "at least one",
            "",
            id="requester approves",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, @@approvers: {}, timeout: 1m}]\ntools:\n",
            "step_up[0].approvers",
            "exactly one of group, user: true",
            "",
            id="approvers without a group",
        ),
        pytest.param(
            "tools:\n",
            "step_up: [{id: a, for: send, approvers: {group: g}, timeout: @@30d}]\ntools:\n",
            "step_up[0].timeout",
            "at most 7d",
            "",
            id="waits a month",
        ),
        pytest.param(
            "tools:\n",
            "step_up:\n- {id: a, for: send, approvers: {group: g}, timeout: 1m}\n"
            "- {id: @@a, for: send, approvers: {group: g}, timeout: 1m}\ntools:\n",
            "step_up[1].id",
            "of its own",
            "",
            id="two rules of one id",
        ),
        pytest.param(
            "tools:\n",
            "upstream: {@@sendd: {broker: vault}}\ntools:\n",
            "upstream.sendd",
            "a declared tool",
            "send",
            id="upstream of an undeclared tool",
        ),
        pytest.param(
            "tools:\n",
            "upstream: {send: {broker: vault, @@rol: a}}\ntools:\n",
            "upstream.send.rol",
            "unknown key",
            "role",
            id="unknown upstream setting",
        ),
        pytest.param(
            "tools:\n",
            "upstream: {send: {broker: vault, narrower_than: @@payments-suport}}\ntools:\n",
            "upstream.send.narrower_than",
            "a role of roles.yaml",
            "payments-support",
            id="upstream narrower than an unknown role",
        ),
        pytest.param(
            "tools:\n",
            "upstream: {send: {broker: vault, narrower_than: @@payments-support}}\ntools:\n",
            "upstream.send.narrower_than",
            "a strict subset",
            "",
            id="upstream narrower without a scope",
        ),
    ],
)
def test_refuses_what_cannot_work(old, new, field, expected, hint):
    text = changed(BLOCKS, old, new)
    if field is None:
        (problem,) = problems(text)
        assert expected in problem.expected
        assert problem.field == "intents"
        return
    expect_one(text, field, expected, hint)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'type: money, currency: unit, min: "1", max: "100", from: [prompt]}',
            "type: money, currency: unit, from: [prompt]}",
            "may be negative",
        ),
        ('min: "1", max: "100"', 'min: "-1", max: "100"', "may be negative"),
        ('max: "100", from: [prompt]}', 'max: "100", optional: true, from: [prompt]}', "optional"),
        ('type: money, currency: unit, min: "1"', 'type: number, min: "-1"', "may be negative"),
    ],
)
def test_a_sum_cannot_be_slipped_past(old, new, expected):
    text = changed(BLOCKS, "tools:\n", 'limits: [{sum: @@send.x, max: "900", per: tenant, every: 1d}]\ntools:\n')
    expect_one(changed(text, old, new), "limits[0].sum", expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("{count: send, max: 1, per: run}", "{count: send, max: 2, per: run}", "one limit for it (the lower max), or another per"),
        ("{count: send, max: 1, per: run}", "{count: send, max: 1, per: run}", "a second limit of send.count per run (first on line "),
        ("{count: any, max: 9, per: agent, every: 1d}", "{count: any, max: 5, per: agent, every: 24h}", "one limit for it"),
        ('{sum: send.x, max: "900", per: tenant}', '{sum: send.x, max: "90", per: tenant}', "a second limit of send.x per tenant"),
        ('{sum: send.count, max: "900", per: run}', "{count: send, max: 2, per: run}", "another name for the argument count"),
        ("{count: send, max: 2, per: run}", '{sum: send.count, max: "900", per: run}', "another name for the argument count"),
    ],
)
def test_two_limits_never_share_a_counter(first, second, expected):
    """They loaded, and then every call was refused: a call takes from a counter once."""
    text = BLOCKS.replace("      x:", "      count: {type: integer, min: 0, max: 9, from: [model]}\n      x:")
    expect_one(changed(text, "tools:\n", f"limits: [{first}, @@{second}]\ntools:\n"), "limits[1]", expected)


def test_money_is_not_summed_without_a_currency():
    text = PAIR.replace("{X}", "{type: money, from: [model]}")
    expect_one(
        changed(text, "tools:\n", 'limits: [{sum: @@send.x, max: "900", per: tenant}]\ntools:\n'), "limits[0].sum", "never summed without"
    )


def test_money_is_not_held_against_a_threshold_without_a_currency():
    text = PAIR.replace("{X}", "{type: money, from: [model]}")
    rule = 'step_up: [{id: a, for: send, when: {x: {@@above: "1"}}, approvers: {group: g}, timeout: 1m}]\ntools:\n'
    expect_one(changed(text, "tools:\n", rule), "step_up[0].when.x.above", "money without a currency")


def test_a_currency_that_may_be_left_out_compares_nothing():
    text = changed(BLOCKS, "from: [look.unit]}", "from: [look.unit], optional: true}")
    expect_one(changed(text, "currency: unit, min", "currency: @@unit, min"), "tools.send.args.x.currency", "not optional")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x: {type: money", "kind: {type: id, from: [prompt], unknown_origin: step_up}\n      x: {type: money"),
        ("words: [send],", "words: [send], unclear: step_up,"),
    ],
)
def test_a_tool_that_can_step_up_has_a_rule_that_is_answered(old, new):
    text = changed(BLOCKS, old, new)
    assert {p.field for p in problems(text)} <= {"tools.send", "tools.follow"}
    rules = ", ".join(f"{{id: {t}, for: {t}, approvers: {{group: leads}}, timeout: 10m}}" for t in ("send", "follow"))
    load(changed(text, "tools:\n", f"step_up: [{rules}]\ntools:\n"))


def test_a_step_up_without_show_shows_every_argument():
    text = changed(BLOCKS, "tools:\n", "step_up: [{id: a, for: send, approvers: {group: g}, timeout: 1m}]\ntools:\n")
    assert load(text).tools["send"].step_ups[0].show == ("unit", "x")


@pytest.mark.parametrize(
    ("changes", "stuck"),
    [
        ([("tools:\n", "sequence: [{before: send, require: follow}]\ntools:\n")], {"tools.send", "tools.follow"}),
        (
            [("tools:\n", "sequence: [{before: look, require: look.up}, {before: look.up, require: look}]\ntools:\n")],
            {"tools.look", "tools.look.up", "tools.send", "tools.follow"},
        ),
        (
            [
                ("key: {type: id, from: [prompt]}", "key: {type: id, from: [look.up.name]}"),
                ("of: {type: id, from: [prompt]}", "of: {type: id, from: [look.note]}"),
            ],
            {"tools.look", "tools.look.up", "tools.send", "tools.follow"},
        ),
    ],
    ids=["a write waits for what waits for it", "two reads require each other", "two reads take their arguments from each other"],
)
def test_tools_that_wait_for_each_other_are_never_reached(changes, stuck):
    text = BLOCKS
    for old, new in changes:
        text = changed(text, old, new)
    found = problems(text)
    assert {p.field for p in found} == stuck
    assert all("never be reached" in p.got for p in found)


@pytest.mark.parametrize(
    ("old", "new", "tool"),
    [
        ('x: {type: money, currency: unit, min: "1", max: "100", from: [prompt]}', "x: {type: id, from: [send.x]}", "send"),
        ("key: {type: id, from: [prompt]}", "key: {type: integer, from: [prompt], at_most: look.size}", "look"),
    ],
    ids=["only its own earlier value", "bounded by its own earlier result"],
)
def test_a_tool_that_waits_for_itself_is_never_reached(old, new, tool):
    found = problems(changed(BLOCKS, old, new))
    assert f"tools.{tool}" in {p.field for p in found}
    assert all("never be reached" in p.got for p in found)


def test_arguments_that_later_calls_refer_to_are_kept_with_their_currency():
    text = changed(
        BLOCKS,
        "receipt: {type: id, from: [send.receipt]}",
        "unit: {from: [look.unit]}, again: {type: money, currency: unit, from: [send.x]}",
    )
    assert load(text).tools["send"].referenced == {"x", "unit"}


def test_text_without_a_canonical_form_is_refused():
    assert problems(changed(SMALL, "owners: [lee]", 'owners: ["\\ud800"]'))


def test_a_prompt_may_name_what_a_workflow_without_intents_reads():
    text = changed(SMALL, "'ORD-[0-9]{8}'}", "'ORD-[0-9]{8}', from: [prompt]}")
    assert load(text).tools["orders.get"].args["order_id"].sources == (Source("prompt"),)


def test_where_nobody_speaks_a_prompt_is_no_origin():
    text = (WORKFLOWS / "ci/deploy.yaml").read_text()
    expect_one(
        changed(
            text, "service: {in: [shop-web, shop-api], from: [model]}", "service: {type: id, in: [shop-web, shop-api], from: [@@prompt]}"
        ),
        "tools.cloud.assume-deploy-role.args.service.from[0]",
        "nobody speaks here",
    )


def test_a_workflow_without_intents_says_why_and_its_tools_say_none():
    expect_one(changed(SMALL, "needs: any", "needs: [@@look]"), "tools.orders.get.needs[0]", "none (this workflow has no intents)")
    load(changed(SMALL, "needs: any", "needs: none"))
    expect_one(
        changed(SMALL, 'intents: {none: "Reads one order and nothing else."}', "intents: @@{none: ''}"),
        "intents",
        "says why",
    )
    expect_one(
        changed(SMALL, 'intents: {none: "Reads one order and nothing else."}', "intents: @@{}"),
        "intents",
        "at least one intent",
    )


def test_an_example_the_deriver_reads_otherwise_stops_the_load():
    found = problems(PAYMENT, deriver=lambda _intents, _turns: {})
    assert [(p.field, p.got) for p in found] == [(f"intents.refund.examples[{n}]", "absent (the deriver left it out)") for n in (0, 1)]
    from agentgate.values.request import Derived

    found = problems(PAYMENT, deriver=lambda intents, _turns: {i.name: Derived("present", "always") for i in intents})
    assert [(p.field, p.got) for p in found] == [
        ("intents.refund.counter_examples[0]", "present (always)"),
        ("intents.refund.counter_examples[1]", "present (always)"),
    ]
    lines = PAYMENT.splitlines()
    assert [lines[p.data["line"] - 1][p.data["column"] - 1 :] for p in found] == [
        "What is the status of ORD-10023344?",
        "Refund all orders from last week",
    ]


def test_all_problems_of_a_file_come_together_in_its_order():
    text = PAYMENT
    for old, new in (
        ("risk: high", "rsk: hihg"),
        ("zone: Europe/Berlin", "zone: Europe/Berln"),
        ("needs: [refund]", "needs: [refnd]"),
        ("at_most: orders.get.total", "at_most: orders.get.totl"),
        ("max: 1, per: run", "max: 010, per: run"),
        ("show: [order_id", "show: [order"),
        ("ttl: 60s", "ttl: 60"),
    ):
        text = changed(text, old, new)
    found = problems(text)
    assert [p.field for p in found] == [
        "rsk",
        "risk",
        "conditions.hours.zone",
        "tools.payments.refund.needs[0]",
        "tools.payments.refund.args.amount.at_most",
        "limits[0].max",
        "step_up[0].show[0]",
        "token.ttl",
    ]
    assert [p.data["line"] for p in found] == sorted(p.data["line"] for p in found)
    assert "did you mean 'refund'?" in str(problems(text)[3])


# Names that the author chooses: another name is another workflow, which may load. Every other key is the language's.
_CHOSEN = {"order_id", "amount", "currency", "payee", "notify", "reason", "total", "customer_id"}
_KEYS = sorted(
    {
        (m.start(1), m[1])
        for m in re.finditer(
            r"(?:^ *(?:- )?|[{,] *)\{?([a-z_]+(?:\.[a-z]+)?):(?= |\n)", re.sub(r"#.*", lambda m: " " * len(m[0]), PAYMENT), re.MULTILINE
        )
    }
)


def test_the_keys_that_are_mutated_are_all_of_them():
    def keys(value):
        if isinstance(value, dict):
            return len(value) + sum(map(keys, value.values()))
        return sum(map(keys, value)) if isinstance(value, list) else 0

    assert len(_KEYS) == keys(read_yaml(PAYMENT, "w").value)


@settings(deadline=None)  # a shared machine pauses
@given(st.sampled_from([key for key in _KEYS if key[1] not in _CHOSEN]), st.data())
def test_no_mutation_of_a_key_ever_loads(key, data):
    start, name = key
    at = data.draw(st.integers(0, len(name)))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_.-0ABC é"))
    mutant = data.draw(
        st.sampled_from(
            [
                name[:at] + letter + name[at:],
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at + 1 :],
                name[:at] + name[at:][1:2] + name[at:][:1] + name[at + 2 :],
                name.upper(),
                name + name,
            ]
        )
    )
    assume(mutant.strip() not in {name, ""})
    with pytest.raises(WorkflowError):
        load(PAYMENT[:start] + mutant + PAYMENT[start + len(name) :])


# --- roles -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("agentgate: @@workflow/v1\nroles: {a: [b]}\n", "agentgate", "roles/v1"),
        ("agentgate: roles/v1\nroles: @@{}\n", "roles", "at least one"),
        ("agentgate: roles/v1\nroles: {a: @@[]}\n", "roles.a", "at least one"),
        ("agentgate: roles/v1\nroles: {a: [@@'x:*']}\n", "roles.a[0]", "'*'"),
        ("agentgate: roles/v1\nroles: {a: [b]}\n@@extra: 1\n", "extra", "unknown key"),
        ("agentgate: roles/v1\n@@a: [b]\n", None, ""),
    ],
)
def test_bad_roles_load_nothing(tmp_path, text, field, expected):
    text, place = marked(text)
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    with pytest.raises(WorkflowError) as caught:
        parse_roles(read_file(path), str(path))
    first = caught.value.problems[-1]
    if field is not None:
        assert (first.field, (first.data["line"], first.data["column"])) == (field, place)
        assert expected in f"{first.got} {first.expected}"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a: \xc3\x28\n"])
def test_roles_that_cannot_be_read_are_a_workflow_error(tmp_path, content):
    path = tmp_path / "roles.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WorkflowError) as caught:
        parse_roles(read_file(path), str(path))
    assert caught.value.problems[0].data["file"] == str(path)
