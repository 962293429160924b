"""The shape of a workflow file: every block and key there is, strict, unknown keys refused.

Source of the keys: the workflow definition v1. These models say what may stand where; what the values mean together
(references, origins, money) is `agentgate.loading.compiler`'s. Every reading of text (durations, dates, decimals) happens here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints
from pydantic_core import PydanticCustomError

from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.values.entities import TYPES, number
from agentgate.workflow.operators import OPERATORS

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_DURATION = 366 * 86400


def wrong(expected: str, hint: str = "") -> PydanticCustomError:
    """The error of a value that stands in the right place and cannot be read."""
    return PydanticCustomError("form", "{expected}", {"expected": expected, "hint": hint})


def _form(pattern: str, expected: str) -> AfterValidator:
    whole = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not whole.fullmatch(value):
            raise wrong(expected)
        return value

    return AfterValidator(check)


def _distinct(values: list[Any]) -> list[Any]:
    if len({(type(v), v) for v in values}) != len(values):
        repeated = next(v for i, v in enumerate(values) if v in values[:i])
        raise wrong(f"each element once ({repeated!r} is repeated)")
    return values


def _duration(value: Any) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", value, re.ASCII) if type(value) is str else None
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_DURATION:
        raise wrong("a duration: a whole number and s, m, h or d, such as 15m, at most 366d")
    return seconds


def _minutes(value: Any) -> int:
    if type(value) is not str or not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00", value, re.ASCII):
        raise wrong('a time of day in quotes, "00:00" to "24:00"')
    return int(value[:2]) * 60 + int(value[3:])


def _day(value: Any) -> date:
    try:
        found = date.fromisoformat(value) if type(value) is str and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII) else None
    except ValueError:
        found = None
    if found is None:
        raise wrong('a date in quotes, such as "2031-12-31"')
    return found


def _decimal(value: Any) -> Decimal:
    found = number(value) if type(value) in {str, int} else None
    if found is None:
        raise wrong('a number of at most 15 digits, written as text: "500.00"')
    return found


def _scalar(value: Any) -> str | int | bool:
    if type(value) in {str, int, bool} and value != "":
        return value  # type: ignore[no-any-return]  # narrowed by the set of exact types
    raise wrong("text, a whole number, true or false")


def _word_or_list(*words: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is str:
            if value in words:
                return [value]
            raise wrong(" or ".join((*words, "a list in brackets")))
        return value

    return read


def _intents(value: Any) -> Any:
    if type(value) is dict and "none" in value:
        if len(value) > 1:
            raise wrong("'none' alone (it says that this workflow has no intents), or intents without it")
        if type(value["none"]) is not str or not value["none"]:
            raise wrong("none: a sentence that says why no prompt decides here")
        return {}
    if type(value) is dict and not value:
        raise wrong("at least one intent, or none: with the reason")
    return value


def _only(allowed: object, expected: str) -> PlainValidator:
    """Exactly this value: to a Literal, 1 and true are the same."""

    def read(value: Any) -> Any:
        if type(value) is not type(allowed) or value != allowed:
            raise wrong(expected)
        return value

    return PlainValidator(read)


class Block(BaseModel):
    """A mapping of the file. Strict: no coercion; unknown keys are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Texts = Annotated[list[Text], Len(1, 200), AfterValidator(_distinct)]
