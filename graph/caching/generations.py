"""The generation of the database: how often it has changed, and whether that is confirmed recently enough.

The database counts its changes by family of tables (schema.sql); the counts that a snapshot shows are the generation of
everything that is read from it. A cached value is served only while its generation is the confirmed one: the statement
that confirmed it was sent less than CONFIRMED_SECONDS ago, and no change of the family has been notified since. So a
request that arrives a second after a commit sees it, whatever notification was lost.
"""

import asyncio
import logging
import random
import secrets
import time
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from operator import lt
from typing import get_args

import asyncpg
import orjson

from graph.errors import DatabaseUnavailable
from graph.postgres.database import Database, Generation, ReadResult
from graph.postgres.statements import Family

CHANNEL = "stockgraph"
CONFIRMED_SECONDS = 0.9
POLL_SECONDS = 0.25
ECHO_SECONDS = 2.0
"""Seconds until a notification to ourselves must have come back; otherwise notifications do not work here."""
SETTLE_SECONDS = 0.02
"""Seconds that an operation may wait for a notified change to be read, so that caches can serve it."""
HEARTBEAT_SECONDS = 3.0
"""Seconds that a poll may take before the connection counts as lost."""
RETRY_SECONDS = (0.05, 1.0)
"""The first and the longest wait before reconnecting, in seconds."""

_NAMED = 3
"""Tables that a reason names."""
_REASONS = {
    "filtered": "row security filters {} for this server's role; a role to which it does not apply is followed",
    "subscribed": "logical replication writes to {}, which fires no triggers; a physical standby is followed",
    "foreign": "changes of {} are made on another server and cannot be recorded",
    "unrecorded": "changes of {} are not recorded; `stockgraph init` adds what records them",
}
"""Reasons why changes are not all counted, by the columns of `tracking` with the names of the tables."""

log = logging.getLogger(__name__)


class ListenerMode(StrEnum):
    """The way in which the server learns of changes of the database."""

    NOTIFY = "NOTIFY"
    """Notifications, with polling besides."""
    POLL = "POLL"
    """Polling alone."""
    OFF = "OFF"
    """No tracking; nothing is cached."""


