"""From the blocks of a file to the frozen `Workflow`, with every finding that needs more than one place of the file.

Rules: each function reads one block, reports all that is wrong with it, and returns its value; nothing stops at the first
finding. What can be known to refuse for ever (an origin nobody produces, a tool nobody can reach, a limit that skips) is an
error here, because a reviewer reads it as a permission.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentgate.decision.origin_kinds import kind_of
from agentgate.loading.blocks import AgentBlock, Block, ConditionsBlock, Definition, ToolBlock
from agentgate.loading.clauses import Clauses
from agentgate.loading.references import argument_type
from agentgate.loading.rules import Site
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.values.entities import TOKENISED
from agentgate.workflow.model import (
    ANY,
    ARTICLES,
    NONE,
    PLACES,
    AgentRule,
    ClaimRule,
    Conditions,
    Hours,
    Intent,
    Sequence,
    StepUpRule,
    Tool,
    UserRule,
    ViaRule,
    Workflow,
)
from agentgate.workflow.rule import Fact, Rule, Source

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@lru_cache(maxsize=1024)
def _zone_exists(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # absent, a path outside the data, a directory
        return False
    return "/" in name or name == "UTC"


class Compiler:
    """Compiles one file. `site` knows the document, the tools and the roles; `share` makes equal values one object."""

    def __init__(self, document: Document, definition: Definition, roles: Mapping[str, frozenset[str]], share: Sharing) -> None:
        self.document, self.definition, self.share = document, definition, share
        self.machine = not definition.intents
        self.site = Site(document, definition.tools, roles, share)
        self.clauses = Clauses(definition, self.site)

    def workflow(self, digest: str) -> Workflow:
        """The workflow; good only if the document has no problems afterwards."""
        d, share = self.definition, self.share
        agent = self._agent(d.who.agent)
        user, via = self._user(), self._via()
        intents = self._intents()
        conditions = self._conditions(d.conditions) if d.conditions is not None else share(Conditions())
        tools = self._tools()
        return Workflow(
            id=d.id,
            version=d.version,
            title=share(d.title),
            owners=share(tuple(map(share, d.owners))),
            risk=d.risk,
            expires=share(d.expires),
            tenants=share(tuple(map(share, d.tenants))),
            agent=agent,
            for_user=user,
            via=via,
            intents=intents,
            conditions=conditions,
            tools=tools,
            token=self.clauses.token(),
            digest=digest,
            file=self.document.file,
            observe=d.mode == "observe",
            tenants_line=self.document.line(("tenants",)),
            expires_line=self.document.line(("expires",)),
        )

    # --- who -------------------------------------------------------------------------------------------------------------

    def _agent(self, block: AgentBlock) -> AgentRule:
        path: Path = ("who", "agent")
        report = self.document.report
        ways = [name for name in ("in_process", "spiffe", "oidc") if getattr(block, name) is not None]
        if len(ways) != 1:
            report(path, " and ".join(ways) or "no identity", "exactly one of in_process, spiffe, oidc", key=True)
        for name in ("posture", "boundary"):
            part: Block | None = getattr(block, name)
            if part is None:
                continue
            if not part.model_fields_set:
                report((*path, name), "an empty block", "at least one of " + ", ".join(type(part).model_fields), key=True)
            if block.in_process:
                report((*path, name), f"{name} beside in_process", "a proven identity (an agent in process proves nothing)", key=True)
        claims = []
        for name, claim in (block.oidc.claims if block.oidc is not None else {}).items():
            here: Path = (*path, "oidc", "claims", name)
            if (claim.is_ is None) == (claim.in_ is None):
                report(here, "is and in" if claim.is_ is not None else "an empty rule", "exactly one of is, in", key=True)
            claims.append(self.share(ClaimRule(name, self.document.line(here), tuple(claim.in_ or ()) or (claim.is_ or "",))))
        posture, boundary = block.posture, block.boundary
        return self.share(
            AgentRule(
                self.document.line(path),
                in_process=bool(block.in_process),
                spiffe=tuple(block.spiffe or ()),
                oidc_issuer=block.oidc.issuer if block.oidc is not None else "",
                claims=tuple(claims),
                image_signed_by=tuple((posture and posture.image_signed_by) or ()),
                attested_within=posture.attested_within if posture is not None else None,
                cluster=tuple((boundary and boundary.cluster) or ()),
                namespace=tuple((boundary and boundary.namespace) or ()),
                node_pool=tuple((boundary and boundary.node_pool) or ()),
                same_key_as_last_token=bool(boundary and boundary.same_key_as_last_token),
            )
        )

    def _user(self) -> UserRule | None:
        block, path = self.definition.who.for_user, ("who", "for_user")
        if block is None:
            return None
        if not block.model_fields_set:
            self.document.report(path, "an empty block", "groups, same_tenant: true, or both", key=True)
        return self.share(UserRule(self.document.line(path), tuple(block.groups or ()), bool(block.same_tenant)))

    def _via(self) -> ViaRule | None:
        block = self.definition.who.via
        return None if block is None else self.share(ViaRule(self.document.line(("who", "via")), block.max_hops, tuple(block.brokers)))

    # --- what was asked, when, where ----------------------------------------------------------------------------------------

    def _intents(self) -> Mapping[str, Intent]:
        found = {}
        for name, block in self.definition.intents.items():
            path: Path = ("intents", name)
            if name == ANY:
                self.document.report(path, ANY, "another name (any is reserved for needs)", key=True)
            for at, words in enumerate(block.words):
                content = [word for word in words.lower().removeprefix("^").split() if word not in ARTICLES]
                if content and content[0] in PLACES:  # it would have to be looked for everywhere
                    here: Path = (*path, "words", at)
                    self.document.report(here, shown(words), "a phrase that begins with a word (let someone know)")
            both = set(block.examples) & set(block.counter_examples or ())
            if both:
                self.document.report((*path, "counter_examples"), shown(min(both)), "a sentence that is not also an example", key=True)
            for key, request in (("delegated", "a delegated request"), ("unheard", "what was not understood")):
                if getattr(block, key) == "step_up" and block.unclear != "step_up":
                    self.document.report((*path, key), "step_up beside unclear: deny", f"unclear: step_up ({request} is unclear)", key=True)
            examples, counter = tuple(block.examples), tuple(block.counter_examples or ())
            found[self.share(name)] = self.share(
                Intent(
                    name,
                    self.document.line(path),
                    block.asks_for,
                    tuple(block.words),
                    block.unclear,
                    examples,
                    counter,
                    block.delegated,
                    block.unheard,
                )
            )
        return self.share.mapping(found)

    def _conditions(self, block: ConditionsBlock) -> Conditions:
        path: Path = ("conditions",)
        report = self.document.report
        if not block.model_fields_set:
            report(path, "an empty block", "at least one of " + ", ".join(ConditionsBlock.model_fields), key=True)
        hours = None
        if block.hours is not None:
            here: Path = (*path, "hours")
            if not _zone_exists(block.hours.zone):
                report((*here, "zone"), shown(block.hours.zone), "an IANA time zone such as Europe/Berlin, or UTC")
            if block.hours.from_ in {block.hours.to, 24 * 60}:
                report((*here, "from"), "an empty or ambiguous window", 'a start before "24:00" that is not the end')
            days = frozenset(_DAYS.index(day) for day in block.hours.days)
            hours = self.share(Hours(self.document.line(here), days, block.hours.from_, block.hours.to, block.hours.zone))
        for index, network in enumerate(block.network or ()):
            if "/" in network or network.replace(".", "").isdigit() or ":" in network:
                try:
                    ipaddress.ip_network(network)
                except ValueError:
                    report(
                        (*path, "network", index), shown(network), "a CIDR block without host bits, such as 10.20.0.0/16, or a zone name"
                    )
        return self.share(
            Conditions(
                self.document.line(path), tuple(block.environment or ()), hours, tuple(block.data_class or ()), tuple(block.network or ())
            )
        )

    # --- which calls --------------------------------------------------------------------------------------------------------

    def _tools(self) -> Mapping[str, Tool]:
        blocks, site = self.definition.tools, self.site
        rules = {name: {a: site.rule(name, a, arg) for a, arg in block.args.items()} for name, block in blocks.items()}
        facts = {name: {f: site.facts.fact(name, f, fact) for f, fact in (block.facts or {}).items()} for name, block in blocks.items()}
        clauses = self.clauses
        sequence, limits, step_ups, upstream = clauses.sequence(), clauses.limits(), clauses.step_ups(), clauses.upstream()
        for name, block in blocks.items():
            self._tool(name, block, step_ups.get(name, ()))
            self._named(name, block, rules[name], facts)
            if self.definition.who.for_user is None:
                self._nobody(name, block)
        self._reachable(rules, sequence)
        share, found = self.share, {}
        for name, block in blocks.items():
            found[share(name)] = share.tool(
                Tool(
                    share(name),
                    self.document.line(("tools", name)),
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
                    share(frozenset(site.references.used.get(name, ())) & frozenset(block.args)),
                )
            )
        return share.tools(found)

    def _tool(self, name: str, block: ToolBlock, step_ups: tuple[StepUpRule, ...]) -> None:
        path: Path = ("tools", name)
        report, intents = self.document.report, self.definition.intents
        if name == ANY:
            report(path, ANY, "another name (any means all tools in limits)", key=True)
        for index, need in enumerate(block.needs):
            here: Path = (*path, "needs", index) if self.document.node((*path, "needs", index)) else (*path, "needs")
            if need in {ANY, NONE} and len(block.needs) > 1:
                report(here, f"{need} in a list", f"{need} alone, or intents")
            elif need == ANY and block.effect != "read":
                report(here, f"any on a {block.effect} tool", "the intents it needs (only reads may say any)")
            elif need == NONE and not self.machine:
                report(here, "none", "declared intents (none is for a workflow whose intents say none)")
            elif need not in {ANY, NONE}:
                self._known(need, here, "the tool could never be reached")
        for argument, rule in block.args.items():
            for index, need in enumerate(rule.needs or ()):
                self._known(need, (*path, "args", argument, "needs", index), "the argument could never be sent")
        if block.redeem == "server":
            missing = [key for key in ("audience", "scope", "definition") if getattr(block, key) is None]
            if missing:
                report(
                    path,
                    "redeem: server without " + ", ".join(missing),
                    "audience, scope and definition (a server is named and pinned)",
                    key=True,
                )
        referenced = name in self.site.references.used
        if block.effect != "read" or referenced:
            why = f"a {block.effect} tool" if block.effect != "read" else "a read that other calls refer to: who chooses it steers them"
            for argument, rule in block.args.items():
                if rule.from_ is None:
                    report((*path, "args", argument), "no from", f"from: where the value may come from ({why})", key=True)
        causes = [f"args.{a}" for a, rule in block.args.items() if rule.unknown_origin == "step_up"]
        needs = dict.fromkeys([*block.needs, *(need for rule in block.args.values() for need in rule.needs or ())])
        causes += [f"intent {need}" for need in needs if need in intents and intents[need].unclear == "step_up"]
        if causes and not step_ups:
            report(path, f"a step-up ({', '.join(causes)}) that nobody answers", f"a step_up rule for {name}", key=True)

    def _known(self, need: str, path: Path, otherwise: str) -> None:
        """A needed intent is one of the workflow's vocabulary."""
        intents = self.definition.intents
        if need not in intents:
            expected = "none (this workflow has no intents)" if self.machine else "a declared intent: " + ", ".join(intents)
            self.document.report(path, shown(need), f"{expected} ({otherwise})", did_you_mean(need, intents))

    def _named(self, name: str, block: ToolBlock, rules: Mapping[str, Rule], facts: Mapping[str, Mapping[str, Fact]]) -> None:
        """`trust: named` counts only when every argument came from the prompt, or from a fact that stands for the user's words."""

        def carries(source: Source) -> bool:
            fact = facts[source.tool][source.field] if kind_of(source).row_fact else None
            return fact is not None and (fact.named or bool(fact.named_by)) and self.definition.tools[source.tool].effect == "read"

        outside = [
            a
            for a, r in block.args.items()
            if not r.optional and (argument_type(r) not in TOKENISED or (r.from_ is not None and "prompt" not in r.from_))
            if not any(map(carries, rules[a].sources))
        ]
        for fact in facts[name].values():
            if fact.named and outside:
                here = ("tools", name, "facts", fact.name, "trust")
                self.document.report(
                    here,
                    f"named, with argument {outside[0]} not from the prompt",
                    "from: [prompt] on every argument, or a fact with named_by or trust: named (otherwise it never counts)",
                )

    def _nobody(self, name: str, block: ToolBlock) -> None:
        """A workflow without a user has no user's id as an origin; and without intents too, nobody whose words could be one."""
        never = {"user": "nobody stands behind this agent: no who.for_user"}
        if self.machine:
            never["prompt"] = never["computed"] = "nobody speaks here; model is the calling job"
        for argument, rule in block.args.items():
            for key, texts in (("from", rule.from_), ("entities", rule.entities)):
                for text in texts or ():
                    if texts is not None and text in never:
                        here = ("tools", name, "args", argument, key, texts.index(text))
                        self.document.report(here, text, f"an origin that can hold ({never[text]})")

    def _reachable(self, rules: Mapping[str, Mapping[str, Rule]], sequence: Mapping[str, tuple[Sequence, ...]]) -> None:
        """Least fixpoint: a tool is reachable once all it waits for is; what is left waits for itself."""
        left, reached, grew = set(rules), set[str](), True

        def waits(name: str) -> str:
            for order in sequence.get(name, ()):
                if order.require not in reached:
                    return f"requires {order.require}"
            for rule in rules[name].values():
                if rule.optional:
                    continue
                if rule.at_most is not None and rule.at_most.tool not in reached:
                    return f"args.{rule.name} at most {rule.at_most}"
                if rule.sources and rule.unknown_origin == "deny" and not any(not s.tool or s.tool in reached for s in rule.sources):
                    return f"args.{rule.name} from {rule.sources[0]}"
            return ""

        while grew:
            ready = {name for name in left if not waits(name)}
            left, reached, grew = left - ready, reached | ready, bool(ready)
        for name in rules:
            if name in left:
                self.document.report(
                    ("tools", name), f"a tool that can never be reached ({waits(name)})", "calls that can come first", key=True
                )
