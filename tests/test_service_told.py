"""What the service says of itself: its metadata, whether it is ready, and the codes of its refusals in the OpenAPI document."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from agentgate.errors import Refusal
from agentgate.service import app
from agentgate.service.metadata import read_document
from tests.served import Process, served
from tests.served_notes import Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.test_service_process import until

SERVICE = Path(app.__file__).parent


def test_each_code_of_a_refusal_is_in_the_document() -> None:
    said: set[str] = set()
    for file in SERVICE.glob("*.py"):
        for call in (each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "RequestRefused" and isinstance(call.args[0], ast.Constant):
                said |= {each.value for each in ast.walk(call.args[1]) if isinstance(each, ast.Constant) and type(each.value) is str}
    schemas = read_document()["components"]["schemas"]
    codes = set(schemas["Problem"]["properties"]["code"]["enum"])
    told = set(schemas["OAuthError"]["properties"]["error"]["enum"]) | codes
    assert len(said) > 12
    assert said <= told
    assert set(Refusal) <= codes


def test_the_metadata_says_how_a_client_authenticates_at_each_endpoint(gate: Process) -> None:
    told = gate.http.get("/.well-known/oauth-authorization-server").json()
    for endpoint in ("token", "introspection", "revocation"):
        assert "private_key_jwt" in told[f"{endpoint}_endpoint_auth_methods_supported"]
        assert "client_secret_basic" not in told[f"{endpoint}_endpoint_auth_methods_supported"]
        assert "ES256" in told[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert not {"none", "HS256"} & set(told[f"{endpoint}_endpoint_auth_signing_alg_values_supported"])
    assert ["none" in told[f"{each}_endpoint_auth_methods_supported"] for each in ("introspection", "revocation")] == [False, False]


def test_a_gate_that_cannot_read_its_keys_takes_no_requests(place: Place, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with served(place.folder, {**place.settings, "audit": str(tmp_path / "audit"), "keys": str(keys)}) as gate:
        keys.chmod(0o755)  # others may look into it
        until(lambda: gate.http.get("/readyz").status_code == 503, gate)
        assert gate.http.get("/readyz").text == "keys\n"
        assert gate.http.get("/healthz").status_code == 200
        keys.chmod(0o700)
        until(lambda: gate.http.get("/readyz").status_code == 200, gate)


@pytest.mark.parametrize("query", ["tenant=acme&tenant=acme", "tenant=northwind&tenant=acme", "x=1", "tenant=acme&x=1"])
def test_a_run_is_closed_by_a_request_that_says_one_thing(notes: Notes, query: str) -> None:
    answer = notes.gate.http.delete(f"/v1/runs/run_x?{query}", headers={"Authorization": f"Bearer {notes.host.assertion()}"})
    assert (error_of(answer), answer.json()["detail"]) == ((400, "invalid_request"), "query: expected tenant, or nothing")


def test_what_closes_a_run_has_no_body(notes: Notes) -> None:
    for body in (b"{}", iter([b"{", b"}"])):
        headers = {"Authorization": f"Bearer {notes.host.assertion()}"}
        answer = notes.gate.http.request("DELETE", "/v1/runs/run_x", content=body, headers=headers)
        assert (error_of(answer), answer.json()["detail"]) == ((400, "invalid_request"), "body: expected none")
