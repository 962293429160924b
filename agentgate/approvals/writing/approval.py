"""What a reviewer would sign, computed from the directory, and the signing of it.

Rules: everything is recomputed on the signer's machine; the words for what became wider come
from the same comparison that the gate makes. A version in force is never signed again with
other content: its number must rise.

Who signs is an OpenSSH private key read here, or ssh-keygen for a key of ssh-agent or a FIDO token.
Only signing may start a program, and only ``ssh-keygen -Y sign``; its output is verified
here before it is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from agentgate.approvals import sshsig
from agentgate.approvals._files import (
    APPROVALS,
    DEFINITION,
    INDEX,
    ROLLBACK,
    ROOT,
    STALE_INDEX,
    TAMPERED,
    UNAPPROVED,
    ApprovalRefused,
    Tree,
    end_of,
    file_digest,
    moment,
    printable,
    refuse,
)
from agentgate.approvals.judge import Judge
from agentgate.approvals.loading import WorkflowFile, lenient_judge, read_workflow_file
from agentgate.approvals.narrowing import Proof, Prover
from agentgate.approvals.root import Needs
from agentgate.approvals.sshsig import PrivateKey, SshKey
from agentgate.approvals.standing import needs
from agentgate.approvals.version import MAX_WIDER, Statement, Version
from agentgate.errors import ConfigError, KeyRefused, WorkflowError
from agentgate.intents.lexical import derive as lexical
from agentgate.loading.catalog import TESTS, is_workflow_file, roles_of, text_of, workflow_files
from agentgate.loading.definition import Derive, load_document
from agentgate.values.canonical import canonical
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow

_MAX_KEY = 16 * 1024
_PATIENCE = 120.0  # seconds in which a person touches a token or types a passphrase


class Signer(Protocol):
    """A person's key, ready to sign."""

    @property
    def public_key(self) -> SshKey:
        """The key that `sign` signs with."""

    def sign(self, message: bytes, namespace: str) -> str:
        """An armoured signature. Raises KeyRefused."""


class KeySigner:
    """A key of this process."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.public_key = sshsig.encode(private.public_key())

    @classmethod
    def from_seed(cls, seed: bytes) -> KeySigner:
        """The Ed25519 key of a 32-byte seed (RFC 8032 section 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, message: bytes, namespace: str) -> str:
        """See `Signer`."""
        return sshsig.sign(self._private, message, namespace)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<KeySigner {self.public_key.fingerprint}>"