class GenerationTracker:
    """The confirmed generation, tracked by one listening connection and by every statement that is run."""

    def __init__(self) -> None:
        self.tracked = False
        """True if the database counts all of its changes; otherwise nothing may be cached."""
        self.generation: Generation | None = None
        """The last generation that was seen, confirmed or not."""
        self.identity = ""
        """The identity of the database; another one has other generations."""
        self.confirmed_at: datetime | None = None
        """Time of the last confirmation by the database's clock."""
        self.reconnects = -1
        """Number of times that the listening connection was reconnected; -1 before it was first connected."""
        self.epoch = 0
        """Number of times that everything cached became invalid."""
        self.rewinds = 0
        """Number of times that a generation was smaller than an earlier one: another database, or a restored one."""
        self.untracked_reason: str | None = None
        """The reason why nothing is cached, and what to do, in one line; None while changes are tracked."""
        self.behind_seconds: float | None = None
        """Seconds by which a standby lags behind its primary, at most; None if the database is no standby."""
        self._confirmed = float("-inf")
        self._received = float("-inf")
        self._layout: int | None = None
        # before the first poll nothing is tracked
        self._identified = float("inf")
        self._notified: dict[Family, float] = dict.fromkeys(get_args(Family), float("-inf"))
        self._notify_works = False
        self._polled = asyncio.Condition()
        self._listening = False

    @property
    def mode(self) -> ListenerMode:
        """The way in which the server learns of changes now."""
        if not self.tracked or self.generation is None:
            return ListenerMode.OFF
        return ListenerMode.NOTIFY if self._notify_works else ListenerMode.POLL

    def confirmed_generation(self, family: Family) -> Generation | None:
        """Return the generation whose cached values of a family may be served; None while none may."""
        if not self.tracked or self._confirmed <= self._notified[family]:
            return None
        limit = time.monotonic() - CONFIRMED_SECONDS
        return self.generation if self._confirmed > limit and self._identified > limit else None

    def observe(self, reading: ReadResult) -> None:
        """Take the generation of a statement that was run outside of a longer snapshot."""
        if reading.generation is None:
            return
        if reading.layout != self._layout:
            self._invalidate()
            if reading.sent < self._received:
                return  # it may be of the layout before
            if self._layout is not None:
                # the keys of a Redis hold the identity, which the next poll reads
                self.identity += f"+{reading.layout}"
            self._layout = reading.layout
        if self.generation is not None and any(map(lt, reading.generation, self.generation)):
            if reading.sent < self._received:
                return  # the answer of an older snapshot arrived late
            self.rewinds += 1
            self._invalidate()
        if reading.generation == self.generation:
            self._confirmed = max(self._confirmed, reading.sent)
        else:
            self.generation, self._confirmed, self._received = reading.generation, reading.sent, time.monotonic()

    def observe_snapshot(self, reading: ReadResult) -> None:
        """Take the layout of the tables from a statement of a longer snapshot, which confirms no generation."""
        if reading.generation is not None and reading.layout != self._layout:
            self._invalidate()

    def notify(self, message: object) -> bool:
        """Take a notification, and tell if something has changed; an unknown message may mean anything."""
        match message:
            case {"family": "groups" | "prices" as family}:
                self._notified[family] = time.monotonic()
            case {"family": str()}:
                return False
            case _:
                self._notified = dict.fromkeys(self._notified, time.monotonic())
        return True

    async def confirmed(self) -> None:
        """Wait until the listening connection has next read the generation."""
        async with self._polled:
            await self._polled.wait()

    async def settled(self) -> None:
        """Wait for the generation after a change that was notified, at most SETTLE_SECONDS."""
        if self.tracked and self._listening and self._confirmed <= self._notified["groups"]:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self.confirmed()

    def _invalidate(self) -> None:
        self.epoch += 1
        self.generation = None

    async def listen(self, database: Database) -> None:
        """Track the generation until cancelled, reconnecting whenever the connection is lost."""
        delay, longest = RETRY_SECONDS
        while True:
            try:
                await self._session(database)
            except (DatabaseUnavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if delay == RETRY_SECONDS[0] or self._listening:
                    reason = str(error) or "the database did not answer in time"
                    log.warning("The listening connection is lost and will be made again: %s", reason)
            if self._listening:
                self._listening = False
                delay = RETRY_SECONDS[0]
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
            delay = min(2 * delay, longest)

    async def _session(self, database: Database) -> None:
        connection = await database.connect()
        try:
            woken = asyncio.Event()
            connection.add_termination_listener(lambda _: woken.set())
            self._notify_works = await self._subscribe(database, connection, woken)
            self._invalidate()
            self.tracked = False
            while True:
                woken.clear()
                standby = self.behind_seconds is not None
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._poll(database, connection)
                if standby and self.behind_seconds is None:
                    # promoted: a standby sends no notifications
                    self._notify_works = await self._subscribe(database, connection, woken)
                if not self._listening:
                    self._listening = True
                    self.reconnects += 1
                async with self._polled:
                    self._polled.notify_all()
                with suppress(TimeoutError):
                    # not wait_for, which loses a cancellation that comes as the event does, up to Python 3.11
                    async with asyncio.timeout(POLL_SECONDS):
                        await woken.wait()
                if connection.is_closed():
                    raise DatabaseUnavailable("the database closed it")
        finally:
            connection.terminate()

    async def _subscribe(
        self, database: Database, connection: "asyncpg.Connection[asyncpg.Record]", woken: asyncio.Event
    ) -> bool:
        """Listen to the channel, and tell if notifications come back."""
        if database.pooled:
            # not tried: one may come back by chance, while the listening session serves another client a moment later
            log.warning("Notifications do not come through a connection pooler such as pgbouncer: polling instead.")
            return False
        nonce, echoed = secrets.token_hex(8), asyncio.Event()

        def notified(_: object, __: int, ___: str, payload: object) -> None:
            match _read(payload):
                case {"nonce": said}:
                    if said == nonce:
                        echoed.set()
                case message:
                    if self.notify(message):
                        woken.set()

        try:
            await connection.add_listener(CHANNEL, notified)
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, orjson.dumps({"nonce": nonce}).decode())
            async with asyncio.timeout(ECHO_SECONDS):
                await echoed.wait()
        except (TimeoutError, asyncpg.PostgresError) as error:
            log.warning("Notifications do not come through this connection (%s): polling instead.", error)
            return False
        return True

    async def _poll(self, database: Database, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        with_generation = self.tracked
        reading = await database.fetch("tracking", with_generation=with_generation, connection=connection)
        (row,) = reading.rows
        if row["identity"] != self.identity:
            self._invalidate()
            self.identity, self._layout = row["identity"], reading.layout
        reason = _untracked_reason(row)
        if reason != self.untracked_reason or self.tracked != (reason is None) or self.confirmed_at is None:
            self._invalidate()
            if reason is None:
                log.info("Changes of the database are recorded and followed.")
            else:
                log.log(logging.WARNING if row["complete"] else logging.ERROR, "%s", reason)
        self.untracked_reason, self.tracked = reason, reason is None
        self.confirmed_at, self.behind_seconds, self._identified = (
            row["database_time"],
            row["behind_seconds"],
            reading.sent,
        )
        if with_generation and self.tracked:
            if reading.generation is None:
                self._invalidate()
            self.observe(reading)
        elif self.tracked:
            await self._poll(database, connection)


def _read(payload: object) -> object:
    try:
        return orjson.loads(str(payload))
    except orjson.JSONDecodeError:
        return None


def _untracked_reason(row: asyncpg.Record) -> str | None:
    """Return the reason why changes of the database are not all counted, and what to do; None if they are."""
    if not row["complete"]:
        return "The database lacks tables; `stockgraph init` makes what is missing."
    for column, reason in _REASONS.items():
        if tables := row[column]:
            more = f" and {len(tables) - _NAMED} more" if len(tables) > _NAMED else ""
            named = reason.format(", ".join(tables[:_NAMED]) + more)
            return f"Nothing is cached, and every answer is read from the database: {named}."
    return None
