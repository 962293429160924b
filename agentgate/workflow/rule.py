"""Rules, facts, origins and selectors: what a workflow asks of one value, what tools return for
later calls to refer to, and the words by which a user picks one row of a result, such as "the
largest file", without naming its id (`agentgate.decision.origins.labels` says when such words
select, and which row).

As in `agentgate.workflow.model`: frozen values that only the loader builds. Fields below a
class's own (`init=False`) hold what every decision needs of the others, worked out once, when
the value is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as field_
from decimal import Decimal
from functools import cached_property
from typing import Literal

from agentgate.values.patterns import Glob, Pattern
from agentgate.values.value_class import value_class
from agentgate.workflow.operators import Operator, compiled

# key of `select` -> (its words, whether it takes the greatest value)
SELECTORS: Mapping[str, tuple[str, bool]] = {
    "largest": ("largest|biggest|heaviest|bulkiest", True),
    "smallest": ("smallest|tiniest|lightest", False),
    "newest": (r"newest|latest|most\s+recent|last", True),
    "oldest": ("oldest|earliest|first", False),
    "highest": (r"highest|most\s+expensive|priciest|dearest|costliest", True),
    "lowest": (r"lowest|cheapest|least\s+expensive", False),
    "longest": ("longest", True),
    "shortest": ("shortest", False),
}
IN_TIME = frozenset({"newest", "oldest"})  # compare dates and times; the others compare numbers
_WHOLE = (  # a place that holds everything narrows nothing
    r"(?:\s+(?:in|on|from|of|at)\s+(?:my|the|our)\s+(?:whole\s+|entire\s+)?(?:cloud\s+)?"
    r"(?:drive|account|inbox|mailbox|calendar|list|storage|workspace|cloud))?"
)
_AFTER = (
    r"(?:\s+(?:please|now|for\s+me|there|(?:that\s+)?(?:i\s+have|there\s+is|you\s+(?:can\s+)?find)))?"
    r"\s*(?=$|[.,;:!?)]|(?:and|then|to|as)\b)"
)


def _form(key: str, nouns: tuple[str, ...]) -> re.Pattern[str]:
    """How a user writes one superlative with one of these nouns, with nothing that narrows the
    set.
    """
    words, _ = SELECTORS[key]
    one = "(?:" + "|".join(r"\s+".join(map(re.escape, noun.split())) for noun in nouns) + ")"
    among = rf"(?:one\s+)?of\s+(?:(?:all|the|my|our)\s+){{1,3}}{one}(?:e?s)?(?!\w)"
    before = rf"(?:the|my|our)\s+(?:single\s+|very\s+)?(?:{words})\s+(?:{one}(?!\w)|{among})"
    behind = rf"(?:the|my|our)\s+{one}\s+(?:that|which)\s+is\s+(?:the\s+)?(?:{words})(?!\w)"
    return re.compile(rf"(?i)(?<![\w'\u2019-])(?:{before}|{behind}){_WHOLE}{_AFTER}")


@dataclass(frozen=True)
class Selector:
    """Which row of a read "the largest file" is.

    Attributes:
        tool: the tool whose argument is selected; after its first call in a run, no later read
            selects for it again.
        nouns: what the user may call such an object, in the singular.
        by: pairs of a key of `SELECTORS` and the fact that it compares.
    """

    tool: str
    nouns: tuple[str, ...]
    by: tuple[tuple[str, str], ...]

    @cached_property
    def forms(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        """For each key of `by`, the form in which the user's words carry it."""
        return tuple((key, _form(key, self.nouns)) for key, _ in self.by)


Scalar = str | int | bool | Decimal
WhenOpen = Literal["deny", "confirm", "step_up"]
"""What an open question does: it refuses, or asks the user, or a group."""
STRICTNESS: tuple[WhenOpen, ...] = ("confirm", "step_up", "deny")  # the least strict first


