"""``agentgate workflow lint``: what it prints, where, and its exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import Advice, advise, gathered
from tests import preloaded

WORKFLOWS = Path(__file__).parent.parent / "workflows"
PAYMENT = (WORKFLOWS / "payments/customer-refund.yaml").read_text()
ROLES = roles_of(WORKFLOWS)


def lint(*args: object, env=None):
    return CliRunner().invoke(app, ["workflow", "lint", *map(str, args)], env={"NO_COLOR": "1", "COLUMNS": "160", **(env or {})})


@pytest.fixture
def folder(tmp_path):
    shutil.copy(WORKFLOWS / "roles.yaml", tmp_path)
    (tmp_path / "refund.yaml").write_text(PAYMENT)
    return tmp_path


def warnings(*changes: tuple[str, str]):
    text = PAYMENT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    found = advise(load_text(text, "w.yaml", ROLES, derive), read_yaml(text, "w.yaml"))
    lines = text.splitlines()
    return [(a.field, a.text, lines[a.line - 1][a.column - 1 :]) for a in found]


def test_a_workflow_whose_last_day_is_over_is_named():
    today = datetime.now(UTC).date()
    (expires,) = re.findall(r"^expires: .*", PAYMENT, re.MULTILINE)
    assert warnings((expires, f'expires: "{today}"')) == []
    (found,) = warnings((expires, f'expires: "{today - timedelta(days=1)}"'))
    assert (found[0], found[1]) == ("expires", "over: every call is refused; expected a day to come")
    assert found[2].startswith("expires: ")


def test_a_limit_that_ends_a_conversation_for_good_is_named_where_the_workflow_is_for_conversations():
    run = "{count: any, max: 20, per: run}"
    assert run in PAYMENT
    assert warnings() == []
    for per in ("turn", "conversation"):
        talks = f"{run}\n  - {{count: payments.refund, max: 1, per: {per}}}"
        [(field, text, _)] = warnings((run, talks))
        assert field == "limits"
        assert "counts every call of a conversation" in text
        assert warnings((run, talks.replace("per: run", "per: turn", 1).replace("per: conversation", "per: turn"))) == []


def test_the_founding_workflows_are_clean():
    result = lint("--strict", WORKFLOWS)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "0 problems, 0 warnings" in result.stderr


def test_every_problem_is_a_plain_line_in_a_pipe(folder):
    (folder / "refund.yaml").write_text(PAYMENT.replace("needs: [refund]", "needs: [refnd]").replace("risk: high", "risk: hihg"))
    result = lint(folder)
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{folder / 'refund.yaml'}:")
    assert first.endswith("risk: got 'hihg', expected low, medium or high (did you mean 'high'?)")
    line = (folder / "refund.yaml").read_text().splitlines().index("    needs: [refnd]") + 1
    assert second.startswith(f"{folder / 'refund.yaml'}:{line}:13: tools.payments.refund.needs[0]: got 'refnd'")
    assert "1 problem" not in result.stdout


def test_a_single_file_finds_the_roles_above_it():
    assert lint(WORKFLOWS / "payments/customer-refund.yaml").exit_code == 0


@pytest.mark.parametrize("name", ["gone", "gone.yaml"])
def test_a_path_that_does_not_exist_is_a_problem(tmp_path, name):
    result = lint(tmp_path / name)
    assert result.exit_code == 1
    assert "gone" in result.stdout


def test_a_folder_without_workflows_is_a_problem(tmp_path):
    result = lint(tmp_path)
    assert result.exit_code == 1
    assert "no workflow file" in result.stdout


def test_bad_roles_are_a_problem(folder):
    (folder / "roles.yaml").write_text("agentgate: roles/v1\nroles: {}\n")
    result = lint(folder)
    assert result.exit_code == 1
    assert f"{folder / 'roles.yaml'}:2:8: roles: " in result.stdout


def test_two_files_of_one_id_are_a_problem_of_both(folder):
    (folder / "again.yaml").write_text(PAYMENT)
    result = lint(folder)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2


def test_warnings_pass_unless_strict(folder):
    (folder / "refund.yaml").write_text(PAYMENT.replace("show: [order_id, amount, currency, payee, reason]", "show: [amount]"))
    result = lint(folder)
    assert result.exit_code == 0
    assert ": warning: tools.payments.refund.args.reason.from: the model may write it" in result.stdout
    assert lint("--strict", folder).exit_code == 1


def test_a_terminal_gets_a_table(folder):
    (folder / "refund.yaml").write_text(PAYMENT.replace("risk: high", "risk: hihg"))
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    result = CliRunner().invoke(app, ["workflow", "lint", str(folder)], env={**env, "COLUMNS": "160"}, color=True)
    assert result.exit_code == 1
    assert "expected" in result.stdout
    assert "did you mean 'high'?" in result.stdout
    assert "\x1b[" in result.stdout


def test_a_file_cannot_write_to_the_terminal(folder):
    (folder / "refund.yaml").write_text('"\\e[2J[red]": 1\n' + PAYMENT)
    for env in ({"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}):
        assert "\x1b[2J" not in CliRunner().invoke(app, ["workflow", "lint", str(folder)], env=env, color=True).stdout


def test_help_shows_examples():
    result = lint("--help")
    assert result.exit_code == 0
    assert "agentgate workflow lint workflows/payments/customer-refund.yaml" in result.stdout
    assert "Exit codes: 0" in result.stdout


def test_the_command_runs_as_a_program():
    done = preloaded.run("workflow", "lint", str(WORKFLOWS), cwd=WORKFLOWS.parent)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_not_pinned_is_one_line_for_the_whole_file(folder):
    text = re.sub("    definition: .*\n    redeem: server", "    redeem: wrapper", PAYMENT)
    (folder / "refund.yaml").write_text(text)
    lines = lint(folder).stdout.splitlines()
    assert len(lines) == 1
    first = next(n for n, line in enumerate(text.splitlines(), 1) if line == "  orders.get:")
    begins = f"{folder / 'refund.yaml'}:{first}:3: warning: tools.orders.get: not pinned: definition of orders.get and payments.refund ("
    assert lines[0].startswith(begins)
    assert "1 warning" in lint(folder).stderr


def test_the_summary_counts_warnings_by_kind(folder):
    text = re.sub("    definition: .*\n    redeem: server", "    redeem: wrapper", PAYMENT).replace("payee, reason]", "payee]")
    (folder / "refund.yaml").write_text(text + "# DECIDE: x\n")
    assert "3 warnings (undecided 1, not pinned 1, from 1)" in lint(folder).stderr


def test_no_place_is_lost_and_each_question_of_a_draft_stays_by_itself(folder):
    (folder / "refund.yaml").write_text(PAYMENT.replace("tools:\n", "tools:\n# DECIDE: x\n# DECIDE: x\n", 1))
    assert [line.rpartition("warning: ")[2] for line in lint(folder).stdout.splitlines()] == ["undecided: x", "undecided: x"]
    found = [Advice("w", n, 1, f"f{n}", "a" if n % 2 else "b") for n in range(1, 8)] + [Advice("v", 1, 1, "f", "a")]
    made = gathered(found)
    assert [(a.file, a.line) for a in made] == [("w", 1), ("w", 2), ("v", 1)]
    assert made[0].text == "a (and 3 more: f3 3:1, f5 5:1, f7 7:1)"


def test_the_summary_stands_after_the_lines_also_where_both_go_into_one_pipe(folder):
    (folder / "refund.yaml").write_text(PAYMENT + "# DECIDE: which one of these is meant by the person who asked for it?\n" * 300)
    done = subprocess.run(
        [sys.executable, "-c", "from agentgate.cli.main import app; app()", "workflow", "lint", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    )
    assert done.stdout.endswith("\n1 workflow loaded, 0 problems, 300 warnings\n")
    assert all(line.startswith(f"{folder}") for line in done.stdout.splitlines()[:-2])


# --- advice --------------------------------------------------------------------------------------------------------------


def test_no_advice_on_the_payment_workflow():
    assert warnings() == []


def test_names_a_write_argument_that_the_model_writes_and_nobody_sees():
    (found,) = warnings(("payee, reason]", "payee]"))
    assert found[0] == "tools.payments.refund.args.reason.from"
    assert "no step-up shows it" in found[1]
    assert found[2].startswith("from: [model], entities")


def test_names_what_is_not_pinned():
    text = "    definition: sha256:16dd4739611307a349a85ce39342be57e2a380e5d85e2c94dce2b977d11ea047\n    redeem: server"
    (found,) = warnings((text, "    redeem: wrapper"))
    assert found[0] == "tools.orders.get"
    assert found[1].startswith("not pinned: definition of orders.get ")
    assert found[2] == "orders.get:"


def test_names_the_write_arguments_that_a_model_chosen_read_steers():
    found = warnings(
        ("order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}", "order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [model]}")
    )
    assert {f[0] for f in found} == {
        f"tools.payments.refund.args.{name}" for name in ("order_id.from", "amount.from", "amount.at_most", "currency.from", "payee.from")
    }
    assert all("the model chooses orders.get.order_id" in f[1] for f in found)


def test_all_origins_of_an_argument_are_one_finding():
    found = warnings(
        ("order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}", "order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [model]}"),
        ("from: [orders.get.customer_id]", "from: [orders.get.customer_id, orders.get.order_id]"),
    )
    (payee,) = [f for f in found if f[0].endswith("payee.from")]
    assert payee[1] == "steerable: the model chooses orders.get.order_id, and so what orders.get.customer_id and orders.get.order_id say"
    rows = "      total: {type: money, currency: currency}\n"
    found = warnings(
        ("effect: write", "effect: destructive"),
        (
            "order_id: {pattern: 'ORD-[0-9]{8}', from: [orders.get.order_id]}",
            "order_id: {type: id, from: [orders.get.row, orders.get.line]}",
        ),
        (rows, rows + "      row: {type: id, path: 'rows[].id'}\n      line: {type: id, path: 'rows[].no'}\n"),
    )
    assert [f[1].split(" counts")[0] for f in found] == ["any row of orders.get.row and orders.get.line"]


def test_a_read_that_takes_its_argument_from_a_model_chosen_read_steers_too():
    extra = """  orders.find:
    effect: read
    needs: any
    redeem: wrapper
    audience: https://orders.acme.example
    scope: [orders:find]
    definition: sha256:16dd4739611307a349a85ce39342be57e2a380e5d85e2c94dce2b977d11ea047
    args: {query: {text: 80, from: [model]}}
    facts: {order_id: {type: id}}
  payments.refund:
