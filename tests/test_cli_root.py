"""``agentgate root``, as a team runs it with real SSH keys: from a draft to a root that a gate trusts, and on through rotations."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgate.approvals import ApprovalRefused, root_digest
from agentgate.cli.main import app
from agentgate.decision.answer import Allow
from agentgate.errors import ConfigError
from agentgate.gate.gate import Gate
from agentgate.review.root.files import from_root, standing
from agentgate.values.request import Agent, User
from tests.approvals_team import keygen
from tests.preloaded import AGENTGATE, run_at_terminal
from tests.workflows import workflow_text

ALICE, BOB, CAROL, DAVE = PEOPLE = ("alice@acme.example", "bob@acme.example", "carol@acme.example", "dave@acme.example")
WORKFLOW = workflow_text(
    "shop.orders",
    risk="medium",
    intents='{none: "Only looks; nothing here changes or sends anything."}',
    tools="{orders.get: {effect: read, needs: any, redeem: wrapper, args: {order_id: {type: id, from: [prompt]}}}}",
)
TESTS = """\
workflow: shop.orders
base: {call: orders.get, prompt: Please look at A-1, args: {order_id: A-1}}
cases:
  - {name: another order, set: {args.order_id: A-2}, expect: deny, because: order_id}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty home and an empty folder to work in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "app").mkdir()
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "AGENTGATE_ROOT", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path / "app")
    return tmp_path / "app"


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(app, list(map(str, args)), env={"NO_COLOR": "1", "COLUMNS": "200"})
    assert result.exit_code == code, f"{result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def root(*args: object, code: int = 0):
    return run("root", *args, code=code)


def key(name: str, kind: str = "ed25519") -> Path:
    file = Path(f"../{name.partition('@')[0]}").resolve()
    if not file.exists():
        subprocess.run([keygen(), "-q", "-t", kind, "-N", "", "-C", name, "-f", str(file)], check=True)
    return file


def draft(*people: str, out: str = "root-draft.yaml", code: int = 0):
    return root("draft", "--out", out, *(part for p in people for part in ("--person", f"{p}={key(p)}.pub")), code=code)


def edit(old: str, new: str, file: str = "root-draft.yaml") -> None:
    text = Path(file).read_text()
    assert old in text, text
    Path(file).write_text(text.replace(old, new))


def new(name: str, phrase: str, *more: str, code: int = 0, file: str = "root-draft.yaml"):
    return root("new", "--from", file, "--key", key(name), "--accept", phrase, *more, code=code)


def sign(name: str, phrase: str, code: int = 0):
    return root("sign", "--key", key(name), "--accept", phrase, code=code)


def files() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path("workflows").rglob("*") if p.is_file()}


@pytest.fixture
def team(place):
    """A complete root of three, signed by two."""
    draft(ALICE, BOB, CAROL)
    new(ALICE, "root v1, 3 people", code=2)
    sign(BOB, "root v1, 3 people")
    Path("root-draft.yaml").unlink()
    return place


def approve(*people: str) -> None:
    Path("workflows/shop").mkdir(parents=True, exist_ok=True)
    Path("workflows/shop/orders.yaml").write_text(WORKFLOW)
    Path("workflows/shop/orders.test.yaml").write_text(TESTS)
    for at, person in enumerate(people):
        last = at == len(people) - 1
        more = ("--proposer", DAVE, "--accept", "shop.orders v1, all of it")
        run("workflow", "approve", "shop.orders", "--key", key(person), *more, code=0 if last else 2)


def call(pin: str, tmp_path: Path) -> bool:
    """Whether a gate that pins this opens on the folder, runs the workflow and mints."""
    with Gate.open("workflows", root=pin, issuer="https://g.example", keys=tmp_path / "keys", audit=str(tmp_path / "audit")) as gate:
        if not list(gate.catalog):
            return False
        opened = gate.open_run("shop.orders", tenant="acme", user=User("kim", tenant="acme"), agent=Agent("a"), prompt="Please look at A-1")
        return isinstance(opened.authorize("orders.get", {"order_id": "A-1"}), Allow)


# --- a first root -------------------------------------------------------------------------------------------------------------


