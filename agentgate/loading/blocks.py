"""The shape of a workflow file: every block and every key, strict; unknown keys are refused;
and the form with every default written out, which is digested, and which reviewers sign.

These models are the source of the keys (workflow definition v1). They say what may stand where;
what values mean together (references, origins, money) is checked by
`agentgate.loading.compiler`.

What this release assumes where a file is silent stands in the signed bytes, so no later release
changes their meaning by changing a default. Only what means nothing where it is absent (no
condition, no limit, no origin) stays absent. Writing out adds keys and never changes one; malformed
parts are left as they are, for the loader to report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Len
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agentgate.loading.value_types import (
    Acr,
    ArgumentName,
    Day,
    Distinct,
    Duration,
    Group,
    Groups,
    Https,
    Label,
    Labels,
    Minutes,
    Name,
    Noun,
    Number,
    Once,
    References,
    Scalar,
    Scalars,
    Scopes,
    Spiffe,
    Tenant,
    Text,
    Texts,
    ToolDigest,
    ToolName,
    Type,
    Weekday,
    Yes,
    word_or_list,
    wrong,
)
from agentgate.workflow.operators import OPERATORS
from agentgate.workflow.rule import WhenOpen

# what messages say is expected, and what stands in for what cannot be read
WORDING = json.loads(Path(__file__).with_name("wording.json").read_text("utf-8"))
# attribute of a block -> key of the file
_OPERATORS = {{"is": "is_", "in": "in_"}.get(o.key, o.key): o.key for o in OPERATORS}


def _intents(value: Any) -> Any:
    if type(value) is dict and "none" in value:
        if len(value) > 1:
            raise wrong(
                "'none' alone (it says that this workflow has no intents), or intents without it"
            )
        if type(value["none"]) is not str or not value["none"]:
            raise wrong("none: a sentence that says why no prompt decides here")
        return {}
    if type(value) is dict and not value:
        raise wrong("at least one intent, or none: with the reason")
    return value


class Block(BaseModel):
    """A mapping of the file. Strict: no coercion; unknown keys are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def stated_fields(self, rule: Any = None) -> dict[str, Any]:
        """What it states itself, but for blocks and mappings: lists as tuples. `rule`: of its
        fields.
        """
        names = rule.__match_args__ if rule else type(self).model_fields
        return {
            name: tuple(value) if type(value) is list else value
            for name, value in vars(self).items()
            if name in names and value is not None and not isinstance(value, _NESTED)
        }


_NESTED = (Block, dict)


class PostureBlock(Block):
    """`who.agent.posture`."""

    image_signed_by: Texts | None = None
    attested_within: Duration | None = None


class BoundaryBlock(Block):
    """`who.agent.boundary`."""

    cluster: Texts | None = None
    namespace: Texts | None = None
    node_pool: Texts | None = None
    same_key_as_last_token: Yes | None = None


class ClaimBlock(Block):
    """One claim: exactly one of `is` and `in`."""

    is_: Text | None = Field(None, alias="is")
    in_: Texts | None = Field(None, alias="in")


class OidcBlock(Block):
    """`who.agent.oidc`."""

    issuer: Https
    claims: Annotated[dict[Text, ClaimBlock], Len(1, 50)]


class AgentBlock(Block):
    """`who.agent`: exactly one of `in_process`, `spiffe`, `oidc`."""

    in_process: Yes | None = None
    spiffe: Annotated[list[Spiffe], Len(1, 100), Distinct] | None = None
    oidc: OidcBlock | None = None
    posture: PostureBlock | None = None
    boundary: BoundaryBlock | None = None


class UserBlock(Block):
    """`who.for_user`; left out: an autonomous workload."""

    groups: Groups | None = None
    same_tenant: Yes | None = None
    acr: Annotated[list[Acr], Len(1, 20), Distinct] | None = None
    max_age: Duration | None = None


class ViaBlock(Block):
    """`who.via`."""

    min_hops: Annotated[int, Field(ge=1, le=8)] | None = None
    max_hops: Annotated[int, Field(ge=1, le=8)]
    brokers: Texts


