"""AWS sessions from moto's server over HTTP: the policy that is sent, the session's name and tags, what is refused, what is logged."""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from agentgate import Gate, TokenRefused
from agentgate.credentials.static import Secret
from agentgate.credentials.sts import AwsRole, Permission, STSBroker
from agentgate.errors import ConfigError, Refusal, UpstreamRefused
from tests.authority import Web, reply, slowly, web
from tests.effort import examples
from tests.upstream import ORDER, opened, redeemed, run_of

ARN = "arn:aws:iam::123456789012:role/deploy/writer"
ASSUME = "{broker: bank, role: writer, region: eu-central-1, duration: 15m}"
UPDATE = Permission(["ecs:UpdateService", "ecr:PutImage"], ["arn:aws:ecs:eu-central-1:123456789012:service/shop-web"])
LATER = "<Expiration>2999-01-01T00:00:00Z</Expiration>"
LOGS = Permission(["logs:PutLogEvents"], ["*"])


class Cloud:
    """moto behind a proxy that remembers what STS was asked; `answers` replaces what moto says."""

    def __init__(self, served: Web, moto: str) -> None:
        self.url, self.asked = served.url, list[dict[str, str]]()
        self.answers: Any = None

        def forward(handler: BaseHTTPRequestHandler) -> None:
            body = handler.rfile.read(int(handler.headers["Content-Length"]))
            self.asked.append(dict(urllib.parse.parse_qsl(body.decode())))
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in {"host", "content-length"}}
            answer = httpx.post(moto, content=body, headers={**headers, "Host": "sts.eu-central-1.amazonaws.com"})
            text = answer.content if self.answers is None else self.answers(answer.text).encode()
            reply(handler, text, answer.status_code, **{"Content-Type": "text/xml"})

        self.forward = served.paths["/"] = forward


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}/"
    server.stop()


@pytest.fixture
def served() -> Iterator[Web]:
    with web() as made:
        yield made


@pytest.fixture
def cloud(served: Web, moto: str) -> Cloud:
    return Cloud(served, moto)


def broker_of(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, **more: Any) -> STSBroker:
    monkeypatch.setenv("KEY_OF_THE_BROKER", "secret-key-of-the-broker")
    role = AwsRole(ARN, {"refunds:create": [UPDATE, LOGS]}, **more)
    return STSBroker({"writer": role}, access_key=("AKIABROKER", Secret(env="KEY_OF_THE_BROKER")), endpoint=cloud.url)


@pytest.fixture
def broker(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> STSBroker:
    return broker_of(cloud, monkeypatch)


def why(folder: Path, broker: STSBroker, pay: str = ASSUME, args: Any = ORDER) -> str:
    with opened(folder, {"bank": broker}, pay) as gate, pytest.raises(TokenRefused) as error:
        redeemed(run_of(gate), args=args)
    assert error.value.code is Refusal.UPSTREAM
    return str(error.value)


def test_a_call_gets_a_session_of_its_own_named_and_tagged_after_it(tmp_path: Path, cloud: Cloud, moto: str, broker: STSBroker) -> None:
    with opened(tmp_path, {"bank": broker}, ASSUME) as gate:
        run = run_of(gate)
        with redeemed(run) as call:
            credential = call.credential
            assert credential.parts == ("aws_access_key_id", "region_name", "aws_secret_access_key", "aws_session_token")
            keys: Any = {name: credential.reveal(name) for name in credential.parts}
            who = boto3.client("sts", endpoint_url=moto, **keys).get_caller_identity()
            assert who["Arn"] == f"arn:aws:sts::123456789012:assumed-role/writer/{call.txn}"
        with redeemed(run, call="c2") as other:
            assert other.credential.reveal("aws_session_token") != keys["aws_session_token"]
    asked = cloud.asked[0]
    assert (asked["RoleArn"], asked["RoleSessionName"], asked["DurationSeconds"]) == (ARN, call.txn, "900")
    tags = {asked[f"Tags.member.{n}.Key"]: asked[f"Tags.member.{n}.Value"] for n in range(1, 7)}
    assert tags == {
        "agentgate:tenant": "acme",
        "agentgate:run": run.id,
        "agentgate:user": "bot",
        "agentgate:agent": "bot",
        "agentgate:tool": "pay",
        "agentgate:workflow": "shop.pay@1",
    }
    assert json.loads(asked["Policy"])["Statement"] == [
        {"Effect": "Allow", "Action": sorted(each.actions), "Resource": list(each.resources)} for each in (UPDATE, LOGS)
    ]


# the session policy is never wider than the granted scope


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("ecs:UpdateService", [{"ecs:UpdateService"}]),
        ("iam:PassRole", None),
        ("*", None),
        ("ecs:*", None),
        ("ecs:updateservice", None),
        (None, None),
    ],
)
def test_of_what_its_scopes_stand_for_a_call_gets_what_it_asks_for(
    tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, more: str | None, expected: list[set[str]] | None
) -> None:
    workflow = "{broker: bank, role: writer, region: eu-central-1}"
    broker = broker_of(cloud, monkeypatch, asked_in="actions")
    opened(tmp_path, {"bank": broker}, workflow).close()
    file = tmp_path / "w" / "pay.yaml"
    values = "[ecs:UpdateService, iam:PassRole, '*', 'ecs:*', ecs:updateservice]"
    rule = f"actions: {{each_in: {values}, max_items: 3, from: [model], optional: true}}"
    file.write_text(file.read_text().replace("more: {text: 40, from: [model], optional: true}", rule))
    given: Any = {"issuer": "https://gate.example", "audit": "memory://", "brokers": {"bank": broker}}
    args = {**ORDER, "actions": [more]} if more is not None else ORDER
    with Gate.open_unsafe_unapproved(tmp_path / "w", **given) as gate:
        if expected is None:
            with pytest.raises(TokenRefused, match=r"args\.actions"):
                redeemed(run_of(gate), args=args)
            assert cloud.asked == []
        else:
            with redeemed(run_of(gate), args=args):
                pass
            assert [set(each["Action"]) for each in json.loads(cloud.asked[0]["Policy"])["Statement"]] == expected