def test_a_team_makes_a_root_approves_under_it_and_a_gate_runs_what_was_approved(place, tmp_path):
    shown = draft(ALICE, BOB, CAROL).stdout
    assert "agentgate root new --from root-draft.yaml" in shown
    edit(f"by: [{ALICE}, {BOB}, {CAROL}]", "by: ['team:shop']")
    edit("teams: []", "teams: [shop]")
    shown = new(ALICE, "root v1, 3 people", code=2).stdout
    assert "still needed for version 1: 1 of bob@acme.example, carol@acme.example, with: agentgate root sign" in shown
    with pytest.raises(ApprovalRefused, match="signatures"):
        call(root_digest("workflows"), tmp_path)
    assert "complete. Gates pin it" in sign(BOB, "root v1, 3 people").stdout
    pin = root("digest").stdout.strip()
    assert pin == root_digest("workflows")
    approve(ALICE, CAROL)
    assert call(pin, tmp_path)


def test_everything_a_root_says_is_shown_with_the_fingerprints_that_ssh_keygen_prints(team):
    shown = root("show").stdout
    for person in (ALICE, BOB, CAROL):
        printed = subprocess.run([keygen(), "-lf", f"{key(person)}.pub"], check=True, capture_output=True, text=True).stdout
        assert printed.split()[1] in shown
    assert "signatures for version 1: 2 of 2 (alice@acme.example, bob@acme.example)" in shown
    said = json.loads(root("show", "--json").stdout)
    assert (said["version"], said["complete"], said["digest"]) == (1, True, root_digest("workflows"))
    assert [p["name"] for p in said["people"]] == [ALICE, BOB, CAROL]
    assert said["reviews"] == [{"path": "**", "by": [ALICE, BOB, CAROL], "signatures": {"low": 1, "medium": 2, "high": 2}}]
    assert said["warnings"] == []


def test_ssh_keygen_agrees_that_the_root_is_signed(team):
    approvals = Path("workflows/approvals")
    command = [keygen(), "-Y", "verify", "-f", str(approvals / "allowed_signers"), "-I", BOB, "-n", "agentgate-root"]
    command += ["-s", str(approvals / f"root.{BOB}.sig")]
    said = subprocess.run(command, check=False, input=(approvals / "root.yaml").read_bytes(), capture_output=True)
    assert said.returncode == 0, said.stderr


