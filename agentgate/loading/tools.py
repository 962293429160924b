"""The tools of a file, and the checks across the blocks of one tool or across tools: needs,
references, and what waits for what.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.decision.origins.kinds import kind_of
from agentgate.loading import clauses
from agentgate.loading.blocks import ToolBlock
from agentgate.loading.facts import compiled_fact
from agentgate.loading.rules import argument_rule
from agentgate.loading.site import Place, Site, argument_type
from agentgate.values.entities import TOKENISED
from agentgate.values.paths import EACH
from agentgate.workflow.left_open import answers, causes
from agentgate.workflow.model import ANY, NONE, PLACEHOLDER, Sequence, Tool, list_of
from agentgate.workflow.rule import REMEMBERED, Rule, Source

MAX_REMEMBERED = 365 * 86400  # seconds
Rules = Mapping[str, Mapping[str, Rule]]


def tools(site: Site) -> Mapping[str, Tool]:
    """Every tool by its name."""
    blocks = site.tools
    share = site.share
    places = {name: site.root["tools", name] for name in blocks}
    rules = {
        name: {
            arg: argument_rule(site, name, arg, rule, places[name]["args", arg])
            for arg, rule in block.args.items()
        }
        for name, block in blocks.items()
    }
    facts = {
        name: {
            each: compiled_fact(site, name, each, fact, places[name]["facts", each])
            for each, fact in site.facts(name).items()
        }
        for name in blocks
    }
    sequence = clauses.sequence(site)
    limits = clauses.limits(site)
    step_ups = clauses.step_ups(site)
    upstream = clauses.upstream(site)
    for name in blocks:
        _check_tool(site, name, rules[name], places[name])
    _reachable(site, rules, sequence)
    required = {order.require for orders in sequence.values() for order in orders}
    compiled = {}
    for name, block in blocks.items():
        compiled[share(name)] = share.built(
            Tool,
            share(name),
            places[name].line,
            block.effect,
            share(tuple(block.needs)),
            share(block.audience or ""),
            share(tuple(block.scope or ())),
            share(block.definition or ""),
            block.redeem,
            share.mapping(rules[name]),
            share.mapping(facts[name]),
            share(sequence.get(name, ())),
            share((*limits.get(name, ()), *limits.get(ANY, ()))),
            share(step_ups.get(name, ())),
            upstream.get(name),
            share(frozenset(site.used.get(name, ())) & frozenset(block.args)),
            share(block.title or ""),
            share.mapping(
                dict.fromkeys(block.remember.arg, block.remember.for_) if block.remember else {}
            ),
            block.effect == "read" and name not in site.used and name not in required,
        )
        _answered(site, compiled[name], places[name])
    return share.mapping(compiled)


def _check_tool(site: Site, name: str, rules: Mapping[str, Rule], at: Place) -> None:
    """Report what one tool's block gets wrong."""
    block = site.tools[name]
    if name == ANY:
        at.report_key(ANY, "another name (any means all tools in limits)")
    _needs(site, block, at)
    _titled(block, at)
    _remembered(name, block, at)
    _complete(block, at)
    _origins_stated(site, name, block, at)
    _trusted(site, name, block, rules, at)
    _levels(rules, at)
    if not site.definition.who.for_user:
        _without_user(site, block, at)


def _needs(site: Site, block: ToolBlock, at: Place) -> None:
    """`needs` of a tool and of its arguments: intents of the workflow's vocabulary, or `any` or
    `none`.
    """
    intents = site.definition.intents

    def undeclared(need: str, place: Place, consequence: str) -> None:
        expected = (
            f"a declared intent: {', '.join(intents)}"
            if intents
            else "none (this workflow has no intents)"
        )
        place.unknown(need, f"{expected} ({consequence})", intents)

    for index, need in enumerate(block.needs):
        here = at["needs"].element(index)
        if need in {ANY, NONE} and len(block.needs) > 1:
            here.report(f"{need} in a list", f"{need} alone, or intents")
        elif need == ANY and block.effect != "read":
            here.report(
                f"any on a {block.effect} tool", "the intents it needs (only reads may say any)"
            )
        elif need == NONE and intents:
            here.report(
                "none", "declared intents (none is for a workflow whose intents say none)"
            )
        elif need not in {ANY, NONE, *intents}:
            undeclared(need, here, "the tool could never be reached")
    for argument, rule in block.args.items():
        for index, need in enumerate(rule.needs or ()):
            if need not in intents:
                undeclared(
                    need,
                    at["args", argument, "needs", index],
                    "the argument could never be sent",
                )


def _titled(block: ToolBlock, at: Place) -> None:
    """Every name in braces of a tool's `title` is an argument, or a person would read a
    sentence with a hole in it.
    """
    text = block.title or ""
    unknown = [name for name in PLACEHOLDER.findall(text) if name not in block.args]
    if unknown or set(PLACEHOLDER.sub("", text)) & {"{", "}"}:
        at["title"].report(
            ", ".join(unknown) or "a brace",
            f"the names of arguments, each in braces: {', '.join(block.args)}",
        )


def _remembered(name: str, block: ToolBlock, at: Place) -> None:
    """`remember` names arguments that list `remembered` (`agentgate.loading.rules` looks at
    those that do).
    """
    for index, arg in enumerate(block.remember.arg if block.remember else ()):
        if arg not in block.args or REMEMBERED.kind not in (block.args[arg].from_ or ()):
            at["remember", "arg"].element(index).unknown(
                arg, f"an argument of {name} whose from lists remembered", block.args
            )
    if block.remember and block.remember.for_ > MAX_REMEMBERED:
        at["remember", "for"].report(
            f"{block.remember.for_} s", f"at most {MAX_REMEMBERED // 86400}d"
        )


