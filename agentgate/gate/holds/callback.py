"""The host's callback that asks the run's own user (setting `confirm`), and the calls that wait
for it.

Rules: a callback that takes ``*questions`` is asked about up to ten calls of one run at once:
those that came within `_GATHER` seconds, and those that came while the user thought. One that
takes one question is asked about each call apart. True and False answer all that was asked; a
list or tuple of True, False or None, as long as the questions, answers each. Anything else, or
an error, is no answer.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentgate.decision.batch_answer import MOST
from agentgate.decision.hold import Question


class _Several(Protocol):
    def __call__(self, *questions: Question) -> bool | Sequence[bool | None] | None: ...


Confirm = Callable[[Question], bool | None] | _Several
_GATHER = 0.1  # seconds: a person takes longer by far, and the calls of one step come at once


class _Waiting:
    """One call that waits: its question, and what the user said."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.done = False
        self.said: bool | None = None


class Callback:
    """One gate's callback. Safe to share between threads, each of which waits for one call."""

    def __init__(self, confirm: Confirm) -> None:
        self._confirm: Callable[..., Any] = confirm
        kinds = {each.kind for each in _parameters(confirm)}
        self._several = inspect.Parameter.VAR_POSITIONAL in kinds
        self._changed = threading.Condition()
        # tenant and run -> in the order in which they came
        self._waiting: dict[tuple[str, str], list[_Waiting]] = {}
        self._asking: set[tuple[str, str]] = set()

    def ask(self, question: Question, run: str) -> bool | None:
        """What the user says to this call; None: nothing that counts. Blocks."""
        if not self._several:
            return self._said((question,))[0]
        mine = _Waiting(question)
        whose = (question.tenant, run)
        with self._changed:
            self._waiting.setdefault(whose, []).append(mine)
        try:
            # whoever finds that nobody asks this user does, for all that wait
            while self._turn(mine, whose):
                try:
                    time.sleep(_GATHER)
                    self._ask(whose)
                finally:
                    with self._changed:
                        self._asking.discard(whose)
                        self._changed.notify_all()
            return mine.said
        finally:
            with self._changed:
                # also where this thread was interrupted: nobody is asked for it any more
                mine.done = True
                left = [each for each in self._waiting.pop(whose, []) if not each.done]
                if left:
                    self._waiting[whose] = left

    def _turn(self, mine: _Waiting, whose: tuple[str, str]) -> bool:
        """Wait until this call is answered (False), or this thread is to ask (True)."""
        with self._changed:
            self._changed.wait_for(lambda: mine.done or whose not in self._asking)
            if not mine.done:
                self._asking.add(whose)
            return not mine.done

    def _ask(self, whose: tuple[str, str]) -> None:
        with self._changed:
            asked = [each for each in self._waiting[whose] if not each.done][:MOST]
        for each, said in zip(
            asked, self._said(tuple(each.question for each in asked)), strict=True
        ):
            each.said = said
            each.done = True

    def _said(self, questions: tuple[Question, ...]) -> list[bool | None]:
        try:
            said = self._confirm(*questions)
        except Exception:  # noqa: BLE001 - the host's own code: whatever it raises, nobody said yes
            said = None
        if type(said) is bool:
            return [said] * len(questions)
        each = (
            list(said)
            if type(said) in {list, tuple} and len(said) == len(questions)
            else [None] * len(questions)
        )
        return [one if type(one) is bool else None for one in each]


def _parameters(confirm: Confirm) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(confirm).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not say
        return []