class WhoBlock(Block):
    """`who`."""

    agent: AgentBlock
    for_user: UserBlock | None = None
    via: ViaBlock | None = None


class IntentBlock(Block):
    """One intent of the closed vocabulary."""

    asks_for: Text
    words: Texts | None = None
    unclear: Literal["deny", "confirm", "step_up", "reader"] = "deny"
    delegated: Literal["deny", "confirm", "step_up", "present"] = "deny"
    unheard: WhenOpen = "deny"
    examples: Texts
    counter_examples: Texts | None = None

    @property
    def left_open(self) -> WhenOpen:
        """What happens where nobody settles it: what a reader leaves open, the user decides."""
        return "confirm" if self.unclear == "reader" else self.unclear


class HoursBlock(Block):
    """`conditions.hours`."""

    days: Annotated[list[Weekday], Len(1, 7), Distinct]
    from_: Minutes = Field(alias="from")
    to: Minutes
    zone: Text


class ConditionsBlock(Block):
    """`conditions`."""

    environment: Texts | None = None
    hours: HoursBlock | None = None
    data_class: Texts | None = None
    network: Texts | None = None


class OperatorsBlock(Block):
    """The operators that `args` and `step_up.when` share. Their meaning is in
    `agentgate.workflow.operators`.
    """

    def operators(self) -> dict[str, Any]:
        """Those of the table that the file states, by their keys."""
        stated = self.model_fields_set
        return {
            key: value
            for name, key in _OPERATORS.items()
            if name in stated and (value := getattr(self, name)) is not None
        }

    is_: Scalar | None = Field(None, alias="is")
    in_: Scalars | None = Field(None, alias="in")
    pattern: Text | None = None
    glob: Text | None = None
    text: Annotated[int, Field(ge=1, le=20_000)] | None = None
    min: Number | None = None
    max: Number | None = None


class SelectBlock(Block):
    """`select`: the object that "the largest file" means."""

    of: Text
    called: Annotated[list[Noun], Len(1, 20), Distinct]
    largest: Text | None = None
    smallest: Text | None = None
    newest: Text | None = None
    oldest: Text | None = None
    highest: Text | None = None
    lowest: Text | None = None
    longest: Text | None = None
    shortest: Text | None = None


class SumBlock(Block):
    """`at_most: {sum: tool.fact}`: over all rows of one call."""

    sum: Text


class ArgumentBlock(OperatorsBlock):
    """One argument."""

    type: Type | None = None
    at_most: Text | SumBlock | None = None
    select: SelectBlock | None = None
    each_in: Scalars | None = None
    max_items: Annotated[int, Field(ge=1, le=1000)] | None = None
    narrower_than_role: Text | None = None
    from_: References | None = Field(None, alias="from")
    unknown_origin: WhenOpen | None = None
    entities: References | None = None
    currency: ArgumentName | None = None
    any_call: bool = False
    named_first: Yes | None = None
    optional: bool = False
    nullable: Yes | None = None
    page_size: Yes | None = None
    needs: Labels | None = None
    sensitive: bool = False
    record: Literal["full"] | None = None


class WhenBlock(OperatorsBlock):
    """One condition of `step_up.when`; negation only here, where it adds a person."""

    above: Number | None = None
    not_in: Scalars | None = None
    not_pattern: Text | None = None
    origin: Annotated[References, BeforeValidator(word_or_list("unknown"))] | None = None


class LeftOpenBlock(WhenBlock):
    """``intent: unclear`` or ``origin: unknown`` in `step_up.when`, in place of a condition on
    an argument.
    """

    of: Literal["intent", "origin"]


_LEFT_OPEN = {
    word: LeftOpenBlock.model_validate({"of": of})
    for word, of in (("unclear", "intent"), ("unknown", "origin"))
}


def _condition(value: Any) -> Any:
    if type(value) is str and value not in _LEFT_OPEN:
        raise wrong(
            "intent: unclear, origin: unknown, or a mapping: the conditions on an argument"
        )
    return _LEFT_OPEN[value] if type(value) is str else value