def _complete(block: ToolBlock, at: Place) -> None:
    """What a tool that its server redeems says of that server."""
    missing = [
        key for key in ("audience", "scope", "definition") if getattr(block, key) is None
    ]
    if block.redeem == "server" and missing:
        at.report_key(
            f"redeem: server without {', '.join(missing)}",
            "audience, scope and definition (a server is named and pinned)",
        )


def _answered(site: Site, tool: Tool, at: Place) -> None:
    """Whatever a call can leave open is answered by a rule that asks whenever it is, and is
    strict enough.
    """
    unclear = {name: intent.left_open for name, intent in site.definition.intents.items()}
    left = [
        cause
        for cause in causes(tool, unclear)
        if not any(answers(rule, cause, by_when=tool.by_when) for rule in tool.step_ups)
    ]
    for answer, what, whom in (
        ("step_up", "a step-up", "a group"),
        ("confirm", "a confirm", "user: true, or a group"),
    ):
        open_ = [cause for cause in left if cause.answer == answer]
        if open_:
            words = " and ".join(
                dict.fromkeys(
                    f"{c.kind}: {'unclear' if c.kind == 'intent' else 'unknown'}" for c in open_
                )
            )
            then = (
                f"always, or when: {{{words}}}"
                if tool.by_when or answer == "confirm"
                else "also with a when"
            )
            expected = (
                f"a step_up rule for {tool.name} that asks then ({then}) for approvers: {whom}"
            )
            at.report_key(
                f"{what} ({', '.join(dict.fromkeys(map(str, open_)))}) that nobody answers",
                expected,
            )


def _origins_stated(site: Site, name: str, block: ToolBlock, at: Place) -> None:
    """Where the values of a tool that acts, or that others refer to, may come from must be
    stated.
    """
    if block.effect == "read" and name not in site.used:
        return
    why = (
        f"a {block.effect} tool"
        if block.effect != "read"
        else "a read that other calls refer to: who chooses it steers them"
    )
    for argument, rule in block.args.items():
        if not rule.from_:
            at["args", argument].report_key(
                "no from", f"from: where the value may come from ({why})"
            )


def _levels(rules: Mapping[str, Rule], at: Place) -> None:
    """One element of a list takes what it takes of a tool's rows from one row: no element and
    list inside it, or two lists inside it.
    """
    first: dict[tuple[str, str], str] = {}
    for name, rule in rules.items():
        if EACH in name and not rule.any_call:
            outermost = name[: name.index(EACH)]
            for tool in dict.fromkeys(
                [source.tool for source in rule.references if kind_of(source).of_row]
            ):
                other = first.setdefault((outermost, tool), name)
                if list_of(other) != list_of(name):
                    expected = (
                        "origins of another tool, or any_call: true, on one of them "
                        "(no row could hold a whole element)"
                    )
                    at["args", name].report_key(
                        f"rows of {tool} for {name}, and for {other} at another depth", expected
                    )


def _trusted(
    site: Site, name: str, block: ToolBlock, rules: Mapping[str, Rule], at: Place
) -> None:
    """`trust: named` counts only when every argument came from the prompt, or from a fact that
    counts as the user's own words.
    """

    def carries(source: Source) -> bool:
        fact = site.fact(source)
        return (
            fact is not None
            and (fact.trust is not None or bool(fact.named_by))
            and site.tools[source.tool].effect == "read"
        )

    named = [fact for fact, stated in site.facts(name).items() if stated.trust]
    outside = [
        argument
        for argument, rule in (block.args.items() if named else ())
        if not rule.optional
        and (
            argument_type(rule) not in TOKENISED or (rule.from_ and "prompt" not in rule.from_)
        )
        if not any(map(carries, rules[argument].sources))
    ]
    for fact in named if outside else ():
        at["facts", fact, "trust"].report(
            f"named, with argument {outside[0]} not from the prompt",
            "from: [prompt] on every argument, or a fact with named_by or trust: named "
            "(otherwise it never counts)",
        )


def _without_user(site: Site, block: ToolBlock, at: Place) -> None:
    """Without a user, no user's id is an origin; without intents as well, no prompt is one
    either.
    """
    never = {"user": "nobody stands behind this agent: no who.for_user"}
    if not site.definition.intents:
        never["prompt"] = never["computed"] = "nobody speaks here; model is the calling job"
    for argument, rule in block.args.items():
        for key, texts in (("from", rule.from_), ("entities", rule.entities)):
            for index, text in enumerate(texts or ()):
                if text in never:
                    at["args", argument, key, index].report(
                        text, f"an origin that can hold ({never[text]})"
                    )


def _reachable(site: Site, rules: Rules, sequence: Mapping[str, tuple[Sequence, ...]]) -> None:
    """Least fixpoint: a tool is reachable once all it waits for is; what is left waits for
    itself.
    """
    left = dict.fromkeys(rules)
    reached = set()

    def waits(name: str) -> str:
        for order in sequence.get(name, ()):
            if order.require not in reached:
                return f"requires {order.require}"
        for rule in rules[name].values():
            if rule.optional:
                continue
            if rule.at_most and rule.at_most.tool not in reached:
                return f"args.{rule.name} at most {rule.at_most}"
            if (
                rule.sources
                and rule.unknown_origin == "deny"
                and not any(not s.tool or s.tool in reached for s in rule.sources)
            ):
                return f"args.{rule.name} from {rule.sources[0]}"
        return ""

    while ready := [name for name in left if not waits(name)]:
        reached |= set(ready)
        left = {name: None for name in left if name not in reached}
    for name in left:
        site.root["tools", name].report_key(
            f"a tool that can never be reached ({waits(name)})", "calls that can come first"
        )
