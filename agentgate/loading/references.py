"""References: what ``prompt``, ``user``, ``computed``, ``model``, ``tool.fact``, ``tool.argument`` name, and which tools are referred to.

Rules: the longest declared tool name wins; what is not declared is no origin; what a tool that acts returned is no origin,
except a new id.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.decision.origin_kinds import of_call
from agentgate.loading.blocks import ArgumentBlock, ToolBlock
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, USER, Source

ALONE = {str(source): source for source in (PROMPT, USER, COMPUTED, MODEL)}  # origins that name no tool


class References:
    """The references of one workflow. `used`: tool -> names of its arguments that others refer to (empty: only its facts)."""

    __slots__ = ("document", "share", "tools", "used")

    def __init__(self, document: Document, tools: Mapping[str, ToolBlock], share: Sharing) -> None:
        self.document, self.tools, self.share = document, tools, share
        self.used: dict[str, set[str]] = {}

    def source(self, text: str, path: Path) -> Source | None:
        """The origin that `text` names, or None after reporting why it is none. The longest declared tool name wins."""
        if text in ALONE:
            return ALONE[text]
        name = max((t for t in self.tools if text.startswith(t + ".")), key=len, default="")
        if not name:
            self.document.report(
                path, shown(text), "prompt, model, user, computed, or a fact or argument of a declared tool", self._meant(text)
            )
            return None
        field, tool = text[len(name) + 1 :], self.tools[name]
        if field in (tool.facts or {}):
            if tool.effect != "read" and (tool.facts or {})[field].type != "id":
                expected = "a fact of a read, or a new id (results of a tool that acts are no origin: a refused value would launder itself)"
                self.document.report(path, f"{shown(text)}, a result of the {tool.effect} tool {name}", expected)
                return None
            return self.noted(Source("fact", name, field))
        if field in tool.args and "." in field:
            self.document.report(path, f"{shown(text)}, inside an argument", "a fact, or a whole argument (a part of one is no origin)")
            return None
        if field in tool.args:
            return self.noted(Source("arg", name, field))
        declared = ", ".join([*(tool.facts or {}), *tool.args]) or "nothing"
        self.document.report(path, shown(text), f"a fact or argument that {name} declares ({declared})", self._meant(text))
        return None

    def noted(self, source: Source) -> Source:
        """The source, after noting that its tool, and an argument it names, are referred to."""
        names = self.used.setdefault(source.tool, set())
        if not of_call(source).returned:
            names.add(source.field)
            currency = self.tools[source.tool].args[source.field].currency
            if currency:
                names.add(currency)
        return source

    def _meant(self, text: str) -> str:
        choices = {*ALONE} | {f"{n}.{f}" for n, t in self.tools.items() for f in [*(t.facts or {}), *t.args]}
        return did_you_mean(text, choices)

    def typed(self, source: Source) -> tuple[str, str]:
        """Type and currency sibling of what `source` names."""
        tool = self.tools[source.tool]
        if of_call(source).returned:
            fact = (tool.facts or {})[source.field]
            return fact.type, fact.currency or ""
        block = tool.args[source.field]
        return argument_type(block), block.currency or ""

    def sources(self, texts: list[str], path: Path) -> tuple[Source, ...]:
        """Every origin of a list that could be read."""
        found = (self.source(text, (*path, index)) for index, text in enumerate(texts))
        return self.share(tuple(s for s in found if s is not None))


def argument_type(block: ArgumentBlock) -> str:
    """The type an argument is compared under: a range without a type is of numbers; everything else without one is text."""
    return block.type or ("number" if block.min is not None or block.max is not None else "text")
