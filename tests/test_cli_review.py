"""The reviewers' commands from draft to revocation, as a person or a pipeline runs them, in a real git repository with real SSH keys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from agentgate.approvals import root_digest
from agentgate.approvals.writing import Reviewer, ReviewRule, new_root, open_signer, statement, write_approval, write_index
from agentgate.cli.main import app
from agentgate.errors import ConfigError
from agentgate.gate.gate import Gate
from agentgate.intents.lexical import derive
from agentgate.loading.source import find
from agentgate.review.report.signers import makers
from agentgate.values.request import Derived

WORKFLOW = """\
agentgate: workflow/v1
id: shop.refund
version: 1
title: Support refunds an order that the customer names
owners: [lee]
risk: medium
expires: "2031-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund]
    examples: [Please refund order ORD-10023344]
    counter_examples: [Refund all orders]
tools:
  refund:
    effect: write
    needs: [refund]
    definition: sha256:16dd4739611307a349a85ce39342be57e2a380e5d85e2c94dce2b977d11ea047
    redeem: wrapper
    args:
      order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}
      notify: {type: email, pattern: '[a-z]+@acme\\.example', from: [prompt], optional: true}
limits:
  - {count: refund, max: 1, per: run}
"""
TESTS = """\
workflow: shop.refund
base: {call: refund, prompt: Please refund order ORD-10023344, args: {order_id: ORD-10023344}}
cases:
  - {name: another order, set: {args.order_id: ORD-99999999}, expect: deny, because: order_id}
