"""SSH signatures: every kind of key, interoperable both ways with ssh-keygen, and every way to be wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from agentgate.approvals import SshKey, sshsig
from agentgate.approvals.sshsig import mpint, string
from agentgate.approvals.writing import KeygenSigner, KeySigner, open_signer
from agentgate.errors import KeyRefused
from tests.approvals_team import keygen

NS = sshsig.NAMESPACE
MESSAGE = b'{"what":"was signed"}'
VECTORS = json.loads((Path(__file__).parent / "vectors" / "sshsig.json").read_text())
KINDS = [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521)]


def made(folder: Path, kind: str = "ed25519", bits: int | None = None, passphrase: str = "") -> Path:
    file = folder / f"{kind}{bits or ''}"
    size = ["-b", str(bits)] if bits else []
    subprocess.run([keygen(), "-q", "-t", kind, *size, "-N", passphrase, "-C", "a test", "-f", str(file)], check=True)
    return file


def generated(bits: int | None) -> KeySigner:
    curves = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
    return KeySigner(Ed25519PrivateKey.generate() if bits is None else ec.generate_private_key(curves[bits]))


def accepted(folder: Path, key: SshKey, signature: str, message: bytes = MESSAGE, namespace: str = NS) -> subprocess.CompletedProcess[str]:
    (folder / "allowed").write_text(f'alice namespaces="{namespace}" {key.line}\n')
    (folder / "m.sig").write_text(signature)
    command = [keygen(), "-Y", "verify", "-f", str(folder / "allowed"), "-I", "alice", "-n", namespace, "-s", str(folder / "m.sig")]
    return subprocess.run(command, input=message.decode(), capture_output=True, text=True, check=False)


# --- interoperability ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_ssh_keygen_verifies_what_is_signed_here(kind, bits, tmp_path):
    signer = open_signer(made(tmp_path, kind, bits))
    assert isinstance(signer, KeySigner)
    done = accepted(tmp_path, signer.public_key, signer.sign(MESSAGE, NS))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
def test_what_ssh_keygen_signs_is_verified_here(kind, bits, hashed, tmp_path):
    file = made(tmp_path, kind, bits)
    (tmp_path / "m").write_bytes(MESSAGE)
    command = [keygen(), "-q", "-Y", "sign", "-f", str(file), "-n", NS, "-O", f"hashalg={hashed}", str(tmp_path / "m")]
    subprocess.run(command, check=True, capture_output=True)
    key = sshsig.verify((tmp_path / "m.sig").read_text(), MESSAGE, NS)
    assert key == SshKey.from_line(file.with_name(file.name + ".pub").read_text())
    printed = subprocess.run([keygen(), "-l", "-f", f"{file}.pub"], capture_output=True, text=True, check=True).stdout
    assert key.fingerprint in printed


def test_a_key_that_only_ssh_keygen_reaches_signs(tmp_path):
    file = made(tmp_path)
    signature = KeygenSigner(file).sign(MESSAGE, NS)
    assert sshsig.verify(signature, MESSAGE, NS) == KeygenSigner(file).public_key


def test_ssh_keygen_that_cannot_sign_is_a_refusal(tmp_path):
    file = made(tmp_path)
    signer = KeygenSigner(file)
    file.unlink()
    with pytest.raises(KeyRefused, match="ssh-keygen -Y sign"):
        signer.sign(MESSAGE, NS)


def test_a_key_of_ssh_agent_signs(tmp_path, monkeypatch):
    file, agent = made(tmp_path), shutil.which("ssh-agent")
    assert agent is not None, "ssh-agent is not installed: Debian, Ubuntu: apt-get install openssh-client"
    socket = tmp_path / "agent"
    running = subprocess.Popen([agent, "-D", "-a", str(socket)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for _ in range(100):
            if subprocess.run(["ssh-add", "-q", str(file)], check=False, capture_output=True).returncode == 0:
                break
        file.unlink()  # only the agent has it now
        signer = open_signer(f"{file}.pub")
        assert sshsig.verify(signer.sign(MESSAGE, NS), MESSAGE, NS) == signer.public_key
    finally:
        running.terminate()
        running.wait(5)


# --- key files -------------------------------------------------------------------------------------------------------------
def test_an_encrypted_key_asks_once_for_its_passphrase(tmp_path):
    asked = []

    def passphrase() -> bytes:
        asked.append(1)
        return b"open sesame"

    signer = open_signer(made(tmp_path, passphrase="open sesame"), passphrase)
    assert sshsig.verify(signer.sign(MESSAGE, NS), MESSAGE, NS) == signer.public_key
    assert asked == [1]


def test_a_wrong_passphrase_is_a_refusal(tmp_path):
    with pytest.raises(KeyRefused, match="passphrase that does not open it"):
        open_signer(made(tmp_path, passphrase="open sesame"), lambda: b"another")


def test_an_encrypted_key_without_a_way_to_ask_is_left_to_ssh_keygen(tmp_path):
    assert isinstance(open_signer(made(tmp_path, passphrase="open sesame")), KeygenSigner)


def test_an_rsa_key_is_refused(tmp_path):
    with pytest.raises(KeyRefused, match="RSA and DSA are refused"):
        open_signer(made(tmp_path, "rsa", 2048))


def test_an_rsa_signature_is_refused(tmp_path):
    file = made(tmp_path, "rsa", 2048)
    (tmp_path / "m").write_bytes(MESSAGE)
    subprocess.run([keygen(), "-q", "-Y", "sign", "-f", str(file), "-n", NS, str(tmp_path / "m")], check=True, capture_output=True)
    with pytest.raises(KeyRefused, match="ssh-rsa"):
        sshsig.verify((tmp_path / "m.sig").read_text(), MESSAGE, NS)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"])
def test_what_is_no_key_file_is_a_refusal(content, tmp_path):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyRefused, match="expected an OpenSSH private key"):
        open_signer(tmp_path / "key")


def test_an_absent_key_file_is_a_refusal(tmp_path):
    with pytest.raises(KeyRefused, match="No such file"):
        open_signer(tmp_path / "key")


def test_a_signer_shows_and_gives_away_no_key():
    signer = generated(None)
    assert signer.public_key.fingerprint in repr(signer)
    with pytest.raises(TypeError):
        signer.__reduce__()


# --- vectors made by OpenSSH -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_a_signature_made_by_openssh(vector):
    key = sshsig.verify(vector["signature"], vector["message"].encode(), vector["namespace"])
    assert (key.line, key.fingerprint) == (vector["public_key"], vector["fingerprint"])


# --- every kind, every field ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [bits for _, bits in KINDS])
def test_a_signature_is_for_its_message_and_namespace_only(bits):
    signer = generated(bits)
    signature = signer.sign(MESSAGE, NS)
    assert sshsig.verify(signature, MESSAGE, NS) == signer.public_key
    with pytest.raises(KeyRefused, match="not by SHA256"):
        sshsig.verify(signature, MESSAGE + b" ", NS)
    with pytest.raises(KeyRefused, match="namespace: got 'agentgate-workflow', expected 'agentgate-root'"):
        sshsig.verify(signature, MESSAGE, sshsig.ROOT_NAMESPACE)


def test_the_namespaces_differ():
    assert len({sshsig.NAMESPACE, sshsig.ROOT_NAMESPACE, sshsig.INDEX_NAMESPACE, sshsig.REVOKED_NAMESPACE}) == 4


def rebuilt(signature: str, **change: bytes) -> str:
    """A signature with some of its parts replaced."""
    blob = base64.b64decode("".join(signature.split("\n")[1:-2]))
    at, parts = 10, {}
    for name in ("key", "namespace", "reserved", "hash", "body"):
        size = int.from_bytes(blob[at : at + 4])
        parts[name], at = blob[at + 4 : at + 4 + size], at + 4 + size
    values = {**parts, **{name: value for name, value in change.items() if name in parts}}
    head = change.get("magic", b"SSHSIG") + change.get("version", (1).to_bytes(4))
    return sshsig.armour(head + b"".join(map(string, values.values())) + change.get("after", b""))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"magic": b"SSHSIH"}, "magic"),
        ({"version": (2).to_bytes(4)}, "version: got 2"),
        ({"version": (0).to_bytes(4)}, "version: got 0"),
        ({"namespace": b"file"}, "namespace: got 'file'"),
        ({"namespace": b""}, "namespace: got ''"),
        ({"namespace": b"agentgate-workflow\x00"}, "namespace"),
        ({"reserved": b"x"}, "reserved"),
        ({"hash": b"sha1"}, "hash: got 'sha1'"),
        ({"hash": b"sha256"}, "not by SHA256"),
        ({"after": b"\x00"}, "after its end"),
        ({"key": b""}, "public key"),
        ({"key": string(b"ssh-dss") + string(b"x")}, "RSA and DSA are refused"),
        ({"key": string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"x")}, "expected ssh-ed25519"),
        ({"key": string(b"ssh-ed25519") + string(bytes(32))}, "small order"),
        ({"key": string(b"ssh-ed25519") + string((1).to_bytes(32, "little"))}, "small order"),
        ({"key": string(b"ssh-ed25519") + string(b"x" * 31)}, "expected 32"),
        ({"body": b""}, "signature"),
        ({"body": string(b"ssh-ed25519") + string(bytes(64))}, "not by SHA256"),
        ({"body": string(b"ssh-ed25519") + string(b"")}, "not by SHA256"),
        ({"body": string(b"ecdsa-sha2-nistp256") + string(bytes(64))}, "algorithm: got 'ecdsa-sha2-nistp256'"),
        ({"body": string(b"ssh-ed25519") + string(bytes(64)) + b"\x01"}, "after its end"),
    ],
)
def test_a_changed_part_of_a_signature_is_refused(change, said):
    signature = generated(None).sign(MESSAGE, NS)
    assert rebuilt(signature) == signature
    with pytest.raises(KeyRefused, match=said):
        sshsig.verify(rebuilt(signature, **change), MESSAGE, NS)


def ecdsa_body(r: bytes, s: bytes) -> bytes:
    return string(b"ecdsa-sha2-nistp256") + string(r + s)


def test_an_ecdsa_number_in_another_form_is_refused():
    private = ec.generate_private_key(ec.SECP256R1())
    signature = sshsig.sign(private, MESSAGE, NS)
    blob = base64.b64decode("".join(signature.split("\n")[1:-2]))
    inner = blob[blob.rindex(b"ecdsa-sha2-nistp256") + 19 :]
    size = int.from_bytes(inner[4:8])
    r, s = int.from_bytes(inner[8 : 8 + size]), int.from_bytes(inner[12 + size :])
    assert rebuilt(signature, body=ecdsa_body(mpint(r), mpint(s))) == signature
    for body in (
        ecdsa_body(string(b"\x00\x00" + r.to_bytes(32)), mpint(s)),
        ecdsa_body(mpint(r), string(b"")),
        ecdsa_body(mpint(r), string(b"\x80")),
        ecdsa_body(mpint(r), mpint(s) + b"\x00"),
    ):
        with pytest.raises(KeyRefused):
            sshsig.verify(rebuilt(signature, body=body), MESSAGE, NS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nAAAA\n",
        "-----BEGIN SSH SIGNATURE-----\nAA!A\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nAAAAA\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nAAB=\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\nmore\n",
        "x\n-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\n" + "A" * 9000 + "\n-----END SSH SIGNATURE-----\n",
    ],
)
def test_what_is_no_armour_is_refused(text):
    with pytest.raises(KeyRefused):
        sshsig.verify(text, MESSAGE, NS)


def test_a_true_signature_in_any_other_armour_is_refused():
    signature = KeySigner.from_seed(bytes(32)).sign(MESSAGE, NS)
    begin, *inner, end = signature.rstrip("\n").split("\n")
    joined = "".join(inner)
    sshsig.verify("\r\n".join((begin, *inner, end, "")), MESSAGE, NS)  # as an editor elsewhere may save it
    other = [
        ("words", begin, *inner, end),
        (begin, *inner, end, "words"),
        (begin.replace("SSH", "PGP"), *inner, end),
        (begin, *inner, end.replace("SSH", "PGP")),
        (*inner, end),
        (begin, *inner),
        (begin, joined, end),
        (begin, "", *inner, end),
        (begin, " " + inner[0], *inner[1:], end),
        (begin, *inner, *[""] * 9000, end),
    ]
    for lines in other:
        with pytest.raises(KeyRefused, match="armour"):
            sshsig.verify("\n".join(lines) + "\n", MESSAGE, NS)


def test_base64_with_bits_beyond_the_last_byte_is_refused():
    for name in ("ssh:", "ssh:a", "ssh:ab"):  # one of the three lengths ends in '=', one in '=='
        signature = Token("sk-ssh-ed25519@openssh.com", name).sign(0x01)
        body = signature.rstrip("\n").split("\n")
        if not body[-2].endswith("="):
            continue
        at = body[-2].index("=") - 1
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        body[-2] = body[-2][:at] + alphabet[alphabet.index(body[-2][at]) + 1] + body[-2][at + 1 :]
        with pytest.raises(KeyRefused, match="shortest"):
            sshsig.verify("\n".join(body) + "\n", MESSAGE, NS)
        break
    else:
        raise AssertionError("no signature with padding")


@given(st.text(max_size=300))
def test_any_text_is_refused_and_nothing_else_raised(text):
    with pytest.raises(KeyRefused):
        sshsig.verify(text, MESSAGE, NS)


@given(st.binary(max_size=300))
def test_any_bytes_in_armour_are_refused_and_nothing_else_raised(data):
    with pytest.raises(KeyRefused):
        sshsig.verify(sshsig.armour(data), MESSAGE, NS)


SIGNED = KeySigner.from_seed(bytes(32)).sign(MESSAGE, NS)
BLOB = base64.b64decode("".join(SIGNED.split("\n")[1:-2]))


@given(st.integers(0, len(BLOB) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_and_nothing_else_raised(at, by):
    changed = bytearray(BLOB)
    changed[at] ^= by
    with pytest.raises(KeyRefused):
        sshsig.verify(sshsig.armour(bytes(changed)), MESSAGE, NS)


# --- FIDO keys: the token's part, in software ------------------------------------------------------------------------------------
class Token:
    """What a FIDO token does when it is touched (PROTOCOL.u2f): it signs the application, flags, a counter and the message's hash."""

    def __init__(self, kind: str, application: str = "ssh:") -> None:
        self.kind, self.application = kind, application
        if kind == "sk-ssh-ed25519@openssh.com":
            self.private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey = Ed25519PrivateKey.generate()
            point = string(self.private.public_key().public_bytes_raw())
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            numbers = self.private.public_key().public_numbers()
            point = string(b"nistp256") + string(b"\x04" + numbers.x.to_bytes(32) + numbers.y.to_bytes(32))
        self.blob = string(kind.encode()) + point + string(application.encode())

    def sign(self, flags: int, *, says: int | None = None, counter: int = 7) -> str:
        data = b"SSHSIG" + string(NS.encode()) + string(b"") + string(b"sha512") + string(hashlib.sha512(MESSAGE).digest())
        tail = bytes([flags]) + counter.to_bytes(4)
        whole = hashlib.sha256(self.application.encode()).digest() + tail + hashlib.sha256(data).digest()
        if isinstance(self.private, Ed25519PrivateKey):
            inner = self.private.sign(whole)
        else:
            r, s = decode_dss_signature(self.private.sign(whole, ec.ECDSA(SHA256())))
            inner = mpint(r) + mpint(s)
        shown = bytes([flags if says is None else says]) + counter.to_bytes(4)
        parts = (self.blob, NS.encode(), b"", b"sha512", string(self.kind.encode()) + string(inner) + shown)
        return sshsig.armour(b"SSHSIG" + (1).to_bytes(4) + b"".join(map(string, parts)))


