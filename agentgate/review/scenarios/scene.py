"""A scene: one complete, concrete case, from which the engine decides exactly as it would for a gate.

Rules: what is stated is values (words, arguments, results, who, when); what the engine derives (origins, intents, whether every
argument was named) is derived by the engine from them and stated by nobody. Earlier calls are made of results and go through the
same reading as at a gate. What a single decision cannot know, the scene says beside it: what the limits have used up (`spent`)
and the key of the account's last token (`who.agent.last_key`); they are compared as the mint script compares them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from agentgate.decision import checks
from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.arguments import check_arguments
from agentgate.decision.case import Case
from agentgate.errors import CanonicalError
from agentgate.gate.state import derived, read_prompt
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.redemption.facts import extract
from agentgate.review.scenarios.fields import (
    FieldProblem,
    SceneError,
    as_number,
    bare,
    findings,
    flatten,
    limit_name,
    moment,
    tool_and_field,
)
from agentgate.review.scenarios.filling import AGO, Filler, parts
from agentgate.review.scenarios.statements import put, state
from agentgate.review.scenarios.structure import put_at, steps
from agentgate.review.scenarios.values import candidates, fits
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import number
from agentgate.values.paths import EACH
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, Boundary, Call, EarlierCall, Header, Posture, RunState, Surroundings, User
from agentgate.values.times import seconds
from agentgate.workflow.model import PROMPT, Rule, Tool, Workflow
from agentgate.workflow.page_size import paths

_OPENED = 900.0  # seconds the run is old
_LIFE = 3600.0
_IN_RUN = frozenset({"turn", "run"})  # limits that end with the run, whatever their window


@dataclass(frozen=True, slots=True)
class Story:
    """A scene as one workflow sees it. `unreached`: why an earlier call of it would itself have been refused."""

    run: RunState
    call: Call
    unreached: tuple[Failure, ...]


class Scene:
    """One complete case. Build with `Scene.of`, change with `set`.

    Attributes:
        workflow: what it was made for.
        values: every value of the scene by its dotted key; None: left out on purpose.
        filled: those of `values` that nobody stated.
    """

    def __init__(self, workflow: Workflow, values: Mapping[str, Any], filled: Mapping[str, Any], derive: Deriver) -> None:
        self.workflow, self.values, self.filled, self._derive = workflow, values, filled, derive
        try:
            self._story = self.story(workflow)
        except CanonicalError as error:
            raise SceneError((FieldProblem(error.field or "args", error.got, error.expected),)) from error

    @classmethod
    def of(cls, workflow: Workflow, base: Mapping[str, Any], *, derive: Deriver = lexical) -> Scene:
        """Complete a scene.

        Args:
            workflow: the workflow it is for.
            base: nested blocks or dotted keys: call, tenant, prompt, args, facts, earlier, ago, who, time, environment, data_class,
                network, brokers, definition, spent, spent_ago, nulls (arguments of the call that are sent as null). None: left out on
                purpose. Everything else is filled.
            derive: the intent deriver.

        Raises:
            SceneError: with every key that is wrong.
        """
        stated = {key: value for key, value, _ in flatten(base)}
        wrong = findings(workflow, stated, changing=False)
        if wrong:
            raise SceneError(tuple(wrong))
        tool, values = workflow.tools.get(stated.get("call", "")), dict[str, Any]()
        for key, value in stated.items():
            state(values, tool, key, value)
        return cls._completed(workflow, values, {}, derive, whole=True)

    @classmethod
    def _completed(
        cls, workflow: Workflow, values: dict[str, Any], filled: Mapping[str, Any], derive: Deriver, *, whole: bool = False
    ) -> Scene:
        filler = Filler(workflow, values, whole=whole)
        filler.fill()
        return cls(workflow, values, {**{k: v for k, v in filled.items() if values.get(k) == v and k in values}, **filler.filled}, derive)

    def set(self, changes: Mapping[str, Any], *, without: Iterable[str] = ()) -> Scene:
        """The same scene with only these values changed.

        Args:
            changes: dotted keys (or nested blocks). ``origin.x`` places the argument x: its value, or a new one where `args.x` is not
                changed too, stands in that result or in the prompt and nowhere else new. None: left out.
            without: keys to leave out.

        Raises:
            SceneError: with every key that is wrong.
        """
        stated = {**{key: value for key, value, _ in flatten(changes)}, **dict.fromkeys(without)}
        wrong = findings(self.workflow, stated, changing=True)
        if wrong:
            raise SceneError(tuple(wrong))
        values, filled = dict(self.values), dict(self.filled)
        later = stated
        if "call" in stated and stated["call"] != values["call"]:  # another call: first what it needs, then what is changed of that
            for key in [k for k in values if k.startswith("args.") or k in {"definition", "nulls"}]:
                del values[key]
            now = {k: v for k, v in stated.items() if k.partition(".")[0] not in {"args", "facts", "earlier", "ago", "origin"}}
            later = {k: v for k, v in stated.items() if k not in now}
            self._state(values, filled, now)
            completed = self._completed(self.workflow, values, filled, self._derive)
            values, filled = dict(completed.values), dict(completed.filled)
        self._state(values, filled, {k: v for k, v in later.items() if not k.startswith("origin.")})
        for key, place in later.items():
            if key.startswith("origin."):
                name = key[len("origin.") :]
                self._place(values, name, place, fresh=f"args.{name}" not in stated)
        return self._completed(self.workflow, values, filled, self._derive)

    def sending(self, args: Mapping[str, Any]) -> Scene:
        """The same scene with exactly these arguments in its call: a null among them is sent, not left out. Raises `SceneError`."""
        found = Scene(self.workflow, self.values, self.filled, self._derive)
        try:
            call = Call.of(self.call.tool, args, self.call.id, self.call.definition)
        except CanonicalError as error:
            raise SceneError((FieldProblem(error.field or "args", error.got, error.expected),)) from error
        found._story = replace(self._story, call=call)
        return found

    def _state(self, values: dict[str, Any], filled: dict[str, Any], stated: Mapping[str, Any]) -> None:
        tool = self.workflow.tools.get(stated.get("call", values["call"]))
        for key, value in stated.items():
            for leaf in state(values, tool, key, value):
                filled.pop(leaf, None)

    # --- what the engine is given ----------------------------------------------------------------------------------------

    @property
    def run(self) -> RunState:
        """The run, under the scene's own workflow."""
        return self._story.run

    @property
    def call(self) -> Call:
        """The call that is decided."""
        return self._story.call

    @property
    def unreached(self) -> tuple[Failure, ...]:
        """Why the scene could not have come about: what an earlier call would have been refused for. Empty: it could."""
        return self._story.unreached

    @cached_property
    def now(self) -> datetime:
        """The decision time."""
        found = moment(self.values["time"])
        return (found if found is not None else datetime(2000, 1, 1, tzinfo=UTC)).astimezone(UTC)

    @cached_property
    def around(self) -> Surroundings:
        """What a gate would know."""
        get = self.values.get
        return Surroundings(self.now, get("environment"), get("data_class"), get("network"), frozenset(get("brokers") or ()))

    @cached_property
    def earlier(self) -> tuple[str, ...]:
        """The earlier calls, oldest first: a tool's name, ``tool#2`` for its second call."""
        gone = {key[len("earlier.") :] for key, value in self.values.items() if key.startswith("earlier.") and value is None}
        found = [key[len("ago.") :] for key in self.values if key.startswith("ago.")]
        return tuple(sorted((label for label in found if label not in gone), key=lambda label: -self._ago(label)))

    def decide(self, workflow: Workflow | None = None) -> Eligible | Deny:
        """The engine's decision on this scene.

        Args:
            workflow: under which; None: its own. The run is as if it had been opened under that one.
        """
        workflow = self.workflow if workflow is None else workflow
        story = self._story if self._reads_alike(workflow) else self.story(workflow)
        answer = checks.decide(workflow, story.run, story.call, self.around)
        if isinstance(answer, Eligible) and (refused := self._unsettled(workflow, answer)):
            return Deny(refused)
        return answer

    def _reads_alike(self, workflow: Workflow) -> bool:
        """Whether a workflow reads the run exactly as the scene's own does: the same intents, the same tools of earlier calls."""
        own = self.workflow
        if workflow is own:
            return True
        header = (workflow.id, workflow.version, workflow.digest) == (own.id, own.version, own.digest)
        tools = [(workflow.tools.get(name), own.tools.get(name)) for name in map(bare, self.earlier)]
        return header and workflow.intents is own.intents and all(one is other for one, other in tools)

    def story(self, workflow: Workflow) -> Story:
        """The run and call as `workflow` sees them: intents, facts and earlier calls are read under its rules."""
        values, now = self.values, self.now
        turns = parts(values["prompt"])
        opened = min(now.timestamp() - _OPENED, *(now.timestamp() - self._ago(label) - 1 for label in self.earlier), now.timestamp())
        header = Header(
            "run_scene",
            values["tenant"],
            self._user(),
            self._agent(),
            workflow.id,
            workflow.version,
            workflow.digest,
            opened,
            now.timestamp() + _LIFE,
            now.date().isoformat(),
        )
        intents, prompt = derived(self._derive, workflow, turns), read_prompt(turns, now.date())
        calls: tuple[EarlierCall, ...] = ()
        refused: list[Failure] = []
        for index, label in enumerate(self.earlier):
            tool = workflow.tools.get(bare(label))
            if tool is None:
                continue
            made = Call.of(tool.name, self._under(f"earlier.{label}."), f"earlier_{index}", tool.definition)
            at = self.now - timedelta(seconds=self._ago(label))
            case = Case(workflow, RunState(header, turns, intents, prompt, calls, "1"), made, Surroundings(at))
            check_arguments(case)
            checks.check_origins(case)
            refused += case.denied
            named = bool(case.values) and case.traced is not None and case.traced.named
            kept = tool.args if tool.effect != "read" and tool.facts else tool.referenced
            rows = extract(paths(tool), self.result(tool, label))
            calls = (
                *calls,
                EarlierCall(
                    made.id,
                    tool.name,
                    {name: value for name, value in made.args.items() if name in kept},
                    tuple(parse(canonical([dict(row) for row in rows]))),
                    named,
                    at.timestamp(),
                ),
            )
        run = RunState(header, turns, intents, prompt, calls, "1")
        args = self._under("args.")
        for name in values.get("nulls") or ():
            args = put_at(args, steps(name), None)
        call = Call.of(values["call"], args, "call_1", values.get("definition") or "")
        return Story(run, call, tuple(refused))

    def _unsettled(self, workflow: Workflow, answer: Eligible) -> tuple[Failure, ...]:
        """What the mint script would refuse for: a limit that is used up, another key than the last token's."""
        failures = []
        ago = seconds(self.values.get("spent_ago") or "0s") or 0
        for limit, amount, _ in answer.reservations:
            spent = as_number(self.values.get(f"spent.{limit_name(limit)}") or 0)
            if limit.every is not None and limit.per not in _IN_RUN and ago >= limit.every:
                spent = as_number(0)
            used = int(spent * checks.SCALE) if limit.argument else int(spent)
            if used + amount > limit.maximum:
                bound = limit.maximum / checks.SCALE if limit.argument else limit.maximum
                failures.append(
                    Failure(
                        Reason.LIMIT,
                        "limits",
                        f"{spent} of {limit_name(limit)} used",
                        f"at most {bound:g}",
                        f"{workflow.file}:{limit.line}",
                    )
                )
        agent, last = self.run.header.agent, self.values.get("who.agent.last_key")
        if workflow.agent.same_key_as_last_token and agent.boundary is not None and last is not None and agent.boundary.key != last:
            rule = f"{workflow.file}:{workflow.agent.line}"
            failures.append(
                Failure(Reason.BOUNDARY, "agent.boundary.key", agent.boundary.key, "the key of this account's last token", rule)
            )
        return tuple(failures)

    # --- from values ------------------------------------------------------------------------------------------------------

    def _under(self, prefix: str) -> dict[str, Any]:
        """The values under a prefix by the rest of their keys; leaves of a structure (``files[].id``) put together."""
        out: dict[str, Any] = {}
        for key, value in self.values.items():
            if key.startswith(prefix) and value is not None:
                name = key[len(prefix) :]
                if "." in name and prefix.startswith(("args.", "earlier.")):
                    out = put_at(out, steps(name), value)
                else:
                    out[name] = value
        return out

    def _ago(self, label: str) -> int:
        return seconds(self.values.get(f"ago.{label}")) or 0

    def _agent(self) -> Agent:
        get = self.values.get
        name = get("who.agent.id") or "agent"
        if not get("who.agent.proven"):
            return Agent(name)
        posture = boundary = None
        if get("who.agent.posture.image_signed_by") is not None or get("who.agent.posture.attested_ago") is not None:
            ago = timedelta(seconds=seconds(get("who.agent.posture.attested_ago")) or 0)
            posture = Posture(get("who.agent.posture.image_signed_by") or "", self.now - ago)
        where = self._under("who.agent.boundary.")
        if where:
            boundary = Boundary(*(where.get(part, "") for part in ("cluster", "namespace", "node_pool", "key")))
        return proven_agent(
            name,
            spiffe=get("who.agent.spiffe") or "",
            issuer=get("who.agent.issuer") or "",
            claims=self._under("who.agent.claims."),
            posture=posture,
            boundary=boundary,
            via=tuple(get("who.via") or ()),
        )

    def _user(self) -> User | None:
        who = self._under("who.user.")
        if not who:
            return None
        name, tenant, groups = who.get("id", "user"), who.get("tenant", self.values["tenant"]), tuple(who.get("groups", ()))
        return proven_user(name, tenant=tenant, groups=groups) if who.get("proven") else User(name, tenant=tenant, groups=groups)

    def result(self, tool: Tool, label: str) -> Any:
        """What the earlier call of this label returned: every fact at its tool's path, an undeclared field under its own name."""
        result: Any = None
        for name, value in self._under(f"facts.{label}.").items():
            path = tool.facts[name].path if name in tool.facts else (name,)
            result = put_at(result, path, value if EACH in path or type(value) is not list or len(value) != 1 else value[0])
        return result

    # --- placing a value ----------------------------------------------------------------------------------------------------

    def _place(self, values: dict[str, Any], name: str, place: str, *, fresh: bool) -> None:
        """Put an argument where `place` says; the engine will find it there, or not."""
        workflow = self.workflow
        tool = workflow.tools.get(values["call"])
        rule = tool.args.get(name) if tool is not None else None
        if tool is None or rule is None:
            raise SceneError((FieldProblem(f"origin.{name}", "an argument that the called tool does not have", "one of its arguments"),))
        value = values.get(f"args.{name}")
        if fresh or value is None:
            value = self._fresh(values, tool, rule, place)
            values[f"args.{name}"] = value
        filler = Filler(workflow, values)
        currency = values.get(f"args.{rule.currency}") if rule.currency else ""
        said = currency if type(currency) is str else ""
        found = tool_and_field(workflow.tools, place)
        if place == "user":
            values["who.user.id"] = str(value[0] if type(value) is list else value)
        elif place == "computed":
            filler.compute(rule, value, said)
        elif place == "prompt":
            filler.name(rule, value if type(value) is list else [value], said)
        elif found is not None:
            label, field = found
            other = workflow.tools[bare(label)]
            as_argument = field in other.args and field not in other.facts
            put(values, f"{'earlier' if as_argument else 'facts'}.{label}.{field}", value)
            if not as_argument and field in other.facts and label == other.name:
                filler.need(f"ago.{label}", AGO)
                filler.meant(other, other.facts[field])
            if as_argument and PROMPT in other.args[field].sources:
                filler.name(other.args[field], value if type(value) is list else [value], said)

    def _fresh(self, values: Mapping[str, Any], tool: Tool, rule: Rule, place: str) -> Any:
        """Another allowed value that stands nowhere in the scene yet."""
        top = Filler(self.workflow, dict(values)).bound(rule)
        found = tool_and_field(self.workflow.tools, place)
        fact = self.workflow.tools[bare(found[0])].facts.get(found[1]) if found is not None else None
        pattern = fact.pattern if fact is not None else None
        known = [item for value in values.values() for item in (value if type(value) is list else [value])]
        for value in candidates(rule, top):
            elements = value if type(value) is list else [value]
            amount = number(value)
            if amount is not None and top is not None and amount > top:
                continue
            if pattern is not None and not all(type(one) is str and pattern.matches(one) for one in elements):
                continue
            if not any(one in known or str(one) in known for one in elements) and fits(self.workflow, tool.name, rule.name, value):
                return value
        got = "no other value that the rule allows could be made up"
        raise SceneError((FieldProblem(f"origin.{rule.name}", got, f"args.{rule.name} beside it, with the value to place"),))
