"""From the blocks of a file to the frozen `Workflow`, with every finding that needs more than
one place of the file.

Rules: each function reads one block, reports all that is wrong with it, and returns its value;
nothing stops at the first finding. A rule that can only ever refuse (an origin that nothing
produces, a tool that nothing can reach, a limit that skips) is an error here, because a
reviewer would read it as a permission.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_network
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentgate.loading import clauses
from agentgate.loading.blocks import AgentBlock, Block, ConditionsBlock, HoursBlock, OidcBlock
from agentgate.loading.site import Place, Site
from agentgate.loading.tools import tools
from agentgate.loading.value_types import DAYS
from agentgate.loading.yaml_nodes import shown
from agentgate.workflow.clauses.conditions import Conditions, Hours, parsed_address
from agentgate.workflow.clauses.who import AgentRule, ClaimRule, UserRule, ViaRule
from agentgate.workflow.model import ANY, ARTICLES, NAMED, PLACES, Intent, Tool, Workflow

_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")  # of a name: "deleteTicket", "orders.cancel"
_TIMES = frozenset("date time day when due start deadline schedule".split())


def compiled(site: Site, digest: str) -> Workflow:
    """The workflow of one file; good only if the document has no problems afterwards."""
    share = site.share
    d = site.definition
    made = tools(site)
    return Workflow(
        id=d.id,
        version=d.version,
        title=share(d.title),
        owners=share(tuple(map(share, d.owners))),
        risk=d.risk,
        expires=share(d.expires),
        tenants=share(tuple(map(share, d.tenants))),
        agent=_agent(site, d.who.agent),
        for_user=_user(site),
        via=_via(site),
        intents=_intents(site, made),
        conditions=_conditions(site, d.conditions) if d.conditions else site.built(Conditions),
        tools=made,
        token=clauses.token(site),
        digest=digest,
        file=site.root.document.file,
        observe=d.mode == "observe",
        tenants_line=site.root["tenants"].line,
        expires_line=site.root["expires"].line,
    )


# --- who --------------------------------------------------------------------------------------


def _check_stated(block: Block, at: Place) -> None:
    if not block.model_fields_set:
        at.report_key(
            "an empty block", f"at least one of {', '.join(type(block).model_fields)}"
        )


def _agent(site: Site, block: AgentBlock) -> AgentRule:
    at = site.root["who", "agent"]
    oidc = block.oidc
    ways = [
        name for name in ("in_process", "spiffe", "oidc") if getattr(block, name) is not None
    ]
    if len(ways) != 1:
        at.report_key(
            " and ".join(ways) or "no identity", "exactly one of in_process, spiffe, oidc"
        )
    parts = block.stated_fields(AgentRule)
    for name, part in (("posture", block.posture), ("boundary", block.boundary)):
        if part:
            parts |= part.stated_fields(AgentRule)
            _check_stated(part, at[name])
            if block.in_process:
                at[name].report_key(
                    f"{name} beside in_process",
                    "a proven identity (an agent in process proves nothing)",
                )
    if oidc:
        parts |= {
            "oidc_issuer": oidc.issuer,
            "claims": _claims(site, oidc, at["oidc", "claims"]),
        }
    return site.built(AgentRule, at.line, **parts)


def _claims(site: Site, block: OidcBlock, at: Place) -> tuple[ClaimRule, ...]:
    rules = []
    for name, claim in block.claims.items():
        if (claim.is_ is None) == (claim.in_ is None):
            at[name].report_key(
                "an empty rule" if claim.is_ is None else "is and in", "exactly one of is, in"
            )
        rules.append(
            site.built(ClaimRule, name, at[name].line, tuple(claim.in_ or (claim.is_ or "",)))
        )
    return tuple(rules)


def _user(site: Site) -> UserRule | None:
    block = site.definition.who.for_user
    at = site.root["who", "for_user"]
    if not block:
        return None
    _check_stated(block, at)
    return site.built(UserRule, at.line, **block.stated_fields(UserRule))


def _via(site: Site) -> ViaRule | None:
    block = site.definition.who.via
    at = site.root["who", "via"]
    if not block:
        return None
    if (block.min_hops or 0) > block.max_hops:
        at["min_hops"].report(
            str(block.min_hops), f"at most max_hops, {block.max_hops} (no call has both)"
        )
    return site.built(ViaRule, at.line, **block.stated_fields(ViaRule))


# --- what was asked, when, where --------------------------------------------------------------


def _intents(site: Site, all_tools: Mapping[str, Tool]) -> Mapping[str, Intent]:
    intents = {}
    for name, block in site.definition.intents.items():
        at = site.root["intents", name]
        if name == ANY:
            at.report_key(ANY, "another name (any is reserved for needs)")
        words = tuple(block.words or ())
        reader = block.unclear == "reader" or block.words is None
        if reader and any(tool.effect == "destructive" for tool in _needing(all_tools, name)):
            got = "no words" if not block.words else "unclear: reader"
            at.report_key(
                f"{got}, for a destructive tool",
                "words, and unclear: deny, confirm or step_up (no model reads what destroys)",
            )
        for index, phrase in enumerate(words):
            content = [
                word
                for word in phrase.lower().removeprefix("^").split()
                if word not in ARTICLES
            ]
            if content and content[0] in PLACES:  # it would have to be looked for everywhere
                at["words", index].report(
                    shown(phrase), "a phrase that begins with a word (let someone know)"
                )
        examples = tuple(block.examples)
        counter = tuple(block.counter_examples or ())
        if set(examples) & set(counter):
            at["counter_examples"].report_key(
                shown(min(set(examples) & set(counter))),
                "a sentence that is not also an example",
            )
        for key, answer, request in (
            ("delegated", block.delegated, "a delegated request"),
            ("unheard", block.unheard, "what was not understood"),
        ):
            if answer in {"confirm", "step_up"} and block.left_open != answer:
                at[key].report_key(
                    f"{answer} beside unclear: {block.unclear}",
                    f"unclear: {answer} ({request} is unclear)",
                )
        fields = (
            name,
            at.line,
            block.asks_for,
            words,
            block.left_open,
            examples,
            counter,
            block.delegated,
            block.unheard,
        )
        intents[site.share(name)] = site.built(
            Intent, *fields, _objects(all_tools, name), reader, _timed(all_tools, name)
        )
    return site.share.mapping(intents)


def _needing(all_tools: Mapping[str, Tool], intent: str) -> list[Tool]:
    return [tool for tool in all_tools.values() if intent in tool.every_need]


def _timed(all_tools: Mapping[str, Tool], intent: str) -> bool:
    """Whether an argument of the tools takes a day or a time."""
    rules = [rule for tool in _needing(all_tools, intent) for rule in tool.args.values()]
    return not rules or any(
        rule.type in {"date", "datetime"}
        or not _TIMES.isdisjoint(_WORD.findall(rule.name.lower()))
        for rule in rules
    )


def _objects(all_tools: Mapping[str, Tool], intent: str) -> frozenset[str] | None:
    """What the tools act on, where they destroy something or change what an id names; `NAMED`:
    origins hold a call to what was named.
    """
    needing = _needing(all_tools, intent)
    rules = [rule for tool in needing for rule in tool.args.values()]
    effects = {tool.effect for tool in needing}
    if "destructive" not in effects and not (
        "write" in effects and any(rule.type in {"id", "user"} for rule in rules)
    ):
        return None
    sources = [source for rule in rules for source in rule.sources]
    named = any(
        rule.type == "text" and not rule.free and rule.pattern is None for rule in rules
    ) or any(
        source.selector
        or (
            source.tool in all_tools
            and (fact := all_tools[source.tool].facts.get(source.field))
            and fact.named_by
        )
        for source in sources
    )
    nouns = [
        intent,
        *[tool.name for tool in needing],
        *[rule.name for rule in rules if rule.type != "text"],
    ]
    words = {word.lower() for name in nouns for word in _WORD.findall(name)}
    return frozenset(
        words
        | {f"<{rule.type}>" for rule in rules if rule.type != "text"}
        | ({NAMED} if named else set())
    )


def _conditions(site: Site, block: ConditionsBlock) -> Conditions:
    at = site.root["conditions"]
    _check_stated(block, at)
    for index, network in enumerate(block.network or ()):
        if not _is_network(network):
            at["network", index].report(
                shown(network),
                "a CIDR block without host bits, such as 10.20.0.0/16, or a zone name",
            )
    hours = _hours(site, block.hours, at["hours"]) if block.hours else None
    return site.built(Conditions, at.line, hours=hours, **block.stated_fields(Conditions))


def _is_network(text: str) -> bool:
    """A zone's name, or what looks like an address and is a block of them."""
    name = "/" not in text and ":" not in text and not text.replace(".", "").isdigit()
    return name or parsed_address(ip_network, text) is not None


def _hours(site: Site, block: HoursBlock, at: Place) -> Hours:
    if not _zone_exists(block.zone):
        at["zone"].report(shown(block.zone), "an IANA time zone such as Europe/Berlin, or UTC")
    if block.from_ in {block.to, 24 * 60}:
        at["from"].report(
            "an empty or ambiguous window", 'a start before "24:00" that is not the end'
        )
    return site.built(
        Hours,
        at.line,
        frozenset(map(DAYS.index, block.days)),
        block.from_,
        block.to,
        block.zone,
    )


@lru_cache(maxsize=1024)
def _zone_exists(name: str) -> bool:
    try:
        ZoneInfo(name)
    # absent, a path outside the data, a directory
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return "/" in name or name == "UTC"