"""
WIDER = WORKFLOW.replace("version: 1", "version: 2").replace("[a-z]+@acme", "[a-z.]+@acme")
NARROWER = WORKFLOW.replace("version: 1", "version: 2").replace("ORD-[0-9]{8}", "ORD-1[0-9]{7}")
FILE = "workflows/shop/refund.yaml"


def git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str = "change", author: str = "dev@acme.example") -> str:
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message, f"--author=Dev <{author}>")
    return git("rev-parse", "HEAD")


def run(*args: object, code: int = 0, stdin: str = "", **env: str):
    result = CliRunner().invoke(app, ["workflow", *map(str, args)], input=stdin, env={"NO_COLOR": "1", "COLUMNS": "100", **env})
    assert result.exit_code == code, f"{result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def write(text: str, file: str = FILE) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)


def use_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "AGENTGATE_ROOT", "GIT_DIR", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home: no keys, no agent, no settings of whoever runs the tests."""
    (tmp_path / "home").mkdir(exist_ok=True)
    use_home(tmp_path, monkeypatch)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two folders, made once: with the repository as `repository` has it, and as `approved` has it."""
    before, after = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after")
    (after / "home").mkdir()
    (after / "repository").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_home(after, monkeypatch)
        monkeypatch.chdir(after / "repository")
        make_repository()
        shutil.copytree(after, before, dirs_exist_ok=True)
        make_approvals(after)
    return before, after


@pytest.fixture
def repository(tmp_path, prepared, monkeypatch):
    """A repository with one workflow, committed by dev, approved by nobody."""
    shutil.copytree(prepared[0], tmp_path, dirs_exist_ok=True)
    use_home(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


def copy_over(source: str, target: str) -> str:
    """As `shutil.copy2`, also over a file that nobody may write: git keeps its objects so."""
    Path(target).unlink(missing_ok=True)
    return shutil.copy2(source, target)


@pytest.fixture
def approved(tmp_path, prepared, repository):
    """The same with a root of three people, two signatures for medium risk, and version 1 approved by alice and bob."""
    shutil.copytree(prepared[1], tmp_path, dirs_exist_ok=True, copy_function=copy_over)
    return repository


def make_repository() -> None:
    git("init", "-q", "-b", "main")
    git("config", "user.email", "dev@acme.example")
    git("config", "user.name", "Dev")
    write(WORKFLOW)
    write(TESTS, "workflows/shop/refund.test.yaml")
    commit("a workflow")


def key(tmp_path: Path, name: str) -> Path:
    file = tmp_path / f"key-{name}"
    if not file.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


PEOPLE = ("alice@acme.example", "bob@acme.example", "dev@acme.example")


def make_approvals(tmp_path: Path) -> None:
    signers = {name: open_signer(key(tmp_path, name)) for name in PEOPLE}
    new_root(
        "workflows",
        [Reviewer(name, (hand.public_key,)) for name, hand in signers.items()],
        expires="2031-12-31",
        rules=[ReviewRule("**", PEOPLE, {"low": 1, "medium": 2})],
        signer=signers[PEOPLE[0]],
    )
    for name in PEOPLE[:2]:
        approve(tmp_path, name, "shop.refund v1, all of it", code=2 if name == PEOPLE[0] else 0)
    write_index("workflows", signers[PEOPLE[0]])
    commit("approved")


def approve(tmp_path: Path, name: str, phrase: str, *more: str, code: int = 0):
    return run("approve", "shop.refund", "--key", key(tmp_path, name), "--accept", phrase, *more, code=code)


# --- diff ---------------------------------------------------------------------------------------------------------------------


def test_a_wider_version_exits_with_2_and_names_a_value(repository):
    write(WIDER)
    shown = run("diff", f"main:{FILE}", FILE, code=2).stdout
    assert "shop.refund  v1 -> v2     MORE permitted: 1" in shown
    assert "refund: args.notify.pattern" in shown
    assert "was refused, would be allowed" in shown


@pytest.mark.parametrize("text", [WORKFLOW, NARROWER, "# another comment\n" + WORKFLOW], ids=["same", "narrower", "comment"])
def test_nothing_wider_exits_with_0(repository, text):
    write(text)
    run("diff", f"main:{FILE}", FILE)


def test_the_sides_may_be_files_or_revisions(repository):
    shutil.copy(FILE, "old.yaml")
    write(WIDER)
    commit()
    for old, new in ((f"HEAD~1:{FILE}", f"HEAD:{FILE}"), ("old.yaml", FILE), (f"HEAD^:./{FILE}", f"./{FILE}")):
        assert json.loads(run("diff", old, new, "--json", code=2).stdout)["verdict"] == "wider"


def test_a_path_may_start_where_one_stands(repository, monkeypatch):
    write(WIDER)
    monkeypatch.chdir("workflows")
    run("diff", "main:./shop/refund.yaml", "shop/refund.yaml", code=2)
    run("diff", "main:../workflows/shop/refund.yaml", "shop/refund.yaml", code=2)


def test_the_roles_of_a_revision_are_its_own(repository):
    write("agentgate: roles/v1\nroles: {clerk: [a, b]}\n", "workflows/roles.yaml")
    commit()
    write("agentgate: roles/v1\nroles: {clerk: [a, b, c]}\n", "workflows/roles.yaml")
    assert find(f"HEAD:{FILE}").roles == {"clerk": {"a", "b"}}
    assert find(FILE).roles == {"clerk": {"a", "b", "c"}}


SCOPES = "      scopes: {each_in: [a, b], max_items: 2, narrower_than_role: clerk, from: [model], optional: true}\n"
WITH_A_ROLE = WORKFLOW.replace("limits:\n", SCOPES + "limits:\n")
ROLES = "agentgate: roles/v1\nroles: {clerk: [a, b, c]}\n"


@pytest.mark.parametrize("outside", [0, 1])
def test_a_file_outside_a_workflow_folder_reads_its_roles_as_the_other_side_does(repository, tmp_path, outside):
    write(WITH_A_ROLE)
    write(ROLES, "workflows/roles.yaml")
    commit()
    (tmp_path / "copy.yaml").write_text(WITH_A_ROLE)
    for inside in (FILE, f"HEAD:{FILE}"):
        sides = [inside, tmp_path / "copy.yaml"] if outside else [tmp_path / "copy.yaml", inside]
        shown = run("diff", *sides).stdout
        assert "copy.yaml lies in no workflow folder: its roles are read as in" in shown
        assert "workflows/roles.yaml" in shown
    assert "lies in no workflow folder" not in run("diff", FILE, f"HEAD:{FILE}").stdout


def test_roles_are_borrowed_only_by_a_file_that_has_none_above_it_and_names_one(repository, tmp_path):
    write(WITH_A_ROLE)
    write(ROLES, "workflows/roles.yaml")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/roles.yaml").write_text(ROLES.replace("clerk", "other"))
    (tmp_path / "elsewhere/copy.yaml").write_text(WITH_A_ROLE)
    assert "a role of roles.yaml" in run("diff", tmp_path / "elsewhere/copy.yaml", FILE, code=1).stderr  # its own roles count
    (tmp_path / "copy.yaml").write_text(WORKFLOW)
    assert "lies in no workflow folder" not in run("diff", tmp_path / "copy.yaml", FILE, code=2).stdout
    Path("workflows/roles.yaml").rename("../roles-away.yaml")
    commit()
    Path("../roles-away.yaml").rename("workflows/roles.yaml")
    assert "a role of roles.yaml" in run("diff", f"HEAD:{FILE}", FILE, code=1).stderr  # a commit without roles had none


OPTIONS = ["--output=pwned", "-p", "--upload-pack=touch pwned", "main --output=pwned", "main;touch pwned", "$(touch pwned)"]


@pytest.mark.parametrize("revision", [*OPTIONS, "a\nb", "", "\x1b[31m", "nowhere", "HEAD:x"])
def test_a_revision_is_never_an_option_or_a_command(repository, revision):
    result = run("diff", "--", f"{revision}:{FILE}", FILE, code=1)
    assert ("expected a branch, tag or commit" in result.stderr) is (revision not in {"nowhere", "HEAD:x"})
    assert result.stderr.replace("\n", "").isprintable()
    assert not list(repository.rglob("pwned"))


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "", "workflows", "workflows/gone.yaml", "workflows/\x1b.yaml"])
def test_a_path_in_a_revision_stays_in_it(repository, path):
    expected = "a file of that commit" if path.startswith("workflows") and path.isprintable() else "a path inside the repository"
    assert expected in run("diff", f"main:{path}", FILE, code=1).stderr


def test_a_folder_that_looks_like_a_revision_does_not_stand_in_for_it(repository):
    write(WIDER, f"main:{FILE}")
    write(WIDER)
    run("diff", f"main:{FILE}", FILE, code=2)  # not the file on disk, which is the same as the new one
    run("diff", f"./main:{FILE}", FILE)


def test_nothing_that_the_repository_names_is_executed(repository):
    """Attributes, hooks, textconv, fsmonitor and pager that a clone's own settings could point to."""
    script = repository / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch {repository}/pwned\ncat\n")
    script.chmod(0o755)
    write("*.yaml diff=x filter=x\n", ".gitattributes")
    for name in ("diff.x.textconv", "core.fsmonitor", "core.pager", "diff.external"):
        git("config", name, str(script))
    write(WIDER)
    run("diff", f"main:{FILE}", FILE, code=2)
    assert not (repository / "pwned").exists()


def test_a_file_that_does_not_load_is_an_error_with_its_line(repository):
    write(WIDER.replace("effect: write", "effect: wrte"))
    assert f"{FILE}:18:" in run("diff", f"main:{FILE}", FILE, code=1).stderr


