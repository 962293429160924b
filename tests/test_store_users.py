"""What operators see of the store users of tool servers: the ACL that the command prints, and what doctor says of those that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.gate.open_run import MAX_PROVEN_TTL
from agentgate.stores import ready_store, rules_of
from agentgate.stores._ownership import _LONGEST_RUN_MS
from tests.servers import Server, as_tool_server, redis_binary, valkey_binary

ORDERS = "https://orders.example"
GATE = ("on", ">pw", "~ag:*", "+@all", "-@dangerous", "+info", "+config|get")


@pytest.fixture(params=[redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param(), tmp_path / "server")
    yield server
    server.stop()


def doctor(url: str) -> str:
    return CliRunner().invoke(app, ["doctor", "--store", url, "--json"]).stdout


def test_the_printed_user_is_one_that_starts(server: Server) -> None:
    words = ["store", "user", "orders", "--audience", ORDERS, "--tenant", "acme", "--tenant", "acme-eu"]
    printed = CliRunner().invoke(app, words).stdout.strip().replace("PASSWORD", "pw").split()
    assert printed[:3] == ["ACL", "SETUSER", "orders"]
    assert server.command(*printed).startswith("+OK")
    ready_store(server.url.replace("redis://", "redis://orders:pw@"), (ORDERS, ["acme", "acme-eu"])).close()
    assert CliRunner().invoke(app, ["store", "user", "x", "--audience", ORDERS, "--tenant", "{*}"]).exit_code != 0


def test_doctor_tells_which_tool_servers_own_more_than_what_is_their_own(server: Server) -> None:
    as_tool_server(server.url, ORDERS)
    told = doctor(server.url)
    assert told.count("only what is its own") >= 1
    for wrong in ("%RW~ag:{acme}:burns:*", "%RW~ag:{*}:calls:*", "%R~ag:{*}:clock:*", "~ag:{acme}:run:*", "%RW~ag:{acme}:clock:*"):
        server.command("ACL", "SETUSER", "wide", "on", ">pw", *rules_of(ORDERS, ["acme"]).split(), wrong)
        assert f"user wide: beyond what is its own: {wrong.replace('%RW', '')}" in doctor(server.url), wrong
    server.command("ACL", "SETUSER", "wide", "reset")
    server.command("ACL", "SETUSER", "wide", "on", ">pw", *rules_of(ORDERS, ["acme"]).split(), "(+hset ~ag:{acme}:run:*)")
    assert "user wide: beyond what is its own: ~ag:{acme}:run:*" in doctor(server.url)


def test_a_user_who_may_not_ask_is_told_that_nothing_was_seen(server: Server) -> None:
    server.command("ACL", "SETUSER", "gate", *GATE)
    assert "users of tool servers: not seen" in doctor(server.url.replace("redis://", "redis://gate:pw@"))


def test_the_patterns_of_earlier_versions_end_with_the_longest_run() -> None:
    assert MAX_PROVEN_TTL * 1000 < _LONGEST_RUN_MS
