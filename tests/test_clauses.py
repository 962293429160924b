"""A clause is one class: what a key touches in the package, what its class loads, and that it keeps its word."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agentgate.decision.answer import Deny, Eligible
from agentgate.intents.lexical import derive
from agentgate.loading.blocks import (
    AgentBlock,
    ApproversBlock,
    Block,
    BoundaryBlock,
    ConditionsBlock,
    LimitBlock,
    PostureBlock,
    SequenceBlock,
    StepUpBlock,
    TokenBlock,
    UserBlock,
    ViaBlock,
)
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutant import Mutant
from agentgate.review.mutation.mutation import mutations
from agentgate.review.scenarios.scene import Scene
from agentgate.values.value_class import names_of
from agentgate.workflow.clauses.clause import Loosening, WorkflowClause
from agentgate.workflow.clauses.table import CLAUSES, clauses_of
from agentgate.workflow.clauses.who import AgentRule, UserRule
from agentgate.workflow.model import Limit, Sequence, StepUpRule, TokenRule, Workflow
from tests.everything import CLAIMS, EVERYTHING, ROLES
from tests.test_layers import MODULES, PACKAGE, loaded, parsed, room

BLOCKS: tuple[type[Block], ...] = (AgentBlock, PostureBlock, BoundaryBlock, UserBlock, ViaBlock, ConditionsBlock)
KEYS = [key for block in BLOCKS for key in block.model_fields if key not in {"posture", "boundary"}]
# Keys of `token`, `limits`, `step_up` and `upstream` whose word means nothing else, with the fields of the rules that are called
# otherwise. Words such as `count`, `max`, `when` and `user` are in most files.
RULE_KEYS = "ttl bound_to agent_key uses per timeout show exclude endorses role narrower_than region policy".split()
MOST_FILES = 4
# Where clauses are read, decided, told, compared, loosened and made up. The other rooms gather facts about a caller or a gate, by the
# same words.
WALKING = ("workflow", "decision", "explain", "loading", "diff", "review")
# What else goes by the word of a key in these rooms, or heeds it.
APART = {
    "in_process": {
        "decision.hold": "the channel of an answer",
        "review.report.past": "an identity",
    },
    "spiffe": {
        "loading.value_types": "the form of an id",
        "workflow.clauses.clause": "an id",
    },
    "groups": {
        "decision.hold": "of the people who answer",
        "diff.tools": "of classes",
        "diff.language": "of an expression",
        "diff.arguments": "of origins",
        "diff.values": "of values",
        "review.draft.draft": "of a match",
        "review.draft.phrasebook": "of a match",
        "review.replay.evaluate": "of episodes",
        "review.report.past": "a field of a user",
        "review.scenarios.values": "of keys",
    },
    "brokers": {
        "decision.checks": "of upstream credentials",
        "decision.decide": "of upstream credentials",
        "diff.tools": "of upstream credentials",
        "review.mutation.clauses": "of upstream credentials",
        "review.report.past": "of upstream credentials",
        "review.report.witness": "of upstream credentials",
        "review.scenarios.scene": "of upstream credentials",
        "review.scenarios.values": "of upstream credentials",
        "workflow.model": "of upstream credentials",
    },
    "hours": {"decision.decide": "in the sentence of a rule"},
    "per": {
        "diff.plain": "in the path of a finding",
        "loading.yaml_nodes": "in a sentence",
        "review.check.advice": "advice about it",
        "review.replay.evaluate": "in a sentence",
    },
    "timeout": {"loading.source": "of git", "review.replay.reader": "of a model"},
    "show": {"loading.source": "of git", "review.check.advice": "advice about it", "review.report.signers": "of git"},
    "exclude": {"review.root.files": "in a sentence"},
    "endorses": {"decision.hold": "of a question"},
    "role": {
        "decision.checks": "of an argument",
        "diff.arguments": "of an argument",
        "explain.listing": "of an argument",
        "loading.rules": "of an argument",
        "loading.site": "in a sentence",
        "review.mutation.arguments": "of an argument",
        "review.root.files": "of a root's people",
        "workflow.rule": "of an argument",
    },
    "narrower_than": {"loading.source": "in the name of a key of arguments"},
}


@cache
def words_of(module: str) -> frozenset[str]:
    """Every name, and every word of a text, in the code of a module; docstrings aside."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.Constant(value=str(text)):
                    yield from re.findall(r"\w+", text)
                case _:
                    yield from (value for _, value in ast.iter_fields(child) if isinstance(value, str))
            yield from walk(child)

    return frozenset(walk(parsed(MODULES[module].read_text())))


