"""Several server processes on one database: a change is in each one's next answer within a second, through pgbouncer too."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
from conftest import Ask, Databases
from pgbouncer import PGBOUNCER, Pgbouncer, free_port, until

from graph.cli.commands import app
from graph.errors import DatabaseUnavailable
from graph.postgres.database import Database

_numbers = itertools.count()
PROCESSES = 4
CLIENTS = 16

STATUS = "{ status { listener { mode reconnects } universes { hits misses } } }"
TOP3 = '{ universe(key: "top3") { symbols } }'
UNCHANGED = (
    '{ stock(symbol: "AAPL") { name sector { name } memberships(type: ETF) { weight rank group { name } } } }',
    '{ group(name: "BIG", type: ETF) { memberCount members(first: 3) { nodes { weight stock { symbol name } } } } }',
    '{ universe(key: "BIG&TECH") { size symbols } groups(type: SECTOR) { nodes { name } } }',
)


def variables(**given: str) -> dict[str, str]:
    """The environment of a person who has set nothing of ours but these."""
    ours = ("STOCKGRAPH", "DATABASE", "CACHE", "PG")
    return {**{name: text for name, text in os.environ.items() if not name.startswith(ours)}, **given}


def anew() -> str:
    """The query of the universe under a spelling of its key that nobody has asked for."""
    return TOP3.replace("top3", f"top3{' ' * next(_numbers)}")


class Client:
    """A connection to a server process: it stays with that one, and fails rather than be made again."""

    def __init__(self, port: int) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=60)
        self._http.connect()
        self._http.auto_open = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, query: str) -> dict[str, Any]:
        self._http.request("POST", "/graphql", json.dumps({"query": query}), {"content-type": "application/json"})
        answer: dict[str, Any] = json.loads(self._http.getresponse().read())
        return answer

    def status(self, part: str) -> dict[str, Any]:
        told: dict[str, Any] = self.ask(STATUS)["data"]["status"][part]
        return told

    def caches(self, mode: str) -> bool:
        """Whether changes become known in a mode, and the universe, asked for now, comes from memory."""
        hits = self.status("universes")["hits"]
        self.ask(anew())
        return bool(self.status("universes")["hits"] == hits + 1 and self.status("listener")["mode"] == mode)

    def symbols(self) -> list[str]:
        symbols: list[str] = self.ask(TOP3)["data"]["universe"]["symbols"]
        return symbols


class Servers:
    """A `stockgraph serve` of several processes, and somebody else who writes to the database."""

    def __init__(self, url: str, writer: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.writer = writer
        self.written = 0
        self.port = free_port()
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "graph", "serve", "--port", str(self.port), "--workers", str(PROCESSES)],
            env=variables(DATABASE_URL=url),
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0, self.printed()
        self._printed.close()

    def printed(self) -> str:
        self._printed.seek(0)
        return self._printed.read()

    @contextmanager
    def clients(self) -> Iterator[list[Client]]:
        """Connect to each of the processes, which are told apart by how often they were asked for a universe."""
        found: list[Client] = []
        with ExitStack() as connections:

            def connect() -> bool:
                assert self._process.poll() is None, self.printed()
                with suppress(ConnectionError), ExitStack() as connection:
                    client = connection.enter_context(Client(self.port))
                    before = [each.status("universes") for each in found]
                    client.ask(anew())
                    if [each.status("universes") for each in found] == before:
                        found.append(client)
                        connections.push(connection.pop_all())
                return len(found) == PROCESSES

            until(connect)
            yield found

    async def write(self) -> list[str]:
        """Change a universe; its symbols."""
        self.written += 1
        symbol = f"V{self.written:03}"
        await self.writer.execute("UPDATE group_memberships SET symbol = $1 WHERE id = 27", symbol)
        return ["AAPL", "MSFT", symbol]


@asynccontextmanager
async def serving(url: str, database_url: str) -> AsyncIterator[Servers]:
    """Serve through one address the database that is written to at another."""
    writer = await asyncpg.connect(database_url)
    servers = Servers(url, writer)
    try:
        yield servers
    finally:
        servers.stop()
        await writer.close()


@pytest.fixture(scope="module")
async def direct(databases: Databases, market_template: str) -> AsyncIterator[Servers]:
    """Server processes that connect to the database itself."""
    url = await databases.make(market_template)
    async with serving(url, url) as servers:
        yield servers


@pytest.fixture(scope="module")
def pgbouncer(server_url: str) -> Iterator[Pgbouncer]:
    """A pgbouncer before the server of the tests."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    with tempfile.TemporaryDirectory(prefix="stockgraph-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        running = Pgbouncer(Path(folder), server_url)
        yield running
        running.kill()