def test_a_comment_for_the_pull_request_and_a_page(repository):
    write(WIDER)
    result = run("diff", f"main:{FILE}", FILE, "--markdown", "--html", "change.html", code=2)
    assert "**MORE permitted&#58; 1**" in result.stdout
    page = Path("change.html").read_text()
    assert "MORE permitted" in page
    assert "+  version: 2" not in page
    assert "+version: 2" in page
    run("diff", f"main:{FILE}", FILE, "--markdown", "--json", code=1)
    run("diff", f"main:{FILE}", FILE, "--html", "no/such/folder.html", code=1)


def test_wrong_usage_is_an_error_and_not_an_answer(repository):
    run("diff", FILE, code=1)
    run("diff", "--no-such-option", code=1)
    run("no-such-command", code=1)


# --- test ---------------------------------------------------------------------------------------------------------------------


def test_cases_that_hold_exit_with_0(repository):
    assert "shop.refund: 2 cases hold" in run("test").stdout
    shown = run("test", "-v", FILE).stdout
    assert "another order" in shown
    assert "who.user.tenant: acme" in shown


def test_a_case_that_does_not_hold_says_why(repository):
    write(TESTS.replace("expect: deny, because: order_id", "expect: allow"), "workflows/shop/refund.test.yaml")
    assert "workflows/shop/refund.test.yaml:4: another order: expected allow, got deny" in run("test", code=1).stdout


def test_a_workflow_without_tests_is_an_error(repository):
    Path("workflows/shop/refund.test.yaml").unlink()
    assert "--propose" in run("test", code=1).stdout
    run("test", "--propose")
    run("test", "--mutate")


def test_a_condition_that_no_case_would_miss_exits_with_2_and_proposals_cover_it(repository):
    result = run("test", "--mutate", code=2)
    assert "every case still holds" in result.stdout
    assert "shop/refund.yaml:23" in result.stdout
    run("test", "--propose")
    run("test", "--mutate")
    assert "proposed: read each" in Path("workflows/shop/refund.test.yaml").read_text()


def test_results_for_a_program(repository):
    [one] = json.loads(run("test", "--mutate", "--json", code=2).stdout)
    assert (one["workflow"], one["ok"], len(one["cases"])) == ("shop.refund", True, 2)
    assert one["not_missed"]


# --- approve --------------------------------------------------------------------------------------------------------------------


def test_two_signatures_put_a_version_in_force_and_a_gate_runs_it(approved, tmp_path):
    assert run("status").stdout.splitlines()[1].split()[:3] == ["shop.refund", "v1", "v1"]
    gate = Gate.open(
        "workflows", root=root_digest("workflows"), issuer="https://g.example", keys=tmp_path / "k", audit=str(tmp_path / "audit")
    )
    with gate:
        assert [w.version for w in gate.catalog] == [1]


def test_a_wider_version_needs_the_quorum_and_each_signer_types_what_they_accept(approved, tmp_path):
    write(WIDER)
    commit()
    assert "To sign, type: shop.refund v2, 1 wider" in approve(tmp_path, PEOPLE[0], "yes", code=1).stdout
    assert not Path("workflows/approvals/shop.refund/2").exists()
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2).stdout
    assert "made by: dev@acme.example" in shown
    assert "still needed: 1 of bob@acme.example" in shown
    run("status", code=2)
    assert "in force: v2" in approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider").stdout
    run("status")


def test_only_narrower_needs_one_signature(approved, tmp_path):
    write(NARROWER)
    commit()
    assert "in force: v2" in approve(tmp_path, PEOPLE[0], "shop.refund v2").stdout


def test_the_proposer_never_counts(approved, tmp_path):
    write(WIDER)
    commit()
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2).stdout
    assert "STILL TO SIGN: 2 of alice@acme.example, bob@acme.example for **" in shown
    assert "does not count" not in shown
    assert (
        "your own signature does not count: you made the change" in approve(tmp_path, PEOPLE[2], "shop.refund v2, 1 wider", code=2).stdout
    )
    shown = run("status", code=2).stdout
    assert "UNAPPROVED" in shown
    assert " 1 of 2 " in shown


def made(version: str = "2") -> list[str]:
    """Who made the version, according to each statement."""
    texts = [json.loads(f.read_text()).get("predicate") for f in sorted(Path(f"workflows/approvals/shop.refund/{version}").glob("*.json"))]
    return sorted({name for text in texts if text for name in (text["proposer"], *text.get("authors", ()))})


@pytest.mark.parametrize("how", ["an earlier commit", "a co-author", "a committer", "another spelling", "--proposer nobody"])
def test_nobody_who_made_part_of_a_change_counts_for_it(approved, tmp_path, monkeypatch, how):
    """Alice wrote part of it; the last commit is by someone else. Bob alone is not enough, whoever Alice says proposed it."""
    more: tuple[str, ...] = ()
    if how == "an earlier commit":
        write(WIDER + "# first\n")
        commit(author=PEOPLE[0])
    write(WIDER)
    message, author = "change", "kim@acme.example"
    if how == "a co-author":
        message = "change\n\nCo-authored-by: Alice <alice@acme.example>"
    elif how == "a committer":
        monkeypatch.setenv("GIT_COMMITTER_EMAIL", PEOPLE[0])
    elif how == "another spelling":
        author = "Alice+Work@ACME.example"
    elif how == "--proposer nobody":
        author, more = PEOPLE[0], ("--proposer", "nobody")
    commit(message, author)
    monkeypatch.delenv("GIT_COMMITTER_EMAIL", raising=False)
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", *more, code=2).stdout
    assert "your own signature does not count: you made the change" in shown
    assert any(name.lower().replace("+work", "") == PEOPLE[0] for name in made())
    approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=2)
    assert "1 of 2 signatures for **" in run("status", code=2).stdout
    assert "not alice@acme.example" in run("status", code=2).stdout


def whose(email: str) -> tuple[str, ...]:
    return ("-c", f"user.name={email}", "-c", f"user.email={email}")


