"""Random pairs of small workflows: a set of genes, drawn once for OLD, a few of them drawn again for NEW."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from random import Random
from typing import Any

from agentgate.values.patterns import Glob, Pattern
from agentgate.workflow.clauses.conditions import Conditions, Hours
from agentgate.workflow.clauses.who import AgentRule, UserRule, ViaRule
from agentgate.workflow.left_open import answers, causes
from agentgate.workflow.model import Intent, Sequence, StepUpRule, TokenRule, Tool, Upstream, Workflow
from agentgate.workflow.rule import Fact, Rule, Source

PROMPT, USER, COMPUTED, MODEL = Source("prompt"), Source("user"), Source("computed"), Source("model")
TOTAL, OWNER, MAIL = (Source("fact", "look", name) for name in ("total", "owner", "mail"))
OTHER_OWNER = Source("fact", "find", "owner")
ROLES = {"reader": frozenset({"read", "list"}), "writer": frozenset({"read", "write", "list"})}
SCOPES = ("read", "write", "list", "admin")
DIGESTS = ("sha256:" + "ab" * 32, "sha256:" + "cd" * 32)

PAYEES = ("cus_[AB][0-9]", "cus_[A-C][0-9]", "(?i:CUS)_A1", "cus_[^C]1", r"\w+")
MAILS = (r"[a-z]+@acme\.example", r"[a-z]+@(?:acme|evil)\.example", r".*@acme\.example", "[^@]{3}@.*")
PATHS = ("docs/*", "docs/**", "**", "*/a.txt")
NOTES = ("[a-z ]+", ".*", "[^@]*")


class Pairs:
    """A stream of pairs from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - test data

    def some(self, items: tuple[Any, ...], at_least: int = 1) -> tuple[Any, ...]:
        count = self.rng.randint(at_least, len(items))
        picked = set(self.rng.sample(range(len(items)), count))
        return tuple(item for i, item in enumerate(items) if i in picked)

    def maybe(self, chance: float, value: Any, otherwise: Any = None) -> Any:
        return value if self.rng.random() < chance else otherwise

    # --- genes ---------------------------------------------------------------------------------------------------------
    def draw(self, gene: str) -> Any:
        name, _, part = gene.partition(".")
        return getattr(self, f"draw_{part}" if part in {"from", "flags", "asks"} else f"draw_{name}")(name)

    def draw_tenants(self, _: str) -> Any:
        return self.some(("acme", "globex"))

    def draw_expires(self, _: str) -> Any:
        return self.rng.choice((date(2027, 3, 9), date(2027, 3, 10), date(2027, 5, 31), date(2027, 5, 31)))

    def draw_agent(self, _: str) -> Any:
        in_process = self.rng.random() < 0.3
        spiffe = () if in_process else self.some(("spiffe://acme/a", "spiffe://acme/b"))
        return AgentRule(1, in_process=in_process, spiffe=spiffe, attested_within=self.maybe(0.2, self.rng.choice((60, 600))))

    def draw_user(self, _: str) -> Any:
        return self.maybe(0.85, self.user())

    def user(self) -> UserRule:
        groups = self.some(("leads", "support"), 0)
        acr, most = self.maybe(0.2, self.some(("mfa", "phr")), ()), self.maybe(0.2, self.rng.choice((60, 900)))
        return UserRule(1, groups, self.rng.random() < 0.5, acr, most)

    def draw_via(self, _: str) -> Any:
        return self.maybe(0.4, ViaRule(1, self.rng.randint(1, 2), self.some(("b1", "b2")), self.rng.choice((0, 0, 1))))

    def draw_around(self, _: str) -> Any:
        start, end = self.rng.choice(((480, 1200), (1200, 720), (630, 631), (0, 630), (1320, 5), (630, 1440), (0, 1440)))
        hours = Hours(1, frozenset(self.some((0, 1, 2, 3, 6))), start, end, "UTC")
        network = self.maybe(0.3, self.some(("10.0.0.0/8", "10.1.0.0/16", "partner")), ())
        return Conditions(1, self.maybe(0.3, self.some(("prod", "test")), ()), self.maybe(0.4, hours), (), network)

    def draw_definition(self, _: str) -> Any:
        return self.rng.choice(("", *DIGESTS))

    def draw_upstream(self, _: str) -> Any:
        return self.maybe(0.3, Upstream(1, "vault", {}))

    def draw_unclear(self, _: str) -> Any:
        return tuple(self.rng.choice(("deny", "confirm", "step_up")) for _ in range(2))

    def draw_needs(self, _: str) -> Any:
        return self.some(("refund", "notify"))

    def draw_order(self, _: str) -> Any:
        return self.maybe(0.4, self.rng.choice((None, 300, 900)), "none")

    def draw_args(self, _: str) -> Any:
        return self.some(
            self.rng.choice((("amount", "payee"), ("mail", "note"), ("mails", "scopes"), ("payee", "path"), ("count", "flag")))
        )

    def draw_from(self, name: str) -> Any:
        offered = {
            "amount": (PROMPT, COMPUTED, MODEL, TOTAL),
            "payee": (PROMPT, MODEL, OWNER, OTHER_OWNER),
            "mail": (PROMPT, USER, MODEL, MAIL),
            "mails": (PROMPT, USER, MODEL, MAIL),
            "path": (PROMPT, MODEL),
        }.get(name, (MODEL,))
        chosen = self.some(offered)
        return tuple(s for s in chosen if s != MODEL) or chosen if self.rng.random() < 0.7 else chosen

    def draw_flags(self, _: str) -> Any:
        optional = self.rng.random() < 0.3
        unknown, nullable = self.rng.choice(("deny", "deny", "confirm", "step_up")), optional and self.rng.random() < 0.5
        return optional, unknown, nullable

    def draw_asks(self, _: str) -> Any:
        return self.maybe(0.35, self.some(("refund", "notify")), ())

    def draw_amount(self, _: str) -> Any:
        low, high = sorted(self.rng.sample((Decimal("0.01"), Decimal(20), Decimal("39.99"), Decimal(100), Decimal(500)), 2))
        return {"minimum": low, "maximum": high, "at_most": self.maybe(0.4, TOTAL)}

    def draw_payee(self, _: str) -> Any:
        if self.rng.random() < 0.3:
            return {"one_of": self.some(("cus_A1", "cus_B2", "cus_C1"))}
        return {"pattern": Pattern.of(self.rng.choice(PAYEES))}

    def draw_mail(self, _: str) -> Any:
        return {"pattern": self.maybe(0.8, Pattern.of(self.rng.choice(MAILS)))}

    def draw_mails(self, _: str) -> Any:
        return {"pattern": self.maybe(0.5, Pattern.of(self.rng.choice(MAILS[:3]))), "max_items": self.rng.randint(1, 3)}

    def draw_scopes(self, _: str) -> Any:
        role = self.rng.choice(("", "reader", "writer"))
        return {"one_of": self.some(SCOPES), "max_items": self.rng.randint(1, 4), "role": role, "role_scopes": ROLES.get(role, frozenset())}

    def draw_note(self, _: str) -> Any:
        entities = self.maybe(0.5, self.some((PROMPT, USER, MAIL)))
        return {"text": self.rng.choice((5, 20, 40)), "pattern": self.maybe(0.4, Pattern.of(self.rng.choice(NOTES))), "entities": entities}

    def draw_path(self, _: str) -> Any:
        return {"glob": Glob(self.rng.choice(PATHS))}

    def draw_count(self, _: str) -> Any:
        low, high = sorted(self.rng.sample((0, 1, 5, 10, 20), 2))
        return {"minimum": Decimal(low), "maximum": Decimal(high)}

    def draw_flag(self, _: str) -> Any:
        return {"one_of": self.some((True, False))}

    def draw_step(self, _: str) -> Any:
        if self.rng.random() < 0.4:
            return None
        whens = {arg: self.when(arg) for arg in KINDS if self.rng.random() < 0.4}
        left_open = self.some(("intent", "origin")) if self.rng.random() < 0.3 else ()
        return self.rng.choice(("leads", "leads", "bosses", "")), self.rng.randint(1, 2), whens, left_open

    def when(self, arg: str) -> dict[str, Any]:
        rng = self.rng
        if arg in {"amount", "count"}:
            return {"above": Decimal(rng.choice((1, 20, 50)))}
        if arg in {"payee", "mail", "mails"} and rng.random() < 0.5:
            return {"origin": self.some(("unknown", PROMPT, USER))}
        return {
            "payee": lambda: rng.choice(({"not_in": ("cus_A1",)}, {"pattern": Pattern.of(".*1")}, {"not_pattern": Pattern.of("cus_A.")})),
            "mail": lambda: {"pattern": Pattern.of(rng.choice((".*evil.*", "b.*")))},
            "mails": lambda: {"not_in": ("bob@acme.example",)},
            "scopes": lambda: {"one_of": self.some(("write", "admin"))},
            "note": lambda: {rng.choice(("pattern", "not_pattern")): Pattern.of(".*x.*")},
            "path": lambda: {"pattern": Pattern.of(r".*\.txt")},
            "flag": lambda: {"equals": (True,)},
        }[arg]()

    # --- workflows -----------------------------------------------------------------------------------------------------
    def pair(self) -> tuple[Workflow, Workflow]:
        genes = {gene: self.draw(gene) for gene in GENES}
        again = dict(genes)
        names = [g for g in GENES if g.partition(".")[0] not in KINDS or g.partition(".")[0] in genes["args"]]
        for gene in self.rng.sample(names, self.rng.choice((1, 1, 1, 2, 3))):
            again[gene] = self.draw(gene)
        return build(genes), build(again)


