"""The context of one GraphQL operation: what its resolvers load with, its budget, and what its answer depends on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import strawberry

from graph.caching.data_cache import CachedValue, CacheSpec
from graph.caching.generations import ListenerMode
from graph.caching.response_cache import Validity
from graph.errors import LimitExceeded
from graph.execution.columns import ColumnCacheRoot, Dependencies
from graph.execution.consistency import ATTEMPTS, Attempt
from graph.execution.dataloaders import DataLoader, Key, Read, Row
from graph.execution.lane import CHEAP_OBJECTS, INLINE_CELLS, Turn, Work
from graph.execution.runtime import Runtime
from graph.model import ANONYMOUS, Caller, Environment, network_of
from graph.postgres.database import Connection, Generation, ReadResult
from graph.postgres.statements import FAMILIES, Family

MAX_OBJECTS = 100_000
"""Rows and list items that one operation may load."""

Value = TypeVar("Value")


class Operation:
    """State of one GraphQL operation. It is retried when its reads saw different database generations."""

    # defaults on the class, since most operations and their forks never change them
    objects = 0
    """Objects charged so far."""
    costs: tuple[int, ...] = ()
    """Objects charged for each of the keys that were loaded last."""
    day: date | None = None
    """UTC date on which alone the answer is valid; None if it does not depend on the date."""
    volatile = False
    """True if the answer shows state that changes without a change of the database."""
    stale = False
    """True if a cached value was served during an outage, without a confirmed generation."""
    _is_fork = False
    """True if its objects count towards those that are loaded for all columns."""

    caller: Caller = ANONYMOUS
    """The caller that the answer is for."""
    turn: Turn | None = None
    """Its way through the lane of dear operations; None while it executes nothing."""
    answer_bytes = 0
    """Bytes of the answer as JSON, about; 0 if it was not assembled from columns."""

    def __init__(self, runtime: Runtime, caller: Caller = ANONYMOUS, address: str = "") -> None:
        self.runtime = runtime
        self._address = address
        """The address that the request comes from."""
        if caller is not ANONYMOUS:
            self.caller = caller
        self.statements: list[str] = []
        """The names of the statements that it took part in, those of earlier attempts included."""
        self.generations: set[tuple[Family, Generation | None]] = set()
        """The generations of its reads, by family of tables."""
        self._epoch = runtime.generations.epoch
        self._attempt = Attempt(runtime, self.statements)
        self._tried = False

    def fork(self) -> "Operation":
        """Return a context that loads one column: it shares everything but its dependencies and its cost."""
        fork = object.__new__(type(self))
        fork.runtime, fork.statements, fork.generations = self.runtime, self.statements, set()
        fork.caller, fork.turn, fork._attempt, fork._is_fork = self.caller, self.turn, self._attempt, True
        return fork

    @property
    def environment(self) -> Environment:
        """The environment of groups that are named without one."""
        return self.runtime.settings.environment

    @property
    def dependencies(self) -> Dependencies:
        """Everything that was read and charged with this context."""
        costs = self.costs if sum(self.costs) == self.objects else ()
        return Dependencies(self.objects, costs, frozenset(self.generations), self.day, self.volatile, self.stale)

    def merge(self, dependencies: Dependencies, objects: int | None = None) -> None:
        """Add the dependencies of a column, and its cost, or another cost where one is given."""
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
        """The root of the column cache; None where columns must not be shared with other operations."""
        if self._attempt.has_connection or self.runtime.settings.data_cache == "off":
            return None
        return self.runtime.column_cache.root()

    def attempt(self, *, snapshot: bool) -> AbstractAsyncContextManager[Any]:
        """Begin another attempt, without what earlier ones read; in a snapshot, all statements read the same state."""
        if self._tried or snapshot:
            self._attempt = Attempt(self.runtime, self.statements, self.runtime.database.snapshot if snapshot else None)
            self._epoch = self.runtime.generations.epoch
            self.generations = set()
            self.objects, self.costs, self.day, self.volatile, self.stale = 0, (), None, False, False
        self._tried = True
        return self._attempt

    async def until_consistent(self, execute: Callable[[], Awaitable[Value]]) -> Value:
        """Return what `execute` gives in the first attempt whose reads are consistent; the last one is a snapshot."""
        generations = self.runtime.generations
        await generations.settled()
        self.turn = turn = Turn(self.runtime.lane, self.caller.key or network_of(self._address))
        try:
            for number in range(1, ATTEMPTS + 1):
                # if changes are not counted, nothing tells if two statements saw the same state
                snapshot = number == ATTEMPTS or generations.mode is ListenerMode.OFF
                async with self.attempt(snapshot=snapshot):
                    result = await execute()
                if self.is_consistent:
                    break
        finally:
            turn.end()
        return result

    async def once(self, execute: Callable[[], Awaitable[Value]]) -> Value:
        """Return what `execute` gives for a mutation: it is never repeated, and its answer never cached."""
        async with self.attempt(snapshot=False):
            self.volatile = True
            return await execute()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Run a block whose statements all go in one transaction, rolled back if the block raises."""
        outer = self._attempt
        try:
            async with Attempt(self.runtime, self.statements, self.runtime.database.transaction) as self._attempt:
                yield
        finally:
            self._attempt = outer

    def writing(self) -> AbstractAsyncContextManager[Connection]:
        """Use the connection of the transaction, alone, to write with; what is loaded after that is read in it too."""
        return self._attempt.connection()

    @property
    def is_consistent(self) -> bool:
        """Tell if all reads of this attempt, cached values included, held in the database at one moment."""
        if self._attempt.has_connection:
            return True
        if self._epoch != self.runtime.generations.epoch:
            return False
        moments = {generation for _, generation in self.generations}
        if None in moments:
            return False
        if len(moments) <= 1:
            return True
        # one state of each family, and all of them at the moment of one of the reads
        states = {(family, moment.of(family)) for family, moment in self.generations if moment}
        return len(states) == len(dict(states)) and any(
            moment and all(moment.of(family) == state for family, state in states) for moment in moments
        )

    @property
    def validity(self) -> Validity | None:
        """Conditions under which the answer is valid; None if they are unknown."""
        if self.volatile or self.stale or not self.is_consistent:
            return None
        changes: dict[Family, int] = {}
        for family, generation in self.generations:
            if generation is None:
                return None
            # they are consistent, so any generation of a family tells
            changes[family] = generation.of(family)
        return Validity(changes, self.day, self._epoch)

    def charge(self, objects: int) -> None:
        """Charge objects to the budget; raise LimitExceeded beyond it."""
        self.objects += objects
        total = self.objects
        if self._is_fork:
            # the cost of a column is charged again wherever it is used; this bounds what all columns load
            self._attempt.loaded += objects
            total = self._attempt.loaded
        if total > MAX_OBJECTS:
            raise _too_many()

    def charge_each(self, objects: Sequence[int]) -> None:
        """Charge objects for each of the keys that were loaded."""
        self.costs = tuple(objects)
        self.charge(sum(self.costs))

    @property
    def cost(self) -> dict[str, int]:
        """The cost of the operation, as the extension `cost` of its response tells it."""
        return {
            "objects": self.objects,
            "maxObjects": MAX_OBJECTS,
            "bytes": self.answer_bytes,
            "statements": len(self.statements),
        }

    async def compute(self, cells: int, function: Callable[..., Value], *arguments: Any) -> Value:
        """Return what a pure function of arrays gives; `cells` is the number of array cells that it computes.

        If they are many, it runs in the lane's thread.
        """
        if cells > INLINE_CELLS:
            return await self.run_in_lane(function, *arguments)
        await asyncio.sleep(0)  # others first: what follows blocks the event loop
        return function(*arguments)

    async def run_in_lane(self, function: Callable[..., Value], *arguments: Any, work: Work = Work.ANSWERS) -> Value:
        """Return what a function gives in a thread of the lane."""
        return await self.runtime.lane.run(work, function, *arguments)

    def admit(self, resolver: Callable[..., Any], objects: int) -> Awaitable[None] | None:
        """Return the wait for a place in the lane if resolving so many objects makes the operation a dear one.

        The cost is estimated by what the resolver has cost for an object lately.
        """
        turn = self.turn
        if turn is None:
            return None
        estimate = objects * self.runtime.costs.get(resolver, 1.0)
        # what the resolver has cost others with other arguments does not make a single field dear
        turn.objects += min(estimate, CHEAP_OBJECTS / 2) if objects == 1 else estimate
        return turn.enter() if turn.objects > CHEAP_OBJECTS else None

    def learn(self, resolver: Callable[..., Any], objects: int, cost: int) -> None:
        """Note what resolving so many objects has cost."""
        costs = self.runtime.costs
        known = costs.get(resolver, 1.0)
        costs[resolver] = known + (cost / (objects or 1) - known) / 4
        if self.turn and cost > objects * known:
            # it was dearer than it seemed, so what it loads next may have to wait
            self.turn.objects += cost - objects * known

    def utc(self, timestamp: datetime | None) -> datetime | None:
        """Convert a timestamp of the tables, which has no zone, from the zone of the settings to UTC."""
        return timestamp and timestamp.replace(tzinfo=ZoneInfo(self.runtime.settings.time_zone)).astimezone(UTC)

    async def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        """Return the rows of a statement that takes arguments and no keys."""
        rows: list[Row]
        (rows,) = await self.load_many(DataLoader(statement, shared_args=arguments), [()])
        self.charge(len(rows))
        return rows

    async def load_rows(self, statement: str, *key: Any, as_of: date | None = None) -> list[Row]:
        """Return the rows of one key, loaded in a batch with all keys that are loaded at the same time."""
        rows: list[Row]
        (rows,) = await self.load_many(DataLoader(statement, as_of), [key])
        self.charge(len(rows))
        return rows

    async def load_row(self, statement: str, *key: Any, as_of: date | None = None) -> Row | None:
        """Return the only row of a key, or None."""
        rows = await self.load_rows(statement, *key, as_of=as_of)
        return rows[0] if rows else None

    async def load_rows_many(self, statement: str, keys: list[Key], *, as_of: date | None = None) -> list[list[Row]]:
        """Return the rows of each key, in the order of the keys."""
        rows = await self.load_many(DataLoader(statement, as_of), keys)
        self.charge_each(list(map(len, rows)))
        return rows

    async def load_many(self, loader: DataLoader, keys: list[Key]) -> list[Any]:
        """Return the value of each key, in the order of the keys; nothing is charged."""
        values, generations = await self._attempt.load(loader, keys)
        family = FAMILIES[loader.statement]
        for generation in generations:
            self.generations.add((family, generation))
        return values

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Read]:
        """Read several statements from one snapshot of the database."""
        if self._attempt.has_connection:
            yield self._attempt.read
        else:
            async with self.runtime.database.snapshot() as connection:

                async def read(statement: str, *arguments: Any, **options: Any) -> ReadResult:
                    self.statements.append(statement)
                    return await self.runtime.read(statement, *arguments, **options, connection=connection)

                yield read

    async def cached_rows(
        self,
        spec: CacheSpec[Value],
        name: str,
        shape: Callable[[list[list[Row]]], Value],
        statement: str,
        keys: list[Key],
        *,
        as_of: date | None = None,
    ) -> Value:
        """Return the value that is cached under a name, or else what `shape` makes of the rows of each key."""
        attempt = self._attempt

        async def load() -> CachedValue[Value]:
            loader = DataLoader(statement, as_of)
            rows, generations = await attempt.load(loader, keys)
            if len(generations) == 1:
                (generation,) = generations
            else:
                rows, generation = await attempt.load_in_one_batch(loader, keys)
            return CachedValue(shape(rows), generation)

        return await self.cached(spec, name if as_of is None else f"{name}@{as_of}", load)

    async def cached(
        self, spec: CacheSpec[Value], name: str, load: Callable[[], Awaitable[CachedValue[Value]]]
    ) -> Value:
        """Return the value that is cached under a name, or else what `load` gives."""
        attempt = self._attempt
        cached: CachedValue[Value]
        if attempt.has_connection or self.runtime.settings.data_cache == "off":
            loading = attempt.uncached.get((spec, name))
            if loading is None:
                loading = attempt.uncached[spec, name] = asyncio.ensure_future(load())
            # one of those who wait may be cancelled without the others
            cached = await asyncio.shield(loading)
        else:
            cached = await self.runtime.data_caches[spec].get(name, load)
        if cached.stale:
            self.stale = True
        else:
            self.generations.add((spec.family, cached.generation))
        return cached.value


def _too_many() -> LimitExceeded:
    return LimitExceeded(
        f"The answer would hold more than {MAX_OBJECTS:,} objects; ask for fewer at a time with `first`."
    )


Info: TypeAlias = strawberry.Info[Operation, None]
