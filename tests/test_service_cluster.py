"""A served gate on a cluster: what it says of the shards, and that the loss of one stops its own tenants only."""

from __future__ import annotations

import time
from pathlib import Path

from tests.served import Process, served
from tests.served_notes import Notes, a_place
from tests.servers import valkey_binary
from tests.test_service_health import answers, is_well
from tests.watched import Shards

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def test_a_shard_that_is_away_is_a_condition_and_no_end(tmp_path: Path) -> None:
    shards = Shards(valkey_binary(), tmp_path / "shards", replicas=0, settings=DURABLE)
    with a_place(tmp_path) as place:
        settings = {**place.settings, "store": shards.url, "metrics": True}
        with served(place.folder, settings) as gate:
            notes, own = Notes(place, gate), shards.owner("acme")
            answers(gate, 200, "ok")
            assert notes.ask("first").status_code == 200
            lines = gate.http.get("/readyz").text.splitlines()
            assert lines[-1].endswith(tuple(f": shards by node 127.0.0.1:{each.port}" for each in shards.primaries)), lines
            other = next(each for each in shards.primaries if each is not own)
            other.kill()
            answers(gate, 200, "degraded", "shard_away")
            metrics = gate.http.get("/metrics").text
            assert f'agentgate_store_primary_up{{primary="127.0.0.1:{other.port}"}} 0.0' in metrics
            assert f'agentgate_store_primary_up{{primary="127.0.0.1:{own.port}"}} 1.0' in metrics
            asked = [notes.ask(f"second-{number}").status_code for number in range(20)]
            assert set(asked) == {200, 503}, "each assertion is on a shard of its own: with a fresh one the same client goes on"
            other.start()
            is_well(gate)
            shards.move("acme", other)
            answers(gate, 200, "ok")
            assert notes.ask("third").status_code == 200
            assert 'agentgate_tenant_moves{tenant="acme"} 1.0' in until_told(gate)
    shards.stop()


def until_told(gate: Process) -> str:
    """The metrics, looked at again."""
    time.sleep(6)
    return str(gate.http.get("/metrics").text)
