"""Test files beside workflows: read strictly, run through scenes, and failing for the reason that they say."""

from __future__ import annotations

from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.review.scenarios import testfile
from agentgate.review.scenarios.testfile import Result, load_tests, read_tests, run_tests
from agentgate.workflow.model import Workflow
from tests.effort import examples

ROOT = Path(__file__).parent.parent
FOLDERS = (ROOT / "workflows", ROOT / "examples/payment-agent/workflows")
SHIPPED = [workflow for folder in FOLDERS for workflow in Catalog.load(folder, derive)]
LARGE = "set: {args.amount: '150.00', facts.orders.get.total: '150.00'}"
KEYS = ["name", "set", "without", "expect", "because", "grants", "asks", "step_up", "ttl", "origin.payee"]
HEAD = """\
workflow: payments.customer-refund
base:
  call: payments.refund
  prompt: Please refund order ORD-10023344, it arrived broken
  args: {order_id: ORD-10023344, amount: "39.99", currency: EUR, payee: cus_A1b2C3d4E5f6G7}
  facts: {orders.get: {total: "39.99", currency: EUR, customer_id: cus_A1b2C3d4E5f6G7}}
cases:
"""


@pytest.fixture(scope="module")
def refund() -> Workflow:
    return next(w for w in SHIPPED if w.id == "payments.customer-refund" and w.file.startswith(str(FOLDERS[0])))


def ran(workflow: Workflow, *cases: str, head: str = HEAD) -> tuple[Result, ...]:
    report = run_tests(workflow, read_tests(head + "".join(f"  - {case}\n" for case in cases), "r.test.yaml"))
    return report.results


def problems(text: str, workflow: Workflow | None = None) -> list[str]:
    def read() -> None:
        tests = read_tests(text, "r.test.yaml")
        if workflow is not None:
            run_tests(workflow, tests)

    with pytest.raises(WorkflowError) as refused:
        read()
    return [str(p) for p in refused.value.problems]


# --- what is shipped ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workflow", SHIPPED, ids=lambda w: Path(w.file).stem)
def test_the_tests_beside_every_shipped_workflow_pass_within_a_second(workflow):
    tests = load_tests(testfile.tests_of(workflow.file))
    before = thread_time()
    report = run_tests(workflow, tests)
    assert thread_time() - before < 1
    assert [(r.place, r.name, r.why) for r in report.failed] == []
    assert report.passed
    assert len(report.results) == len(tests.cases) + 1


# --- results ------------------------------------------------------------------------------------------------------------------
def test_a_case_says_what_it_expected_what_it_got_and_where_it_stands(refund):
    base, result = ran(refund, "{name: staging, set: {environment: staging}, expect: allow}")
    assert base.passed
    assert (result.passed, result.expected, result.place) == (False, "allow", "r.test.yaml:8")
    assert result.got.startswith("deny: environment: environment: got staging, expected one of prod")
    assert result.changed == {"environment": "staging"}


def test_what_was_filled_is_in_the_report(refund):
    report = run_tests(refund, read_tests(HEAD + "  - {name: a, expect: allow}\n", "r.test.yaml"))
    assert report.filled["who.user.groups"] == ["support-l1"]
    assert "prompt" not in report.filled


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("expect: deny, because: payee", "expected because of payee"),
        ("expect: deny, because: [environment, payee]", "expected because of payee"),
        ("expect: deny, because: env", "expected because of env"),
    ],
)
def test_a_denial_for_another_reason_than_the_named_one_fails(refund, case, why):
    result = ran(refund, f"{{name: staging, set: {{environment: staging}}, {case}}}")[1]
    assert not result.passed
    assert result.why.startswith(why)


def test_a_denial_for_more_than_the_named_reason_fails(refund):
    result = ran(refund, "{name: two, set: {environment: staging, origin.payee: model}, expect: deny, because: payee}")[1]
    assert not result.passed
    assert result.why.startswith("also refused for another reason: environment")
    assert ran(refund, "{name: two, set: {environment: staging, origin.payee: model}, expect: deny, because: [payee, environment]}")[
        1
    ].passed


@pytest.mark.parametrize("name", ["payee", "args.payee", "argument_origin"])
def test_a_reason_is_a_field_an_argument_or_a_reasons_name(refund, name):
    assert ran(refund, f"{{name: a, set: {{origin.payee: model}}, expect: deny, because: {name}}}")[1].passed


def test_a_case_that_reaches_no_rule_fails(refund):
    result = ran(refund, "{name: a, set: {call: payments.refnd}, expect: deny, because: tool_unknown}")[1]
    assert result.why == "reaches no rule: the workflow has no tool 'payments.refnd'"


def test_a_case_that_could_not_have_come_about_fails(refund):
    result = ran(refund, "{name: a, set: {args.order_id: ORD-99999999, earlier.orders.get.order_id: ORD-99999999}, expect: allow}")[1]
    assert not result.passed
    assert "an earlier call would itself have been refused" in result.why


