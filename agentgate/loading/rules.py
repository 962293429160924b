"""One argument or `step_up.when` condition: from its block to the frozen value, with what is wrong about it.

Rules: an operator that can never hold is a load error, not a silent refusal later (a constant outside its own pattern, a
range upside down, an origin nobody can produce); money is never compared without its currency; a constant is compared in
its type's normal form, so it must have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from agentgate.errors import CanonicalError
from agentgate.loading.blocks import ArgumentBlock, OperatorsBlock, ToolBlock, WhenBlock
from agentgate.loading.fact_rules import FactRules, comparable, pattern_of
from agentgate.loading.reach import Reach
from agentgate.loading.references import COMPUTED, MODEL, USER, References, argument_type
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.values.entities import CALCULATED, NUMERIC, TOKENISED, Key, normal
from agentgate.values.paths import EACH
from agentgate.values.patterns import Glob
from agentgate.workflow.model import Rule, Scalar, Source

_PERSONAL = frozenset({"email", "id", "phone", "text", "user"})  # types of what names a person
_OPERATORS = {"is_": "is", "in_": "in", "each_in": "each_in", "pattern": "pattern", "glob": "glob", "text": "text", "min": "min"}


@lru_cache(maxsize=65536)
def _glob(source: str) -> Glob:
    return Glob(source)


class Site:
    """What reading one workflow's rules needs: the document for places, the tools for references, the roles, the sharing."""

    __slots__ = ("document", "facts", "reach", "references", "roles", "share", "tools")

    def __init__(self, document: Document, tools: Mapping[str, ToolBlock], roles: Mapping[str, frozenset[str]], share: Sharing) -> None:
        self.document, self.tools, self.roles, self.share = document, tools, roles, share
        self.references = References(document, tools, share)
        self.facts = FactRules(document, tools, self.references, share)
        self.reach = Reach(self.facts)

    # --- operators -------------------------------------------------------------------------------------------------------

    def glob(self, text: str | None, path: Path) -> Glob | None:
        """The shared compiled glob, or None after reporting."""
        if text is None:
            return None
        here = (*path, "glob")
        if not {".", "..", ""}.isdisjoint(text.removeprefix("/").split("/")):
            self.document.report(here, shown(text), "no empty, '.' or '..' segment (such a value never matches)")
            return None
        if "***" in text:
            self.document.report(here, shown(text), "* or **")
            return None
        try:
            return _glob(text)
        except CanonicalError as error:
            self.document.report(here, error.got, error.expected)
            return None

    def constants(self, kind: str, values: list[Scalar], path: Path) -> tuple[Key, ...]:
        """Constants as comparison keys; one that has no normal form can never equal anything."""
        keys = []
        for index, value in enumerate(values):
            key = normal(kind, value)
            if key is None:
                where = (*path, index) if self.document.node((*path, index)) else path
                self.document.report(where, shown(value), f"{kind} in normal form (nothing else can ever equal it)")
            else:
                keys.append(key)
        return tuple(keys)  # not shared: True equals 1

    def operators(self, block: OperatorsBlock, kind: str, path: Path) -> dict[str, Any]:
        """The fields of a `Rule` that `args` and `step_up.when` share."""
        report = self.document.report
        found: dict[str, Any] = {
            "pattern": pattern_of(self.document, block.pattern, path),
            "glob": self.glob(block.glob, path),
            "text": block.text,
        }
        if block.is_ is not None and block.in_ is not None:
            report((*path, "in"), "is and in", "one of them", key=True)
        if block.is_ is not None:
            found["equals"] = self.constants(kind, [block.is_], (*path, "is")) or None
        if block.in_ is not None:
            found["one_of"] = self.constants(kind, list(block.in_), (*path, "in"))
        if kind in NUMERIC or kind in {"boolean", "json"}:
            for name in ("pattern", "glob", "text"):
                if getattr(block, name) is not None and (name != "text" or kind != "json"):
                    report((*path, name), f"{name} on a {kind}", "an operator for text only on text", key=True)
        elif block.text is not None and kind not in {"text", "json"}:
            report((*path, "text"), f"text beside type {kind}", "one of them (text: N is free text)", key=True)
        if (block.min is None) != (block.max is None):
            one, other = ("min", "max") if block.max is None else ("max", "min")
            report((*path, one), f"{one} without {other}", "min and max, both", key=True)
        elif block.min is not None and block.max is not None:
            found["minimum"], found["maximum"] = block.min, block.max
            if kind not in NUMERIC:
                report((*path, "min"), f"min and max on a {kind}", "a range only on money, number or integer", key=True)
            if block.min > block.max:
                report((*path, "min"), f"{block.min} above max {block.max}", "min at most max (nothing is inside)")
            if kind == "integer" and (block.min % 1 or block.max % 1):
                report((*path, "min"), f"{block.min} to {block.max}", "whole numbers for an integer")
        constants = (*(found.get("equals") or ()), *(found.get("one_of") or ()))
        if constants and not any(_possible(key, found) for key in constants):
            report(
                (*path, "in" if block.in_ is not None else "is"),
                "constants outside the other operators",
                "at least one that the other operators allow",
            )
        return found

    def rule(self, tool: str, name: str, block: ArgumentBlock) -> Rule:
        """One argument of a tool, with everything that is wrong about it reported."""
        path: Path = ("tools", tool, "args", name)
        report, kind = self.document.report, argument_type(block)
        found = self.operators(block, kind, path)
        self._nested(tool, name, block, path)
        if block.each_in is not None:
            found["one_of"] = self.constants(kind, list(block.each_in), (*path, "each_in"))
            if block.in_ is not None or block.is_ is not None:
                report((*path, "each_in"), "each_in beside is or in", "one of them (each_in: a list; is, in: one value)", key=True)
            if block.max_items is None:
                report((*path, "each_in"), "each_in without max_items", "max_items: how many elements at most", key=True)
        elif block.max_items is not None and (block.in_ is not None or block.is_ is not None):
            report((*path, "max_items"), "is or in on a list", "each_in (every element of the list is one of)", key=True)
        scopes: frozenset[str] = frozenset()
        if block.narrower_than_role is not None:
            scopes = self._role(block, path)
        sources = self.references.sources(block.from_, (*path, "from")) if block.from_ is not None else ()
        if block.select is not None:
            selected = self.reach.select(tool, block.select, kind, path)
            sources = self.share((*sources, *([] if selected is None else [selected])))
        at_most = self.reach.at_most(block, kind, path)
        entities = self._entities(block, path)
        self._origins(block, kind, sources, path)
        self._currency(tool, block, kind, path)
        if kind == "json" and (block.text is None or block.max_items is not None):
            expected = "text: how many characters of JSON at most, and no max_items (a list is one JSON value)"
            report(path, "json without text" if block.text is None else "json beside max_items", expected, key=True)
        if block.nullable and not block.optional:
            report((*path, "nullable"), "nullable without optional", "optional: true beside it (a null counts as left out)", key=True)
        if block.nullable and name.endswith(EACH):
            report((*path, "nullable"), "nullable on the elements of a list", "no nullable (an element is sent or not)", key=True)
        if block.page_size:
            self._page_size(tool, name, block, kind, (*path, "page_size"))
        if not self._narrows(block, kind, sources):
            report(
                path,
                "an argument without a rule",
                "at least one operator (text: N, pattern, in, a type, ...) or an origin other than model",
                key=True,
            )
        return self.share(
            Rule(
                name,
                self.document.line(path),
                kind,
                at_most=at_most,
                max_items=block.max_items,
                role=block.narrower_than_role or "",
                role_scopes=scopes,
                sources=sources,
                unknown_origin=block.unknown_origin or "deny",
                entities=entities,
                currency=block.currency or "",
                any_call=block.any_call,
                named_first=bool(block.named_first),
                optional=block.optional,
                nullable=bool(block.nullable),
                page_size=bool(block.page_size),
                needs=tuple(block.needs or ()),
                sensitive=block.sensitive,
                **found,
            )
        )

    def _nested(self, tool: str, name: str, block: ArgumentBlock, path: Path) -> None:
        """A leaf of a structure: one value for each element of a list is a list, and no argument is a value and a structure."""
        if "." not in name:
            return
        if EACH in name and block.max_items is None:
            self.document.report(path, f"{name} without max_items", "max_items: how many of them at most, in all elements", key=True)
        parts = name.split(".")
        for end in range(1, len(parts)):
            outer = ".".join(parts[:end])
            inside = next((other for other in (outer, outer.removesuffix(EACH)) if other in self.tools[tool].args), None)
            if inside is not None:
                self.document.report(path, f"{name} beside {inside}", "rules for the leaves, or one for the whole argument", key=True)

    def _page_size(self, tool: str, name: str, block: ArgumentBlock, kind: str, path: Path) -> None:
        """`page_size`: of a read whose rows are the elements of one list."""
        report, effect = self.document.report, self.tools[tool].effect
        if effect != "read":
            report(path, f"page_size of a {effect} tool", "page_size only on a read (the most rows it returns)", key=True)
        elif kind != "integer" or block.max_items is not None or "." in name or block.sensitive:
            shape = "inside a structure" if "." in name else "on a list" if block.max_items is not None else f"on a {kind}"
            shape = "that is sensitive" if block.sensitive else shape
            report(path, f"page_size {shape}", "one whole number that is kept: type: integer", key=True)
        elif self.facts.one_list(tool) is None:
            expected = "facts of exactly one list, which is in no other (elsewhere nobody can count what came back)"
            report(path, f"page_size of {tool}", expected, key=True)
        elif block.max is None and block.in_ is None and block.is_ is None:
            expected = "min and max: no more than the tool itself returns at once (else a full page looks short)"
            report(path, "page_size without a most", expected, key=True)

    def _role(self, block: ArgumentBlock, path: Path) -> frozenset[str]:
        role, here = block.narrower_than_role or "", (*path, "narrower_than_role")
        if role not in self.roles:
            self.document.report(
                here, shown(role), "a role of roles.yaml: " + (", ".join(sorted(self.roles)) or "none"), did_you_mean(role, self.roles)
            )
            return frozenset()
        scopes = self.roles[role]
        if block.max_items is None:
            self.document.report(
                here, "narrower_than_role without max_items", "a list: max_items, and each_in for what it may hold", key=True
            )
        if len(scopes) < 2:
            self.document.report(here, f"role {role} of {len(scopes)} scope", "a role with something narrower than itself")
        for index, value in enumerate(block.each_in or ()):
            if value not in scopes:
                self.document.report((*path, "each_in", index), shown(value), f"a scope of role {role}", did_you_mean(value, scopes))
        return scopes

    def _entities(self, block: ArgumentBlock, path: Path) -> tuple[Source, ...] | None:
        if block.entities is None:
            return None
        here = (*path, "entities")
        if argument_type(block) not in {"text", "json"}:
            self.document.report(here, f"entities on a {argument_type(block)}", "entities only on free text and json", key=True)
        if "model" in block.entities:
            at = (*here, block.entities.index("model"))
            self.document.report(at, "model", "prompt or tool.fact (model would allow every address the model writes)")
        if "computed" in block.entities:
            at = (*here, block.entities.index("computed"))
            self.document.report(at, "computed", "prompt or tool.fact (no address is computed)")
        return self.references.sources(block.entities, here)

    def _origins(self, block: ArgumentBlock, kind: str, sources: tuple[Source, ...], path: Path) -> None:
        report, here = self.document.report, (*path, "from")
        if block.select is not None and block.from_ is None:
            report((*path, "select"), "select without from", "from: where else the value may come from", key=True)
        if block.unknown_origin is not None and block.from_ is None:
            report((*path, "unknown_origin"), "unknown_origin without from", "from: with the known origins", key=True)
        if block.any_call and not any(s.tool or s == USER for s in sources) and block.at_most is None:
            report(
                (*path, "any_call"),
                "any_call without an earlier call",
                "any_call only beside from or at_most that names a tool (or user)",
                key=True,
            )
        if block.named_first:
            self._named_first(block, kind, sources, (*path, "named_first"))
        if "computed" in (block.from_ or ()):
            self._computed(block, kind, sources, (*here, (block.from_ or []).index("computed")))
        for text in block.from_ or ():
            at = (*here, (block.from_ or []).index(text))
            if text == "prompt" and kind not in TOKENISED:
                report(at, f"prompt for type {kind}", "a type that is found in a prompt: " + ", ".join(sorted(TOKENISED)))
            if text == "user" and kind not in _PERSONAL:
                report(at, f"user for type {kind}", "a type that an id of a person can be: " + ", ".join(sorted(_PERSONAL)))
            source = next((s for s in sources if s.tool and str(s) == text), None)
            if source is None:
                continue
            other, currency = self.references.typed(source)
            if not comparable(kind, other):
                report(at, f"a {kind} from a {other}", f"an origin whose values can equal a {kind}")
            elif other == "money" and not currency:
                report(at, f"{text} without a currency", f"currency: on {text} (money is never compared without)")

    def _computed(self, block: ArgumentBlock, kind: str, sources: tuple[Source, ...], path: Path) -> None:
        """`computed`: a number out of numbers that the other origins of the list admit."""
        report = self.document.report
        if kind not in CALCULATED:
            report(path, f"computed for type {kind}", "a type that is calculated: " + ", ".join(sorted(CALCULATED)))
        elif MODEL in sources:
            report(path, "computed beside model", "one of the two (what the model may write needs no calculation)")
        elif not {s.kind for s in sources} & {"prompt", "fact", "arg", "select"}:
            report(path, "computed alone", "prompt or tool.fact beside it (the numbers that it is computed from)")
        elif block.max_items is not None:
            report(path, "computed on a list", "one value (who is owed how much of several, nobody can tell)")
        elif block.named_first:
            expected = "one of the two (where the user names a number, computed would never hold: nor would half of it)"
            report(path, "computed beside named_first", expected)

    def _named_first(self, block: ArgumentBlock, kind: str, sources: tuple[Source, ...], path: Path) -> None:
        """`named_first` says something only where both the prompt and an earlier call are origins, and a prompt can hold the type."""
        if "prompt" not in (block.from_ or ()) or not any(s.tool or s == USER for s in sources) or MODEL in sources:
            expected = (
                "from: [prompt, tool.fact or user, ...] without model (it says that what the user names goes before what a tool returned)"
            )
            self.document.report(path, "named_first with nothing to go before", expected, key=True)
        if kind == "text":
            self.document.report(path, "named_first on a text", "a type that is told apart in a prompt, such as iban or email", key=True)

    def _currency(self, tool: str, block: ArgumentBlock, kind: str, path: Path) -> None:
        siblings = self.tools[tool].args
        if block.currency is None:
            operators = (block.min, block.at_most, block.is_, block.in_, block.each_in)
            compared = any(o is not None for o in operators) or any(text != "model" for text in block.from_ or ())
            if kind == "money" and compared:
                self.document.report(
                    path, "money without a currency", "currency: the argument that holds it (money is never compared without)", key=True
                )
            return
        here = (*path, "currency")
        sibling = siblings.get(block.currency)
        if kind != "money":
            self.document.report(here, f"currency on a {kind}", "currency only on type money", key=True)
        elif sibling is None:
            self.document.report(here, shown(block.currency), f"an argument of {tool}", did_you_mean(block.currency, siblings))
        elif argument_type(sibling) != "text" or sibling.max_items is not None or sibling.optional:
            self.document.report(
                here, shown(block.currency), "an argument that is one text and not optional (left out, it would compare nothing)"
            )

    def _narrows(self, block: ArgumentBlock, kind: str, sources: tuple[Source, ...]) -> bool:
        if kind != "text" or any(getattr(block, name) is not None for name in _OPERATORS) or block.narrower_than_role is not None:
            return True
        return bool(block.from_) and MODEL not in sources

    def when(self, tool: str, name: str, block: WhenBlock, path: Path) -> Rule | None:
        """One condition of a step-up; type and list come from the argument it looks at."""
        argument = self.tools[tool].args.get(name)
        if argument is None:
            self.document.report(path, shown(name), f"an argument of {tool}", did_you_mean(name, self.tools[tool].args), key=True)
            return None
        kind = argument_type(argument)
        found = self.operators(block, kind, path)
        if not block.model_fields_set:
            self.document.report(path, "a condition without an operator", "above, not_in, origin or another operator", key=True)
        if block.above is not None:
            if kind not in NUMERIC:
                self.document.report((*path, "above"), f"above on a {kind}", "money, number or integer", key=True)
            elif kind == "money" and not argument.currency:
                self.document.report((*path, "above"), "money without a currency", f"currency: on the argument {name}", key=True)
            elif argument.max is not None and block.above >= argument.max:
                self.document.report(
                    (*path, "above"), f"above {block.above}", f"less than the argument's max {argument.max} (it would never ask)"
                )
        not_in = self.constants(kind, list(block.not_in), (*path, "not_in")) if block.not_in is not None else None
        origin: list[Source | Literal["unknown"]] = []
        for text in block.origin or ():
            index = (block.origin or []).index(text)
            here: Path = (*path, "origin", index) if self.document.node((*path, "origin", index)) else (*path, "origin")
            if text != "unknown":
                source = self.references.source(text, here)
                origin.extend([source] if source is not None else [])
                if source == COMPUTED:
                    expected = "unknown, or an origin of its own (a number less to compute with would ask less often)"
                    self.document.report(here, "computed", expected)
                labelled = (self.tools[source.tool].facts or {}).get(source.field) if source is not None and source.kind == "fact" else None
                if labelled is not None and (labelled.named_by or labelled.where):
                    expected = "a fact of every row (one that counts in some rows would ask less often: unknown asks for the rest)"
                    self.document.report(here, f"{text}, named_by or where", expected)
                continue
            origin.append("unknown")
            if argument.unknown_origin != "step_up":
                self.document.report(
                    here, "unknown", f"unknown_origin: step_up on {name} (otherwise an unknown origin is refused and nobody is asked)"
                )
        return self.share(
            Rule(
                name,
                self.document.line(path),
                kind,
                max_items=argument.max_items,
                currency=argument.currency or "",
                above=block.above,
                not_in=not_in,
                origin=tuple(origin) if block.origin is not None else None,
                **found,
            )
        )


def _possible(key: Key, found: Mapping[str, Any]) -> bool:
    pattern, glob, low, high, text = (found.get(n) for n in ("pattern", "glob", "minimum", "maximum", "text"))
    if isinstance(key, str):
        return (pattern is None or pattern.matches(key)) and (glob is None or glob.matches(key)) and (text is None or len(key) <= text)
    return isinstance(key, bool) or ((low is None or key >= low) and (high is None or key <= high))
