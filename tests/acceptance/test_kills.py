"""Whatever is killed in mid-load, and whenever: each group is wholly of one load, and nothing is in the next one's way."""

import asyncio
import fcntl
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from graph.cli.commands import main
from graph.postgres.database import Connection
from graph.postgres.embedded import embedded_postgres

SEED = int(os.environ.get("KILLS_SEED") or random.SystemRandom().getrandbits(32))
# loaded in this order, of about so many members
GROUPS = {"AAA": 150, "BBB": 50, "CCC": 200, "DDD": 1_500, "EEE": 80, "FFF": 150}
SHARED = 30
MOST = 60
"""Kills of one kind, after which none will hit in the middle."""
PATIENCE = 60
"""Seconds within which whatever is waited for must come."""

# What they run has been imported when they begin, so that any moment of a load is a moment of its work.
processes = get_context("forkserver")
log = logging.getLogger(__name__)


def day(number: int) -> date:
    return date(2020, 1, 1) + timedelta(number)


@cache
def members(group: str, number: int) -> dict[str, tuple[Decimal, str]]:
    """Weights and names of the members of a group in a load: all weights are others than in the load before and after."""
    size = GROUPS[group]
    weight = round(Decimal("0.98") / size, 8)
    held = {}
    for position in range(size * 5 // 4):
        if position < SHARED:
            symbol = name = f"S{position}"
        elif (position + number) % 5:
            symbol = f"{group}{position}"
            name = f"{symbol} of load {number}"
        else:
            continue
        held[symbol] = (weight + Decimal((37 * position + 101 * number) % 997).scaleb(-8), name)
    return held


def total(group: str, number: int) -> Decimal:
    return sum((weight for weight, _ in members(group, number).values()), Decimal(0))


def run(arguments: tuple[str, ...], variables: dict[str, str], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    printed = os.open(folder.parent / f"{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    for variable in list(os.environ):
        if variable.startswith(("STOCKGRAPH", "DATABASE", "CACHE", "PG", "PYTEST")):
            del os.environ[variable]
    os.environ.update(variables, HOME=str(folder), TMPDIR=str(folder))
    sys.argv = ["stockgraph", *arguments]
    main()


class Command:
    """The command in a process of its own, which no process that it starts may outlive but PostgreSQL's."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self._process = processes.Process(target=run, args=(arguments, variables, folder))
        self._process.start()
        self._printed = folder.parent / f"{self._process.pid}.txt"

    @property
    def lives(self) -> bool:
        return self._process.is_alive()

    @property
    def waits(self) -> bool:
        """Whether it has nothing to do but to wait for another process."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def kill(self) -> None:
        self._process.kill()

    async def ended(self) -> int:
        """Wait for its end; how it ended."""
        await asyncio.to_thread(self._process.join, PATIENCE)
        status, session = self._process.exitcode, self._process.pid
        assert status is not None, "it does not end"
        assert session is not None
        with suppress(ProcessLookupError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    os.killpg(session, 0)
                    await asyncio.sleep(0.01)
        return status

    @property
    def printed(self) -> str:
        return self._printed.read_text()


class Loads:
    """Loads, each with a number and a day of its own, that take turns with a database or a home."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.number = 0
        """Of the last one that was begun."""
        self.seconds = 0.0
        """How long the last one took that was not killed."""
        self.commands: list[Command] = []
        self._variables = variables
        self._holdings, self._cwd = folder / "holdings", folder / "cwd"
        self._holdings.mkdir()
        self._cwd.mkdir()
        self._random = random.Random(SEED)

    def run(self, *arguments: str) -> Command:
        command = Command(self._cwd, *arguments, **self._variables)
        self.commands.append(command)
        return command

    def start(self) -> Command:
        self.number += 1
        index = [f"{group},ETF,load {self.number},{day(self.number)},etf_{group}.csv\n" for group in GROUPS]
        (self._holdings / "groups.csv").write_text("name,type,description,as_of,file\n" + "".join(index))
        for group in GROUPS:
            rows = [f"{symbol},{name},{weight}\n" for symbol, (weight, name) in members(group, self.number).items()]
            (self._holdings / f"etf_{group}.csv").write_text("symbol,name,weight\n" + "".join(rows))
        return self.run("load", str(self._holdings))

    async def complete(self) -> None:
        """Load, and see it succeed."""
        began = time.monotonic()
        load = self.start()
        assert await load.ended() == 0, load.printed
        self.seconds = time.monotonic() - began

    def moment(self) -> float:
        """Seconds after the begin of a load, any up to its end."""
        return self._random.uniform(0, self.seconds)

    def left_behind(self) -> list[Path]:
        return list(self._cwd.iterdir())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that every user can enter, as the one that a root's PostgreSQL runs as must."""
    folder = Path(tempfile.mkdtemp(prefix="stockgraph-kills-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def loading(**variables: str) -> AsyncIterator[Loads]:
    """Loads into what the variables name, which has been loaded once already."""
    log.warning("KILLS_SEED=%d draws the same moments again", SEED)
    processes.set_forkserver_preload(["graph.cli.commands", "httpx2", "pytest"])
    with temporary_folder() as folder:
        loads = Loads(folder, **variables)
        try:
            # the first makes the database, and the second takes as long as the others will
            await loads.complete()
            await loads.complete()
            yield loads
        finally:
            for command in loads.commands:
                command.kill()
        assert loads.left_behind() == []


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def states(connection: Connection) -> dict[str, int]:
    """The number of the load that each group is of, now and in its history; fails where one is not wholly of one."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        groups = await connection.fetch("SELECT id, name, description, metadata FROM definition_groups")
        rows = await connection.fetch(
            "SELECT group_id, symbol, m.weight, s.name, h.weight, valid_from"
            " FROM group_memberships AS m LEFT JOIN symbols AS s USING (symbol)"
            " FULL JOIN (SELECT * FROM membership_history WHERE valid_to IS NULL) AS h USING (group_id, symbol)"
        )
    found = {}
    for group_id, group, description, metadata in groups:
        number = int(description.removeprefix("load "))
        assert json.loads(metadata) == {"as_of": str(day(number))}
        whole = {
            symbol: [weight, name, weight, day(number)] for symbol, (weight, name) in members(group, number).items()
        }
        held = {symbol: rest for row_group_id, symbol, *rest in rows if row_group_id == group_id}
        wrong = {symbol for symbol in held.keys() | whole.keys() if held.get(symbol) != whole.get(symbol)}
        assert not wrong, f"{len(wrong)} members of {group}, of {len(whole)}, are not of load {number}: {wrong}"
        found[group] = number
    assert len(rows) == sum(len(members(*of)) for of in found.items())
    return found


def is_halfway(found: dict[str, int], before: int, number: int) -> bool:
    """Whether some groups are of the load that was killed and others of the one before it; fails at any other."""
    assert found.keys() == GROUPS.keys()
    assert set(found.values()) <= {before, number}
    return len(set(found.values())) == 2


async def check_all_is_of(connection: Connection, number: int) -> None:
    assert await states(connection) == dict.fromkeys(GROUPS, number)
    # whoever is gone holds no lock and no temporary table
    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()) OR EXISTS (SELECT FROM pg_prepared_xacts)"
        ):
            await asyncio.sleep(0.01)
    assert await connection.fetch("SELECT relname FROM pg_class WHERE relpersistence <> 'p'") == []


async def check_history(connection: Connection) -> None:
    """See that each group was of one load after another, and wholly of each."""
    rows = await connection.fetch(
        "SELECT g.name, h.description, h.valid_from, h.valid_to, count(*) AS members, sum(weight) AS total"
        " FROM definition_groups AS g JOIN group_history AS h ON h.group_id = g.id JOIN membership_history AS m"
        " ON m.group_id = g.id AND m.valid_from = h.valid_from AND m.valid_to IS NOT DISTINCT FROM h.valid_to"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 3"
    )
    for group in GROUPS:
        remembered = [tuple(rest) for name, *rest in rows if name == group]
        numbers = [int(description.removeprefix("load ")) for description, *_ in remembered]
        ends = [*map(day, numbers[1:]), None]
        assert remembered == [
            (f"load {number}", day(number), end, len(members(group, number)), total(group, number))
            for number, end in zip(numbers, ends, strict=True)
        ]
    assert len(rows) == await connection.fetchval("SELECT count(*) FROM group_history")
    assert sum(row["members"] for row in rows) == await connection.fetchval("SELECT count(*) FROM membership_history")


async def test_a_killed_loader_leaves_every_group_whole(database_url: str) -> None:
    kills, halfway = 0, 0
    async with loading(DATABASE_URL=database_url) as loads, connected(database_url) as connection:
        tables = await connection.fetch("SELECT oid::regclass FROM pg_class WHERE relkind <> 't' ORDER BY 1")
        # until one of them hit in the middle, which nearly half do
        while kills < 20 or (not halfway and kills < MOST):
            before, moment, usual = loads.number, loads.moment(), loads.seconds
            load = loads.start()
            await asyncio.sleep(moment)
            load.kill()
            found = await states(connection)
            status = await load.ended()
            if status == 0:
                continue
            assert status == -signal.SIGKILL, load.printed
            log.warning("the loader was killed after %.3f of %.3f s: %s", moment, usual, found)
            kills += 1
            halfway += is_halfway(found, before, loads.number)
            await loads.complete()
            await check_all_is_of(connection, loads.number)
        await check_history(connection)
        assert await connection.fetch("SELECT oid::regclass FROM pg_class WHERE relkind <> 't' ORDER BY 1") == tables
    assert halfway > 0


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for an embedded PostgreSQL, which must leave no process and no temporary file there."""
    with temporary_folder() as folder:
        try:
            yield folder
            files = [str(path) for path in (folder / "data" / "base").rglob("*")]
            assert files
            assert [file for file in files if re.search(r"/t\d+_\d+|pgsql_tmp/", file)] == []
        finally:
            if not has_ended(folder):
                # whoever uses it last stops it
                with embedded_postgres(folder):
                    pass


def has_ended(home: Path) -> bool:
    """Whether no process of its PostgreSQL lives: each of them holds this lock."""
    with (home / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def postmaster(home: Path) -> int | None:
    """The process id of a PostgreSQL that accepts connections."""
    with suppress(FileNotFoundError):
        lines = (home / "data" / "postmaster.pid").read_text().splitlines()
        if [status.strip() for status in lines[7:]] == ["ready"]:
            return int(lines[0])
    return None


async def test_a_killed_postgresql_leaves_every_group_whole(home: Path) -> None:
    kills, halfway = 0, 0
    async with loading(STOCKGRAPH_HOME=str(home)) as loads:
        while kills < 15 or (not halfway and kills < MOST):
            before, moment, usual = loads.number, loads.moment(), loads.seconds
            load = loads.start()
            while not postmaster(home):
                assert load.lives, load.printed
                await asyncio.sleep(0.001)
            await asyncio.sleep(moment)
            if victim := load.lives and postmaster(home):
                os.kill(victim, signal.SIGKILL)
                # who else would start it again at once
                if kills % 3 == 0:
                    load.kill()
                kills += 1
            status = await load.ended()
            with embedded_postgres(home) as url:
                async with connected(url) as connection:
                    found = await states(connection)
                if victim:
                    log.warning("PostgreSQL was killed after %.3f of %.3f s (%d): %s", moment, usual, status, found)
                    halfway += is_halfway(found, before, loads.number)
                if status == 1:
                    error = load.printed.splitlines()[-1]
                    assert error == "error: The database does not answer; try again when it is back.", load.printed
                elif status == 0:
                    assert found == dict.fromkeys(GROUPS, loads.number)
                else:
                    assert status == -signal.SIGKILL, load.printed
                await loads.complete()
                async with connected(url) as connection:
                    await check_all_is_of(connection, loads.number)
            assert has_ended(home)
        with embedded_postgres(home) as url:
            async with connected(url) as connection:
                await check_history(connection)
    assert halfway > 0


async def test_a_postgresql_that_dies_while_it_is_sent_a_large_group_ends_the_load(home: Path) -> None:
    async with loading(STOCKGRAPH_HOME=str(home)) as loads:
        with temporary_folder() as folder, embedded_postgres(home) as url:
            # more than waits in buffers on the way
            rows = [f"S{position},Company {position},0.00001\n" for position in range(50_000)]
            (folder / "custom_large.csv").write_text("symbol,name,weight\n" + "".join(rows))
            async with connected(url) as connection:
                load = loads.run("load", str(folder))
                session = None
                while not session:
                    assert load.lives, load.printed
                    session = await connection.fetchval(
                        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active' AND pid <> pg_backend_pid()"
                    )
            os.kill(session, signal.SIGSTOP)
            async with asyncio.timeout(PATIENCE):
                while not load.waits:
                    await asyncio.sleep(0.01)
            for process in (postmaster(home), session):
                assert process
                os.kill(process, signal.SIGKILL)
            assert await load.ended() == 1
            error = load.printed.splitlines()[-1]
            assert error == "error: The database does not answer; try again when it is back.", load.printed
            await loads.complete()
            async with connected(url) as connection:
                await check_all_is_of(connection, loads.number)


QUERY = """
    query ($name: String!) {
        group(name: $name) {
            description
            memberCount
            totalWeight
            symbols
            members { nodes { symbol weight stock { name } } }
        }
        universe(key: $name) { symbols }
    }
"""


def load_of(group: str, answer: dict[str, Any]) -> int:
    """The number of the load that an answer is of; fails where it is not wholly of one."""
    assert "errors" not in answer, answer["errors"]
    number = int(answer["data"]["group"]["description"].removeprefix("load "))
    held = members(group, number)
    heaviest_first = sorted(held.items(), key=lambda member: (-member[1][0], member[0]))
    nodes = [
        {"symbol": symbol, "weight": float(weight), "stock": {"name": name}}
        for symbol, (weight, name) in heaviest_first
    ]
    assert answer == {
        "data": {
            "group": {
                "description": f"load {number}",
                "memberCount": len(held),
                "totalWeight": float(total(group, number)),
                "symbols": sorted(held),
                "members": {"nodes": nodes},
            },
            "universe": {"symbols": sorted(held)},
        }
    }
    return number


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


async def ask(client: httpx2.AsyncClient, groups: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The answers of a server for groups, up to its death."""
    answers = []
    with suppress(httpx2.TransportError):
        for group in groups:
            answer = await client.post("/graphql", json={"query": QUERY, "variables": {"name": group}})
            answers.append((group, answer.json()))
    return answers


async def test_a_killed_server_leaves_every_group_whole_and_tells_of_no_other(home: Path) -> None:
    kills, halfway, changes = 0, 0, 0
    async with loading(STOCKGRAPH_HOME=str(home)) as loads:
        while kills < 15 or (not (halfway and changes) and kills < MOST):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            server = loads.run("serve", "--no-demo", "--port", str(port))
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                async with asyncio.timeout(PATIENCE):
                    while not await is_ready(client):
                        assert server.lives, server.printed
                        await asyncio.sleep(0.01)
                before, moment, usual = loads.number, loads.moment(), loads.seconds
                asking = asyncio.create_task(ask(client, cycle(GROUPS)))
                began = time.monotonic()
                load = loads.start()
                await asyncio.sleep(moment)
                together = kills % 3 == 0
                kills += load.lives
                server.kill()
                if together:
                    load.kill()
                answers = await asking
            with embedded_postgres(home) as url:
                async with connected(url) as connection:
                    found = await states(connection)
                log.warning("the server was killed after %.3f of %.3f s: %s", moment, usual, found)
                halfway += is_halfway(found, before, loads.number)
                told = {load_of(*answer) for answer in answers}
                assert told <= {before, loads.number}
                changes += len(told) == 2
                assert await server.ended() == -signal.SIGKILL
                status = await load.ended()
                if status == 0:
                    loads.seconds = time.monotonic() - began
                else:
                    assert (status, together) == (-signal.SIGKILL, True), load.printed
                    await loads.complete()
                async with connected(url) as connection:
                    await check_all_is_of(connection, loads.number)
            assert has_ended(home)
        with embedded_postgres(home) as url:
            async with connected(url) as connection:
                await check_history(connection)
    assert halfway > 0
    assert changes > 0
