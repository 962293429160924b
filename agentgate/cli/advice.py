"""What a workflow permits that its author may not have noticed. Advice never changes what loads.

An intent that a named source may choose (`delegated: present`); intents of an argument that say nothing, or that leave one of the
tool's without any; and for tools that act: an argument that the model writes and
no step-up shows; an argument whose value comes from a read that the model chose (it steers what that read says); an object to
change that may be any row of a read; an address or account whose row is named by free text, or that such a row leads to; labelled
rows of a search that the model may word, or of a page whose size it chooses; a fact read out of a text; a datetime that only a
prompt may name; an amount computed from any rows, or without a bound; and a tool whose address, scope or definition is not pinned.
Where a workload acts for nobody and no prompt decides (`intents: {none: ...}`, no `for_user`), the author said out loud that
the calling job takes the model's place, so only the last applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from agentgate.decision.earlier import stands_for_words
from agentgate.decision.origin_kinds import kind_of, of_call
from agentgate.loading.yaml_nodes import Document, Path, dotted
from agentgate.values.paths import EACH, FIND, FINDABLE, NUMBERS
from agentgate.workflow.model import ANY, Tool, Workflow
from agentgate.workflow.page_size import is_size
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, Rule, Source


@dataclass(frozen=True, slots=True)
class Advice:
    """One remark at an exact place (line and column from 1)."""

    file: str
    line: int
    column: int
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: warning: {self.field}: {self.text}"


def advise(workflow: Workflow, document: Document) -> tuple[Advice, ...]:
    """All remarks on one loaded workflow, in the order of the file.

    Args:
        workflow: as loaded.
        document: the same file, for columns.
    """
    found = [*_unpinned(workflow), *_delegated(workflow), *_found(workflow), *_labelled(workflow), *_led(workflow), *_searched(workflow)]
    found += _needs(workflow)
    if workflow.intents or workflow.for_user is not None:
        found += [*_unseen(workflow), *_steerable(workflow), *_apart(workflow), *_any_row(workflow), *_computed(workflow)]
    placed = [Advice(document.file, *document.place(path, key=True), dotted(path), text) for path, text in found]
    return tuple(sorted(placed, key=lambda a: (a.line, a.column)))


def gathered(found: Iterable[Advice]) -> tuple[Advice, ...]:
    """One remark per sentence and file: at its first place, with every other place that it holds for.

    Args:
        found: remarks in the order of their files.
    """
    alike: dict[tuple[str, str], list[Advice]] = {}
    for each in found:
        alike.setdefault((each.file, each.text), []).append(each)
    return tuple(replace(first, text=first.text + _also(others)) for first, *others in alike.values())


def _also(others: list[Advice]) -> str:
    if not others:
        return ""
    return f" (and {len(others)} more: " + ", ".join(f"{each.field} {each.line}:{each.column}" for each in others) + ")"


def _and(names: Iterable[object]) -> str:
    """Each once, as a sentence lists them."""
    *most, last = dict.fromkeys(map(str, names))
    return f"{', '.join(most)} and {last}" if most else last


def _acting(workflow: Workflow) -> Iterator[tuple[Tool, Rule]]:
    return ((tool, rule) for tool in workflow.tools.values() if tool.effect != "read" for rule in tool.args.values())


def _unpinned(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool in workflow.tools.values():
        missing = [name for name in ("audience", "scope", "definition") if not getattr(tool, name)]
        if not tool.definition:  # audience and scope alone are the gate's own then, which nobody else accepts
            yield (
                ("tools", tool.name),
                f"not pinned: {', '.join(missing)} (the gate fills in its own; a changed tool is not noticed without definition)",
            )


def _delegated(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for intent in workflow.intents.values():
        if intent.delegated == "present":
            text = "where the user hands the choice on, whoever writes that source chooses the action; the arguments' origins still hold"
            yield ("intents", intent.name, "delegated"), text
        if intent.unheard == "step_up" and not any(intent.name in t.needs and t.effect != "read" for t in workflow.tools.values()):
            text = "says nothing: no tool that acts needs this intent, and a read is cheaper to allow or refuse than to ask about"
            yield ("intents", intent.name, "unheard"), text


def _needs(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """Intents of single arguments: a list that the tool's own already implies, and an intent that may send nothing."""
    for tool in workflow.tools.values():
        for rule in tool.args.values():
            if rule.needs and set(tool.needs) <= set(rule.needs):
                text = "says nothing: the tool's own needs asks for one of these already"
                yield ("tools", tool.name, "args", rule.name, "needs"), text
        picky = [rule for rule in tool.args.values() if rule.needs]
        free = any(rule.optional and not rule.needs for rule in tool.args.values()) or not any(rule.optional for rule in picky)
        for need in tool.needs if picky and ANY not in tool.needs else ():
            barred = next((r for r in picky if not r.optional and need not in r.needs), None)
            if barred is not None:
                text = f"{need} alone never suffices: {barred.name} is always sent and needs {' or '.join(barred.needs)}"
                yield ("tools", tool.name, "needs"), text
            elif not free and not any(need in rule.needs for rule in picky):
                yield ("tools", tool.name, "needs"), f"{need} alone may send no argument that is optional (each needs another intent)"


