"""A scene: one complete, concrete case, from which the engine decides exactly as it would for a
gate.

Rules: a scene states values (words, arguments, results, who, when). What the engine derives
from them (origins, intents, whether every argument was named) cannot be stated. Earlier calls
are made from their results, which go through the same reading as at a gate. What a single
decision cannot know, the scene states beside it: what the limits have used up (`spent`) and the
key of the account's last token (`who.agent.last_key`); they are compared as the mint script
compares them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.checks import check_arguments, check_origins
from agentgate.decision.decide import decide
from agentgate.decision.origins.tracing import rests_on_yes
from agentgate.errors import CanonicalError, IdentityRefused
from agentgate.explain.asking import endorsable
from agentgate.gate.state import Readings
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.intents.lexical import derive as lexical
from agentgate.redemption.outcome import extract
from agentgate.review.scenarios.filling import Filler
from agentgate.review.scenarios.values import (
    SceneError,
    ago,
    bare,
    earlier,
    findings,
    flatten,
    parts,
    put_at,
    state,
    steps,
    time_of,
    under,
)
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import number
from agentgate.values.paths import EACH
from agentgate.values.refusal import Failure, Failures, Reason
from agentgate.values.request import (
    Agent,
    Boundary,
    Call,
    EarlierCall,
    Header,
    Posture,
    RunState,
    Surroundings,
    User,
)
from agentgate.values.times import seconds
from agentgate.values.value_class import Json, Values
from agentgate.workflow.clauses.conditions import CONFIGURED
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import REMEMBERED

# blocks that depend on which tool is called
_OF_CALL = frozenset("args facts earlier ago yes origin".split())


class Scene:
    """One complete case. Build with `Scene.of`, change with `set`.

    Attributes:
        workflow: the workflow it was made for.
        values: every value of the scene by its dotted key; None: left out on purpose.
        filled: those of `values` that were made up.
        now: the decision time.
        around: what a gate would know of its surroundings.
        earlier: the earlier calls, oldest first: a tool's name, ``tool#2`` for its second call.
        run: the run, under the scene's own workflow.
        call: the call that is decided.
        unreached: why the scene could not have come about: what an earlier call would have been
            refused for. Empty: it could.
    """

    def __init__(
        self,
        workflow: Workflow,
        values: Values,
        filled: Values,
    ) -> None:
        self.workflow = workflow
        self.values = values
        self.filled = filled
        self.now = time_of(values)
        self.earlier = earlier(values)
        brokers = frozenset(values.get("brokers") or ())
        self.around = Surroundings(
            self.now, brokers=brokers, **{name: values.get(name) for name in CONFIGURED}
        )
        try:
            self.run, self.call, self.unreached = story(workflow, values)
        except CanonicalError as error:
            raise _unreadable(error) from error

    @classmethod
    def of(
        cls,
        workflow: Workflow,
        base: Values,
    ) -> Scene:
        """Complete a scene.

        `base` has nested blocks or dotted keys: call, tenant, prompt, args, facts, earlier,
        ago, yes, who, time, environment, data_class, network, brokers, definition, spent,
        spent_ago, nulls (arguments of the call that are sent as null). None: left out on
        purpose. Everything else is filled. Raises SceneError: with every key that is wrong.
        """
        stated = _checked(workflow, base, changing=False)
        tool = workflow.tools.get(stated.get("call", ""))
        values = Json()
        for key, value in stated.items():
            state(values, tool, key, value)
        return cls._completed(workflow, values, {}, whole=True)

    @classmethod
    def _completed(
        cls, workflow: Workflow, values: Json, filled: Values, *, whole: bool = False
    ) -> Scene:
        filler = Filler(workflow, values, whole=whole)
        filler.fill()
        return cls(
            workflow,
            values,
            {
                **{k: v for k, v in filled.items() if values.get(k) == v and k in values},
                **filler.filled,
            },
        )

    def set(self, changes: Values) -> Scene:
        """The same scene with only these values (dotted keys or nested blocks) changed; None:
        left out.

        ``origin.x`` places the argument x: its value, or a new one where `args.x` is not
        changed too, is put in that result or in the prompt and nowhere else new. Raises
        SceneError: with every key that is wrong.
        """
        stated = _checked(self.workflow, changes, changing=True)
        if stated.get("call", self.values["call"]) == self.values["call"]:
            return self._changed(stated)
        # first what another call needs, then what is changed of that
        now = {
            key: value for key, value in stated.items() if key.partition(".")[0] not in _OF_CALL
        }
        gone = [
            key
            for key in self.values
            if key.startswith("args.") or key in {"definition", "nulls"}
        ]
        return self._changed(now, gone).set(
            {key: value for key, value in stated.items() if key not in now}
        )

    def _changed(self, stated: Values, gone: Iterable[str] = ()) -> Scene:
        values = {key: value for key, value in self.values.items() if key not in gone}
        filled = dict(self.filled)
        tool = self.workflow.tools.get(stated.get("call", values["call"]))
        for key, value in stated.items():
            if not key.startswith("origin."):
                for leaf in state(values, tool, key, value):
                    filled.pop(leaf, None)
        for key, where in stated.items():
            if key.startswith("origin."):
                name = key.removeprefix("origin.")
                Filler(self.workflow, values).place_at(
                    name, where, fresh=f"args.{name}" not in stated
                )
        return self._completed(self.workflow, values, filled)

    def sending(self, args: Values) -> Scene:
        """The same scene with exactly these arguments in its call: a null among them is sent,
        not left out. Raises `SceneError`.
        """
        scene = Scene(self.workflow, self.values, self.filled)
        try:
            scene.call = Call.of(self.call.tool, args, self.call.id, self.call.definition)
        except CanonicalError as error:
            raise _unreadable(error) from error
        return scene

    def decide(self, workflow: Workflow | None = None) -> Eligible | Deny:
        """The engine's decision under a workflow (None: the scene's own). The run is as if it
        had been opened under that one.
        """
        workflow = workflow or self.workflow
        run, call, _ = (
            (self.run, self.call, ())
            if self._reads_alike(workflow)
            else story(workflow, self.values)
        )
        answer = decide(workflow, run, call, self.around)
        if isinstance(answer, Eligible) and (refused := [*self._at_mint(workflow, answer)]):
            return Deny(tuple(refused))
        return answer

    def _reads_alike(self, workflow: Workflow) -> bool:
        """Whether a workflow reads the run exactly as the scene's own does: the same intents,
        the same tools of earlier calls.
        """
        own = self.workflow
        if workflow is own:
            return True
        header = (workflow.id, workflow.version, workflow.digest) == (
            own.id,
            own.version,
            own.digest,
        )
        tools = [
            (workflow.tools.get(name), own.tools.get(name)) for name in map(bare, self.earlier)
        ]
        return (
            header
            and workflow.intents is own.intents
            and all(one is other for one, other in tools)
        )

    def _at_mint(self, workflow: Workflow, answer: Eligible) -> Iterable[Failure]:
        """What the mint script would find: a limit that is used up, another key than the
        account's last token was bound to.
        """
        ago = seconds(self.values.get("spent_ago") or "0s") or 0
        for limit, amount, _ in answer.reservations:
            over = limit.every is not None and not limit.is_of_run and ago >= limit.every
            spent = Decimal() if over else number(self.values.get(f"spent.{limit.name}") or 0)
            if spent is None or int(spent * limit.scale) + amount > limit.maximum:
                got = f"{spent} of {limit.name} used"
                place = f"{workflow.file}:{limit.line}"
                yield Failure(Reason.LIMIT, "limits", got, limit.bound, place)
        rule = workflow.agent
        boundary = self.run.header.agent.boundary
        last = self.values.get("who.agent.last_key")
        if (
            rule.same_key_as_last_token
            and boundary
            and last is not None
            and boundary.key != last
        ):
            expected = "the key of this account's last token"
            place = f"{workflow.file}:{rule.line}"
            yield Failure(Reason.BOUNDARY, "agent.boundary.key", boundary.key, expected, place)


def _checked(
    workflow: Workflow,
    block: Values,
    *,
    changing: bool,
) -> Json:
    """The values of a block by dotted key."""
    stated = {key: value for key, value, _ in flatten(block)}
    if wrong := findings(workflow, stated, changing=changing):
        raise SceneError.of(*wrong)
    return stated


def _unreadable(error: CanonicalError) -> SceneError:
    return SceneError.of(error.failure(field=error.field or "args"))


# --- a scene as one workflow sees it ----------------------------------------------------------
_OPENED = 900.0  # seconds the run is old
_LIFE = 3600.0


@cache
def readings() -> Readings:
    """What was read of prompts: the scenes of many mutants hold the same words."""
    return Readings(lexical)


def story(workflow: Workflow, values: Values) -> tuple[RunState, Call, Failures]:
    """The run and call of a scene: intents, facts and earlier calls are read under the rules of
    `workflow`.

    The failures: why an earlier call of it would itself have been refused.

    Raises CanonicalError: arguments or results have no canonical form.
    """
    now = time_of(values)
    turns = parts(values["prompt"])
    labels = earlier(values)
    at = now.timestamp()
    reviewed = (workflow.id, workflow.version, workflow.digest)
    opened = min([at - _OPENED, *(at - ago(values, label) - 1 for label in labels)])
    header = Header(
        "run_scene",
        values["tenant"],
        _user(values),
        _agent(values),
        *reviewed,
        opened,
        at + _LIFE,
        now.date().isoformat(),
    )
    read = readings()
    known = (
        read.intents(workflow, turns, (), header.reader),
        read.prompt(turns, now.date(), (), header.reader),
    )
    run = RunState(header, turns, *known, (), "1")
    refused = []
    for index, label in enumerate(labels):
        tool = workflow.tools.get(bare(label))
        if tool:
            call, failures = _redeemed(workflow, tool, values, run, label, f"earlier_{index}")
            refused += failures
            if values.get(f"yes.{label}") == REMEMBERED.kind:
                run = replace(run, remembered=replace(call, id=header.day))
            else:
                run = replace(run, calls=(*run.calls, call))
    args = under(values, "args.")
    for name in values.get("nulls") or ():
        args = put_at(args, steps(name), None)
    return (
        run,
        Call.of(values["call"], args, "call_1", values.get("definition") or ""),
        tuple(refused),
    )


def _redeemed(  # noqa: PLR0917 - one call of one scene
    workflow: Workflow, tool: Tool, values: Values, run: RunState, label: str, call_id: str
) -> tuple[EarlierCall, list[Failure]]:
    """An earlier call as the run keeps it, and why it would have been refused."""
    call = Call.of(tool.name, under(values, f"earlier.{label}."), call_id, tool.definition)
    at = time_of(values) - timedelta(seconds=ago(values, label))
    case = Case(workflow, run, call, Surroundings(at))
    check_arguments(case)
    check_origins(case)
    named = case.named
    yes = bool(values.get(f"yes.{label}"))
    endorsed = frozenset(endorsable(case)) if yes else frozenset()
    trusted = any(fact.confirmed for fact in tool.facts.values())
    marked = trusted and (yes or rests_on_yes(case.values, case.earlier))
    kept = tool.args if tool.effect != "read" and tool.facts else tool.referenced
    args = {name: value for name, value in call.args.items() if yes or name in kept}
    rows = tuple(
        parse(
            canonical(
                [dict(row) for row in extract(tool.result_paths, result(tool, values, label))]
            )
        )
    )
    of_yes: Json = (
        {"endorsed": endorsed, "marked": marked, "turns": len(run.turns)}
        if yes or marked
        else {}
    )
    return EarlierCall(
        call.id, tool.name, args, rows, named, at.timestamp(), **of_yes
    ), case.denied


def result(
    tool: Tool,
    values: Values,
    label: str,
) -> Any:
    """What an earlier call returned: every fact at its tool's path, an undeclared field under
    its own name.
    """
    returned: Any = None
    for name, value in under(values, f"facts.{label}.").items():
        path = tool.facts[name].path if name in tool.facts else (name,)
        returned = put_at(
            returned,
            path,
            value if EACH in path or type(value) is not list or len(value) != 1 else value[0],
        )
    return returned


def _agent(values: Values) -> Agent:
    who = under(values, "who.agent.")
    posture = None
    boundary = None
    name = who.get("id") or "agent"
    if not who.get("proven"):
        return Agent(name)
    signer = who.get("posture.image_signed_by")
    attested = who.get("posture.attested_ago")
    if signer is not None or attested is not None:
        posture = Posture(
            signer or "", time_of(values) - timedelta(seconds=seconds(attested) or 0)
        )
    where = under(values, "who.agent.boundary.")
    if where:
        boundary = Boundary(*[where.get(each.name, "") for each in fields(Boundary)])
    return proven_agent(
        name,
        spiffe=who.get("spiffe") or "",
        issuer=who.get("issuer") or "",
        claims=under(values, "who.agent.claims."),
        posture=posture,
        boundary=boundary,
        via=tuple(values.get("who.via") or ()),
    )


def _user(values: Values) -> User | None:
    who = under(values, "who.user.")
    if not who:
        return None
    named: Json = {
        "tenant": who.get("tenant", values["tenant"]),
        "groups": tuple(who.get("groups", ())),
    }
    ago = who.get("signed_in_ago")
    at = None if ago is None else int(time_of(values).timestamp()) - (seconds(ago) or 0)
    try:
        if who.get("proven"):
            return proven_user(who.get("id", "user"), **named, acr=who.get("acr"), auth_time=at)
        return User(who.get("id", "user"), **named)
    except IdentityRefused as error:  # a name that was filled in from an argument
        raise SceneError.of(error.failure(field=f"who.{error.field}")) from error
