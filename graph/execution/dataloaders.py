"""DataLoaders: keys that are loaded at the same time go to the database in one statement.

A `DataLoader` names a statement and what all keys have in common; a `BatchQueue` collects the keys. Of the contract of
DataLoader, as graphql/dataloader states it, this keeps:

- a key is sent once per batch, however often it was loaded;
- the values come in the order of the keys, and a key without rows has a value too (`group_rows` makes it);
- a key is loaded once per attempt of an operation, also where its load failed: an error is not cached beyond that;
- a batch is sent as soon as all that is ready to load has loaded: when the event loop has come round twice.

It differs in one thing: batches are shared between operations, so that requests that arrive together cost one
statement. Each of them gets what was read after it loaded, and if a shared batch fails, each loads its own keys again.

Strawberry's DataLoader makes a future per key, which costs twelve times the CPU on a query of 500 members, and one that
takes all keys of a request as a single key costs small queries 5 to 20 percent more. Here a future stands for a batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from graph.postgres.database import Generation, ReadResult
from graph.telemetry import Observer

MAX_KEYS = 500
"""Keys of a shared batch, so that an operation that loads few keys need not wait long for one that loads many.

A single operation may load more; then only those that load some of the same keys join it.
"""

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = asyncpg.Record
Read: TypeAlias = Callable[..., Awaitable[ReadResult]]
"""Runs a statement by its name, with its arguments."""


def group_by_ordinal(_: "DataLoader", keys: Sequence[Key], rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each key: `ordinal` is the position of the key, counted from 1."""
    grouped: list[list[Row]] = [[] for _ in keys]
    for row in rows:
        grouped[row["ordinal"] - 1].append(row)
    return grouped


class Loaded(NamedTuple):
    """The values of a batch."""

    values: dict[Key, Any]
    generation: Generation | None
    """The generation that all of them were read in."""


class DataLoader(NamedTuple):
    """A statement that takes its keys as parallel arrays. Two loaders that are equal share their batches."""

    statement: str
    as_of: date | None = None
    """UTC date that groups and memberships are read as of; None is now."""
    shared_args: Key = ()
    """Arguments that all keys have in common; they follow those of the keys."""
    group_rows: Callable[["DataLoader", Sequence[Key], list[Row]], Sequence[Any]] = group_by_ordinal
    """Makes a value for each key, in their order; all who load a key get the same value."""


class Batch:
    """Keys that are sent in one statement, and their values once it has been run."""

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}
        self.waiters: set[object] = set()
        """The attempts that still need the values."""
        self.shared = False
        """True if more than one attempt has loaded keys of it."""
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()
        self.loaded.add_done_callback(lambda _: self._done.set())
        self.task: asyncio.Task[Loaded] | None = None

    def subscribe(self, waiter: object) -> bool:
        """Add a waiter; return False if it was one already."""
        if waiter in self.waiters:
            return False
        self.shared |= bool(self.waiters)
        self.waiters.add(waiter)
        return True

    async def wait(self) -> Loaded:
        """Wait for the values, or raise what went wrong; a waiter can be cancelled without the others."""
        # as `asyncio.shield` does, in less time
        await self._done.wait()
        return self.loaded.result()

    def unsubscribe(self, waiter: object) -> None:
        """Remove a waiter, and cancel the statement after the last one."""
        self.waiters.discard(waiter)
        if self.task and not self.waiters:
            self.task.cancel()

    def finish(self, task: "asyncio.Task[Loaded]") -> None:
        """Hand the outcome of the statement to all waiters."""
        if task.cancelled():
            self.loaded.cancel()
        elif error := task.exception():
            self.loaded.set_exception(error)
            self.loaded.exception()  # there may be no waiter left to retrieve it
        else:
            self.loaded.set_result(task.result())


class BatchQueue:
    """The batches that are yet to be sent or in flight.

    A batch is sent when the event loop has come round twice, after all requests that had arrived by then were heard.
    """

    def __init__(self, read: Read, observer: Observer | None = None) -> None:
        self._read = read
        self._observer = observer
        self._next: dict[DataLoader, Batch] = {}
        self._in_flight: set[asyncio.Task[Loaded]] = set()

    def enqueue(self, loader: DataLoader, keys: Collection[Key]) -> Batch:
        """Add keys to the next batch of a loader."""
        wanted = dict.fromkeys(keys)
        batch = self._next.get(loader)
        if batch is None or (len(batch.keys) + len(wanted) > MAX_KEYS and not wanted.keys() <= batch.keys.keys()):
            batch = self._next[loader] = self.enqueue_alone(loader, ())
        batch.keys |= wanted
        return batch

    def enqueue_alone(self, loader: DataLoader, keys: Collection[Key]) -> Batch:
        """Put keys in a batch of their own."""
        batch = Batch()
        batch.keys |= dict.fromkeys(keys)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._send, loader, batch)
        return batch

    def _send(self, loader: DataLoader, batch: Batch) -> None:
        if self._next.get(loader) is batch:
            del self._next[loader]
        if not batch.waiters:
            batch.loaded.cancel()
            return
        if self._observer:
            self._observer.batch(loader.statement, len(batch.keys), len(batch.waiters))
        batch.task = task = asyncio.get_running_loop().create_task(self._load(loader, list(batch.keys)))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        task.add_done_callback(batch.finish)

    async def _load(self, loader: DataLoader, keys: list[Key]) -> Loaded:
        arrays = map(list, zip(*keys, strict=True))
        result = await self._read(loader.statement, *arrays, *loader.shared_args, as_of=loader.as_of)
        values = loader.group_rows(loader, keys, result.rows)
        return Loaded(dict(zip(keys, values, strict=True)), result.generation)

    async def close(self) -> None:
        """Cancel what is in flight and send no more."""
        for batch in self._next.values():
            batch.waiters.clear()
        in_flight = list(self._in_flight)
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