class KeygenSigner:
    """A key that only ssh-keygen can use: in ssh-agent, on a FIDO token, or in a file format of
    its own.

    Args:
        path: the private key file, or the ``.pub`` file of a key in ssh-agent.
    """

    __slots__ = ("_path", "public_key")

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        public = (
            self._path
            if self._path.suffix == ".pub"
            else self._path.with_name(f"{self._path.name}.pub")
        )
        self.public_key = SshKey.from_line(_read(public).decode("utf-8", "replace"))

    def sign(self, message: bytes, namespace: str) -> str:
        """See `Signer`. ssh-keygen asks for touch, PIN or passphrase at the terminal."""
        program = shutil.which("ssh-keygen")
        if program is None:
            raise KeyRefused(
                "ssh-keygen: got none on PATH, expected OpenSSH (Debian, Ubuntu: apt-get install "
                "openssh-client)"
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "message"
            file.write_bytes(message)
            command = [
                program,
                "-q",
                "-Y",
                "sign",
                "-f",
                str(self._path),
                "-n",
                namespace,
                str(file),
            ]
            try:
                done = subprocess.run(  # noqa: S603 - an exact program, no shell
                    command, check=False, timeout=_PATIENCE, stderr=subprocess.PIPE
                )
                armored = ""
                if done.returncode == 0:
                    armored = file.with_name("message.sig").read_text("ascii")
            except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
                raise KeyRefused(
                    f"ssh-keygen -Y sign: got {type(error).__name__}, expected a signature"
                ) from None
        if not armored:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [
                f"exit code {done.returncode}"
            ]
            raise KeyRefused(
                f"ssh-keygen -Y sign with {self._path}: got {ascii(said[0])[1:-1][:200]}, expected "
                "a signature"
            )
        if sshsig.verify(armored, message, namespace) != self.public_key:
            raise KeyRefused(
                f"ssh-keygen -Y sign with {self._path}: got a signature by another key, expected "
                f"{self.public_key.fingerprint}"
            )
        return armored

    def __repr__(self) -> str:
        return f"<KeygenSigner {self.public_key.fingerprint}>"


def open_signer(path: Path | str, passphrase: Callable[[], bytes] | None = None) -> Signer:
    """The signer for a key file: a ``.pub`` file or a FIDO key goes through ssh-keygen.

    An OpenSSH private key is read here.

    Args:
        path: private key file, or the public half of a key in ssh-agent.
        passphrase: called once, only for an encrypted file; None: ssh-keygen signs with such a
            file and asks itself.

    Raises KeyRefused: unreadable, wrong passphrase, or a kind of key that is refused.
    """
    file = Path(path)
    if file.suffix == ".pub":
        return KeygenSigner(file)
    data = _read(file)
    try:
        private = load_ssh_private_key(data, password=None)
    except (TypeError, ValueError) as error:
        if not (isinstance(error, TypeError) or "encrypted" in str(error)):
            raise KeyRefused(
                f"{file}: got {ascii(str(error))[1:-1][:120]}, expected an OpenSSH private key"
            ) from None
        if passphrase is None:
            return KeygenSigner(file)
        try:
            private = load_ssh_private_key(data, password=passphrase())
        except (TypeError, ValueError):
            raise KeyRefused(
                f"{file}: got a passphrase that does not open it, expected its own"
            ) from None
    except UnsupportedAlgorithm:  # a FIDO key's file holds only a handle
        return KeygenSigner(file)
    if not isinstance(private, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise KeyRefused(
            f"{file}: got a {type(private).__name__.removesuffix('PrivateKey')} key, expected "
            "Ed25519 or ECDSA (RSA and DSA are refused)"
        )
    return KeySigner(private)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY)
    except OSError as error:
        raise KeyRefused(f"{path}: got {error.strerror}, expected a readable SSH key") from None


# versions: each is judged by those before it, down to the one in the index, whenever a next one
# is signed
MAX_UNLISTED = 64
FIRST = "a first version: everything it permits is new"


@value_class
class Unsigned:
    """What would be signed, and what the signer should know first.

    Attributes:
        statement: the statement; `statement.data` are the bytes, `statement.wider` the words.
        workflow: the version itself.
        old: the version it is compared with; None: there was none.
        proof: the comparison (`agentgate.diff.Diff`); None: there was none.
        definition: canonical bytes that will be stored.
        needs: what the root requires, counting the present signatures.
        baseline: what it is compared with, in words: ``v2``, ``v2, REVOKED: INC-7``,
            ``nothing``.
    """

    statement: Statement
    workflow: Workflow
    old: Workflow | None
    proof: Proof | None
    definition: bytes
    needs: Needs
    baseline: str = ""

    def made_by(self, proposer: str, *authors: str) -> Unsigned:
        """The same, with everybody who made the change (none of them counts).

        Raises ApprovalRefused: a name that cannot be signed.
        """
        said = replace(
            self.statement, proposer=proposer, authors=tuple(sorted({*authors} - {proposer}))
        )
        Statement.parse(said.data, "statement")
        return replace(self, statement=said)


def statement(
    directory: Path | str,
    workflow: Path | str,
    *,
    signer: Signer,
    proposer: str,
    root: str | None = None,
    derive: Derive = lexical,
    not_after: str | None = None,
    now: float | None = None,
    prover: Prover | None = None,
) -> Unsigned:
    """What would be signed for a workflow file as it is now.

    Args:
        directory: the workflow directory.
        workflow: the file, or the workflow's id.
        signer: whose statement it is; the root says whose key this is.
        proposer: who made the change (git's author); never counts, except under a solo root.
        root: the pinned digest; None: the present root.
        derive: the intent deriver.
        not_after: last day of the approval, ``2027-05-31``; None: the workflow's own last day.
        now: POSIX seconds; None: now.
        prover: makes the comparison; None: `agentgate.diff`.

    Raises:
        ApprovalRefused: the root is not trusted, this key is nobody's, or the version was
            approved with other content.
        WorkflowError: the workflow does not load.
        ConfigError: there is no such workflow, or `not_after` is no day.
    """
    folder = Path(directory)
    proving = prover or Prover()
    judge, _ = lenient_judge(
        folder, root, derive=derive, now=time.time() if now is None else now, prover=proving
    )
    person = _signing_person(judge, signer)
    file = find_workflow(folder, workflow)
    static = roles_of(folder)
    new = load_document(file.document, static, derive)
    _check_unused(judge, new)
    _check_listed(judge, new.id, new.version)
    before = _before(judge, new.id, new.version)
    old = _load(judge, before, static) if before else None
    proof = proving.compare(old, new) if old else None
    end = _last_moment(new.expires.isoformat() if not_after is None else not_after)
    tests = folder / (file.path.removesuffix(".yaml") + TESTS)
    found = tests.is_file() and not tests.is_symlink()
    made = Statement(
        id=new.id,
        version=new.version,
        digest=file.digest,
        path=file.path,
        tenants=tuple(file.value["tenants"]),
        risk=new.risk,
        previous=before.digest if before else None,
        root=judge.root.digest,
        tests=file_digest(tests.read_bytes()) if found else None,
        roles={name: tuple(sorted(static[name])) for name in sorted(_roles_in(new, static))},
        wider=_words(proof),
        proposer=proposer,
        signer=person,
        role="reviewer",
        not_after=end,
    )
    Statement.parse(made.data, "statement")  # what could not be read again is not signed
    return Unsigned(
        made,
        new,
        old,
        proof,
        canonical(file.value, "definition"),
        needs(judge, file),
        _baseline(judge, before),
    )


def _last_moment(day: str) -> str:
    """When an approval until this day ends. Raises ConfigError: it is no day."""
    try:
        return moment(end_of(day) - 1)
    except ValueError:
        raise ConfigError("not_after", day, "a day such as 2027-05-31") from None


def _signing_person(judge: Judge, signer: Signer) -> str:
    """Whose statement it is. Raises ApprovalRefused: this key is nobody's, or may not sign
    now.
    """
    key = signer.public_key
    person = judge.root.person(key)
    if person is None:
        got = f"key {key.fingerprint}"
        expected = "a key of somebody in the root"
        raise refuse(UNAPPROVED, f"{APPROVALS}/{ROOT}", "people", got, expected)
    judge.allowed.until(person, key, sshsig.NAMESPACE, judge.now)
    return person


def _check_unused(judge: Judge, new: Workflow) -> None:
    """No other content was approved as this version. Raises ApprovalRefused: ROLLBACK."""
    if new.version in judge.tree.versions(new.id):
        approved = judge.standing(new.id, new.version).approved
        if approved and approved.version.digest != new.digest:
            got = f"version {new.version}, approved with other content"
            raise refuse(ROLLBACK, new.file, "version", got, "a higher version")


def _load(judge: Judge, before: Version, static: Mapping[str, frozenset[str]]) -> Workflow:
    """A version before, with the roles that were signed with it."""
    signed = next(iter(before.signed), None)
    return judge.load(before, signed.statement.roles if signed else static)


def _roles_in(workflow: Workflow, static: Mapping[str, frozenset[str]]) -> set[str]:
    """The roles that a workflow names; an upstream role may be known to its broker only."""
    used = {
        rule.role
        for tool in workflow.tools.values()
        for rule in tool.args.values()
        if rule.role
    }
    for tool in workflow.tools.values():
        settings = tool.upstream.settings if tool.upstream else {}
        used |= {
            str(settings[key]) for key in ("role", "narrower_than") if key in settings
        } & static.keys()
    return used


def _baseline(judge: Judge, before: Version | None) -> str:
    """What a version is compared with, in words; that it was revoked and why."""
    if not before:
        return "nothing"
    over = judge.revoked.revoked.get(before.id) if judge.revoked else None
    return f"v{before.version}" + (
        f", REVOKED: {over.reason}" if over and before.version <= over.up_to else ""
    )


def write_approval(directory: Path | str, draft: Unsigned, signer: Signer) -> Path:
    """Sign a statement and put it beside the definition.

    Signatures over other content of this version are removed.

    Returns the statement's file; the signature is beside it. Raises ApprovalRefused: a file
    cannot be written. KeyRefused.
    """
    tree = Tree(directory)
    said = draft.statement
    folder = f"{said.id}/{said.version}"
    signature = signer.sign(said.data, sshsig.NAMESPACE)
    if sshsig.verify(signature, said.data, sshsig.NAMESPACE) != signer.public_key:
        raise refuse(
            UNAPPROVED,
            f"{APPROVALS}/{folder}/{said.signer}.sig",
            "key",
            "another key",
            signer.public_key.fingerprint,
        )
    for name, kind in tree.names(folder):
        if kind == "file" and name.endswith(".json") and name != DEFINITION:
            try:
                stale = (
                    Statement.parse(tree.read(f"{folder}/{name}", UNAPPROVED), name).digest
                    != said.digest
                )
            except ApprovalRefused:
                stale = True
            if stale:
                for gone in (name, f"{name.removesuffix('.json')}.sig"):
                    (Path(directory) / APPROVALS / folder / gone).unlink(missing_ok=True)
    tree.write(f"{folder}/{DEFINITION}", draft.definition)
    tree.write(f"{folder}/{said.signer}.sig", signature.encode())
    return tree.write(f"{folder}/{said.signer}.json", said.data)


def find_workflow(folder: Path, workflow: Path | str) -> WorkflowFile:
    """The workflow file of this path or id.

    Raises ConfigError: there is none. WorkflowError: it cannot be read.
    """
    for path in (folder / workflow, Path(workflow)):  # without a look at each of thousands
        if is_workflow_file(path, folder):
            return read_workflow_file(path, folder)
    files = workflow_files(folder)
    real = os.path.realpath(workflow)
    named = [p for p in files if os.path.realpath(p) == real]
    if named:
        return read_workflow_file(named[0], folder)
    marker = f"id: {workflow}"
    for path in files:
        try:
            text = text_of(path, folder)
        except WorkflowError:  # a link out, or no text: not the one
            continue
        if marker in text and (file := read_workflow_file(path, folder)).value.get("id") == str(
            workflow
        ):
            return file
    raise ConfigError(
        "workflow", str(workflow), f"a workflow file below {folder}, or the id of one"
    )


def _check_listed(judge: Judge, id_: str, version: int) -> None:
    """The index is not far behind, so that signing costs the same however many versions there
    are.

    Raises ApprovalRefused: STALE INDEX.
    """
    newest = judge.newest(id_)
    named = newest.version if newest else 0
    unlisted = sum(named < stored < version for stored in judge.tree.versions(id_))
    if unlisted > MAX_UNLISTED:
        got = f"version {named}, and {unlisted} stored since"
        expected = (
            f"at most {MAX_UNLISTED} (agentgate workflow index; delete versions that "
            "nobody completes)"
        )
        raise refuse(STALE_INDEX, f"{APPROVALS}/{INDEX}", f"workflows.{id_}", got, expected)


def _before(judge: Judge, id_: str, version: int) -> Version | None:
    """The newest version approved before this one, to compare with.

    Raises ApprovalRefused: the index names it, and it is not stored.
    """
    before = judge.before(id_, version)
    if not before:
        return None
    stored = judge.standing(id_, before.version).version
    if not stored or stored.digest != before.digest:
        file = f"{APPROVALS}/{id_}/{before.version}/{DEFINITION}"
        got = "another definition" if stored else "none that can be read"
        raise refuse(TAMPERED, file, "digest", got, f"{before.digest}, as in the index")
    return stored


def _words(proof: Proof | None) -> tuple[str, ...]:
    """What became wider, in the words that are signed."""
    if not proof:
        return (FIRST,)
    said = [printable(str(finding)) for finding in proof.wider] + [
        f"read yourself: {printable(what)}" for what in proof.read_yourself
    ]
    more = len(said) - MAX_WIDER
    return tuple(said if more <= 0 else [*said[: MAX_WIDER - 1], f"and {more + 1} more"])
