"""An argument of a call in the form in which it is compared, and whether it is in the user's
words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from agentgate.language.prompt import Prompt
from agentgate.language.wording import said
from agentgate.values.entities import Key
from agentgate.workflow.rule import PROMPT, Rule, Sources

# type, comparison key, currency: true is not 1, 100 EUR not 100 USD
Element = tuple[type, Key, str]


class Value(NamedTuple):
    """An argument in normal form: its rule, the keys of its elements (one for a single value),
    its currency, and the value as given.
    """

    rule: Rule
    keys: tuple[Key, ...]
    currency: str
    raw: Any

    @property
    def shown(self) -> str:
        """The value for an operator; a sensitive one is masked."""
        return "(masked)" if self.rule.sensitive else repr(self.raw)[:200]


def element(value: Value, key: Key) -> Element:
    """One element of a value, as it is compared with what earlier calls said."""
    return type(key), key, value.currency


def in_prompt(value: Value, prompt: Prompt) -> bool:
    """True when every element of the value is one whole entity of the user's own words."""
    rule, keys, currency, _ = value
    for key in keys:  # noqa: SIM110 - runs for every argument of every call, and a generator costs as much as the question
        if prompt.words(rule.said_as, key, currency) is None:
            return False
    return True


def from_user(value: Value, key: Key, prompt: Prompt) -> bool:
    """True when one element has the origin `prompt`: one whole entity of the user's own words,
    or, a text, some of them in their order.
    """
    if prompt.words(value.rule.said_as, key, value.currency) is not None:
        return True
    if value.rule.type != "text" or said(prompt, str(key)) is None:
        return False
    # a secret is the user's letter by letter: another capital or mark locks them out
    return not value.rule.sensitive or any(str(key) in turn for turn in prompt.written)


def sources_of(value: Value, prompt: Prompt) -> Sources:
    """The origins that count for a value: the rule's, or with `named_first` only the prompt
    where the user named one of the type.
    """
    rule = value.rule
    return (PROMPT,) if rule.named_first and prompt.holds(rule.said_as) else rule.sources
