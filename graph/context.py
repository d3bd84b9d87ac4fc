"""What the resolvers of one operation share: batches, a budget, and agreement on the state of all they read."""

import asyncio
import math
import sys
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import asyncpg
import strawberry

from graph.answers import Answers, Moment
from graph.columns import Columns, Root, Source
from graph.database import Connection, Database, Family, Generation, Reading, family_of
from graph.errors import GraphError, LimitExceeded
from graph.frame import Frame
from graph.freshness import Freshness
from graph.keys import GroupName
from graph.memo import Memo, Remembered
from graph.settings import Settings

MAX_OBJECTS = 100_000
"""Rows and list items that one operation may resolve to."""

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = asyncpg.Record
Answer: TypeAlias = tuple[list[Row], Generation | None]
"""The rows of a key, and the generation they were read in."""
Read: TypeAlias = Callable[..., Awaitable[Reading]]
"""Sends a statement by its name, with its arguments."""
Value = TypeVar("Value")


class Holdings(NamedTuple):
    """Whom a group holds, by symbol."""

    symbols: tuple[str, ...]
    weights: "array[float]"
    """Fractions of the group; NaN where one is not known."""

    @classmethod
    def of(cls, symbols: Sequence[str], weights: Sequence[float | None]) -> "Holdings":
        """Keep members as the database gives them; what is no number is not known."""
        known = (math.nan if weight is None or math.isinf(weight) else weight for weight in weights)
        # many groups hold the same stocks
        return cls(tuple(map(sys.intern, symbols)), array("d", known))


@dataclass(frozen=True)
class Runtime:
    """What all operations of a process share."""

    settings: Settings
    database: Database
    freshness: Freshness
    directories: Memo[tuple[GroupName, ...]]
    """The groups of an environment, by its name."""
    universes: Memo[tuple[str, ...]]
    """The sorted symbols of a universe, by its canonical key written in ids."""
    holdings: Memo[tuple[Holdings, ...]]
    """The members of some groups, by their ids."""
    frames: Memo[Frame]
    """The closes of some years, by the last of them; `latest` for those that end in the last session."""
    columns: Columns
    answers: Answers
    reading_prices: asyncio.Lock
    """Held while closes are read."""


