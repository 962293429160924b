"""The embeddings deriver: what it recognises, what it does not, how its thresholds were chosen, and that it stays offline."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agentgate.errors import ConfigError
from agentgate.intents import embeddings
from agentgate.intents.embeddings import CLAUSE, FAIR_WORD, MAX_CHARACTERS, NEAR_CLAUSE, NEAR_WORD, WORD, EmbeddingsDeriver
from agentgate.intents.lexical import derive
from agentgate.intents.phrases import places
from agentgate.loading.catalog import Catalog
from agentgate.testing.derivers import REFUND
from agentgate.values.request import Presence
from agentgate.workflow.model import Intent

ROOT = Path(__file__).parent.parent
DELETE = Intent(
    "delete",
    1,
    "Delete a file or an e-mail.",
    ("delete", "remove"),
    "step_up",
    ("Delete the draft to Tom",),
    ("Delete everything in my inbox", "Which files did I delete?"),
)


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Please erase the draft", "present"),  # no word of the vocabulary, and meant all the same
        ("Get rid of the invoice", "absent"),  # meant all the same, and not recognised: refused
        ("What does the draft to Tom say?", "absent"),  # the topic of an example, and another act
        ("Delete the old invoice", "present"),
        ("Delete every draft", "unclear"),
        ("Delete everything in my inbox", "absent"),
        ("Which files did I delete last week?", "unclear"),
        ("Read the draft to me", "absent"),
        ("Do not delete the draft", "absent"),
        ("Please never erase or remove anything", "absent"),
        ("What is in the file notes.txt?", "absent"),
    ],
)
def test_one_turn(prompt: str, presence: Presence) -> None:
    assert EmbeddingsDeriver()((DELETE,), (prompt,))["delete"].presence == presence


MAIL = Intent("mail", 1, "Send an e-mail.", ("send", "email to", "set up a mail"), "deny", ("Send the minutes to Anna",), ())


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Write an email to Anna about the budget", "present"),
        ("What does the email I received say?", "absent"),  # "email" alone is no "email to"
        ("Read my mail", "absent"),  # nor is "mail" alone a "set up a mail"
        ("Set up the mail for Anna", "present"),
    ],
)
def test_words_of_several_words_are_not_met_by_their_topic(prompt: str, presence: Presence) -> None:
    assert EmbeddingsDeriver()((MAIL,), (prompt,))["mail"].presence == presence


def test_a_request_without_a_word_of_the_vocabulary_is_recognised_by_an_example() -> None:
    prompt = "The customer wants the money returned for ORD-1"
    assert derive((REFUND,), (prompt,))["refund"].presence == "absent"
    found = EmbeddingsDeriver()((REFUND,), (prompt,))["refund"]
    assert found.presence == "present"
    assert "close to" in found.evidence


def test_it_says_which_words_are_close_to_which() -> None:
    assert EmbeddingsDeriver()((DELETE,), ("Please erase the draft",))["delete"].evidence.startswith("'erase' is close to 'delete' (0.5")


@pytest.mark.parametrize(
    ("turns", "presence"),
    [
        (("Please do the tasks in Ann's e-mail",), "present"),
        (("Please do the tasks in all my e-mails",), "unclear"),
        (("Please do the tasks in Ann's e-mail", "do not delete anything"), "absent"),
        (("Please do the tasks in Ann's e-mail", "stop"), "absent"),
        (("What are the tasks in Ann's e-mail?",), "absent"),
    ],
)
def test_what_is_delegated_is_the_workflows_to_say(turns: tuple[str, ...], presence: Presence) -> None:
    for intent, expected in ((replace(DELETE, delegated="present"), presence), (DELETE, "absent")):
        assert EmbeddingsDeriver()((intent,), turns)["delete"].presence == expected == derive((intent,), turns)["delete"].presence


def test_too_much_prompt_is_unclear() -> None:
    turns = ("Delete the draft to Tom. " * 2000,) * 6
    assert sum(map(len, turns)) > MAX_CHARACTERS
    assert EmbeddingsDeriver()((DELETE,), turns)["delete"].presence == "unclear"


def test_a_growing_conversation_is_read_turn_by_turn() -> None:
    deriver, turns = EmbeddingsDeriver(), tuple(f"The lamp {n} has {'a very long ' * 50} story" for n in range(100))
    deriver((REFUND,), turns)
    started = time.perf_counter()
    deriver((REFUND,), (*turns, "Please refund it"))
    assert time.perf_counter() - started < 0.1


def test_every_one_is_the_same() -> None:
    assert EmbeddingsDeriver() == EmbeddingsDeriver()
    assert len({EmbeddingsDeriver(), EmbeddingsDeriver()}) == 1


# --- thresholds ----------------------------------------------------------------------------------------------------------


def vocabularies() -> list[tuple[Intent, ...]]:
    folders = ("workflows", "examples/payment-agent/workflows", "tests/benchmarks/agentdojo")
    return [tuple(w.intents.values()) for folder in folders for w in Catalog.load(ROOT / folder, derive) if "none" not in w.intents]


def closeness(intent: Intent, text: str) -> tuple[float, float]:
    """How close a text comes to an intent: by words, and as a clause."""
    known, clause = embeddings._known(intent), embeddings._clause(text)
    assert clause is not None
    return known.word(clause)[0], known.examples.closest(clause.whole)[0]


def says(intent: Intent, text: str) -> bool:
    return any(places(intent.words, text.lower()))


def test_no_request_for_another_intent_is_close_enough_to_be_present() -> None:
    """How WORD and CLAUSE were chosen: above every example of another intent that says none of this intent's words."""
    found = [
        closeness(intent, text)
        for intents in vocabularies()
        for intent in intents
        for other in intents
        if other is not intent
        for text in other.examples
        if not says(intent, text)
    ]
    assert len(found) >= 30
    assert max(word for word, _ in found) < WORD
    assert max(clause for _, clause in found) < CLAUSE