@value_class
class Source:
    """One allowed origin. `kind` prompt, user, computed and model name no tool; fact and arg
    name a `field` of an earlier `tool`.

    `user` is the id of the person the run is for, whatever the prompt says; `computed` is one
    calculation that the user's words name, over numbers of the other origins beside it
    (`agentgate.language.calculation`). `confirmed` is a value to which the user said yes for
    this argument of the tool that its `field` names, and `remembered` one to which they did in
    an earlier run.

    A `select` is a fact in the row that the user's words select; a `sum`, only in `at_most`, is
    a fact over all rows of one call. `key` is equal for equal sources, and quick to look up by.
    """

    kind: Literal[
        "prompt",
        "user",
        "computed",
        "confirmed",
        "remembered",
        "model",
        "fact",
        "arg",
        "select",
        "sum",
    ]
    tool: str = ""
    field: str = ""
    selector: Selector | None = None
    key: str = field_(default="", init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "key",
            f"{self.kind} {self.tool} {self.field}"
            + (f" {self.selector}" if self.selector else ""),
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        if self.selector is not None:
            return f"the {' or '.join(key for key, _ in self.selector.by)} of {self.tool}.{self.field}"
        if self.kind == "sum":
            return f"the sum of {self.tool}.{self.field}"
        return f"{self.tool}.{self.field}" if self.tool else self.kind


Sources = tuple[Source, ...]
# Those that name no earlier call.
PROMPT, USER, COMPUTED, MODEL = (
    Source(kind) for kind in ("prompt", "user", "computed", "model")
)
BY_YES = CONFIRMED, REMEMBERED = Source("confirmed"), Source("remembered")


@value_class
class Rule:
    """The operators on one value (an argument; or `step_up.when`, where `above`, `not_in`,
    `not_pattern` and `origin` add a person).

    Attributes:
        name: argument name.
        line: line of the rule in the workflow file.
        type: one of `agentgate.values.entities.TYPES`; how the value is normalised before
            comparing.
        equals: `is`, as a one-element tuple, or None.
        one_of: `in` (a list argument with `each_in`: every element), or None.
        text: longest free text in characters, or None.
        minimum, maximum: inclusive range, both or neither.
        at_most: an earlier call's fact that bounds the value, or the sum of one over all rows
            of that call.
        max_items: the value is a list of at most this many elements, each under the other
            operators; None: a single value.
        role: name of the static role the list must be a strict subset of; `role_scopes` are its
            scopes.
        sources: allowed origins (`from`); empty: not checked (a read's argument that nothing
            references).
        entities: allowed origins of every email/URL/IBAN/phone inside a free text; None: not
            checked.
        currency: name of the sibling that holds a money value's currency.
        named_first: where the user's words hold any value of this type, they are the only
            origin.
        nullable: with `optional`: null counts as left out.
        page_size: the most rows a read returns; it chooses none where fewer came
            (`agentgate.workflow.model`).
        needs: intents of which one must be present where the argument is sent; empty: those of
            the tool suffice.
        record: how much of a free text the audit log shows.
        operators: the stated ones of `agentgate.workflow.operators`, compiled from the fields
            above.
        references: the origins that name an earlier call, and the bound.
        calls: the origins that name an earlier call, by its tool.
        alone: those that name none, where more than one whole entity of the prompt has to be
            looked for.
        prompted: the prompt is an origin.
        joint: nothing but the prompt or one call that meets all of its origins together can
            explain a value.
        free: any origin will do: none is named, or the model is one.
        said_as: the type as the user's words name it: a number that may be `computed` is no
            percentage, which says how it is computed.
    """

    name: str
    line: int
    type: str = "text"
    equals: tuple[Scalar] | None = None
    one_of: tuple[Scalar, ...] | None = None
    pattern: Pattern | None = None
    glob: Glob | None = None
    text: int | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    at_most: Source | None = None
    max_items: int | None = None
    role: str = ""
    role_scopes: frozenset[str] = frozenset()
    sources: Sources = ()
    unknown_origin: WhenOpen = "deny"
    entities: Sources | None = None
    currency: str = ""
    any_call: bool = False
    named_first: bool = False
    optional: bool = False
    nullable: bool = False
    page_size: bool = False
    needs: tuple[str, ...] = ()
    sensitive: bool = False
    record: Literal["", "full"] = ""
    above: Decimal | None = None
    not_in: tuple[Scalar, ...] | None = None
    not_pattern: Pattern | None = None
    origin: tuple[Source | Literal["unknown"], ...] | None = None
    operators: tuple[Operator, ...] = field_(default=(), init=False, compare=False, repr=False)
    references: Sources = field_(default=(), init=False, compare=False, repr=False)
    calls: tuple[tuple[str, Sources], ...] = field_(
        default=(), init=False, compare=False, repr=False
    )
    alone: Sources = field_(default=(), init=False, compare=False, repr=False)
    joint: bool = field_(default=False, init=False, compare=False, repr=False)
    free: bool = field_(default=True, init=False, compare=False, repr=False)
    prompted: bool = field_(default=False, init=False, compare=False, repr=False)
    said_as: str = field_(default="", init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        calls = tuple(s for s in self.sources if s.tool)
        whole = (MODEL,) if self.type == "text" else (MODEL, PROMPT)
        alone = tuple(s for s in self.sources if not s.tool and s not in whole)
        derived = {
            "operators": compiled(self),
            "references": calls if self.at_most is None else (*calls, self.at_most),
            "calls": tuple(
                (tool, tuple(s for s in calls if s.tool == tool))
                for tool in dict.fromkeys([s.tool for s in calls])
            ),
            "alone": alone,
            "joint": bool(calls) and not (alone or self.any_call or self.named_first),
            "free": not self.sources or MODEL in self.sources,
            "prompted": PROMPT in self.sources,
            "said_as": "computed"
            if self.type == "number" and COMPUTED in self.sources
            else self.type,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash((self.name, self.line, self.type))

    @property
    def condition(self) -> str:
        """It as a condition of a step-up, in words."""
        said = [operator.expected for operator in self.operators]
        if self.origin is not None:
            said.append("from " + " or ".join(map(str, self.origin)))
        return f"{self.name} {', '.join(said)}"


@value_class
class Fact:
    """A field of a tool's result that the gate reads and trusts as an origin.

    Attributes:
        path: keys into the result; ``[]`` walks a list element by element, e.g.
            ``("transactions", "[]", "recipient")``; ``[values]`` before it makes an object the
            list of its values, and a last ``[key]`` (`key: true`) is the key of each. An empty
            tuple is the result itself. A last ``[iban]`` (`find: one`) is the one entity of
            that type in the text there; ``[numbers]``, ``[]`` (`find: any`) each number in it.
        named: `trust: named`: counts only if that call's own arguments all came from the
            prompt.
        confirmed: `trust: confirmed`: as `named`, and also where the user confirmed the call,
            or what it was asked for.
        pattern: form the value must have, if given.
        named_by: facts of the same row of which the user's words must name one (see
            `agentgate.decision.origins.labels`); empty: every row counts.
        where: pairs of a fact of the same row and the argument of that call which it must
            equal.
    """

    name: str
    line: int
    type: str
    path: tuple[str, ...]
    currency: str = ""
    named: bool = False
    pattern: Pattern | None = None
    named_by: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    confirmed: bool = False
