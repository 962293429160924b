"""Models inside the arguments of a LangChain tool: a default that says nothing is no argument, and nothing else is lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from agentgate.errors import CanonicalError
from agentgate.integrations.langchain.arguments import Arguments


class File(BaseModel):
    file_id: str
    kind: str | None = None  # left out where it is null
    size: int | None  # null says something: it is required
    copies: int | None = 1  # null says something: the default is 1
    tags: list[str | None] = Field(default_factory=list)  # left out where it is empty
    inside: list[File] | None = None
    by_name: dict[str, File] | None = None


@tool
def send(files: list[File], one: File | None = None, note: str | None = None) -> str:
    """Send files."""
    return str((files, one, note))


def settled(**values: Any) -> dict[str, Any]:
    found = Arguments(send).settle(values, {})
    assert {name: found.values[name] for name in values} == values
    plain: dict[str, Any] = orjson.loads(found.decided.data)
    return plain


FILE = File(file_id="a", size=None)
PLAIN: dict[str, Any] = {"file_id": "a", "size": None, "copies": 1}


@pytest.mark.parametrize(
    ("file", "plain"),
    [
        (FILE, PLAIN),
        (File(file_id="a", size=None, kind="pdf"), {**PLAIN, "kind": "pdf"}),
        (File(file_id="a", size=1, copies=None), {**PLAIN, "size": 1, "copies": None}),
        (File(file_id="a", size=None, tags=["x", None]), {**PLAIN, "tags": ["x", None]}),
        (File(file_id="a", size=None, inside=[FILE]), {**PLAIN, "inside": [PLAIN]}),
        (File(file_id="a", size=None, by_name={"x": FILE}), {**PLAIN, "by_name": {"x": PLAIN}}),
    ],
)
def test_a_null_or_empty_default_inside_a_structure_is_the_same_as_leaving_it_out(file, plain):
    assert settled(files=[file], one=file) == {"files": [plain], "one": plain}


_FILES = st.recursive(
    st.builds(
        File,
        file_id=st.text(max_size=3),
        size=st.none() | st.integers(0, 9),
        kind=st.none() | st.just("pdf"),
        copies=st.none() | st.just(1),
    ),
    lambda inner: st.builds(
        File,
        file_id=st.just("x"),
        size=st.none(),
        inside=st.none() | st.lists(inner, max_size=2),
        by_name=st.none() | st.dictionaries(st.sampled_from(["a", "kind"]), inner, max_size=2),
    ),
    max_leaves=5,
)


@given(st.lists(_FILES, max_size=3), _FILES)
def test_the_tool_runs_with_what_was_decided(files, one):
    plain = settled(files=files, one=one)
    assert "null" not in orjson.dumps([f.get("kind", "") for f in plain["files"]]).decode()


class Narrow(BaseModel):
    kind: str | None


class Wide(Narrow):
    kind: str | None = None


@tool
def take(file: Narrow) -> str:
    """Take a file."""
    return str(file)


def test_a_null_that_only_a_subclass_may_leave_out_is_refused():
    assert Arguments(take).settle({"file": Narrow(kind=None)}, {}).decided.data == b'{"file":{"kind":null}}'
    with pytest.raises(CanonicalError):
        Arguments(take).settle({"file": Wide(kind=None)}, {})
