"""One argument or `step_up.when` condition: from its block to the frozen value, with what is wrong about it.

Rules: an operator that can never hold is a load error, not a silent refusal later (a constant outside its own pattern, a
range upside down, an origin nobody can produce); money is never compared without its currency; a constant is compared in
its type's normal form, so it must have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agentgate.decision.origin_kinds import kind_of
from agentgate.loading.blocks import ArgumentBlock, OperatorsBlock, ToolBlock, WhenBlock
from agentgate.loading.fact_rules import FactRules, comparable
from agentgate.loading.reach import Reach
from agentgate.loading.references import References, argument_type
from agentgate.loading.sharing import Sharing
from agentgate.loading.yaml_nodes import Document, Path, did_you_mean, shown
from agentgate.values.entities import CALCULATED, NUMERIC, TOKENISED, Key, normal
from agentgate.values.paths import EACH
from agentgate.workflow.operator import unreachable
from agentgate.workflow.operators import OPERATORS, contradictions
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, USER, Rule, Source


class _Reading:
    """What compiling an operator needs: the type of the value, and the place to report at (`agentgate.workflow.operator.Reading`)."""

    __slots__ = ("document", "kind", "path")

    def __init__(self, document: Document, kind: str, path: Path) -> None:
        self.document, self.kind, self.path = document, kind, path

    def report(self, key: str, got: str, expected: str, *, at_key: bool = False) -> None:
        """Note what is wrong with this operator."""
        self.document.report((*self.path, key), got, expected, key=at_key)

    def constants(self, key: str, values: list[Any]) -> tuple[Key, ...]:
        """Constants as comparison keys; one that has no normal form can never equal anything."""
        keys = []
        for index, value in enumerate(values):
            found = normal(self.kind, value)
            if found is None:
                here: Path = (*self.path, key)
                where = (*here, index) if self.document.node((*here, index)) else here
                self.document.report(where, shown(value), f"{self.kind} in normal form (nothing else can ever equal it)")
            else:
                keys.append(found)
        return tuple(keys)  # not shared: True equals 1


class Site:
    """What reading one workflow's rules needs: the document for places, the tools for references, the roles, the sharing."""

    __slots__ = ("document", "facts", "reach", "references", "roles", "share", "tools")

    def __init__(self, document: Document, tools: Mapping[str, ToolBlock], roles: Mapping[str, frozenset[str]], share: Sharing) -> None:
        self.document, self.tools, self.roles, self.share = document, tools, roles, share
        self.references = References(document, tools, share)
        self.facts = FactRules(document, tools, self.references, share)
        self.reach = Reach(self.facts)

    def operators(self, block: OperatorsBlock, kind: str, path: Path) -> dict[str, Any]:
        """The fields of a `Rule` that hold its operators."""
        reading = _Reading(self.document, kind, path)
        stated = block.operators()
        found = {}
        for operator in OPERATORS:
            if operator.key in stated:
                value = operator.compiled(stated[operator.key], reading)
                if value is not None:
                    found[operator.field] = value
        for key, got, expected, at_key in contradictions(stated, kind):
            reading.report(key, got, expected, at_key=at_key)
        wrong = unreachable([operator(found[operator.field]) for operator in OPERATORS if operator.field in found])
        if wrong is not None:
            reading.report(wrong.key, "constants outside the other operators", "at least one that the other operators allow")
        return found

    def rule(self, tool: str, name: str, block: ArgumentBlock) -> Rule:
        """One argument of a tool, with everything that is wrong about it reported."""
        path: Path = ("tools", tool, "args", name)
        report, kind = self.document.report, argument_type(block)
        found = self.operators(block, kind, path)
        self._nested(tool, name, block, path)
        if block.each_in is not None:
            found["one_of"] = _Reading(self.document, kind, path).constants("each_in", list(block.each_in))
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
            if text == "user" and kind not in kind_of(USER).types:
                report(at, f"user for type {kind}", "a type that an id of a person can be: " + ", ".join(sorted(kind_of(USER).types)))
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
        elif not any(s.tool or s == PROMPT for s in sources):
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
        if kind != "text" or block.operators() or block.each_in is not None or block.narrower_than_role is not None:
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
        if block.above is not None and kind in NUMERIC:
            if kind == "money" and not argument.currency:
                self.document.report((*path, "above"), "money without a currency", f"currency: on the argument {name}", key=True)
            elif argument.max is not None and block.above >= argument.max:
                self.document.report(
                    (*path, "above"), f"above {block.above}", f"less than the argument's max {argument.max} (it would never ask)"
                )
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
                labelled = (
                    (self.tools[source.tool].facts or {}).get(source.field) if source is not None and kind_of(source).row_fact else None
                )
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
                origin=tuple(origin) if block.origin is not None else None,
                **found,
            )
        )