def test_who_changes_the_file_in_a_merge_made_it(approved, tmp_path):
    """Neither side has Alice's text: only the merge commit does, and `git log FILE --follow` shows no merges."""
    git("checkout", "-q", "-b", "side")
    Path("other.txt").write_text("other\n")
    commit(author="kim@acme.example")
    git("checkout", "-q", "main")
    Path("more.txt").write_text("more\n")
    commit(author="kim@acme.example")
    git(*whose(PEOPLE[0]), "merge", "-q", "--no-commit", "--no-ff", "side")
    write(WIDER)
    git("add", ".")
    git(*whose(PEOPLE[0]), "commit", "-q", "-m", "Merge branch 'side'")
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2).stdout
    assert "your own signature does not count: you made the change" in shown
    assert PEOPLE[0] in made()


def test_a_remark_on_another_branch_hides_no_author(approved, tmp_path):
    """The newest commit is still the version in force; the change lies on a branch, is older, and is merged."""
    git("checkout", "-q", "-b", "side")
    write(WIDER)
    commit(author=PEOPLE[0])
    git("checkout", "-q", "main")
    write("# a remark\n" + WORKFLOW)
    commit(author="kim@acme.example")
    git("-c", "user.name=kim", "-c", "user.email=kim@acme.example", "merge", "-q", "--no-edit", "side")
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2).stdout
    assert "your own signature does not count: you made the change" in shown
    assert PEOPLE[0] in made()


def test_a_branch_that_goes_back_hides_no_author(approved, tmp_path):
    """Alice's text comes back by a merge that takes it from before it was taken out."""
    write(WIDER)
    commit(author=PEOPLE[0])
    git("branch", "kept")
    write(WORKFLOW)
    commit(author="kim@acme.example")
    git("checkout", "-q", "kept")
    Path("other.txt").write_text("other\n")
    commit(author="kim@acme.example")
    git("checkout", "-q", "main")
    git("-c", "user.name=kim", "-c", "user.email=kim@acme.example", "merge", "-q", "--no-commit", "kept")
    write(WIDER)
    git("add", ".")
    git("-c", "user.name=kim", "-c", "user.email=kim@acme.example", "commit", "-q", "-m", "Merge branch 'kept'")
    shown = approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2).stdout
    assert "your own signature does not count: you made the change" in shown


@pytest.mark.parametrize("how", ["renamed", "copied", "renamed in a merge"])
def test_a_file_that_got_another_name_keeps_its_authors(approved, tmp_path, how):
    before = find(FILE).workflow().digest
    if how == "renamed in a merge":
        git("checkout", "-q", "-b", "side")
        Path("other.txt").write_text("other\n")
        commit(author="dev@acme.example")
        git("checkout", "-q", "main")
    write(WIDER)
    commit(author=PEOPLE[0])
    if how == "renamed in a merge":
        git("merge", "-q", "--no-commit", "--no-ff", "side")
    if how == "copied":
        shutil.copy(FILE, "workflows/refund.yaml")
    else:
        git("mv", FILE, "workflows/refund.yaml")
    commit(author="kim@acme.example")
    named = makers(Path("workflows/refund.yaml"), before)
    assert (named[0], PEOPLE[0] in named) == ("kim@acme.example", True)


def test_nobody_changes_a_workflow_behind_a_link(approved, tmp_path):
    """A link's own history does not tell who changed what it leads to."""
    before = find(FILE).workflow().digest
    git("mv", FILE, "workflows/text.yaml")
    Path(FILE).symlink_to("../text.yaml")
    commit(author="kim@acme.example")
    write(WIDER, "workflows/text.yaml")
    commit(author=PEOPLE[0])
    with pytest.raises(ConfigError, match="a link"):
        makers(Path(FILE), before)


def test_what_was_committed_before_the_version_in_force_makes_nobody_an_author(approved, tmp_path):
    write(WORKFLOW + "# a remark\n")
    commit(author=PEOPLE[0])
    write(WIDER)
    commit(author="kim@acme.example")
    approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=2)
    assert made() == ["dev@acme.example", "kim@acme.example"]  # dev committed it


def test_a_history_that_is_cut_off_before_the_version_in_force_hides_no_author(approved, tmp_path, monkeypatch):
    for n in range(3):
        write(WIDER + f"# {n}\n")
        commit(author=PEOPLE[0])
    git("clone", "-q", "--depth", "1", f"file://{approved}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    assert "git fetch --unshallow" in approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=1).stderr


@pytest.fixture
def signed_commits(approved, tmp_path):
    """The same under a root that takes only signed commits; git signs with SSH keys."""
    signers = {name: open_signer(key(tmp_path, name)) for name in PEOPLE}
    new_root(
        "workflows",
        [Reviewer(name, (hand.public_key,)) for name, hand in signers.items()],
        expires="2031-12-31",
        rules=[ReviewRule("**", PEOPLE, {"low": 1, "medium": 2})],
        signer=signers[PEOPLE[0]],
        signed_commits=True,
    )
    git("config", "gpg.format", "ssh")
    return approved


def signed(tmp_path: Path, name: str, *more: str) -> None:
    git("add", "-A")
    git("-c", f"user.signingkey={key(tmp_path, name)}", "commit", "-q", "-S", "-m", "change", *more)


def test_where_commits_are_signed_whoever_signed_one_made_it(signed_commits, tmp_path):
    write(WIDER)
    signed(tmp_path, PEOPLE[0], "--author=Kim <kim@acme.example>")
    approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=2)
    assert PEOPLE[0] in made()