def walking(module: str) -> bool:
    return room(module).partition(".")[0] in WALKING


@pytest.mark.parametrize("key", [*KEYS, *RULE_KEYS])
def test_a_key_touches_four_files_of_the_package_at_most(key):
    naming = {module for module in MODULES if walking(module) and key in words_of(module)}
    apart = APART.get(key, {}).keys()
    assert apart <= naming, "no longer named there"
    assert len(naming - apart) <= MOST_FILES, sorted(naming - apart)


def test_every_key_is_compiled_by_a_class():
    made_of = {"oidc": {"oidc_issuer", "claims"}}  # of these fields of the rule
    compiled = {name for kind in CLAUSES if not kind.heads for name in kind.names}
    assert set().union(*(made_of.get(key, {key}) for key in KEYS)) == compiled


def test_a_clause_loads_nothing_that_compares_or_reviews():
    found = loaded("import agentgate.workflow.clauses.table")
    rooms = {room(name.removeprefix("agentgate.")) for name in found if name.startswith("agentgate.")}
    assert rooms <= {"errors", "values", "workflow"}
    assert found & {"pydantic", "yaml"} == set()
    found = loaded("import agentgate.gate.gate, agentgate.gate.run, agentgate.redemption.verifier")
    assert {name for name in found if name.startswith(("agentgate.diff", "agentgate.review"))} == set()


# --- a class keeps its word ------------------------------------------------------------------------------------------------
@cache
def load(text: str) -> Workflow:
    return load_text(text, "w.yaml", ROLES, derive)


@cache
def mutants_of(text: str) -> tuple[Mutant, ...]:
    return tuple(mutations(load(text)).found)


FOUND = [(text, clause) for text in (EVERYTHING, CLAIMS) for clause in clauses_of(load(text))]


@pytest.mark.parametrize(("text", "clause"), FOUND, ids=[clause.path for _, clause in FOUND])
def test_a_sample_passes_and_only_the_loosened_clause_lets_its_tries_pass(text, clause: WorkflowClause):
    workflow = load(text)
    scene = Scene.of(workflow, {})
    assert clause.allows(clause.found(scene))
    assert isinstance(scene.decide(), Eligible)
    paths = {f"{clause.path}.{step.part}".rstrip(".") for step in clause.loosened()}
    mutants = [mutant for mutant in mutants_of(text) if mutant.path in paths]
    assert {mutant.path for mutant in mutants} == paths
    for mutant in mutants:
        refused = [answer for each in mutant.tries if isinstance(answer := scene.set(each).decide(), Deny)]
        assert [(f.reason, f.field) for answer in refused for f in answer.failures if f.field == clause.field], mutant


@pytest.mark.parametrize("key", [*PostureBlock.model_fields, *BoundaryBlock.model_fields])
def test_a_key_alone_needs_what_it_looks_at(key):
    workflow = load(EVERYTHING)
    alone = replace(workflow, agent=AgentRule(1, spiffe=workflow.agent.spiffe, **{key: getattr(workflow.agent, key)}))
    scene = Scene.of(workflow, {})
    assert isinstance(scene.decide(alone), Eligible)
    for group, block in (("posture", PostureBlock), ("boundary", BoundaryBlock)):
        answer = scene.set({f"who.agent.{group}": None}).decide(alone)
        assert isinstance(answer, Deny) is (key in block.model_fields)
        if isinstance(answer, Deny):
            assert [(str(f.reason), f.field, f.got) for f in answer.failures] == [(group, f"agent.{group}", "none")]