class Granted:
    """What the broker looks at of a redeemed call."""

    def __init__(self, scopes: frozenset[str], args: dict[str, Any]) -> None:
        self.claims, self.args = type("Claims", (), {"scopes": scopes}), args


SCOPES = {"a": [Permission(["s3:GetObject", "s3:ListBucket"], ["x"])], "b": [Permission(["s3:PutObject"], ["y"]), LOGS], "c": [UPDATE]}
ACTIONS = sorted({action for permissions in SCOPES.values() for each in permissions for action in each.actions})


@settings(max_examples=examples(300))
@given(st.frozensets(st.sampled_from(["a", "b", "c"]), min_size=1), st.lists(st.sampled_from([*ACTIONS, "iam:PassRole"]), min_size=1))
def test_no_action_is_in_a_policy_that_the_scopes_do_not_stand_for(scopes: frozenset[str], wanted: list[str]) -> None:
    permitted = {(action, each.resources[0]) for scope in scopes for each in SCOPES[scope] for action in each.actions}
    for asked_in in ("", "wanted"):
        try:
            made = AwsRole(ARN, SCOPES, asked_in=asked_in).statements(Granted(scopes, {"wanted": wanted}))  # type: ignore[arg-type]  # the two fields it reads
        except UpstreamRefused:
            assert asked_in
            assert not set(wanted) <= {action for action, _ in permitted}
            continue
        got = {(action, resource) for each in made for action in each["Action"] for resource in each["Resource"]}
        assert got <= permitted
        assert got == permitted or asked_in
        if asked_in:
            assert {action for action, _ in got} == set(wanted)


def test_a_scope_that_stands_for_nothing_is_refused(tmp_path: Path, cloud: Cloud, broker: STSBroker) -> None:
    other = STSBroker({"writer": AwsRole(ARN, {"refunds:read": [LOGS]})}, access_key=broker.access_key, endpoint=cloud.url)
    assert "refunds:create" in why(tmp_path, other)
    assert cloud.asked == []


@pytest.mark.parametrize(
    ("pay", "expected"),
    [
        ("{broker: bank, role: admin, region: eu-central-1}", "admin"),
        ("{broker: bank, role: writer}", "region"),
        ("{broker: bank, region: eu-central-1}", "role"),
        ("{broker: bank, role: writer, region: eu-central-1, duration: 5m}", "duration"),
        ("{broker: bank, role: writer, region: eu-central-1, duration: 1d}", "duration"),
        ("{broker: bank, role: writer, region: eu-central-1, path: x}", "path"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_aws_is_asked(
    tmp_path: Path, cloud: Cloud, broker: STSBroker, pay: str, expected: str
) -> None:
    assert expected in why(tmp_path, broker, pay)
    assert cloud.asked == []


@pytest.mark.parametrize("action", ["*", "s3:*", "s3", "*:GetObject", "s3:Get*Object", ""])
def test_a_permission_names_its_actions(action: str) -> None:
    with pytest.raises(ConfigError):
        Permission([action], ["*"])
    for actions, resources in (([], ["*"]), (["s3:GetObject"], []), ("s3:GetObject", ["*"])):
        with pytest.raises(ConfigError):
            Permission(actions, resources)


# what AWS answers


@pytest.mark.parametrize("case", ["another role", "another session", "too long a life", "an error", "no answer", "slow"])
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    tmp_path: Path, served: Web, cloud: Cloud, broker: STSBroker, case: str
) -> None:
    if case == "another role":
        cloud.answers = lambda text: text.replace("assumed-role/writer/", "assumed-role/admin/").replace("assumed-role/deploy/", "x/")
    elif case == "another session":
        cloud.answers = lambda text: text.replace("txn_", "txm_")
    elif case == "too long a life":
        cloud.answers = lambda text: text.split("<Expiration>")[0] + LATER + text.split("</Expiration>")[1]
    elif case == "an error":
        error = b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>m</Message></Error></ErrorResponse>"
        served.paths["/"] = lambda handler: reply(handler, error, 403, **{"Content-Type": "text/xml"})
    elif case == "no answer":
        served.close()
    else:
        served.paths["/"] = slowly(2.5, cloud.forward)
    expected = {
        "an error": "AccessDenied",
        "no answer": "ConnectionRefusedError",
        "slow": "no whole answer in 2 s",
        "too long a life": "duration",
    }
    assert expected.get(case, "upstream.role") in why(tmp_path, broker)


def test_nothing_of_it_is_logged(tmp_path: Path, broker: STSBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    with opened(tmp_path, {"bank": broker}, ASSUME) as gate, redeemed(run_of(gate)) as call:
        secrets = [call.credential.reveal(name) for name in ("aws_secret_access_key", "aws_session_token")]
    said = caplog.text + "".join(repr(r.__dict__) for r in caplog.records)
    for secret in (*secrets, "secret-key-of-the-broker"):
        assert secret not in said
