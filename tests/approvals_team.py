"""A team for approval tests: people with real keys, a directory with one workflow, and what they do with it."""

from __future__ import annotations

import hashlib
import shutil
import time
from copy import copy
from pathlib import Path
from typing import Any

import orjson

from agentgate.approvals import Loaded, Prover, load_approved, root_digest
from agentgate.approvals.opening import higher
from agentgate.approvals.version import Statement
from agentgate.approvals.writing import KeySigner, Reviewer, ReviewRule, new_root, revoke, sign_root, statement, write_approval, write_index
from agentgate.errors import Failure
from agentgate.intents.lexical import derive

PATH = "shop/refund.yaml"
ID = "shop.refund"
WORKFLOW = """
agentgate: workflow/v1
id: shop.refund
version: 1
title: Refund one named order
owners: [lee]
risk: high
expires: "2099-05-31"
tenants: [acme, other]
who: {agent: {in_process: true}, for_user: {groups: [support], same_tenant: true}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund, reimburse]
    examples: ["Please refund order ORD-10023344, it arrived broken"]
tools:
  payments.refund:
    effect: write
    needs: [refund]
    redeem: wrapper
    args:
      order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}
      amount: {in: ["10.00", "20.00"], from: [model]}
""".lstrip()
PEOPLE = ("alice@acme.example", "bob@acme.example", "carol@acme.example", "dave@acme.example")
ALICE, BOB, CAROL, DAVE = PEOPLE
FOREVER = "2099-01-01"


def keygen() -> str:
    """ssh-keygen, without which interoperability cannot be tested."""
    found = shutil.which("ssh-keygen")
    assert found is not None, "ssh-keygen is not installed: Debian, Ubuntu: apt-get install openssh-client"
    return found


def key(name: str) -> KeySigner:
    """A key for this test run and every other."""
    return KeySigner.from_seed(hashlib.sha256(name.encode()).digest())


_signed = dict[str, tuple["Team", dict[Path, bytes]]]()  # by the root's settings


class Team:
    """Four people who all may review; high risk takes two of them, low risk one."""

    def __init__(self, folder: Path, **root: Any) -> None:
        self.directory = folder / "w"
        (self.directory / "shop").mkdir(parents=True)
        self.file.write_text(WORKFLOW)
        self.now = time.time()
        self.known: dict[str, int] = {}
        self.prover = Prover()
        self.root = self.new_root(**root)

    @classmethod
    def signed(cls, folder: Path, **root: Any) -> Team:
        """A team whose version 1 Alice and Bob signed: they sign once, and what they signed is copied."""
        if repr(root) in _signed:
            team = copy(_signed[repr(root)][0])
            team.directory, team.now, team.known, team.prover = folder / "w", time.time(), {}, Prover()
            for name, content in _signed[repr(root)][1].items():
                (team.directory / name).parent.mkdir(parents=True, exist_ok=True)
                (team.directory / name).write_bytes(content)
            return team
        team = cls(folder, **root)
        team.approve(ALICE, BOB)
        files = {path.relative_to(team.directory): path.read_bytes() for path in team.directory.rglob("*") if path.is_file()}
        _signed[repr(root)] = copy(team), files
        return team

    @property
    def file(self) -> Path:
        """The workflow file."""
        return self.directory / PATH

    def approvals(self, name: str = "") -> Path:
        """A place below ``approvals``."""
        return self.directory / "approvals" / name

    def new_root(self, *, people: dict[str, list[str]] | None = None, signers: tuple[str, ...] = (), **more: Any) -> str:
        """Write a root; people map to the names of their keys."""
        named = people or {name: [name] for name in PEOPLE}
        rule = ReviewRule("**", tuple(named), {"low": 1, "medium": 2, "high": 2} if len(named) > 1 else {"low": 1})
        given = {"expires": FOREVER, "rules": (rule,), **more}
        reviewers = [Reviewer(name, tuple(key(k).public_key for k in keys)) for name, keys in named.items()]
        digest = new_root(self.directory, reviewers, **given)
        for signer in signers or (next(iter(named.values()))[0],):
            sign_root(self.directory, key(signer))
        return digest

    def edit(self, old: str, new: str) -> None:
        """Change the workflow file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def approve(self, *people: str, proposer: str = DAVE, file: str = PATH, index: bool = True, **more: Any) -> None:
        """These people sign the file as it lies there; then the index is renewed."""
        for person in people:
            write_approval(self.directory, self.draft(person, proposer=proposer, file=file, **more), key(person))
        if index:
            self.index()

    def draft(self, person: str, *, proposer: str = DAVE, file: str = PATH, **more: Any) -> Any:
        """What this person would sign."""
        return statement(self.directory, file, signer=key(person), proposer=proposer, now=self.now, prover=self.prover, **more)

    def index(self, person: str = ALICE) -> None:
        """Renew the index."""
        write_index(self.directory, key(person), now=self.now, prover=self.prover)

    def revoke(self, version: int, person: str = CAROL, workflow: str = ID) -> None:
        """Revoke up to a version."""
        revoke(self.directory, workflow, key(person), version=version, reason="a test", now=self.now)

    def load(self, root: str | None = None) -> Loaded:
        """What a gate would load, knowing what it knew before."""
        loaded = load_approved(self.directory, root or self.root, derive=derive, now=self.now, known=self.known, prover=self.prover)
        self.known = higher(self.known, loaded.marks)
        return loaded

    def running(self) -> int | None:
        """The version of the workflow that a gate would run."""
        found = self.load().workflows.get(ID)
        return found.version if found is not None else None

    def refusals(self) -> list[tuple[str, str]]:
        """Name and field of every refusal."""
        return [(str(refused.reason), refused.field) for refused in self.load().refused]

    def refusal(self) -> Failure:
        """The only refusal."""
        (refused,) = self.load().refused
        return refused

    def resign(self, person: str, of: int = 1, *, namespace: str = "agentgate-workflow", by: str = "", **change: Any) -> None:
        """Replace a person's statement by a changed one with a valid signature (by `by`'s key)."""
        place = self.approvals(f"{ID}/{of}/{person}.json")
        value = orjson.loads(place.read_bytes())
        value["predicate"] |= change
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        place.write_bytes(data)
        place.with_suffix(".sig").write_text(key(by or person).sign(data, namespace))

    def pinned(self) -> str:
        """The digest of the root that lies there."""
        return root_digest(self.directory)


__all__ = ["ALICE", "BOB", "CAROL", "DAVE", "FOREVER", "ID", "PATH", "PEOPLE", "WORKFLOW", "Statement", "Team", "key", "keygen"]
