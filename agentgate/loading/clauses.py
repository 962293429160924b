"""The blocks that constrain tools from outside: order, amounts, people, the token, the upstream
credential.

Rules: every name refers to a declared tool or argument; what is summed is always sent and never
negative, so that no call slips past a limit; a person is shown every argument unless the rule
says which.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from agentgate.loading.blocks import (
    ApproversBlock,
    ArgumentBlock,
    LeftOpenBlock,
    LimitBlock,
    StepUpBlock,
    TokenBlock,
)
from agentgate.loading.rules import condition
from agentgate.loading.site import Place, Site, argument_type
from agentgate.loading.yaml_nodes import shown
from agentgate.values.entities import NUMERIC
from agentgate.workflow.model import ANY, Limit, Sequence, StepUpRule, TokenRule, Upstream
from agentgate.workflow.rule import CONFIRMED

MAX_TTL = 300  # seconds; verifiers accept no longer life
MAX_TIMEOUT = 7 * 86400  # seconds
MONEY_PLACES = 4  # sums are kept in units of 10^-4


def sequence(site: Site) -> dict[str, tuple[Sequence, ...]]:
    """What must come before which tool, by the later tool."""
    by_tool: dict[str, tuple[Sequence, ...]] = {}
    for index, block in enumerate(site.definition.sequence or ()):
        at = site.root["sequence", index]
        both = [
            site.declared(block.before, at["before"]),
            site.declared(block.require, at["require"]),
        ]
        if block.before == block.require:
            at["require"].report(
                f"{block.require} before itself", "another tool (it could never be first)"
            )
        elif all(both):
            order = site.built(Sequence, line=at.line, **block.stated_fields(Sequence))
            by_tool[block.before] = (*by_tool.get(block.before, ()), order)
    return by_tool


def limits(site: Site) -> dict[str, tuple[Limit, ...]]:
    """The limits of each tool (`ANY`: of all tools)."""
    by_tool: dict[str, tuple[Limit, ...]] = {}
    counters: dict[tuple[object, ...], Limit] = {}
    for index, block in enumerate(site.definition.limits or ()):
        at = site.root["limits", index]
        limit = _limit(site, block, at)
        if limit:
            # an argument of this name would be the calls' counter
            named = limit if limit.argument else replace(limit, argument="count")
            counter = named.counter
            if counter in counters:
                _shared(limit, counters[counter], at)
            counters.setdefault(counter, limit)
            by_tool[limit.tool] = (*by_tool.get(limit.tool, ()), limit)
    return by_tool


def _shared(limit: Limit, first: Limit, at: Place) -> None:
    """Report a second limit on one counter: a call takes from a counter once. A count is kept
    as the sum of an argument `count` is.
    """
    if limit.argument == first.argument:
        expected = "one limit for it (the lower max), or another per or every"
    else:
        expected = (
            "another per or every for one of them, or another name for the argument "
            "count (both are kept in one counter)"
        )
    at.report_key(
        f"a second limit of {limit.tool}.{limit.argument or 'count'} per {limit.per} (first "
        f"on line {first.line})",
        expected,
    )


def _limit(site: Site, block: LimitBlock, at: Place) -> Limit | None:
    most = block.max
    if (block.count is None) == (block.sum is None):
        at.report(
            "count and sum" if block.count else "neither count nor sum",
            "exactly one of count, sum",
        )
        return None
    if block.per == "turn" and block.every is not None:
        at["every"].report_key(
            "every beside per: turn", "one of them (a turn ends when the user speaks again)"
        )
    name = ""
    if tool := block.count:
        if most % 1 or not 1 <= most <= 10**9:
            at["max"].report(str(most), "a whole number from 1")
        if tool != ANY and not site.declared(tool, at["count"]):
            return None
    else:
        text = block.sum or ""
        tool, name = site.split(text)
        most = most.scaleb(MONEY_PLACES)
        if most % 1 or not 0 < block.max < 10**11:
            at["max"].report(
                str(block.max),
                f"more than 0, at most {MONEY_PLACES} decimals, below 10^11 (kept exactly)",
            )
        argument = site.tools[tool].args.get(name) if tool else None
        if not argument:
            at["sum"].unknown(
                text,
                "tool.argument",
                [f"{t}.{a}" for t, b in site.tools.items() for a in b.args],
            )
            return None
        _summed(block, text, name, argument, at)
    more = block.stated_fields(Limit)
    return site.built(Limit, at.line, tool, name, int(most), **more)


def _summed(
    block: LimitBlock, text: str, name: str, argument: ArgumentBlock, at: Place
) -> None:
    """An argument that a limit sums is a number that every call sends and none makes
    smaller.
    """
    kind = argument_type(argument)
    here = at["sum"]
    if kind not in NUMERIC:
        here.report(f"{text}, a {kind}", "an argument of type money, number or integer")
    elif kind == "money" and argument.currency is None:
        here.report(
            f"{text} without a currency",
            f"currency: on the argument {name} (money is never summed without)",
        )
    elif argument.optional:
        here.report(
            f"{text}, which is optional",
            "an argument that is always sent (left out, it would slip past the limit)",
        )
    elif argument.min is None or argument.min < 0:
        here.report(
            f"{text}, which may be negative",
            "an argument with min of at least 0 (a negative amount would give back)",
        )
    elif block.max < argument.min:
        at["max"].report(
            str(block.max),
            f"at least the argument's min {argument.min} (nothing would ever fit)",
        )


def step_ups(site: Site) -> dict[str, tuple[StepUpRule, ...]]:
    """The step-up rules of each tool."""
    by_tool: dict[str, tuple[StepUpRule, ...]] = {}
    lines: dict[str, int] = {}
    for index, block in enumerate(site.definition.step_up or ()):
        at = site.root["step_up", index]
        if block.id in lines:
            at["id"].report(
                shown(block.id), f"an id of its own (first on line {lines[block.id]})"
            )
        lines.setdefault(block.id, at.line)
        if block.timeout > MAX_TIMEOUT:
            at["timeout"].report(f"{block.timeout} s", f"at most {MAX_TIMEOUT // 86400}d")
        if site.declared(block.for_, at["for"]):
            by_tool[block.for_] = (*by_tool.get(block.for_, ()), _step_up(site, block, at))
    return by_tool


def _step_up(site: Site, block: StepUpBlock, at: Place) -> StepUpRule:
    args = site.tools[block.for_].args
    people = block.approvers
    stated_at = at["approvers"]
    if not people and site.definition.defaults:
        people = site.definition.defaults.approvers
        stated_at = site.root["defaults", "approvers"]
        _said_itself(site, block, people, at)
    if not people:
        at.report_key(
            "no approvers", "approvers: on the rule, or in defaults for all rules of the file"
        )
        people = ApproversBlock.model_validate({})
    else:
        _approvers(site, people, stated_at)
    for index, name in enumerate(block.show or ()):
        if name not in args:
            at["show", index].unknown(name, f"an argument of {block.for_}", args)
    for index, name in enumerate(block.endorses or ()):
        if name not in args or CONFIRMED.kind not in (args[name].from_ or ()):
            at["endorses", index].report(
                shown(name), f"an argument of {block.for_} whose from lists confirmed"
            )
    if block.endorses and people.user:
        at["endorses"].report_key(
            "endorses beside user", "no endorses (the user's own yes names what it is about)"
        )
    when = []
    left_open = []
    for name, each in (block.when or {}).items():
        here = at["when", name]
        if isinstance(each, LeftOpenBlock):
            left_open.append(_left_open_of(site, block.for_, each.of, name, here))
        elif (rule := condition(site, block.for_, name, each, here)) is not None:
            when.append(rule)
    stated: dict[str, Any] = {"group": "", "count": 1, "show": tuple(args)}
    stated |= people.stated_fields(StepUpRule) | block.stated_fields(StepUpRule)
    return site.built(
        StepUpRule,
        line=at.line,
        tool=block.for_,
        when=tuple(when),
        exclude=() if people.user else ("requester",),  # the only value that `not` takes
        left_open=tuple(left_open),
        **stated,
    )


def _left_open_of(
    site: Site, tool: str, of: Literal["intent", "origin"], name: str, at: Place
) -> Literal["intent", "origin"]:
    """``intent: unclear`` and ``origin: unknown``, each under its own key, of a tool whose
    calls can leave that open.
    """
    args = site.tools[tool].args.values()
    intents = site.definition.intents
    word = "unclear" if of == "intent" else "unknown"
    needs = (*site.tools[tool].needs, *(need for arg in args for need in arg.needs or ()))
    answers = (
        [intents[need].left_open for need in needs if need in intents]
        if of == "intent"
        else [arg.unknown_origin for arg in args]
    )
    if set(answers) <= {None, "deny"}:
        key = "unclear" if of == "intent" else "unknown_origin"
        at.report(
            word,
            f"{key}: confirm or step_up, of an {of} of {tool} (otherwise it is refused and "
            "nobody is asked)",
        )
    if name != of:
        at.report(
            word,
            f"{of}: {word}, or a mapping: the conditions on {name} (origin: unknown inside "
            f"it is about {name} alone)",
        )
    return of


def _said_itself(site: Site, block: StepUpBlock, people: ApproversBlock, at: Place) -> None:
    """The user's own yes is enough for what cannot be undone, and where risk is high, only
    where the rule itself says so.
    """
    grave = (
        "a destructive tool" if site.tools[block.for_].effect == "destructive" else "risk: high"
    )
    if people.user and (site.definition.risk == "high" or grave != "risk: high"):
        at.report_key(
            "user: true from defaults",
            f"approvers: {{user: true}} on the rule itself ({grave}), or a group",
        )


def _approvers(site: Site, people: ApproversBlock, at: Place) -> None:
    """Who answers: the members of a group, or the run's own user alone."""
    if (people.group is None) == (not people.user):
        at.report_key(
            "no approvers" if people.group is None else "group and user",
            "exactly one of group, user: true",
        )
    elif people.user:
        for key, stated in (("count", people.count), ("not", people.not_)):
            if stated:
                at[key].report_key(
                    f"{key} beside user", f"no {key} (the run's own user answers, nobody else)"
                )
        if not site.definition.who.for_user:
            at["user"].report(
                "true", "a group (nobody stands behind this agent: no who.for_user)"
            )