class _Batch:
    """Keys that are asked for together, and their answers when they are there."""

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}
        self.done: asyncio.Future[dict[Key, Answer]] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Tell whoever waits."""
        if isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        else:
            self.done.set_exception(error)
            self.done.exception()  # nobody may wait


class _Attempt:
    """One run of an operation: its batches, and the one snapshot it reads from if it has one."""

    def __init__(self, operation: "Operation", *, snapshot: bool) -> None:
        self._operation = operation
        self._one_at_a_time = asyncio.Lock() if snapshot else None
        self._connection: Connection | None = None
        self._failed: GraphError | None = None
        """What went wrong in the snapshot: its transaction answers nothing after that."""
        self._ended = False
        self._resources = AsyncExitStack()
        self._next: dict[tuple[str, date | None], _Batch] = {}
        """The batches that are yet to be sent."""
        self._asked: dict[tuple[str, date | None], dict[Key, _Batch]] = {}
        """Which batch each key was or will be in."""
        self._sending: set[asyncio.Future[list[Answer]]] = set()
        self.loads: dict[tuple[Memo[Any], str], asyncio.Future[Remembered[Any]]] = {}
        """What no memo may remember, and this attempt reads once all the same."""
        self.loaded = 0
        """How many objects the columns count for that were loaded."""

    @property
    def in_snapshot(self) -> bool:
        return self._one_at_a_time is not None

    async def read(self, statement: str, *arguments: Any, **options: Any) -> Reading:
        if self._one_at_a_time is None:
            return await self._operation.read(statement, *arguments, **options)
        async with self._one_at_a_time:
            if self._failed:
                raise self._failed
            try:
                if self._connection is None:
                    self._connection = await self._resources.enter_async_context(self._operation.database.snapshot())
                return await self._operation.read(statement, *arguments, **options, connection=self._connection)
            except GraphError as error:
                self._failed = error
                raise

    async def ask(
        self, statement: str, as_of: date | None, keys: Sequence[Key], *, alone: bool = False
    ) -> list[Answer]:
        """Answer keys, in one statement with all that are asked for until the event loop comes round again.

        A key is sent once, whether its answer is there, on its way, or an error. `alone` is for who knows that nobody
        else asks meanwhile.
        """
        if not keys:
            return []
        of = statement, as_of
        asked = self._asked.setdefault(of, {})
        if alone and of not in self._next and asked.keys().isdisjoint(keys):
            return await self._ask_alone(of, keys)
        waiting: set[_Batch] = set()
        for key in keys:
            batch = asked.get(key)
            if batch is None:
                batch = self._next.get(of)
                if batch is None:
                    batch = self._next[of] = _Batch()
                    asyncio.get_running_loop().call_soon(self._send, of)
                batch.keys[key] = None
                asked[key] = batch
            if not batch.done.done():
                waiting.add(batch)
        for batch in waiting:
            # shielded, since others may wait for the same rows when this one is cancelled beside an error
            await asyncio.shield(batch.done)
        return [asked[key].done.result()[key] for key in keys]

    async def _ask_alone(self, of: tuple[str, date | None], keys: Sequence[Key]) -> list[Answer]:
        batch = _Batch()
        batch.keys = dict.fromkeys(keys)
        self._asked[of] |= dict.fromkeys(keys, batch)
        try:
            answers = dict(zip(batch.keys, await self.batch(*of, list(batch.keys)), strict=True))
        except BaseException as error:
            batch.fail(error)
            raise
        batch.done.set_result(answers)
        return [answers[key] for key in keys]

    def _send(self, of: tuple[str, date | None]) -> None:
        batch = self._next.pop(of)
        if self._ended:
            batch.done.cancel()
            return
        sending = asyncio.ensure_future(self.batch(*of, list(batch.keys)))
        self._sending.add(sending)

        def finish(sent: asyncio.Future[list[Answer]]) -> None:
            self._sending.discard(sent)
            if sent.cancelled():
                batch.done.cancel()
            elif error := sent.exception():
                batch.fail(error)
            else:
                batch.done.set_result(dict(zip(batch.keys, sent.result(), strict=True)))

        sending.add_done_callback(finish)

    async def batch(self, statement: str, as_of: date | None, keys: list[Key]) -> list[Answer]:
        """Answer every key, in the order of the keys, by one statement."""
        reading = await self.read(statement, *map(list, zip(*keys, strict=True)), as_of=as_of)
        answers: list[Answer] = [([], reading.generation) for _ in keys]
        for row in reading.rows:
            answers[row["ordinal"] - 1][0].append(row)
        return answers

    async def close(self) -> None:
        """End what nobody waits for any more, and give the connection back."""
        self._ended = True
        under_way: list[asyncio.Future[Any]] = [*self.loads.values(), *self._sending]
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._resources.aclose()
        # the operation and this hold each other, and rows would stay until the collector comes
        self._asked.clear()
        self.loads.clear()


class Operation:
    """One operation; where what it read was not of one generation, it takes another attempt."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.database = runtime.database
        self.environment = runtime.settings.environment
        self.statements: list[str] = []
        """The names of the statements sent, those of earlier attempts included."""
        self._zone = ZoneInfo(runtime.settings.time_zone)
        self._attempt = _Attempt(self, snapshot=False)
        self.begin()

    def begin(self, *, as_part: bool = False) -> None:
        """Count from nothing; as a part, towards what loading all columns takes."""
        self._is_part = as_part
        self.alone = False
        """Whether nothing else is loaded meanwhile, so that no statement need wait for what could go with it."""
        self._epoch = self.runtime.freshness.epoch
        self.objects = 0
        """How many have been charged."""
        self.each: tuple[int, ...] = ()
        """How many for each of the keys that were asked for last."""
        self.seen: dict[Family, set[Generation | None]] = {"groups": set(), "prices": set()}
        """The generations of what was read."""
        self.day: date | None = None
        """The day in UTC that the answer is told on, where it rests on that."""
        self.momentary = False
        """Whether the answer tells of what changes without a change of the database."""
        self.stale = False
        """Whether a remembered value was served, during an outage, without being known to hold still."""

    def part(self) -> "Operation":
        """Give what one column is loaded with: all is shared but what is read and counted."""
        part = copy(self)
        part.begin(as_part=True)
        return part

    @property
    def source(self) -> Source:
        """What was read and counted."""
        seen = {family: frozenset(seen) for family, seen in self.seen.items() if seen}
        each = self.each if sum(self.each) == self.objects else ()
        return Source(self.objects, each, seen, self.day, self.momentary, self.stale)

    def absorb(self, source: Source, objects: int | None = None) -> None:
        """Count what a column rests on, or other objects than it counts for itself."""
        self.objects += source.objects if objects is None else objects
        if self.objects > MAX_OBJECTS:
            raise _too_many()
        for family, seen in source.seen.items():
            self.seen[family] |= seen
        self.day = min(self.day or source.day, source.day) if source.day else self.day
        self.momentary |= source.momentary
        self.stale |= source.stale

    @property
    def root(self) -> Root | None:
        """Where columns are kept for other operations; None where nothing may be."""
        if self._attempt.in_snapshot or self.runtime.settings.memo == "off":
            return None
        return self.runtime.columns.root()

    @asynccontextmanager
    async def attempt(self, *, snapshot: bool) -> AsyncIterator[None]:
        """Forget what an earlier attempt read; in a snapshot, all statements read the same state of the database."""
        self._attempt = attempt = _Attempt(self, snapshot=snapshot)
        self.begin()
        try:
            yield
        finally:
            await attempt.close()

    @property
    def agrees(self) -> bool:
        """Whether all that this attempt read, remembered values included, stood in the database at one moment."""
        if self._attempt.in_snapshot:
            return True
        if self._epoch != self.runtime.freshness.epoch:
            return False
        moments: list[Generation] = []
        states: dict[Family, set[int]] = {}
        for family, seen in self.seen.items():
            for moment in seen:
                if moment is None:
                    return False
                moments.append(moment)
                states.setdefault(family, set()).add(moment.of(family))
        # one of each family, and both at a moment that one of the readings is of
        return all(len(each) == 1 for each in states.values()) and (
            not moments or any(all(moment.of(family) in states[family] for family in states) for moment in moments)
        )

    @property
    def moment(self) -> Moment | None:
        """When the answer holds; None where nobody can tell."""
        # where all agree, whatever was seen last of a family tells
        if self.momentary or self.stale or not self.agrees:
            return None
        changes: dict[Family, int] = {}
        for family, seen in self.seen.items():
            for each in seen:
                if each is None:
                    return None
                changes[family] = each.of(family)
        return Moment(changes, self.day, self._epoch)

    def charge(self, objects: int) -> None:
        """Count objects of the answer against the budget; LimitExceeded beyond it."""
        self.objects += objects
        total = self.objects
        if self._is_part:
            # what a column counts for is counted again wherever it is used; this is what loading all of them takes
            self._attempt.loaded += objects
            total = self._attempt.loaded
        if total > MAX_OBJECTS:
            raise _too_many()

    def utc(self, timestamp: datetime | None) -> datetime | None:
        """Read a timestamp of the tables, which carries no zone, in the zone that the settings name."""
        return timestamp and timestamp.replace(tzinfo=self._zone).astimezone(UTC)

    async def read(
        self, statement: str, *arguments: Any, connection: "Connection | None" = None, **options: Any
    ) -> Reading:
        """Send a statement by its name; the options are those of `Database.fetch`."""
        self.statements.append(statement)
        freshness = self.runtime.freshness
        reading = await self.database.fetch(
            statement, *arguments, stamped=freshness.tracked, connection=connection, **options
        )
        if connection is None:
            freshness.observe(reading)
        return reading

    async def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        """Give the rows of a statement that answers one question and not many keys."""
        attempt = self._attempt
        reading = await attempt.read(statement, *arguments)
        self.seen[family_of(statement)].add(reading.generation)
        self.charge(len(reading.rows))
        return reading.rows

    async def many(self, statement: str, *key: Any, as_of: date | None = None) -> list[Row]:
        """Give a statement's rows for one key: all keys that are asked for meanwhile go with it in one batch."""
        attempt = self._attempt
        ((rows, generation),) = await attempt.ask(statement, as_of, [key], alone=self.alone)
        self.seen[family_of(statement)].add(generation)
        self.charge(len(rows))
        return rows

    async def every(self, statement: str, keys: list[Key], *, as_of: date | None = None) -> list[list[Row]]:
        """Give a statement's rows for each of some keys, in their order."""
        attempt = self._attempt
        answers = await attempt.ask(statement, as_of, keys, alone=self.alone)
        self.seen[family_of(statement)].update({generation for _, generation in answers})
        self.each = tuple([len(rows) for rows, _ in answers])
        self.charge(sum(self.each))
        return [rows for rows, _ in answers]

    async def one(self, statement: str, *key: Any, as_of: date | None = None) -> Row | None:
        """Give a statement's only row for a key, or None."""
        rows = await self.many(statement, *key, as_of=as_of)
        return rows[0] if rows else None

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Read]:
        """Let several statements be read from one state of the database."""
        if self._attempt.in_snapshot:
            yield self._attempt.read
        else:
            async with self.database.snapshot() as connection:
                yield partial(self.read, connection=connection)

    async def remember_rows(
        self,
        memo: Memo[Value],
        name: str,
        shape: Callable[[list[list[Row]]], Value],
        statement: str,
        keys: list[Key],
        *,
        as_of: date | None = None,
    ) -> Value:
        """Give what a memo remembers under a name; where it does not, what `shape` makes of the rows of each key."""
        attempt = self._attempt

        async def load() -> Remembered[Value]:
            answers = await attempt.ask(statement, as_of, keys)
            if len({generation for _, generation in answers}) > 1:
                answers = await attempt.batch(statement, as_of, keys)
            return Remembered(shape([rows for rows, _ in answers]), answers[0][1])

        return await self.remember(memo, name if as_of is None else f"{name}@{as_of}", load)

    async def remember(self, memo: Memo[Value], name: str, load: Callable[[], Awaitable[Remembered[Value]]]) -> Value:
        """Give what a memo remembers under a name, or else what `load` gives."""
        attempt = self._attempt
        if attempt.in_snapshot or self.runtime.settings.memo == "off":
            loading = attempt.loads.get((memo, name))
            if loading is None:
                loading = attempt.loads[memo, name] = asyncio.ensure_future(load())
            # who waits may go, and the others still wait
            remembered: Remembered[Value] = await asyncio.shield(loading)
        else:
            remembered = await memo.get(name, load)
        if remembered.stale:
            self.stale = True
        else:
            self.seen[memo.family].add(remembered.generation)
        return remembered.value


def _too_many() -> LimitExceeded:
    return LimitExceeded(
        f"The answer would hold more than {MAX_OBJECTS:,} objects; ask for fewer at a time with `first`."
    )


Info: TypeAlias = strawberry.Info[Operation, None]