KINDS = {
    "amount": "money",
    "payee": "id",
    "mail": "email",
    "mails": "email",
    "scopes": "text",
    "note": "text",
    "path": "path",
    "count": "integer",
    "flag": "boolean",
}
GENES = (
    *("tenants", "expires", "agent", "user", "via", "around", "definition", "upstream", "unclear", "needs", "order", "args"),
    *(f"{name}{part}" for name in KINDS for part in ("", ".from", ".flags", ".asks")),
    *("step", "step.2"),
)


def build(genes: dict[str, Any]) -> Workflow:
    args: dict[str, Rule] = {}
    for index, name in enumerate(genes["args"]):
        optional, unknown, nullable = genes[f"{name}.flags"]
        more: dict[str, Any] = {"currency": "currency"} if name == "amount" else {}
        args[name] = Rule(
            name,
            index,
            KINDS[name],
            sources=genes[f"{name}.from"],
            optional=optional,
            nullable=nullable,
            needs=genes[f"{name}.asks"],
            unknown_origin=unknown,
            **more,
            **genes[name],
        )
    if "amount" in args:
        args["currency"] = Rule("currency", 9, one_of=("EUR", "GBP"), sources=(MODEL,))
    steps = []
    for index, gene in enumerate(("step", "step.2")):
        if genes[gene] is not None:
            group, count, whens, left_open = genes[gene]
            when = tuple(Rule(a, 1, KINDS[a], **w) for a, w in whens.items() if a in args)
            steps.append(asking(f"ask-{index}", group, count, when, left_open))
    unclear = dict(zip(("refund", "notify"), genes["unclear"], strict=True))
    answer(steps, args, genes["needs"], unclear)
    facts = {
        "total": Fact("total", 1, "money", ("total",), "currency"),
        "currency": Fact("currency", 1, "text", ("currency",)),
        "owner": Fact("owner", 1, "id", ("owner",)),
        "mail": Fact("mail", 1, "email", ("mail",)),
    }
    order = (Sequence(1, "act", "look", genes["order"]),) if genes["order"] != "none" else ()
    tools = {
        "look": _read("look", facts),
        "find": _read("find", {"owner": facts["owner"]}),
        "act": Tool(
            "act",
            1,
            "write",
            genes["needs"],
            "",
            (),
            genes["definition"],
            "wrapper",
            args,
            {},
            order,
            (),
            tuple(steps),
            genes["upstream"],
        ),
    }
    return Workflow(
        "small",
        1,
        "small",
        ("lee",),
        "low",
        genes["expires"],
        genes["tenants"],
        genes["agent"],
        genes["user"],
        genes["via"],
        {n: Intent(n, 1, n, (n,), u, (), ()) for n, u in zip(("refund", "notify"), genes["unclear"], strict=True)},
        genes["around"],
        tools,
        TokenRule(),
        "sha256:" + "00" * 32,
        "small.yaml",
    )


