"""allowed_signers: the part of OpenSSH's format that means one thing to everybody, and nothing else."""

from __future__ import annotations

import contextlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.approvals import ApprovalRefusal, ApprovalRefused, sshsig
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.writing import KeySigner
from tests.approvals_team import keygen

ALICE, BOB = KeySigner.from_seed(b"a" * 32), KeySigner.from_seed(b"b" * 32)
KEY = ALICE.public_key.line
NOW = datetime(2026, 3, 4, 10, tzinfo=UTC).timestamp()
NS = sshsig.NAMESPACE


def parse(text: str) -> AllowedSigners:
    return AllowedSigners.parse(text, "allowed_signers")


def refusal(text: str) -> str:
    with pytest.raises(ApprovalRefused) as raised:
        parse(text)
    assert raised.value.refused.reason is ApprovalRefusal.ROOT_NOT_TRUSTED
    return str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        f"alice {KEY}",
        f"alice {KEY} a comment with words",
        f'alice namespaces="{NS}" {KEY}',
        f'alice namespaces="git,{NS}" {KEY}',
        f'alice valid-after="20260101Z",valid-before="20270101Z" {KEY}',
        f'alice namespaces="{NS}",valid-after="202601010000Z",valid-before="20270101000000Z" {KEY}',
        f"bob,alice\t{KEY}",
        f"# first\n\n  alice   {KEY}\n",
    ],
)
def test_a_key_that_speaks_for_a_person(line):
    assert parse(line).until("alice", ALICE.public_key, NS, NOW) > NOW


def test_until_is_the_end_of_the_line_that_lasts_longest():
    text = f'alice valid-before="20260401Z" {KEY}\nalice valid-before="20260501Z" {KEY}\n'
    assert parse(text).until("alice", ALICE.public_key, NS, NOW) == datetime(2026, 5, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "name", "field"),
    [
        (f"bob {KEY}", ApprovalRefusal.UNAPPROVED, "alice"),
        (f"alice {BOB.public_key.line}", ApprovalRefusal.UNAPPROVED, "alice"),
        (f'alice namespaces="git" {KEY}', ApprovalRefusal.UNAPPROVED, "namespaces"),
        (f'alice namespaces="agentgate-root" {KEY}', ApprovalRefusal.UNAPPROVED, "namespaces"),
        (f'alice valid-before="20260304Z" {KEY}', ApprovalRefusal.EXPIRED, "valid-before"),
        (f'alice valid-before="202603041000Z" {KEY}', ApprovalRefusal.EXPIRED, "valid-before"),
        (f'alice valid-after="20260305Z" {KEY}', ApprovalRefusal.EXPIRED, "valid-after"),
    ],
)
def test_a_key_that_does_not_speak_for_a_person(line, name, field):
    with pytest.raises(ApprovalRefused) as raised:
        parse(line).until("alice", ALICE.public_key, NS, NOW)
    assert (raised.value.refused.reason, raised.value.refused.field) == (name, field)


def test_a_key_speaks_from_its_first_second():
    text = f'alice valid-after="20260304100000Z" {KEY}'
    assert parse(text).until("alice", ALICE.public_key, NS, NOW) > NOW


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no signer"),
        ("# only a comment\n", "no signer"),
        (f"* {KEY}", "no patterns"),
        (f"*@acme.example {KEY}", "no patterns"),
        (f"alice,!bob {KEY}", "no patterns"),
        (f'"alice" {KEY}', "no quotes"),
        (f"alice, {KEY}", "exact name"),
        ("alice", "no key"),
        (f"alice {KEY.split()[0]}", "1 words"),
        ("alice ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB", "RSA and DSA"),
        (f"alice cert-authority {KEY}", "'cert-authority', refused"),
        (f'alice cert-authority,namespaces="{NS}" {KEY}', "'cert-authority', refused"),
        (f'alice namespaces="{NS}",namespaces="git" {KEY}', "twice"),
        (f'alice namespaces="agentgate-*" {KEY}', "no patterns"),
        (f'alice namespaces="" {KEY}', "no patterns"),
        (f'alice namespaces="{NS},!git" {KEY}', "no patterns"),
        (f"alice namespaces {KEY}", "without a value"),
        (f'alice no-touch-required="1" {KEY}', "unknown"),
        (f'alice valid-after="20260101" {KEY}', "another moment on each machine"),
        (f'alice valid-before="20261301Z" {KEY}', "YYYYMMDD"),
        (f'alice valid-before="tomorrow" {KEY}', "YYYYMMDD"),
        (f'alice valid-after="20270101Z",valid-before="20260101Z" {KEY}', "valid-after not before"),
        (f'alice namespaces="{NS} {KEY}', "no key"),
        (f'alice namespaces="{NS}",,valid-before="20270101Z" {KEY}', "the option"),
        (f'alice namespaces="{NS}", {KEY}', "the option"),
        (f"alice {KEY} comm\x07ent", "cannot be seen"),
        (f"al\u0131ce {KEY}", "not ASCII"),
        (f"alice {KEY[:-8]}", "public key"),
        (f"alice {KEY}\n" * 2001, "lines"),
    ],
)
def test_what_is_not_understood_refuses_the_file(text, said):
    assert said in refusal(text)


def test_the_message_names_the_line():
    assert "allowed_signers:3:" in refusal(f"# one\nalice {KEY}\nbob who knows\n")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ApprovalRefused):
        assert parse(text).entries


@given(st.integers(0, 120), st.characters())
def test_any_changed_character_is_read_or_refused(at, char):
    line = f'alice namespaces="{NS}",valid-before="20270101Z" {KEY}'
    changed = line[:at] + char + line[at + 1 :]
    try:
        entries = parse(changed).entries
    except ApprovalRefused:
        return
    assert all(entry.key.line in changed for entry in entries)


def test_openssh_reads_the_same_file(tmp_path: Path):
    """What a root's file says to a gate, it says to `ssh-keygen -Y verify` too."""
    file = tmp_path / "allowed_signers"
    file.write_text(f'# ours\nalice namespaces="git,{NS}",valid-after="20200101Z" {KEY} work\nbob {BOB.public_key.line}\n')
    assert len(parse(file.read_text()).entries) == 2
    for namespace, code in ((NS, 0), ("agentgate-root", 255)):
        (tmp_path / "sig").write_text(ALICE.sign(b"x", namespace))
        command = [keygen(), "-Y", "verify", "-f", str(file), "-I", "alice", "-n", namespace, "-s", str(tmp_path / "sig")]
        assert subprocess.run(command, input=b"x", check=False, capture_output=True).returncode == code
