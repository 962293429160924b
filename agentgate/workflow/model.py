"""A workflow as the gate enforces it: frozen values, compiled once by `agentgate.loading`,
shared by every call.

Rules: everything is ANDed, nothing is negated, an empty tuple grants nothing. Every value has
the `line` of its rule, so that a refusal names ``file:line``. These values have no clock and no
I/O, and only the loader builds them.

Arguments inside arguments: ``attachments[].file_id`` is one value for each element of the list
`attachments`. A rule names a leaf; every leaf of a structure has a rule, or the call is refused
like one with any unknown argument. The leaves of a list share one name, in their order, and
under a rule that is not optional every element has one. A key that looks like a path is no
path. A null under a `nullable` rule counts as left out, as does one in place of a structure
whose rules are all `nullable`.

Pages: the most rows that one call of a read returns (`page_size`), and how many elements its
list really had. A page's size selects rows only where the page is full. The list is counted
when the result is read, including elements that make no row; the count is kept in the last row
under `PAGE`. Without a count, or if the size in the call is no whole number, the size counts as
a choice of rows. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from datetime import date
from decimal import Decimal
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from agentgate.values.paths import EACH, NUMBERS, PAGE
from agentgate.values.times import duration
from agentgate.values.value_class import names_of, set_derived, value_class
from agentgate.workflow.clauses.clause import NOBODY, Distinct, Loosening, Order
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.who import AgentRule, UserRule, ViaRule
from agentgate.workflow.rule import Fact, Rule, Sources, WhenOpen

# --- arguments inside arguments ---------------------------------------------------------------
MAX_DEPTH = 16
MAX_STEP = 64  # characters of a step of a rule's name


class Structures(NamedTuple):
    """The arguments of a tool that are structures, worked out when the workflow is loaded.

    Attributes:
        roots: names of these arguments.
        nullable: those of them whose rules are all `nullable`.
        lists: every list that a rule's name walks, by its path: ``attachments[]``.
    """

    roots: frozenset[str] = frozenset()
    nullable: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()


class Structured(Protocol):
    """What this module reads of a tool."""

    @property
    def args(self) -> Mapping[str, Rule]:
        """The rules, by name."""

    @property
    def structures(self) -> Structures:
        """`structures` of these rules."""


_NO_STRUCTURES = Structures()


def root(name: str) -> str:
    """The argument that a rule's name is in: ``attachments`` for ``attachments[].file_id``."""
    return name.partition(".")[0].removesuffix(EACH)


def structures(rules: Mapping[str, Rule]) -> Structures:
    """Which arguments are structures, by the names of the rules."""
    roots = frozenset(root(name) for name in rules if "." in name)
    if not roots:
        return _NO_STRUCTURES
    required = {root(name) for name, rule in rules.items() if "." in name and not rule.nullable}
    lists = {
        name[: at + len(EACH)]
        for name in rules
        for at in range(len(name))
        if name.startswith(EACH, at)
    }
    return Structures(roots, roots - required, frozenset(lists))


