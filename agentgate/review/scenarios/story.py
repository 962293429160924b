"""A scene as one workflow sees it: the run, with earlier calls whose results are read as at a gate, and the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from agentgate.decision import checks
from agentgate.decision.arguments import check_arguments
from agentgate.decision.case import Case
from agentgate.gate.state import Readings
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.intents.deriver import Deriver
from agentgate.redemption.facts import extract
from agentgate.review.scenarios.fields import bare
from agentgate.review.scenarios.statements import ago, earlier, parts, put_at, steps, time_of, under
from agentgate.values.canonical import canonical, parse
from agentgate.values.paths import EACH
from agentgate.values.refusal import Failure
from agentgate.values.request import Agent, Boundary, Call, EarlierCall, Header, Posture, RunState, Surroundings, User
from agentgate.values.times import seconds
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.page_size import paths

_OPENED = 900.0  # seconds the run is old
_LIFE = 3600.0
readings = lru_cache(maxsize=8)(Readings)  # one for each deriver: the scenes of many mutants hold the same words


class Story(NamedTuple):
    """A scene as one workflow sees it. `unreached`: why an earlier call of it would itself have been refused."""

    run: RunState
    call: Call
    unreached: tuple[Failure, ...]


def story(workflow: Workflow, values: Mapping[str, Any], derive: Deriver) -> Story:
    """The run and call of a scene: intents, facts and earlier calls are read under the rules of `workflow`.

    Raises CanonicalError: arguments or results have no canonical form.
    """
    now, turns, labels = time_of(values), parts(values["prompt"]), earlier(values)
    at, reviewed = now.timestamp(), (workflow.id, workflow.version, workflow.digest)
    opened = min([at - _OPENED, *(at - ago(values, label) - 1 for label in labels)])
    header = Header("run_scene", values["tenant"], _user(values), _agent(values), *reviewed, opened, at + _LIFE, now.date().isoformat())
    read = readings(derive)
    run = RunState(header, turns, read.intents(workflow, turns), read.prompt(turns, now.date()), (), "1")
    refused: list[Failure] = []
    for index, label in enumerate(labels):
        tool = workflow.tools.get(bare(label))
        if tool is not None:
            call, failures = _redeemed(workflow, tool, values, run, label, f"earlier_{index}")
            refused += failures
            run = replace(run, calls=(*run.calls, call))
    args = under(values, "args.")
    for name in values.get("nulls") or ():
        args = put_at(args, steps(name), None)
    return Story(run, Call.of(values["call"], args, "call_1", values.get("definition") or ""), tuple(refused))


def _redeemed(  # noqa: PLR0917 - one call of one scene
    workflow: Workflow, tool: Tool, values: Mapping[str, Any], run: RunState, label: str, call_id: str
) -> tuple[EarlierCall, list[Failure]]:
    """An earlier call as the run keeps it, and why it would have been refused."""
    call = Call.of(tool.name, under(values, f"earlier.{label}."), call_id, tool.definition)
    at = time_of(values) - timedelta(seconds=ago(values, label))
    case = Case(workflow, run, call, Surroundings(at))
    check_arguments(case)
    checks.check_origins(case)
    named = case.named
    kept = tool.args if tool.effect != "read" and tool.facts else tool.referenced
    args = {name: value for name, value in call.args.items() if name in kept}
    rows = tuple(parse(canonical([dict(row) for row in extract(paths(tool), result(tool, values, label))])))
    return EarlierCall(call.id, tool.name, args, rows, named, at.timestamp()), case.denied


def result(tool: Tool, values: Mapping[str, Any], label: str) -> Any:
    """What an earlier call returned: every fact at its tool's path, an undeclared field under its own name."""
    returned: Any = None
    for name, value in under(values, f"facts.{label}.").items():
        path = tool.facts[name].path if name in tool.facts else (name,)
        returned = put_at(returned, path, value if EACH in path or type(value) is not list or len(value) != 1 else value[0])
    return returned


def _agent(values: Mapping[str, Any]) -> Agent:
    who, posture, boundary = under(values, "who.agent."), None, None
    name = who.get("id") or "agent"
    if not who.get("proven"):
        return Agent(name)
    signer, attested = who.get("posture.image_signed_by"), who.get("posture.attested_ago")
    if signer is not None or attested is not None:
        posture = Posture(signer or "", time_of(values) - timedelta(seconds=seconds(attested) or 0))
    where = under(values, "who.agent.boundary.")
    if where:
        boundary = Boundary(*(where.get(part, "") for part in ("cluster", "namespace", "node_pool", "key")))
    return proven_agent(
        name,
        spiffe=who.get("spiffe") or "",
        issuer=who.get("issuer") or "",
        claims=under(values, "who.agent.claims."),
        posture=posture,
        boundary=boundary,
        via=tuple(values.get("who.via") or ()),
    )


def _user(values: Mapping[str, Any]) -> User | None:
    who = under(values, "who.user.")
    if not who:
        return None
    made = proven_user if who.get("proven") else User
    return made(who.get("id", "user"), tenant=who.get("tenant", values["tenant"]), groups=tuple(who.get("groups", ())))
