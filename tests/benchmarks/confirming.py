"""Workflows in which the user's own yes is enough wherever it may be: `python -m tests.benchmarks.confirming IN OUT [WORD ...]`.

A mechanical change, the same for every file, of every tool that is not destructive: where an intent that only such tools need is unclear,
or an argument's origin unknown, the user is asked instead of a group; with `refused`, also where the file refuses; with `named`, their yes
names what they were asked about, with `remembers` in later runs, too, and with `reads` facts of a read that they confirmed count as
those of a named one. Rules that ask about something else (an amount, a form) stay as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

_NAMING = frozenset("email iban phone user channel".split())
_LOOKED_UP = _NAMING | frozenset("id url domain path".split())


def confirming(
    workflow: dict[str, Any], *, refused: bool = False, named: bool = False, reads: bool = False, remembers: bool = False
) -> dict[str, Any]:
    """The workflow as it would be written so; its values are changed in place."""
    tools, intents, rules = workflow["tools"], workflow["intents"], workflow.get("step_up", [])
    grave = {name for name, tool in tools.items() if tool["effect"] == "destructive"}
    needs = {name: _needs(tool) for name, tool in tools.items()}
    guarded = {need for name in grave for need in needs[name]}
    acted = {need for name, tool in tools.items() if tool["effect"] != "read" for need in needs[name]}
    soft = {"step_up", "deny"} if refused else {"step_up"}
    for name in (acted - guarded) & intents.keys():
        if intents[name].get("unclear", "deny") in soft:
            intents[name] |= {key: "confirm" for key in ("unclear", "unheard", "delegated") if intents[name].get(key, "deny") in soft}
    mild = sorted(tools.keys() - grave)
    for name in mild:
        looks = tools[name]["effect"] == "read"  # what a read may not look at stays refused
        for argument in tools[name].get("args", {}).values():
            if "from" in argument and argument.get("unknown_origin", "deny") in (soft - {"deny"} if looks else soft):
                argument["unknown_origin"] = "confirm"
            kinds = _LOOKED_UP if looks else _NAMING
            if named and argument.get("unknown_origin") == "confirm" and argument.get("type") in kinds and not argument.get("sensitive"):
                argument["from"] = [*argument["from"], "confirmed"]
        if remembers:
            _remember(tools[name])
    gone = {origin for name in grave for argument in tools[name].get("args", {}).values() for origin in argument.get("from", ())}
    for name in mild if reads else ():
        for fact, declared in tools[name].get("facts", {}).items():
            if (
                declared.get("trust") == "named"
                and "find" not in declared
                and declared["type"] in _LOOKED_UP
                and f"{name}.{fact}" not in gone
            ):
                declared["trust"] = "confirmed"
    kept = [rule for rule in rules if rule["for"] in grave or not _only_origins(rule)]
    for name in mild:
        kept += _asking(name, tools[name], [intents[need].get("unclear", "deny") for need in needs[name] if need in intents], rules)
    return {**workflow, "step_up": kept}


def _remember(tool: dict[str, Any]) -> None:
    """What a yes names counts in the user's later runs, for ninety days; of a tool that takes an amount, nothing does."""
    if any(argument.get("type") in {"money", "number"} for argument in tool.get("args", {}).values()):
        return
    named = [name for name, argument in tool.get("args", {}).items() if "confirmed" in argument.get("from", ()) and "[]" not in name]
    for name in named:
        tool["args"][name]["from"].append("remembered")
    if named:
        tool["remember"] = {"arg": named, "for": "90d"}


def _needs(tool: dict[str, Any]) -> set[str]:
    """The intents that a tool or one of its arguments needs."""
    own = tool["needs"] if isinstance(tool["needs"], list) else [tool["needs"]]
    return {*own, *(need for argument in tool.get("args", {}).values() for need in argument.get("needs", ()))}


def _only_origins(rule: dict[str, Any]) -> bool:
    """A rule that was written to have somebody to ask: its only condition is that an origin is unknown."""
    conditions = rule.get("when", {}).values()
    return bool(conditions) and all(set(each) == {"origin"} and each["origin"] in ("unknown", ["unknown"]) for each in conditions)


def _asking(name: str, tool: dict[str, Any], unclear: list[str], rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rules for what a tool's calls leave open; the group and the time are those of the tool's own."""
    own = next((rule for rule in rules if rule["for"] == name), {"approvers": {"group": "owners"}, "timeout": "1h"})
    origins = [argument.get("unknown_origin", "deny") for argument in tool.get("args", {}).values()]
    made = []
    for key, word, answers in (("intent", "unclear", unclear), ("origin", "unknown", origins)):
        for answer in sorted(set(answers) - {"deny"}):
            people = {"user": True} if answer == "confirm" else own["approvers"]
            made.append({"id": f"{answer}-{key}-{name}", "for": name, "when": {key: word}, "approvers": people, "timeout": own["timeout"]})
    return made


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    for path in source.glob("*.yaml"):
        asked_for = {key: key in sys.argv[3:] for key in ("refused", "named", "reads", "remembers")}
        changed = confirming(yaml.safe_load(path.read_text()), **asked_for)
        (target / path.name).write_text(json.dumps(changed, indent=1))