class FactBlock(Block):
    """One field of a tool's result."""

    type: Type
    path: Text | None = None
    key: Yes | None = None
    currency: Name | None = None
    trust: Literal["named", "confirmed"] | None = None
    find: Literal["one", "any"] | None = None
    pattern: Text | None = None
    named_by: Annotated[list[Name], Len(1, 8), Distinct] | None = None
    where: Annotated[dict[Name, ArgumentName], Len(1, 8)] | None = None


class RememberBlock(Block):
    """A tool's `remember`: one argument, or several."""

    arg: Annotated[
        list[ArgumentName],
        BeforeValidator(lambda v: [v] if type(v) is str else v),
        Len(1, 100),
        Distinct,
    ]
    for_: Duration = Field(alias="for")


class ToolBlock(Block):
    """One tool."""

    title: Text | None = None
    effect: Literal["read", "write", "egress", "destructive"]
    needs: Annotated[Labels, BeforeValidator(word_or_list("any", "none"))]
    audience: Https | None = None
    scope: Scopes | None = None
    definition: ToolDigest | None = None
    redeem: Literal["wrapper", "server"]
    args: Annotated[dict[ArgumentName, ArgumentBlock], Len(0, 100)] = Field(
        default_factory=dict
    )
    facts: Annotated[dict[Name, FactBlock], Len(1, 100)] | None = None
    remember: RememberBlock | None = None


class SequenceBlock(Block):
    """One line of `sequence`."""

    before: Text
    require: Text
    within: Duration | None = None


class LimitBlock(Block):
    """One line of `limits`: exactly one of `count` and `sum`."""

    count: Text | None = None
    sum: Text | None = None
    max: Number
    per: Literal["turn", "run", "conversation", "agent", "tenant"]
    every: Duration | None = None


class ApproversBlock(Block):
    """`step_up.approvers`: exactly one of `group` and `user`; `count` and `not` (1, requester)
    beside a group.
    """

    group: Group | None = None
    user: Yes | None = None
    count: Annotated[int, Field(ge=1, le=10)] | None = None
    not_: Annotated[list[Literal["requester"]], Len(1, 1)] | None = Field(None, alias="not")


class StepUpBlock(Block):
    """One rule of `step_up`."""

    id: Label
    for_: Text = Field(alias="for")
    when: (
        Annotated[dict[Text, Annotated[WhenBlock, BeforeValidator(_condition)]], Len(1, 50)]
        | None
    ) = None
    approvers: ApproversBlock | None = None
    timeout: Duration
    show: Texts | None = None
    endorses: Texts | None = None


class TokenBlock(Block):
    """`token`."""

    ttl: Duration = 60
    uses: Once = 1
    bound_to: Annotated[list[Literal["call", "agent_key"]], Len(1, 2), Distinct] = ["call"]


class UpstreamBlock(Block):
    """One tool's upstream credential: its broker and the settings it gets."""

    broker: Label
    role: Text | None = None
    narrower_than: Text | None = None
    audience: Text | None = None
    region: Text | None = None
    path: Text | None = None
    policy: Text | None = None
    duration: Duration | None = None
    scopes: Texts | None = None


class DefaultsBlock(Block):
    """`defaults`: what rules take that do not say it themselves."""

    approvers: ApproversBlock


class Definition(Block):
    """The whole file."""

    agentgate: Literal["workflow/v1"]
    id: Label
    version: Annotated[int, Field(ge=1, le=10**9)]
    title: Text
    owners: Texts
    risk: Literal["low", "medium", "high"]
    expires: Day
    tenants: Annotated[list[Tenant], Len(1, 1000), Distinct]
    mode: Literal["enforce", "observe"] = "enforce"
    who: WhoBlock
    intents: Annotated[dict[Name, IntentBlock], Len(0, 100), BeforeValidator(_intents)]
    conditions: ConditionsBlock | None = None
    tools: Annotated[dict[ToolName, ToolBlock], Len(1, 200)]
    sequence: Annotated[list[SequenceBlock], Len(1, 200)] | None = None
    limits: Annotated[list[LimitBlock], Len(1, 200)] | None = None
    step_up: Annotated[list[StepUpBlock], Len(1, 100)] | None = None
    defaults: DefaultsBlock | None = None
    token: TokenBlock | None = None
    upstream: Annotated[dict[Text, UpstreamBlock], Len(1, 200)] | None = None


