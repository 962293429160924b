"""Random workflows: one that pays, under rules drawn at random, and two reads whose facts it refers to."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from random import Random
from typing import Any

from agentgate.values.patterns import Glob, Pattern
from agentgate.workflow.clauses.conditions import Conditions, Hours
from agentgate.workflow.clauses.who import AgentRule, ClaimRule, UserRule, ViaRule
from agentgate.workflow.model import Intent, Limit, Sequence, StepUpRule, TokenRule, Tool, Upstream, Workflow
from agentgate.workflow.rule import Fact, Rule, Selector, Source
from tests.generate_values import (
    COMPUTED,
    CUSTOMERS,
    DIGEST,
    MODEL,
    PROMPT,
    READS,
    ROLES,
    SCOPES,
    USER,
    values_of,
)


def fact(tool: str, name: str) -> Source:
    return Source("fact", tool, name)


def arg(tool: str, name: str) -> Source:
    return Source("arg", tool, name)


def select(tool: str, name: str, by: str, noun: str) -> Source:
    return Source("select", tool, name, Selector("pay", (noun,), (("largest", by), ("smallest", by))))


class Workflows:
    """A stream of workflows from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - test data
        self.line = 0
        self.tight = False
        self.trusting = False
        self.listing = False  # the paying tool takes a list of objects

    # --- small choices -------------------------------------------------------------------------------------------------
    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def some(self, items: tuple[Any, ...], at_least: int = 1) -> tuple[Any, ...]:
        return tuple(self.rng.sample(items, self.rng.randint(at_least, len(items))))

    def next_line(self) -> int:
        self.line += 1
        return self.line

    # --- workflows -----------------------------------------------------------------------------------------------------
    def workflow(self) -> Workflow:
        self.trusting = self.maybe(0.15)  # all that the paying tool is given may stand for the user's words
        intents = {} if self.maybe(0.15) else {name: self.intent(name) for name in ("refund", "notify")[: self.rng.randint(1, 2)]}
        tools = {tool.name: tool for tool in (self.orders(), self.users(), self.pay(tuple(intents)))}
        return Workflow(
            id="payments.refund",
            version=self.rng.randint(1, 9),
            title="generated",
            owners=("lee",),
            risk="high",
            expires=self.rng.choice((date(2027, 3, 10), date(2027, 5, 31))),
            tenants=("acme",) if self.maybe(0.5) else ("acme", "acme-uk"),
            agent=self.agent_rule(),
            for_user=self.user_rule() if self.maybe(0.8) else None,
            via=ViaRule(1, self.rng.randint(1, 2), self.some(("broker-1", "broker-2")), self.rng.choice((0, 0, 1)))
            if self.maybe(0.5)
            else None,
            intents=intents,
            conditions=self.conditions(),
            tools=tools,
            token=TokenRule(),
            digest=DIGEST,
            file="generated.yaml",
        )

    def intent(self, name: str) -> Intent:
        return Intent(name, 1, "asks", (name,), self.rng.choice(("deny", "step_up", "confirm")), (), ())

    def agent_rule(self) -> AgentRule:
        in_process = self.maybe(0.3)
        spiffe = () if in_process or self.maybe(0.4) else self.some(("spiffe://acme/a", "spiffe://acme/b"))
        oidc = not in_process and ((not spiffe and self.maybe(0.85)) or self.maybe(0.1))
        return AgentRule(
            1,
            in_process=in_process,
            spiffe=spiffe,
            oidc_issuer="https://ci.example" if oidc else "",
            claims=(ClaimRule("repository", 1, ("acme/app",)), ClaimRule("ref", 1, ("main", "release")))[: self.rng.randint(0, 2)]
            if oidc
            else (),
            image_signed_by=("release@acme",) if self.maybe(0.2) else (),
            attested_within=600 if self.maybe(0.2) else None,
            cluster=("c1", "c2") if self.maybe(0.15) else (),
            namespace=("prod",) if self.maybe(0.15) else (),
            node_pool=("pool-1",) if self.maybe(0.15) else (),
            same_key_as_last_token=self.maybe(0.15),
        )

    def user_rule(self) -> UserRule:
        groups = self.some(("support", "leads")) if self.maybe(0.5) else ()
        acr, most = ("mfa", "phr") if self.maybe(0.15) else (), 900 if self.maybe(0.15) else None
        return UserRule(1, groups, self.maybe(0.7), acr, most)

    def conditions(self) -> Conditions:
        hours = None
        if self.maybe(0.15):
            days = frozenset(self.some((1, 2, 2, 3)))
            start, end = self.rng.choice(
                ((480, 1200), (1200, 720), (630, 631), (0, 630), (690, 691), (1320, 691), (630, 630), (630, 5), (690, 5))
            )
            hours = Hours(1, days, start, end, self.rng.choice(("UTC", "Europe/Berlin", "Pacific/Auckland")))
        return Conditions(
            1,
            environment=("prod",) if self.maybe(0.2) else (),
            hours=hours,
            data_class=("pseudonymous", "public") if self.maybe(0.2) else (),
            network=self.rng.choice((("partner",), ("10.0.0.0/8", "partner"))) if self.maybe(0.25) else (),
        )

    def orders(self) -> Tool:
        args = {
            "order_id": self.rule(
                "order_id", type="id", pattern=Pattern.of("ORD-[0-9]{4}"), sources=(PROMPT, MODEL)[: self.rng.randint(1, 2)]
            ),
            "customers": self.rule("customers", type="id", max_items=3, optional=True, nullable=self.maybe(0.5), sources=(MODEL,)),
            "top": self.rule("top", type="money", currency="top_currency", optional=True, sources=(MODEL,)),
            "top_currency": self.rule("top_currency", one_of=("EUR", "GBP"), optional=True, sources=(MODEL,)),
        }
        if self.maybe(0.3):
            args["verbose"] = self.rule("verbose", type="boolean", equals=(True,), optional=True)
        facts = {
            "order_id": self.fact("order_id", "id"),
            "total": self.fact("total", "money", currency="currency"),
            "currency": self.fact("currency", "text"),
            "customer": self.fact(
                "customer", "id", pattern=Pattern.of(self.rng.choice(("cus_[A-Z][0-9]", "cus_[AB].*"))) if self.maybe(0.3) else None
            ),
            "email": self.fact("email", "email"),
            "subject": self.fact("subject", "text"),
            "handle": self.fact("handle", "user"),
        }
        facts = self.labelled(facts, ("subject", "email", "order_id", "total", "handle"), "order_id")
        return self.tool("orders.get", self.rng.choice(("read", "read", "read", "read", "read", "write")), ("any",), args, facts)

    def users(self) -> Tool:
        args = {
            "query": self.rule("query", text=40, sources=(MODEL,)),
            "most": self.rule("most", type="integer", minimum=Decimal(0), maximum=Decimal(9), sources=(MODEL,), page_size=self.maybe(0.7)),
        }
        facts = {
            "customer": self.fact("customer", "id"),
            "email": self.fact("email", "email"),
            "scope": self.fact("scope", "text"),
            "path": self.fact("path", "path"),
            "limit": self.fact("limit", "money", currency="currency"),
            "currency": self.fact("currency", "text"),
            "level": self.fact("level", self.rng.choice(("integer", "boolean"))),
            "subject": self.fact("subject", "text"),
            "handle": self.fact("handle", "user"),
        }
        facts = self.labelled(facts, ("subject", "email", "path", "handle"), "")
        return self.tool("users.find", "read", ("any",), args, facts)

    def fact(self, name: str, kind: str, **more: Any) -> Fact:
        return Fact(name, self.next_line(), kind, (name,), named=self.maybe(0.5 if self.trusting else 0.2), **more)

    def labelled(self, facts: dict[str, Fact], labels: tuple[str, ...], asked: str) -> dict[str, Fact]:
        """Now and then only the rows that the user's words mean count, or only those that were asked for."""
        for name, fact in facts.items():
            if self.maybe(0.3 if self.trusting else 0.15):
                facts[name] = replace(fact, named_by=tuple(self.rng.sample(labels, self.rng.choice((1, 1, 2)))))
            elif asked and self.maybe(0.05):
                facts[name] = replace(fact, where=((asked, asked),))
        return facts

    def rule(self, name: str, **more: Any) -> Rule:
        return Rule(name, self.next_line(), **more)

    def tool(self, name: str, effect: Any, needs: tuple[str, ...], args: dict[str, Rule], facts: dict[str, Fact], **more: Any) -> Tool:
        return Tool(
            name,
            self.next_line(),
            effect,
            needs,
            audience="https://tools.example",
            scope=(),
            definition=DIGEST if self.maybe(0.3) else "",
            redeem="server",
            args=args,
            facts=facts,
            upstream=Upstream(1, "vault", {}) if self.maybe(0.3) else None,
            **more,
        )

    def sources(self, *offered: Source) -> tuple[Source, ...]:
        """Some of these origins; in a tight tool only earlier calls, if there are any."""
        calls = tuple(source for source in offered if source.tool)
        pool = calls if calls and self.tight else offered
        return tuple(self.rng.sample(pool, min(len(pool), self.rng.choice((1, 1, 2, 3)))))

    def offered(self) -> dict[str, dict[str, Any]]:
        """Every argument that the paying tool may have."""
        rng, sources = self.rng, self.sources
        role = rng.choice(("", "reader", "orchestrator"))
        total, limit, top = fact("orders.get", "total"), fact("users.find", "limit"), arg("orders.get", "top")
        customers = (fact("orders.get", "customer"), fact("users.find", "customer"), arg("orders.get", "customers"))
        order = select("orders.get", "order_id", "total", "order")
        customer = select("users.find", "customer", "limit", "customer")
        calculated = self.maybe(0.4)
        sums = (Source("sum", "orders.get", "total"), Source("sum", "users.find", "limit"))
        emails = (fact("orders.get", "email"), fact("users.find", "email"))
        found: dict[str, dict[str, Any]] = {
            "order_id": {
                "type": "id",
                "pattern": Pattern.of("ORD-100[12]" if self.maybe(0.2) else "ORD-[0-9]{4}"),
                "sources": sources(PROMPT, arg("orders.get", "order_id"), fact("orders.get", "order_id"), order),
            },
            "amount": {
                "type": "money",
                "currency": "currency",
                "minimum": Decimal("0.01"),
                "maximum": Decimal(rng.choice(("100.00", "500.00"))),
                "at_most": None if calculated else rng.choice((None, total, limit, top, *sums)),
                "sources": (*sources(PROMPT, PROMPT, total, limit, top), COMPUTED) if calculated else sources(PROMPT, MODEL, total, top),
            },
            "amounts": {
                "type": "money",
                "currency": "currency",
                "max_items": 3,
                "minimum": Decimal(0),
                "maximum": Decimal(500),
                "at_most": rng.choice((total, limit, top, *sums)),
                "sources": sources(MODEL, total),
            },
            "payee": {"type": "id", "pattern": Pattern.of("cus_[A-Z][0-9]"), "sources": sources(*customers, PROMPT, USER, customer)},
            "payees": {"type": "id", "max_items": 3, "one_of": CUSTOMERS[: rng.randint(2, 3)], "sources": sources(*customers, customer)},
            "notify": {
                "sources": sources(*emails, PROMPT, USER),
                "type": "email",
                "max_items": rng.randint(1, 3),
                "pattern": Pattern.of(r"[a-z]+@acme\.example") if self.maybe(0.3) else None,
            },
            "address": {"type": "email", "sources": sources(PROMPT, USER, *emails)},
            "scopes": {
                "max_items": 3,
                "one_of": self.some(SCOPES, 3),
                "role": role,
                "role_scopes": ROLES.get(role, frozenset()),
                "sources": sources(MODEL, fact("users.find", "scope")),
            },
            "path": {
                "type": "path",
                "glob": Glob(rng.choice(("docs/*", "docs/**", "**"))),
                "sources": sources(PROMPT, MODEL, fact("users.find", "path")),
            },
            "reason": {
                "text": rng.choice((20, 200)),
                "sources": (MODEL,),
                "entities": sources(PROMPT, USER, *emails, MODEL) if self.maybe(0.8) else None,
            },
            "title": {"sources": sources(PROMPT, PROMPT, MODEL, fact("orders.get", "subject"))},
            "tags": {
                "max_items": rng.randint(1, 3),
                "sources": sources(PROMPT, fact("orders.get", "subject"), fact("users.find", "subject")),
            },
            "lines[].order_id": {
                "type": "id",
                "max_items": 3,
                "sources": sources(fact("orders.get", "order_id"), PROMPT, arg("orders.get", "order_id")),
            },
            "lines[].payee": {"type": "id", "max_items": 3, "sources": sources(*customers)},
            "lines[].email": {"type": "email", "max_items": 3, "sources": sources(*emails)},
            "lines[].amount": {
                "type": "money",
                "currency": "currency",
                "max_items": 3,
                "at_most": rng.choice((None, total, limit)),
                "sources": sources(total, total, limit, MODEL),
            },
            "files[].path": {
                "type": "path",
                "max_items": rng.randint(1, 3),
                "glob": Glob(rng.choice(("docs/**", "**"))),
                "sources": sources(PROMPT, MODEL, fact("users.find", "path")),
            },
            "files[].note": {
                "text": rng.choice((20, 200)),
                "max_items": 3,
                "sources": (MODEL,),
                "entities": sources(PROMPT, *emails) if self.maybe(0.3) else None,
            },
            "meta": {
                "type": "json",
                "text": rng.choice((30, 200, 200)),
                "sources": (MODEL,),
                "entities": sources(PROMPT, *emails) if self.maybe(0.4) else None,
            },
            "flag": {"type": "boolean", "equals": (self.maybe(0.7),), "sources": sources(MODEL, fact("users.find", "level"))},
            "count": {"type": "integer", "minimum": Decimal(1), "maximum": Decimal(20), "sources": (MODEL, PROMPT)},
        }
        currencies = (MODEL, MODEL, PROMPT, fact("orders.get", "currency"), fact("users.find", "currency"))
        lines = {name for name in found if name.startswith("lines[].")}
        names = set(rng.sample(sorted(found.keys() - lines), rng.choice((1, 2, 2, 3, 3, 4, 5))))
        if self.trusting:
            names = set(rng.sample(("address", "notify", "order_id", "path", "payee", "payees", "title"), rng.choice((1, 2, 2, 3))))
        if self.listing:
            names = {*rng.sample(sorted(lines), rng.choice((2, 2, 3))), *rng.sample(sorted(names), rng.choice((0, 0, 1)))}
        found["currency"] = {"one_of": ("EUR", "GBP"), "sources": sources(*currencies)}
        names |= {"amounts"} if "amount" in names and self.maybe(0.2) else set()
        names |= {"currency"} if {"amount", "amounts", "lines[].amount"} & names else set()
        return {name: found[name] for name in sorted(names)}

    def pay(self, intents: tuple[str, ...]) -> Tool:
        """The tool that is mostly asked for: anything but a read."""
        self.listing = self.maybe(0.12)
        self.tight = self.trusting or self.listing or self.maybe(0.3)
        args = {}
        picky = bool(intents) and self.maybe(0.15)
        for name, how in self.offered().items():
            needs = self.some(intents) if picky and self.maybe(0.4) else ()
            unknown = self.rng.choice(("deny", "deny", "step_up", "confirm"))
            first = PROMPT in how["sources"] and MODEL not in how["sources"] and len(how["sources"]) > 1 and self.maybe(0.15)
            more = {"any_call": self.maybe(0.1), "named_first": first, **how}
            optional = self.maybe(0.25)
            args[name] = self.rule(
                name, optional=optional, nullable=optional and self.maybe(0.5), needs=needs, unknown_origin=unknown, **more
            )
        sequence = tuple(
            Sequence(self.next_line(), "pay", tool, self.rng.choice((None, 300, 900)))
            for tool in (*READS, "orders.get")
            if self.maybe(0.15)
        )
        limits = [Limit(self.next_line(), "pay", "", 3, "run", None)] if self.maybe(0.3) else []
        for name in sorted({"amount", "amounts", "count"} & set(args)):
            limits += [Limit(self.next_line(), "pay", name, 10_000_000, "tenant", 86_400)] if self.maybe(0.3) else []
        asks = any(rule.unknown_origin != "deny" for rule in args.values()) or (intents and self.maybe(0.3))
        asked = self.rng.choice((1, 1, 2, 3)) if (asks and self.maybe(0.95)) or self.maybe(0.6) else 0
        return self.tool(
            "pay",
            self.rng.choice(("write", "egress", "destructive")),
            self.some(intents) if intents and self.maybe(0.97) else ("none",),
            args,
            {},
            sequence=sequence,
            limits=tuple(limits),
            step_ups=tuple(self.step_up(index, args) for index in range(asked)),
        )

    def step_up(self, index: int, args: dict[str, Rule]) -> StepUpRule:
        known = sorted(set(args) - {"meta"})
        names = self.rng.sample(known, min(len(known), self.rng.choice((0, 0, 1, 1, 1, 2))))
        when = tuple(self.when(args[name]) for name in names)
        left_open = self.some(("intent", "origin")) if self.maybe(0.25) else ()
        when = when if not left_open or self.maybe(0.3) else ()
        rule = StepUpRule(f"ask-{index}", self.next_line(), "pay", when, "leads", 1, ("requester",), 600, (), left_open=left_open)
        return replace(rule, group="", exclude=(), user=True) if self.maybe(0.25) else rule

    def when(self, rule: Rule) -> Rule:
        more: dict[str, Any] = {}
        kind = self.rng.choice(("above", "not_in", "origin", "in", "is", "pattern", "not_pattern", "range"))
        numeric = rule.type in {"money", "integer"}
        pool = tuple(values_of(rule.name))
        if numeric and (kind == "above" or self.maybe(0.3)):
            more["above"] = Decimal(self.rng.choice((20, 39, 100)))
        elif kind == "range" and numeric:
            more.update(minimum=Decimal(20), maximum=Decimal(100))
        elif kind == "in":
            more["one_of"] = self.some(pool)
        elif kind == "is":
            more["equals"] = (self.rng.choice(pool),)
        elif kind in {"pattern", "not_pattern"} and not numeric and rule.type != "boolean":
            more[kind] = Pattern.of(self.rng.choice((".*[12]", "[a-l].*", ".*e.*")))
        elif kind == "not_in" or not rule.sources:
            more["not_in"] = self.some(pool)
        else:
            offered = (
                "unknown",
                PROMPT,
                USER,
                fact("orders.get", "email"),
                fact("users.find", "customer"),
                fact("orders.get", "customer"),
                fact("orders.get", "total"),
            )
            more["origin"] = tuple(self.rng.sample(offered, self.rng.choice((1, 1, 2))))
        return Rule(rule.name, self.next_line(), type=rule.type, currency=rule.currency, **more)