def test_a_key_in_ssh_agent_signs(place, monkeypatch):
    agent = subprocess.run(["ssh-agent", "-s", "-a", str(place.parent / "agent")], check=True, capture_output=True, text=True).stdout
    words = dict(part.partition("=")[::2] for part in agent.replace("\n", ";").split(";") if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", words["SSH_AUTH_SOCK"])
    try:
        draft(ALICE)
        subprocess.run(["ssh-add", "-q", str(key(ALICE))], check=True)
        key(ALICE).unlink()
        root("new", "--from", "root-draft.yaml", "--accept", "root v1, 1 person")
    finally:
        os.kill(int(words["SSH_AGENT_PID"]), 15)
    assert json.loads(root("show", "--json").stdout)["solo"] is True


def test_people_and_keys_of_an_allowed_signers_file(place):
    lines = [
        f'{ALICE} namespaces="git" {key(ALICE).with_suffix(".pub").read_text()}',
        f'{BOB} valid-before="20200101Z" {key(BOB).with_suffix(".pub").read_text()}',
        f'{CAROL},{DAVE} valid-before="20980101Z" {key(CAROL).with_suffix(".pub").read_text()}',
    ]
    Path("allowed_signers").write_text("".join(lines))
    shown = root("draft", "--allowed-signers", "allowed_signers").stdout
    assert "allowed_signers:2: a key of bob@acme.example is left out" in shown
    assert "allowed_signers:3: a key of carol@acme.example, dave@acme.example ended on 2098-01-01" in shown
    assert "# CHECK: allowed_signers:3" in Path("root-draft.yaml").read_text()
    shown = new(ALICE, "root v1, 3 people", code=2).stdout
    assert "together they count once" in shown


@pytest.mark.parametrize(
    ("old", "made", "says"),
    [
        ("threshold: 2", "threshold: 4", "at most the 3 people of roles.root"),
        ("threshold: 2", "treshold: 2", "threshold: (required)"),
        ("threshold: 2", "threshold: 2\nx: 1", "an unknown key"),
        ("expires: ", "expires: 2031-01-01 #", "expires"),
        ("high: 2}", "high: 4}", "at most the 3 people of by"),
        ("high: 2}", "extreme: 2}", "extreme"),
        ("by: [alice", "by: ['team:nobody', alice", "team:"),
        ("teams: []", "teams: ['']", "teams"),
        ("ssh-ed25519 ", "ssh-rsa ", "Ed25519, ECDSA or their FIDO forms"),
        ('- "ssh-ed25519', '- "../alice" #', "ends in .pub"),
        ('- "ssh-ed25519', '- "gone.pub" #', "gone.pub"),
        ("agentgate: root-draft/v1", "agentgate: root/v1", "root-draft/v1"),
        ("threshold: 2", "threshold: 2\nsolo: true", "exactly one person"),
    ],
)
def test_a_draft_that_is_wrong_is_named_and_nothing_is_written(place, old, made, says):
    draft(ALICE, BOB, CAROL)
    edit(old, made)
    result = new(ALICE, "root v1, 3 people", code=1)
    assert says in result.stderr
    assert not Path("workflows").exists()


def test_a_key_may_be_a_file_beside_the_draft(place):
    draft(ALICE)
    Path("team").mkdir()
    Path("team/alice.pub").write_bytes(key(ALICE).with_suffix(".pub").read_bytes())
    line = next(line for line in Path("root-draft.yaml").read_text().splitlines() if "ssh-ed25519" in line)
    Path("team/d.yaml").write_text(Path("root-draft.yaml").read_text().replace(line, "      - alice.pub"))
    new(ALICE, "root v1, 1 person", file="team/d.yaml")


@pytest.mark.parametrize("phrase", ["yes", "", "root v1, 2 people"])
def test_nothing_is_written_or_signed_before_it_is_accepted(team, phrase):
    before = files()
    sign(CAROL, phrase, code=1)
    draft(DAVE)
    new(ALICE, phrase, code=1)
    assert files() == before


def test_a_stranger_signs_nothing(team):
    before = files()
    assert "expected a key of alice@acme.example" in sign("mallory", "root v1, 3 people", code=1).stderr
    draft(DAVE)
    new("mallory", "root v2, 1 change", code=1)
    assert files() == before


def test_a_draft_is_never_overwritten(place):
    draft(ALICE)
    before = Path("root-draft.yaml").read_bytes()
    assert "a new file" in draft(ALICE, BOB, code=1).stderr
    assert Path("root-draft.yaml").read_bytes() == before


@pytest.mark.parametrize("text", ["alice", "alice=", "=x.pub", "alice=../alice", "alice=gone.pub"])
def test_a_person_on_the_command_line_is_a_name_and_a_public_key(place, text):
    key(ALICE)
    assert root("draft", "--person", text, code=1).stderr
    assert not Path("root-draft.yaml").exists()


def test_without_a_root_the_next_step_is_named(place):
    for command in ("show", "digest"):
        assert "agentgate root draft" in root(command, code=1).stderr
    assert "--person" in root("draft", code=1).stderr


def test_help_has_examples():
    for command in ("draft", "new", "sign", "show", "digest"):
        assert "agentgate root" in root(command, "--help").stdout
    assert "agentgate root sign" in root("--help").stdout


# --- the next root ------------------------------------------------------------------------------------------------------------


def test_a_gate_follows_a_rotation_and_what_was_approved_before_still_runs(team, tmp_path):
    pin = root_digest("workflows")
    approve(ALICE, BOB)
    shown = draft(DAVE).stdout
    assert "version 2, from the root in workflows" in shown
    edit(f"  root: [{ALICE}, {BOB}, {CAROL}]", f"  root: [{ALICE}, {BOB}, {DAVE}]")
    shown = new(ALICE, "root v2, 2 changes", code=2).stdout
    assert "people.dave@acme.example.keys: nothing -> SHA256:" in shown
    assert "roles.root: alice@acme.example, bob@acme.example, carol@acme.example -> " in shown
    with pytest.raises(ApprovalRefused):
        call(pin, tmp_path)
    sign(DAVE, "root v2, 2 changes", code=2)  # the new threshold is reached, the old one not
    with pytest.raises(ApprovalRefused, match="version 1"):
        call(pin, tmp_path)
    assert "still needed for version 1: 1 of" in root("show", code=2).stdout
    sign(CAROL, "root v2, 2 changes")  # who leaves may hand over
    run("workflow", "index", "--key", key(ALICE))
    assert call(pin, tmp_path)
    assert call(root("digest").stdout.strip(), tmp_path)
    root("show", "--root", pin)
    assert "ROOT NOT TRUSTED" in root("show", "--root", "sha256:" + "0" * 64, code=2).stdout


def test_what_somebody_signed_who_left_no_longer_counts(team, tmp_path):
    pin = root_digest("workflows")
    approve(ALICE, BOB)
    draft(DAVE)
    edit(f"[{ALICE}, {BOB}, {CAROL}]", f"[{ALICE}, {CAROL}, {DAVE}]")
    text = Path("root-draft.yaml").read_text()
    start = text.index(f"  {BOB}:")
    Path("root-draft.yaml").write_text(text[:start] + text[text.index(f"  {CAROL}:") :])
    phrase = "root v2, 6 changes"
    assert (
        f"agentgate root new by {ALICE} or {CAROL}"
        in root("new", "--from", "root-draft.yaml", "--no-sign", "--accept", phrase, code=1).stderr
    )
    assert f"agentgate root new by {ALICE} or {CAROL}" in new(DAVE, phrase, code=1).stderr  # who is only in the next one cannot
    shown = new(ALICE, phrase, code=2)
    assert "under this root shop.orders v1 is not in force any more, but nothing: sign it anew" in shown.stdout + shown.stderr
    assert "signed again" in shown.stdout  # bob signed the index and the revocations last
    sign(CAROL, phrase)
    assert "1 of 2" in run("workflow", "status", code=2).stdout
    with pytest.raises(ConfigError, match="at least one workflow that loads"):
        call(pin, tmp_path)
    run("workflow", "index", "--key", key(ALICE))
    with pytest.raises(ConfigError, match="at least one workflow that loads"):
        call(pin, tmp_path)


def test_a_root_that_its_predecessor_did_not_sign_is_no_root_for_a_gate(team, tmp_path):
    pin = root_digest("workflows")
    draft(DAVE)
    edit("threshold: 2", "threshold: 1")
    edit(f"  root: [{ALICE}, {BOB}, {CAROL}]", f"  root: [{DAVE}]")
    shown = new(DAVE, "root v2, 3 changes", code=2).stdout
    assert "signatures for version 2: 1 of 1" in shown
    assert "signatures for version 1: 0 of 2" in shown
    assert root("digest", code=2).stderr
    with pytest.raises(ApprovalRefused):
        call(pin, tmp_path)


def test_an_unfinished_root_is_not_built_on_but_can_be_dropped(team, tmp_path):
    pin = root_digest("workflows")
    draft(DAVE)
    new(ALICE, "root v2, 1 change", code=2)
    before = files()
    assert "--replace" in new(ALICE, "root v3, 0 changes", code=1).stderr
    assert files() == before
    edit("teams: []", "teams: [shop]")
    new(ALICE, "root v2, 5 changes", "--replace", code=2)
    sign(BOB, "root v2, 5 changes")
    approve(ALICE, BOB)
    assert call(pin, tmp_path)


def test_the_tenants_somebody_answers_in_are_shown_and_stay_in_the_next_root(team):
    draft(DAVE)
    edit("teams: []", "teams: [shop]\n    tenants: [acme-eu, acme-uk]")
    shown = new(ALICE, "root v2, 9 changes", code=2).stdout
    assert f"people.{ALICE}.tenants: nothing -> acme-eu, acme-uk" in shown
    assert "acme-eu, acme-uk" in root("show", code=2).stdout
    said = json.loads(root("show", "--json", code=2).stdout)
    assert {tuple(person["tenants"] or ()) for person in said["people"]} == {("acme-eu", "acme-uk")}
    sign(BOB, "root v2, 9 changes")
    Path("root-draft.yaml").unlink()
    root("draft")
    assert Path("root-draft.yaml").read_text().count("tenants: [acme-eu, acme-uk]") == 4


def test_a_first_root_that_is_not_signed_can_be_dropped_too(place, tmp_path):
    draft(ALICE, BOB, CAROL)
    new(ALICE, "root v1, 3 people", code=2)
    edit("threshold: 2", "threshold: 1")
    new(BOB, "root v1, 3 people", "--replace")
    assert sorted(p.name for p in Path("workflows/approvals").glob("root.*")) == [f"root.{BOB}.sig", "root.yaml"]
    approve(ALICE, BOB)
    assert call(root_digest("workflows"), tmp_path)


def test_a_key_is_replaced_in_two_roots(team, tmp_path):
    pin = root_digest("workflows")
    approve(BOB, CAROL)
    root("draft", "--person", f"{ALICE}={key('alice-new')}.pub")
    new(ALICE, "root v2, 1 change", code=2)
    assert "which root version 1 does not name" in sign("alice-new", "root v2, 1 change", code=1).stderr
    sign(BOB, "root v2, 1 change")
    Path("root-draft.yaml").unlink()
    root("draft")
    old = key(ALICE).with_suffix(".pub").read_text().split()[1]
    text = Path("root-draft.yaml").read_text()
    Path("root-draft.yaml").write_text("\n".join(line for line in text.splitlines() if old not in line))
    assert "which root version 3 does not name" in new(ALICE, "root v3, 1 change", code=1).stderr
    new("alice-new", "root v3, 1 change", code=2)
    sign(BOB, "root v3, 1 change")
    run("workflow", "index", "--key", key(BOB))
    assert call(pin, tmp_path)


def test_a_root_that_nobody_could_sign_is_not_written(place):
    draft(ALICE)
    new(ALICE, "root v1, 1 person")
    before = files()
    Path("root-draft.yaml").unlink()
    root("draft", "--person", f"{ALICE}={key('alice-new')}.pub")
    old = key(ALICE).with_suffix(".pub").read_text().split()[1]
    text = Path("root-draft.yaml").read_text()
    Path("root-draft.yaml").write_text("\n".join(line for line in text.splitlines() if old not in line))
    assert "at most 0 signatures" in new("alice-new", "root v2, 1 change", code=1).stderr
    assert files() == before


def test_a_key_whose_time_is_over_does_not_come_back_with_the_next_root(team):
    """Somebody closed carol's key by hand in allowed_signers, and the root that says so was signed."""
    draft(DAVE)
    signers = Path("workflows/approvals/allowed_signers")
    carol = key(CAROL).with_suffix(".pub").read_text().split()[1]
    lines = [
        line.replace(' namespaces="', ' valid-before="20200101Z",namespaces="') if carol in line else line
        for line in signers.read_text().splitlines()
    ]
    made = from_root(standing("workflows").root.shape, "\n".join(lines), "2031-01-01", 1.8e9)
    assert [person.name for person in made.people] == [ALICE, BOB]
    assert any("left out" in note for note in made.notes)


# --- what deserves a look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ([("threshold: 2", "threshold: 1")], "alone can replace this root"),
        ([("high: 2}", "high: 1}")], "one signature is enough for high risk"),
        ([("high: 2}", "high: 3}")], "what one of them proposes cannot be approved"),
        ([(f"by: [{ALICE}, {BOB}, {CAROL}]", "by: [bob@acme.example]"), (" medium: 2, high: 2", "")], "only bob"),
    ],
)
def test_what_is_risky_in_a_root_is_said_before_it_is_signed(place, edits, says):
    draft(ALICE, BOB, CAROL)
    for old, made in edits:
        edit(old, made)
    result = root("new", "--from", "root-draft.yaml", "--key", key(ALICE), code=1)
    assert says in result.stdout
    assert "nobody is here to type it" in result.stderr


