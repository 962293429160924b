"""A signed definition says everything: no default of a later release changes what it means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentgate.approvals import sshsig
from agentgate.approvals.writing import KeySigner, write_index
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading import blocks as module
from agentgate.loading.blocks import ArgumentBlock, Block, Definition, IntentBlock, TokenBlock, block_in, written_out
from agentgate.loading.catalog import roles_of, text_of, workflow_files
from agentgate.loading.definition import load_document, load_text
from agentgate.loading.yaml_nodes import Document
from agentgate.values.canonical import canonical, parse
from tests.approvals_team import ALICE, BOB, ID, WORKFLOW, Team, key
from tests.everything import CLAIMS, EVERYTHING, ROLES, STRUCTURES

ROOT = Path(__file__).parent.parent
TEXTS = [
    WORKFLOW,
    EVERYTHING,
    CLAIMS,
    STRUCTURES,
    *(text_of(path, path.parent) for folder in ("workflows", "examples/payment-agent/workflows") for path in workflow_files(ROOT / folder)),
]
MORE_ROLES = {**ROLES, **roles_of(ROOT / "workflows")}


def defaults(block: type[BaseModel] = Definition, seen: frozenset[type] = frozenset()) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Every default of the language that is more than nothing."""
    for name, field in block.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if default is not None:
            yield block, field.alias or name, default
        inner = block_in(field.annotation)
        if inner is not None and inner not in seen:
            yield from defaults(inner, seen | {block})