def asking(name: str, group: str, count: int, when: tuple[Rule, ...], left_open: tuple[Any, ...]) -> StepUpRule:
    """A step-up rule of these people; without a group, of the user."""
    if group:
        return StepUpRule(name, 1, "act", when, group, count, ("requester",), 600, (), left_open=left_open)
    return StepUpRule(name, 1, "act", when, "", 1, (), 600, (), user=True, left_open=left_open)


def answer(steps: list[StepUpRule], args: dict[str, Rule], needs: tuple[str, ...], unclear: dict[str, Any]) -> None:
    """Add what a tool with step-up rules needs in order to load: a rule for whatever a call can leave open."""
    while steps:
        tool = Tool("act", 1, "write", needs, "", (), "", "wrapper", args, {}, step_ups=tuple(steps))
        left = [c for c in causes(tool, unclear) if not any(answers(rule, c, by_when=tool.by_when) for rule in steps)]
        if not left:
            return
        group = "leads" if left[0].answer == "step_up" else ""
        steps.append(asking(f"left-{len(steps)}", group, 1, (), (left[0].kind,)))


def _read(name: str, facts: dict[str, Fact]) -> Tool:
    return Tool(name, 1, "read", ("any",), "", (), "", "wrapper", {"q": Rule("q", 1, text=20, sources=(MODEL,))}, facts)
