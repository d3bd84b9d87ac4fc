"""What the resolvers of one operation share: batches, a budget, and agreement on the state of all they read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import strawberry

from graph.caching.data_cache import CachedValue, DataCache
from graph.caching.generations import GenerationTracker
from graph.caching.response_cache import ResponseCache, Validity
from graph.errors import DatabaseUnavailable, LimitExceeded
from graph.execution.columns import ColumnCache, ColumnCacheRoot, Dependencies
from graph.execution.dataloaders import Batch, BatchQueue, DataLoader, Key, Read, Row
from graph.model import Environment, GroupName, Holdings
from graph.postgres.database import Connection, Database, Generation, ReadResult
from graph.postgres.statements import FAMILIES, Family
from graph.settings import Settings

MAX_OBJECTS = 100_000
"""Rows and list items that one operation may resolve to."""

Value = TypeVar("Value")
Generations: TypeAlias = set[Generation | None]


@dataclass(frozen=True)
class Runtime:
    """What all operations of a process share."""

    settings: Settings
    database: Database
    generations: GenerationTracker
    directories: DataCache[tuple[GroupName, ...]]
    """The groups of an environment, by its name."""
    universes: DataCache[tuple[str, ...]]
    """The sorted symbols of a universe, by its canonical key written in ids."""
    holdings: DataCache[tuple[Holdings, ...]]
    """The members of some groups, by their ids."""
    frames: DataCache[Any]
    """The closes of some years, by the last of them; `latest` for those that end in the last session."""
    columns: ColumnCache
    answers: ResponseCache
    reading_prices: asyncio.Lock
    """StockGroups while closes are read."""

    @cached_property
    def batches(self) -> BatchQueue:
        """What operations ask for together."""
        return BatchQueue(self.read)

    async def read(
        self, statement: str, *arguments: Any, connection: "Connection | None" = None, **options: Any
    ) -> ReadResult:
        """Send a statement by its name; the options are those of `Database.fetch`."""
        reading = await self.database.fetch(
            statement, *arguments, with_generation=self.generations.tracked, connection=connection, **options
        )
        if connection is None:
            self.generations.observe(reading)
        return reading


class Attempt:
    """One run of an operation: what it asked, and the one snapshot it reads from if it has one."""

    def __init__(self, runtime: Runtime, statements: list[str], *, snapshot: bool) -> None:
        self._runtime = runtime
        self._statements = statements
        """The names of those that the operation took part in."""
        self._one_at_a_time = asyncio.Lock() if snapshot else None
        self._connection: Connection | None = None
        self._failed: Exception | None = None
        """What went wrong in the snapshot: its transaction answers nothing after that."""
        self._ended = False
        self._resources = AsyncExitStack() if snapshot else None
        self._batches = BatchQueue(self._read_in_snapshot) if snapshot else runtime.batches
        self._asked: dict[DataLoader, dict[Key, Batch]] = {}
        """Which batch each key was or will be in."""
        self._entered: list[Batch] = []
        self.loads: dict[tuple[DataCache[Any], str], asyncio.Future[CachedValue[Any]]] = {}
        """What no memo may remember, and this attempt reads once all the same."""
        self.loaded = 0
        """How many objects the columns count for that were loaded: once it is beyond the budget, no more is loaded."""

    @property
    def in_snapshot(self) -> bool:
        return self._one_at_a_time is not None

    async def read(self, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        """Send a statement in the snapshot."""
        self._statements.append(statement)
        return await self._read_in_snapshot(statement, *arguments, **options)

    async def _read_in_snapshot(self, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        assert self._one_at_a_time and self._resources  # noqa: S101, PT018 - made with it
        async with self._one_at_a_time:
            if self._failed:
                raise self._failed
            try:
                if self._connection is None:
                    self._connection = await self._resources.enter_async_context(self._runtime.database.snapshot())
                return await self._runtime.read(statement, *arguments, **options, connection=self._connection)
            except Exception as error:
                self._failed = error
                raise

    async def ask(self, question: DataLoader, keys: Sequence[Key]) -> tuple[list[Any], Generations]:
        """Answer keys, in one statement with all that operations ask for until it is sent.

        A key is asked for once, whether its answer is there, on its way, or an error; and once more alone where others'
        keys may be what went wrong.
        """
        if self._ended:
            raise asyncio.CancelledError
        asked = self._asked.setdefault(question, {})
        new = [key for key in keys if key not in asked] if asked else keys
        if new:
            self._subscribe(question, new, self._batches.enqueue(question, new))
        batches = {asked[key] for key in (keys[:1] if new is keys else keys)}
        answers: dict[Key, Any] = {}
        generations: Generations = set()
        for batch in batches:
            try:
                of, generation = await batch.wait()
            except DatabaseUnavailable:
                raise
            except Exception:
                if not batch.shared:
                    raise
                if mine := [key for key, joined in asked.items() if joined is batch]:
                    self._subscribe(question, mine, self._batches.enqueue_alone(question, mine))
                return await self.ask(question, keys)
            # a key may be in several; where they are of other generations than each other, that is told
            answers = of if len(batches) == 1 else answers | of
            generations.add(generation)
        return [answers[key] for key in keys], generations

    async def load_in_one_batch(self, question: DataLoader, keys: Sequence[Key]) -> tuple[list[Any], Generation | None]:
        """Answer keys in one statement, so that all is of one generation."""
        if self._ended:
            raise asyncio.CancelledError
        batch = self._batches.enqueue_alone(question, keys)
        self._subscribe(question, keys, batch)
        answers, generation = await batch.wait()
        return [answers[key] for key in keys], generation

    def _subscribe(self, question: DataLoader, keys: Sequence[Key], batch: Batch) -> None:
        self._asked[question] |= dict.fromkeys(keys, batch)
        if batch.subscribe(self):
            self._entered.append(batch)
            self._statements.append(question.statement)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        """End what nobody waits for any more, and give the connection back."""
        self._ended = True
        if loads := list(self.loads.values()):
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        for batch in self._entered:
            batch.unsubscribe(self)
        if self._resources:
            await self._batches.close()
            await self._resources.aclose()
        # tasks hold this, and it them: rows would stay until the collector comes
        self._asked.clear()
        self._entered.clear()
        self.loads.clear()


class Operation:
    """One operation; where what it read was not of one generation, it takes another attempt."""

    # what most operations and their parts leave so
    objects = 0
    """How many have been charged."""
    costs: tuple[int, ...] = ()
    """How many for each of the keys that were asked for last."""
    day: date | None = None
    """The day in UTC that the answer is told on, where it rests on that."""
    volatile = False
    """Whether the answer tells of what changes without a change of the database."""
    stale = False
    """Whether a remembered value was served, during an outage, without being known to hold still."""
    _is_part = False
    """Whether it counts towards what loading all columns takes."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.statements: list[str] = []
        """The names of the statements that it took part in, those of earlier attempts included."""
        self.generations: set[tuple[Family, Generation | None]] = set()
        """The generations of what was read."""
        self._epoch = runtime.generations.epoch
        self._attempt = Attempt(runtime, self.statements, snapshot=False)
        self._tried = False

    def fork(self) -> "Operation":
        """Give what one column is loaded with: all is shared but what is read and counted."""
        part = Operation.__new__(Operation)
        part.runtime, part.statements, part.generations = self.runtime, self.statements, set()
        part._attempt, part._is_part = self._attempt, True  # noqa: SLF001 - of the same class
        return part

    @property
    def environment(self) -> Environment:
        """The environment whose groups are meant where none is named."""
        return self.runtime.settings.environment

    @property
    def dependencies(self) -> Dependencies:
        """What was read and counted."""
        each = self.costs if sum(self.costs) == self.objects else ()
        return Dependencies(self.objects, each, frozenset(self.generations), self.day, self.volatile, self.stale)

    def merge(self, dependencies: Dependencies, objects: int | None = None) -> None:
        """Count what a column rests on, or other objects than it counts for itself."""
        self.objects += dependencies.objects if objects is None else objects
        if self.objects > MAX_OBJECTS:
            raise _too_many()
        self.generations |= dependencies.generations
        if dependencies.day:
            self.day = min(self.day or dependencies.day, dependencies.day)
        self.volatile |= dependencies.volatile
        self.stale |= dependencies.stale

    @property
    def root(self) -> ColumnCacheRoot | None:
        """Where columns are kept for other operations; None where nothing may be."""
        if self._attempt.in_snapshot or self.runtime.settings.memo == "off":
            return None
        return self.runtime.columns.root()

    def attempt(self, *, snapshot: bool) -> AbstractAsyncContextManager[None]:
        """Forget what an earlier attempt read; in a snapshot, all statements read the same state of the database."""
        if self._tried or snapshot:
            self._attempt = Attempt(self.runtime, self.statements, snapshot=snapshot)
            self._epoch = self.runtime.generations.epoch
            self.generations = set()
            self.objects, self.costs, self.day, self.volatile, self.stale = 0, (), None, False, False
        self._tried = True
        return self._attempt

    @property
    def agrees(self) -> bool:
        """Whether all that this attempt read, remembered values included, stood in the database at one moment."""
        if self._attempt.in_snapshot:
            return True
        if self._epoch != self.runtime.generations.epoch:
            return False
        moments = {moment for _, moment in self.generations}
        if None in moments:
            return False
        if len(moments) <= 1:
            return True
        # one state of each family, and both at a moment that one of the readings is of
        states = {(family, moment.of(family)) for family, moment in self.generations if moment}
        return len(states) == len(dict(states)) and any(
            moment and all(moment.of(family) == state for family, state in states) for moment in moments
        )

    @property
    def validity(self) -> Validity | None:
        """When the answer holds; None where nobody can tell."""
        # where all agree, whatever was seen last of a family tells
        if self.volatile or self.stale or not self.agrees:
            return None
        changes: dict[Family, int] = {}
        for family, moment in self.generations:
            if moment is None:
                return None
            changes[family] = moment.of(family)
        return Validity(changes, self.day, self._epoch)

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
        self.costs = tuple(objects)
        self.charge(sum(self.costs))

    def utc(self, timestamp: datetime | None) -> datetime | None:
        """Read a timestamp of the tables, which carries no zone, in the zone that the settings name."""
        return timestamp and timestamp.replace(tzinfo=ZoneInfo(self.runtime.settings.time_zone)).astimezone(UTC)

    async def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        """Give the rows of a statement that answers one question and not many keys."""
        rows: list[Row]
        (rows,) = await self.load_many(DataLoader(statement, shared_args=arguments), [()])
        self.charge(len(rows))
        return rows

    async def many(self, statement: str, *key: Any, as_of: date | None = None) -> list[Row]:
        """Give a statement's rows for one key: all keys that are asked for meanwhile go with it in one batch."""
        rows: list[Row]
        (rows,) = await self.load_many(DataLoader(statement, as_of), [key])
        self.charge(len(rows))
        return rows

    async def one(self, statement: str, *key: Any, as_of: date | None = None) -> Row | None:
        """Give a statement's only row for a key, or None."""
        rows = await self.many(statement, *key, as_of=as_of)
        return rows[0] if rows else None

    async def every(self, statement: str, keys: list[Key], *, as_of: date | None = None) -> list[list[Row]]:
        """Give a statement's rows for each of some keys, in their order."""
        answers = await self.load_many(DataLoader(statement, as_of), keys)
        self.charge_each(list(map(len, answers)))
        return answers

    async def load_many(self, question: DataLoader, keys: list[Key]) -> list[Any]:
        """Give what a question gives for each of some keys, in their order, charging nothing."""
        answers, generations = await self._attempt.ask(question, keys)
        family = FAMILIES[question.statement]
        for generation in generations:
            self.generations.add((family, generation))
        return answers

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Read]:
        """Let several statements be read from one state of the database."""
        if self._attempt.in_snapshot:
            yield self._attempt.read
        else:
            async with self.runtime.database.snapshot() as connection:

                async def read(statement: str, *arguments: Any, **options: Any) -> ReadResult:
                    self.statements.append(statement)
                    return await self.runtime.read(statement, *arguments, **options, connection=connection)

                yield read

    async def cached_rows(
        self,
        memo: DataCache[Value],
        name: str,
        shape: Callable[[list[list[Row]]], Value],
        statement: str,
        keys: list[Key],
        *,
        as_of: date | None = None,
    ) -> Value:
        """Give what a memo remembers under a name; where it does not, what `shape` makes of the rows of each key."""
        attempt = self._attempt

        async def load() -> CachedValue[Value]:
            question = DataLoader(statement, as_of)
            answers, generations = await attempt.ask(question, keys)
            if len(generations) == 1:
                (generation,) = generations
            else:
                answers, generation = await attempt.load_in_one_batch(question, keys)
            return CachedValue(shape(answers), generation)

        return await self.remember(memo, name if as_of is None else f"{name}@{as_of}", load)

    async def remember(
        self, memo: DataCache[Value], name: str, load: Callable[[], Awaitable[CachedValue[Value]]]
    ) -> Value:
        """Give what a memo remembers under a name, or else what `load` gives."""
        attempt = self._attempt
        if attempt.in_snapshot or self.runtime.settings.memo == "off":
            loading = attempt.loads.get((memo, name))
            if loading is None:
                loading = attempt.loads[memo, name] = asyncio.ensure_future(load())
            # who waits may go, and the others still wait
            remembered: CachedValue[Value] = await asyncio.shield(loading)
        else:
            remembered = await memo.get(name, load)
        if remembered.stale:
            self.stale = True
        else:
            self.generations.add((memo.family, remembered.generation))
        return remembered.value


def _too_many() -> LimitExceeded:
    return LimitExceeded(
        f"The answer would hold more than {MAX_OBJECTS:,} objects; ask for fewer at a time with `first`."
    )


Info: TypeAlias = strawberry.Info[Operation, None]
