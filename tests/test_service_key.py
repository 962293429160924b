"""``POST /oauth2/key``: an account changes its key by its own credential and the old key's signature; one of the two changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agentgate.audit import read_records
from tests.authority import Key, unique
from tests.served import JWT, Asking, Process, detail
from tests.served_notes import GATE, WORKFLOW, Notes, Place, a_place, changing, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture

OLD, NEW, THIEF = Key("old"), Key("new"), Key("thief")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    text = WORKFLOW.replace("id: desk.notes", "id: desk.account")
    text = text.replace("claims: {app: {is: notes}}}}", "claims: {app: {is: notes}}}, boundary: {same_key_as_last_token: true}}")
    with a_place(tmp_path_factory.mktemp("account"), more=[text]) as made:
        yield made


class Account:
    """One service account, at the gate as the client `notes`."""

    def __init__(self, place: Place, gate: Process) -> None:
        self.notes, self.name = Notes(place, gate), f"account-{unique().replace('_', 'x').replace('-', 'x')[:8]}"

    def credential(self, name: str = "") -> str:
        return self.notes.place.token(sub=name or self.name)

    def asks(self, key: Key) -> httpx.Response:
        """A token, with a proof of this key."""
        asking = Asking(self.notes.gate, key)
        form = asking.form(self.credential(), detail("notes.write", "desk.account", {"text": "x"}, tool_call_id=unique()))
        asking.ask({**form, **self.notes.client.asserted()})
        return asking.ask({**form, "subject_token": self.credential(), **self.notes.client.asserted()})

    def changes(self, statement: str, **more: Any) -> httpx.Response:
        form = {
            "subject_token": self.credential(),
            "subject_token_type": JWT,
            "statement": statement,
            **self.notes.client.asserted(),
            **more,
        }
        return self.notes.gate.http.post("/oauth2/key", data={name: value for name, value in form.items() if value is not None})


@pytest.fixture
def account(place: Place, gate: Process) -> Account:
    made = Account(place, gate)
    assert made.asks(OLD).status_code == 200, gate.log()[-1]
    return made


def test_the_old_key_signs_for_the_new_one_once(account: Account, place: Place) -> None:
    assert error_of(account.asks(NEW)) == (400, "invalid_request")
    statement = changing(OLD, NEW, account.name)
    changed = account.changes(statement)
    assert (changed.status_code, changed.json()) == (200, {"tenant": "acme", "account": account.name}), changed.text
    assert changed.headers["DPoP-Nonce"]
    assert account.asks(NEW).status_code == 200
    assert error_of(account.asks(OLD)) == (400, "invalid_request")
    assert error_of(account.changes(statement)) == (400, "invalid_request")
    kinds = [r["type"] for r in read_records(place.folder / "audit") if r.get("account") == account.name]
    assert kinds == ["key_change", "key_changed", "key_change"]


def test_a_client_that_is_known_by_its_credential_changes_its_key_too(account: Account) -> None:
    own = {"client_id": "job", "client_assertion": None, "client_assertion_type": None}
    assert account.changes(changing(OLD, NEW, account.name), **own).status_code == 200
    assert account.asks(NEW).status_code == 200


def test_one_of_the_two_changes_nothing(account: Account, place: Place) -> None:
    good = changing(OLD, THIEF, account.name)
    attempts: tuple[tuple[dict[str, Any], tuple[int, str]], ...] = (
        ({"statement": changing(THIEF, THIEF, account.name)}, (400, "invalid_request")),  # who stole the credential
        ({"subject_token": account.credential("thief")}, (400, "invalid_request")),  # who stole the key
        ({"subject_token": None}, (400, "invalid_request")),
        ({"statement": changing(OLD, THIEF, "another")}, (400, "invalid_request")),
        ({"statement": changing(OLD, THIEF, account.name, tenant="other")}, (400, "invalid_request")),
        ({"statement": changing(OLD, THIEF, account.name, aud="https://other.example")}, (400, "invalid_request")),
        ({"statement": "x"}, (400, "invalid_request")),
        ({"tenant": "other"}, (400, "invalid_authorization_details")),
        ({"client_assertion": account.notes.server.assertion()}, (401, "invalid_client")),
        (account.notes.server.asserted(), (400, "unauthorized_client")),
        ({"client_id": "job", "client_assertion": None, "client_assertion_type": None, "subject_token": "x.y.z"}, (400, "invalid_request")),
    )
    for more, expected in attempts:
        assert error_of(account.changes(**{"statement": good, **more})) == expected, json.dumps(account.notes.gate.log()[-1])
    assert not [r for r in read_records(place.folder / "audit") if r["type"] == "key_changed" and r["key"] == THIEF.thumbprint]
    assert error_of(account.asks(THIEF)) == (400, "invalid_request")
    assert account.asks(OLD).status_code == 200


def test_a_statement_about_somebody_else_is_not_even_on_record(account: Account, place: Place) -> None:
    account.changes(changing(THIEF, THIEF, "somebody-else"))
    (said,) = account.notes.gate.log()[-1]["reasons"]
    assert said["expected"] == f"one about the account that shows it, {account.name} of tenant acme"
    assert not [r for r in read_records(place.folder / "audit") if r.get("account") == "somebody-else"]
    assert place.issuer == GATE
