"""An attacker in a process of its own: more connections than a gate has places, each opened again as soon as it is closed.

``python -m tests.attacker PORT LINES FILE HOW`` until its standard input ends; then it says what it was answered, and how often.

How: ``hold`` sends the bytes of the file and then nothing more; ``repeat`` sends them again after each answer; ``anew`` has a
connection for each; ``reset`` sends them and resets the connection a moment later.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path


async def _attack(port: int, data: bytes, how: str, said: Counter[str]) -> None:
    while True:
        await asyncio.sleep(0)  # also where no connection could be opened
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said["connections"] += 1
            try:
                while True:
                    writer.write(data)
                    if how == "reset":
                        await asyncio.sleep(0.05)
                        line = writer.get_extra_info("socket")
                        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        break
                    head = await reader.readuntil(b"\r\n\r\n")
                    said[head[9:12].decode()] += 1
                    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                    await reader.readexactly(int(length[1]) if length else 0)
                    if how == "hold":
                        await reader.read()
                    if how != "repeat":
                        break
            finally:
                writer.close()


async def _main(port: int, lines: int, data: bytes, how: str) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, 4 * lines), most), most))
    said = Counter[str]()
    attacks = [asyncio.ensure_future(_attack(port, data, how, said)) for _ in range(lines)]
    await asyncio.to_thread(sys.stdin.read)
    for each in attacks:
        each.cancel()
    await asyncio.wait(attacks)
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).read_bytes(), sys.argv[4]))