def test_where_commits_are_signed_an_unsigned_or_a_strangers_commit_is_not_approved(signed_commits, tmp_path):
    write(WIDER)
    assert "signed_commits" in approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=1).stderr  # not committed
    commit()
    assert "with no signature" in approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=1).stderr
    signed(tmp_path, "mallory", "--amend")
    assert "with another signature" in approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=1).stderr
    signed(tmp_path, PEOPLE[0], "--amend")
    forged = git("cat-file", "commit", "HEAD").replace("change", "changed")
    fake = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"], input=forged + "\n", text=True, check=True, capture_output=True
    )
    git("reset", "-q", "--soft", fake.stdout.strip())
    assert "with another signature" in approve(tmp_path, PEOPLE[1], "shop.refund v2, 1 wider", code=1).stderr


def test_who_proposed_an_uncommitted_change_must_be_said(approved, tmp_path):
    write(WIDER)
    assert "--proposer" in approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=1).stderr
    approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", "--proposer", "dev@acme.example", code=2)


@pytest.mark.parametrize("day", ["2020-01-01", "2999-12-31", "soon"])
def test_an_approval_ends_between_today_and_the_workflows_last_day(approved, tmp_path, day):
    write(WIDER)
    commit()
    assert "setting 'until'" in approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", "--until", day, code=1).stderr


def test_a_draft_with_open_questions_or_failing_tests_is_not_signed(approved, tmp_path):
    write(WIDER.replace("    args:", "    args:\n      # DECIDE: may it?"))
    assert "undecided: may it?" in approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=1).stderr
    write(WIDER)
    write(TESTS.replace("because: order_id", "because: notify"), "workflows/shop/refund.test.yaml")
    assert "Its tests do not hold" in approve(tmp_path, PEOPLE[0], "shop.refund v2, 1 wider", code=1).stderr


def test_a_stranger_and_an_absent_key_are_refused(approved, tmp_path):
    assert "a key of somebody in the root" in approve(tmp_path, "mallory", "x", code=1).stderr
    assert "ssh-keygen -t ed25519" in run("approve", "shop.refund", code=1).stderr
    assert "nobody is here to type it" in run("approve", "shop.refund", "--key", key(tmp_path, PEOPLE[0]), code=1).stderr


def test_a_key_in_ssh_agent_signs(approved, tmp_path, monkeypatch, home):
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(home / "agent")], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if (home / "agent").exists():
                break
            subprocess.run(["sleep", "0.02"], check=True)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        subprocess.run(["ssh-add", "-q", str(key(tmp_path, PEOPLE[0]))], check=True)
        write(NARROWER)
        commit()
        assert "in force: v2" in run("approve", "shop.refund", "--accept", "shop.refund v2").stdout
    finally:
        agent.terminate()
        agent.wait()


def test_approvals_survive_rebase_and_squash_and_die_with_one_changed_value(approved, tmp_path):
    git("checkout", "-q", "-b", "topic")
    write(WIDER)
    first = commit("wider")
    for name in PEOPLE[:2]:
        approve(tmp_path, name, "shop.refund v2, 1 wider", code=2 if name == PEOPLE[0] else 0)
    commit("approvals")
    git("checkout", "-q", "main")
    write("something else", "README")
    commit("meanwhile")
    git("checkout", "-q", "topic")
    git("rebase", "-q", "main")
    assert git("rev-parse", "HEAD~1") != first
    run("status")
    git("checkout", "-q", "main")
    git("merge", "-q", "--squash", "topic")
    commit("squashed")
    run("status")
    run("check", "--base", "HEAD~1", code=3)
    write("# only a comment\n" + WIDER)
    run("status")
    write(WIDER.replace("max: 1, per: run", "max: 2, per: run"))
    assert "TAMPERED: shop/refund.yaml: limits[0].max" in run("status", code=2).stdout


# --- check --------------------------------------------------------------------------------------------------------------------


def test_a_pull_request_is_checked_whole(approved, tmp_path):
    git("checkout", "-q", "-b", "topic")
    assert "changes since main" in run("check", "--base", "main").stdout
    write(WIDER)
    commit()
    result = run("check", "--base", "main", code=2)
    assert "MORE permitted: 1" in result.stdout
    assert "STILL TO SIGN: 2 of alice@acme.example, bob@acme.example for" in result.stdout  # dev proposed it
    said = json.loads(run("check", "--base", "main", "--json", "--html", "changes.html", code=2).stdout)
    assert (said["exit_code"], [c["verdict"] for c in said["changes"]]) == (2, ["wider"])
    assert "Not approved yet" in run("check", "--base", "main", "--markdown", code=2).stdout
    assert "shop.refund" in Path("changes.html").read_text()
    for name in PEOPLE[:2]:
        approve(tmp_path, name, "shop.refund v2, 1 wider", code=2 if name == PEOPLE[0] else 0)
    assert "every workflow file is in force" in run("check", "--base", "main", code=3).stdout


def test_what_does_not_load_or_hold_is_an_error(approved):
    write(WIDER.replace("effect: write", "effect: wrte"))
    run("check", "--base", "main", code=1)
    write(WIDER)
    write(TESTS.replace("because: order_id", "because: notify"), "workflows/shop/refund.test.yaml")
    said = run("check", "--base", "main", "--markdown", code=1).stdout
    assert "**1 error**" in said
    assert "**MORE permitted&#58; 1**" in said  # what the change permits is there to be read all the same
    said = run("check", "--base", "main", "--html", "changes.html", code=1).stdout
    assert "Error</b> workflows/shop/refund.test.yaml" in Path("changes.html").read_text()
    assert said.index("another order: ") < said.index("MORE permitted: 1"), said
    assert said.rstrip().endswith("1 error, named at the top")
    run("check", "--base", "nowhere", code=1)


