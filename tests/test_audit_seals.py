"""The seals of a log: its tree and checkpoints against an oracle of their own, and what an attacker with the folder can do to them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from agentgate.audit import FileAudit, read_records
from agentgate.audit.sealer import LOGS
from agentgate.audit.tree import PUBLIC, SUFFIX, LogKey, NoteVerifier, read_checkpoint
from agentgate.audit.verify import LogEvidence, LogFinding, LogVerdict, verify
from agentgate.cli.main import app
from agentgate.errors import AuditUnavailable, ConfigError, KeyRefused
from agentgate.values.canonical import canonical
from agentgate.values.merkle import RightEdge, consistency, leaf_hash
from tests.effort import examples


def soon() -> float:
    return time.monotonic() + 5


def written(folder: Path, *counts: int) -> list[Path]:
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    for count in counts:
        log = FileAudit(folder / "audit", keys=folder / "keys")
        for number in range(count):
            log.append({"id": number}, soon())
        log.close()
    return sorted((folder / "audit").glob("*.jsonl"))


def verdict(folder: Path) -> LogVerdict:
    return verify([folder / "audit"], LogEvidence.of([folder / "keys"]))


def findings(folder: Path) -> set[LogFinding]:
    return {each.finding for each in verdict(folder).findings if each.finding is not None}


def seals(folder: Path) -> Path:
    *_, newest = sorted((folder / "audit").glob(f"*{SUFFIX}"))
    return newest


# --- RFC 6962 and signed notes, written from the texts alone ------------------------------------------------------------------
def mth(entries: Sequence[bytes]) -> bytes:
    """Section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def consistent(first: int, second: int, first_hash: bytes, second_hash: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, section 2.1.4.2, word for word."""
    if not 0 < first < second or not proof:
        return first == second and first_hash == second_hash and not proof
    path = [first_hash, *proof] if first & (first - 1) == 0 else proof
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = hashlib.sha256(b"\x01" + c + fr).digest(), hashlib.sha256(b"\x01" + c + sr).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = hashlib.sha256(b"\x01" + sr + c).digest()
        fn, sn = fn >> 1, sn >> 1
    return fr == first_hash and sr == second_hash and sn == 0


@pytest.mark.parametrize("size", range(20))
def test_a_tree_that_grows_has_the_root_of_the_rfc_at_each_size(size: int) -> None:
    entries = [str(number).encode() for number in range(size)]
    edge = RightEdge()
    for entry in entries:
        edge.add(leaf_hash(entry))
    assert (edge.root(), edge.size) == (mth(entries), size)
    again = RightEdge(edge.size, edge.roots)
    again.add(leaf_hash(b"more"))
    assert again.root() == mth([*entries, b"more"])
    assert edge.root() == mth(entries)


def test_a_right_edge_of_another_number_of_subtrees_is_none() -> None:
    with pytest.raises(ValueError, match="1 subtrees of 3 leaves"):
        RightEdge(3, [b"0" * 32])


@pytest.mark.parametrize("new", range(1, 20))
def test_a_proof_of_consistency_is_the_one_of_the_rfc(new: int) -> None:
    entries = [str(number).encode() for number in range(new)]
    for old in range(1, new + 1):
        edge = RightEdge()
        for entry in entries[:old]:
            edge.add(leaf_hash(entry))
        subtrees = {}
        start = 0
        for root in edge.roots:  # all that is known of the old tree
            length = 1 << ((old - start).bit_length() - 1)
            subtrees[start, start + length] = root
            start += length

        def root_of(a: int, b: int, known: dict[tuple[int, int], bytes] = subtrees, old: int = old) -> bytes:
            return mth(entries[a:b]) if a >= old else known[a, b]

        proof = consistency(old, new, root_of)
        assert consistent(old, new, mth(entries[:old]), mth(entries), proof)
        if proof:
            assert not consistent(old, new, mth(entries[:old]), mth(entries), [*proof[:-1], b"x" * 32])


def test_every_seal_is_a_signed_note_over_the_tree_of_all_heads(tmp_path: Path) -> None:
    written(tmp_path, 3, 0, 5, 1)
    key = Ed25519PublicKey.from_public_bytes(b64decode((tmp_path / "keys" / PUBLIC).read_text()))
    leaves: list[bytes] = []
    origin = "agentgate/audit/" + seals(tmp_path).name.split(".")[0]
    for line in seals(tmp_path).read_text().splitlines():
        value = json.loads(line)
        leaves += [json.dumps(head, sort_keys=True, separators=(",", ":")).encode() for head in value.get("heads", [])]
        text, signature = value["note"].split("\n\n")
        name, size, root = text.split("\n")
        assert (name, int(size), b64decode(root)) == (origin, len(leaves), mth(leaves))
        dash, signer, encoded = signature.removesuffix("\n").split(" ")
        id_ = hashlib.sha256(origin.encode() + b"\n\x01" + key.public_bytes_raw()).digest()[:4]
        assert (dash, signer, b64decode(encoded)[:4]) == ("—", origin, id_)
        key.verify(b64decode(encoded)[4:], f"{text}\n".encode())
    assert len(leaves) >= 8


@pytest.mark.parametrize("text", ["", "a+b", "a+00000000+AAAA", "name+0000+" + "A" * 44])
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        NoteVerifier.parse(text)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "a\n1\nx\n",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "o\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— o x\n",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n\n— o x\n",
        "\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— o x\n",
        "o\n1\nAAAA\n\n— o x\n",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— o x",
    ],
)
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(ValueError):
        read_checkpoint(note)


def test_the_key_of_a_log_is_its_owners_alone(tmp_path: Path) -> None:
    made = LogKey.open(tmp_path)
    assert LogKey.open(tmp_path).public == made.public
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(KeyRefused):
        LogKey.open(tmp_path)


# --- attacks ------------------------------------------------------------------------------------------------------------------
def no_seals(folder: Path) -> None:
    seals(folder).unlink()


def cut_seals(folder: Path) -> None:
    path = seals(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def one_seal_less(folder: Path) -> None:
    path = seals(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))


def signed_by_another(folder: Path) -> None:
    """The whole log made anew by somebody who has not the key."""
    shutil.rmtree(folder / "audit")
    (folder / "other").mkdir()
    log = FileAudit(folder / "audit", keys=folder / "other")
    log.append({"id": 1}, soon())
    log.close()


def another_log(folder: Path) -> None:
    """The seals of another log of the same key, under this one's name."""
    path = seals(folder)
    log = FileAudit(folder / "elsewhere", keys=folder / "keys")
    log.close()
    (other,) = (folder / "elsewhere").glob(f"*{SUFFIX}")
    path.write_bytes(other.read_bytes())


def all_gone(folder: Path) -> None:
    """Log, seals and all: begun anew with the key."""
    shutil.rmtree(folder / "audit")
    written(folder, 2)


def made_anew(folder: Path) -> None:
    """As above, and what the key directory knows, which needs the right to write there."""
    shutil.rmtree(folder / "audit")
    shutil.rmtree(folder / "keys" / LOGS)
    written(folder, 2)


@pytest.mark.parametrize(
    ("attack", "found"),
    [
        (no_seals, {LogFinding.WENT_BACK, LogFinding.FORGED}),
        (cut_seals, {LogFinding.WENT_BACK, LogFinding.APPENDED}),
        (one_seal_less, {LogFinding.SEALS}),
        (signed_by_another, {LogFinding.SEALS, LogFinding.WENT_BACK, LogFinding.FORGED}),
        (another_log, {LogFinding.SEALS, LogFinding.WENT_BACK, LogFinding.FORGED}),
        (all_gone, {LogFinding.WENT_BACK}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_done_to_the_seals_is_named(tmp_path: Path, attack: Callable[[Path], None], found: set[LogFinding]) -> None:
    written(tmp_path, 4, 2)
    attack(tmp_path)
    assert findings(tmp_path) & found
    assert findings(tmp_path)


def test_a_log_that_was_made_anew_with_its_key_is_told_by_a_checkpoint_that_is_kept_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, 4)
    elsewhere = LogEvidence.of([tmp_path / "keys"])
    made_anew(tmp_path)
    assert findings(tmp_path) == set()
    answer = verify([tmp_path / "audit"], elsewhere)
    assert [each.finding for each in answer.findings] == [LogFinding.WENT_BACK]


@pytest.mark.parametrize("attack", [no_seals, cut_seals, one_seal_less, another_log], ids=lambda value: value.__name__)
def test_the_next_process_begins_another_log_and_says_so(tmp_path: Path, attack: Callable[[Path], None]) -> None:
    written(tmp_path, 4, 2)
    attack(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "audit").iterdir() if not path.is_symlink()}
    *_, last = written(tmp_path, 1)
    assert {path: path.read_bytes() for path in before} == before  # evidence
    lines = [json.loads(line)["record"] for line in last.read_text().splitlines()]
    assert [line.get("type") for line in lines] == ["log_lost", None]
    assert lines[0]["origin"].startswith("agentgate/audit/")
    assert verdict(tmp_path).findings


@pytest.mark.parametrize("attack", [no_seals, cut_seals, one_seal_less], ids=lambda value: value.__name__)
def test_seals_that_change_under_a_writer_are_noticed_and_it_goes_on(tmp_path: Path, attack: Callable[[Path], None]) -> None:
    (tmp_path / "keys").mkdir()
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    for number in range(4):
        log.append({"id": number}, soon())
        time.sleep(0.01)
    deadline = time.monotonic() + 10
    while len(seals(tmp_path).read_bytes().splitlines()) < 3 or verdict(tmp_path).segments[0].tail:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if attack is one_seal_less:  # what comes after it in another file counts as replaced
        path = seals(tmp_path)
        path.write_bytes(path.read_bytes().replace(b'"seq":', b'"sea":', 1))
        path.rename(path.with_suffix(".away"))
        path.with_suffix(".away").rename(path)
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)
    else:
        attack(tmp_path)
    refused = 0
    while refused == 0:
        assert time.monotonic() < deadline
        try:
            log.append({"id": 5}, soon())
            time.sleep(0.05)
        except AuditUnavailable:
            refused += 1
    log.append({"id": 6}, soon())
    log.close()
    records = [json.loads(line)["record"] for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [each["type"] for each in records if "type" in each] == ["log_lost"]
    assert verdict(tmp_path).findings


KILLED = """
import os, sys, time
from pathlib import Path
from agentgate.audit import FileAudit
folder = Path(sys.argv[1])
log = FileAudit(folder / "audit", keys=folder / "keys")
for number in range(500):
    log.append({"id": number}, time.monotonic() + 5)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_unsealed_is_told_then_sealed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (dead,) = verdict(tmp_path).segments
    assert (dead.records, dead.finding) == (500, None)
    assert dead.tail > 0  # under no checkpoint, and said
    tail = dead.tail
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")  # any process of the folder
    sealed, _ = verdict(tmp_path).segments
    assert (sealed.records, sealed.tail, sealed.unsealed, sealed.finding) == (500, 0, tail, None)
    log.close()
    path = Path(sealed.file)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert findings(tmp_path) == {LogFinding.CUT}


def test_processes_of_one_folder_seal_in_turns(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    code = KILLED.replace("os.kill(os.getpid(), 9)", "log.close()").replace("range(500)", "range(200)")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [each.wait(60) for each in running] == [0] * 4
    answer = verdict(tmp_path)
    assert [(each.records, each.sealed, each.finding) for each in answer.segments] == [(200, 200, None)] * 4
    (log,) = answer.logs
    assert (log.finding, len(log.heads)) == (None, 4)


def test_a_forged_segment_is_not_sealed_by_the_next_process(tmp_path: Path) -> None:
    first, *_ = written(tmp_path, 2)
    name = "20200101T000000000000-0000000000000000"
    forged = canonical({"prev": "0" * 64, "record": {"id": 1}, "seq": 1, "writer": name}) + b"\n"
    (first.parent / f"{name}.jsonl").write_bytes(forged)
    written(tmp_path, 1)
    assert [each.writer for each in verdict(tmp_path).segments if each.finding is LogFinding.FORGED] == [name]
    assert findings(tmp_path) == {LogFinding.FORGED}


def test_a_command_without_keys_writes_into_the_log_that_is_there(tmp_path: Path) -> None:
    written(tmp_path, 2)
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    log.close()
    assert [(each.records, each.sealed) for each in verdict(tmp_path).segments] == [(2, 2), (1, 1)]
    # nobody has signed where the key directory is: another's is not used
    (link,) = (tmp_path / "audit").glob("*.keys")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    LogKey.open(other)
    link.unlink()
    link.symlink_to(other)
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    log.close()
    assert findings(tmp_path) >= {LogFinding.FORGED}
    assert not (other / LOGS).exists()


def test_a_file_of_seals_ends_and_another_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.audit.sealer._FILE_BYTES", 1500)
    written(tmp_path, 3, 2, 1, 0, 1)
    files = sorted((tmp_path / "audit").glob(f"*{SUFFIX}"))
    assert len(files) > 2
    assert findings(tmp_path) == set()
    files[1].unlink()
    assert findings(tmp_path) >= {LogFinding.SEALS}


def test_a_segment_ends_by_its_size_and_by_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.audit.segment.LARGE", 1000)
    (tmp_path / "keys").mkdir()
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    for number in range(20):
        log.append({"id": number}, soon())
    assert len(verdict(tmp_path).segments) == 3
    monkeypatch.setattr("agentgate.audit.segment.LARGE", 1 << 20)
    (writer,) = [each for each in verdict(tmp_path).segments if each.tail or each.records < 7]
    log._writer._segment._began -= 86400  # type: ignore[union-attr]  # it has one
    log.append({"id": 20}, soon())
    log.close()
    answer = verdict(tmp_path)
    assert [each.finding for each in answer.segments] == [None] * 4
    assert sum(each.records for each in answer.segments) == 21
    assert answer.segments[-1].records == 1
    assert writer.writer == answer.segments[2].writer


# --- chance -------------------------------------------------------------------------------------------------------------------
def tamper(folder: Path, chance: random.Random) -> None:
    """Change the folder somehow, as whoever may write there can."""
    paths = sorted(path for path in (folder / "audit").iterdir() if not path.is_symlink())
    path = chance.choice(paths)
    data = bytearray(path.read_bytes())
    lines = bytes(data).splitlines(keepends=True)
    match chance.randrange(9):
        case 0 if data:
            at = chance.randrange(len(data))
            data[at] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        case 1 if len(lines) > 1:
            del lines[chance.randrange(len(lines))]
            path.write_bytes(b"".join(lines))
        case 2 if len(lines) > 1:
            a, b = chance.sample(range(len(lines)), 2)
            lines[a], lines[b] = lines[b], lines[a]
            path.write_bytes(b"".join(lines))
        case 3 if lines:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
            path.write_bytes(b"".join(lines))
        case 4 if data:
            path.write_bytes(data[: chance.randrange(len(data))])
        case 5:
            path.unlink()
        case 6:
            other = chance.choice([each for each in paths if each != path and each.suffix == path.suffix] or [path])
            path.write_bytes(other.read_bytes())
        case 7 if path.suffix == ".jsonl" and lines:  # a chain made anew
            from_ = chance.randrange(len(lines))
            prev = "0" * 64 if from_ == 0 else hashlib.sha256(lines[from_ - 1].rstrip(b"\n")).hexdigest()
            for number in range(from_, len(lines)):
                value = json.loads(lines[number])
                if number == from_:
                    value["record"] = {"id": chance.randrange(1000, 2000)}
                value["prev"] = prev
                lines[number] = canonical(value) + b"\n"
                prev = hashlib.sha256(canonical(value)).hexdigest()
            path.write_bytes(b"".join(lines))
        case _:
            os.truncate(path, 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "audit").iterdir()) if not path.is_symlink()}


TAMPERED = examples(10_000, 400)


def test_whatever_is_changed_is_found_or_lies_in_the_unsealed_tail(tmp_path: Path) -> None:
    written(tmp_path, 3, 5, 2)
    (tmp_path / "audit" / "x").mkdir()
    (tmp_path / "audit" / "x").rmdir()
    subprocess.run([sys.executable, "-c", KILLED.replace("500", "6"), str(tmp_path)], check=False)
    whole, records = contents(tmp_path), {}
    for each in verdict(tmp_path).segments:
        records[each.writer] = each.sealed or 0
    assert findings(tmp_path) == set()
    changed = 0
    for seed in range(TAMPERED):
        tamper(tmp_path, random.Random(seed))  # noqa: S311 - to be repeated
        now = contents(tmp_path)
        if now != whole:
            changed += 1
            if not findings(tmp_path):
                assert now.keys() == whole.keys()
                for name, data in whole.items():  # then only lines that no checkpoint covers have changed
                    sealed = records.get(name.removesuffix(".jsonl"), len(data.splitlines()))
                    kept = b"".join(data.splitlines(keepends=True)[:sealed])
                    assert now[name].startswith(kept), (seed, name)
                    if name.endswith(SUFFIX):
                        assert now[name] == data, seed
            shutil.rmtree(tmp_path / "audit")
            (tmp_path / "audit").mkdir(mode=0o700)
            for name, data in whole.items():
                (tmp_path / "audit" / name).write_bytes(data)
    assert changed > TAMPERED * 0.6


# --- time ---------------------------------------------------------------------------------------------------------------------
def gaps(folder: Path) -> list[tuple[float, float]]:
    """Of the one log, in seconds."""
    (log,) = verdict(folder).logs
    return [(round(before / 1000), round(after / 1000)) for before, after in log.gaps]


def at(folder: Path, moment: float, *, lives: float = 1.0) -> None:
    """A process that writes a record then, and lives for so long."""
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    with time_machine.travel(moment, tick=True) as clock:
        log = FileAudit(folder / "audit", keys=folder / "keys")
        log.append({"id": 1, "time": moment}, soon())
        clock.shift(lives)
        log.close()


def test_a_time_without_any_process_is_told_and_no_finding(tmp_path: Path) -> None:
    for moment in (1_800_000_000, 1_800_000_030, 1_800_007_200):
        at(tmp_path, moment)
    assert gaps(tmp_path) == [(1_800_000_031, 1_800_007_200)]
    assert findings(tmp_path) == set()
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert (done.exit_code, "no process wrote it from 2027-01-15 08:00:31 to 2027-01-15 10:00:00" in done.output) == (0, True)


def test_one_that_lives_and_writes_nothing_leaves_no_gap(tmp_path: Path) -> None:
    at(tmp_path, 1_800_000_000, lives=86_000)
    at(tmp_path, 1_800_086_010)
    assert gaps(tmp_path) == []


def test_a_killed_process_is_missed_from_its_last_record_on(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    subprocess.run([sys.executable, "-c", KILLED.replace("500", "6"), str(tmp_path)], check=False)
    killed = time.time()
    at(tmp_path, killed + 3600)
    ((before, after),) = gaps(tmp_path)
    assert abs(before - killed) < 60
    assert after == round(killed + 3600)
    assert findings(tmp_path) == set()


def test_a_clock_that_went_back_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    for moment in (1_800_000_000, 1_799_996_400, 1_799_996_420):
        at(tmp_path, moment)
    assert gaps(tmp_path) == [(1_800_000_001, 1_799_996_400)]
    assert findings(tmp_path) == set()
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert (done.exit_code, "its clock went back from 2027-01-15 08:00:01 to 2027-01-15 07:00:00" in done.output) == (0, True)
    assert [record["time"] for record in read_records(tmp_path / "audit")] == [1_799_996_400, 1_799_996_420, 1_800_000_000]


def test_a_clock_that_went_back_under_a_process_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    with time_machine.travel(1_800_000_000, tick=True) as clock:
        log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
        log.append({"id": 1}, soon())
        clock.shift(-600)
        log.append({"id": 2}, soon())
        log.close()
    ((before, after),) = gaps(tmp_path)
    assert (round(before, -1), round(after, -1)) == (1_800_000_000, 1_799_999_400)
    assert findings(tmp_path) == set()


def test_what_was_pruned_leaves_the_gaps_as_they_were(tmp_path: Path) -> None:
    for moment in (1_800_000_000, 1_800_007_200, 1_800_007_250):
        at(tmp_path, moment)
    before = gaps(tmp_path)
    with time_machine.travel(1_800_007_260, tick=True):
        done = CliRunner().invoke(
            app, ["audit", "prune", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys"), "--before", "2027-01-15T09:00"]
        )
    assert "1 segments removed" in done.output
    assert gaps(tmp_path) == before