def flat(tool: Structured, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by the names of their rules: unchanged where the tool has no structures.

    What has no rule gets a name that no rule can have. An empty list where a list may be names
    nothing; a null that counts as left out is dropped.
    """
    roots, nullable, lists = tool.structures
    if not roots:
        return (
            args
            if None not in args.values()
            else {n: v for n, v in args.items() if not (v is None and _nullable(tool, n))}
        )
    leaves = {}
    counted = dict.fromkeys(lists, 0)
    for name, value in args.items():
        if name not in roots:
            leaves[_plain(name)] = value
        elif value is not None or name not in nullable:
            _leaves(name, value, leaves, counted, 0)
    for name, rule in tool.args.items():
        if (
            not rule.optional
            and name in leaves
            and EACH in name
            and len(leaves[name]) != counted.get(list_of(name))
        ):
            del leaves[name]  # an element lacks it
        elif rule.nullable and name in leaves:
            if EACH in name:
                leaves[name] = [one for one in leaves[name] if one is not None] or None
            if leaves[name] is None:
                del leaves[name]
    return leaves


def emptied(name: str, args: Mapping[str, Any]) -> bool:
    """Whether the call sends an empty list where a rule's leaves would be, which may mean "none
    of them".
    """
    level: list[Any] = [args]
    for step in name.split(".") if "." in name else ():
        level = _under(step, level)
        for _ in range(step.count(EACH)):
            lists = [value for value in level if type(value) is list]
            level = [inner for each in lists for inner in each]
            if lists and not level:
                return True
    return False


def list_of(name: str) -> str:
    """The list whose elements hold the leaf of this name: ``payments[]`` for ``payments[].to``;
    for a whole argument its own name.
    """
    return name[: name.rindex(EACH) + len(EACH)] if EACH in name else name


def elements(
    path: str, leaves: Iterable[str], args: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each element of a list in a call's arguments: its leaves by the names of their rules,
    without those it does not send.

    Args:
        path: the list, as `list_of` names it.
        leaves: names of rules whose list it is.
        args: the arguments as sent.
    """
    level: list[Any] = [args]
    for step in path.split("."):
        level = _under(step, level)
        for _ in range(step.count(EACH)):
            level = [inner for value in level if type(value) is list for inner in value]
    steps = {name: name[len(path) + 1 :].split(".") for name in leaves}
    for element in level:
        found = {}
        for name, keys in steps.items():
            inside = [element]
            for key in keys:
                inside = _under(key, inside)
            if inside and inside[0] is not None:
                found[name] = inside[0]
        yield found


def _under(step: str, level: list[Any]) -> list[Any]:
    """What the objects among these values hold under the key of a step."""
    key = step.partition(EACH)[0]
    return [outer[key] for outer in level if type(outer) is dict and key in outer]


def _nullable(tool: Structured, name: str) -> bool:
    rule = tool.args.get(name)
    return rule is not None and rule.nullable


def _leaves(
    path: str, value: Any, leaves: dict[str, Any], counted: dict[str, int], depth: int
) -> None:
    if type(value) is dict and value and depth < MAX_DEPTH:
        for key, inner in value.items():
            _leaves(f"{path}.{_plain(key)}", inner, leaves, counted, depth + 1)
    elif type(value) is list and (value or path + EACH in counted) and depth < MAX_DEPTH:
        counted[path + EACH] = counted.get(path + EACH, 0) + len(value)
        for inner in value:
            _leaves(path + EACH, inner, leaves, counted, depth + 1)
    elif EACH in path:
        leaves.setdefault(path, []).append(value)
    else:
        leaves[path] = value


def _plain(key: str) -> str:
    """A key as one step of a path; a longer one, or one that looks like several steps, is
    quoted (and cut), as no rule's name is.
    """
    return repr(key[:MAX_STEP]) if len(key) > MAX_STEP or "." in key or "[" in key else key


# --- the definition ---------------------------------------------------------------------------
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
class Sequence:
    """`before` may be minted only after `require` was redeemed in this run.

    Attributes:
        within: at most so many seconds ago; None: ever.
    """

    line: int
    before: str
    require: str
    within: int | None = None

    def allows(self, age: int | None) -> bool:
        """Whether it passes where `require` was redeemed so many seconds ago; None: never."""
        return age is not None and (self.within is None or age <= self.within)

    @property
    def expected(self) -> str:
        """What would pass, for a person."""
        window = "" if self.within is None else f", at most {self.within} s ago"
        return f"{self.require} before {self.before}{window}"

    @property
    def remedy(self) -> str:
        """What would make it pass."""
        window = "" if self.within is None else f", at most {self.within} s before"
        return f"{self.require} redeemed first{window}"

    @property
    def words(self) -> str:
        """Its value as text."""
        window = "" if self.within is None else f" within {duration(self.within)}"
        return f"after {self.require}{window}"

    @staticmethod
    def distinct(orders: list[Sequence]) -> Iterable[Distinct]:
        """The ages that these tell apart, all of which require the same tool."""
        required = orders[0].require
        for age in sorted(
            {0, *[order.within + 1 for order in orders if order.within is not None]}
        ):
            yield Distinct(
                age, {f"ago.{required}": f"{age}s"}, f"{required}: {duration(age)} ago"
            )
        yield Distinct(None, {f"earlier.{required}": None}, f"{required}: {NOBODY}")

    def loosened(self) -> Iterator[Loosening]:
        """The smallest loosenings: a second more, or without it."""
        if self.within is not None:
            longer = self.within + 1
            yield Loosening(
                f"{self.within}s -> {longer}s",
                f"{self.require} too long ago",
                {"within": longer},
                "within",
            )
        yield Loosening(
            f"{self.require} dropped",
            f"{self.before} before {self.require}",
            {},
            "require",
            ("Sequence", "require"),
        )


SCALE = 10_000  # sums are kept in units of 10^-4


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
    every: int | None = None

    @property
    def counter(self) -> tuple[object, ...]:
        """Limits with the same counter count the same calls, in the same window: all that they
        say but how much.
        """
        return tuple([getattr(self, name) for name in _COUNTED])

    def stands_for(self, old: Limit) -> bool:
        """Whether it grants no more than an older version's limit."""
        return self.counter == old.counter and self.maximum <= old.maximum

    @property
    def is_of_run(self) -> bool:
        """Whether it ends with the run, whatever its window."""
        return self.per in {"turn", "run"}

    @property
    def name(self) -> str:
        """Its counter in a scene: ``tenant.payments.refund.amount``, ``run.any``."""
        return f"{self.per}.{self.tool}.{self.argument}".rstrip(".")

    @property
    def counted(self) -> str:
        """What it counts, in words: ``calls of payments.refund``, ``payments.refund.amount``."""
        return f"{self.tool}.{self.argument}" if self.argument else f"calls of {self.tool}"

    @property
    def key(self) -> str:
        """What it counts, as the file says it: ``count payments.refund``, ``sum
        payments.refund.amount``.
        """
        return f"sum {self.counted}" if self.argument else f"count {self.tool}"

    @property
    def bound(self) -> str:
        """How much at most, for whom, and in which window, in words."""
        return f"at most {self.maximum / self.scale:g} per {self.window}"

    @property
    def words(self) -> str:
        """The same, as the diff shows it."""
        return f"{self.written(self.maximum)} per {self.window}"

    @property
    def window(self) -> str:
        """For whom and in which window it counts: ``tenant every 1d``."""
        return self.per + (f" every {duration(self.every)}" if self.every else "")

    @property
    def scale(self) -> int:
        """How many units of `maximum` are one of what it counts."""
        return SCALE if self.argument else 1

    def written(self, units: int) -> str:
        """So many units of `maximum` as the file writes them."""
        if not self.argument:
            return str(units)
        return format(Decimal(units) / SCALE, ".4f").removesuffix("00")

    def loosened(self, unit: int) -> Iterator[Loosening]:
        """The smallest loosenings; `unit`: the smallest step of what it counts."""
        more = self.maximum + unit
        bound = self.written(self.maximum)
        name = f"more than {bound} per {self.per}"
        yield Loosening(f"{bound} -> {self.written(more)}", name, {"maximum": more}, "max")
        if self.every and not self.is_of_run:
            shorter = self.every - 1
            yield Loosening(
                f"{self.every}s -> {shorter}s",
                f"{bound} per {self.per} are counted for {self.every} s",
                {"every": shorter},
                "every",
            )
        if self.per != "turn":
            part = "turn" if self.per == "run" else "run"
            yield Loosening(f"{self.per} -> {part}", name, {"per": part}, "per")


_COUNTED = tuple(name for name in names_of(Limit) if name not in {"line", "maximum"})


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
    pins: ClassVar[tuple[str, ...]] = ("user", "group", "count", "not", "timeout", "show")
    orders: ClassVar[tuple[Order, ...]] = (
        Order(
            "timeout",
            "a release would be good for longer",
            "a release would be good less long",
        ),
        Order(
            "exclude",
            "who asks could answer",
            "who asks could not answer",
            "fewer",
            "approvers.not",
            empty="(nobody)",
        ),
        Order(
            "endorses",
            "a group's yes would name these in the run",
            "a group's yes would name fewer in the run",
            "further",
            empty="(none)",
        ),
        Order(
            "show",
            "the approver would not see {gone}",
            "the approver would also see {gone}",
            "fewer",
        ),
    )

    @property
    def people(self) -> str:
        """Who may answer: the group, or ``the user``."""
        return "the user" if self.user else self.group

    @property
    def whom(self) -> str:
        """Whose yes it asks for, as text: ``the user`` or ``2 of leads``."""
        return "the user" if self.user else f"{self.count} of {self.group}"

    @property
    def yes(self) -> str:
        """What it asks for: ``a yes of 2 of leads, not the requester``."""
        return f"a yes of {self.whom}" + (", not the requester" if self.exclude else "")

    @property
    def remedy(self) -> str:
        """What would make it pass."""
        return f"{self.yes}, within {self.timeout} s"

    def stands_for(self, old: StepUpRule) -> bool:
        """Whether its release is worth one of an older version's rule; what else changed in
        the same rule is told apart.
        """
        as_many = self.group == old.group and self.count >= old.count
        wider = self.id != old.id and any(order.widens(old, self) for order in self.orders)
        return (old.user or as_many) and not wider

    def asked_about(self, args: set[str]) -> StepUpRule:
        """What it asks of a person about these arguments, wherever it stands and whenever: two
        versions that ask the same are equal.
        """
        shown = args & {*self.show} if self.show else args
        return replace(self, line=0, when=(), left_open=(), show=tuple(sorted(shown)))

    @property
    def asks(self) -> Mapping[str, Any]:
        """What a case can state of it: `pins`, as the file writes them."""
        return {
            "user": self.user,
            "group": self.group or "none",
            "count": self.count,
            "not": list(self.exclude),
            "timeout": f"{self.timeout}s",
            "show": list(self.show),
        }

    def loosened(self) -> Iterator[Loosening]:
        """The smallest loosenings, its conditions apart."""
        for kind in self.left_open:
            name = f"{self.id} asks only where the {kind} is open"
            kinds = tuple(each for each in self.left_open if each != kind)
            yield Loosening("dropped", name, {"left_open": kinds}, f"when.{kind}")
        name = f"{self.id} asks whom it says"
        if not self.user:
            yield Loosening(
                f"{self.group} -> the user", name, {"user": True}, "approvers", pin="asks.user"
            )
            yield Loosening(
                "another", name, {"group": "everybody"}, "approvers.group", pin="asks.group"
            )
            yield Loosening(
                f"{self.count} -> {self.count - 1}",
                name,
                {"count": self.count - 1},
                "approvers.count",
                pin="asks.count",
            )
        longer = self.timeout + 1
        words = f"{self.timeout}s -> {longer}s"
        yield Loosening(words, name, {"timeout": longer}, "timeout", pin="asks.timeout")
        if self.exclude:
            yield Loosening("dropped", name, {"exclude": ()}, "approvers.not", pin="asks.not")
        for shown in self.show:
            rest = tuple(each for each in self.show if each != shown)
            yield Loosening(f"{shown} dropped", name, {"show": rest}, "show", pin="asks.show")


@value_class
class Upstream:
    """The real credential's broker and its declared settings (`role`, `narrower_than`, ...).

    Attributes:
        role_scopes: what `role` may do, where roles.yaml knows it; empty: the broker has to say
            it.
        bound: what the role named by `narrower_than` may do; empty: none is named.
    """

    line: int = field(compare=False)
    broker: str
    settings: Mapping[str, str | int | tuple[str, ...]]
    role_scopes: frozenset[str] = frozenset()
    bound: frozenset[str] = frozenset()

    @property
    def granted(self) -> dict[str, Any]:
        """What a case can state of it, by the keys of the file."""
        return {"broker": self.broker} | {
            key: f"{value}s"
            if key == "duration"
            else list(value)
            if type(value) is tuple
            else value
            for key, value in self.settings.items()
        }

    def loosened(self, tool: str) -> Iterator[Loosening]:
        """Without it, and without each of its settings; `tool`: whose it is."""
        name = f"no broker for {tool}"
        yield Loosening("dropped", name, {}, "broker", ("Upstream", "broker"))
        name = f"the credential of {tool}"
        for key in self.settings:
            rest = {other: value for other, value in self.settings.items() if other != key}
            yield Loosening("dropped", name, {"settings": rest}, key, pin="grants.upstream")


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
        unreferenced: it reads, and no call needs one of its calls, or a value of theirs.
        structures: which arguments are structures, derived from `args`.
        dependencies: what its calls need of earlier calls, by tool; arguments with `any_call`
            aside.
        asking: arguments that need an intent of their own.
        grounded: arguments in which every email, URL, IBAN and phone number needs an origin.
        result_paths: what is read from its results: its facts and, with a `page_size`, the
            length of their list.
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
    unreferenced: bool = False
    structures: Structures = field(init=False, compare=False, repr=False)
    dependencies: tuple[Dependency, ...] = field(
        default=(), init=False, compare=False, repr=False
    )
    asking: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    grounded: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    result_paths: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
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
                (name, sources)
                for name, own in calls.items()
                for called, sources in own
                if called == tool
            )
            bounded = tuple(name for name, called in bounds.items() if called == tool)
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
        paths = {name: fact.path for name, fact in self.facts.items()}
        if any(rule.page_size for rule in self.args.values()):
            listed = counted(paths.values())
            if listed is not None:
                paths[PAGE] = listed
        set_derived(
            self,
            result_paths=paths,
            structures=structures(self.args),
            dependencies=tuple(dependencies),
            asking=tuple(name for name, rule in self.args.items() if rule.needs),
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
    pins: ClassVar[tuple[str, ...]] = ("ttl", "bound_to")
    orders: ClassVar[tuple[Order, ...]] = (
        Order("ttl", "a token would live longer", "a token would live less long"),
        Order(
            "agent_key",
            "a token would serve whoever holds it",
            "a token would serve its agent only",
            "less",
            "bound_to",
            texts={"True": "call, agent_key", "False": "call"},
        ),
    )

    def granted(self, tool: Tool) -> dict[str, Any]:
        """What a case can state of the token of a tool: `pins`, as the file writes them."""
        bound = self.agent_key and (tool.effect != "read" or tool.redeem == "server")
        keys = ["call", "agent_key"] if bound else ["call"]
        return {"ttl": f"{self.ttl}s", "bound_to": keys}

    def join(self, other: TokenRule) -> TokenRule:
        """The stricter of both."""
        return TokenRule(min(self.ttl, other.ttl), self.agent_key or other.agent_key)

    @property
    def words(self) -> str:
        """What it says, for a reader."""
        bound = ", only for the agent's key (of a read: where a server redeems it)"
        return f"lives {duration(self.ttl)}" + (bound if self.agent_key else "")

    def loosened(self) -> Iterator[Loosening]:
        """The smallest loosenings."""
        longer = self.ttl + 1
        yield Loosening(
            f"{self.ttl}s -> {longer}s",
            f"a token lives {self.ttl} s",
            {"ttl": longer},
            "ttl",
            pin="grants.ttl",
        )
        if self.agent_key:
            yield Loosening(
                "agent_key dropped",
                "a token is bound to the agent's key",
                {"agent_key": False},
                "bound_to",
                pin="grants.bound_to",
            )


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

    @property
    def brokers(self) -> frozenset[str]:
        """Those of the upstream credentials of all tools."""
        return frozenset(t.upstream.broker for t in self.tools.values() if t.upstream)


# --- pages ------------------------------------------------------------------------------------
# names that tools give to the most rows of one call, in lower case, without `_` and `-`
_NAMES = frozenset(
    "n k limit top topk first take count max maxresults maxitems maxcount maxrows numresults "
    "pagesize perpage pagelimit rowlimit".split()
)


def is_size(rule: Rule) -> bool:
    """Whether an argument's name and type say that it is a page's size."""
    return rule.type == "integer" and rule.max_items is None and sized(rule.name)


def sized(name: str) -> bool:
    """Whether a name says that it is a page's size."""
    return re.sub("[_-]", "", name).lower() in _NAMES


def counted(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The list whose elements are the rows, by the paths of a tool's facts; None: no list, or a
    row may be less or more than an element.
    """
    lists = {path[: len(path) - path[::-1].index(EACH) - 1] for path in paths if EACH in path}
    return (
        next(iter(lists))
        if len(lists) == 1 and not any({EACH, NUMBERS} & set(each) for each in lists)
        else None
    )


def short(rows: tuple[Mapping[str, Any], ...], size: Any) -> bool:
    """Whether a call returned fewer elements than its size, so that the size left none out."""
    count = rows[-1].get(PAGE) if rows else None
    return type(count) is int and type(size) is int and 0 <= count < size
