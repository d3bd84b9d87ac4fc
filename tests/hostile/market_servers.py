"""Servers of a market, and the Redis of one of them."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pgbouncer import free_port

REDIS = shutil.which("valkey-server") or shutil.which("redis-server")


class Redis:
    """A Redis for the cache of a server."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        assert REDIS
        self.process = subprocess.Popen(
            [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    async def command(self, text: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{text}\r\n".encode())
        await reader.readline()
        writer.close()


class Server:
    """A `stockgraph serve` of two processes."""

    def __init__(self, name: str, **variables: str) -> None:
        self.name, self.port = name, free_port()
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        ours = ("STOCKGRAPH", "DATABASE", "CACHE", "PG")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graph", "serve", "--port", str(self.port), "--workers", "2"],
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )

    def workers(self) -> list[int]:
        """The process ids of those that answer."""
        number = self.process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def printed(self) -> str:
        self._printed.seek(0)
        return self._printed.read()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self._printed.close()
