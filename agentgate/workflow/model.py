"""A workflow as the gate enforces it: frozen values, compiled once by `agentgate.loading`,
shared by every call.

Rules: everything is ANDed, nothing is negated, an empty tuple grants nothing. Every value has
the `line` of its rule, so that a refusal names ``file:line``. These values have no clock and no
I/O, and only the loader builds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from datetime import date
from math import inf
from typing import Literal, NamedTuple

from agentgate.values.times import duration
from agentgate.values.value_class import set_derived, value_class
from agentgate.workflow.clauses.agent import AgentRule
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.hops import ViaRule
from agentgate.workflow.clauses.sequence import Sequence
from agentgate.workflow.clauses.user import UserRule
from agentgate.workflow.nested import Structures, list_of, structures
from agentgate.workflow.rule import Fact, Rule, Sources, WhenOpen

Effect = Literal["read", "write", "egress", "destructive"]
Redeem = Literal["wrapper", "server"]

# In the words of an intent: placeholders for a person and a thing, as in a dictionary, and
# words that do not count.
PLACES = frozenset({"someone", "something"})
ARTICLES = frozenset({"a", "an", "the", "my", "some"})
ANY = "any"  # `needs: any`, `limits.count: any`
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")  # in a tool's title
NONE = "none"  # the reserved intent of a machine workflow
NAMED = "<named>"  # among an intent's `objects`


@value_class
class Limit:
    """How much. Exactly one of a count of `tool` calls (``any``: all tools) or the sum of
    `argument` of `tool`.

    Attributes:
        maximum: for a count the number of calls; for a sum the amount in units of 10^-4, per
            currency.
        per: whose counter it is; `turn`: since the user last spoke in this run.
        every: sliding window in seconds (what it counts leaves up to a sixtieth of it later);
            None: for ever (per run: the run's life).
    """

    line: int
    tool: str
    argument: str
    maximum: int
    per: Literal["turn", "run", "conversation", "agent", "tenant"]
    every: int | None

    @property
    def bound(self) -> str:
        """How much at most, for whom, and in which window, in words."""
        most = self.maximum / 10_000 if self.argument else self.maximum
        window = "" if self.every is None else f" every {duration(self.every)}"
        return f"at most {most:g} per {self.per}{window}"


@value_class
class StepUpRule:
    """When a person must look: every rule in `when` holds (empty: always), and the call leaves
    open all that `left_open` names.

    Attributes:
        group, count: how many members of which group say yes; `user` instead: the run's own
            user does, and nobody for them.
        endorses: the arguments whose values the group's yes lets the run use again
            (`confirmed`); the user's own needs none.
    """

    id: str
    line: int
    tool: str
    when: tuple[Rule, ...]
    group: str
    count: int
    exclude: tuple[Literal["requester"], ...]
    timeout: int
    show: tuple[str, ...]
    user: bool = False
    left_open: tuple[Literal["intent", "origin"], ...] = ()
    endorses: tuple[str, ...] = ()

    @property
    def people(self) -> str:
        """Who may answer: the group, or ``the user``."""
        return "the user" if self.user else self.group

    @property
    def whom(self) -> str:
        """Whose yes it asks for, as text: ``the user`` or ``2 of leads``."""
        return "the user" if self.user else f"{self.count} of {self.group}"


@value_class
class Upstream:
    """The real credential's broker and its declared settings (`role`, `narrower_than`, ...).

    Attributes:
        role_scopes: what `role` may do, where roles.yaml knows it; empty: the broker has to say
            it.
        bound: what the role named by `narrower_than` may do; empty: none is named.
    """

    line: int
    broker: str
    settings: Mapping[str, str | int | tuple[str, ...]]
    role_scopes: frozenset[str] = frozenset()
    bound: frozenset[str] = frozenset()


class Dependency(NamedTuple):
    """What calls of one tool need of an earlier call of another; one call must meet all of it,
    in one row.

    Attributes:
        tool: the earlier tool.
        origins: arguments whose value may come from it, with the origins that name it.
        bounds: arguments whose `at_most` it holds.
        within: how many seconds ago it was redeemed at most (infinite: ever); None: no such
            call is required.
        tied: an element of a list takes several values or bounds from it
            (`agentgate.decision.origins.elements`).
    """

    tool: str
    origins: tuple[tuple[str, Sources], ...]
    bounds: tuple[str, ...]
    within: float | None
    tied: bool


@value_class
class Tool:
    """One tool the workflow may mint for.

    Attributes:
        title: the act in a sentence, in which ``{name}`` is the value of an argument; empty:
            name and arguments say it.
        needs: intents of which one must be present; ``("any",)`` for reads, ``("none",)`` for
            machine workflows.
        audience: the tool server's resource URL; empty where the wrapper redeems and leaves it
            to the gate.
        scope: granted scopes; empty: the tool's name.
        definition: pinned ``sha256:...`` or empty (wrapper only).
        remember: arguments whose value the user's own yes lets later runs use again
            (`remembered`), and for how many seconds.
        referenced: argument names that later calls may name as an origin (their values are kept
            in the call's record).
        structures: which arguments are structures, derived from `args`.
        dependencies: what its calls need of earlier calls, by tool; arguments with `any_call`
            aside.
        asking: arguments that need an intent of their own.
        grounded: arguments in which every email, URL, IBAN and phone number needs an origin.
        by_when: a step-up rule says which open question it is for; then no rule asks whose
            `when` does not hold.
    """

    name: str
    line: int
    effect: Effect
    needs: tuple[str, ...]
    audience: str
    scope: tuple[str, ...]
    definition: str
    redeem: Redeem
    args: Mapping[str, Rule]
    facts: Mapping[str, Fact]
    sequence: tuple[Sequence, ...] = ()
    limits: tuple[Limit, ...] = ()
    step_ups: tuple[StepUpRule, ...] = ()
    upstream: Upstream | None = None
    referenced: frozenset[str] = frozenset()
    title: str = ""
    remember: Mapping[str, int] = field(default_factory=dict)
    structures: Structures = field(init=False, compare=False, repr=False)
    dependencies: tuple[Dependency, ...] = field(
        default=(), init=False, compare=False, repr=False
    )
    asking: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    grounded: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    by_when: bool = field(default=False, init=False, compare=False, repr=False)

    @property
    def every_need(self) -> tuple[str, ...]:
        """The intents that it or one of its arguments needs, each once."""
        return tuple(
            dict.fromkeys(
                [*self.needs, *[need for rule in self.args.values() for need in rule.needs]]
            )
        )

    def __post_init__(self) -> None:
        rules = {name: rule for name, rule in self.args.items() if not rule.any_call}
        bounds = {
            name: rule.at_most.tool for name, rule in rules.items() if rule.at_most is not None
        }
        calls = {name: () if rule.free else rule.calls for name, rule in rules.items()}
        referred = [
            tool
            for name in rules
            for tool in (bounds.get(name, ""), *[called for called, _ in calls[name]])
            if tool
        ]
        dependencies = []
        for tool in dict.fromkeys([*referred, *[order.require for order in self.sequence]]):
            origins = tuple(
                [
                    (name, sources)
                    for name, own in calls.items()
                    for called, sources in own
                    if called == tool
                ]
            )
            bounded = tuple([name for name, called in bounds.items() if called == tool])
            within = min(
                [
                    inf if order.within is None else order.within
                    for order in self.sequence
                    if order.require == tool
                ],
                default=None,
            )
            lists = [
                list_of(name)
                for name in (*[name for name, _ in origins], *bounded)
                if rules[name].max_items is not None
            ]
            dependencies.append(
                Dependency(tool, origins, bounded, within, tied=len(lists) > len(set(lists)))
            )
        set_derived(
            self,
            structures=structures(self.args),
            dependencies=tuple(dependencies),
            asking=tuple([name for name, rule in self.args.items() if rule.needs]),
            by_when=any(rule.left_open for rule in self.step_ups),
            grounded=tuple(
                [name for name, rule in self.args.items() if rule.entities is not None]
            ),
        )


@value_class
class Intent:
    """One label of the closed vocabulary.

    Attributes:
        unclear: what happens when the prompt leaves it open.
        delegated: what it is when the user's words hand the choice of actions to a source they
            name ("do the tasks in Ann's e-mail"): absent, unclear or present.
        unheard: what it is when the user asks for something that no word of the workflow
            explains: absent or unclear.
        objects: what its tools act on (`agentgate.loading.compiler`): nouns, ``<id>`` for a
            type, `NAMED`. None: any object will do.
        timed: some argument of its tools takes a day or a time; what is asked of others for
            another time is in doubt.
        reader: a model may read it as present where its words leave it open
            (`agentgate.intents.combined`).
    """

    name: str
    line: int
    asks_for: str
    words: tuple[str, ...]
    unclear: WhenOpen
    examples: tuple[str, ...]
    counter_examples: tuple[str, ...]
    delegated: Literal["deny", "confirm", "step_up", "present"] = "deny"
    unheard: WhenOpen = "deny"
    objects: frozenset[str] | None = None
    reader: bool = False
    timed: bool = True


@value_class
class Doubt:
    """An example of a signed intent that the installed deriver reads otherwise than its
    reviewers did.

    Attributes:
        key: ``examples`` or ``counter_examples``.
        index: which of them.
        got: what the deriver answered, with its evidence.
    """

    intent: str
    key: Literal["examples", "counter_examples"]
    index: int
    got: str

    @property
    def expected(self) -> str:
        """What the deriver has to answer."""
        return "present" if self.key == "examples" else "unclear or absent"

    def __str__(self) -> str:
        return f"intents.{self.intent}.{self.key}[{self.index}]: got {self.got}, expected {self.expected}"


@value_class
class TokenRule:
    """Lifetime in seconds and binding; `agent_key`: everything but reads that a wrapper redeems
    carries `cnf`.
    """

    ttl: int = 60
    agent_key: bool = False


@value_class
class Workflow:
    """A reviewed definition: id + version + digest.

    Attributes:
        digest: ``sha256:...`` of the RFC 8785 bytes of the definition with every default
            written out (comments do not count).
        file: path the rules' lines refer to.
        observe: `mode: observe` of a signed workflow: refusals are recorded, not enforced.
            Unsigned, it is ignored with a warning.
        in_doubt: why intents of a signed workflow are unclear at most under the deriver it was
            loaded with.
    """

    id: str
    version: int
    title: str
    owners: tuple[str, ...]
    risk: Literal["low", "medium", "high"]
    expires: date
    tenants: tuple[str, ...]
    agent: AgentRule
    for_user: UserRule | None
    via: ViaRule | None
    intents: Mapping[str, Intent]
    conditions: Conditions
    tools: Mapping[str, Tool]
    token: TokenRule
    digest: str
    file: str
    observe: bool = False
    tenants_line: int = 0
    expires_line: int = 0
    in_doubt: tuple[Doubt, ...] = ()