@pytest.fixture(scope="module")
async def pooled(pgbouncer: Pgbouncer, databases: Databases, market_template: str) -> AsyncIterator[Servers]:
    """Server processes that reach the database through pgbouncer."""
    url = await databases.make(market_template)
    async with serving(pgbouncer.url(url), url) as servers:
        yield servers


async def every(clients: list[Client], ask: Callable[[Client], Any]) -> list[Any]:
    """Ask all at once."""
    return await asyncio.gather(*(asyncio.to_thread(ask, client) for client in clients))


async def seconds_told_old(clients: list[Client], symbols: list[str]) -> float:
    """Ask every process again and again until it tells of a change made now; when the last that did not was asked."""
    changed = time.monotonic()

    def ask(client: Client) -> float:
        last = changed
        while (sent := time.monotonic()) < changed + 30:
            if client.symbols() == symbols:
                return last - changed
            last = sent
        pytest.fail("it never told")

    return max(await every(clients, ask))


async def cut_listening_connections(servers: Servers, clients: list[Client]) -> None:
    for client in clients:
        # so that what polled last is what listens
        client.ask("{ groups { totalCount } }")
    cut = await servers.writer.fetch(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%WITH watched%'"""
    )
    assert len(cut) == PROCESSES


@pytest.mark.parametrize("lost", [False, True], ids=["", "the listening connections are cut"])
async def test_every_process_tells_of_a_change_within_a_second(direct: Servers, *, lost: bool) -> None:
    with direct.clients() as clients:
        for _ in range(3):
            await every(clients, lambda client: until(lambda: client.caches("NOTIFY")))
            made = [client.status("listener")["reconnects"] for client in clients]
            if lost:
                await cut_listening_connections(direct, clients)
            symbols = await direct.write()
            assert await seconds_told_old(clients, symbols) < 1
            for client, before in zip(clients, made, strict=True):
                until(lambda client=client, before=before: client.status("listener")["reconnects"] >= before + lost)


async def test_the_only_question_after_a_second_is_answered_right(direct: Servers) -> None:
    with direct.clients() as clients:
        await every(clients, lambda client: until(lambda: client.caches("NOTIFY")))
        await cut_listening_connections(direct, clients)
        symbols = await direct.write()
        await asyncio.sleep(1)
        assert await every(clients, Client.symbols) == [symbols] * PROCESSES


@pytest.mark.parametrize("lost", [False, True], ids=["", "the connections of pgbouncer are cut"])
async def test_behind_pgbouncer_changes_are_polled_and_told_within_a_second(pooled: Servers, *, lost: bool) -> None:
    with pooled.clients() as clients:
        for _ in range(3):
            await every(clients, lambda client: until(lambda: client.caches("POLL")))
            if lost:
                await pooled.writer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            symbols = await pooled.write()
            assert await seconds_told_old(clients, symbols) < 1
    warning = "Notifications do not come through a connection pooler such as pgbouncer: polling instead."
    assert pooled.printed().count(warning) >= PROCESSES


async def test_behind_pgbouncer_sixteen_clients_get_right_answers_only(pooled: Servers, ask: Ask) -> None:
    expected = {query: {"data": (await ask(query))["data"]} for query in UNCHANGED}
    before = await pooled.write()
    written: list[tuple[float, float, list[str]]] = [(0, 0, before)]
    enough = threading.Event()

    def load(client: Client) -> list[tuple[float, float, list[str]]]:
        told = []
        while not enough.is_set():
            for query, answer in expected.items():
                assert client.ask(query) == answer
            sent = time.monotonic()
            symbols = client.symbols()
            told.append((sent, time.monotonic(), symbols))
        return told

    with ExitStack() as connections, ThreadPoolExecutor(CLIENTS) as threads:
        clients = connections.enter_context(pooled.clients())
        clients += [connections.enter_context(Client(pooled.port)) for _ in range(CLIENTS - PROCESSES)]
        await seconds_told_old(clients, before)
        loads = [asyncio.wrap_future(threads.submit(load, client)) for client in clients]
        try:
            for _ in range(6):
                begun = time.monotonic()
                symbols = await pooled.write()
                written.append((begun, time.monotonic(), symbols))
                await asyncio.sleep(0.3)
            await asyncio.sleep(1)
        finally:
            enough.set()
        told = await asyncio.gather(*loads)
    for sent, received, symbols in (each for of_client in told for each in of_client):
        oldest = max(place for place, (_, ended, _) in enumerate(written) if ended < sent - 1)
        possible = [answer for begun, _, answer in written[oldest:] if begun < received]
        assert symbols in possible
    assert [of_client[-1][2] for of_client in told] == [written[-1][2]] * CLIENTS