def test_an_end_that_comes_soon_or_is_past_is_said(place):
    draft(ALICE)
    text = Path("root-draft.yaml").read_text()
    for day, says, code in (("2026-01-01", "it ended after 2026-01-01", 2), ("2099-01-01", "solo: one person", 0)):
        Path("root-draft.yaml").write_text("\n".join(f'expires: "{day}"' if "expires:" in line else line for line in text.splitlines()))
        for file in Path("workflows/approvals").glob("*") if Path("workflows").exists() else ():
            file.unlink()
        new(ALICE, "root v1, 1 person")
        assert says in root("show", code=code).stdout


def test_a_broken_signature_is_named_and_nothing_is_added_to_it(team):
    Path(f"workflows/approvals/root.{BOB}.sig").write_text("hello")
    assert "ROOT NOT TRUSTED" in root("show", code=2).stdout
    assert "Nothing was signed" in sign(CAROL, "root v1, 3 people", code=1).stderr
    assert not Path(f"workflows/approvals/root.{CAROL}.sig").exists()


def test_keys_that_changed_beside_the_root_are_named(team):
    with Path("workflows/approvals/allowed_signers").open("a") as file:
        file.write(f"{DAVE} {key(DAVE).with_suffix('.pub').read_text()}")
    assert "allowed_signers: digest" in root("show", code=2).stdout
    assert "allowed_signers" in draft(DAVE, code=1).stderr
    signers = Path("workflows/approvals/allowed_signers")
    signers.write_text("".join(line for line in signers.read_text().splitlines(keepends=True) if not line.startswith(CAROL)))
    assert "of carol@acme.example has no line in allowed_signers" in root("show", code=2).stdout


def test_a_link_in_place_of_a_trust_file_is_refused(team):
    place = Path("workflows/approvals/root.yaml")
    place.rename("elsewhere.yaml")
    place.symlink_to(Path("elsewhere.yaml").resolve())
    for command in (("show",), ("digest",), ("sign", "--key", key(CAROL)), ("draft",)):
        assert "links are refused" in root(*command, code=1).stderr


def test_at_a_terminal_it_is_a_table(team):
    done = run_at_terminal(AGENTGATE, "root", "show", env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"})
    assert "────" in done.stdout
    assert "Traceback" not in done.stdout
