"""What a change newly permits, said in a reviewer's words: every block of a workflow file, both ways."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agentgate.diff import ENGINE, Diff, Finding, compare, forms
from agentgate.diff.language import Budget, Language, TooLarge
from agentgate.diff.table import CALLS, LIST, NONE, READ, TABLE, fields_without_row
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.values.expression import parse
from agentgate.values.patterns import Pattern
from agentgate.workflow import model, rule
from agentgate.workflow.clauses import conditions, who
from agentgate.workflow.clauses.who import AgentRule, ClaimRule
from agentgate.workflow.model import Limit, StepUpRule, Workflow
from agentgate.workflow.rule import Fact, Rule, Selector, Source

ROOT = Path(__file__).parent.parent / "workflows"
ROLES = roles_of(ROOT)
TEXT = (ROOT / "payments" / "customer-refund.yaml").read_text()


def load(*changes: tuple[str, str], text: str = TEXT) -> Workflow:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return load_text(text, "refund.yaml", ROLES, derive)


OLD = load()


def labels(found: tuple[Finding, ...]) -> set[str]:
    return {f"{f.tool}: {f.field}" if f.tool else f.field for f in found}


def test_nothing_changed_is_nothing_to_say():
    assert compare(OLD, load()) == Diff((), (), ())
    assert compare(OLD, load(("# A support agent", "# An agent"), ("version: 7", "version: 8"))).only_narrower


def test_a_whole_number_on_the_bound_itself_is_told_apart() -> None:
    """Between two bounds that follow each other there is no other number."""

    def bounded(bounds: str) -> Workflow:
        extra = f"      extra: {{type: integer, {bounds}, from: [model], optional: true}}\n"
        return load(("      reason:   {text: 200", f"{extra}      reason:   {{text: 200"))

    for old, new, part in (("min: 1, max: 5", "min: 1, max: 6", "max"), ("min: 1, max: 5", "min: 0, max: 5", "min")):
        assert labels(compare(bounded(old), bounded(new)).wider) == {f"payments.refund: args.extra.{part}"}
        assert compare(bounded(new), bounded(old)).only_narrower


# what stands in the file, what a change makes of it, and where the change is said to be wider; the way back is narrower
WIDER = [
    ("tenants: [acme-eu, acme-uk]", "tenants: [acme-eu, acme-uk, acme-us]", "tenants"),
    ('expires: "2031-12-31"', 'expires: "2032-12-31"', "expires"),
    ("risk: high ", "risk: low ", "risk"),
    ("tenants: [acme-eu, acme-uk]", "mode: observe\ntenants: [acme-eu, acme-uk]", "mode"),
    ('sa/support-agent"]', 'sa/support-agent", "spiffe://acme.example/other"]', "who.agent.spiffe"),
    ("attested_within: 10m", "attested_within: 1h", "who.agent.posture.attested_within"),
    ('["release@acme.example"]', '["release@acme.example", "dev@acme.example"]', "who.agent.posture.image_signed_by"),
    ("[support-l1, support-l2]", "[support-l1, support-l2, sales]", "who.for_user.groups"),
    (", same_tenant: true", "", "who.for_user.same_tenant"),
    ("max_hops: 1", "max_hops: 2", "who.via"),
    ("unclear: step_up ", "delegated: present\n    unclear: step_up ", "intents.refund.delegated"),
    ("unclear: step_up ", "unheard: step_up\n    unclear: step_up ", "intents.refund.unheard"),
    ("environment: [prod]", "environment: [prod, stage]", "conditions.environment"),
    ('to: "20:00"', 'to: "20:01"', "conditions.hours"),
    ("days: [mon, tue", "days: [sun, mon, tue", "conditions.hours"),
    ("within: 15m", "within: 16m", "payments.refund: sequence.orders.get"),
    (
        "  - {before: payments.refund, require: orders.get, within: 15m}",
        "  - {before: payments.refund, require: orders.get}",
        "payments.refund: sequence.orders.get",
    ),
    ("needs: [refund]", "needs: [refund, look]", "payments.refund: needs"),
    ("definition: sha256:9ef7", "definition: sha256:9ef8", "payments.refund: definition"),
    ('max: "500.00"', 'max: "500.01"', "payments.refund: args.amount.max"),
    ('min: "0.01"', 'min: "0.00"', "payments.refund: args.amount.min"),
    ("at_most: orders.get.total, ", "", "payments.refund: args.amount.at_most"),
    ("from: [prompt, orders.get.total]", "from: [prompt, orders.get.total, model]", "payments.refund: args.amount.from"),
    (
        "from: [orders.get.customer_id], sensitive",
        "from: [orders.get.customer_id, orders.get.order_id], sensitive",
        "payments.refund: args.payee.from",
    ),
    (
        "from: [orders.get.customer_id], sensitive",
        "from: [orders.get.customer_id], unknown_origin: step_up, sensitive",
        "payments.refund: args.payee.from",
    ),
    (
        "from: [orders.get.customer_id], sensitive",
        "from: [orders.get.customer_id], any_call: true, sensitive",
        "payments.refund: args.payee.any_call",
    ),
    ("{14}", "{13,14}", "payments.refund: args.payee.pattern"),
    ("in: [EUR, GBP]", "in: [EUR, GBP, USD]", "payments.refund: args.currency.in"),
    (r"+@acme\.example", r"+@acme\.(?:example|test)", "payments.refund: args.notify.pattern"),
    ("text: 200", "text: 201", "payments.refund: args.reason.text"),
    ("entities: [prompt]", "entities: [prompt, orders.get.customer_id]", "payments.refund: args.reason.entities"),
    ("payee:    {", "payee:    {optional: true, ", "payments.refund: args.payee.optional"),
    (
        "      reason:   {text: 200",
        "      extra: {text: 5, from: [model], optional: true}\n      reason:   {text: 200",
        "payments.refund: args.extra",
    ),
    ('above: "100.00"', 'above: "100.01"', "payments.refund: step_up.big-refund.when"),
    ("group: support-leads", "group: support-l1", "payments.refund: step_up.big-refund.approvers"),
    ("timeout: 10m", "timeout: 11m", "payments.refund: step_up.big-refund.timeout"),
    ("show: [order_id, amount, currency, payee, reason]", "show: [order_id, amount]", "payments.refund: step_up.big-refund.show"),
    ("ttl: 60s", "ttl: 61s", "token.ttl"),
    ("bound_to: [call, agent_key]", "bound_to: [call]", "token.bound_to"),
    ("scope: [orders:read]", "scope: [orders:read, orders:list]", "orders.get: scope"),
    (
        "{count: payments.refund, max: 1, per: run}",
        "{count: payments.refund, max: 2, per: run}",
        "payments.refund: limits.count payments.refund per run",
    ),
    ("  - {count: any, max: 20, per: run}\n", "", "limits.count any per run"),
    ("per: tenant, every: 1d", "per: agent, every: 1d", "payments.refund: limits.sum payments.refund.amount per tenant"),
    ("per: tenant, every: 1d", "per: tenant, every: 2d", "payments.refund: limits.sum payments.refund.amount per tenant"),
    ("scopes: [refunds:create], narrower_than", "scopes: [refunds:read], narrower_than", "payments.refund: upstream.scopes"),
    ("audience: https://payments.acme.example", "audience: https://pay.acme.example", "payments.refund: audience"),
]
LOOK = ("intents:    ", 'intents:\n  look: {asks_for: Look., words: [status], examples: ["What is the status of ORD-10023344?"]}   ')


NARROWER = [
    ("unclear: step_up ", "unclear: deny ", "payments.refund: intents.refund.unclear"),
    ("count: 1, not", "count: 2, not", "payments.refund: step_up.big-refund.approvers"),
    ('    when: {amount: {above: "100.00"}}\n', "", "payments.refund: step_up.big-refund.when"),
]


@pytest.mark.parametrize(("before", "after", "label"), NARROWER, ids=lambda v: str(v)[:60])
def test_a_narrower_rule_is_named_and_the_way_back_is_wider(before, after, label):
    new = load((before, after))
    assert labels(compare(OLD, new).narrower) == {label}
    assert compare(OLD, new).only_narrower
    assert labels(compare(new, OLD).wider) == {label}


@pytest.mark.parametrize(("before", "after", "label"), WIDER, ids=lambda v: str(v)[:60])
def test_a_wider_rule_is_named_and_the_way_back_is_narrower(before, after, label):
    more = [LOOK] if "look" in after else []
    old, new = load(*more), load((before, after), *more)
    there, back = compare(old, new), compare(new, old)
    assert label in labels(there.wider)
    assert not there.only_narrower
    two_way = label.endswith((": definition", ": audience", "upstream.scopes")) or ".approvers" in label or "limits.sum" in label
    without_order = label.partition(" per ")[0] in {f"{f.tool}: {f.field}".partition(" per ")[0] for f in back.wider if not f.call}
    assert (label in labels(back.narrower)) is not without_order  # what has no order is less in no direction
    assert two_way or back.only_narrower, back.wider


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("counter_examples:\n      - What is the status of ORD-10023344?\n", "counter_examples:\n", "intents.refund.counter_examples"),
        ("words: [refund, reimburse, money back]", "words: [refund, reimburse, money back, credit]", "intents.refund.words"),
        ("asks_for: Give", "asks_for: Always give", "intents.refund.asks_for"),
        ("title: Support", "title: Nice support", "title"),
        ("owners: [team:payments]", "owners: [team:other]", "owners"),
        ("id: payments.customer-refund", "id: payments.other-refund", "id"),
        ("zone: Europe/Berlin", "zone: Europe/London", "conditions.hours.zone"),
        (
            "type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]",
            "type: text, pattern: 'ORD-[0-9]{8}', from: [prompt]",
            "tools.orders.get.args.order_id.type",
        ),
        ("sensitive: true", "sensitive: false", "tools.payments.refund.args.payee.sensitive"),
        ("customer_id: {type: id}", "customer_id: {type: id, path: owner}", "tools.orders.get.facts.customer_id.path"),
        ("effect: write", "effect: egress", "tools.payments.refund.effect"),
        ("redeem: server                  # the", "redeem: wrapper                  # the", "tools.orders.get.redeem"),
        ("version: 7", "version: 6", "version"),
    ],
)
def test_what_has_no_exact_answer_is_left_to_read(before, after, label):
    found = compare(OLD, load((before, after)))
    assert label in found.read_yourself
    assert not found.only_narrower
    assert label in compare(load((before, after)), OLD).read_yourself or label == "version"


def test_an_argument_that_is_gone_or_became_optional_says_so():
    gone = tool(OLD, args={n: r for n, r in OLD.tools["payments.refund"].args.items() if n != "payee"})
    assert [(f.field, f.new) for f in compare(OLD, gone).wider] == [("args.payee", "")]
    found = compare(OLD, load(("payee:    {", "payee:    {optional: true, "))).wider
    assert [(f.field, f.old, f.new) for f in found] == [("args.payee.optional", "required", "optional")]


def test_a_new_tool_and_a_new_intent():
    more = "tools:\n  notes.list: {effect: read, needs: any, redeem: wrapper}\n"
    found = compare(OLD, load(("tools:\n", more)))
    assert labels(found.wider) == {"notes.list: tool"}
    assert labels(compare(load(("tools:\n", more)), OLD).narrower) == {"notes.list: tool"}
    assert compare(load(("tools:\n", more)), OLD).only_narrower
    assert compare(OLD, load(LOOK)).read_yourself == ("intents.look",)


ASKED = (
    "payments.refund: step_up.big-refund.when  amount: above: 100.00 -> amount: above: 200.00  e.g. 100.01  "
    "was allowed after 1 release by support-leads, would be allowed"
)


def test_the_reviewers_text():
    new = load(
        ("from: [orders.get.customer_id], sensitive", "from: [model], sensitive"),
        ('above: "100.00"', 'above: "200.00"'),
        ("ttl: 60s", "ttl: 5m"),
    )
    assert [str(f) for f in compare(OLD, new).wider] == [
        "payments.refund: args.payee.from  orders.get.customer_id -> model  e.g. cus_aaaaaaaaaaaaaa  was refused, would be allowed",
        ASKED,
        "token.ttl  60s -> 5m  a token would live longer",
    ]
    back = compare(load(('max: "500.00"', 'max: "400.00"')), OLD)
    assert [f.effect for f in back.wider] == ["was refused, would be allowed after 1 release by support-leads"]


def test_what_is_written_differently_and_permits_the_same_is_told_apart():
    new = load(("ORD-[0-9]{8}', from: [orders", r"(?:ORD)-\d{8}', from: [orders"))
    assert compare(OLD, new) == Diff((), (), (), ("tools.payments.refund.args.order_id",))
    assert compare(OLD, new).only_narrower


def test_a_type_narrows_what_a_pattern_says():
    """`.` may be any character, but only a dot makes an address of it."""
    assert compare(OLD, load((r"+@acme\.example", "+@acme.example"))).wider == ()


def test_a_removed_step_up_and_an_unclear_intent():
    without = TEXT[: TEXT.index("step_up:")] + TEXT[TEXT.index("token:") :]
    found = compare(OLD, load(("unclear: step_up ", "unclear: deny "), text=without))
    assert labels(found.wider) == {"payments.refund: step_up.big-refund"}
    assert labels(found.narrower) == {"payments.refund: intents.refund.unclear"}
    assert found.wider[0].example == "100.01"


def test_a_pattern_that_cannot_be_read_exactly():
    same = (r"cus_[A-Za-z0-9]{14}", r"cus_\pL{14}")
    old = load(same)
    assert compare(old, load(same, ('max: "500.00"', 'max: "400.00"'))).only_narrower  # untouched, it stands in nobody's way
    changed = compare(old, load((r"cus_[A-Za-z0-9]{14}", r"cus_\pL{13}")))
    assert changed.read_yourself == ("tools.payments.refund.args.payee",)
    assert not changed.only_narrower


def test_what_is_left_to_read_comes_in_the_order_of_the_new_tools():
    def named(workflow: Workflow, *names: str) -> Workflow:
        return replace(workflow, tools={name: replace(workflow.tools["payments.refund"], name=name) for name in names})

    one, other = (load((r"cus_[A-Za-z0-9]{14}", pattern)) for pattern in (r"cus_\pL{14}", r"cus_\pL{13}"))
    assert compare(named(one, "a", "b"), named(other, "b", "a")).read_yourself == ("tools.b.args.payee", "tools.a.args.payee")


@pytest.mark.parametrize("pattern", ["(?:a|b)*a(?:a|b){99}", "(?:[a-m]{0,50}[n-z]{0,50}){0,19}", "a{0,500}b{0,500}a{0,500}b{0,500}"])
def test_a_pattern_that_costs_too_much_is_left_to_read(pattern):
    """Whoever proposes a change writes its patterns: no question may cost more than it is allowed, and then nothing is concluded."""
    new = load((r"cus_[A-Za-z0-9]{14}", pattern))
    assert compare(OLD, new).read_yourself == ("tools.payments.refund.args.payee",)
    assert compare(new, load((r"cus_[A-Za-z0-9]{14}", pattern), ('max: "500.00"', 'max: "400.00"'))).only_narrower


def test_one_comparison_has_one_budget():
    budget = Budget(100)
    with pytest.raises(TooLarge):
        Language([parse("[ab]{50}c"), parse("[ab]{49}c+")], forms.alphabet("text"), budget).vectors()
    with pytest.raises(TooLarge):
        Language([parse("a")], forms.alphabet("text"), budget).vectors()


def test_hours_across_midnight():
    def hours(days: str, start: str, end: str) -> Workflow:
        return load(('days: [mon, tue, wed, thu, fri], from: "08:00", to: "20:00"', f'days: [{days}], from: "{start}", to: "{end}"'))

    night = hours("fri", "22:00", "06:00")
    assert compare(hours("fri, sat", "22:00", "06:00"), night).only_narrower
    assert [f.example for f in compare(night, hours("sat", "00:00", "06:00")).wider] == []
    assert [f.example for f in compare(hours("sat", "00:00", "06:00"), night).wider] == ["Fri 22:00 Europe/Berlin"]
    assert [f.example for f in compare(hours("sun", "22:00", "06:00"), hours("mon", "00:00", "06:01")).wider] == ["Mon 06:00 Europe/Berlin"]


def test_networks_are_compared_as_sets_of_addresses():
    def network(*names: str) -> Workflow:
        return replace(OLD, conditions=replace(OLD.conditions, network=names))

    assert compare(network("10.0.0.0/8", "office"), network("10.1.0.0/16", "10.2.0.0/16")).only_narrower
    assert compare(network("10.0.0.0/9", "10.128.0.0/9"), network("10.0.0.0/8")).only_narrower
    assert [f.example for f in compare(network("10.0.0.0/9"), network("10.0.0.0/8")).wider] == ["10.128.0.0"]
    assert [f.example for f in compare(network("10.0.0.0/8"), network("10.0.0.0/8", "2001:db8::/32")).wider] == ["2001:db8::"]
    assert compare(network("office"), network()).wider


def test_claims_boundaries_and_keys():
    old = replace(
        OLD,
        agent=AgentRule(
            1,
            oidc_issuer="https://ci.example",
            claims=(ClaimRule("ref", 1, ("main", "release")), ClaimRule("repository", 1, ("acme/app",))),
            cluster=("c1",),
            same_key_as_last_token=True,
        ),
    )

    def agent(**changes: Any) -> Workflow:
        return replace(old, agent=replace(old.agent, **changes))

    assert compare(old, agent(claims=(ClaimRule("ref", 1, ("main",)), *old.agent.claims[1:]))).only_narrower
    assert labels(compare(old, agent(claims=old.agent.claims[:1])).wider) == {"who.agent.oidc.claims.repository"}
    assert labels(compare(old, agent(oidc_issuer="https://other.example")).wider) == {"who.agent.oidc.issuer"}
    assert labels(compare(old, agent(cluster=("c1", "c2"))).wider) == {"who.agent.boundary.cluster"}
    assert labels(compare(old, agent(same_key_as_last_token=False)).wider) == {"who.agent.boundary.same_key_as_last_token"}
    bare = AgentRule(1, oidc_issuer="https://ci.example")
    for name in ("cluster", "namespace", "node_pool"):
        only: dict[str, Any] = {name: ("here",)}
        bounded = replace(OLD, agent=replace(bare, **only))
        assert labels(compare(bounded, replace(OLD, agent=bare)).wider) == {"who.agent.boundary", f"who.agent.boundary.{name}"}
    assert "who.agent.in_process" in labels(compare(old, replace(old, agent=AgentRule(1, in_process=True))).wider)


def test_an_autonomous_workflow_and_one_for_a_user_share_no_call():
    found = compare(OLD, replace(OLD, for_user=None))
    assert labels(found.wider) == labels(found.narrower) == {"who.for_user"}


def tool(workflow: Workflow, **changes: Any) -> Workflow:
    pay = workflow.tools["payments.refund"]
    return replace(workflow, tools={**workflow.tools, "payments.refund": replace(pay, **changes)})


def arg(name: str, rule: Rule) -> Workflow:
    return tool(OLD, args={**OLD.tools["payments.refund"].args, name: rule})


def test_lists():
    def scopes(**more: Any) -> Workflow:
        return arg("scopes", Rule("scopes", 1, sources=(Source("model"),), **{"max_items": 2, "one_of": ("a", "b", "c"), **more}))

    def wider(**more: Any) -> list[tuple[str, str]]:
        return [(f.field, f.example) for f in compare(scopes(), scopes(**more)).wider]

    assert wider(max_items=3) == [("args.scopes.max_items", "a, a, a")]
    assert wider(one_of=("a", "b", "c", "d")) == [("args.scopes.each_in", "d")]
    assert wider(max_items=1, one_of=("a",)) == []
    role: dict[str, Any] = {"role": "r", "role_scopes": frozenset("abc")}
    assert compare(scopes(), scopes(**role)).only_narrower  # two of the three are always fewer
    assert [f.example for f in compare(scopes(max_items=3, **role), scopes(max_items=3)).wider] == ["a, b, c"]
    assert [
        f.example for f in compare(scopes(max_items=3, **role), scopes(max_items=3, role="s", role_scopes=frozenset("abcd"))).wider
    ] == ["a, b, c"]
    assert [f.field for f in compare(scopes(), scopes(max_items=None)).wider] == ["args.scopes.max_items"]


def test_elements_of_a_list_add_up_in_a_step_up():
    """Each condition may be met by another element."""

    def asking(*whens: Rule) -> Workflow:
        step = StepUpRule("ask", 1, "payments.refund", whens, "leads", 1, ("requester",), 600, ())
        listed = Rule("tags", 1, one_of=("a", "b", "c"), max_items=2, sources=(Source("model"),))
        return tool(arg("tags", listed), step_ups=(step,))

    is_a, is_b = (Rule("tags", 1, one_of=(x,)) for x in "ab")
    both, either = asking(is_a, is_b), asking(Rule("tags", 1, one_of=("a", "b")))
    assert compare(both, either).only_narrower
    found = compare(either, both)
    assert [(f.field, f.example) for f in found.wider] == [("step_up.ask.when", "a")]
    found = compare(both, tool(both, step_ups=()))
    assert [(f.field, f.example) for f in found.wider if f.tool] == [("step_up.ask", "a, b")]


def test_what_explains_a_value_is_known_by_the_rule_of_that_version():
    """A value from a place that only the new version knows was unknown to the old one, and a person looked."""

    def payee(*sources: Source) -> Workflow:
        when = Rule("payee", 1, "id", origin=("unknown",))
        step = StepUpRule("ask", 1, "payments.refund", (when,), "leads", 1, ("requester",), 600, ())
        return tool(arg("payee", Rule("payee", 1, "id", sources=sources)), step_ups=(step,))

    prompt, model, place = Source("prompt"), Source("model"), Source("fact", "orders.get", "customer_id")
    found = compare(payee(prompt, model), payee(prompt, model, place))
    assert [f.effect for f in found.wider] == ["was allowed after 1 release by leads, would be allowed"]
    assert compare(payee(prompt, model, place), payee(prompt, model)).only_narrower


def test_step_up_rules_replace_each_other_only_one_for_one():
    def steps(*rules: tuple[str, str, int]) -> Workflow:
        return tool(OLD, step_ups=tuple(StepUpRule(i, 1, "payments.refund", (), g, n, ("requester",), 600, ()) for i, g, n in rules))

    two = steps(("a", "leads", 1), ("b", "leads", 2))
    assert compare(two, steps(("x", "leads", 2), ("y", "leads", 1))).only_narrower
    assert compare(two, steps(("x", "leads", 2), ("y", "leads", 2), ("z", "bosses", 1))).only_narrower
    assert compare(two, steps(("x", "leads", 3))).wider  # one hold instead of two
    assert compare(two, steps(("a", "leads", 1), ("b", "leads", 1))).wider
    assert compare(two, steps(("a", "leads", 2), ("b", "bosses", 2))).wider


def test_facts():
    def facts(**changes: Any) -> Workflow:
        orders = OLD.tools["orders.get"]
        fact = Fact("customer_id", 1, "id", ("customer_id",), **changes)
        return replace(OLD, tools={**OLD.tools, "orders.get": replace(orders, facts={**orders.facts, "customer_id": fact})})

    assert labels(compare(facts(named=True), facts()).wider) == {"orders.get: facts.customer_id.trust"}
    assert compare(facts(), facts(named=True)).only_narrower
    some, more = Pattern.of("cus_[AB]"), Pattern.of("cus_[A-C]")
    assert compare(facts(pattern=more), facts(pattern=some)).only_narrower
    assert labels(compare(facts(pattern=some), facts(pattern=more)).wider) == {"orders.get: facts.customer_id.pattern"}
    assert compare(facts(pattern=some), facts()).wider
    assert compare(facts(pattern=Pattern.of(r"\pL")), facts(pattern=Pattern.of(r"\pN"))).wider  # not provably fewer


def test_rows_that_count_by_a_label_and_what_is_named_first():
    def facts(**changes: Any) -> Workflow:
        orders = OLD.tools["orders.get"]
        fact = Fact("customer_id", 1, "id", ("customer_id",), **changes)
        return replace(OLD, tools={**OLD.tools, "orders.get": replace(orders, facts={**orders.facts, "customer_id": fact})})

    one, two, asked = {"named_by": ("total",)}, {"named_by": ("total", "customer_id")}, {"where": (("order_id", "order_id"),)}
    assert compare(facts(), facts(**one)).only_narrower
    assert labels(compare(facts(**one), facts()).wider) == {"orders.get: facts.customer_id.named_by"}
    for old, new in ((one, two), (two, one)):  # a label more and a label less can both mean another row
        assert labels(compare(facts(**old), facts(**new)).wider) == {"orders.get: facts.customer_id.named_by"}
    assert compare(facts(**two), facts(named_by=("customer_id", "total"))).wider == ()
    assert compare(facts(**asked), facts(**one)).wider
    assert compare(facts(), facts(**asked)).only_narrower
    assert compare(facts(**asked), facts(**asked, **one)).only_narrower
    assert labels(compare(facts(**asked), facts()).wider) == {"orders.get: facts.customer_id.where"}

    def paid(first: bool, *sources: Source) -> Workflow:  # noqa: FBT001 - a test's switch
        return arg("payee", Rule("payee", 1, type="id", sources=sources, named_first=first))

    prompt, customer = Source("prompt"), Source("fact", "orders.get", "customer_id")
    assert compare(paid(False, prompt, customer), paid(True, prompt, customer)).only_narrower
    assert labels(compare(paid(True, prompt, customer), paid(False, prompt, customer)).wider) == {"payments.refund: args.payee.named_first"}
    assert compare(paid(True, prompt, customer), paid(False, prompt)).only_narrower


def test_which_rows_a_fact_stands_in():
    def fact(**changes: Any) -> Workflow:
        orders = OLD.tools["orders.get"]
        made = replace(orders.facts["customer_id"], **changes)
        return replace(OLD, tools={**OLD.tools, "orders.get": replace(orders, facts={**orders.facts, "customer_id": made})})

    plain, labelled, asked = fact(), fact(named_by=("currency",)), fact(where=(("currency", "order_id"),))
    assert compare(plain, labelled).only_narrower
    assert compare(plain, asked).only_narrower
    assert labels(compare(labelled, plain).wider) == {"orders.get: facts.customer_id.named_by"}
    assert labels(compare(labelled, fact(named_by=("currency", "total"))).wider) == {"orders.get: facts.customer_id.named_by"}
    assert labels(compare(asked, plain).wider) == {"orders.get: facts.customer_id.where"}


def test_what_the_user_names_goes_first():
    amount = OLD.tools["payments.refund"].args["amount"]
    first = arg("amount", replace(amount, named_first=True))
    assert compare(OLD, first).only_narrower
    assert labels(compare(first, OLD).wider) == {"payments.refund: args.amount.named_first"}


def test_a_selected_fact_is_one_row_of_many():
    payee = OLD.tools["payments.refund"].args["payee"]
    fact = payee.sources[0]
    selected = Source("select", fact.tool, fact.field, Selector("payments.refund", ("order",), (("largest", "total"),)))
    assert compare(OLD, arg("payee", replace(payee, sources=(selected,)))).only_narrower
    assert compare(arg("payee", replace(payee, sources=(selected,))), OLD).wider


def test_a_value_that_is_the_fact_is_bounded_by_it():
    amount = OLD.tools["payments.refund"].args["amount"]
    exactly = replace(amount, sources=(Source("fact", "orders.get", "total"),))
    found = compare(arg("amount", exactly), arg("amount", replace(exactly, at_most=None)))
    assert found == Diff((), (), (), ("tools.payments.refund.args.amount",))


def test_a_sum_is_another_bound():
    amount = OLD.tools["payments.refund"].args["amount"]
    found = compare(OLD, arg("amount", replace(amount, at_most=Source("sum", "orders.get", "total"))))
    assert labels(found.wider) == {"payments.refund: args.amount.at_most"}


def test_a_structure_is_compared_by_its_length():
    def body(length: int) -> Workflow:
        return arg("body", Rule("body", 1, "json", text=length, sources=(Source("model"),)))

    assert compare(body(200), body(100)).only_narrower
    assert labels(compare(body(100), body(200)).wider) == {"payments.refund: args.body.text"}


def test_a_fact_beside_others_in_a_list_may_change_the_rows():
    orders = OLD.tools["orders.get"]
    lines = {**orders.facts, "line": Fact("line", 1, "id", ("lines", "[]", "id"))}
    more = {**lines, "note": Fact("note", 1, "text", ("note",))}
    one, other = (replace(OLD, tools={**OLD.tools, "orders.get": replace(orders, facts=facts)}) for facts in (lines, more))
    assert compare(one, other).read_yourself == compare(other, one).read_yourself == ("tools.orders.get.facts.note",)
    alone = replace(OLD, tools={**OLD.tools, "orders.get": replace(orders, facts={**orders.facts, "note": more["note"]})})
    assert compare(OLD, alone) == Diff((), (), ())


def test_an_absent_argument_fires_no_condition():
    rule = OLD.tools["payments.refund"].step_ups[0]
    told = Rule("notify", 1, "email", pattern=Pattern.of(".*"))
    found = compare(OLD, tool(OLD, step_ups=(replace(rule, when=(*rule.when, told)),)))
    assert [(f.field, f.example) for f in found.wider] == [("step_up.big-refund.when", "100.01, (not sent)")]


def test_who_asks_may_not_answer():
    rule = OLD.tools["payments.refund"].step_ups[0]
    found = compare(OLD, tool(OLD, step_ups=(replace(rule, exclude=()),)))
    assert labels(found.wider) == {"payments.refund: step_up.big-refund.approvers.not"}


def test_a_pattern_also_bounds_the_size_of_a_value():
    """No pattern matches more than 4,096 bytes, so without one more is let through."""

    def note(**more: Any) -> Workflow:
        return arg("note", Rule("note", 1, sources=(Source("model"),), **more))

    anything = Pattern.of("(?s:.*)")
    assert compare(note(pattern=anything), note()).wider
    assert compare(note(pattern=anything, text=1025), note(text=1025)).wider
    assert compare(note(pattern=anything, text=1024), note(text=1024)).same_calls == ("tools.payments.refund.args.note",)


def test_a_result_that_becomes_trusted():
    old = replace(OLD, tools={**OLD.tools, "orders.get": replace(OLD.tools["orders.get"], effect="write")})
    assert "orders.get: effect" in labels(compare(old, OLD).wider)
    assert compare(OLD, old).only_narrower


@pytest.mark.parametrize(
    "name", ["ci/deploy", "identity/service-account-refresh", "orchestration/internal-dispatch", "partners/northwind-orders"]
)
def test_the_other_shipped_workflows(name):
    text = (ROOT / f"{name}.yaml").read_text()
    old = load(text=text)
    assert compare(old, load(text=text)) == Diff((), (), ())
    assert labels(compare(old, replace(old, expires=date(2040, 1, 1))).wider) == {"expires"}
    assert compare(replace(old, expires=date(2040, 1, 1)), old).only_narrower


# --- the table -----------------------------------------------------------------------------------------------------------
def _dataclasses() -> list[type]:
    found = [v for module in (model, rule, who, conditions) for v in vars(module).values()]
    return [v for v in dict.fromkeys(v for v in found if isinstance(v, type)) if hasattr(v, "__dataclass_fields__")]


@pytest.mark.parametrize("kind", _dataclasses(), ids=lambda k: k.__name__)
def test_every_field_has_a_row(kind):
    """A field that was added needs a decision: exact (`calls`), its own order (`list`), to be read, or nothing on its own."""
    assert {f.name for f in fields(kind)} == set(TABLE[kind.__name__])
    assert set(TABLE[kind.__name__].values()) <= {CALLS, LIST, READ, NONE}


def test_a_field_without_a_row_counts_also_where_its_block_is_new(monkeypatch: pytest.MonkeyPatch):
    rows = {name: {k: v for k, v in of.items() if (name, k) != ("Hours", "zone")} for name, of in TABLE.items()}
    monkeypatch.setattr("agentgate.diff.table.TABLE", rows)
    always = replace(OLD, conditions=replace(OLD.conditions, hours=None))
    assert compare(always, OLD).read_yourself == ("conditions.hours.zone",)


def test_a_field_without_a_row_is_left_to_read(monkeypatch: pytest.MonkeyPatch):
    rows = {name: {k: v for k, v in of.items() if k != "at_most"} for name, of in TABLE.items()}
    monkeypatch.setattr("agentgate.diff.table.TABLE", rows)
    assert [path for path, _ in fields_without_row(OLD) if "args.amount" in path] == ["tools.payments.refund.args.amount.at_most"]
    found = compare(OLD, load(("at_most: orders.get.total, ", "")))
    assert "tools.payments.refund.args.amount.at_most" in found.read_yourself


def test_lines_files_and_digests_are_no_difference():
    moved = load(("# A support agent", "#\n#\n# A support agent"))
    assert compare(OLD, replace(moved, file="elsewhere.yaml")) == Diff((), (), ())


def test_limits_count_apart():
    def limits(*found: Limit) -> Workflow:
        return tool(OLD, limits=found)

    one = Limit(1, "payments.refund", "", 3, "run", None)
    assert compare(limits(one), limits(replace(one, maximum=2))).only_narrower
    assert compare(limits(one), limits(replace(one, line=9), replace(one, per="agent"))).only_narrower
    assert compare(limits(one), limits(replace(one, per="tenant"))).wider  # a new count starts at nothing
    assert compare(limits(), limits(one)).only_narrower


def test_the_engine_has_a_version():
    assert re.fullmatch(r"[0-9]+", ENGINE)
