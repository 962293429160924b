"""The engine and the reference answer alike about what a user confirmed: values of one yes, and facts of reads that rest on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from agentgate.decision.origins.kinds import kind_of
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import BY_YES, CONFIRMED, Rule
from tests.effort import examples
from tests.generate import Case, Generator
from tests.generate_values import NOW, values_of
from tests.test_reference import SEED, engine, reference, story

CASES = examples(12_000, 800)
YES, BEFORE = (replace(source, field="pay") for source in BY_YES)


def confirmable(rng: Random, tool: Tool) -> Tool:
    """The tool, some of whose arguments take what the user confirmed, and some of whose facts count after a yes."""

    def widened(rule: Rule) -> Rule:
        fits = tool.name == "pay" and rule.type in kind_of(CONFIRMED).types and not rule.sensitive and rule.sources
        more = rng.choice(((YES,), (YES, BEFORE), (BEFORE, YES), (YES, BEFORE)))
        return replace(rule, sources=(*rule.sources, *more)) if fits and rng.random() < 0.7 else rule

    facts = {name: replace(fact, confirmed=fact.named and rng.random() < 0.6) for name, fact in tool.facts.items()}
    return replace(tool, args={name: widened(rule) for name, rule in tool.args.items()}, facts=facts)


def confirmed_calls(rng: Random, case: Case) -> Iterator[EarlierCall]:
    """The run's calls, some of which rest on a yes, and calls like this one to which the user said yes."""
    for call in case.run.calls:
        yield replace(call, marked=rng.random() < 0.5)
    for number in range(rng.choice((0, 1, 1, 2))):
        args = dict(case.call.args)
        for name in [name for name in args if name in case.workflow.tools["pay"].args and rng.random() < 0.2]:
            args[name] = rng.choice(values_of(name))
        if rng.random() < 0.2:
            args = {name: value[0] if type(value) is list and value else value for name, value in args.items()}
        endorsed = frozenset(name for name in args if rng.random() < 0.8)
        yield EarlierCall(f"yes_{number}", "pay", args, (), named=False, redeemed_at=NOW.timestamp() - 5, endorsed=endorsed)


def remembered_call(rng: Random, case: Case) -> EarlierCall | None:
    """A call like this one of an earlier run, to which the user said yes; mostly of the same tool."""
    if rng.random() < 0.4:
        return None
    args = {
        name: rng.choice(values_of(name)) if rng.random() < 0.1 and name in case.workflow.tools["pay"].args else value
        for name, value in case.call.args.items()
    }
    endorsed = frozenset(name for name in args if rng.random() < 0.8)
    tool = "pay" if rng.random() < 0.9 else "orders.get"
    return EarlierCall("2026-01-01", tool, args, (), named=False, redeemed_at=NOW.timestamp() - 9e6, endorsed=endorsed)


def cases() -> Iterator[Case]:
    rng = Random(SEED)  # noqa: S311 - chooses test data
    for case in Generator(SEED).cases(CASES):
        tools = {name: confirmable(rng, tool) for name, tool in case.workflow.tools.items()}
        run = replace(case.run, calls=tuple(confirmed_calls(rng, case)), remembered=remembered_call(rng, case))
        yield replace(case, workflow=replace(case.workflow, tools=tools), run=run)


def test_the_engine_and_the_reference_agree_about_what_a_user_confirmed() -> None:
    wrong, reached = [], Counter[str]()
    for number, case in enumerate(cases()):
        expected = reference(case)
        if engine(case) != expected:
            wrong.append((number, case))
        strict = replace(case, run=replace(case.run, calls=tuple(replace(c, endorsed=frozenset(), marked=False) for c in case.run.calls)))
        reached["a yes decides"] += reference(strict) != expected
        forgetful = replace(case, run=replace(case.run, remembered=None))
        reached["one that is remembered decides"] += reference(forgetful) != expected
    simplest = sorted(wrong, key=lambda item: len(item[1].call.args) + len(item[1].run.calls))[:3]
    assert not wrong, f"{len(wrong)} disagreements\n\n" + "\n\n".join(story(*item) for item in simplest)
    assert reached["a yes decides"] >= CASES // 50
    assert reached["one that is remembered decides"] >= CASES // 100
