"""The main process of several workers is killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx2
import pytest

from graph.postgres.embedded import embedded_postgres

SECONDS = 5.0
"""Seconds within which workers without a parent have ended."""
QUERY = '{ universe(key: "dow30") { size } }'
ANSWER = {"data": {"universe": {"size": 30}}}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def until(holds: Callable[[], bool], seconds: float = 60) -> float:
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, "it never came to hold"
        time.sleep(0.01)
    return time.monotonic() - start


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def postmaster(home: Path) -> int | None:
    try:
        pid = int((home / "data" / "postmaster.pid").read_text().splitlines()[0])
    except FileNotFoundError:
        return None
    return pid if alive(pid) else None


class Server:
    """A `stockgraph serve` with two workers, over the embedded database of a home."""

    def __init__(self, home: Path, port: int) -> None:
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("STOCKGRAPH", "DATABASE"))
        }
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graph", "serve", "--port", str(port), "--workers", "2"],
            env={
                **variables,
                "STOCKGRAPH_HOME": str(home),
                "STOCKGRAPH_RESPONSE_CACHE": "off",
                "STOCKGRAPH_DATA_CACHE": "off",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.workers: list[int] = []
        until(self._ready)
        self.workers = self._children()

    def _children(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def _ready(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200 and len(self._children()) == 2
        except httpx2.TransportError:
            return False

    def ask(self) -> object:
        return httpx2.post(f"{self.url}/graphql", json={"query": QUERY}, timeout=30).json()

    def kill_parent(self) -> None:
        """Kill the main process alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Kill all that still runs."""
        for pid in (*self.workers, self.process.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder for an embedded PostgreSQL that an unprivileged user can reach."""
    with tempfile.TemporaryDirectory(prefix="stockgraph-hostile-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder).resolve()
        with embedded_postgres(Path(folder)):
            pass  # stops what a failed test left


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_workers_end_with_their_parent_and_a_start_right_after_works(home: Path, port: int) -> None:
    server = Server(home, port)
    try:
        assert server.ask() == ANSWER
        server.kill_parent()
        again = Server(home, port)
        try:
            assert [pid for pid in server.workers if alive(pid)] == []
            assert again.ask() == ANSWER
            assert postmaster(home) is not None
            again.kill_parent()
            # the last of them stops PostgreSQL
            until(lambda: not any(map(alive, again.workers)) and postmaster(home) is None, SECONDS)
        finally:
            again.end()
    finally:
        server.end()


async def test_workers_without_a_parent_finish_their_requests_and_no_command_stops_their_postgresql(
    home: Path, port: int
) -> None:
    server = Server(home, port)
    try:
        with embedded_postgres(home) as url:
            first = postmaster(home)
        connection = await asyncpg.connect(url)
        with ThreadPoolExecutor() as clients:
            async with connection.transaction():
                await connection.execute("LOCK TABLE group_memberships IN ACCESS EXCLUSIVE MODE")
                asking = clients.submit(server.ask)
                while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
                server.kill_parent()
                with embedded_postgres(home):
                    pass  # as a command does that comes and goes
            assert asking.result() == ANSWER
        assert postmaster(home) == first
        await connection.close()
        until(lambda: not any(map(alive, server.workers)) and postmaster(home) is None, SECONDS)
    finally:
        server.end()
