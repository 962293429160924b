"""Values in the user's words: how a user writes one, whether a prompt names it, and a sentence that does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agentgate.language.prompt import Prompt
from agentgate.language.stems import stems
from agentgate.review.scenarios.statements import parts, time_of
from agentgate.values.entities import normal
from agentgate.workflow.rule import Rule


def in_words(kind: str, value: Any, currency: str) -> str:
    """A value as a user writes it: money with its currency, a user or channel with its sign, text in quotes."""
    if kind == "money" and currency:
        return f"{value} {currency}"
    if kind == "text":
        return f'"{value}"'
    return {"user": "@", "channel": "#"}.get(kind, "") + str(value)


def long_words(prompt: Any) -> list[str]:
    """The longer words of a prompt."""
    return re.findall(r"[A-Za-z]{4,}", " ".join(parts(prompt)))


def label(kind: str, prompt: Any) -> str:
    """A label of this type that the longest word of a prompt means; empty where none does."""
    word = max(filter(stems, long_words(prompt)), key=len, default="")
    return {"text": word, "path": f"{word}.txt", "user": word.lower(), "channel": word.lower()}.get(kind, "") if word else ""


def added(prompt: Any, sentence: str) -> Any:
    """A prompt whose last turn ends with one more sentence."""
    *turns, last = parts(prompt)
    last += ("" if not last else " " if last.endswith((".", "!", "?")) else ". ") + sentence
    return [*turns, last] if turns else last


def read(values: Mapping[str, Any]) -> Prompt:
    """The prompt of a scene."""
    return Prompt.of(parts(values["prompt"]), time_of(values).date())


def names(prompt: Prompt, rule: Rule, value: Any, currency: str) -> bool:
    """Whether a prompt names a value as this rule reads it."""
    key = normal(rule.type, value)
    return key is not None and prompt.words(rule.said_as, key, currency) is not None


def can_be_named(values: Mapping[str, Any], rule: Rule, value: Any, currency: str) -> bool:
    """Whether a prompt of the scene's day could name a value."""
    return names(Prompt.of((in_words(rule.type, value, currency),), time_of(values).date()), rule, value, currency)


def calculation(rule: Rule, known: list[Decimal], currency: str, *, named: bool) -> str:
    """A sentence that asks for the half of one number, or for the sum of more; `named`: it names them."""
    of = " of " + " and ".join(in_words(rule.type, format(each, "f"), currency) for each in known) if named else ""
    return f"Take {'half' if len(known) == 1 else 'the sum total'}{of}."
