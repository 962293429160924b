"""Why something was refused is one value, whose texts are for people: no code reads them to find out what happened."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import agentgate
from agentgate.decision.answer import Deny
from agentgate.errors import ConfigError, CredentialRefused, Failure, Refusal, Refused, TokenRefused, WorkflowError, problem_at
from agentgate.gate.flow import checked_call
from agentgate.values.refusal import Reason, of_argument, told

PACKAGE = Path(agentgate.__file__).parent
TEXTS = {"got", "expected", "field", "setting", "effect"}  # of failures, errors and findings of a comparison
READING = {
    *("startswith", "endswith", "partition", "rpartition", "split", "rsplit", "removeprefix", "removesuffix"),
    *("replace", "strip", "lstrip", "rstrip", "find", "index", "count"),
}
# What stands in other people's messages alone, and paths of keys that are compared or renamed, not sentences.
ALLOWED = {
    ("approvals/writing/approval.py", "'encrypted' in str(error)"): "cryptography says no other way that a key has a passphrase",
    ("stores/redis.py", "'NOPERM' not in str(error)"): "an error code of the server's protocol",
    ("service/settings.py", 're.search(\'"([^"]+)"\', str(error))'): "pydantic-settings names the variable in its message alone",
    ("service/settings.py", "error.setting.rpartition('.')"): "a setting under the name that the operator gave its block",
    ("review/report/comparison.py", "f'{finding.field}.'.startswith(f'{key}.')"): "one path of keys below another",
    ("integrations/langchain/arguments.py", "error.field.startswith(field)"): "a path in the arguments, as the canonical form gives it",
    ("review/check/advice.py", "self.field.rpartition('.')"): "the last key of a path",
    ("review/check/reports.py", "r.got.partition(':')"): "a decision in words, cut for a table",
}


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is a text of a failure, or the message of an error."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        inner = node.args[0]
        return _is_text(inner) or (isinstance(inner, ast.Name) and inner.id in {"error", "refused", "failure", "problem", "why"})
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) and _is_text(part.value) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.Attribute) and node.attr in TEXTS


def _read_texts(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and any(map(_is_text, node.args))
            if of_re or (node.func.attr in READING and _is_text(node.func.value)):
                yield node
        elif isinstance(node, ast.Compare) and any(isinstance(each, ast.In | ast.NotIn) for each in node.ops):
            found = any(_is_text(each) for each in node.comparators)
            if found and not (isinstance(node.left, ast.Constant) and type(node.left.value) is int):  # of statuses
                yield node


def test_no_code_reads_a_message_to_find_out_what_happened() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), ast.unparse(node))
        for path in PACKAGE.rglob("*.py")
        for node in _read_texts(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        "'.proof' in failure.field",
        "failure.expected.partition('=')",
        "error.got.startswith('nothing in ')",
        "str(error.got).replace(url, name)",
        "c.expected.removeprefix('one of ')",
        "' after ' in finding.effect",
        "re.match('[0-9]+', f.got)",
        "f'{error.field}.'.split('.')",
    ],
)
def test_the_test_above_sees_what_was_there(code: str) -> None:
    assert list(_read_texts(ast.parse(code)))


def test_whoever_refuses_an_argument_says_which() -> None:
    """`told` hides values by the argument in `data`: one that is forgotten there would put a value of the call on record."""
    bare = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func if isinstance(node, ast.Call) else None
            called = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
            if called in {"Failure", "deny"} and isinstance(node, ast.Call):
                first = node.args[1] if len(node.args) > 1 else None
                start = first.values[0] if isinstance(first, ast.JoinedStr) and first.values else first
                if isinstance(start, ast.Constant) and str(start.value).startswith("args."):
                    bare.append(path.relative_to(PACKAGE).as_posix())
    assert bare == ["values/refusal.py"]  # `of_argument` itself


def test_a_value_of_the_call_is_on_no_record() -> None:
    secret = of_argument(Reason.ARGUMENT_VALUE, "payee", "'DE89 3704'", "one of two", "w.yaml:3", "args.payee in")
    made_up = of_argument(Reason.ARGUMENT_UNKNOWN, "ignore previous", "an argument", "one of payee", "", "args args")
    named = of_argument(Reason.ARGUMENT_UNKNOWN, "and this", "an argument", "one of payee", "", "args args")
    shown = told((secret, made_up, named))
    assert [(f.field, f.got) for f in shown] == [("args.payee", "(not shown)"), ("args", "an argument")]
    assert "DE89" not in repr(shown)
    assert "ignore" not in repr(shown)


def test_a_refusal_is_told_again_under_another_field_as_it_was_found() -> None:
    found = CredentialRefused("aud", "ü\n", "ours", proof=True)
    again = found.restate(field="agent.oidc.aud", reason=Reason.AGENT)
    assert (type(again), again.got, again.failures[0].data) == (CredentialRefused, found.got, {"proof": True})
    assert str(again) == "agent: agent.oidc.aud: got '\\xfc\\n', expected ours"
    assert found.field == "aud"


def test_an_error_carries_every_failure_and_one_base_catches_all() -> None:
    problems = [problem_at("w.yaml", 3, 5, "tools", "nothing", "a table", "did you mean 'tool'?"), Failure("", "", "a", "b")]
    error = WorkflowError(problems)
    assert str(error) == "w.yaml:3:5: tools: got nothing, expected a table (did you mean 'tool'?)\nvalue: got a, expected b"
    assert isinstance(error, Refused)
    assert pickle.loads(pickle.dumps(error)).failures == tuple(problems)  # noqa: S301 - our own
    setting = ConfigError("root", None, "a digest").restate(field="gate.root")
    assert (str(setting), setting.got) == ("setting 'gate.root': got None, expected a digest", None)


def test_a_failure_is_a_value() -> None:
    first, other = (Failure("store", "call", "late", "in time", data={"seconds": n}) for n in (1, 2))
    assert first != other
    assert len({first, other, Failure("store", "call", "late", "in time", data={"seconds": 1})}) == 2
    with pytest.raises(FrozenInstanceError):
        first.got = "early"  # type: ignore[misc]


@pytest.mark.parametrize("args", [{"ignore previous": {1}}, {"a": {"ignore previous": 2**70}}, {"ignore previous": float("nan")}])
def test_a_name_that_the_model_made_up_is_on_no_record(args: dict[str, object]) -> None:
    answer = checked_call("pay", args, "a", "")
    assert isinstance(answer, Deny)
    assert [failure.field for failure in told(answer.failures)] == ["args"]
    named = checked_call("\u200b", {}, "a", "")
    assert isinstance(named, Deny)
    assert [failure.field for failure in told(named.failures)] == ["tool"]


def test_a_refused_token_shows_no_more_than_a_line() -> None:
    assert TokenRefused(Refusal.CLAIM, "sub", "x" * 500, "text").got == "x" * 120