def token(site: Site) -> TokenRule:
    """How long a token lives and what it is bound to."""
    block = site.definition.token or TokenBlock()
    at = site.root["token"]
    if block.ttl > MAX_TTL:
        at["ttl"].report(
            f"{block.ttl} s", f"at most {MAX_TTL}s (verifiers accept no longer life)"
        )
    if "call" not in block.bound_to:
        at["bound_to"].report(
            shown(", ".join(block.bound_to)),
            "call, and agent_key if wanted (every token is bound to its call)",
        )
    bound = "agent_key" in block.bound_to
    return site.built(TokenRule, agent_key=bound, **block.stated_fields(TokenRule))


def upstream(site: Site) -> dict[str, Upstream]:
    """The upstream credential of each tool."""
    by_tool = {}
    for name, block in (site.definition.upstream or {}).items():
        at = site.root["upstream", name]
        settings = block.stated_fields()
        broker = settings.pop("broker")
        known = site.roles.get(block.role or "", frozenset[str]())
        bound = frozenset[str]()
        if site.declared(name, at, key=True) and block.narrower_than:
            bound = _narrower(site, name, block.narrower_than, at["narrower_than"])
            if known and bound and not known < bound:
                at["role"].report(
                    f"role {block.role}: {', '.join(sorted(known))}",
                    _strictly(block.narrower_than, bound),
                )
        by_tool[name] = site.built(
            Upstream,
            at.line,
            site.share(broker),
            site.share.mapping(settings),
            known,
            bound,
        )
    return by_tool


def _narrower(site: Site, tool: str, role: str, at: Place) -> frozenset[str]:
    """`narrower_than`: the tool's scopes are a strict subset of the role's, which are
    returned.
    """
    scopes = site.role(role, at)
    scope = frozenset(site.tools[tool].scope or ())
    if scopes is not None and (not scope or not scope < scopes):
        at.report(f"scope {', '.join(sorted(scope)) or 'none'}", _strictly(role, scopes))
    return scopes or frozenset()


def _strictly(role: str, scopes: frozenset[str]) -> str:
    return f"a strict subset of role {role}: {', '.join(sorted(scopes))}"
