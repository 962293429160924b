"""The embedded server: owner-only, durable, shared by processes, ended by its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import open_store, ops
from agentgate.stores._resp import pack
from agentgate.stores.redis import RedisStore
from agentgate_conformance._book import Book

OPENER = """
import sys, time
from agentgate.stores import open_store, ops
from agentgate_conformance._book import Book
store = open_store(sys.argv[1])
book = Book(store, tenant="acme", run=sys.argv[2])
print("open", flush=True)
sys.stdin.readline()
"""


def opener(url: str, run: str) -> subprocess.Popen[str]:
    """Another process that opens the store, writes a run and waits for a line."""
    process = subprocess.Popen([sys.executable, "-c", OPENER, url, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=20)
    assert process.returncode == 0


def read(store, run: str) -> ops.RunRecord | None:
    op = ops.read_run("acme", run)
    return op.parse(store.call(op, time.monotonic() + 5))


def test_what_was_written_is_there_after_a_restart_and_old_tokens_are_not(tmp_path):
    url = f"embedded://{tmp_path / 'store'}"
    store = open_store(url)
    store.check()
    book = Book(store, tenant="acme")
    _, burning = book.minted()
    store.close()
    with pytest.raises(StoreUnavailable):
        store.check()
    store = open_store(url)
    assert read(store, "run_1") is not None
    again = Book(store, tenant="acme", run="run_2")
    assert again.burn(burning).kind == "lineage"
    store.close()


def test_nobody_else_may_enter_or_connect(tmp_path):
    folder = tmp_path / "store"
    store = open_store(f"embedded://{folder}")
    Book(store)
    modes = {path.relative_to(folder).as_posix(): path.lstat().st_mode & 0o077 for path in [folder, *folder.rglob("*")]}
    store.close()
    assert {"store.sock", "owner", "lock", "server.log"} < set(modes)
    assert set(modes.values()) == {0}


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_refused(tmp_path, mode):
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="nobody else"):
        open_store(f"embedded://{folder}")


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError):
        open_store(f"embedded://{tmp_path / 'link'}")


def test_a_second_process_uses_the_running_server_and_does_not_stop_it(tmp_path):
    url = f"embedded://{tmp_path / 'store'}"
    store = open_store(url)
    finish(opener(url, "run_other"))
    assert read(store, "run_other") is not None
    store.close()
    assert not _running(tmp_path / "store")


def test_the_process_that_opened_it_stops_it_at_exit(tmp_path):
    url = f"embedded://{tmp_path / 'store'}"
    process = opener(url, "run_1")
    assert _running(tmp_path / "store")
    finish(process)
    assert not _running(tmp_path / "store")


def test_a_server_whose_owner_was_killed_is_taken_over(tmp_path):
    url = f"embedded://{tmp_path / 'store'}"
    process = opener(url, "run_1")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert _running(tmp_path / "store")
    store = open_store(url)
    assert read(store, "run_1") is not None
    store.close()
    assert not _running(tmp_path / "store")


FORKED = """
import os, sys, time
from agentgate.stores import open_store
from agentgate.stores._resp import pack
from agentgate_conformance._book import Book
store = open_store(sys.argv[1])
book = Book(store)
connection = store.command(pack("CLIENT", "ID"), time.monotonic() + 5)
child = os.fork()
if child == 0:
    if store.command(pack("CLIENT", "ID"), time.monotonic() + 5) == connection:
        os._exit(1)
    Book(store)
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
time.sleep(0.4)  # a server told to stop looks at it every tenth of a second
assert book.burn(book.minted()[1]).kind == "ok"
store.close()
"""


def test_a_forked_child_has_its_own_connections_and_stops_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", FORKED, f"embedded://{tmp_path / 'store'}"], check=True, timeout=30)


def test_every_write_is_on_disk_before_it_is_answered(tmp_path):
    store = open_store(f"embedded://{tmp_path / 'store'}")
    plain = RedisStore(f"unix://{tmp_path / 'store' / 'store.sock'}")
    found = {name: plain.command(pack("CONFIG", "GET", name), time.monotonic() + 5)[1] for name in ("appendonly", "appendfsync", "port")}
    plain.close()
    store.close()
    assert found == {"appendonly": b"yes", "appendfsync": b"always", "port": b"0"}


def test_a_store_opens_when_its_data_is_loaded_and_not_before(tmp_path):
    url = f"embedded://{tmp_path / 'store'}"
    store = open_store(url)
    store.check()
    plain = RedisStore(f"unix://{tmp_path / 'store' / 'store.sock'}")
    fill = "for i = 1, 300000 do redis.call('SET', 'filler:' .. i, string.rep('x', 60)) end"
    plain.command(pack("EVAL", fill, "0"), time.monotonic() + 20)
    plain.close()
    store.close()
    for _ in range(3):
        store = open_store(url)  # a server that loads answers LOADING to scripts, and INFO says that it keeps no append-only file
        assert (store.check(), store.keeps) == ((), "alone")
        store.close()


def test_a_server_that_cannot_start_is_refused(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    (folder / "appendonlydir").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="did not start"):
        open_store(f"embedded://{folder}")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="90 bytes"):
        open_store(f"embedded://{tmp_path / ('x' * 90)}")


def _running(folder: Path) -> bool:
    """Does a server listen on the folder's socket?"""
    probe = open_store(f"unix://{folder / 'store.sock'}")
    try:
        probe.check()
    except StoreUnavailable:
        return False
    finally:
        probe.close()
    return True
