"""The derivers that ship, and their combination, under the suite that any deriver runs; and what `ask` holds a deriver to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from agentgate.errors import WorkflowError
from agentgate.intents.chat import ChatDeriver
from agentgate.intents.combined import Combined
from agentgate.intents.deriver import Deriver, ask
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent
from agentgate_conformance.derivers import VOCABULARY, DeriverConformance
from tests.shop import WORKFLOW


class Reader(BaseChatModel):
    """A chat model without tool calling that really reads what it is sent: it looks for the vocabulary's words in the turns."""

    @property
    def _llm_type(self) -> str:
        return "reader"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        question = json.loads(str(messages[-1].content))
        intents = tuple(
            Intent(i["name"], 0, i["asks_for"], tuple(i["words"]), "deny", tuple(i["examples"]), tuple(i["counter_examples"]))
            for i in question["intents"]
        )
        answer = {}
        for name, derived in derive(intents, tuple(question["turns"])).items():
            low = derived.evidence.split("'")[1] if "word '" in derived.evidence else ""
            said = next((turn for turn in question["turns"] if low in turn.lower()), "")
            words = said[(at := said.lower().find(low)) : at + len(low)]
            answer[name] = {"presence": derived.presence, "words": words}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(json.dumps(answer)))])


def raising(*_: Any) -> Any:
    raise ConnectionError("away")


class TestLexical(DeriverConformance):
    @pytest.fixture
    def deriver(self) -> Deriver:
        return derive


class TestChat(DeriverConformance):
    @pytest.fixture
    def deriver(self) -> Deriver:
        return ChatDeriver(Reader())

    def failing(self) -> tuple[Deriver, ...]:
        return (
            ChatDeriver(GenericFakeChatModel(messages=iter(()))),
            ChatDeriver(GenericFakeChatModel(messages=iter([AIMessage("Sure!")]))),
        )


class TestCombined(DeriverConformance):
    @pytest.fixture
    def deriver(self) -> Deriver:
        return Combined(derive, ChatDeriver(Reader()))

    def failing(self) -> tuple[Deriver, ...]:
        return (Combined(raising, derive), Combined(raising, raising))


ODD = st.one_of(
    st.none(),
    st.just("present"),
    st.builds(Derived, st.sampled_from(["present", "unclear", "absent", "yes", ""]), st.text(max_size=20)),
    st.just(Derived("present", 3)),  # type: ignore[arg-type]  # what a careless deriver may do
)


@given(st.one_of(st.none(), st.just([]), st.integers(), st.dictionaries(st.sampled_from(["refund", "change_address", "admin"]), ODD)))
def test_whatever_a_deriver_answers_the_answer_is_of_the_vocabulary(answer: Any) -> None:
    found = ask(lambda _i, _t: answer, VOCABULARY, ("refund it",))
    assert list(found) == [intent.name for intent in VOCABULARY]
    assert {one.presence for one in found.values()} <= {"present", "unclear", "absent"}
    for name, one in found.items():
        if one.presence == "present":
            assert answer[name] == one


def test_what_a_deriver_raises_makes_everything_unclear() -> None:
    assert {(a.presence, a.evidence) for a in ask(raising, VOCABULARY, ("refund it",)).values()} == {
        ("unclear", "the deriver failed: ConnectionError")
    }


def test_evidence_is_cut() -> None:
    found = ask(lambda _i, _t: {"refund": Derived("present", "x" * 10_000)}, VOCABULARY, ("refund it",))
    assert (found["refund"].presence, len(found["refund"].evidence)) == ("present", 500)


def test_a_workflow_whose_examples_a_deriver_reads_otherwise_does_not_load_under_it() -> None:
    working: tuple[Deriver, ...] = (derive, ChatDeriver(Reader()), Combined(derive, ChatDeriver(Reader())))
    for deriver in working:
        assert load_text(WORKFLOW, "w.yaml", {}, deriver).id == "shop.refund"
    failing: tuple[tuple[Any, str], ...] = (
        (raising, "unclear (the deriver failed: ConnectionError)"),
        (Combined(derive, raising), "unclear (the deriver failed: ConnectionError)"),
        (lambda _i, _t: {"refund": "present"}, "unclear (the deriver failed: answered a str that is no answer)"),
        (ChatDeriver(GenericFakeChatModel(messages=iter([]))), "unclear (the model failed: "),
    )
    for failed, got in failing:
        with pytest.raises(WorkflowError) as refused:
            load_text(WORKFLOW, "w.yaml", {}, failed)
        [problem] = refused.value.problems
        assert problem.field == "intents.refund.examples[0]"
        assert problem.got.startswith(got)