def _found(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool in workflow.tools.values():
        for fact in tool.facts.values():
            if set(fact.path) & {*FIND, NUMBERS}:
                text = f"read out of a text that the user named: whoever wrote that text chose the {fact.type}"
                yield ("tools", tool.name, "facts", fact.name, "find"), text


def _labelled(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool in workflow.tools.values():
        for fact in tool.facts.values():
            written = [name for name in fact.named_by if tool.facts[name].type == "text"]
            if written and fact.type in FINDABLE:
                text = f"whoever writes {written[0]} chooses which of the user's words mean this {fact.type}"
                yield ("tools", tool.name, "facts", fact.name, "named_by"), text


def _led(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """A label names what is read next, and so what `trust: named` trusts of it."""
    for tool in workflow.tools.values():
        origins = [s for rule in tool.args.values() for s in rule.sources if kind_of(s).row_fact]
        ways = [(s, workflow.tools[s.tool].facts, workflow.tools[s.tool].facts[s.field].named_by) for s in origins]
        led = next(((source, name) for source, facts, labels in ways for name in labels if facts[name].type == "text"), None)
        for fact in tool.facts.values() if led is not None else ():
            if led is not None and fact.named and fact.type in FINDABLE:
                text = f"trusted also where {led[0]} names the call: whoever writes {led[1]} chooses which of the user's words lead here"
                yield ("tools", tool.name, "facts", fact.name, "trust"), text


def _searched(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool in workflow.tools.values():
        asked = [rule for rule in tool.args.values() if rule.equals is None and rule.sources != (PROMPT,)]
        labelled = tool.effect == "read" and any(fact.named_by for fact in tool.facts.values())
        sizes = [rule.name for rule in asked if labelled and is_size(rule) and not rule.page_size]
        for name in sizes:
            text = "the model chooses how many rows, so none can be singled out; page_size: true, if it is the most rows returned"
            yield ("tools", tool.name, "args", name), text
        steered = [rule for rule in asked if not rule.page_size and rule.name not in sizes]
        free = " and ".join(rule.name for rule in steered)
        led = [next((s for s in rule.sources if stands_for_words(s, workflow.tools)), None) for rule in steered]
        too = "too" if None in led or not led else f"too, or the call is named, by {_and(led)}"
        for fact in tool.facts.values() if free else ():
            if fact.named_by:
                text = f"rows count only where the user's words hold {free} {too} (a search that the model worded means nobody)"
                yield ("tools", tool.name, "facts", fact.name, "named_by"), text


def _any_row(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool, rule in _acting(workflow):
        open_ = [s for s in rule.sources if tool.effect == "destructive" and rule.type == "id" and _is_any_row(workflow, s)]
        if open_:
            text = f"any row of {_and(open_)} counts, also one that the user did not mean (named_by on it says which do)"
            yield ("tools", tool.name, "args", rule.name, "from"), text


def _computed(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool, rule in _acting(workflow):
        if COMPUTED in rule.sources:
            open_ = [s for s in rule.sources if _is_any_row(workflow, s) and not _is_named(workflow, s)]
            if open_:
                text = f"computed from any rows of {_and(open_)}, also those that the user did not mean (named_by on it says which do)"
                yield ("tools", tool.name, "args", rule.name, "from"), text
            if rule.maximum is None and rule.at_most is None:
                text = "computed without max or at_most: a sum or a multiple is more than any of its numbers"
                yield ("tools", tool.name, "args", rule.name, "from"), text


def _is_any_row(workflow: Workflow, source: Source) -> bool:
    fact = workflow.tools[source.tool].facts.get(source.field) if kind_of(source).row_fact else None
    return fact is not None and EACH in fact.path and not (fact.named_by or fact.where)


def _unseen(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool, rule in _acting(workflow):
        if MODEL in rule.sources and not any(rule.name in step.show for step in tool.step_ups):
            yield ("tools", tool.name, "args", rule.name, "from"), "the model may write it, and no step-up shows it to a person"


def _apart(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    for tool, rule in _acting(workflow):
        if rule.type == "datetime" and rule.unknown_origin == "deny" and rule.sources == (PROMPT,):
            text = "refused where the user names the day and the time apart; unknown_origin: step_up would ask a person"
            yield ("tools", tool.name, "args", rule.name, "from"), text


def _steerable(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    steered = _steered(workflow)
    for tool, rule in _acting(workflow):
        for key, sources in (("from", rule.sources), ("at_most", (rule.at_most,) if rule.at_most is not None else ())):
            led = [source for source in sources if source.tool in steered and not _is_named(workflow, source)]
            if led:
                chosen = _and(steered[source.tool] for source in led)
                text = f"steerable: the model chooses {chosen}, and so what {_and(led)} {'say' if len(led) > 1 else 'says'}"
                yield ("tools", tool.name, "args", rule.name, key), text


def _is_named(workflow: Workflow, source: Source) -> bool:
    """Whether it counts only of a call that the user named, whatever the model may have called."""
    fact = workflow.tools[source.tool].facts.get(source.field) if of_call(source).returned else None
    return fact is not None and fact.named


def _steered(workflow: Workflow) -> dict[str, str]:
    """Reads that the model chooses, directly or by the result of one it chose -> the argument by which it does."""
    found: dict[str, str] = {}
    reads = [tool for tool in workflow.tools.values() if tool.effect == "read"]
    grew = True
    while grew:
        grew = False
        for tool in reads:
            chosen = next((r.name for r in tool.args.values() if MODEL in r.sources or any(s.tool in found for s in r.references)), "")
            if chosen and tool.name not in found:
                found[tool.name] = f"{tool.name}.{chosen}"
                grew = True
    return found
