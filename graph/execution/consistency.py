"""Attempts: one run of an operation, with the keys that it loads and the snapshot or transaction that it reads in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias

from graph.caching.data_cache import CachedValue, CacheSpec
from graph.errors import DatabaseUnavailable
from graph.execution.dataloaders import Batch, BatchQueue, DataLoader, Key
from graph.execution.runtime import Runtime
from graph.postgres.database import Connection, Generation, ReadResult, translated_errors

ATTEMPTS = 3
"""Attempts at an operation whose reads saw different generations; the last one reads one snapshot."""

Generations: TypeAlias = set[Generation | None]


OpenConnection: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens a snapshot or a transaction of the database."""


class Attempt:
    """One run of an operation: the keys it has loaded, and the snapshot or transaction it reads in if it has one."""

    def __init__(self, runtime: Runtime, statements: list[str], open_connection: OpenConnection | None = None) -> None:
        self._runtime = runtime
        self._statements = statements
        """The names of the statements that the operation took part in."""
        self._open_connection = open_connection
        self._one_at_a_time = asyncio.Lock() if open_connection else None
        """Held while something uses the connection."""
        self._connection: Connection | None = None
        self._failed: Exception | None = None
        """The error of a statement on the connection: its transaction runs no other after that."""
        self._ended = False
        self._resources = AsyncExitStack() if open_connection else None
        self._batches = BatchQueue(self._read_on_connection) if open_connection else runtime.batches
        self._batch_of: dict[DataLoader, dict[Key, Batch]] = {}
        """The batch that each key is in."""
        self._subscribed: list[Batch] = []
        self.uncached: dict[tuple[CacheSpec[Any], str], asyncio.Future[CachedValue[Any]]] = {}
        """Loads of values that no cache may hold; this attempt loads each once all the same."""
        self.loaded = 0
        """Objects loaded for columns so far; none are loaded beyond the budget."""

    @property
    def has_connection(self) -> bool:
        """Tell if all statements read in one snapshot or transaction of the database."""
        return self._open_connection is not None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Use the connection of the snapshot or transaction, alone; it is opened when it is first used."""
        assert self._one_at_a_time and self._open_connection and self._resources  # noqa: S101, PT018 - made together
        async with self._one_at_a_time:
            if self._failed:
                raise self._failed
            try:
                if self._connection is None:
                    self._connection = await self._resources.enter_async_context(self._open_connection())
                with translated_errors():
                    yield self._connection
            except Exception as error:
                self._failed = error
                raise

    async def read(self, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        """Run a statement in the snapshot or transaction."""
        self._statements.append(statement)
        return await self._read_on_connection(statement, *arguments, **options)

    async def _read_on_connection(self, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        async with self.connection() as connection:
            return await self._runtime.read(statement, *arguments, **options, connection=connection)

    async def load(self, loader: DataLoader, keys: Sequence[Key]) -> tuple[list[Any], Generations]:
        """Load keys, in one statement with those that other operations load until it is sent.

        A key is loaded once, whether its value is there, in flight, or an error; and once more alone if a batch that
        was shared with other operations failed, since their keys may be to blame.
        """
        if self._ended:
            raise asyncio.CancelledError
        batch_of = self._batch_of.setdefault(loader, {})
        new = [key for key in keys if key not in batch_of] if batch_of else keys
        if new:
            self._subscribe(loader, new, self._batches.enqueue(loader, new))
        batches = {batch_of[key] for key in (keys[:1] if new is keys else keys)}
        values: dict[Key, Any] = {}
        generations: Generations = set()
        for batch in batches:
            try:
                loaded, generation = await batch.wait()
            except DatabaseUnavailable:
                raise
            except Exception:
                if not batch.shared:
                    raise
                if own := [key for key, joined in batch_of.items() if joined is batch]:
                    self._subscribe(loader, own, self._batches.enqueue_alone(loader, own))
                return await self.load(loader, keys)
            # a key may be in several batches; if those are of different generations, the caller sees it
            values = loaded if len(batches) == 1 else values | loaded
            generations.add(generation)
        return [values[key] for key in keys], generations

    async def load_in_one_batch(self, loader: DataLoader, keys: Sequence[Key]) -> tuple[list[Any], Generation | None]:
        """Load keys in one statement, so that all values are of one generation."""
        if self._ended:
            raise asyncio.CancelledError
        batch = self._batches.enqueue_alone(loader, keys)
        self._subscribe(loader, keys, batch)
        values, generation = await batch.wait()
        return [values[key] for key in keys], generation

    def _subscribe(self, loader: DataLoader, keys: Sequence[Key], batch: Batch) -> None:
        self._batch_of[loader] |= dict.fromkeys(keys, batch)
        if batch.subscribe(self):
            self._subscribed.append(batch)
            self._statements.append(loader.statement)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel the loads that nobody else waits for, and give the connection back."""
        self._ended = True
        if loads := list(self.uncached.values()):
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        for batch in self._subscribed:
            batch.unsubscribe(self)
        if self._resources:
            await self._batches.close()
        # tasks refer to this and it to them: without clearing, rows would stay until the garbage collector runs
        self._batch_of.clear()
        self._subscribed.clear()
        self.uncached.clear()
        if self._resources:
            # last, since a commit may raise
            await self._resources.__aexit__(kind, error, traceback)