def test_an_example_held_out_with_its_words_is_sometimes_recognised() -> None:
    """What embeddings add to a vocabulary, measured: something, and far from everything."""
    found = []
    for intents in vocabularies():
        for intent in intents:
            for text in intent.examples:
                words = tuple(w for w in intent.words if not any(places((w,), text.lower())))
                rest = replace(intent, words=words, examples=tuple(e for e in intent.examples if e != text))
                word, clause = closeness(rest, text)
                found.append(word >= WORD or (word >= FAIR_WORD and clause >= CLAUSE))
    assert 0.05 < sum(found) / len(found) < 0.6
    assert NEAR_WORD < WORD
    assert NEAR_CLAUSE < CLAUSE


@pytest.mark.parametrize("folder", ["workflows", "examples/payment-agent/workflows", "tests/benchmarks/agentdojo"])
def test_every_workflow_here_also_loads_under_it(folder: str) -> None:
    loaded = Catalog.load(ROOT / folder, EmbeddingsDeriver())
    assert {file: [str(p) for p in error.problems] for file, error in loaded.quarantined.items()} == {}


# --- offline, lazy, optional ---------------------------------------------------------------------------------------------


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_it_works_without_any_network_and_any_home() -> None:
    """No socket can be made, nothing can be fetched, and no cache under the home directory is looked at."""
    code = """
import os, socket, sys
os.environ["HOME"] = "/nonexistent"
def refuse(*_, **__): raise AssertionError("network")
class Refused(socket.socket): __init__ = refuse
socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse
import requests
requests.get = requests.Session.request = refuse
from agentgate.intents.embeddings import EmbeddingsDeriver
from agentgate.testing.derivers import REFUND
print(EmbeddingsDeriver()((REFUND,), ("please refund ORD-1",))["refund"].presence)
"""
    done = child(code)
    assert (done.stdout, done.stderr, done.returncode) == ("present\n", "", 0)


def test_weights_that_are_not_in_the_wheel_are_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wordllama

    empty = tmp_path / "wordllama" / "__init__.py"
    monkeypatch.setattr(wordllama.wordllama, "__file__", str(empty))
    monkeypatch.setattr(wordllama, "__file__", str(empty))
    embeddings._model.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match="downloads are disabled"):
            embeddings._model()
    finally:
        embeddings._model.cache_clear()


def test_the_model_is_read_on_first_use_only() -> None:
    code = """
import sys
from agentgate.intents.embeddings import EmbeddingsDeriver
EmbeddingsDeriver()
print("wordllama" in sys.modules)
"""
    assert child(code).stdout == "False\n"


def test_the_host_keeps_its_log_settings() -> None:
    code = """
import logging
logging.getLogger().setLevel(logging.WARNING)
from agentgate.intents.embeddings import EmbeddingsDeriver
from agentgate.testing.derivers import REFUND
EmbeddingsDeriver()((REFUND,), ("please refund ORD-1",))
print(logging.getLogger().handlers, logging.getLogger().level)
"""
    assert child(code).stdout == f"[] {logging.WARNING}\n"


def test_without_the_extra_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"agentgate-mediator\[intent\]"):
        EmbeddingsDeriver()
