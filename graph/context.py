"""What the resolvers of one operation share: batches, a budget, and agreement on the state of all they read."""

import asyncio
import math
import sys
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import strawberry

from graph.answers import Answers, Moment
from graph.batches import Answer, Batch, Batches, Key, Question, Read, Row
from graph.columns import Columns, Root, Source
from graph.database import Connection, Database, Family, Generation, Reading, family_of
from graph.errors import DatabaseUnavailable, LimitExceeded
from graph.frame import Frame
from graph.freshness import Freshness
from graph.keys import GroupName
from graph.memo import Memo, Remembered
from graph.settings import Settings

MAX_OBJECTS = 100_000
"""Rows and list items that one operation may resolve to."""

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

    @cached_property
    def batches(self) -> Batches:
        """What operations ask for together."""
        return Batches(self.read)

    async def read(
        self, statement: str, *arguments: Any, connection: "Connection | None" = None, **options: Any
    ) -> Reading:
        """Send a statement by its name; the options are those of `Database.fetch`."""
        reading = await self.database.fetch(
            statement, *arguments, stamped=self.freshness.tracked, connection=connection, **options
        )
        if connection is None:
            self.freshness.observe(reading)
        return reading


class _Attempt:
    """One run of an operation: what it asked, and the one snapshot it reads from if it has one."""

    def __init__(self, operation: "Operation", *, snapshot: bool) -> None:
        self._operation = operation
        self._one_at_a_time = asyncio.Lock() if snapshot else None
        self._connection: Connection | None = None
        self._failed: Exception | None = None
        """What went wrong in the snapshot: its transaction answers nothing after that."""
        self._ended = False
        self._resources = AsyncExitStack() if snapshot else None
        self._batches = Batches(self._read_in_snapshot) if snapshot else operation.runtime.batches
        self._asked: dict[Question, dict[Key, Batch]] = {}
        """Which batch each key was or will be in."""
        self._entered: list[Batch] = []
        self.loads: dict[tuple[Memo[Any], str], asyncio.Future[Remembered[Any]]] = {}
        """What no memo may remember, and this attempt reads once all the same."""
        self.loaded = 0
        """How many objects the columns count for that were loaded."""

    @property
    def in_snapshot(self) -> bool:
        return self._one_at_a_time is not None

    async def read(self, statement: str, *arguments: Any, **options: Any) -> Reading:
        """Send a statement in the snapshot."""
        self._operation.statements.append(statement)
        return await self._read_in_snapshot(statement, *arguments, **options)

    async def _read_in_snapshot(self, statement: str, *arguments: Any, **options: Any) -> Reading:
        assert self._one_at_a_time and self._resources  # noqa: S101, PT018 - made with it
        async with self._one_at_a_time:
            if self._failed:
                raise self._failed
            runtime = self._operation.runtime
            try:
                if self._connection is None:
                    self._connection = await self._resources.enter_async_context(runtime.database.snapshot())
                return await runtime.read(statement, *arguments, **options, connection=self._connection)
            except Exception as error:
                self._failed = error
                raise

    async def ask(self, question: Question, keys: Sequence[Key]) -> list[Answer]:
        """Answer keys, in one statement with all that operations ask for until it is sent.

        A key is asked for once, whether its answer is there, on its way, or an error; and once more alone where others'
        keys may be what went wrong.
        """
        if self._ended:
            raise asyncio.CancelledError
        asked = self._asked.setdefault(question, {})
        new = [key for key in keys if key not in asked] if asked else keys
        if new:
            self._note(question, new, self._batches.join(question, new))
        for batch in {asked[key] for key in keys} if len(new) < len(keys) else {asked[key] for key in keys[:1]}:
            try:
                # who waits may go, and others still wait
                await asyncio.shield(batch.answers)
            except DatabaseUnavailable:
                raise
            except Exception:
                if not batch.shared:
                    raise
                if mine := [key for key, of in asked.items() if of is batch]:
                    self._note(question, mine, self._batches.alone(question, mine))
                return await self.ask(question, keys)
        return [asked[key].answers.result()[key] for key in keys]

    async def ask_together(self, question: Question, keys: Sequence[Key]) -> list[Answer]:
        """Answer keys in one statement, so that all is of one generation."""
        if self._ended:
            raise asyncio.CancelledError
        batch = self._batches.alone(question, keys)
        self._note(question, keys, batch)
        answers = await asyncio.shield(batch.answers)
        return [answers[key] for key in keys]

    def _note(self, question: Question, keys: Sequence[Key], batch: Batch) -> None:
        self._asked[question] |= dict.fromkeys(keys, batch)
        if batch.enter(self):
            self._entered.append(batch)
            self._operation.statements.append(question.statement)

    async def close(self) -> None:
        """End what nobody waits for any more, and give the connection back."""
        self._ended = True
        if loads := list(self.loads.values()):
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        for batch in self._entered:
            batch.leave(self)
        if self._resources:
            await self._batches.close()
            await self._resources.aclose()
        # the operation and this hold each other, and rows would stay until the collector comes
        self._asked.clear()
        self._entered.clear()
        self.loads.clear()