def test_an_agent_that_no_key_names_is_nobody_and_a_user_is_proven_unless_the_host_vouches():
    workflow = replace(load(EVERYTHING), for_user=UserRule(1))
    scene = Scene.of(workflow, {"who": {"user": {"proven": False}}})
    nameless = scene.set({"who.user.proven": True}).decide(replace(workflow, agent=AgentRule(1)))
    assert isinstance(nameless, Deny)
    assert [f.field for f in nameless.failures] == ["agent"]
    unproven = scene.decide()
    assert isinstance(unproven, Deny)
    assert [(f.field, f.got, f.expected) for f in unproven.failures] == [("user", "user (in process)", "a user proven by a token")]
    assert isinstance(scene.decide(replace(workflow, agent=AgentRule(1, in_process=True))), Eligible)


@pytest.mark.parametrize(("text", "clause"), FOUND, ids=[clause.path for _, clause in FOUND])
def test_a_class_of_values_is_refused_as_its_scene_is(text, clause: WorkflowClause):
    scene = Scene.of(load(text), {})
    for value, stated, shown in clause.distinct((clause,)):
        if "hours" in stated or any(str(each).startswith("-") for each in stated.values()) or (clause.bars and value):
            continue  # no scene states such a time; where nobody may be, none is made up
        answer = scene.set(stated).decide()
        failed = isinstance(answer, Deny) and any(f.field.startswith(clause.field) for f in answer.failures)
        assert failed is not clause.allows(value), shown


# --- the rules that are no clauses ------------------------------------------------------------------------------------------
# What a block says that no field of its rule has by the same name: what the field is made of, or what has one value only.
MADE_OF: Mapping[type[Block], tuple[type, str]] = {
    SequenceBlock: (Sequence, ""),
    LimitBlock: (Limit, "count sum max"),
    StepUpBlock: (StepUpRule, "for_ approvers"),
    ApproversBlock: (StepUpRule, "not_"),
    TokenBlock: (TokenRule, "uses bound_to"),
}


@pytest.mark.parametrize("block", MADE_OF, ids=lambda block: block.__name__)
def test_no_key_of_a_block_is_dropped_where_its_rule_is_built(block):
    rule, others = MADE_OF[block]
    assert set(block.model_fields) - set(names_of(rule)) == set(others.split())


@pytest.mark.parametrize("rule", [TokenRule, StepUpRule])
def test_what_a_rule_orders_is_its_own(rule):
    assert {order.field for order in rule.orders} <= set(names_of(rule))


def test_what_a_case_can_state_is_listed():
    workflow = load(EVERYTHING)
    for tool in workflow.tools.values():
        assert tuple(workflow.token.granted(tool)) == TokenRule.pins
        assert all(tuple(step.asks) == StepUpRule.pins for step in tool.step_ups)


def test_a_rule_in_the_place_of_another_is_no_looser_in_anything_that_has_an_order():
    (old, *_) = [step for tool in load(EVERYTHING).tools.values() for step in tool.step_ups]
    other = replace(old, id="other")
    assert other.stands_for(old)
    looser: dict[str, Any] = {"timeout": old.timeout + 1, "exclude": (), "endorses": ("to",), "show": old.show[1:]}
    assert looser.keys() == {order.field for order in StepUpRule.orders}
    for name, value in looser.items():
        assert not replace(other, **{name: value}).stands_for(old), name
        assert replace(old, **{name: value}).stands_for(old), "the same rule: its order tells"
        assert other.stands_for(replace(old, **{name: value})), name