class RolesFile(Block):
    """`roles.yaml`."""

    agentgate: Literal["roles/v1"]
    roles: Annotated[dict[Label, Scopes], Len(1, 1000)]


_DURATION = get_args(Duration)[1]


def written_out(value: Any) -> Any:
    """The definition that this parsed definition stands for, as a new value; one that is
    complete comes out equal.
    """
    if type(value) is not dict:
        return value
    out = _filled(Definition, {"token": {}, **value})
    tools = out.get("tools")
    for name, tool in _mappings(tools):
        if tool.get("redeem") == "wrapper":
            tool.setdefault("scope", [name])
        for _, argument in _mappings(tool.get("args")):
            argument.setdefault(
                "type", "number" if "min" in argument or "max" in argument else "text"
            )
            if "from" in argument:
                argument.setdefault("unknown_origin", "deny")
        for fact, block in _mappings(tool.get("facts")):
            block.setdefault("path", fact)
    rules = out.get("step_up")
    defaults = out.get("defaults")
    given = defaults.get("approvers") if type(defaults) is dict else None
    for rule in [each for each in rules if type(each) is dict] if type(rules) is list else ():
        shown = _arguments(tools, rule.get("for"))
        if shown:
            rule.setdefault("show", shown)
        people = (
            rule.setdefault("approvers", copy(given))
            if type(given) is dict
            else rule.get("approvers")
        )
        if type(people) is dict and "group" in people:
            rule["approvers"] = {"count": 1, "not": ["requester"], **people}
    return out


def block_in(annotation: Any) -> type[Block] | None:
    """The block in ``dict[K, Block]``, ``list[Block]``, ``Annotated[...]`` or ``Block | None``;
    None where there is none.
    """
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((block for part in get_args(annotation) if (block := block_in(part))), None)


def is_collection(annotation: Any) -> bool:
    """Whether a field holds many of what it holds."""
    return "dict[" in str(annotation) or "list[" in str(annotation)


@cache
def _inner(block: type[Block]) -> tuple[tuple[str, type[Block], bool], ...]:
    """The fields of a block that hold blocks: key, block, whether they hold many."""
    fields = [
        (field.alias or name, field.annotation) for name, field in block.model_fields.items()
    ]
    return tuple(
        (key, inner, is_collection(kind)) for key, kind in fields if (inner := block_in(kind))
    )


@cache
def _defaults(block: type[Block]) -> dict[str, Any]:
    """What a block assumes where it is silent, as a file would say it."""
    fields = [
        (name, field) for name, field in block.model_fields.items() if not field.is_required()
    ]
    values = [
        (field.alias or name, field, field.get_default(call_default_factory=True))
        for name, field in fields
    ]
    return {
        key: f"{value}s" if _DURATION in field.metadata else value
        for key, field, value in values
        if value is not None
    }


def _filled(block: type[Block], value: Any) -> Any:
    if type(value) is not dict:
        return value
    out = {**_defaults(block), **value}
    for key, inner, many in _inner(block):
        if key in out:
            part = out[key]
            if not many:
                out[key] = _filled(inner, part)
            elif type(part) is dict:
                out[key] = {name: _filled(inner, each) for name, each in part.items()}
            elif type(part) is list:
                out[key] = [_filled(inner, each) for each in part]
    return out


def _mappings(value: Any) -> Iterator[tuple[Any, dict[Any, Any]]]:
    return (
        ((name, each) for name, each in value.items() if type(each) is dict)
        if type(value) is dict
        else iter(())
    )


def _arguments(tools: Any, name: Any) -> list[str]:
    """The arguments of a tool in a fixed order: what a person is shown where a rule does not
    say.
    """
    args = next((tool.get("args") for each, tool in _mappings(tools) if each == name), None)
    return (
        sorted(args) if type(args) is dict and all(type(each) is str for each in args) else []
    )