def meaning(value: Any) -> Any:
    """What a workflow says, without its lines, file and digest; a scope that is left out is the tool's name."""
    if is_dataclass(value):
        places = {"line", "file", "digest", "tenants_line", "expires_line"}
        said = {f.name: meaning(getattr(value, f.name)) for f in fields(value) if f.init and f.name not in places}
        return said | {"scope": said["scope"] or (said["name"],)} if "scope" in said else said
    if hasattr(value, "items"):
        return {name: meaning(each) for name, each in value.items()}
    return tuple(map(meaning, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_out_means_the_same(text):
    said = yaml.safe_load(text)
    signed = canonical(written_out(said), "definition")
    read, again = (load_document(Document("w", parse(data)), MORE_ROLES, derive) for data in (canonical(said), signed))
    assert meaning(again) == meaning(read)
    assert again.digest == read.digest == load_text(text, "w", MORE_ROLES, derive).digest == "sha256:" + sha256(signed).hexdigest()


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_out_is_complete_and_changes_no_key(text):
    said = yaml.safe_load(text)
    out = written_out(said)
    assert written_out(out) == out
    assert said == yaml.safe_load(text)

    def kept(inner: Any, outer: Any) -> bool:
        if isinstance(inner, dict):
            return all(key in outer and kept(each, outer[key]) for key, each in inner.items())
        if isinstance(inner, list):
            return len(inner) == len(outer) and all(kept(a, b) for a, b in zip(inner, outer, strict=True))
        return bool(inner == outer)

    assert kept(said, out)


def test_two_files_that_mean_the_same_have_one_digest():
    said = WORKFLOW.replace("    words: [refund", "    unclear: deny\n    words: [refund") + "token: {ttl: 60s}\n"
    assert said != WORKFLOW
    assert load_text(said, "w", {}, derive).digest == load_text(WORKFLOW, "w", {}, derive).digest


def test_every_default_is_in_the_signed_bytes():
    """Written down here once more: a default that changes, or a new one, changes what is signed, and has to be meant."""
    out = written_out(yaml.safe_load(WORKFLOW))
    tool = out["tools"]["payments.refund"]
    argument = {"any_call": False, "optional": False, "sensitive": False, "unknown_origin": "deny"}
    assert out["mode"] == "enforce"
    assert out["token"] == {"ttl": "60s", "uses": 1, "bound_to": ["call"]}
    assert {k: out["intents"]["refund"][k] for k in ("unclear", "delegated", "unheard")} == dict.fromkeys(
        ("unclear", "delegated", "unheard"), "deny"
    )
    assert tool["scope"] == ["payments.refund"]
    assert tool["args"] == {
        "order_id": {"type": "id", "pattern": "ORD-[0-9]{8}", "from": ["prompt"], **argument},
        "amount": {"in": ["10.00", "20.00"], "from": ["model"], "type": "text", **argument},
    }
    more = yaml.safe_load(EVERYTHING)
    more["tools"] |= {"t": {"args": {"b": {"min": "1", "max": "2"}, "a": {"max_items": 2}}, "facts": {"f": {"type": "id"}}}}
    more["step_up"] += [{"id": "u", "for": "t", "approvers": {"user": True}}, {"id": "s", "for": "t", "approvers": {"group": "g"}}]
    out = written_out(more)
    assert out["step_up"][-2]["approvers"] == {"user": True}
    assert out["tools"]["t"]["args"]["b"]["type"] == "number"
    assert "unknown_origin" not in out["tools"]["t"]["args"]["a"]
    assert out["tools"]["t"]["facts"]["f"]["path"] == "f"
    assert "scope" not in out["tools"]["t"]  # no wrapper: such a tool says its own
    assert out["step_up"][-1] | {"id": "s"} == {
        "id": "s",
        "for": "t",
        "approvers": {"group": "g", "count": 1, "not": ["requester"]},
        "show": ["a", "b"],
    }
    assert written_out({"tools": {"t": {}}})["tools"]["t"] == {"args": {}}
    assert {(block.__name__, name) for block, name, _ in defaults()} == {
        ("Definition", "mode"),
        *(("IntentBlock", name) for name in ("unclear", "delegated", "unheard")),
        *(("ArgumentBlock", name) for name in ("any_call", "optional", "sensitive")),
        ("ToolBlock", "args"),
        *(("TokenBlock", name) for name in ("ttl", "uses", "bound_to")),
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["tools", "args", "deny"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "for", "from", "args", "facts", "redeem"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["tools", "intents", "step_up", "token", "who", "limits", "x"]), values) | values)
def test_what_is_malformed_is_left_for_the_loader(value):
    out = written_out(value)
    assert written_out(out) == out
    assert isinstance(value, dict) or out == value


# --- a later release --------------------------------------------------------------------------------------------------------
@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A release whose defaults are all other ones, and wider."""
    for block, name, default in (
        (TokenBlock, "ttl", 300),
        (TokenBlock, "bound_to", ["call", "agent_key"]),
        (IntentBlock, "delegated", "present"),
        (ArgumentBlock, "optional", True),
        (Definition, "mode", "observe"),
    ):
        monkeypatch.setattr(block.model_fields[name], "default", default)
    rebuild()
    yield
    monkeypatch.undo()
    rebuild()


def rebuild() -> None:
    module._defaults.cache_clear()
    for block in {block for block, _, _ in defaults()} | {Definition}:
        block.model_rebuild(force=True)
    for _ in range(4):  # from the inside out
        for inner in Block.__subclasses__():
            inner.model_rebuild(force=True)


@pytest.fixture
def approved(tmp_path: Path) -> Team:
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    return team


def test_a_changed_default_does_not_change_what_was_signed(approved, request):
    signed = meaning(approved.load().workflows[ID])
    request.getfixturevalue("later")
    other = load_text(WORKFLOW + "token: {uses: 1}\n", "w", {}, derive)  # the release does read a silent file otherwise
    assert (other.token.ttl, other.token.agent_key, other.intents["refund"].delegated, other.observe) == (300, True, "present", True)
    assert all(rule.optional for rule in other.tools["payments.refund"].args.values())
    loaded = approved.load()
    assert meaning(loaded.workflows[ID]) == signed
    assert [(str(r.reason), r.field, r.expected) for r in loaded.refused] == [
        ("TAMPERED", "intents.refund.delegated", "'deny', as approved, which stays in force")
    ]  # the file means something else now, and only says so


LEFT_OPEN = [
    (("mode",), "mode", "'enforce'"),
    (("token",), "token", "{'ttl': '60s', 'uses': 1, 'bound_to': ['call']}"),
    (("token", "ttl"), "token.ttl", "'60s'"),
    (("intents", "refund", "unclear"), "intents.refund.unclear", "'deny'"),
    (("tools", "payments.refund", "scope"), "tools.payments.refund.scope", "['payments.refund']"),
    (("tools", "payments.refund", "args", "order_id", "optional"), "tools.payments.refund.args.order_id.optional", "false"),
    (("tools", "payments.refund", "args", "amount", "type"), "tools.payments.refund.args.amount.type", "'text'"),
]


@pytest.mark.parametrize(("path", "field", "missing"), LEFT_OPEN, ids=[".".join(path) for path, _, _ in LEFT_OPEN])
def test_a_signed_definition_that_leaves_a_default_open_is_refused(approved, path, field, missing):
    """Two reviewers sign bytes that a later release could read otherwise."""
    place = approved.approvals(f"{ID}/1/definition.json")
    definition = orjson.loads(place.read_bytes())
    inner = definition
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    place.write_bytes(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS))
    for person in (ALICE, BOB):
        approved.resign(person)
        file = approved.approvals(f"{ID}/1/{person}.json")
        said = orjson.loads(file.read_bytes())
        said["subject"][0]["digest"]["sha256"] = sha256(place.read_bytes()).hexdigest()
        data = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        file.write_bytes(data)
        file.with_suffix(".sig").write_text(_signed(key(person), data))
    for name in ("index.json", "index.json.sig"):
        approved.approvals(name).unlink()
    write_index(approved.directory, key(ALICE), now=approved.now, anew=True)
    loaded = approved.load()
    assert loaded.workflows == {}
    refused = next(r for r in loaded.refused if r.data["version"] == 1)
    assert (str(refused.reason), refused.field, refused.got) == ("TAMPERED", field, "nothing")
    assert refused.expected.startswith(f"{missing} (a signed definition writes every default out")


def _signed(signer: KeySigner, data: bytes) -> str:
    return signer.sign(data, sshsig.NAMESPACE)


def test_a_file_that_is_too_long_with_its_defaults_is_refused_before_anybody_signs(tmp_path):
    team = Team(tmp_path)
    args = ", ".join(f"a{n}: {{type: id}}" for n in range(70))
    tools = "".join(f"  t{n}:\n    effect: read\n    needs: any\n    redeem: wrapper\n    args: {{{args}}}\n" for n in range(55))
    team.file.write_text(WORKFLOW + tools)
    with pytest.raises(WorkflowError, match=r"document: got \d+ bytes, expected at most 262144 bytes"):
        team.draft(ALICE)
