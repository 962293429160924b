"""Random workflows, runs and calls, most of them close to the line between allowed and refused.

A scenario is built to be allowed (arguments are taken from places the rules permit), then up to three single changes are
made to it. All pools are small, so that values collide: order A's id beside order B's payee is common. Values are built
from the dataclasses directly; the loader has tests of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

from agentgate.language.prompt import Prompt
from agentgate.language.turn import Turn
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import number
from agentgate.values.request import Agent, Boundary, Call, Derived, EarlierCall, Header, Posture, RunState, Surroundings, User
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import Rule
from tests.generate_changes import CHANGES, Asked
from tests.generate_values import (
    AMOUNTS,
    CURRENCIES,
    CUSTOMERS,
    EMAILS,
    HANDLES,
    NOW,
    ORDERS,
    PATHS,
    READS,
    SCOPES,
    SUBJECTS,
    USERS,
    put,
    values_of,
)
from tests.generate_workflows import Workflows


@dataclass(frozen=True)
class Case:
    """One question for both evaluators."""

    workflow: Workflow
    run: RunState
    call: Call
    around: Surroundings


@cache
def prompt_of(*turns: str) -> Prompt:
    return Prompt.of(turns, NOW.date())


class Generator(Workflows):
    """A stream of cases from one seed."""

    before: RunState | None = None
    own = ""  # the user's id

    def cases(self, count: int, per_workflow: int = 8) -> Any:
        """`count` cases; a workflow is used for several before the next is made, and so is a run, now and then under the next one."""
        made = 0
        while made < count:
            workflow = self.workflow()
            self.before = self.before if self.maybe(0.1) else None
            for _ in range(min(per_workflow, count - made)):
                yield self.case(workflow)
                made += 1

    # --- runs ----------------------------------------------------------------------------------------------------------
    def row(self) -> dict[str, Any]:
        rng = self.rng
        everything = {
            "order_id": rng.choice(ORDERS),
            "total": rng.choice(AMOUNTS),
            "currency": rng.choice(CURRENCIES),
            "customer": rng.choice(CUSTOMERS),
            "email": rng.choice(EMAILS),
            "scope": rng.choice(SCOPES),
            "path": rng.choice(PATHS),
            "limit": rng.choice(AMOUNTS),
            "level": rng.choice((0, 1, True, False)),
            "comment": rng.choice(CUSTOMERS),
            "subject": rng.choice(SUBJECTS),
            "handle": rng.choice(HANDLES),
        }
        if self.maybe(0.1):
            everything.pop(rng.choice(sorted(everything)))
        if self.maybe(0.05):
            everything[rng.choice(sorted(everything))] = rng.choice((None, True, "  ", ["x"], 1e300, "Bob@Acme.example"))
        return everything

    def earlier(self, workflow: Workflow) -> tuple[EarlierCall, ...]:
        rng = self.rng
        calls = []
        wanted = [step.require for step in workflow.tools["pay"].sequence]
        for rule in workflow.tools["pay"].args.values():
            wanted += [source.tool for source in rule.sources if source.tool]
            wanted += [rule.at_most.tool] if rule.at_most is not None else []
        tools = [tool for tool in sorted(set(wanted)) if self.maybe(0.95)]
        tools += ["orders.get"] if tools and self.maybe(0.4) else []
        tools += rng.choices(("orders.get", "orders.get", "users.find", "pay", "gone"), k=rng.choice((0, 0, 1, 1, 2)))
        for index, tool in enumerate(tools):
            args: dict[str, Any] = {"query": rng.choice(("x", "order", "flat", "Rent"))} if tool != "users.find" or self.maybe(0.4) else {}
            if tool == "users.find" and self.maybe(0.7):
                args["most"] = rng.choice((0, 1, 2, 3, 4, 4, -1, "3", None, True))
            if tool == "orders.get":
                args = {"order_id": rng.choice(ORDERS)}
                if self.maybe(0.5):
                    args["customers"] = rng.sample(CUSTOMERS, rng.randint(1, 3)) if self.maybe(0.8) else None
                if self.maybe(0.7):
                    args["top"] = rng.choice(AMOUNTS)
                    args["top_currency"] = rng.choice(CURRENCIES)
            rows = tuple(self.row() for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3))))
            if rows and "most" in args and self.maybe(0.9):
                rows[-1]["[page]"] = rng.choice((len(rows), len(rows), len(rows) + 1, 0, -1, str(len(rows)), True))
            at = NOW.timestamp() - rng.choice((1, 1, 1, 10, 299, 300, 301, 899, 900, 901, 5000))
            calls.append(EarlierCall(f"call_{index}", tool, args, rows, self.maybe(0.3 if "most" in args else 0.85), at))
        return tuple(calls)

    def prompt(self) -> str:
        rng = self.rng
        parts = ["Please refund"]
        if self.maybe(0.85):
            parts.append(f"order {rng.choice(ORDERS)}")
        if self.maybe(0.5):
            parts.append(f"with {rng.choice(('€20.00', '20', '39.99 EUR', '£100.00', '100.01', '500 EUR'))}")
        if self.maybe(0.6):
            parts.append(f"and tell {rng.choice(EMAILS)}")
        if self.maybe(0.4):
            parts.append(f"from {rng.choice(PATHS)}")
        if self.maybe(0.4):
            parts.append(f"for {rng.choice(CUSTOMERS)}")
        if self.maybe(0.1):
            parts.append("see https://acme.example/terms or call +4915112345678")
        if self.maybe(0.4):
            parts.append(f"about {rng.choice(('the rent', 'the flat', 'rent, flat and deposit', 'the gym', 'Lee and Bob', 'nothing'))}")
        if self.maybe(0.4):
            parts.append(
                rng.choice(
                    (
                        "and assign it to me",
                        "and add me",
                        "with me and Bob",
                        "add myself",
                        ", which is mine,",
                        "from my own list",
                        "to me",
                        "for me",
                        "and tell me",
                        "my order",
                        "not to me",
                        "as Ann asked to give it to me",
                        'says "it to me"',
                    )
                )
            )
        if self.maybe(0.4):
            parts.append(
                rng.choice(
                    (
                        "and send the difference",
                        "minus 5",
                        "minus 5 EUR and 3 GBP",
                        "plus 3",
                        "and 5 EUR on top",
                        "but only half of it",
                        "and split it by 3",
                        "twice the amount",
                        "three times the amount",
                        "and 10% of it",
                        "10% of it plus 5",
                        "half minus 5",
                        "and adjust it accordingly",
                        "but not the difference",
                        ". Not half of it. Plus 3",
                        "#5 minus #3",
                        'says "the difference"',
                        'minus "20"',
                    )
                )
            )
        if self.maybe(0.3):
            which = rng.choice(("the largest", "the smallest", "the largest", "the second largest"))
            parts.append(f"and {which} {rng.choice(('order', 'order', 'customer'))}")
        if self.maybe(0.4):
            parts.append(
                rng.choice(("marked as solved.", "titled 'Flat deposit'", "titled *Rent*, (the flat) and gym", "in EUR", "in GBP or EUR"))
            )
        if self.maybe(0.2):
            parts.append(
                rng.choice(
                    (
                        ", but not the gym.",
                        ", not the rent",
                        'says "A flat? Rent!"',
                        "not as solved",
                        "\n> as solved\nthe rent",
                        '"Rent? No." and the gym',
                        ". The rent",
                    )
                )
            )
        return " ".join(parts)

    def turns(self) -> tuple[str, ...]:
        more = (
            "Not half.",
            "Plus 5, minus 3.",
            "No, not the gym.",
            "And mark it as solved",
            "Make it the rent!",
            "Not in EUR.",
            "Not to me.",
            "To me!",
        )
        return (self.prompt(), self.rng.choice(more)) if self.maybe(0.15) else (self.prompt(),)

    def header(self, workflow: Workflow) -> Header:
        rule, who = workflow.agent, Agent("agent-1")
        facts: dict[str, Any] = {}
        if not rule.in_process:
            facts["identity"] = "proven"
            if rule.spiffe:
                facts["spiffe"] = rule.spiffe[0]
            if rule.oidc_issuer:
                facts.update(
                    issuer=rule.oidc_issuer, claims={"repository": "acme/app", "ref": self.rng.choice(("main", "release")), "more": "x"}
                )
        if rule.image_signed_by or rule.attested_within is not None:
            facts["posture"] = Posture("release@acme", NOW - timedelta(seconds=self.rng.choice((0, 60, 600))))
        if rule.cluster or rule.namespace or rule.node_pool or rule.same_key_as_last_token:
            facts["boundary"] = Boundary("c1", "prod", "pool-1", "thumb")
        if workflow.via is not None and self.maybe(0.7):
            hops = self.rng.randint(workflow.via.min_hops, workflow.via.max_hops)
            facts["via"] = tuple(self.rng.choices(workflow.via.brokers, k=hops))
        put(who, **facts)
        user = None
        if workflow.for_user is not None:
            tenant = "acme" if workflow.for_user.same_tenant or self.maybe(0.5) else "other"
            user = User(self.rng.choice(USERS), tenant=tenant, groups=(*workflow.for_user.groups[:1], "staff"))
            if not rule.in_process or self.maybe(0.3):
                put(user, identity="proven")
            if workflow.for_user.acr or workflow.for_user.max_age:
                put(user, acr=self.rng.choice(("mfa", "phr")), auth_time=int(NOW.timestamp()) - self.rng.choice((0, 60, 900, -5)))
        return Header(
            "run-1", "acme", user, who, workflow.id, workflow.version, workflow.digest, NOW.timestamp() - 60, NOW.timestamp() + 3600
        )

    def around(self) -> Surroundings:
        minutes = self.rng.choice((0, 0, 0, 0, -1, 1, -630, 810)) if self.maybe(0.3) else 0
        return Surroundings(
            NOW + timedelta(minutes=minutes), "prod", self.rng.choice(("pseudonymous", "public")), "partner", frozenset({"vault", "aws"})
        )

    # --- calls ---------------------------------------------------------------------------------------------------------
    def value(self, rule: Rule, base: dict[str, tuple[EarlierCall, dict[str, Any]]], prompt: str) -> Any:
        """A value from one of the rule's own origins where there is one, else from the pool."""
        pool = [v for v in values_of(rule.name) if self.fits(rule, v)] or list(values_of(rule.name))
        own = [v for v in pool if v == self.own] * 3 or [v for v in pool if v in USERS]
        found: list[Any] = []
        for source in rule.sources:
            if source.kind == "model":
                found += pool
            elif source.kind == "user":
                found += own if not found or self.maybe(0.5) else []
            elif source.kind == "computed":
                made = self.computed(found if self.maybe(0.9) else pool, prompt)
                found = made if self.maybe(0.7) else [*found, *made]
            elif source.kind == "prompt":
                found += [v for v in pool if str(v) in prompt]
                found += [self.words_of(prompt)] if rule.type == "text" else []
            elif source.tool in base:
                earlier, row = base[source.tool]
                got = (earlier.args if source.kind == "arg" else row).get(source.field)
                found += got if type(got) is list else [got]
        if rule.at_most is not None and rule.at_most.tool in base and self.maybe(0.7):
            earlier, row = base[rule.at_most.tool]
            bound = number((earlier.args if rule.at_most.kind == "arg" else row).get(rule.at_most.field))
            found = [v for v in found if bound is not None and (number(str(v)) or 0) <= bound] or ["0.01"]
        found = [v for v in found if v is not None and type(v) is not list and v != 1e300] or pool
        picked = self.rng.choice(found)
        if type(picked) is not Decimal:
            return picked
        return int(picked) if rule.type == "integer" else str(picked)

    def computed(self, known: list[Any], prompt: str) -> list[Decimal]:
        """What a prompt asks for with these numbers and its own, as far as one can see at a glance."""
        rng, cent = self.rng, Decimal("0.01")
        said = re.findall(r"(?<![\w.,#+-])[0-9]{1,3}(?:\.[0-9]{2})?(?![\w%-])", prompt)
        amounts = [n for v in (*known, *said) if type(v) is not bool and (n := number(v)) is not None] or [Decimal(20)]
        x, z = rng.choice(amounts), rng.choice(amounts)
        words = {"half": x / 2, "split": x / 3, "twice": 2 * x, "three": 3 * x, "10%": x / 10}
        ways = [way for word, way in words.items() if word in prompt] or [x]
        ways = [
            abs(w + sign * z) for w in ways for sign in ((1, -1) if {*prompt.split()} & {"plus", "minus", "top", "difference"} else (0,))
        ]
        return [way.quantize(cent, rng.choice((ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_DOWN))) for way in ways] * 3

    def words_of(self, prompt: str) -> str:
        """Some of the prompt's words in their order, once in a while without one, or with a mark more or less."""
        words = (Turn(prompt).own if self.maybe(0.8) else prompt).split() or prompt.split()
        at = self.rng.randrange(len(words))
        some = words[at : at + self.rng.choice((1, 1, 2, 3, 5))]
        if self.maybe(0.1):
            some[-1] = self.rng.choice((some[-1].strip("*.,()"), some[-1] + ".", some[-1] + "*", some[-1].upper(), some[-1] + ";"))
        if self.maybe(0.1):
            del some[len(some) // 2 : len(some) // 2 + 1]
        return " ".join(some) or "..."

    def fits(self, rule: Rule, value: Any) -> bool:
        if rule.pattern is not None and not rule.pattern.matches(str(value)):
            return False
        if rule.glob is not None and not rule.glob.matches(str(value)):
            return False
        if rule.one_of is not None and value not in rule.one_of:
            return False
        if rule.equals is not None and value != rule.equals[0]:
            return False
        return rule.text is None or len(value) <= rule.text

    def base(self, run: RunState) -> dict[str, Any]:
        """For each read one earlier call and one of its rows: where an honest call takes its values."""
        base: dict[str, Any] = {}
        for name in READS:
            calls = [c for c in run.calls if c.tool == name]
            if calls:
                earlier = self.rng.choice(calls)
                base[name] = (earlier, self.rng.choice(earlier.rows) if earlier.rows else {})
        return base

    def rows(self, base: dict[str, Any]) -> dict[str, Any]:
        """Another row of each call."""
        return {name: (call, self.rng.choice(call.rows) if call.rows else row) for name, (call, row) in base.items()}

    def args(self, tool: Tool, run: RunState, prompt: str) -> dict[str, Any]:
        base = self.base(run)
        self.own = run.header.user.id if run.header.user is not None else ""
        mixed = self.maybe(0.3)  # order A's id with order B's payee
        alike = {} if self.maybe(0.4) else {at: self.rows(base) for at in range(3)}  # a row of each tool for each element of a structure
        size = self.rng.randint(1, 3)
        args: dict[str, Any] = {}
        for name, rule in tool.args.items():
            if rule.optional and self.maybe(0.3):
                if self.maybe(0.5 if rule.nullable else 0.05):
                    args[name] = None
                continue
            if mixed:
                base = self.base(run)
            if name == "currency":
                rows = [row.get("currency") for _, row in base.values()]
                args[name] = self.rng.choice([r for r in rows if type(r) is str] or list(CURRENCIES))
            elif rule.max_items is None:
                args[name] = self.value(rule, base, prompt)
            else:
                if rule.role and rule.one_of is not None:
                    inside = [v for v in rule.one_of if v in rule.role_scopes]
                    args[name] = inside if self.maybe(0.3) else [self.rng.choice(inside)]
                    continue
                elements = []
                for at in range(size if name.startswith("lines[].") else self.rng.randint(1, rule.max_items)):
                    if self.maybe(0.6):
                        base = self.rows(base)
                    elements.append(self.value(rule, alike.get(at, base) if "[]." in name else base, prompt))
                args[name] = elements
        return args

    def run(self, workflow: Workflow) -> RunState:
        """A new run, or the one that was asked about before: what is remembered of it must not leak into another question."""
        if self.before is not None and self.maybe(0.35):
            return self.before
        turns = self.turns()
        return RunState(
            header=self.header(workflow),
            turns=turns,
            intents={name: Derived("present" if self.maybe(0.9) else self.rng.choice(("unclear", "absent"))) for name in workflow.intents},
            prompt=prompt_of(*turns),
            calls=self.earlier(workflow),
            revision="1.1",
        )

    def folded(self, args: dict[str, Any]) -> dict[str, Any]:
        """The arguments as a tool takes them: what is in ``files[].x`` becomes the elements of ``files``; likewise ``lines``."""
        for root in ("files", "lines"):
            args = self.in_elements(root, args)
        return args

    def in_elements(self, root: str, args: dict[str, Any]) -> dict[str, Any]:
        mine = {name for name in args if name.startswith(f"{root}[].")}
        args = {root if name in mine and value is None and self.maybe(0.5) else name: value for name, value in args.items()}
        leaves = {name: [None] if value is None else value for name, value in args.items() if name in mine}
        leaves = {name: value for name, value in leaves.items() if type(value) is list}
        if not leaves:
            return args
        size = max(len(values) for values in leaves.values()) + self.maybe(0.05)
        elements = [{n.partition("[].")[2]: v[i] for n, v in leaves.items() if i < len(v)} for i in range(size)]
        if elements and self.maybe(0.1):
            self.rng.choice(elements)[self.rng.choice(sorted(leaves)).partition("[].")[2]] = None
        if elements and self.maybe(0.1):
            self.rng.choice(elements).pop(self.rng.choice(sorted(leaves)).partition("[].")[2], None)
        if elements and self.maybe(0.05):
            elements[-1][self.rng.choice(("more", "path.x", "note[]"))] = self.rng.choice(("x", [], {}, None))
        whole = elements[0] if elements and self.maybe(0.03) else elements
        return {**{name: value for name, value in args.items() if name not in leaves}, root: whole}

    def case(self, workflow: Workflow) -> Case:
        rng = self.rng
        run = self.run(workflow)
        text = run.turns[0]
        name = "pay" if self.maybe(0.9) else "orders.get"
        tool = workflow.tools[name]
        if name == "pay":
            args = self.args(tool, run, text)
        else:
            args = {"order_id": rng.choice(ORDERS)}
            if self.maybe(0.3):
                args["customers"] = rng.sample(CUSTOMERS, rng.randint(1, 3))
        asked = Asked(workflow, run, name, args, tool.definition or "", self.around())
        for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 1, 2))):
            rng.choice(CHANGES)(rng, asked)
        self.before = asked.run if self.maybe(0.3) else run
        data = canonical(self.folded(asked.args))
        return Case(workflow, asked.run, Call(asked.tool, "call_9", data, parse(data), asked.definition), asked.around)