class Operation:
    """One operation; where what it read was not of one generation, it takes another attempt."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.database = runtime.database
        self.environment = runtime.settings.environment
        self.statements: list[str] = []
        """The names of the statements that it took part in, those of earlier attempts included."""
        self._zone = ZoneInfo(runtime.settings.time_zone)
        self._attempt = _Attempt(self, snapshot=False)
        self._tried = False
        self.begin()

    def begin(self, *, as_part: bool = False) -> None:
        """Count from nothing; as a part, towards what loading all columns takes."""
        self._is_part = as_part
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
        # as `copy` does, which takes its time
        part = Operation.__new__(Operation)
        part.__dict__.update(self.__dict__)
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
        if self._tried or snapshot:
            self._attempt = _Attempt(self, snapshot=snapshot)
            self.begin()
        self._tried = True
        attempt = self._attempt
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
        groups, prices = self.seen["groups"], self.seen["prices"]
        moments = groups | prices
        if None in moments:
            return False
        if len(moments) <= 1:
            return True
        # one state of each family, and both at a moment that one of the readings is of
        states = {moment and moment.groups for moment in groups}, {moment and moment.prices for moment in prices}
        return all(len(each) <= 1 for each in states) and any(
            moment and {moment.groups} >= states[0] and {moment.prices} >= states[1] for moment in moments
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

    def charge_each(self, objects: Sequence[int]) -> None:
        """Count objects for each of the keys that were asked for."""
        self.each = tuple(objects)
        self.charge(sum(self.each))

    def utc(self, timestamp: datetime | None) -> datetime | None:
        """Read a timestamp of the tables, which carries no zone, in the zone that the settings name."""
        return timestamp and timestamp.replace(tzinfo=self._zone).astimezone(UTC)

    async def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        """Give the rows of a statement that answers one question and not many keys."""
        rows: list[Row]
        (rows,) = await self.each_of(Question(statement, same=arguments), [()])
        self.charge(len(rows))
        return rows

    async def many(self, statement: str, *key: Any, as_of: date | None = None) -> list[Row]:
        """Give a statement's rows for one key: all keys that are asked for meanwhile go with it in one batch."""
        rows: list[Row]
        (rows,) = await self.each_of(Question(statement, as_of), [key])
        self.charge(len(rows))
        return rows

    async def every(self, statement: str, keys: list[Key], *, as_of: date | None = None) -> list[list[Row]]:
        """Give a statement's rows for each of some keys, in their order."""
        answers = await self.each_of(Question(statement, as_of), keys)
        self.charge_each(list(map(len, answers)))
        return answers

    async def each_of(self, question: Question, keys: list[Key]) -> list[Any]:
        """Give what a question gives for each of some keys, in their order, charging nothing."""
        answers = await self._attempt.ask(question, keys)
        self.seen[family_of(question.statement)].update({generation for _, generation in answers})
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

                async def read(statement: str, *arguments: Any, **options: Any) -> Reading:
                    self.statements.append(statement)
                    return await self.runtime.read(statement, *arguments, **options, connection=connection)

                yield read

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
            question = Question(statement, as_of)
            answers = await attempt.ask(question, keys)
            if len({generation for _, generation in answers}) > 1:
                answers = await attempt.ask_together(question, keys)
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
