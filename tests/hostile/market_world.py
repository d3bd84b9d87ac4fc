"""The world of a market: its PostgreSQL, the servers before it, what they answered, and a report."""

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg
import asyncpg.transaction
import orjson
from market_servers import Redis, Server
from market_states import (
    PARTS,
    QUESTIONS,
    Ledger,
    Versions,
)
from pgbouncer import Pgbouncer

log = logging.getLogger(__name__)

THINKING = 0.04
"""Seconds that a reader waits between two questions, on average."""
HEALING = 30.0
"""Seconds after a disturbance within which every server must answer again."""

Connection = asyncpg.Connection
CONNECTION_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What whoever has a connection to the database must be prepared for."""
now = time.monotonic


@dataclass
class Report:
    """What came of a run."""

    seed: int
    answers: int = 0
    by_server: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Answers without data, by their codes, and connections that broke."""
    faults: list[str] = field(default_factory=list)
    states: int = 0
    oldest: float = 0.0
    writes: Counter[str] = field(default_factory=Counter)
    disturbances: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds after each disturbance, by its name, until all servers answered again."""
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.answers:,} answers {dict(self.by_server)} held to {self.states:,} states in {self.seconds:.0f} s,"
            f" seed {self.seed}: {len(self.faults)} wrong, the oldest {self.oldest:.2f} s old\n"
            f"refused: {dict(self.refused)}\n"
            f"writes: {dict(self.writes.most_common())}\n"
            "disturbances, and the longest seconds until all answered: "
            + ", ".join(f"{len(times)} {name} ({max(times):.1f})" for name, times in self.disturbances.items())
        )


class Told(NamedTuple):
    """An answer, the question's number, and the moments of both."""

    server: str
    number: int
    asked: float
    answered: float
    answer: object


