"""The state that all operations of a process share: its database, its caches and its batches."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from graph.caching.data_cache import CacheSpec, CacheStats, DataCaches
from graph.caching.generations import GenerationTracker
from graph.caching.memory import release, share_of
from graph.caching.response_cache import ResponseCache
from graph.execution.columns import ColumnCache
from graph.execution.dataloaders import BatchQueue
from graph.execution.documents import Documents
from graph.execution.lane import Lane
from graph.postgres.database import Connection, Database, ReadResult
from graph.settings import Settings
from graph.telemetry import Observer

RELEASE_SECONDS = 5.0
RELEASE_BYTES = 4 * 1024 * 1024
"""Bytes by which the caches must have shrunk within RELEASE_SECONDS before freed memory is given back to the system."""


class Runtime:
    """The state that all operations of a process share."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        observer: Observer | None = None,
        documents: Documents | None = None,
    ) -> None:
        self.settings = settings
        self.documents = documents or Documents(share_of(settings.memory_bytes, "documents"))
        self.database = database
        self.generations = GenerationTracker()
        self.data_caches = DataCaches(
            self.generations,
            memory=settings.memory_bytes,
            redis_url=settings.cache_url,
            serve_stale=settings.outage == "stale",
            observer=observer,
        )
        self.column_cache = ColumnCache(
            self.generations, max_bytes=share_of(settings.memory_bytes, "columns"), observer=observer
        )
        self.response_cache = ResponseCache(
            self.generations, max_bytes=share_of(settings.memory_bytes, "responses"), observer=observer
        )
        self.batches = BatchQueue(self.read, observer)
        self.lane = Lane()
        self.costs: dict[Callable[..., Any], float] = {}
        """Objects that each resolver has cost for an object lately."""
        self.prices_lock = asyncio.Lock()
        """A lock on reading closes, so that one read of them can build on another."""

    @property
    def memory(self) -> int:
        """The bytes that all caches hold."""
        stats = [cache.stats() for cache in self.data_caches.values()]
        stats += [self.column_cache.stats(), self.response_cache.stats(), self.documents.stats()]
        return sum(each.bytes or 0 for each in stats)

    def stats(self, spec: CacheSpec[Any]) -> CacheStats:
        """Return the statistics of a data cache."""
        return self.data_caches[spec].stats()

    async def read(
        self, statement: str, *arguments: Any, connection: "Connection | None" = None, **options: Any
    ) -> ReadResult:
        """Run a statement by its name; the options are those of `Database.fetch`."""
        result = await self.database.fetch(
            statement, *arguments, with_generation=self.generations.tracked, connection=connection, **options
        )
        if connection is None:
            self.generations.observe(result)
        else:
            self.generations.observe_snapshot(result)
        return result

    async def close(self) -> None:
        """Cancel what is in flight and close the caches."""
        self.lane.close()
        await self.batches.close()
        await self.data_caches.close()


async def _release_memory(runtime: Runtime) -> None:
    """Give the system back what the caches let go of, as they do when the data have changed."""
    before = 0
    while True:
        await asyncio.sleep(RELEASE_SECONDS)
        memory = runtime.memory
        if memory < before - RELEASE_BYTES:
            release()
        before = memory


@asynccontextmanager
async def open_runtime(
    settings: Settings, *, listen: bool = True, observer: Observer | None = None, documents: Documents | None = None
) -> AsyncIterator[Runtime]:
    """Open the database of the settings, and follow its changes; without that nothing is cached."""
    async with Database(settings.database_url or "", observer) as database:
        runtime = Runtime(settings, database, observer, documents)
        tasks = [asyncio.create_task(_release_memory(runtime))]
        if listen:
            tasks.append(asyncio.create_task(runtime.generations.listen(database)))
        try:
            yield runtime
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await runtime.close()