def test_what_is_approved_and_wider_has_an_exit_code_of_its_own(approved, tmp_path):
    git("checkout", "-q", "-b", "topic")
    write(WIDER)
    commit()
    run("check", "--base", "main", code=2)
    for name in PEOPLE[:2]:
        approve(tmp_path, name, "shop.refund v2, 1 wider", code=2 if name == PEOPLE[0] else 0)
    commit("approved")
    assert "approved: every workflow file is in force (more is permitted than before)" in run("check", "--base", "main", code=3).stdout
    run("check", "--base", "HEAD")
    assert "expected a branch, tag or commit" in run("check", "--base", "", code=1).stderr  # a variable of CI that is not set


def test_the_first_check_of_a_new_repository_compares_with_nothing_and_says_what_is_next(tmp_path, home, monkeypatch):
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    git("init", "-q", "-b", "main")
    write(WORKFLOW)
    write(TESTS, "workflows/shop/refund.test.yaml")
    shown = run("check", code=2)
    assert "changes since nothing (no commit yet)" in shown.stdout
    assert "agentgate root draft" in shown.stdout + shown.stderr


def jobs() -> tuple[list[str], list[str]]:
    """The shell of the two CI jobs in the documentation: GitHub's steps, GitLab's script."""
    text = (Path(__file__).parent.parent / "docs/reviewing.md").read_text()
    blocks = text.partition("Post first, then fail.")[2].split("```yaml")[1:3]
    github, gitlab = (yaml.safe_load(block.partition("```")[0]) for block in blocks)
    return [step["run"] for step in github if "run" in step], gitlab["workflow-check"]["script"]


OTHER = pytest.mark.thorough("the same script; each change is made at one of the two forges, and each forge sees one at least")