class World:
    """A PostgreSQL, the servers before it, and what happens to them."""

    def __init__(self, home: Path, url: str, seed: int) -> None:
        self.home, self.url = home, url
        self.rng = random.Random(seed)
        self.report = Report(seed)
        self.ledger = Ledger()
        self.part_locks = {part: asyncio.Lock() for part in PARTS}
        self.commits = asyncio.Lock()
        """Held while a commit is under way, or it is not known whether it happened."""
        self.told: deque[Told] = deque()
        self.stopping = False
        self.began = now()
        self.asking: Sequence[int] = range(len(QUESTIONS))
        """Numbers of the questions that are asked at present."""
        self.present = ""
        """The disturbance that was begun last."""
        self.servers: list[Server] = []
        self.redis: Redis | None = None
        self.pgbouncer: Pgbouncer | None = None
        self._version = 0

    def next_version(self) -> int:
        self._version += 1
        return self._version

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Connection[asyncpg.Record]"]:
        """Connect to the database itself, as soon as it lets anybody in."""
        while True:
            with suppress(asyncpg.PostgresError, OSError):
                connection = await asyncpg.connect(
                    self.url, timeout=5, command_timeout=30, server_settings={"application_name": "chaos"}
                )
                break
            await asyncio.sleep(0.02)
        try:
            yield connection
        finally:
            connection.terminate()

    async def commit(
        self,
        connection: "Connection[asyncpg.Record]",
        transaction: asyncpg.transaction.Transaction,
        written: Versions,
    ) -> None:
        """Commit what was written, and enter it."""
        # not the id of the transaction, which another may have after a crash
        number, pid = max(written.values()), connection.get_server_pid()
        await connection.execute("INSERT INTO chaos_commit VALUES ($1)", number)
        async with self.commits:
            sent = now()
            try:
                await transaction.commit()
            except CONNECTION_ERRORS:
                known = now()
                connection.terminate()  # or the transaction may stay open
                if not await self._has_committed(number, pid):
                    raise
            else:
                known = now()
            state = {**self.ledger.states[-1], **written} if self.ledger.states else written
            self.ledger.enter(state, sent, known)

    async def _has_committed(self, number: int, pid: int) -> bool:
        """Wait for the end of a session whose connection was lost; whether its transaction was committed."""
        while True:
            with suppress(*CONNECTION_ERRORS):
                async with self.connected() as connection:
                    lives = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
                    if not await connection.fetchval(lives, pid):
                        found = "SELECT EXISTS (SELECT FROM chaos_commit WHERE number = $1)"
                        return bool(await connection.fetchval(found, number))
            await asyncio.sleep(0.02)

    async def vary(self) -> None:
        """Have all questions asked, and now and then two alone for a while.

        Then all answers come from the response cache, so that no statement of theirs tells a server of a change.
        """
        rng = random.Random(self.rng.random())
        while not self.stopping:
            self.asking = range(len(QUESTIONS))
            await asyncio.sleep(rng.uniform(1, 3))
            self.asking = rng.sample(self.asking, 2)
            await asyncio.sleep(rng.uniform(2, 5))

    async def read(self, server: Server) -> None:
        """Ask one question after the other, on connections that are made anew now and then."""
        rng = random.Random(self.rng.random())
        while not self.stopping:
            try:
                stream, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except OSError:
                self.report.refused["no connection"] += 1
                await asyncio.sleep(0.1)
                continue
            try:
                async with asyncio.timeout(60):
                    for _ in range(rng.randint(1, 100)):
                        self.told.append(await self._ask(server.name, rng, stream, writer))
                        await asyncio.sleep(rng.expovariate(1 / THINKING))
                        if self.stopping:
                            break
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.report.refused[type(error).__name__] += 1
            finally:
                writer.close()

    async def _ask(
        self, server: str, rng: random.Random, stream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Told:
        number = rng.choice(self.asking)
        text = QUESTIONS[number].asked_today()
        # what the response cache has not seen, though columns may be cached
        if len(self.asking) == len(QUESTIONS) and rng.random() < 0.4:
            text += f"#{rng.randrange(1_000_000)}"
        body = orjson.dumps({"query": text})
        head = "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        asked = now()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer_head = (await stream.readuntil(b"\r\n\r\n")).lower()
        length = int(answer_head.split(b"content-length: ")[1].split()[0])
        answer = orjson.loads(await stream.readexactly(length))
        answered = now()
        if "errors" in answer:
            return Told(server, number, asked, answered, answer["errors"][0]["extensions"]["code"])
        return Told(server, number, asked, answered, answer["data"])

    async def check(self) -> None:
        """Hold the answers that came before now against the states, once all of these are known."""
        async with self.commits:
            until_now = len(self.told)
        report = self.report
        for done in range(until_now):
            server, number, asked, answered, answer = self.told.popleft()
            fault = self.ledger.fault(number, asked, answered, answer)
            if fault and answer == "DATABASE_UNAVAILABLE":
                report.refused[answer] += 1
                continue
            report.answers += 1
            report.by_server[server] += 1
            if fault:
                during = f"{server}, {asked - self.began:.2f} to {answered - self.began:.2f} s, during {self.present}"
                report.faults.append(f"{during}: {fault}: {QUESTIONS[number].text} -> {str(answer)[:300]}")
                log.warning("%s", report.faults[-1])
            if done % 100 == 99:
                await asyncio.sleep(0)

    async def heal(self, limit: float = HEALING) -> float:
        """Wait until every server answers; the seconds that this took."""
        began = now()
        rng = random.Random(self.rng.random())
        for server in self.servers:
            answers = False
            while not answers:
                if now() - began > limit:
                    self.report.faults.append(f"{server.name} does not answer: {server.printed()[-2000:]}")
                    break
                with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    stream, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    try:
                        async with asyncio.timeout(5):
                            told = await self._ask(server.name, rng, stream, writer)
                    finally:
                        writer.close()
                    answers = told.answer != "DATABASE_UNAVAILABLE"
                await asyncio.sleep(0 if answers else 0.05)
        return now() - began