def test_a_base_that_is_refused_fails(refund):
    base = ran(refund, head=HEAD.replace("cases:", "  environment: staging\ncases: []"))[0]
    assert (base.name, base.passed, base.expected) == ("base", False, "allow")


def test_a_base_may_be_one_that_asks(refund):
    head = HEAD.replace('"39.99"', '"150.00"')
    assert not ran(refund, "{name: a, expect: {step_up: big-refund}}", head=head)[0].passed
    assert all(r.passed for r in ran(refund, "{name: a, expect: {step_up: big-refund}}", head="expect: {step_up: big-refund}\n" + head))


UPSTREAM = "{broker: provider, scopes: [refunds:create], narrower_than: payments-support, duration: 5m}"


@pytest.mark.parametrize(
    ("pin", "why"),
    [  # a large refund is what `LARGE` makes of the base
        ("expect: allow, grants: {ttl: 1m}", ""),
        ("expect: allow, grants: {ttl: 61s}", "grants.ttl: expected '61s', got '60s'"),
        ("expect: allow, grants: {ttl: long}", "grants.ttl"),
        ("expect: allow, grants: {bound_to: [agent_key, call]}", ""),
        ("expect: allow, grants: {bound_to: [call]}", "grants.bound_to"),
        ("expect: allow, grants: {scope: refunds:create}", "grants.scope"),
        (f"expect: allow, grants: {{upstream: {UPSTREAM}}}", ""),
        ("expect: allow, grants: {upstream: {broker: provider, scopes: [refunds:create]}}", "grants.upstream"),
        ("{LARGE}, expect: {step_up: big-refund}, asks: {count: 1, timeout: 600s}", ""),
        ("{LARGE}, expect: {step_up: big-refund}, asks: {count: 2}", "asks.count"),
        ("{LARGE}, expect: {step_up: other}", "expected step_up other, got step_up big-refund"),
        ("{LARGE}, expect: {step_up: big-refund}, because: intent_unclear", "expected because of intent"),
    ],
)  # fmt: skip
def test_what_is_handed_out_and_who_is_asked_can_be_pinned(refund, pin, why):
    result = ran(refund, f"{{name: a, {pin.replace('{LARGE}', LARGE)}}}")[1]
    assert result.why.startswith(why)
    assert result.passed is (not why)


# --- reading --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "{name: a}",
            "r.test.yaml:8:5: cases[0].expect: got nothing, expected allow, deny, {confirm: rule-id} or {step_up: rule-id}",
        ),
        ("{name: a, expect: deny}", "deny without a reason"),
        ("{name: a, expect: alow}", "did you mean 'allow'?"),
        ("{name: a, expect: {step_up: []}}", "expected step_up: text, or a list of texts: the id of at least one step-up rule"),
        ("{name: a, expect: {step_up: 3}}", "text, or a list of texts"),
        ("{name: a, expect: {step_up: ''}}", "text, or a list of texts"),
        ("{name: a, expect: {stepup: x}}", "expected allow, deny, {confirm: rule-id} or {step_up: rule-id}"),
        ("{name: a, expect: allow, because: payee}", "nothing is refused"),
        ("{name: a, expect: allow, becuase: payee}", "did you mean 'because'?"),
        ("{expect: allow}", "a sentence that names the case"),
        ("{name: a, expect: allow, set: [x]}", "a mapping of what this case changes"),
        ("{name: a, expect: allow, grants: {tll: 60s}}", "did you mean 'ttl'?"),
        ("{name: a, expect: deny, because: x, grants: {ttl: 60s}}", "nothing is handed out"),
        ("{name: a, expect: allow, asks: {count: 1}}", "with one rule"),
        ("{name: a, expect: {step_up: [one, two]}, asks: true}", "got true, expected a mapping of what is pinned"),
        ("{name: a, expect: allow, without: 3}", "text, or a list of texts"),
        ("{name: a, expect: allow, set: {args: {x: 1}, args.x: 2}}", "args.x again"),
        ("{name: a, expect: allow, name: b}", "again"),
        ("{name: a, expect: allow, set: {time: 2026-01-07}}", "text in quotes"),
        ("just text", "got 'just text', expected a mapping"),
    ],
)
def test_what_is_wrong_with_a_case_is_named(case, said):
    found = problems(HEAD + f"  - {case}\n")
    assert any(said in each for each in found), found
    assert all(each.startswith("r.test.yaml:8:") for each in found)