@pytest.mark.parametrize(
    ("change", "forge"),
    [
        ("wider", "GitHub"),
        ("approved", "GitLab"),
        pytest.param("none", "GitHub", marks=OTHER),
        pytest.param("wider", "GitLab", marks=OTHER),
        pytest.param("approved", "GitHub", marks=OTHER),
        ("none", "GitLab"),
    ],
)
def test_the_documented_jobs_post_before_they_fail(approved, tmp_path, monkeypatch, forge, change):
    """In a clone of a bare repository; the forge's own program is a script that keeps the comment."""
    git("clone", "-q", "--bare", str(approved), str(tmp_path / "bare.git"))
    git("clone", "-q", f"file://{tmp_path}/bare.git", str(tmp_path / "job"))
    monkeypatch.chdir(tmp_path / "job")
    git("config", "user.email", "dev@acme.example")
    git("config", "user.name", "Dev")
    if change != "none":
        write(WIDER)
        commit()
    for name in PEOPLE[:2] if change == "approved" else ():
        approve(tmp_path, name, "shop.refund v2, 1 wider", code=2 if name == PEOPLE[0] else 0)
    (tmp_path / "bin").mkdir()
    for name in ("gh", "curl"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ncp comment.md {tmp_path}/posted\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin/agentgate").write_text(f'#!/bin/sh\nexec {sys.executable} -m agentgate "$@"\n')
    (tmp_path / "bin/agentgate").chmod(0o755)
    output, env = tmp_path / "output", {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "BASE": "main", "PR": "1"}
    env |= {"GITHUB_OUTPUT": str(output), "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    steps = jobs()[0] if forge == "GitHub" else ["\n".join(jobs()[1])]
    codes = []
    for step in steps:
        code = {"CODE": output.read_text().strip().partition("=")[2]} if output.exists() else {}
        codes.append(subprocess.run(["bash", "-e", "-c", step], env={**env, **code}, check=False, capture_output=True).returncode)
    assert "## agentgate" in (tmp_path / "posted").read_text()
    assert codes[:-1] == [0] * (len(codes) - 1)
    assert (codes[-1] == 0) is (change != "wider")


def test_a_change_cannot_bring_its_own_root(approved, tmp_path):
    git("checkout", "-q", "-b", "topic")
    shutil.rmtree("workflows/approvals")
    mallory = open_signer(key(tmp_path, "mallory"))
    new_root(
        "workflows",
        [Reviewer("mallory", (mallory.public_key,))],
        expires="2031-12-31",
        rules=[ReviewRule("**", ("mallory",), {"medium": 1})],
        signer=mallory,
    )
    write(WIDER)
    commit()
    approve(tmp_path, "mallory", "shop.refund v2, all of it", "--proposer", "dev@acme.example")
    assert "ROOT NOT TRUSTED" in run("check", "--base", "main", code=1).stderr


def test_a_first_root_asks_for_a_person(approved):
    base = git("rev-parse", "HEAD~1")  # nobody signed there yet
    said = json.loads(run("check", "--base", base, "--json", code=2).stdout)
    assert "the root is new" in said["unapproved"][0]
    run("check", "--base", base, "--root", root_digest("workflows"))


def test_an_index_past_its_end_is_a_warning_and_an_absent_one_and_a_changed_trust_file_are_not(approved, tmp_path):
    hand = open_signer(key(tmp_path, PEOPLE[0]))
    write_index("workflows", hand, now=time.time() - 8 * 86_400, anew=True)
    commit("an index of last week")
    for more, code in (((), 0), (("--require-index",), 2)):
        assert "STALE INDEX: approvals/index.json: expires" in run("check", "--base", "main", *more, code=code).stdout
    Path("workflows/approvals/index.json").unlink()
    shown = run("check", "--base", "main", code=2).stdout
    assert "STALE INDEX: approvals/index.json: file: got nothing" in shown
    assert "approvals/index.json: got nothing, expected the file that main has" in shown  # a change that takes it away
    assert "Next: agentgate workflow index" in run("status", code=2).stdout
    with Path("workflows/approvals/allowed_signers").open("a") as file:
        file.write("# x\n")
    assert "TAMPERED" in run("check", "--base", "main", code=1).stderr


def test_a_change_that_drops_all_approvals_is_not_approved(approved):
    shutil.rmtree("workflows/approvals")
    run("check", "--base", "main", code=2)


def test_a_base_that_does_not_load_makes_all_of_it_new(approved):
    write(WORKFLOW.replace("effect: write", "effect: wrte"))
    commit()
    write(WORKFLOW)
    assert "does not load there" in run("check", "--base", "HEAD", code=3).stdout


def test_who_must_sign_is_said_by_the_old_side(approved):
    root = Path("workflows/approvals/root.yaml")
    assert "medium: 2" in root.read_text()
    root.write_text(root.read_text().replace("medium: 2", "medium: 1"))
    write(WIDER)
    shown = run("diff", f"main:{FILE}", FILE, code=2).stdout
    assert "STILL TO SIGN: 2 of alice@acme.example, bob@acme.example, dev@acme.example" in shown


def test_a_new_a_renamed_and_a_removed_workflow_are_told_apart(approved):
    git("checkout", "-q", "-b", "topic")
    git("mv", FILE, "workflows/shop/again.yaml")
    git("mv", "workflows/shop/refund.test.yaml", "workflows/shop/again.test.yaml")
    said = json.loads(run("check", "--base", "main", "--json", code=2).stdout)
    assert said["changes"] == []
    assert "WRONG PLACE" in said["unapproved"][0]
    write(WORKFLOW.replace("shop.refund", "shop.other"), "workflows/shop/again.yaml")
    write(TESTS.replace("shop.refund", "shop.other"), "workflows/shop/again.test.yaml")
    said = json.loads(run("check", "--base", "main", "--json", code=2).stdout)
    assert [(c["workflow"], c["old"], c["new"], c["verdict"]) for c in said["changes"]] == [
        ("shop.other", "nothing", "v1", "wider"),
        ("shop.refund", "v1", "nothing", "narrower"),
    ]


def test_a_changed_role_is_a_change_of_the_workflow_that_uses_it(repository):
    role = WORKFLOW.replace(
        "      notify:", "      scopes: {narrower_than_role: clerk, max_items: 3, from: [model], optional: true}\n      notify:"
    )
    write(role)
    write("agentgate: roles/v1\nroles: {clerk: [a, b]}\n", "workflows/roles.yaml")
    commit()
    write("agentgate: roles/v1\nroles: {clerk: [a, b, c, d]}\n", "workflows/roles.yaml")
    said = json.loads(run("check", "--base", "main", "--json", "--unsafe-unapproved", code=2).stdout)
    assert said["changes"][0]["workflow"] == "shop.refund"


def test_without_approvals_a_person_must_look(repository):
    assert "nobody signs here yet" in run("check", "--base", "main", code=2).stdout
    assert "nothing more is permitted" in run("check", "--base", "main", "--unsafe-unapproved").stdout
    write(WIDER)
    run("check", "--base", "main", "--unsafe-unapproved", code=2)


@pytest.mark.parametrize("broken", ["absent", "empty", "bytes", "folder", "yaml"])
@pytest.mark.parametrize("command", ["status", "index", "approve shop.refund", "revoke shop.refund --reason x", "check --base HEAD"])
def test_a_broken_root_is_an_error_by_name_and_never_a_traceback(approved, tmp_path, command, broken):
    root = Path("workflows/approvals/root.yaml")
    root.unlink()
    if broken == "folder":
        root.mkdir()
    elif broken != "absent":
        root.write_bytes({"empty": b"", "bytes": b"\xff\x00", "yaml": b"x: ["}[broken])
    alice = () if command.startswith(("status", "check")) else ("--key", key(tmp_path, PEOPLE[0]))
    shown = run(*command.split(), *alice, code=1).stderr
    assert "approvals/root.yaml" in shown
    assert ("agentgate init" in shown) is (broken == "absent")


GONE = "test gone|lint gone|diff a b|diff HEAD:a HEAD:b|check gone|check --base nowhere|approve gone|status -d gone|test README"


@pytest.mark.parametrize("command", GONE.split("|"))
def test_what_is_not_there_is_an_error_and_never_a_traceback(approved, tmp_path, command):
    Path("README").write_text("x: [")
    more = ("--key", key(tmp_path, PEOPLE[0])) if "approve" in command else ()
    run(*command.split(), *more, code=1)


# --- revoke, index --------------------------------------------------------------------------------------------------------------


def test_revoking_says_what_is_in_force_afterwards_before_it_is_signed(approved, tmp_path):
    bob = key(tmp_path, PEOPLE[1])
    revoke = ("revoke", "shop.refund", "--reason", "INC-7", "--key", bob)
    assert "in force afterwards: nothing: every call of it is refused" in run(*revoke, "--accept", "no", code=1).stdout
    write(NARROWER)
    commit()
    approve(tmp_path, PEOPLE[0], "shop.refund v2")
    shown = run(*revoke, "--up-to", "1", "--accept", "revoke shop.refund up to v1").stdout
    assert "in force afterwards: nothing" in shown  # v2 rests on v1, which it only narrows
    assert run("status", code=2).stdout.splitlines()[1].split()[:3] == ["shop.refund", "v2", "none"]
    assert "still needed: 1 of alice@acme.example" in approve(tmp_path, PEOPLE[1], "shop.refund v2, all of it", code=2).stdout
    approve(tmp_path, PEOPLE[0], "shop.refund v2, all of it")  # again: what she signed was compared with v1
    assert run("status").stdout.splitlines()[1].split()[:3] == ["shop.refund", "v2", "v2"]


def test_one_signature_revokes_for_good(approved, tmp_path):
    bob = key(tmp_path, PEOPLE[1])
    run("revoke", "shop.refund", "--reason", "stolen", "--key", bob, "--accept", "yes", code=1)
    run("revoke", "shop.refund", "--reason", "stolen", "--key", bob, "--accept", "revoke shop.refund up to v1")
    assert "REVOKED" in run("status", code=2).stdout
    run("revoke", "shop.gone", "--reason", "x", "--key", bob, "--accept", "x", code=1)


def test_the_index_is_renewed_by_who_may(approved, tmp_path):
    before = Path("workflows/approvals/index.json").read_bytes()
    run("index", "--key", key(tmp_path, PEOPLE[1]))
    assert Path("workflows/approvals/index.json").read_bytes() != before
    run("index", "--key", key(tmp_path, "mallory"), code=1)


def test_a_record_that_was_changed_is_named_and_nobody_is_told_to_sign_again(approved):
    record = Path("workflows/approvals/shop.refund/1/definition.json")
    record.write_text(record.read_text().replace("ORD-[0-9]{8}", "ORD-[0-9]{9}"))
    shown = run("status", code=2).stdout
    assert "TAMPERED: approvals/shop.refund/1/definition.json: digest" in shown
    assert "sign again" not in shown


def test_status_for_a_program_names_the_root(approved):
    said = json.loads(run("status", "--json").stdout)
    assert said["root"] == root_digest("workflows")
    assert said["workflows"][0]["signed"] == list(PEOPLE[:2])
    run("status", "--root", "sha256:" + "0" * 64, code=1)
    run("status", code=1, AGENTGATE_ROOT="sha256:" + "0" * 64)


def test_status_names_the_intents_that_this_engine_reads_otherwise(approved, tmp_path):
    """Reviewers with another engine signed an example that the installed one does not understand."""
    write(Path(FILE).read_text().replace("version: 1", "version: 2").replace("    examples: [", '    examples: ["Hand it back to them", '))
    for name in PEOPLE[:2]:
        hand = open_signer(key(tmp_path, name))
        write_approval("workflows", statement("workflows", FILE, signer=hand, proposer=PEOPLE[2], derive=generous), hand)
    run("index", "--key", key(tmp_path, PEOPLE[0]))
    doubt = "intents.refund.examples[0]: got absent"
    assert f"in doubt: shop.refund v2: {doubt}" in run("status").stdout
    said = json.loads(run("status", "--json").stdout)["workflows"][0]
    assert said["in_force"] == 2
    assert [each.startswith(doubt) for each in said["in_doubt"]] == [True]
    assert doubt in run("lint", "workflows", code=1).stdout


def generous(intents, turns):
    answers = derive(intents, turns)
    return {**answers, "refund": Derived("present")} if turns == ("Hand it back to them",) else answers


# --- what files say to a terminal --------------------------------------------------------------------------------------------------


def test_what_a_file_holds_cannot_act_on_the_terminal(approved, tmp_path):
    write(
        WIDER.replace("title: Support", 'title: "\\u041f\\u0440\\u0438 Support')
        .replace("names\n", 'names"\n')
        .replace("[lee]", "[lee]  # \x7f")
    )
    for args in (("lint", "workflows"), ("diff", f"main:{FILE}", FILE), ("check", "--base", "main")):
        shown = run(*args, code=1)
        assert (shown.stdout + shown.stderr).replace("\n", "").isprintable()


def test_a_version_can_be_named_in_a_report():
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout.split()[0]) == (0, "agentgate")


@pytest.mark.parametrize("command", ["new", "lint", "test", "diff", "approve", "status", "index", "revoke", "check"])
def test_every_command_has_help_with_examples_and_exit_codes(command):
    shown = run(command, "--help").stdout
    assert "Examples" in shown
    assert "Exit codes" in shown or command == "lint"


def test_the_commands_import_no_code_of_a_reviewed_folder(approved):
    write("open('pwned', 'w')\n", "workflows/shop/__init__.py")
    write("open('pwned', 'w')\n", "sitecustomize.py")
    write("open('pwned', 'w')\n", "yaml.py")
    done = subprocess.run(
        [sys.executable, "-I", "-c", "from agentgate.cli.main import app; app()", "workflow", "check", "--base", "main"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert not Path("pwned").exists(), done.stderr


def test_an_old_version_does_not_come_back_as_if_it_were_in_force(approved, tmp_path):
    """Everything of version 1 is still signed; only the base says that version 2 replaced it."""
    old = {name: Path("workflows/approvals", name).read_bytes() for name in ("index.json", "index.json.sig")}
    write(WIDER)
    commit()
    for name in PEOPLE[:2]:
        approve(tmp_path, name, "shop.refund v2, 1 wider", code=2 if name == PEOPLE[0] else 0)
    commit("approved")
    git("checkout", "-q", "-b", "topic")
    for name, data in old.items():
        Path("workflows/approvals", name).write_bytes(data)
    assert any(
        "approvals/index.json: serial" in line for line in json.loads(run("check", "--base", "main", "--json", code=2).stdout)["unapproved"]
    )
    shutil.rmtree("workflows/approvals/shop.refund/2")
    write(WORKFLOW)
    assert any(
        f"{FILE}: version 1, expected above 2" in line
        for line in json.loads(run("check", "--base", "main", "--json", code=2).stdout)["unapproved"]
    )
    write(WIDER.replace("[a-z.]+", "[a-z-]+"))
    for name in PEOPLE[:2]:
        run(
            "approve",
            "shop.refund",
            "--key",
            key(tmp_path, name),
            "--accept",
            "shop.refund v2, 1 wider",
            "--no-index",
            "--proposer",
            "dev@acme.example",
            code=2 if name == PEOPLE[0] else 0,
        )
    assert any(
        f"{FILE}: version 2, expected above 2" in line
        for line in json.loads(run("check", "--base", "main", "--json", code=2).stdout)["unapproved"]
    )
