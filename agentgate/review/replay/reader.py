"""What a model read in recorded prompts: written once with the model, and replayed without one.

Rules: an answer is found by the digest of its question, which holds the vocabulary and the
user's own words; one to another question does not count. It is the model's raw answer: what may
count of it is checked each time (`agentgate.intents.chat`).
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentgate.errors import ConfigError
from agentgate.intents.chat import ANSWER, ChatDeriver, ModelReader
from agentgate.values.value_class import Values
from agentgate.workflow.model import Intent


class RecordedReader(ModelReader):
    """A reader that gives the answers of a file; without an answer, an intent is unclear.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(timeout=10.0)
        try:
            lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
            self._answers = {
                line["question"]: ANSWER.validate_python(line["answer"]) for line in lines
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "answers", f"{file} ({type(error).__name__})", "answers that --record wrote"
            ) from error

    def ask_model(self, intents: tuple[Intent, ...], question: str) -> Values:  # noqa: ARG002 - as its base
        """The recorded answer."""
        return self._answers[_digest(question)]


class RecordingReader(ChatDeriver):
    """A reader that asks a model and appends each answer to a file."""

    def __init__(self, model: Any, file: Path) -> None:
        super().__init__(model, timeout=60.0)
        self._file = file

    def ask_model(self, intents: tuple[Intent, ...], question: str) -> Values:
        """The model's answer, on record."""
        answer = super().ask_model(intents, question)
        found = {name: one.model_dump() for name, one in answer.items()}
        line = {
            "question": _digest(question),
            "turns": json.loads(question)["turns"],
            "answer": found,
        }
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
        return answer


def _digest(question: str) -> str:
    return sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