# A made-up key of each block: what is written of it in two files, in place of what stands there. A third decides by it.
MADE_UP = (
    ("loading/blocks.py", "    ttl: Duration = 60\n", "{}    waits: Duration | None = None\n"),
    ("loading/blocks.py", "    endorses: Texts | None = None\n", "{}    reason: Yes | None = None\n"),
    ("loading/blocks.py", "    sum: Text | None = None\n", "{}    apart: Yes | None = None\n"),
    ("loading/blocks.py", "    policy: Text | None = None\n", "{}    session: Text | None = None\n"),
    ("workflow/model.py", "    agent_key: bool = False\n", "{}    waits: int = 0\n"),
    ("workflow/model.py", '        Order("ttl"', '        Order("waits", "it would wait less", "it would wait longer", "less"),\n{}'),
    ("workflow/model.py", "self.agent_key or other.agent_key", "{}, max(self.waits, other.waits)"),
    ("workflow/model.py", "    endorses: tuple[str, ...] = ()\n", "{}    reason: bool = False\n"),
    (
        "workflow/model.py",
        '        Order(\n            "timeout"',
        '        Order("reason", "none would be asked", "one would be asked", "less"),\n{}',
    ),
    ("workflow/model.py", "    every: int | None = None\n", "{}    apart: bool = False\n"),
    ("workflow/model.py", 'return self.per + (f" every', 'return self.per + " apart" * self.apart + (f" every'),
)
TRY = """
from agentgate.decision.versions import Versions
from agentgate.diff import compare
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.report.comparison import first
from tests.everything import EVERYTHING, ROLES

text = EVERYTHING
for there, here in (
    ("token: {", "token: {waits: 3s, "),
    ("    timeout: 10m\\n", "    timeout: 10m\\n    reason: true\\n"),
    ("max: 2,", "max: 2, apart: true,"),
    ("{broker: ", "{session: one, broker: "),
):
    assert there in text, there
    text = text.replace(there, here, 1)
old, new = (load_text(each, "w.yaml", ROLES, derive) for each in (EVERYTHING, text))
assert old.digest != new.digest
back = {finding.field for finding in compare(new, old).wider}
assert {"token.waits", "step_up.share.reason", "limits.count bills.pay per run"} < back, back
assert "upstream.session" in {finding.field for finding in compare(old, new).wider}
assert not compare(old, new).read_yourself
assert Versions(old, new).minted.token.waits == Versions(new, old).minted.token.waits == 3
shown = " ".join(change.new for change in first(new))
assert "per run apart" in shown
assert "session: one" in shown
"""


def test_a_made_up_key_is_read_compared_joined_and_shown_from_two_files(tmp_path: Path):
    shutil.copytree(PACKAGE, tmp_path / "agentgate", ignore=shutil.ignore_patterns("__pycache__"))
    for name, there, here in MADE_UP:
        path = tmp_path / "agentgate" / name
        text = path.read_text()
        assert text.count(there) == 1, (name, there)
        path.write_text(text.replace(there, here.replace("{}", there)))
    paths = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    run = subprocess.run(
        [sys.executable, "-c", TRY],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr


def loosenings(workflow: Workflow) -> Iterator[tuple[str, Loosening]]:
    """What the rules of limits, step-up, token, credential and order say loosens them, each with its path in the file."""
    yield from (("token", step) for step in workflow.token.loosened())
    for tool in workflow.tools.values():
        yield from ((f"limits.{limit.name}", step) for limit in tool.limits for step in limit.loosened(1))
        yield from ((f"step_up.{rule.id}", step) for rule in tool.step_ups for step in rule.loosened())
        yield from ((f"sequence.{tool.name}", step) for order in tool.sequence for step in order.loosened())
        if tool.upstream is not None:
            yield from ((f"upstream.{tool.name}", step) for step in tool.upstream.loosened(tool.name))


@pytest.mark.parametrize("text", [EVERYTHING, CLAIMS], ids=["everything", "claims"])
def test_what_a_rule_says_loosens_it_is_a_mutant_with_its_pin(text):
    stated = {(f"{path}.{step.part}", step.name, step.pin) for path, step in loosenings(load(text))}
    assert stated
    assert stated <= {(mutant.path, mutant.name, mutant.pin) for mutant in mutants_of(text)}
