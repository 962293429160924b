"""One fact of a tool's result: from its block to the frozen value, with what is wrong about it.

Rules: a fact is one value of one row; what it says of its row (`currency`, `named_by`, `where`) stands in that row; text is looked
into only where the user named its source.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.errors import CanonicalError
from agentgate.loading.blocks import FactBlock, ToolBlock
from agentgate.loading.references import References, argument_type
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.values.entities import NUMERIC, TOKENISED
from agentgate.values.paths import EACH, FINDABLE, KEY, NUMBERS, VALUES
from agentgate.values.patterns import Pattern
from agentgate.workflow.page_size import counted
from agentgate.workflow.rule import Fact, Source


def pattern_of(document: Document, text: str | None, path: Path) -> Pattern | None:
    """The shared compiled pattern, or None after reporting."""
    if text is None:
        return None
    try:
        return Pattern.of(text)
    except CanonicalError as error:
        document.report((*path, "pattern"), error.got, error.expected)
        return None


class FactRules:
    """Compiles the facts of one file's tools."""

    __slots__ = ("document", "references", "share", "tools")

    def __init__(self, document: Document, tools: Mapping[str, ToolBlock], references: References, share: Sharing) -> None:
        self.document, self.tools, self.references, self.share = document, tools, references, share

    def fact(self, tool: str, name: str, block: FactBlock) -> Fact:
        """One declared field of a result."""
        path: Path = ("tools", tool, "facts", name)
        facts = self.tools[tool].facts or {}
        if name in self.tools[tool].args:
            self.document.report(
                path, f"{name}, also an argument", f"another name ({tool}.{name} must mean one thing; path: says where it is)", key=True
            )
        if block.currency is not None:
            sibling, here = facts.get(block.currency), (*path, "currency")
            if block.type != "money":
                self.document.report(here, f"currency on a {block.type}", "currency only on type money", key=True)
            elif sibling is None:
                self.document.report(here, shown(block.currency), f"a fact of {tool}", did_you_mean(block.currency, facts))
            elif sibling.type != "text":
                self.document.report(here, f"{block.currency}, a {sibling.type}", "a fact of type text")
        if block.pattern is not None and block.type in {*NUMERIC, "boolean"}:
            self.document.report((*path, "pattern"), f"pattern on a {block.type}", "a pattern only on text", key=True)
        if block.type == "json":
            self.document.report((*path, "type"), "json", "the type of one value (a fact is a scalar)")
        steps = self._steps(name if block.path is None else block.path, path)
        if block.key:
            if steps[-2:] != (VALUES, EACH) or block.find is not None:
                expected = "path: ending in .* without find (the fact is the key of each value there)"
                self.document.report((*path, "key"), "key of no value", expected, key=True)
            if block.type in {*NUMERIC, "boolean"}:
                self.document.report((*path, "key"), f"a key as {block.type}", "a type of text (a key of an object is text)", key=True)
            steps = (*steps, KEY)
        named = block.trust == "named"
        if block.find is not None:
            if block.find == "any" and block.type != "number":
                expected = "type: number (of addresses, a text that others add to may hold theirs)"
                self.document.report((*path, "find"), f"find: any on a {block.type}", expected, key=True)
            if block.find == "one" and block.type not in FINDABLE:
                report_at, kinds = (*path, "find"), ", ".join(sorted(FINDABLE))
                self.document.report(report_at, f"find on a {block.type}", f"a type that is told apart in any text: {kinds}", key=True)
            if not named:
                expected = "trust: named (text is anybody's: only a source that the user named is looked into)"
                self.document.report((*path, "find"), "find without trust", expected, key=True)
            steps = (*steps, f"[{block.type}]") if block.find == "one" else (*steps, NUMBERS, EACH)
        labels = self._row(tool, steps, block, path)
        return self.share(
            Fact(
                name,
                self.document.line(path),
                block.type,
                self.share(steps),
                block.currency or "",
                named,
                pattern_of(self.document, block.pattern, path),
                self.share(labels),
                self.share(tuple((block.where or {}).items())),
            )
        )

    def one_row_each(self, source: Source) -> bool:
        """Whether each row of the tool's facts is one element of the list that this fact is in."""
        lists = {name: self._list_of(source.tool, name, block) for name, block in (self.tools[source.tool].facts or {}).items()}
        own = lists[source.field]
        return bool(own) and all(own[: len(each)] == each for each in lists.values())

    def one_list(self, tool: str) -> tuple[str, ...] | None:
        """The list whose elements the rows of a tool's results are; None where there is none (`agentgate.workflow.page_size.counted`)."""
        return counted(self._list_of(tool, name, block) for name, block in (self.tools[tool].facts or {}).items())

    def _row(self, tool: str, steps: tuple[str, ...], block: FactBlock, path: Path) -> tuple[str, ...]:
        """`named_by` and `where`: facts that stand in the same row, and what that call was asked for."""
        facts, args, report = self.tools[tool].facts or {}, self.tools[tool].args, self.document.report
        own, labels = _list(steps), list(block.named_by or ())
        for argument in args if labels else ():  # kept, to know who chose the rows
            self.references.noted(Source("arg", tool, argument))
        for key, names in (("named_by", labels), ("where", list(block.where or ()))):
            for index, name in enumerate(names):
                here: Path = (*path, key, index if key == "named_by" else name)
                label = facts.get(name)
                if label is None:
                    report(here, shown(name), f"a fact of {tool}", did_you_mean(name, facts))
                    continue
                each = self._list_of(tool, name, label)
                if own[: len(each)] != each:
                    report(here, f"{name}, of another list", "a fact of the same row: in the same list, or outside of it")
                elif key == "named_by" and label.type not in TOKENISED:
                    report(here, f"{name}, a {label.type}", "a fact whose value a user can name: " + ", ".join(sorted(TOKENISED)))
        for name, argument in (block.where or {}).items():
            here = (*path, "where", name)
            asked = args.get(argument)
            if asked is None or "." in argument or asked.max_items is not None:
                expected = f"an argument of {tool} that is one value"
                report(here, shown(argument), expected, did_you_mean(argument, args) if asked is None else "")
            elif name in facts and not comparable(facts[name].type, argument_type(asked)):
                report(here, f"a {facts[name].type} like a {argument_type(asked)}", "an argument whose values can equal the fact's")
            else:
                self.references.noted(Source("arg", tool, argument))
        return tuple(labels)

    def _list_of(self, tool: str, name: str, block: FactBlock) -> tuple[str, ...]:
        steps = self._steps(name if block.path is None else block.path, ("tools", tool, "facts", name))
        return (*steps, NUMBERS, EACH) if block.find == "any" else _list(steps)

    def _steps(self, text: str, path: Path) -> tuple[str, ...]:
        """``transactions[].recipient`` as keys; ``[]`` walks a list, ``*`` an object's values; ``.`` is the result itself."""
        if text == ".":
            return ()
        steps: list[str] = []
        for index, part in enumerate(text.split(".")):
            key = part.rstrip("[]")
            lists = part[len(key) :]
            plain = key == "*" or not set("[]{}*") & set(key)
            good = (key or (index == 0 and lists)) and key.isascii() and key.isprintable() and plain
            if not good or lists.replace("[]", ""):
                expected = "keys joined by dots, [] after a list, * alone for each value of an object: orders[].lines.*.sku"
                self.document.report((*path, "path"), shown(text), expected)
                return ()
            steps.extend([VALUES, EACH] if key == "*" else [key] if key else [])
            steps.extend(["[]"] * (len(lists) // 2))
        return tuple(steps)


def _list(steps: tuple[str, ...]) -> tuple[str, ...]:
    """The part of a path up to its last list; empty where there is none."""
    return steps[: len(steps) - steps[::-1].index(EACH)] if EACH in steps else ()


def _family(kind: str) -> str:
    if kind in {"number", "integer"}:
        return "number"
    return kind


def comparable(kind: str, other: str) -> bool:
    """Whether a value of one type can equal one of the other: keys are decimals, booleans or text in a type's own form."""
    one, two = _family(kind), _family(other)
    if one == two:
        return True
    apart = {"money", "number", "boolean", "json"}
    return not {one, two} & apart and bool({one, two} & {"text", "id", "path", "user"})