Label = Annotated[str, _form(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "1 to 128 ASCII letters, digits, '.', '_' or '-'")]
Labels = Annotated[list[Label], Len(1, 200), AfterValidator(_distinct)]
ToolName = Annotated[str, _form(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", "a tool name of ASCII letters, digits, '_', '.', ':', '/' or '-'")]
Name = Annotated[str, _form(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", "a name of ASCII letters, digits, '_' or '-'")]
ArgumentName = Annotated[
    str,
    _form(
        r"[A-Za-z_][A-Za-z0-9_-]{0,63}(?:(?:\[\])?(?:\.[A-Za-z_][A-Za-z0-9_-]{0,63}(?:\[\])?){1,8})?",
        "a name of ASCII letters, digits, '_' or '-', or a path of such names: attachments[].file_id",
    ),
]
Tenant = Annotated[str, _form(r"[A-Za-z0-9._-]{1,64}", "an exact tenant name, 1 to 64 of A-Z a-z 0-9 . _ - (no wildcards)")]
Spiffe = Annotated[str, _form(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+", "an exact spiffe://trust-domain/path (no wildcards)")]
Https = Annotated[
    str,
    _form(
        r"https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?|http://(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?",
        "an https:// URL without query or fragment (http:// only for 127.0.0.1)",
    ),
]
Scope = Annotated[str, _form(r"[\x21\x23-\x29\x2b-\x5b\x5d-\x7e]{1,128}", "one exact scope without spaces or '*' (RFC 6749 section 3.3)")]
Scopes = Annotated[list[Scope], Len(1, 50), AfterValidator(_distinct)]
ToolDigest = Annotated[str, _form(r"sha256:[0-9a-f]{64}", "sha256: and 64 lower-case hex characters")]
Type = Annotated[str, AfterValidator(lambda v: v if v in TYPES else _unknown_type(v))]
Noun = Annotated[str, _form(r"[a-z][a-z-]{1,30}(?: [a-z][a-z-]{1,30}){0,2}", "a noun in the singular, in lower case: file, calendar event")]
Yes = Annotated[Literal[True], _only(True, "true, or leave it out")]
Once = Annotated[Literal[1], _only(1, "1")]
Duration = Annotated[int, PlainValidator(_duration)]
Minutes = Annotated[int, PlainValidator(_minutes)]
Day = Annotated[date, PlainValidator(_day)]
Number = Annotated[Decimal, PlainValidator(_decimal)]
Scalar = Annotated[str | int | bool, PlainValidator(_scalar)]
Scalars = Annotated[list[Scalar], Len(1, 1000), AfterValidator(_distinct)]
References = Annotated[list[Text], Len(1, 50), AfterValidator(_distinct)]


_ATTRIBUTES = {"is": "is_", "in": "in_"}  # words of Python


def _unknown_type(value: str) -> str:
    raise wrong("one of " + ", ".join(sorted(TYPES)), did_you_mean(value, TYPES))


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
    spiffe: Annotated[list[Spiffe], Len(1, 100), AfterValidator(_distinct)] | None = None
    oidc: OidcBlock | None = None
    posture: PostureBlock | None = None
    boundary: BoundaryBlock | None = None


class UserBlock(Block):
    """`who.for_user`; left out: an autonomous workload."""

    groups: Texts | None = None
    same_tenant: Yes | None = None


class ViaBlock(Block):
    """`who.via`."""

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
    words: Texts
    unclear: Literal["deny", "step_up"] = "deny"
    delegated: Literal["deny", "step_up", "present"] = "deny"
    unheard: Literal["deny", "step_up"] = "deny"
    examples: Texts
    counter_examples: Texts | None = None


class HoursBlock(Block):
    """`conditions.hours`."""

    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Len(1, 7), AfterValidator(_distinct)]
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
    """The operators that `args` and `step_up.when` share. Their meaning is in `agentgate.workflow.operators`."""

    def operators(self) -> dict[str, Any]:
        """Those of the table that the file states, by their keys."""
        stated = ((operator.key, getattr(self, _ATTRIBUTES.get(operator.key, operator.key), None)) for operator in OPERATORS)
        return {key: value for key, value in stated if value is not None}

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
    called: Annotated[list[Noun], Len(1, 20), AfterValidator(_distinct)]
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
    unknown_origin: Literal["deny", "step_up"] | None = None
    entities: References | None = None
    currency: Name | None = None
    any_call: bool = False
    named_first: Yes | None = None
    optional: bool = False
    nullable: Yes | None = None
    page_size: Yes | None = None
    needs: Labels | None = None
    sensitive: bool = False


class WhenBlock(OperatorsBlock):
    """One condition of `step_up.when`; negation only here, where it adds a person."""

    above: Number | None = None
    not_in: Scalars | None = None
    origin: Annotated[References, BeforeValidator(_word_or_list("unknown"))] | None = None


class FactBlock(Block):
    """One field of a tool's result."""

    type: Type
    path: Text | None = None
    key: Yes | None = None
    currency: Name | None = None
    trust: Literal["named"] | None = None
    find: Literal["one", "any"] | None = None
    pattern: Text | None = None
    named_by: Annotated[list[Name], Len(1, 8), AfterValidator(_distinct)] | None = None
    where: Annotated[dict[Name, ArgumentName], Len(1, 8)] | None = None


class ToolBlock(Block):
    """One tool."""

    effect: Literal["read", "write", "egress", "destructive"]
    needs: Annotated[Labels, BeforeValidator(_word_or_list("any", "none"))]
    audience: Https | None = None
    scope: Scopes | None = None
    definition: ToolDigest | None = None
    redeem: Literal["wrapper", "server"]
    args: Annotated[dict[ArgumentName, ArgumentBlock], Len(0, 100)] = Field(default_factory=dict)
    facts: Annotated[dict[Name, FactBlock], Len(1, 100)] | None = None


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
    per: Literal["turn", "run", "agent", "tenant"]
    every: Duration | None = None


class ApproversBlock(Block):
    """`step_up.approvers`."""

    group: Text
    count: Annotated[int, Field(ge=1, le=10)] = 1
    not_: Annotated[list[Literal["requester"]], Len(1, 1)] = Field(["requester"], alias="not")


class StepUpBlock(Block):
    """One rule of `step_up`."""

    id: Label
    for_: Text = Field(alias="for")
    when: Annotated[dict[Text, WhenBlock], Len(1, 50)] | None = None
    approvers: ApproversBlock
    timeout: Duration
    show: Texts | None = None


class TokenBlock(Block):
    """`token`."""

    ttl: Duration = 60
    uses: Once = 1
    bound_to: Annotated[list[Literal["call", "agent_key"]], Len(1, 2), AfterValidator(_distinct)] = ["call"]


class UpstreamBlock(Block):
    """One tool's upstream credential: its broker and what is asked of it."""

    broker: Label
    role: Text | None = None
    narrower_than: Text | None = None
    audience: Text | None = None
    region: Text | None = None
    path: Text | None = None
    policy: Text | None = None
    duration: Duration | None = None
    scopes: Texts | None = None


class Definition(Block):
    """The whole file."""

    agentgate: Literal["workflow/v1"]
    id: Label
    version: Annotated[int, Field(ge=1, le=10**9)]
    title: Text
    owners: Texts
    risk: Literal["low", "medium", "high"]
    expires: Day
    tenants: Annotated[list[Tenant], Len(1, 1000), AfterValidator(_distinct)]
    mode: Literal["enforce", "observe"] = "enforce"
    who: WhoBlock
    intents: Annotated[dict[Name, IntentBlock], Len(0, 100), BeforeValidator(_intents)]
    conditions: ConditionsBlock | None = None
    tools: Annotated[dict[ToolName, ToolBlock], Len(1, 200)]
    sequence: Annotated[list[SequenceBlock], Len(1, 200)] | None = None
    limits: Annotated[list[LimitBlock], Len(1, 200)] | None = None
    step_up: Annotated[list[StepUpBlock], Len(1, 100)] | None = None
    token: TokenBlock | None = None
    upstream: Annotated[dict[Text, UpstreamBlock], Len(1, 200)] | None = None


class RolesFile(Block):
    """`roles.yaml`."""

    agentgate: Literal["roles/v1"]
    roles: Annotated[dict[Label, Scopes], Len(1, 1000)]
