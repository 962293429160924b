"""``NAME.test.yaml``: a base case that goes through, and cases that change only what they name.

Rules: `expect` is required; a denial must say why (`because`), and be for that and nothing
else; a case whose tool the workflow does not have reaches no rule and fails; a case whose
earlier calls would themselves have been refused could not have come about and fails. Besides
the decision, a case can pin what is handed out (`grants`) and who is asked (`asks`), read from
the workflow as the gate reads it when it mints, opens a hold or fetches a credential. The file
is read as strictly as a workflow, and nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from agentgate.decision.answer import Deny, Eligible
from agentgate.errors import Failure, Failures, WorkflowError, place_of, problem_at
from agentgate.intents.deriver import ask
from agentgate.intents.lexical import derive as lexical
from agentgate.loading.blocks import Block
from agentgate.loading.definition import read_block, read_file
from agentgate.loading.value_types import read_as, wrong
from agentgate.loading.yaml_nodes import Document, did_you_mean, inline, read_yaml, shown
from agentgate.loading.yaml_nodes import Path as Place
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.values import SceneError, findings, flatten
from agentgate.values.entities import number
from agentgate.values.request import Call, Presence
from agentgate.values.times import seconds
from agentgate.values.value_class import Json, Names, Values, value_class
from agentgate.workflow.model import StepUpRule, TokenRule, Workflow

_GRANTS = (*TokenRule.pins, *"scope audience redeem effect intent upstream masked mode".split())
Answer = Literal["allow", "deny", "confirm", "step_up"]


@value_class
class NamedCase:
    """What a test file says of one scene."""

    name: str
    # dotted key -> value, over the base (`set`, and `without` as None)
    changes: Values
    answer: Answer  # the expected answer
    rules: Names = ()  # ids of the rules that fire, for ``confirm`` and ``step_up``
    # fields or reasons; a denial (or hold) is for each of these and nothing else
    because: Names = ()
    # what an allowed or held call gets; only the named keys are compared
    grants: Values = field(default_factory=dict)
    # by rule id, who is asked; only the named keys are compared
    asks: Values = field(default_factory=dict)
    line: int = 0  # its line in the file, from 1; 0: a proposed case

    @property
    def expected(self) -> str:
        """The expectation in words."""
        what = " ".join([self.answer, ", ".join(self.rules)]) if self.rules else self.answer
        return what + (f" because {', '.join(self.because)}" if self.because else "")


Played = tuple[NamedCase, Scene]


def mismatch(
    workflow: Workflow,
    case: NamedCase,
    scene: Scene,
    answer: Eligible | Deny,
) -> str:
    """What of a case does not hold of a decision, in words; empty when all of it holds."""
    if answer.asks != case.answer:
        return f"expected {case.expected}, got {in_words(answer)}"
    if isinstance(answer, Deny):
        return _because(case, answer.failures)
    if set(rules_of(answer)) != set(case.rules):
        return f"expected {case.expected}, got {in_words(answer)}"
    if case.because and (wrong := _because(case, answer.failures)):
        return wrong
    given = granted(workflow, scene.call, answer)
    pinned = [("grants", key, value, given[key]) for key, value in case.grants.items()]
    for hold in answer.holds:
        who = hold.rule.asks
        pinned += [
            ("asks", key, value, who[key])
            for key, value in case.asks.get(hold.rule.id, {}).items()
        ]
    for block, key, value, got in pinned:
        if not _same(value, got):
            return f"{block}.{key}: expected {_listed(value)}, got {_listed(got)}"
    return ""


def _listed(value: Any) -> str:
    """A pinned value as a message shows it, a list with what is in it."""
    return f"[{', '.join(map(shown, value))}]" if type(value) is list else shown(value)


def _because(case: NamedCase, failures: Failures) -> str:
    """A refusal is for every named reason, and only for those."""
    for reason in case.because:
        if not any(_is_for(failure, reason) for failure in failures):
            return f"expected because of {reason}, got " + "; ".join(map(str, failures))
    others = (
        failure
        for failure in failures
        if not any(_is_for(failure, reason) for reason in case.because)
    )
    return next((f"also refused for another reason: {failure}" for failure in others), "")


def _is_for(failure: Failure, reason: str) -> bool:
    """Whether a case names this failure: by its reason, its field, or its argument (``payee``
    for ``args.payee``).
    """
    return reason in {str(failure.reason), failure.field, failure.argument}


def in_words(answer: Eligible | Deny) -> str:
    """A decision in one line."""
    if isinstance(answer, Deny):
        return "deny: " + "; ".join(map(str, answer.failures))
    return f"{answer.asks} {', '.join(rules_of(answer))}".rstrip()


def rules_of(answer: Eligible | Deny) -> Names:
    """The rules that hold a call; none of one that is refused."""
    return tuple(hold.rule.id for hold in answer.holds) if isinstance(answer, Eligible) else ()


# --- what no decision shows -------------------------------------------------------------------
def granted(
    workflow: Workflow,
    call: Call,
    answer: Eligible,
) -> Values:
    """What the token and the credential for an eligible call are, as a workflow file writes
    them.
    """
    tool = workflow.tools[call.tool]
    return {
        **workflow.token.granted(tool),
        "scope": list(tool.scope) or [tool.name],
        "audience": tool.audience or "none",
        "redeem": tool.redeem,
        "effect": tool.effect,
        "intent": answer.intent,
        "upstream": tool.upstream.granted if tool.upstream else "none",
        "masked": [name for name, rule in tool.args.items() if rule.sensitive],
        "mode": "observe" if workflow.observe else "enforce",
    }


def _same(
    stated: Any,
    got: Any,
) -> bool:
    """Whether a pinned value is the real one; ``1m`` is ``60s``, and lists of names have no
    order.
    """
    if type(stated) is list and type(got) is list:
        return all(type(item) is str for item in stated) and sorted(stated) == sorted(got)
    if type(stated) is dict and type(got) is dict:
        return stated.keys() == got.keys() and all(
            _same(stated[name], got[name]) for name in got
        )
    if type(stated) is type(got) and stated == got:
        return True
    return (number(stated) is not None and number(stated) == number(got)) or seconds(
        stated
    ) == seconds(got) is not None


# --- as YAML ----------------------------------------------------------------------------------
def _one_or_all(values: Names) -> str | Names:
    return values[0] if len(values) == 1 else values


def case_yaml(case: NamedCase) -> str:
    """One case as a line (or a few) to append below ``cases:``."""
    expected = {case.answer: _one_or_all(case.rules)} if case.rules else case.answer
    parts = {
        "set": {key: value for key, value in case.changes.items() if value is not None},
        "without": [key for key, value in case.changes.items() if value is None],
        "expect": expected,
        "because": _one_or_all(case.because),
        "grants": case.grants,
        "asks": next(iter(case.asks.values()))
        if len(case.rules) == 1 and case.asks
        else case.asks,
    }
    lines = [
        f"name: {inline(case.name)}",
        *(f"{key}: {inline(value)}" for key, value in parts.items() if value),
    ]
    line = f"  - {{{', '.join(lines)}}}"
    return line if len(line) <= 160 else "  - " + "\n    ".join(lines)


def cases_yaml(cases: Iterable[NamedCase]) -> str:
    """Cases as YAML to append below ``cases:``."""
    return "".join(case_yaml(case) + "\n" for case in cases)


def file_yaml(
    workflow: Workflow,
    base: Values,
    answer: Eligible | Deny,
) -> str:
    """A new test file up to ``cases:``, with a base of which this is the answer."""
    lines = [
        f"# What {workflow.id} lets through and what not. `agentgate workflow test -v` runs it.",
        f"workflow: {inline(workflow.id)}",
    ]
    lines += ["base:", *(f"  {key}: {inline(value)}" for key, value in base.items())]
    if held := rules_of(answer):
        lines.append(
            f"expect: {inline({answer.asks: _one_or_all(held)})}   # the base asks a person"
        )
    return "\n".join([*lines, "cases:", ""])


MAX_CASES = 2000
_ASKED: tuple[Answer, ...] = ("confirm", "step_up")
_EXPECTED = "allow, deny, {confirm: rule-id} or {step_up: rule-id}"


@value_class
class HeardCase:
    """What the intents come out as after these turns."""

    turns: Names
    intents: Mapping[str, Presence]
    line: int = 0


@value_class
class TestFile:
    """A test file as read. `base` is the first case: no changes, allowed unless the file says
    which rule holds it.
    """

    __test__ = False  # not a test of pytest's

    file: str
    workflow: str
    stated: Values
    base: NamedCase
    cases: tuple[NamedCase, ...]
    places: Mapping[tuple[int, str], tuple[int, int]] = field(default_factory=dict, repr=False)
    heard: tuple[HeardCase, ...] = ()

    @property
    def all(self) -> tuple[NamedCase, ...]:
        """The base and every case."""
        return (self.base, *self.cases)

    def problems(self, index: int, found: Iterable[Failure]) -> list[Failure]:
        """What is wrong with the scene of a case (-1: the base), at its places in the file."""
        block, line = (
            ("base", self.base.line)
            if index < 0
            else (f"cases[{index}].set", self.cases[index].line)
        )
        places = ((*self.places.get((index, p.field), (line, 1)), p) for p in found)
        return [
            problem_at(self.file, at, column, f"{block}.{p.field}", p.got, p.expected, p.hint)
            for at, column, p in places
        ]


@value_class
class Result:
    """What became of one case."""

    name: str
    passed: bool  # everything it says held
    expected: str
    got: str  # the decision in words, with every reason
    why: str  # what did not hold; empty when it passed
    place: str  # ``file:line``
    changed: Values  # what the case changed, and what was filled for it alone, by dotted key


@value_class
class CaseResults:
    """The results of one test file. `filled`: what the base left out, and was filled with."""

    file: str
    workflow: str
    results: tuple[Result, ...]
    filled: Values

    @property
    def passed(self) -> bool:
        """Every case passed (the base is one)."""
        return all(result.passed for result in self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """The cases that did not pass."""
        return tuple(result for result in self.results if not result.passed)


# --- reading ----------------------------------------------------------------------------------
def tests_of(workflow_file: str | Path) -> Path:
    """The test file of a workflow file: ``NAME.test.yaml`` beside it."""
    return Path(workflow_file).with_suffix(".test.yaml")


def load_tests(path: str | Path) -> TestFile:
    """Read a test file. Raises WorkflowError: with every problem at its line and column."""
    return read_tests(read_file(Path(path)), str(path))


def read_tests(text: str, file: str) -> TestFile:
    """Read the text of a test file. Raises as `load_tests`."""
    document = read_yaml(text, file)
    block = read_block(document, _FileBlock, "a mapping with workflow, base and cases")
    reading = _Reading(document)
    stated = reading.leaves(-1, ("base",), block.base)
    answer, rules = block.expect
    if answer == "deny":
        document.report(
            ("expect",),
            "deny",
            "a base that goes through: allow, {confirm: rule-id} or {step_up: rule-id}",
        )
    base = NamedCase("base", {}, answer, rules, line=document.line(("base",)))
    cases = tuple(reading.case(index, each) for index, each in enumerate(block.cases))
    heard = tuple(
        HeardCase(each.prompt, each.intents, document.line(("heard", index)))
        for index, each in enumerate(block.heard)
    )
    document.refuse()
    return TestFile(file, block.workflow, stated, base, cases, reading.places, heard)


def _texts(value: Any) -> Names | None:
    values = value if type(value) is list else [value]
    return tuple(values) if all(type(item) is str and item for item in values) else None


def _expectation(value: Any) -> tuple[Answer, Names]:
    if value in ("allow", "deny"):
        return value, ()
    for asks in _ASKED:
        if type(value) is dict and list(value) == [asks]:
            if not (rules := _texts(value[asks])):
                raise wrong(
                    f"{asks}: text, or a list of texts: the id of at least one step-up rule"
                )
            return asks, rules
    raise wrong(_EXPECTED, did_you_mean(value, ("allow", "deny")))


def _of(kind: type, expected: str) -> PlainValidator:
    return read_as(
        lambda value: value if type(value) is kind and value != "" else None, expected
    )


_Texts = Annotated[Names, read_as(_texts, "text, or a list of texts")]
_Expectation = Annotated[tuple[Answer, Names], PlainValidator(_expectation)]
_Pins = Annotated[Values, _of(dict, "a mapping of what is pinned")]


class _CaseBlock(Block):
    name: Annotated[str, _of(str, "a sentence that names the case")] = Field(
        None, validate_default=True
    )
    set: Annotated[Values, _of(dict, "a mapping of what this case changes")] = Field(
        default_factory=dict
    )
    without: _Texts = ()
    expect: _Expectation = Field(None, validate_default=True)
    because: _Texts = ()
    grants: _Pins = Field(default_factory=dict)
    asks: _Pins = Field(default_factory=dict)


class _HeardBlock(Block):
    prompt: _Texts
    intents: dict[str, Presence]


class _FileBlock(Block):
    workflow: Annotated[str, _of(str, "the id of the workflow")]
    base: Json
    expect: _Expectation = ("allow", ())
    cases: Annotated[list[_CaseBlock], Field(max_length=MAX_CASES)]
    heard: Annotated[list[_HeardBlock], Field(max_length=MAX_CASES)] = Field(
        default_factory=list
    )


class _Reading:
    """The cases of one document, of whose shape nothing is wrong; findings are reported to
    it.
    """

    def __init__(self, document: Document) -> None:
        self.document, self.report = document, document.report
        self.places: dict[tuple[int, str], tuple[int, int]] = {}
        self.names: dict[str, int] = {}

    def case(self, index: int, block: _CaseBlock) -> NamedCase:
        """One case."""
        path, line, (answer, rules) = (
            ("cases", index),
            self.document.line(("cases", index)),
            block.expect,
        )
        if self.names.setdefault(block.name, index) != index:
            first = self.document.line(("cases", self.names[block.name]))
            self.report(
                (*path, "name"), shown(block.name), f"a name of its own (first on line {first})"
            )
        changes = self.leaves(index, (*path, "set"), block.set)
        for at, key in enumerate(block.without):
            changes[key] = None
            self.places[index, key] = self.document.place((*path, "without", at))
        if answer == "deny" and not block.because:
            self.report(
                (*path, "expect"),
                "deny without a reason",
                "because: the field or reason that it is refused for",
            )
        if answer == "allow" and block.because:
            self.report((*path, "because"), "a reason", "none: nothing is refused", key=True)
        if answer == "deny" and block.grants:
            self.report(
                (*path, "grants"), "grants of a denial", "none: nothing is handed out", key=True
            )
        self._check_pins((*path, "grants"), block.grants, _GRANTS)
        asks = block.asks if set(block.asks) <= set(rules) else dict.fromkeys(rules, block.asks)
        if block.asks and len(asks) != 1 and asks is not block.asks:
            self.report(
                (*path, "asks"),
                "asks",
                "expect: {step_up: rule-id} or confirm with one rule, or asks: {rule-id: {...}}",
                key=True,
            )
        for rule, pinned in asks.items():
            self._check_pins(
                (*path, "asks", *([rule] if asks is block.asks else [])),
                pinned,
                StepUpRule.pins,
            )
        return NamedCase(
            block.name, changes, answer, rules, block.because, block.grants, asks, line
        )

    def _check_pins(
        self,
        path: Place,
        pinned: Any,
        allowed: Names,
    ) -> None:
        if type(pinned) is not dict:
            self.report(
                path, shown(pinned), f"a mapping of what is pinned: {', '.join(allowed)}"
            )
            return
        for key in pinned.keys() - set(allowed):
            hint = did_you_mean(key, [k for k in allowed if k not in pinned])
            self.report(
                (*path, key), "an unknown key", f"one of {', '.join(allowed)}", hint, key=True
            )

    def leaves(
        self,
        index: int,
        path: Place,
        block: Values,
    ) -> Json:
        """A block's leaves by dotted key, with their places; the same key twice in two
        spellings is a finding.
        """
        out = {}
        for key, value, inside in flatten(block):
            here = (*path, *inside)
            if key in out:
                self.report(here, f"{key} again", "each key once", key=True)
            out[key] = value
            self.places[index, key] = self.document.place(here, key=True)
        return out


# --- running ----------------------------------------------------------------------------------
def scenes(workflow: Workflow, tests: TestFile) -> tuple[Played, ...]:
    """Every case with its scene, the base first.

    Raises WorkflowError: a key of a scene is wrong, or the tests are of another workflow; every
    problem at its line and column.
    """
    problems = []
    if tests.workflow != workflow.id:
        hint = did_you_mean(tests.workflow, [workflow.id])
        problems.append(
            problem_at(
                tests.file,
                1,
                1,
                "workflow",
                shown(tests.workflow),
                f"'{workflow.id}', the workflow beside it",
                hint,
            )
        )
    for index, stated in enumerate((tests.stated, *(case.changes for case in tests.cases)), -1):
        problems += tests.problems(index, findings(workflow, stated, changing=index >= 0))
    for said in tests.heard:
        unknown = [name for name in said.intents if name not in workflow.intents]
        expected = "one of " + ", ".join(workflow.intents)
        got = "no intent of the workflow"
        problems += [
            problem_at(tests.file, said.line, 1, f"heard.intents.{name}", got, expected)
            for name in unknown
        ]
    _refuse(problems)
    made: list[Played] = []
    for index, case in enumerate(tests.all, -1):
        try:
            made.append(
                (
                    case,
                    made[0][1].set(case.changes) if made else Scene.of(workflow, tests.stated),
                )
            )
        except SceneError as error:
            problems += tests.problems(index, error.failures)
            if not made:
                break
    _refuse(problems)
    return tuple(made)


def _refuse(problems: list[Failure]) -> None:
    if problems:
        raise WorkflowError(sorted(problems, key=place_of))


def run_tests(workflow: Workflow, tests: TestFile) -> CaseResults:
    """Run every case of a test file; a case that does not hold is a `Result`.

    Raises WorkflowError: the file does not fit the workflow (a misspelt key).
    """
    made = scenes(workflow, tests)
    base = made[0][1]
    results = []
    for case, scene in made:
        answer = scene.decide()
        why = mismatch(workflow, case, scene, answer) or impossible(workflow, scene)
        changed = {
            key: value
            for key, value in scene.values.items()
            if key not in base.values or base.values[key] != value
        }
        results.append(
            Result(
                case.name,
                not why,
                case.expected,
                in_words(answer),
                why,
                f"{tests.file}:{case.line}",
                changed,
            )
        )
    results += [_heard(workflow, tests.file, said) for said in tests.heard]
    return CaseResults(tests.file, workflow.id, tuple(results), dict(base.filled))


def _heard(
    workflow: Workflow,
    file: str,
    said: HeardCase,
) -> Result:
    answers = ask(lexical, tuple(workflow.intents.values()), said.turns)
    got = {name: answers[name].presence for name in said.intents}
    why = "; ".join(
        f"{name} is {got[name]}: {answers[name].evidence}"
        for name in got
        if got[name] != said.intents[name]
    )
    expected, came_out = (
        ", ".join(f"{name} {presence}" for name, presence in each.items())
        for each in (said.intents, got)
    )
    return Result(
        f"heard: {' / '.join(said.turns)}",
        not why,
        expected,
        came_out,
        why,
        f"{file}:{said.line}",
        {},
    )


def passing(workflow: Workflow, tests: TestFile) -> list[Played]:
    """The cases that hold, with their scenes. Raises as `scenes`."""
    possible = [
        (case, scene)
        for case, scene in scenes(workflow, tests)
        if not impossible(workflow, scene)
    ]
    return [
        (case, scene)
        for case, scene in possible
        if not mismatch(workflow, case, scene, scene.decide())
    ]


def impossible(workflow: Workflow, scene: Scene) -> str:
    """Why a scene proves nothing: no such tool, or it could not have come about. Empty: it
    could.
    """
    if scene.call.tool not in workflow.tools:
        return f"reaches no rule: the workflow has no tool {scene.call.tool!r}"
    if scene.unreached:
        return (
            "could not have come about: an earlier call would itself have been refused ("
            + "; ".join(map(str, scene.unreached))
            + ")"
        )
    return ""
