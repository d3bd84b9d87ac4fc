"""A real PostgreSQL for every test: the embedded one, or the server that TEST_DATABASE_URL names."""

import asyncio
import itertools
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import uvicorn
from starlette.applications import Starlette

from graph.app import create_app
from graph.cli.serving import UVICORN_OPTIONS
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.loading.demo import demo_groups
from graph.loading.group_writer import GroupRefused, load_groups
from graph.postgres.database import Generation
from graph.postgres.ddl import make_tables
from graph.postgres.embedded import embedded_postgres
from graph.schema import make_schema
from graph.settings import Settings

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
MARKET = DATA / "market.sql"
PRICES = DATA / "prices.sql"
GIVEN = os.environ.get("TEST_DATABASE_URL")
_numbers = itertools.count()

# a shell has what it runs in the background ignore Ctrl-C, and all that tests start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL whose databases tests may make and drop."""
    if GIVEN:
        yield GIVEN
        return
    # not pytest's own folder, which the unprivileged user that a root's PostgreSQL runs as cannot enter
    home = Path(tempfile.mkdtemp(prefix="stockgraph-tests-"))
    home.chmod(0o755)
    try:
        with embedded_postgres(home) as url:
            yield url
    finally:
        shutil.rmtree(home, ignore_errors=True)


def database_at(server_url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


class Databases:
    """Makes databases, from a template where one is named, and drops them all."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._made: list[str] = []

    async def run(self, *statements: str) -> None:
        """Run statements on the server."""
        connection = await asyncpg.connect(self._server_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def make(self, template: str = "template1") -> str:
        """Make a database of its own for a test; its URL."""
        name = f"stockgraph_test_{os.getpid()}_{next(_numbers)}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.append(name)
        return database_at(self._server_url, name)

    async def drop(self) -> None:
        """Drop what was made."""
        await self.run(*(f"DROP DATABASE {name} WITH (FORCE)" for name in self._made))


@pytest.fixture(scope="session")
async def databases(server_url: str) -> AsyncIterator[Databases]:
    """Makes databases for the session."""
    made = Databases(server_url)
    if GIVEN:
        yield made
        await made.drop()
    else:
        # it is thrown away whole, so nothing in it need survive anything
        await made.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield made


async def _template(databases: Databases, *scripts: str) -> str:
    url = await databases.make()
    connection = await asyncpg.connect(url)
    try:
        await make_tables(connection)
        for script in scripts:
            await connection.execute(script)
    finally:
        await connection.close()
    return urlsplit(url).path[1:]


@pytest.fixture(scope="session")
async def empty_template(databases: Databases) -> str:
    """A database with the tables and nothing in them."""
    return await _template(databases)


@pytest.fixture(scope="session")
async def market_template(databases: Databases) -> str:
    """A database with the small market."""
    return await _template(databases, MARKET.read_text())


@pytest.fixture
async def bare_url(databases: Databases) -> str:
    """A database with nothing in it, not even tables."""
    return await databases.make()


@pytest.fixture
async def database_url(databases: Databases, empty_template: str) -> str:
    """A database of the test's own, its tables empty."""
    return await databases.make(empty_template)


@pytest.fixture
async def market_url(databases: Databases, market_template: str) -> str:
    """A database of the test's own, with the small market in it."""
    return await databases.make(market_template)


SCHEMA = make_schema()


class Answer(dict[str, Any]):
    """The answer to a query, and the names of the statements that were sent for it."""

    statements: list[str]

    def without_locations(self) -> dict[str, Any]:
        """The answer, its errors without the lines and columns of the query."""
        errors = [{k: v for k, v in error.items() if k != "locations"} for error in self["errors"]]
        return {**self, "errors": errors}


Ask = Callable[..., Awaitable[Answer]]


def wrong_part(code: str, position: int, group: str, **choice: list[str]) -> dict[str, Any]:
    """The extensions of the error of one wrong part of a key, written without spare quotes."""
    part = {"position": position, "length": len(group), "group": group, **choice}
    return {"code": code, **part, "parts": [{"code": code, **part}]}


def asker(runtime: Runtime) -> Ask:
    """Make a function that runs a query over a runtime."""

    async def ask(query: str, **variables: Any) -> Answer:
        operation = Operation(runtime)
        result = await SCHEMA.execute(query, variable_values=variables, context_value=operation)
        answer = Answer(data=result.data)
        if result.errors:
            answer["errors"] = [error.formatted for error in result.errors]
        if result.extensions:
            answer["extensions"] = result.extensions
        answer.statements = operation.statements
        return answer

    return ask


@pytest.fixture(scope="session")
async def ask(databases: Databases, market_template: str) -> AsyncIterator[Ask]:
    """Ask a market that no test writes to; the whole answer, statements beside it."""
    async with open_runtime(Settings(database_url=await databases.make(market_template))) as runtime:
        await runtime.generations.confirmed()
        asked = asker(runtime)

        async def ask(query: str, **variables: Any) -> Answer:
            # as if nobody had asked before
            runtime.column_cache.clear()
            return await asked(query, **variables)

        yield ask


@pytest.fixture(scope="session")
async def priced_template(databases: Databases) -> str:
    """A database with the small market and its prices."""
    return await _template(databases, MARKET.read_text(), PRICES.read_text())


@pytest.fixture(scope="session")
async def priced(databases: Databases, priced_template: str) -> AsyncIterator[Ask]:
    """Ask a market with prices that no test writes to."""
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        yield asker(runtime)


@dataclass
class Live:
    """A market of the test's own: asked through a listening runtime, and written to by somebody else."""

    url: str
    runtime: Runtime
    ask: Ask
    writer: "asyncpg.Connection[asyncpg.Record]"

    async def caught_up(self) -> None:
        """Wait until all that was written is known."""
        reading = await self.runtime.database.fetch("tracking", with_generation=True)
        await seconds_until(lambda: self._knows(reading.generation))

    async def _knows(self, generation: Generation | None) -> bool:
        return self.runtime.generations.confirmed_generation("groups") == generation


@pytest.fixture
async def live(market_url: str) -> AsyncIterator[Live]:
    """A market to write to."""
    async with open_runtime(Settings(database_url=market_url)) as runtime:
        await runtime.generations.confirmed()
        writer = await asyncpg.connect(market_url)
        yield Live(market_url, runtime, asker(runtime), writer)
        await writer.close()


async def seconds_until(holds: Callable[[], Awaitable[bool]], limit: float = 15) -> float:
    """Ask again and again until something holds; how long that took."""
    start = time.monotonic()
    while not await holds():
        assert time.monotonic() - start < limit, "it never came to hold"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve an application on a free port, in a thread with a loop of its own; its address."""
    server = uvicorn.Server(uvicorn.Config(app, ws="none", **UVICORN_OPTIONS))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
async def demo_url(databases: Databases, empty_template: str) -> str:
    """A database with the demo data, which no test may write to."""
    url = await databases.make(empty_template)
    connection = await asyncpg.connect(url)
    assert [
        each
        async for each in load_groups(connection, demo_groups(), environment="DEFAULT")
        if isinstance(each, GroupRefused)
    ] == []
    await connection.close()
    return url


@pytest.fixture(scope="session")
def site_url(demo_url: str) -> Iterator[str]:
    """The address of the whole application over the demo data."""
    with serving(create_app(Settings(database_url=demo_url))) as url:
        yield url