async def test_a_pgbouncer_that_hangs_or_dies_makes_no_answer_wrong(pooled: Servers, pgbouncer: Pgbouncer) -> None:
    with pooled.clients() as clients:
        await every(clients, lambda client: until(lambda: client.caches("POLL")))
        pgbouncer.signal(signal.SIGSTOP)
        symbols = await pooled.write()
        await asyncio.sleep(1)
        answers = [asyncio.create_task(asyncio.to_thread(client.symbols)) for client in clients]
        done, _ = await asyncio.wait(answers, timeout=0.5)
        assert not done
        pgbouncer.signal(signal.SIGCONT)
        assert await asyncio.gather(*answers) == [symbols] * PROCESSES

        pgbouncer.kill()
        symbols = await pooled.write()
        await asyncio.sleep(1)
        for answer in await every(clients, lambda client: client.ask(TOP3)):
            (error,) = answer["errors"]
            assert "data" not in answer
            assert error["message"] == "The database does not answer; try again when it is back."
            assert error["extensions"] == {"code": "DATABASE_UNAVAILABLE"}
        pgbouncer.start()

        def first_answer(client: Client) -> Any:
            deadline = time.monotonic() + 5
            while "errors" in (answer := client.ask(TOP3)):
                assert time.monotonic() < deadline, answer
                time.sleep(0.02)
            return answer["data"]["universe"]["symbols"]

        assert await every(clients, first_answer) == [symbols] * PROCESSES
        await every(clients, lambda client: until(lambda: client.caches("POLL")))


async def test_statements_stay_prepared_but_for_those_behind_pgbouncer(pgbouncer: Pgbouncer, market_url: str) -> None:
    for url, pooled in ((market_url, False), (pgbouncer.url(market_url), True)):
        async with Database(url) as database:
            for guess in (False, True):
                database.pooled = guess
                connection = await database.connect()
                try:
                    assert database.pooled is pooled
                    await database.fetch("group_names", ["DEFAULT"], with_generation=True, connection=connection)
                    kept = await connection.fetchval(
                        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE $1", "%definition_groups%"
                    )
                    assert kept == (0 if pooled else 1)
                finally:
                    connection.terminate()


async def test_the_commands_work_through_pgbouncer(
    pgbouncer: Pgbouncer, bare_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = pgbouncer.url(bare_url)

    async def run(*command: str) -> list[str]:
        # in a thread, since each has a loop of its own
        await asyncio.to_thread(
            app, [*command, "--database-url", url], exit_on_error=False, result_action="return_none"
        )
        return capsys.readouterr().out.splitlines()

    assert "made table group_memberships" in await run("init")
    assert await run("init") == ["Nothing was missing."]
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAPL,tech\nXOM,energy\n")
    (tmp_path / "etf_FUND.csv").write_text("symbol,weight\nXOM,70\nAAPL,30\n")
    assert "3 groups read, 3 changed" in await run("load", str(tmp_path))
    assert "3 groups read, 0 changed" in await run("load", str(tmp_path))
    assert await run("check") == ["0 faults, 0 warnings"]
    assert await run("query", "FUND-energy") == ["AAPL"]


async def test_what_pgbouncer_refuses_is_said(pgbouncer: Pgbouncer, market_url: str) -> None:
    async with Database(f"{pgbouncer.url(market_url)}?search_path=elsewhere") as database:
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.fetch("tracking", with_generation=False)
    reason = "The database, or a pooler before it, refuses: unsupported startup parameter: search_path."
    assert str(refused.value) == reason