def test_the_same_name_twice_is_refused():
    found = problems(HEAD + "  - {name: a, expect: allow}\n  - {name: a, expect: allow}\n")
    assert found == ["r.test.yaml:9:12: cases[1].name: got 'a', expected a name of its own (first on line 8)"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one YAML document"),
        ("x", "a mapping with workflow, base and cases"),
        ("workflow: a\ncases: []\n", "base: (required)"),
        ("workflow: a\nbase: {}\ncase: []\n", "did you mean 'cases'?"),
        ("workflow: 1\nbase: []\ncases: {}\n", "the id of the workflow"),
        ("expect: deny\nworkflow: a\nbase: {}\ncases: []\n", "a base that goes through"),
        ("workflow: a\nbase: &x {}\ncases: []\n", "no anchors"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(text, said):
    assert any(said in each for each in problems(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD.replace("  prompt:", "  promt:"), "r.test.yaml:4:3: base.promt: got an unknown key"),
        (
            HEAD + "  - {name: a, expect: allow, set: {facts.orders.get.totl: '1'}}\n",
            "r.test.yaml:8:36: cases[0].set.facts.orders.get.totl",
        ),
        (HEAD + "  - {name: a, expect: allow, without: [who.usr]}\n", "r.test.yaml:8:40: cases[0].set.who.usr"),
        (HEAD + "  - {name: a, expect: allow, set: {origin.payee: orders.got.x}}\n", "cases[0].set.origin.payee"),
        (HEAD + "  - {name: a, expect: allow, set: {origin.currency: model, args.currency: 9007199254740993}}\n", "cases[0].set"),
        (HEAD.replace("customer-refund", "customer-refunds"), "did you mean 'payments.customer-refund'?"),
    ],
)
def test_a_key_that_the_workflow_does_not_know_is_named_at_its_place(refund, text, said):
    found = problems(text if text != HEAD and "- {" in text else text.replace("cases:\n", "cases: []\n"), refund)
    assert any(said in each for each in found), found


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path):
    with pytest.raises(WorkflowError, match=r"none\.test\.yaml"):
        load_tests(tmp_path / "none.test.yaml")


def test_tests_stand_beside_their_workflow():
    assert testfile.tests_of("w/payments/refund.v2.yaml") == Path("w/payments/refund.v2.test.yaml")


leaves: Any = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["allow", "deny", "payee", "model", "60s", "a"])
blocks = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


def flow(value: Any) -> str:
    """A value as YAML's flow style; None as nothing that a reader would take."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else "''" if value is None else str(value)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(blocks, max_size=3))
def test_whatever_stands_in_a_file_is_a_report_or_a_named_refusal(cases):
    workflow = SHIPPED[-1]
    try:
        report = run_tests(workflow, read_tests(HEAD.replace("cases:\n", f"cases: {flow(cases)}\n"), "r.test.yaml"))
    except WorkflowError as error:
        assert all(problem.data["line"] > 0 for problem in error.problems)  # noqa: PT017 - either is right, a traceback is not
    else:
        assert len(report.results) == len(cases) + 1


# --- what is heard ------------------------------------------------------------------------------------------------------------
EXAMPLE = Path(__file__).parent.parent / "examples" / "payment-agent" / "workflows" / "customer-refund.yaml"


def beside(folder: Path, heard: str) -> Path:
    place = folder / "customer-refund.yaml"
    place.write_text(EXAMPLE.read_text())
    testfile.tests_of(place).write_text(testfile.tests_of(EXAMPLE).read_text() + heard)
    return place


def command(*args: str) -> Any:
    return CliRunner().invoke(app, ["workflow", *args])


def test_what_is_heard_is_recorded_and_tested(tmp_path: Path) -> None:
    place = beside(tmp_path, "")
    for turns in (["Please refund order ORD-10023344"], ["Refund ORD-10023344", 'no, "wait" \u2026']):
        assert command("heard", str(place), *turns, "--record").exit_code == 0
    assert (
        testfile.tests_of(place)
        .read_text()
        .endswith(
            '\nheard:\n  - {prompt: ["Refund ORD-10023344", "no, \\"wait\\" \u2026"], intents: {refund: unclear}}\n'
            '  - {prompt: "Please refund order ORD-10023344", intents: {refund: present}}\n'
        )
    )
    assert command("test", str(place)).exit_code == 0
    testfile.tests_of(place).write_text(testfile.tests_of(place).read_text().replace("refund: present", "refund: absent"))
    failed = command("test", str(place))
    assert failed.exit_code == 1
    assert "refund is present: word 'refund'" in failed.stdout


@pytest.mark.parametrize(
    ("heard", "field"),
    [
        ("\nheard: hi\n", "heard"),
        ("\nheard:\n  - hi\n", "heard[0]"),
        ("\nheard:\n  - {prompt: 5, intents: {refund: present}}\n", "heard[0].prompt"),
        ("\nheard:\n  - {prompt: hi, intents: [refund]}\n", "heard[0].intents"),
        ("\nheard:\n  - {prompt: hi, intents: {refund: maybe}}\n", "heard[0].intents.refund"),
        ("\nheard:\n  - {prompt: hi, intents: {pay: absent}}\n", "heard.intents.pay"),
        ("\nheard:\n  - {prompt: hi, intents: {refund: absent}, more: 1}\n", "heard[0].more"),
    ],
)
def test_what_is_heard_is_read_strictly(tmp_path: Path, heard: str, field: str) -> None:
    done = command("test", str(beside(tmp_path, heard)))
    assert done.exit_code == 1
    assert f": {field}: " in done.stdout
