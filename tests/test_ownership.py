"""A tool server that was taken over, with the store user that docs/state.md gives it: it owns what is its own, and nothing else.

Each test is an attack on a real server. The attacker has that user's password, runs any command and script, and knows the run's id and the
digests of calls. Where a test asks for a key by what is in it, it finds the key as the operator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from typer.testing import CliRunner

from agentgate import Allow, Gate, Reason, StepUp, TokenRefused, Verifier
from agentgate.cli.main import app
from agentgate.errors import Refusal
from agentgate.stores import open_store, ops, recovery, server_id
from agentgate.token.dpop import DPoP
from agentgate_conformance._book import AUDIENCE, Book
from tests.servers import Server, as_tool_server, redis_binary, valkey_binary
from tests.shop import BOSS, LEE, ORDER, REFUND, WORKFLOW, opened, reasons, run_of
from tests.upstream import ROLES, Bank

ORDERS, PAYMENTS = "https://orders.example", "https://payments.example"
BIG = {**REFUND, "amount": "150.00"}
EVIL = {**REFUND, "payee": "cus_EVIL"}
DIGEST = "e" * 64
_SERVED = "redeem: server\n    audience: {}\n    definition: sha256:" + "0" * 64 + "\n    scope: [shop]"
TWO_SERVERS = WORKFLOW.replace("redeem: wrapper", _SERVED.format(ORDERS), 1).replace("redeem: wrapper", _SERVED.format(PAYMENTS), 1)
DEFINITION = "sha256:" + "0" * 64

_lines: list[Any] = []  # to be closed


@pytest.fixture(params=[redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param(), tmp_path / "server")
    yield server
    while _lines:
        _lines.pop().close()
    server.stop()


class Attacker:
    """Whoever has the store user of a tool server."""

    def __init__(self, server: Server, audience: str, *tenants: str) -> None:
        self.operator: Any = Redis(port=server.port)
        self.line: Any = Redis.from_url(as_tool_server(server.url, audience, *(tenants or ("acme",))))
        _lines.extend((self.operator, self.line))

    def keys(self, field: str) -> list[str]:
        """Every hash that has a field that ends like this."""
        found = [key.decode() for key in self.operator.keys("*") if self.operator.type(key) == b"hash"]
        return [key for key in found if any(name.endswith(field.encode()) for name in self.operator.hkeys(key))]

    def does(self, *command: Any) -> bool:
        """Whether the server does a command for it: plainly, in a script, or in one that names the key."""
        done = False
        for script, keys in (("", 0), ("return redis.call(unpack(ARGV))", 0), ("return redis.call(unpack(ARGV))", 1)):
            try:
                if script:
                    self.line.evalsha(self.line.script_load(script), keys, *command[1 : 1 + keys], *command)
                else:
                    self.line.execute_command(*command)
            except RedisError:
                continue
            done = True
        return done

    def writes(self, key: str, **fields: Any) -> bool:
        """Whether it can write any of some fields of a hash; every one is tried."""
        done = [self.does("HSET", key, name, value) for name, value in fields.items()]
        return any(done)

    def forges(self, run: str, digest: str, **fields: Any) -> None:
        """Write these fields of a call into every hash that may hold what is known of it."""
        existing = [key.decode() for key in self.operator.keys(f"ag:*{run}*") if self.operator.type(key) == b"hash"]
        for key in {*existing, *(f"ag:{{acme}}:{kind}:{run}" for kind in ("calls", "burns", "mints", "shares", "clock"))}:
            for name, value in fields.items():
                self.does("HSET", key, f"{digest}:{name}", value)
            for rev in range(1, 9):
                self.does("HSET", key, f"changed:{rev}", digest, "rev", rev)


class Shop:
    """A gate with two tool servers of their own."""

    def __init__(self, server: Server, folder: Path, workflow: str = TWO_SERVERS, **more: Any) -> None:
        (folder / "w").mkdir()
        (folder / "w" / "refund.yaml").write_text(workflow)
        (folder / "w" / "roles.yaml").write_text(ROLES)
        self.server, self.folder = server, folder
        self.gate: Gate = opened(folder, store=server.url, audit=str(folder / "gate"), keys=folder / "keys", **more)
        self.run = run_of(self.gate)

    def address(self, audience: str) -> str:
        return as_tool_server(self.server.url, audience)

    def verifier(self, audience: str, **more: Any) -> Verifier:
        store, audit = self.address(audience), str(self.folder / audience[8:])
        return Verifier.open(
            self.gate.jwks(), issuer=self.gate.issuer, tenants=["acme"], audience=audience, store=store, audit=audit, **more
        )

    def asked(self, tool: str, args: Any, run: Any = None) -> Any:
        return (run or self.run).authorize(tool, args, tool_call_id=tool, definition=DEFINITION)

    def calls(self, verifier: Verifier, answer: Any, tool: str, args: Any, result: Any = None) -> None:
        assert isinstance(answer, Allow), answer
        url = verifier._who.audience
        headers = answer.token.headers("POST", url)
        proof = DPoP(headers["DPoP"], method="POST", url=url) if "DPoP" in headers else None
        with verifier.redeem(answer.token.reveal(), tool=tool, args=args, proof=proof) as call:
            call.record_result(result or {})

    def looked_up(self) -> None:
        verifier = self.verifier(ORDERS)
        found = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}
        self.calls(verifier, self.asked("orders.get", ORDER), "orders.get", ORDER, found)
        verifier.close()


@pytest.fixture
def shop(server: Server, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(server, tmp_path)
    yield shop
    shop.gate.close()


HEAD = {"tool": "orders.get", "tool_call_id": "look", "args": ORDER, "named": True, "txn": "txn_1", "read": True, "facts": {}}
FORGED = [{"total": "150.00", "currency": "EUR", "customer": "cus_EVIL"}]


@pytest.mark.parametrize("called", [False, True])
def test_it_forges_no_fact_of_another_servers_tool(shop: Shop, called: bool) -> None:  # noqa: FBT001 - a parameter of the test
    attacker, digest = Attacker(shop.server, PAYMENTS), DIGEST
    if called:
        shop.looked_up()
        (call,) = shop.gate.resume_run("acme", shop.run.id).state.calls
        digest = call.digest
    (mint,) = [attacker.operator.hget(key, f"{digest}:mint") for key in attacker.keys(f"{digest}:mint")] or [f"{'0' * 40} {'j' * 32} 1"]
    jti = (mint.decode() if isinstance(mint, bytes) else mint).split()[1]
    head = {**HEAD, "facts": {name: [name] for name in FORGED[0]}}
    said = {"status": "redeemed", "by": jti, "at": int(time.time() * 1000), "outcome": "done", "facts": json.dumps(FORGED)}
    attacker.forges(shop.run.id, digest, head=json.dumps(head), mint=mint, **said)
    for run in (shop.run, shop.gate.resume_run("acme", shop.run.id)):
        assert not isinstance(shop.asked("payments.refund", EVIL, run), Allow)
        for earlier in run.state.calls:
            assert all(row.get("customer") != "cus_EVIL" for row in earlier.rows)


def test_its_own_facts_count_only_for_a_token_that_was_minted_for_it_and_as_declared(shop: Shop) -> None:
    shop.looked_up()
    attacker, (call,) = Attacker(shop.server, ORDERS), shop.gate.resume_run("acme", shop.run.id).state.calls
    (burns,) = attacker.keys(f"{call.digest}:by")
    jti = attacker.operator.hget(burns, f"{call.digest}:by")

    def told(facts: str, by: Any = jti) -> Any:
        attacker.writes(burns, **{f"{call.digest}:facts": facts, f"{call.digest}:by": by})
        # a gate that read the run before is sent only what changed, and nothing says that this did
        with opened(shop.folder, store=shop.server.url, audit="memory://", keys=shop.folder / "keys") as gate:
            return [each.rows for each in gate.resume_run("acme", shop.run.id).state.calls]

    row = FORGED[0]
    assert told(json.dumps([row])) == [(row,)]  # of its own call it may say anything
    for wrong in ('{"total":1}', "[1]", "[", "\xff", '[{"other":"x"}]', '[{"total":{"a":1}}]', '[{"total":NaN}]', "[" * 5000, "null"):
        assert told(wrong) == [()]
    assert told(json.dumps([row] * 1001)) == [()]
    assert told(json.dumps([{"total": "x" * 5000}])) == [()]
    assert told(" " * 2_000_000 + json.dumps([row])) == [()]
    assert told(json.dumps([row]), by="j" * 32) == []
    assert told(json.dumps([row])) == [(row,)]


def test_it_says_of_no_other_servers_call_that_it_did_not_run(shop: Shop) -> None:
    shop.looked_up()
    held = shop.asked("payments.refund", BIG)
    shop.gate.release(held.hold.id, tenant="acme", by=BOSS)
    verifier, attacker = shop.verifier(PAYMENTS), Attacker(shop.server, ORDERS)
    shop.calls(verifier, shop.asked("payments.refund", BIG), "payments.refund", BIG)
    for key in attacker.keys(f"{held.hold.id}:status"):
        assert not attacker.writes(key, **{f"{held.hold.id}:outcome": "not_run", f"{held.hold.id}:status": "minted", "rev": 9})
    attacker.forges(shop.run.id, held.hold.id, outcome="not_run", status="minted")
    assert reasons(shop.asked("payments.refund", BIG)) == {Reason.ALREADY_REDEEMED}
    verifier.close()


def test_it_asks_for_no_other_credential_than_the_gate_wrote(server: Server, tmp_path: Path) -> None:
    bank = Bank()
    shop = Shop(server, tmp_path, TWO_SERVERS + "upstream: {orders.get: {broker: bank, role: reader}}\n", brokers={"bank": bank})
    attacker, answer = Attacker(server, ORDERS), shop.asked("orders.get", ORDER)
    (mints,) = attacker.keys(":head")
    (field,) = [name.decode() for name in attacker.operator.hkeys(mints) if name.endswith(b":head")]
    head = attacker.operator.hget(mints, field)
    assert b"reader" in head
    assert not attacker.writes(mints, **{field: head.replace(b"reader", b"admin")})
    attacker.operator.hset(mints, field, head.replace(b"reader", b"admin"))  # whoever can write everything
    verifier = shop.verifier(ORDERS, brokers={"bank": bank})
    with pytest.raises(TokenRefused) as refused:
        shop.calls(verifier, answer, "orders.get", ORDER)
    assert (refused.value.code, refused.value.field, bank.asked) == (Refusal.STORE, "call record", [])
    attacker.operator.hset(mints, field, head)
    shop.calls(verifier, shop.asked("orders.get", ORDER), "orders.get", ORDER)  # what was refused is known not to have run
    assert len(bank.asked) == 1
    verifier.close()
    shop.gate.close()


# what belongs to gates


class Raided:
    """A run in a store, and its tool server in other hands."""

    def __init__(self, server: Server) -> None:
        self.book = Book(open_store(server.url), tenant="acme")
        self.attacker = Attacker(server, AUDIENCE)

    def overwrites(self, suffix: str, value: Any) -> None:
        """Nobody lets it write any field of this name."""
        keys = self.attacker.keys(suffix)
        assert keys, suffix
        for key in keys:
            for name in self.attacker.operator.hkeys(key):
                if name.decode().endswith(suffix):
                    assert not self.attacker.writes(key, **{name.decode(): value})


@pytest.fixture
def raided(server: Server) -> Iterator[Raided]:
    raided = Raided(server)
    yield raided
    raided.book.store.close()


@pytest.mark.parametrize("limit", [ops.LimitTake("sum", 60, 100, for_run=True), ops.LimitTake("sum", 60, 100, 3_600_000)])
def test_it_takes_no_more_of_a_limit(raided: Raided, limit: ops.LimitTake) -> None:
    book = raided.book
    book.minted(1, limits=(limit,))
    raided.overwrites(":share", f"{10**6} 0")
    assert book.refused(2, limits=(limit,)) == ("limit", "0")
    book.minted(1, limits=(limit,))
    assert book.refused(3, limits=(limit,)) == ("limit", "0")


def test_a_closed_runs_token_stays_void(raided: Raided) -> None:
    _, burning = raided.book.minted(1)
    time.sleep(0.002)
    assert raided.book.ask(ops.close_run("acme", raided.book.run)) == "ok"
    raided.overwrites("withdrawn", "0")
    assert raided.book.burn(burning).kind == "revoked"


def test_a_run_that_was_revoked_by_time_was_opened_when_it_was(raided: Raided) -> None:
    _, burning = raided.book.minted(1)
    raided.book.revoke("user", "lee", before_ms=int(time.time() * 1000) + 60_000)
    raided.overwrites("opened", str(10**15))
    assert raided.book.burn(burning).kind == "revoked"
    assert raided.book.refused(2)[0] == "revoked"


def test_it_writes_no_head_mint_or_clock(raided: Raided) -> None:
    raided.book.minted(1)
    for suffix in (":head", ":mint", ":free", "clock", "form", "audiences", "kept"):
        raided.overwrites(suffix, "0")


def test_it_burns_and_reads_no_other_servers_calls(server: Server, raided: Raided) -> None:
    book, other = raided.book, Attacker(server, "https://other.example")
    request, burning = book.minted(1)
    assert book.burn(book.minted(2, read=True)[1]).kind == "ok"
    (single,) = [key.decode() for key in other.operator.keys(f"*{request.jti}*")]
    assert not any(other.does(command, single) for command in ("GETDEL", "GET", "MGET", "DEL", "EXISTS"))
    for key in (*other.keys(":head"), *other.keys(":status"), *other.keys(":by")):
        names = [name.decode() for name in other.operator.hkeys(key)]
        assert not any(other.does(*command) for command in (("HMGET", key, *names), ("HGET", key, names[0]), ("HGETALL", key)))
    (own,) = raided.attacker.keys(":by")
    assert raided.attacker.does("HGET", own, "rev")
    assert book.burn(burning).kind == "ok"


def test_it_writes_no_history_but_its_own(raided: Raided, server: Server) -> None:
    elsewhere = Book(raided.book.store, tenant="other")
    for book in (raided.book, elsewhere):
        book.revoke("user", "somebody")
        assert book.burn(book.minted(1)[1]).kind == "ok"
        assert book.burn(book.minted(2, audience="https://other.example")[1]).kind == "ok"
    histories = raided.attacker.keys("count")
    assert len(histories) == 6  # two tenants, and two audiences in each
    assert [key for key in histories if raided.attacker.writes(key, count="0")] == [
        key for key in raided.attacker.keys("count") if key.startswith("ag:{acme}:") and server_id(AUDIENCE) in key
    ]


# what is its own stops nobody else


NONSENSE = (b"", b"-1", b"x", b"1e999", b"9" * 250, b"9" * 400, b"\xff\xfe", b"7.5", b"nan", b" " * 100_000, b"9007199254740993", b"[[[")


@pytest.mark.parametrize("value", NONSENSE)
def test_what_it_writes_of_its_own_calls_stops_no_other_call(raided: Raided, value: bytes) -> None:
    book, other = raided.book, "https://other.example"
    assert book.burn(book.minted(1)[1]).kind == "ok"
    assert book.burn(book.minted(2, audience=other)[1]).kind == "ok"
    (burns,) = [key for key in raided.attacker.keys(":by") if server_id(AUDIENCE) in key]
    before = book.read().revision
    kept = raided.attacker.operator.hgetall(burns)
    for field in ("status", "by", "attempt", "runs", "at", "outcome", "facts"):
        assert raided.attacker.writes(burns, **{f"{1:064x}:{field}": value})
        assert f"{2:064x}" in {call.digest for call in book.read().calls}
        raided.attacker.operator.hset(burns, mapping=kept)
    for field in ("status", "by", "attempt", "runs", "at", "outcome", "facts"):
        assert raided.attacker.writes(burns, **{f"{1:064x}:{field}": value})
    assert raided.attacker.writes(burns, **{"rev": value, "changed:1": value, "changed:2": value, f"{3:064x}:head": value, "form": value})
    assert raided.attacker.writes(f"ag:{{acme}}:history:{server_id(AUDIENCE)}", epoch=value, count=value)
    for known in ("", before):
        known_calls = {call.digest: call for call in book.read(known).calls}
        assert f"{3:064x}" not in known_calls
    assert known_calls[f"{2:064x}"].status == "redeemed"
    limit = ops.LimitTake("sum", 1, 9, for_run=True)
    assert book.burn(book.minted(4, audience=other, limits=(limit,))[1]).kind == "ok"
    assert book.hold("held").state == "pending"
    assert book.ask(ops.close_run("acme", book.run)) == "ok"


def test_its_facts_leave_room_for_those_of_others(raided: Raided) -> None:
    book, revision = raided.book, raided.book.read().revision
    minted = [book.minted(number, revision=revision)[1] for number in range(1, 71)]
    _, there = book.minted(99, audience="https://other.example", revision=revision)
    for burning in (*minted, there):
        assert book.burn(burning).kind == "ok"
    assert book.ask(ops.record_result("acme", book.run, there.call_digest, b'["other"]', audience="https://other.example")) == "ok"
    (burns,) = [key for key in raided.attacker.keys(":by") if server_id(AUDIENCE) in key]
    for burning in minted:
        raided.attacker.line.hset(burns, f"{burning.call_digest}:facts", b"x" * 1_000_000)
    known = {call.digest: call for call in book.read().calls}
    assert len(known) == 71
    assert known[there.call_digest].facts == b'["other"]'
    assert 16_000_000 < sum(len(call.facts or b"") for call in known.values()) <= 32 << 20


def test_a_counter_that_it_lowers_hides_no_redemption_of_another(raided: Raided) -> None:
    book, other = raided.book, "https://other.example"
    assert book.burn(book.minted(1)[1]).kind == "ok"
    _, there = book.minted(2, audience=other)
    known = book.read().revision
    assert book.burn(there).kind == "ok"
    (burns,) = [key for key in raided.attacker.keys(":by") if server_id(AUDIENCE) in key]
    assert raided.attacker.writes(burns, rev="0")
    assert book.refused(3, revision=known) == ("stale", "")
    assert f"{2:064x}" in {call.digest for call in book.read(known).calls}


def test_what_it_claims_to_have_lost_stops_its_tenant_and_can_be_reconciled(raided: Raided, server: Server) -> None:
    book, elsewhere = raided.book, Book(raided.book.store, tenant="other")
    book.minted(1)
    own = f"ag:{{acme}}:history:{server_id(AUDIENCE)}"
    assert raided.attacker.writes(own, lost="whatever")
    assert book.refused(2) == ("outcome_unknown", "lost")
    assert book.refused(2, audience="https://other.example") == ("outcome_unknown", "lost")
    assert elsewhere.mint(elsewhere.request(1)).kind == "ok"
    known = book.ask(recovery.read_history("acme"))
    assert set(known.lost) == {"", server_id(AUDIENCE)}
    for name in known.lost:
        ends = {epoch: 0 for epoch, whose in known.whose.items() if whose == name}
        book.ask(recovery.accept_history("acme", ends | dict.fromkeys([known.lost[name].split()[0]], 0), 0, name))
    assert book.mint(book.request(2, audience="https://other.example")).kind == "ok"


EPOCH = f"{'a' * 40}.1"


CLAIMS = (
    f"{EPOCH} {10**15 - 1}",
    f"{EPOCH} {10**15}",
    f"{EPOCH} {'9' * 16}",
    f"{EPOCH} {'9' * 200}",
    f"{EPOCH.upper()} 5",
    "x 5",
    "\xff 5",
    "whatever",
)
CLAIMED: list[dict[str, str]] = [{"lost": claim} for claim in CLAIMS]
CLAIMED += [
    {"lost": f"{EPOCH} 5", **more}
    for more in ({"count": "x"}, {"epoch": "x", "count": "x"}, {f"until:{EPOCH}": "x"}, {"until:x": "9" * 250})
]


def test_a_loss_that_it_claims_is_accepted_whatever_it_is(raided: Raided, server: Server, tmp_path: Path) -> None:
    """Of a large one each missing event was looked for, for ever; one in another form came back at once: its tenant stayed stopped."""
    raided.book.minted(1)
    (tmp_path / "audit").mkdir()
    given = ["--store", server.url, "--audit", str(tmp_path / "audit")]
    words = ["store", "reconcile", *given, "--tenant", "acme", "--accept-loss", "it lies"]
    raided.book.minted(100, audience="https://second.example")
    second = Attacker(server, "https://second.example")
    assert second.writes(f"ag:{{acme}}:history:{server_id('https://second.example')}", lost="x 5", epoch="x")  # without a count
    for number, claimed in enumerate(CLAIMED, 2):
        assert raided.attacker.writes(f"ag:{{acme}}:history:{server_id(AUDIENCE)}", **claimed)
        assert raided.book.refused(0) == ("outcome_unknown", "lost")
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, (claimed, answer.output)
        assert raided.book.mint(raided.book.request(number, audience="https://other.example")).kind == "ok"


def test_a_key_that_is_no_text_hides_no_call_of_unknown_outcome(raided: Raided, server: Server) -> None:
    _, burning = raided.book.minted(1, audience="https://other.example")
    assert raided.book.burn(burning).kind == "ok"
    raided.attacker.line.hset(f"ag:{{acme}}:burns:{server_id(AUDIENCE)}:".encode() + b"\xff\x1b[2J", "rev", "1")
    listed = CliRunner().invoke(app, ["calls", "list", "--unknown", "--store", server.url, "--tenant", "acme"])
    assert (listed.exit_code, burning.call_digest[:32] in listed.output, "\x1b" in listed.output) == (2, True, False), listed.output


REMEMBERS = (
    TWO_SERVERS.replace("for_user: {groups: [support], same_tenant: true}", "for_user: {same_tenant: true}")
    .replace("    effect: read\n", "    effect: read\n    remember: {arg: order_id, for: 90d}\n")
    .replace(
        "order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}",
        "order_id: {type: id, from: [prompt, confirmed, remembered], unknown_origin: confirm}",
    )
    .replace(
        "step_up:\n",
        "step_up:\n  - {id: which, for: orders.get, when: {order_id: {origin: unknown}}, approvers: {user: true}, timeout: 10m}\n",
    )
)
OTHER = {"order_id": "ORD-99999999"}


def test_what_its_own_user_confirmed_is_remembered_by_its_word_and_it_can_neither_write_nor_forge_that(
    server: Server, tmp_path: Path
) -> None:
    """The tool server's report is what makes a call done: it says so beside its own records, and gates alone write what is remembered."""
    shop = Shop(server, tmp_path, REMEMBERS)
    lee, attacker = LEE, Attacker(server, PAYMENTS)
    verifier = shop.verifier(ORDERS)

    def looked_up(outcome: str) -> Any:
        run = run_of(shop.gate)
        held = shop.asked("orders.get", OTHER, run)
        assert isinstance(held, StepUp), held
        shop.gate.release(held.hold.id, tenant="acme", by=lee)
        if outcome == "done":
            shop.calls(verifier, shop.asked("orders.get", OTHER, run), "orders.get", OTHER)
        else:
            shop.asked("orders.get", OTHER, run)
        return held.hold.id

    digest = looked_up("minted")
    assert shop.gate.remembered("acme", for_=lee) == ()
    memory, orders = ops.memory_key("acme", lee.id), server_id(ORDERS)
    (place,) = [each for each in attacker.operator.hkeys(memory) if each != b"forgotten"]
    text = attacker.operator.hget(memory, place)
    # another server's user: neither what is remembered, nor when it ended, nor that another's call was done
    for key in (memory, "ag:{acme}:forgets:user:lee", f"ag:{{acme}}:burns:{orders}:done:{digest}"):
        assert not attacker.writes(key, **{place.decode(): text, "done": "1"})
        assert not attacker.does("HGETALL", key)
        assert not attacker.does("GET", key)
    assert shop.gate.remembered("acme", for_=lee) == ()
    own = Attacker(server, ORDERS)  # that server's own user may lie about its own calls, and makes nobody's yes by it
    assert own.writes(f"ag:{{acme}}:burns:{orders}:done:{'0' * 64}", done="1")
    assert not own.writes(memory, **{place.decode(): text})
    assert isinstance(shop.asked("orders.get", ORDER | {"order_id": "ORD-77777777"}, run_of(shop.gate)), StepUp)
    looked_up("done")
    assert [each.args for each in shop.gate.remembered("acme", for_=lee)] == [OTHER]
    assert isinstance(shop.asked("orders.get", OTHER, run_of(shop.gate)), Allow)
    verifier.close()
    shop.gate.close()
