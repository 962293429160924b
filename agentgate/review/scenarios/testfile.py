"""``NAME.test.yaml``: a base case that goes through, and cases that change only what they name.

Rules: `expect` is required; a denial must say why (`because`), and be for that and nothing else; a case whose tool the workflow
does not have reaches no rule and fails; a case whose earlier calls would themselves have been refused could not have come about
and fails. Besides the decision, a case can pin what is handed out (`grants`) and who is asked (`asks`). The file is read as strictly
as a workflow, and nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agentgate.decision.answer import Deny, Eligible
from agentgate.errors import Problem, WorkflowError
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.loading.definition import read_file
from agentgate.loading.yaml_nodes import Document, did_you_mean, read_yaml, shown
from agentgate.loading.yaml_nodes import Path as Place
from agentgate.review.scenarios.fields import SceneError, findings, flatten
from agentgate.review.scenarios.grants import ASKS, GRANTS, asked, granted, same
from agentgate.review.scenarios.scene import Scene
from agentgate.values.refusal import Failure
from agentgate.workflow.model import Workflow

Answer = Literal["allow", "deny", "step_up"]
MAX_CASES = 2000
_TOP = ("workflow", "base", "expect", "cases")
_CASE = ("name", "set", "without", "expect", "because", "grants", "asks")


@dataclass(frozen=True, slots=True)
class NamedCase:
    """What a test file says of one scene.

    Attributes:
        changes: dotted key -> value, over the base (`set`, and `without` as None).
        answer: the expected answer.
        rules: ids of the step-up rules that fire, for ``step_up``.
        because: fields or reasons; a denial (or hold) is for each of these and nothing else.
        grants: what an allowed or held call gets; only the named keys are compared.
        asks: by rule id, who is asked; only the named keys are compared.
        line: where it stands, from 1; 0: proposed, not in a file.
    """

    name: str
    changes: Mapping[str, Any]
    answer: Answer
    rules: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    grants: Mapping[str, Any] = field(default_factory=dict)
    asks: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def expected(self) -> str:
        """The expectation in words."""
        what = {"allow": "allow", "deny": "deny", "step_up": "step_up " + ", ".join(self.rules)}[self.answer]
        return what + (f" because {', '.join(self.because)}" if self.because else "")


@dataclass(frozen=True, slots=True)
class TestFile:
    """A test file as read. `base` is the first case: no changes, allowed unless the file says which rule holds it."""

    __test__ = False  # not a test of pytest's

    file: str
    workflow: str
    stated: Mapping[str, Any]
    base: NamedCase
    cases: tuple[NamedCase, ...]
    places: Mapping[tuple[int, str], tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def all(self) -> tuple[NamedCase, ...]:
        """The base and every case."""
        return (self.base, *self.cases)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case.

    Attributes:
        passed: everything it says held.
        got: the decision in words, with every reason.
        why: what did not hold; empty when it passed.
        place: ``file:line``.
        changed: what the case changed, and what was filled for it alone, by dotted key.
    """

    name: str
    passed: bool
    expected: str
    got: str
    why: str
    place: str
    changed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one test file. `filled`: what the base left out, and was filled with."""

    file: str
    workflow: str
    results: tuple[Result, ...]
    filled: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Every case passed (the base is one)."""
        return all(result.passed for result in self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """The cases that did not pass."""
        return tuple(result for result in self.results if not result.passed)


# --- reading ---------------------------------------------------------------------------------------------------------------


def tests_of(workflow_file: str | Path) -> Path:
    """Where the tests of a workflow file stand: ``NAME.test.yaml`` beside it."""
    return Path(workflow_file).with_suffix(".test.yaml")


def load_tests(path: str | Path) -> TestFile:
    """Read a test file.

    Raises:
        WorkflowError: with every problem at its line and column.
    """
    return read_tests(read_file(Path(path)), str(path))


def read_tests(text: str, file: str) -> TestFile:
    """Read the text of a test file. Raises as `load_tests`."""
    document = read_yaml(text, file)
    top = document.value
    if not isinstance(top, dict):
        document.report((), shown(top), "a mapping with workflow, base and cases")
        document.refuse()
    _known(document, (), top, _TOP)
    for key, kind, what in (("workflow", str, "the id of the workflow"), ("base", dict, "a mapping"), ("cases", list, "a list of cases")):
        if key not in top:
            document.report((), "nothing", f"{key}: (required)")
        elif type(top[key]) is not kind:
            document.report((key,), shown(top[key]), what)
    document.refuse()
    places: dict[tuple[int, str], tuple[int, int]] = {}
    stated = _flat(document, places, -1, ("base",), top["base"])
    answer, rules = _expectation(document, ("expect",), top["expect"]) if "expect" in top else ("allow", ())
    if answer == "deny":
        document.report(("expect",), "deny", "a base that goes through: allow, or {step_up: rule-id}")
    base = NamedCase("base", {}, answer, rules, line=document.line(("base",)))
    names: dict[str, int] = {}
    if len(top["cases"]) > MAX_CASES:
        document.report(("cases",), f"{len(top['cases'])} cases", f"at most {MAX_CASES}")
    cases = tuple(_case(document, places, index, each, names) for index, each in enumerate(top["cases"]))
    document.refuse()
    return TestFile(file, top["workflow"], stated, base, cases, places)


def _known(document: Document, path: Place, block: Mapping[str, Any], keys: Iterable[str]) -> None:
    allowed = tuple(keys)
    for key in block:
        if key not in allowed:
            unused = [k for k in allowed if k not in block]
            document.report((*path, key), "an unknown key", "one of " + ", ".join(allowed), did_you_mean(key, unused), key=True)


def _flat(
    document: Document, places: dict[tuple[int, str], tuple[int, int]], index: int, path: Place, block: Mapping[str, Any]
) -> dict[str, Any]:
    """A block's leaves by dotted key, with their places; the same key twice in two spellings is a finding."""
    out: dict[str, Any] = {}
    for key, value, inside in flatten(block):
        here = (*path, *inside)
        if key in out:
            document.report(here, f"{key} again", "each key once", key=True)
        out[key] = value
        places[index, key] = document.place(here, key=True)
    return out


def _case(document: Document, places: dict[tuple[int, str], tuple[int, int]], index: int, block: Any, names: dict[str, int]) -> NamedCase:
    path: Place = ("cases", index)
    line = document.line(path)
    if not isinstance(block, dict):
        document.report(path, shown(block), "a mapping: {name, set, expect}")
        return NamedCase("", {}, "allow", line=line)
    _known(document, path, block, _CASE)
    name = block.get("name")
    if type(name) is not str or not name:
        document.report((*path, "name"), shown(name), "a sentence that names the case", key="name" not in block)
    elif name in names:
        document.report((*path, "name"), shown(name), f"a name of its own (first on line {names[name]})")
    else:
        names[name] = line
    changes: dict[str, Any] = {}
    if isinstance(block.get("set", {}), dict):
        changes = _flat(document, places, index, (*path, "set"), block.get("set", {}))
    else:
        document.report((*path, "set"), shown(block["set"]), "a mapping of what this case changes")
    for at, key in enumerate(_texts(document, (*path, "without"), block.get("without", []))):
        changes[key] = None
        places[index, key] = document.place((*path, "without", at))
    if "expect" not in block:
        document.report(path, "nothing", "expect: allow, deny or {step_up: rule-id} (required)", key=True)
        return NamedCase(str(name), changes, "allow", line=line)
    answer, rules = _expectation(document, (*path, "expect"), block["expect"])
    because = _texts(document, (*path, "because"), block.get("because", []))
    if answer == "deny" and not because:
        document.report((*path, "expect"), "deny without a reason", "because: the field or reason that it is refused for")
    if answer == "allow" and because:
        document.report((*path, "because"), "a reason", "none: nothing is refused", key=True)
    pinned = []
    for key, allowed in (("grants", GRANTS), ("asks", ASKS)):
        value = block.get(key, {})
        if not isinstance(value, dict):
            document.report((*path, key), shown(value), "a mapping of what is pinned: " + ", ".join(allowed))
            value = {}
        nested = key == "asks" and bool(value) and set(value) <= set(rules)
        for rule, inner in value.items() if nested else [("", value)]:
            where = (*path, key, rule) if rule else (*path, key)
            if isinstance(inner, dict):
                _known(document, where, inner, allowed)
            else:
                document.report(where, shown(inner), "a mapping of what is pinned: " + ", ".join(allowed))
        pinned.append(value if nested or not value or key == "grants" else dict.fromkeys(rules[:1], value))
    if pinned[0] and answer == "deny":
        document.report((*path, "grants"), "grants of a denial", "none: nothing is handed out", key=True)
    if block.get("asks") and (answer != "step_up" or (len(rules) != 1 and not set(block["asks"]) <= set(rules))):
        document.report((*path, "asks"), "asks", "expect: {step_up: rule-id} with one rule, or asks: {rule-id: {...}}", key=True)
    return NamedCase(str(name), changes, answer, rules, because, pinned[0], pinned[1], line)


def _texts(document: Document, path: Place, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(type(item) is str and item for item in values):
        document.report(path, shown(value), "text, or a list of texts")
        return ()
    return tuple(values)


def _expectation(document: Document, path: Place, value: Any) -> tuple[Answer, tuple[str, ...]]:
    if value == "allow":
        return "allow", ()
    if value == "deny":
        return "deny", ()
    if isinstance(value, dict) and list(value) == ["step_up"]:
        if value["step_up"] == []:
            document.report((*path, "step_up"), "an empty list", "the id of at least one step-up rule (it must not be empty)")
        return "step_up", _texts(document, (*path, "step_up"), value["step_up"])
    document.report(path, shown(value), "allow, deny or {step_up: rule-id}", did_you_mean(value, ("allow", "deny")))
    return "allow", ()


# --- running ---------------------------------------------------------------------------------------------------------------


def scenes(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> tuple[tuple[NamedCase, Scene], ...]:
    """Every case with its scene, the base first.

    Raises:
        WorkflowError: a key of a scene is wrong, or the tests are of another workflow; every problem at its line and column.
    """
    problems: list[Problem] = []
    if tests.workflow != workflow.id:
        hint = did_you_mean(tests.workflow, [workflow.id])
        problems.append(Problem(tests.file, 1, 1, "workflow", shown(tests.workflow), f"'{workflow.id}', the workflow beside it", hint))
    for index, stated in enumerate((tests.stated, *(case.changes for case in tests.cases)), -1):
        _report(problems, tests, index, SceneError(tuple(findings(workflow, stated, changing=index >= 0))))
    if problems:
        raise WorkflowError(tuple(sorted(problems, key=lambda p: (p.line, p.column))))
    out: list[tuple[NamedCase, Scene]] = []
    try:
        base = Scene.of(workflow, tests.stated, derive=derive)
    except SceneError as error:
        _report(problems, tests, -1, error)
        raise WorkflowError(tuple(problems)) from error
    for index, case in enumerate(tests.all, -1):
        try:
            out.append((case, base if case is tests.base else base.set(case.changes)))
        except SceneError as error:
            _report(problems, tests, index, error)
    if problems:
        raise WorkflowError(tuple(problems))
    return tuple(out)


def _report(problems: list[Problem], tests: TestFile, index: int, error: SceneError) -> None:
    case = tests.all[index + 1]
    where = "base" if index < 0 else f"cases[{index}].set"
    for found in error.findings:
        place = tests.places.get((index, found.key), (case.line, 1))
        problems.append(Problem(tests.file, *place, f"{where}.{found.key}", found.got, found.expected, found.hint))


def run_tests(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> Report:
    """Run every case of a test file.

    Raises:
        WorkflowError: the file does not fit the workflow (a misspelt key); a case that does not hold is a `Result`.
    """
    made = scenes(workflow, tests, derive=derive)
    base = made[0][1]
    results = []
    for case, scene in made:
        answer = scene.decide()
        why = mismatch(workflow, case, scene, answer) or impossible(workflow, scene)
        changed = {key: value for key, value in scene.values.items() if key not in base.values or base.values[key] != value}
        results.append(Result(case.name, not why, case.expected, in_words(answer), why, f"{tests.file}:{case.line}", changed))
    return Report(tests.file, workflow.id, tuple(results), dict(base.filled))


def passing(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> list[tuple[NamedCase, Scene]]:
    """The cases that hold, with their scenes. Raises as `scenes`."""
    made = scenes(workflow, tests, derive=derive)
    return [
        (case, scene) for case, scene in made if not mismatch(workflow, case, scene, scene.decide()) and not impossible(workflow, scene)
    ]


def impossible(workflow: Workflow, scene: Scene) -> str:
    """Why a scene proves nothing: no such tool, or it could not have come about. Empty: it could."""
    if scene.call.tool not in workflow.tools:
        return f"reaches no rule: the workflow has no tool {scene.call.tool!r}"
    if scene.unreached:
        return "could not have come about: an earlier call would itself have been refused (" + "; ".join(map(str, scene.unreached)) + ")"
    return ""


def mismatch(workflow: Workflow, case: NamedCase, scene: Scene, answer: Eligible | Deny) -> str:
    """What of a case does not hold of a decision, in words; empty when all of it holds."""
    kind: Answer = "deny" if isinstance(answer, Deny) else "step_up" if answer.holds else "allow"
    if kind != case.answer:
        return f"expected {case.expected}, got {in_words(answer)}"
    if isinstance(answer, Deny):
        return _because(case, answer.failures)
    held = tuple(hold.rule.id for hold in answer.holds)
    if set(held) != set(case.rules):
        return f"expected {case.expected}, got step_up {', '.join(held)}"
    if case.because and (wrong := _because(case, tuple(f for hold in answer.holds for f in hold.why))):
        return wrong
    given = granted(workflow, scene.call, answer)
    pinned = [("grants", key, value, given[key]) for key, value in case.grants.items()]
    for hold in answer.holds:
        who = asked(hold.rule)
        pinned += [("asks", key, value, who[key]) for key, value in case.asks.get(hold.rule.id, {}).items()]
    for block, key, value, got in pinned:
        if not same(key, value, got):
            return f"{block}.{key}: expected {shown(value)}, got {shown(got)}"
    return ""


def _because(case: NamedCase, failures: tuple[Failure, ...]) -> str:
    """A refusal is for every named reason, and only for those."""
    for name in case.because:
        if not any(names(name, failure) for failure in failures):
            return f"expected because of {name}, got " + "; ".join(map(str, failures))
    for failure in failures:
        if not any(names(name, failure) for name in case.because):
            return f"also refused for another reason: {failure}"
    return ""


def names(name: str, failure: Failure) -> bool:
    """Whether `name` is the failure's reason, its field, or its argument (``payee`` for ``args.payee``)."""
    return name in {str(failure.reason), failure.field, failure.field.removeprefix("args.")}


def in_words(answer: Eligible | Deny) -> str:
    """A decision in one line."""
    if isinstance(answer, Deny):
        return "deny: " + "; ".join(map(str, answer.failures))
    return "step_up " + ", ".join(hold.rule.id for hold in answer.holds) if answer.holds else "allow"
