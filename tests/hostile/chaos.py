"""Chaos: writers, readers and disturbances of a market that several servers serve, and every answer held to its states.

Three servers of two processes each have one PostgreSQL: one caches in its memory, one in a Redis, and one polls through
pgbouncer. `run` counts the answers and returns what was wrong with any of them.
"""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from disturbances import Disturbances
from market_servers import REDIS, Redis, Server
from market_states import (
    PARTS,
)
from market_world import Report, World, now
from market_writers import Writer
from pgbouncer import PGBOUNCER, Pgbouncer

from graph.postgres.ddl import make_tables
from graph.postgres.embedded import embedded_postgres

log = logging.getLogger(__name__)

WRITERS, READERS = 3, 18
STARTING = 120.0
"""Seconds within which every server must answer at first."""
WANTED_FAULTS = 20
"""Faults after which there is nothing to be learnt from more of them."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that every user can enter, as the one that a root's PostgreSQL runs as must."""
    folder = Path(tempfile.mkdtemp(prefix="stockgraph-chaos-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def world(seed: int) -> AsyncIterator[World]:
    """A market in a PostgreSQL of its own, and the servers before it."""
    with temporary_folder() as folder, embedded_postgres(folder / "home") as url:
        made = World(folder / "home", url, seed)
        async with made.connected() as connection:
            await make_tables(connection)
            await connection.execute("CREATE TABLE chaos_commit (number int PRIMARY KEY)")
            first = {part: made.next_version() for part in PARTS}
            transaction = connection.transaction()
            await transaction.start()
            for part, version in first.items():
                await Writer(made).write_part(connection, part, version, foreign_keys=True)
            await made.commit(connection, transaction, first)
        try:
            _start_servers(made, folder)
            await made.heal(STARTING)
            yield made
        finally:
            for server in made.servers:
                server.stop()
            if made.redis:
                made.redis.process.kill()
                made.redis.process.wait()
            if made.pgbouncer:
                made.pgbouncer.kill()


def _start_servers(made: World, folder: Path) -> None:
    made.servers.append(Server("memory", DATABASE_URL=made.url))
    if REDIS:
        made.redis = Redis(folder)
        made.servers.append(Server("Redis", DATABASE_URL=made.url, CACHE_URL=made.redis.url))
    if PGBOUNCER:
        made.pgbouncer = Pgbouncer(folder, made.url)
        made.servers.append(Server("pgbouncer", DATABASE_URL=made.pgbouncer.url(made.url)))


async def run(answers: int, rounds: int, seed: int) -> Report:
    """Ask until there are so many answers, and each disturbance came so many times."""
    began, minutes = now(), 1
    async with world(seed) as made:
        disturbances = Disturbances(made)
        disturbing = asyncio.create_task(disturbances.work(rounds))
        tasks = [asyncio.create_task(made.vary()), *(asyncio.create_task(Writer(made).work()) for _ in range(WRITERS))]
        tasks += [asyncio.create_task(made.read(made.servers[each % len(made.servers)])) for each in range(READERS)]
        while (not disturbing.done() or made.report.answers < answers) and len(made.report.faults) < WANTED_FAULTS:
            await asyncio.sleep(0.2)
            await made.check()
            if now() - began > 60 * minutes:
                log.warning("after %d min %d answers, %d wrong", minutes, made.report.answers, len(made.report.faults))
                minutes += 1
            made.stopping = (
                made.report.answers >= answers
                and min(len(made.report.disturbances[each.__name__]) for each in disturbances.all) >= rounds
            )
            for task in (disturbing, *tasks):
                if task.done():
                    task.result()
        made.stopping = True
        _, late = await asyncio.wait([disturbing, *tasks], timeout=60)
        for task in late:
            task.cancel()
        await made.check()
        report = made.report
        report.faults += [
            f"{server.name} printed: {line}"
            for server in made.servers
            for line in server.printed().splitlines()
            if "Internal error" in line
        ]
        report.states, report.oldest, report.seconds = len(made.ledger.states), made.ledger.oldest, now() - began
        return report
