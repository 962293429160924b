"""Advice on workflows that load: what they permit that their author may not have noticed.

Rules: it never changes what loads. There is one function for each kind of thing that can be
advised on: the day of its end, an agent's claims, an intent, a tool, a fact, an argument, and
an argument of a tool that acts; each lists its rules with the text they give. Where a workload
acts for nobody and no prompt decides (`intents: {none: ...}`, no `for_user`), the author has
declared that the calling job takes the model's place, so the last of these does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from agentgate.decision.origins.earlier_calls import stands_for_words
from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.identity.oidc import UNLASTING
from agentgate.intents.phrases import overlaps
from agentgate.language.stems import stems
from agentgate.loading.yaml_nodes import Document, dotted
from agentgate.values.paths import EACH, FIND, FINDABLE, NUMBERS
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.who import AgentRule
from agentgate.workflow.left_open import causes
from agentgate.workflow.model import ANY, Intent, Tool, Workflow, is_size
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, Fact, Rule, Source

Remarks = Iterator[
    tuple[str, str]
]  # the key that it is about (empty: the block itself), and the text
Blocks = Iterator[tuple[tuple[str | int, ...], Remarks]]


@value_class
class Advice:
    """One remark at an exact place (line and column from 1)."""

    file: str
    line: int
    column: int
    field: str
    text: str

    @property
    def kind(self) -> str:
        """What it is about: the last key of its place, or how it begins where it is about a
        whole block.
        """
        head, colon, _ = self.text.partition(":")
        return (
            head
            if colon and head in {"not pinned", "steerable", "impossible", "not shown"}
            else self.field.rpartition(".")[2]
        )

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: warning: {self.field}: {self.text}"


def advise(workflow: Workflow, document: Document) -> tuple[Advice, ...]:
    """All remarks on one loaded workflow, in the order of the file.

    `document`: the same file, for columns.
    """
    placed = [
        ((*block, key) if key else block, text)
        for block, remarks in _blocks(workflow)
        for key, text in remarks
    ]
    found = (
        Advice(document.file, *document.place(path, key=True), dotted(path), text)
        for path, text in placed
    )
    return tuple(sorted(found, key=lambda a: (a.line, a.column)))


def _blocks(workflow: Workflow) -> Blocks:
    """Every block of the file with what is to be said of it."""
    yield (), _term(workflow)
    yield ("who", "agent", "oidc", "claims"), _claims(workflow.agent)
    for intent in workflow.intents.values():
        yield ("intents", intent.name), _intent(workflow, intent)
    yield from _overlaps(workflow)
    yield from _pins(workflow)
    yield ("limits",), _limits(workflow)
    steered = _steered(workflow)
    for tool in workflow.tools.values():
        block = ("tools", tool.name)
        yield block, _tool(tool)
        yield block, _asking(workflow, tool)
        for fact in tool.facts.values():
            yield (*block, "facts", fact.name), _fact(workflow, tool, fact)
        for rule in tool.args.values():
            yield (*block, "args", rule.name), _argument(tool, rule)
            if tool.effect != "read" and (workflow.intents or workflow.for_user):
                yield (*block, "args", rule.name), _acting(workflow, tool, rule, steered)


def gathered(found: Iterable[Advice]) -> tuple[Advice, ...]:
    """One remark per sentence and file: at its first place, with every other place that it
    holds for.
    """
    alike: dict[tuple[str, str], list[Advice]] = {}
    for each in found:
        alike.setdefault((each.file, each.text), []).append(each)
    kept = []
    for first, *others in alike.values():
        also = ", ".join(f"{each.field} {each.line}:{each.column}" for each in others)
        kept.append(
            replace(
                first,
                text=first.text + (f" (and {len(others)} more: {also})" if others else ""),
            )
        )
    return tuple(kept)


def _and(names: Iterable[object]) -> str:
    """Each once, as a sentence lists them."""
    *most, last = dict.fromkeys(map(str, names))
    return f"{', '.join(most)} and {last}" if most else last


def _term(workflow: Workflow) -> Remarks:
    if workflow.expires < datetime.now(UTC).date():
        yield "expires", "over: every call is refused; expected a day to come"


def _claims(agent: AgentRule) -> Remarks:
    named = {claim.name for claim in agent.claims}
    for name in sorted(named & UNLASTING.keys()):
        if UNLASTING[name] not in named:
            yield (
                name,
                (
                    f"a name that somebody else can take over one day; {UNLASTING[name]} beside it says "
                    "who is meant"
                ),
            )


def _intent(workflow: Workflow, intent: Intent) -> Remarks:
    if intent.delegated == "present":
        text = (
            "where the user hands the choice on, whoever writes that source chooses the action; "
            "the arguments' origins still hold"
        )
        yield "delegated", text
    if intent.reader:
        yield (
            "unclear" if intent.words else "",
            "a model may find this request in words that nobody listed; the arguments' origins still hold",
        )
    if intent.unheard != "deny" and not any(
        intent.name in t.needs and t.effect != "read" for t in workflow.tools.values()
    ):
        yield (
            "unheard",
            (
                "says nothing: no tool that acts needs this intent, and a read is cheaper to allow or "
                "refuse than to ask about"
            ),
        )


def _overlaps(workflow: Workflow) -> Blocks:
    """Words that two intents share, the first of each two.

    Whoever says the longer phrase does not ask for the shorter one's act.
    """
    words = {name: intent.words for name, intent in workflow.intents.items()}
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, phrase, other, longer in overlaps(words):
        shared.setdefault((name, other), []).append((phrase, longer))
    for (name, other), [(phrase, longer), *more] in shared.items():
        others = "".join(f"; `{each}` in `{its}`" for each, its in more)
        text = f"`{phrase}` of {name} is also in `{longer}` of {other}{others}"
        yield ("intents", name, "words", words[name].index(phrase)), iter([("", text)])


def _pins(workflow: Workflow) -> Blocks:
    """Every tool that is not pinned, in one remark at the first of them."""
    missing: dict[str, list[str]] = {}
    for tool in workflow.tools.values():
        if (
            not tool.definition
        ):  # audience and scope alone are then the gate's own, which no other server accepts
            missing.setdefault(
                ", ".join(
                    n for n in ("audience", "scope", "definition") if not getattr(tool, n)
                ),
                [],
            ).append(tool.name)
    if missing:
        what = "; ".join(f"{names} of {_and(tools)}" for names, tools in missing.items())
        text = (
            f"not pinned: {what} (the gate fills in its own; a changed tool is not noticed "
            "without definition)"
        )
        first = next(iter(missing.values()))[0]
        yield ("tools", first), iter([("", text)])


def _limits(workflow: Workflow) -> Remarks:
    """Of a workflow for conversations: a limit of all calls that none gets back."""
    counted = {
        (each.tool, each.per) for tool in workflow.tools.values() for each in tool.limits
    }
    if (ANY, "run") in counted and {"turn", "conversation"} & {per for _, per in counted}:
        text = (
            "`count: any, per: run` counts every call of a conversation, which ends there for "
            "good: `per: turn` begins again when the user speaks"
        )
        yield "", text


def _tool(tool: Tool) -> Remarks:
    picky = [rule for rule in tool.args.values() if rule.needs]
    free = any(rule.optional and not rule.needs for rule in tool.args.values()) or not any(
        rule.optional for rule in picky
    )
    for need in tool.needs if picky and ANY not in tool.needs else ():
        barred = next((r for r in picky if not r.optional and need not in r.needs), None)
        if barred:
            yield (
                "needs",
                (
                    f"{need} alone never suffices: {barred.name} is always sent and needs "
                    f"{' or '.join(barred.needs)}"
                ),
            )
        elif not free and not any(need in rule.needs for rule in picky):
            yield (
                "needs",
                f"{need} alone may send no argument that is optional (each needs another intent)",
            )


def _asking(workflow: Workflow, tool: Tool) -> Remarks:
    """Of several rules, those that ask although their `when` does not hold."""
    open_ = any(
        c.answer == "step_up"
        for c in causes(
            tool, {name: intent.unclear for name, intent in workflow.intents.items()}
        )
    )
    narrow = [rule.id for rule in tool.step_ups if rule.when]
    if open_ and narrow and len(tool.step_ups) > 1 and not tool.by_when:
        yield (
            "",
            (
                f"{_and(narrow)} asks whenever anything is left open, unless a rule says when it asks "
                "(intent: unclear, origin: unknown)"
            ),
        )


def _fact(workflow: Workflow, tool: Tool, fact: Fact) -> Remarks:
    if set(fact.path) & {*FIND, NUMBERS}:
        yield (
            "find",
            f"read out of a text that the user named: whoever wrote that text chose the {fact.type}",
        )
    written = next((name for name in fact.named_by if tool.facts[name].type == "text"), None)
    if written and fact.type in FINDABLE:
        yield (
            "named_by",
            f"whoever writes {written} chooses which of the user's words mean this {fact.type}",
        )
    led = _label_that_leads(workflow, tool)
    if led and fact.named and fact.type in FINDABLE:
        text = (
            f"trusted also where {led[0]} names the call: whoever writes {led[1]} chooses which "
            "of the user's words lead here"
        )
        yield "trust", text
    worded = [rule for rule in _unnamed(tool) if not rule.page_size and not _sizes(tool, rule)]
    if fact.named_by and worded:
        by = [
            next((s for s in rule.sources if stands_for_words(s, workflow.tools)), None)
            for rule in worded
        ]
        too = "too" if None in by else f"too, or the call is named, by {_and(by)}"
        free = " and ".join(rule.name for rule in worded)
        yield (
            "named_by",
            (
                f"rows count only where the user's words hold {free} {too} (a search that the model "
                "worded means nobody)"
            ),
        )


def _argument(tool: Tool, rule: Rule) -> Remarks:
    if _sizes(tool, rule) and rule in _unnamed(tool):
        yield (
            "",
            (
                "the model chooses how many rows, so none can be singled out; page_size: true, if it is "
                "the most rows returned"
            ),
        )
    if rule.needs and set(tool.needs) <= set(rule.needs):
        yield "needs", "says nothing: the tool's own needs asks for one of these already"


def _acting(workflow: Workflow, tool: Tool, rule: Rule, steered: dict[str, str]) -> Remarks:
    """An argument of a tool that is not a read. `steered`: see `_steered`."""
    if MODEL in rule.sources and not any(rule.name in step.show for step in tool.step_ups):
        yield "from", "the model may write it, and no step-up shows it to a person"
    for key, sources in (
        ("from", rule.sources),
        ("at_most", (rule.at_most,) if rule.at_most else ()),
    ):
        led = [
            source
            for source in sources
            if source.tool in steered and not _is_named(workflow, source)
        ]
        if led:
            chosen = _and(steered[source.tool] for source in led)
            says = "say" if len(led) > 1 else "says"
            yield key, f"steerable: the model chooses {chosen}, and so what {_and(led)} {says}"
    for handle, others in _untied(workflow, tool, rule):
        which = (
            f"{_and(others)}, which {'come' if len(others) > 1 else 'comes'} from {handle.tool}"
        )
        yield (
            "from",
            (
                f"nothing ties it to {which}: they may be those of another object; {rule.name}: "
                f"{{from: [{handle}]}} would tie it"
            ),
        )
    if rule.type == "datetime" and rule.unknown_origin == "deny" and rule.sources == (PROMPT,):
        yield (
            "from",
            (
                "refused where the user names the day and the time apart; unknown_origin: confirm or "
                "step_up would ask"
            ),
        )
    open_ = [source for source in rule.sources if _is_any_row(workflow, source)]
    if open_ and tool.effect == "destructive" and rule.type == "id":
        yield (
            "from",
            (
                f"any row of {_and(open_)} counts, also one that the user did not mean (named_by on it "
                "says which do)"
            ),
        )
    if COMPUTED in rule.sources:
        unnamed = [source for source in open_ if not _is_named(workflow, source)]
        if unnamed:
            text = (
                f"computed from any rows of {_and(unnamed)}, also those that the user did not "
                "mean (named_by on it says which do)"
            )
            yield "from", text
        if rule.maximum is None and not rule.at_most:
            yield (
                "from",
                "computed without max or at_most: a sum or a multiple is more than any of its numbers",
            )


def _untied(workflow: Workflow, tool: Tool, rule: Rule) -> Iterator[tuple[Source, list[str]]]:
    """Reads whose values a call takes, perhaps of another object than it names; and what would
    tie them.
    """
    values: dict[str, list[str]] = {}
    for other in tool.args.values():
        taken = [
            s for s in other.references if s == other.at_most or not other.free
        ]  # what the model may write is only bounded
        read_from = [source.tool for source in taken if of_call(source).returned]
        for name in dict.fromkeys(
            read_from if other is not rule and not other.any_call else ()
        ):
            values.setdefault(name, []).append(other.name)
    for name, others in values.items():
        handle = (
            _handle(tool, rule, workflow.tools[name])
            if any(source.tool != name for source in rule.sources)
            else None
        )
        if handle:
            yield handle, others


def _handle(tool: Tool, rule: Rule, read: Tool) -> Source | None:
    """The argument or fact of a read that says which object it returned, if an argument names
    such an object.

    They are known to name the same by one pattern, by being all that is looked up by, or by the
    name of the object's id.
    """
    if read.effect != "read":
        return None
    name = rule.name.rpartition(".")[2].removesuffix(EACH)
    own = _objects(name, tool) & _objects("id", read)
    for other, argument in read.args.items():
        alike = (
            rule.pattern is not None
            and argument.pattern
            and argument.pattern.source == rule.pattern.source
        )
        looked_up = name == other and len(read.args) == 1
        if (
            (alike or looked_up or own & _objects(other, read))
            and "." not in other
            and not argument.max_items
        ):
            return Source("arg", read.name, other)
    for other, fact in read.facts.items():
        if fact.type == "id" and own & _objects(other, read):
            return Source("fact", read.name, other)
    return None


def _objects(name: str, tool: Tool) -> frozenset[str]:
    """What an argument or fact may be the id of, in words.

    ``order_id`` of an order, ``id`` of whatever the tool's name says.
    """
    of = tool.name if name == "id" else name.removesuffix("_id") if name.endswith("_id") else ""
    return stems(re.sub(r"[^A-Za-z]+", " ", of))


def _unnamed(tool: Tool) -> list[Rule]:
    """Arguments that the user need not name, and that have no one value."""
    return [
        rule for rule in tool.args.values() if rule.equals is None and rule.sources != (PROMPT,)
    ]


def _sizes(tool: Tool, rule: Rule) -> bool:
    """Whether an argument is the undeclared page size of a read with labelled rows."""
    return (
        tool.effect == "read"
        and any(fact.named_by for fact in tool.facts.values())
        and is_size(rule)
        and not rule.page_size
    )


def _label_that_leads(workflow: Workflow, tool: Tool) -> tuple[Source, str] | None:
    """A text that labels an origin of an argument.

    It decides what this tool reads, and so what `trust: named` trusts of that.
    """
    for source in (
        source
        for rule in tool.args.values()
        for source in rule.sources
        if kind_of(source).row_fact
    ):
        facts = workflow.tools[source.tool].facts
        for name in facts[source.field].named_by:
            if facts[name].type == "text":
                return source, name
    return None


def _is_any_row(workflow: Workflow, source: Source) -> bool:
    fact = (
        workflow.tools[source.tool].facts.get(source.field)
        if kind_of(source).row_fact
        else None
    )
    return fact is not None and EACH in fact.path and not (fact.named_by or fact.where)


def _is_named(workflow: Workflow, source: Source) -> bool:
    """Whether it counts only of a call that the user named, whatever the model may have
    called.
    """
    fact = (
        workflow.tools[source.tool].facts.get(source.field)
        if of_call(source).returned
        else None
    )
    return fact is not None and fact.named


def _steered(workflow: Workflow) -> dict[str, str]:
    """Reads that the model chooses, each with the argument by which it does.

    It chooses directly, or by the result of a read that it chose.
    """
    found = {}
    grew = True
    while grew:
        grew = False
        for tool in workflow.tools.values():
            open_ = [r for r in tool.args.values() if r.equals is None]
            chosen = next(
                (
                    r.name
                    for r in open_
                    if MODEL in r.sources or any(s.tool in found for s in r.references)
                ),
                "",
            )
            if chosen and tool.effect == "read" and tool.name not in found:
                found[tool.name] = f"{tool.name}.{chosen}"
                grew = True
    return found