"""
    found = warnings(
        ("  payments.refund:\n", extra),
        ("pattern: 'ORD-[0-9]{8}', from: [prompt]}", "pattern: 'ORD-[0-9]{8}', from: [orders.find.order_id]}"),
    )
    assert any(f[0] == "tools.payments.refund.args.payee.from" and "orders.get.order_id" in f[1] for f in found)


def test_a_workload_that_acts_for_nobody_takes_the_place_of_the_model():
    text = (WORKFLOWS / "ci/deploy.yaml").read_text()
    assert advise(load_text(text, "w", ROLES, derive), read_yaml(text, "w")) == ()


def test_an_agent_that_acts_for_a_user_is_a_model_whatever_the_intents_say():
    text = (WORKFLOWS / "ci/deploy.yaml").read_text().replace("intents:\n", "  for_user: {same_tenant: true}\nintents:\n")
    found = advise(load_text(text, "w", ROLES, derive), read_yaml(text, "w"))
    assert [a.field for a in found] == [f"tools.cloud.assume-deploy-role.args.{name}.from" for name in ("service", "scopes")]


def test_names_an_intent_that_a_source_may_choose():
    (found,) = warnings(("  refund:\n", "  refund:\n    delegated: present\n"))
    assert found[0] == "intents.refund.delegated"
    assert "whoever writes that source chooses the action" in found[1]


def test_names_a_datetime_that_a_prompt_may_name_in_two_places():
    new = "reason:   {text: 200"
    (found,) = warnings((new, "at:       {type: datetime, from: [prompt], optional: true}\n      " + new))
    assert found[0] == "tools.payments.refund.args.at.from"
    assert "apart" in found[1]


def test_names_what_is_read_out_of_a_text():
    (found,) = warnings(
        ("      customer_id: {type: id}", "      customer_id: {type: id}\n      account: {type: iban, path: note, find: one, trust: named}")
    )
    assert found[0] == "tools.orders.get.facts.account.find"
    assert "whoever wrote that text" in found[1]


def test_names_an_object_to_change_that_may_be_any_row_and_an_account_named_by_free_text():
    rows = "      total: {type: money, currency: currency}\n"
    found = warnings(
        ("effect: write", "effect: destructive"),
        ("order_id: {pattern: 'ORD-[0-9]{8}', from: [orders.get.order_id]}", "order_id: {type: id, from: [orders.get.row]}"),
        (rows, rows + "      row: {type: id, path: 'rows[].id'}\n"),
    )
    assert [(f[0], "any row of orders.get.row" in f[1]) for f in found] == [("tools.payments.refund.args.order_id.from", True)]
    labelled = "      row: {type: id, path: 'rows[].id', named_by: [title]}\n      title: {type: text, path: 'rows[].title'}\n"
    account = "      iban: {type: iban, path: 'rows[].iban', named_by: [row, title]}\n"
    found = warnings(
        ("effect: write", "effect: destructive"),
        ("order_id: {pattern: 'ORD-[0-9]{8}', from: [orders.get.order_id]}", "order_id: {type: id, from: [orders.get.row]}"),
        (rows, rows + labelled + account),
    )
    assert [(f[0], "whoever writes title" in f[1]) for f in found] == [("tools.orders.get.facts.iban.named_by", True)]


def test_names_labelled_rows_of_a_search_that_the_model_may_word():
    rows = "      total: {type: money, currency: currency}\n"
    labelled = "      row: {type: id, path: 'rows[].id', named_by: [title]}\n      title: {type: text, path: 'rows[].title'}\n"
    asked = "order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}"
    assert not warnings((rows, rows + labelled))
    found = [f for f in warnings((rows, rows + labelled), (asked, asked.replace("[prompt]", "[model]"))) if f[0].endswith("named_by")]
    assert [(f[0], "hold order_id too" in f[1]) for f in found] == [("tools.orders.get.facts.row.named_by", True)]


def test_names_an_amount_computed_from_any_row_or_without_a_bound():
    rows = "      total: {type: money, currency: currency}\n"
    old = 'min: "0.01", max: "500.00", at_most: orders.get.total, from: [prompt, orders.get.total]}'
    listed = rows.replace("currency: currency", "currency: currency, path: 'rows[].total'")
    limit = '  - {sum: payments.refund.amount, max: "5000.00", per: tenant, every: 1d}   # kept per currency\n'
    (found, other) = warnings((rows, listed), (old, "from: [prompt, orders.get.total, computed]}"), (limit, ""))
    assert found[0] == other[0] == "tools.payments.refund.args.amount.from"
    assert "computed from any rows of orders.get.total" in found[1]
    assert "computed without max" in other[1]
    assert warnings((old, old.replace("total]}", "total, computed]}"))) == []


def test_a_claim_that_can_change_hands_is_named_with_the_one_that_cannot(tmp_path):
    shutil.copy(WORKFLOWS / "roles.yaml", tmp_path)
    text = (WORKFLOWS / "ci/deploy.yaml").read_text()
    (tmp_path / "deploy.yaml").write_text(text)
    assert "take over" not in lint(tmp_path).stdout
    line = next(line for line in text.splitlines() if "repository_id" in line)
    (tmp_path / "deploy.yaml").write_text(text.replace(line + "\n", ""))
    warned = [row for row in lint(tmp_path).stdout.splitlines() if "take over" in row]
    place = 1 + next(n for n, row in enumerate(text.splitlines()) if "repository: {is" in row)
    assert len(warned) == 1
    assert f"deploy.yaml:{place}:9: warning: who.agent.oidc.claims.repository: " in warned[0]
    assert "repository_id" in warned[0]