SK = ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"]


@pytest.mark.parametrize("kind", SK)
@pytest.mark.parametrize("flags", [0x01, 0x05])
def test_a_touched_fido_key_signs(kind, flags, tmp_path):
    signature = Token(kind).sign(flags)
    key = sshsig.verify(signature, MESSAGE, NS)
    assert (key.kind, key.application) == (kind, "ssh:")
    done = accepted(tmp_path, key, signature)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", SK)
@pytest.mark.parametrize("flags", [0x00, 0x04, 0x40])
def test_a_fido_key_that_nobody_touched_is_refused(kind, flags):
    with pytest.raises(KeyRefused, match="user-present"):
        sshsig.verify(Token(kind).sign(flags), MESSAGE, NS)


@pytest.mark.parametrize("kind", SK)
def test_the_touch_cannot_be_claimed_afterwards(kind):
    with pytest.raises(KeyRefused, match="not by SHA256"):
        sshsig.verify(Token(kind).sign(0x00, says=0x01), MESSAGE, NS)


@pytest.mark.parametrize("kind", SK)
def test_a_fido_key_without_an_application_is_refused(kind):
    with pytest.raises(KeyRefused, match="application"):
        SshKey.parse(Token(kind, "").blob)


def test_one_point_is_one_material_whatever_it_is_wrapped_in():
    token = Token("sk-ssh-ed25519@openssh.com")
    assert isinstance(token.private, Ed25519PrivateKey)
    point = token.private.public_key().public_bytes_raw()
    plain = SshKey.parse(string(b"ssh-ed25519") + string(point))
    wrapped = SshKey.parse(token.blob)
    assert plain.material == wrapped.material
    assert plain.fingerprint != wrapped.fingerprint


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2E=",
        "ecdsa-sha2-nistp256 " + generated(None).public_key.line.split()[1],
        "ssh-ed25519 " + generated(None).public_key.line.split()[1] + "=",
    ],
    ids=lambda line: line[:24],
)
def test_what_is_no_public_key_is_refused(line):
    with pytest.raises(KeyRefused):
        SshKey.from_line(line)


def test_a_compressed_or_foreign_point_is_refused():
    for point in (b"\x02" + bytes(32), b"\x04" + bytes(64), b""):
        with pytest.raises(KeyRefused, match="not on nistp256"):
            SshKey.parse(string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(point))
    with pytest.raises(KeyRefused, match="curve"):
        SshKey.parse(string(b"ecdsa-sha2-nistp256") + string(b"nistp384") + string(b"\x04" + bytes(64)))
