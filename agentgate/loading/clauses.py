"""The blocks that speak about tools from outside: order, amounts, people, the token, the real credential.

Rules: every name refers to a declared tool or argument; what is summed is always sent and never negative, so that no call
slips past a limit; a person is shown every argument unless the rule says which.
"""

from __future__ import annotations

from decimal import Decimal

from agentgate.loading.blocks import Definition, LimitBlock, StepUpBlock
from agentgate.loading.references import argument_type
from agentgate.loading.rules import Site
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.values.entities import NUMERIC
from agentgate.workflow.model import ANY, Limit, Sequence, StepUpRule, TokenRule, Upstream

MAX_TTL = 300  # seconds; verifiers accept no longer life
MAX_TIMEOUT = 7 * 86400
MONEY_PLACES = 4  # sums are kept in units of 10^-4


class Clauses:
    """Compiles these blocks of one file; each method returns values by tool name."""

    __slots__ = ("definition", "document", "share", "site")

    def __init__(self, definition: Definition, site: Site) -> None:
        self.definition, self.site = definition, site
        self.document: Document = site.document
        self.share: Sharing = site.share

    def _declared(self, name: str, path: Path) -> bool:
        if name in self.definition.tools:
            return True
        self.document.report(
            path, shown(name), "a declared tool: " + ", ".join(self.definition.tools), did_you_mean(name, self.definition.tools)
        )
        return False

    def sequence(self) -> dict[str, tuple[Sequence, ...]]:
        """What must come before which tool, by the later tool."""
        found: dict[str, tuple[Sequence, ...]] = {}
        for index, block in enumerate(self.definition.sequence or ()):
            path: Path = ("sequence", index)
            both = [self._declared(block.before, (*path, "before")), self._declared(block.require, (*path, "require"))]
            if block.before == block.require:
                self.document.report((*path, "require"), f"{block.require} before itself", "another tool (it could never be first)")
            elif all(both):
                line = self.share(Sequence(self.document.line(path), block.before, block.require, block.within))
                found[block.before] = (*found.get(block.before, ()), line)
        return found

    def limits(self) -> dict[str, tuple[Limit, ...]]:
        """The limits of each tool."""
        found: dict[str, tuple[Limit, ...]] = {}
        for index, block in enumerate(self.definition.limits or ()):
            limit = self._limit(block, ("limits", index))
            if limit is not None:
                found[limit.tool] = (*found.get(limit.tool, ()), limit)
        return found

    def _limit(self, block: LimitBlock, path: Path) -> Limit | None:
        report = self.document.report
        if (block.count is None) == (block.sum is None):
            report(path, "count and sum" if block.count is not None else "neither count nor sum", "exactly one of count, sum")
            return None
        if block.per == "turn" and block.every is not None:
            report((*path, "every"), "every beside per: turn", "one of them (a turn ends when the user speaks again)", key=True)
        if block.count is not None:
            if block.max % 1 or not 1 <= block.max <= 10**9:
                report((*path, "max"), str(block.max), "a whole number from 1")
            if block.count != ANY and not self._declared(block.count, (*path, "count")):
                return None
            return self.share(Limit(self.document.line(path), block.count, "", int(block.max), block.per, block.every))
        units = block.max.scaleb(MONEY_PLACES)
        if units % 1 or not 0 < block.max < 10**11:
            report((*path, "max"), str(block.max), f"more than 0, at most {MONEY_PLACES} decimals, below 10^11 (kept exactly)")
        text, here = block.sum or "", (*path, "sum")
        tool = max((t for t in self.definition.tools if text.startswith(t + ".")), key=len, default="")
        argument = text[len(tool) + 1 :] if tool else ""
        rule = self.definition.tools[tool].args.get(argument) if tool else None
        if rule is None:
            choices = [f"{t}.{a}" for t, b in self.definition.tools.items() for a in b.args]
            report(here, shown(text), "tool.argument", did_you_mean(text, choices))
            return None
        kind = argument_type(rule)
        if kind not in NUMERIC:
            report(here, f"{text}, a {kind}", "an argument of type money, number or integer")
        elif kind == "money" and rule.currency is None:
            report(here, f"{text} without a currency", f"currency: on the argument {argument} (money is never summed without)")
        elif rule.optional:
            report(here, f"{text}, which is optional", "an argument that is always sent (left out, it would slip past the limit)")
        elif rule.min is None or rule.min < 0:
            report(here, f"{text}, which may be negative", "an argument with min of at least 0 (a negative amount would give back)")
        elif Decimal(block.max) < rule.min:
            report((*path, "max"), str(block.max), f"at least the argument's min {rule.min} (nothing would ever fit)")
        return self.share(Limit(self.document.line(path), tool, argument, int(units), block.per, block.every))

    def step_ups(self) -> dict[str, tuple[StepUpRule, ...]]:
        """The step-up rules of each tool."""
        found: dict[str, tuple[StepUpRule, ...]] = {}
        ids: dict[str, int] = {}
        for index, block in enumerate(self.definition.step_up or ()):
            path: Path = ("step_up", index)
            line = self.document.line(path)
            if block.id in ids:
                self.document.report((*path, "id"), shown(block.id), f"an id of its own (first on line {ids[block.id]})")
            ids.setdefault(block.id, line)
            if block.timeout > MAX_TIMEOUT:
                self.document.report((*path, "timeout"), f"{block.timeout} s", f"at most {MAX_TIMEOUT // 86400}d")
            if self._declared(block.for_, (*path, "for")):
                found[block.for_] = (*found.get(block.for_, ()), self._step_up(block, line, path))
        return found

    def _step_up(self, block: StepUpBlock, line: int, path: Path) -> StepUpRule:
        args = self.definition.tools[block.for_].args
        for at, name in enumerate(block.show or ()):
            if name not in args:
                self.document.report((*path, "show", at), shown(name), f"an argument of {block.for_}", did_you_mean(name, args))
        when = tuple(r for n, b in (block.when or {}).items() if (r := self.site.when(block.for_, n, b, (*path, "when", n))) is not None)
        people = block.approvers
        return self.share(
            StepUpRule(
                block.id, line, block.for_, when, people.group, people.count, tuple(people.not_), block.timeout, tuple(block.show or args)
            )
        )

    def token(self) -> TokenRule:
        """How long a token lives and what it is bound to."""
        block = self.definition.token
        if block is None:
            return self.share(TokenRule())
        if block.ttl > MAX_TTL:
            self.document.report(("token", "ttl"), f"{block.ttl} s", f"at most {MAX_TTL}s (verifiers accept no longer life)")
        if "call" not in block.bound_to:
            self.document.report(
                ("token", "bound_to"), shown(", ".join(block.bound_to)), "call, and agent_key if wanted (every token is bound to its call)"
            )
        return self.share(TokenRule(block.ttl, "agent_key" in block.bound_to))

    def upstream(self) -> dict[str, Upstream]:
        """The upstream credential of each tool."""
        found, roles = {}, self.site.roles
        for name, block in (self.definition.upstream or {}).items():
            path: Path = ("upstream", name)
            settings = {k: tuple(v) if isinstance(v, list) else v for k, v in block.model_dump(exclude_none=True).items() if k != "broker"}
            found[name] = self.share.upstream(Upstream(self.document.line(path), self.share(block.broker), self.share.mapping(settings)))
            if name not in self.definition.tools:
                self.document.report(
                    path,
                    shown(name),
                    "a declared tool: " + ", ".join(self.definition.tools),
                    did_you_mean(name, self.definition.tools),
                    key=True,
                )
                continue
            if block.narrower_than is None:
                continue
            here, scope = (*path, "narrower_than"), frozenset(self.definition.tools[name].scope or ())
            if block.narrower_than not in roles:
                expected = "a role of roles.yaml: " + (", ".join(sorted(roles)) or "none")
                self.document.report(here, shown(block.narrower_than), expected, did_you_mean(block.narrower_than, roles))
            elif not scope or not scope < roles[block.narrower_than]:
                got = f"scope {', '.join(sorted(scope)) or 'none'}"
                self.document.report(
                    here, got, f"a strict subset of role {block.narrower_than}: " + ", ".join(sorted(roles[block.narrower_than]))
                )
        return found
