"""Status of the server: its cache statistics and the listener for database changes."""

from datetime import datetime
from importlib.metadata import version

import strawberry

from graph.api.group_names import GROUP_NAMES
from graph.api.nodes import UNIVERSES
from graph.caching.data_cache import CacheStats
from graph.caching.generations import ListenerMode
from graph.execution.operation import Info
from graph.prices.closes import PRICES
from graph.prices.performance import HOLDINGS

strawberry.enum(ListenerMode)


@strawberry.type
class ListenerStatus:
    """The state of the listener for database changes."""

    mode: ListenerMode
    """The way that changes are detected."""
    reason: str | None
    """The reason why nothing is cached, and what to do; null if changes are followed."""
    behind_seconds: float | None
    """The seconds by which a standby may lag behind its primary; null if the database is no standby."""
    confirmed_at: datetime | None
    """The time the generation was last confirmed, by the database's clock; null if it never was."""
    reconnects: int
    """The number of times the listening connection was reestablished."""


@strawberry.type(name="MemoStatus")
class CacheStatus:
    """Statistics of a cache since the start of the process."""

    entries: int
    """The number of entries; with Redis, of those that this process has written."""
    bytes: int | None
    """The measured size of all entries in bytes; null with Redis."""
    hits: int
    """The number of look-ups answered from the cache."""
    misses: int
    """The number of look-ups that had to read the database."""
    evictions: int
    """The number of entries evicted because the cache was full."""

    @classmethod
    def of(cls, stats: CacheStats) -> "CacheStatus":
        """Build the status of a cache from its statistics."""
        return cls(**stats._asdict())


@strawberry.type
class MemoryStatus:
    """The memory that all caches take together, in this process."""

    bytes: float
    """The measured size of all caches in bytes."""
    limit: float
    """The most that they may take in bytes; each cache has a fixed share of it."""


@strawberry.type
class Status:
    """Health and cache statistics."""

    generation: str
    """The generation of the database, a number that grows with each change; `untracked` if changes are not recorded."""
    database_time: datetime
    """The current time by the database's clock."""
    listener: ListenerStatus
    """The listener for database changes."""
    universes: CacheStatus
    """The cache of universes."""
    prices: CacheStatus
    """The cache of closes; an entry holds those of a year and the two before it."""
    columns: CacheStatus
    """The cache of fields of groups and stocks; an entry holds one root field of a query with everything below it."""
    answers: CacheStatus
    """The cache of complete responses."""
    holdings: CacheStatus
    """The cache of members with their weights, which changes of prices are averaged by."""
    group_names: CacheStatus
    """The cache of the names of groups, for keys of universes; an entry holds those of an environment."""
    documents: CacheStatus
    """The cache of validated documents with the plans of their operations."""
    memory: MemoryStatus
    """The memory that all of these caches take."""
    version: str
    """The version of the server."""


@strawberry.type
class StatusQuery:
    """Root field of the status."""

    @strawberry.field
    async def status(self, info: Info) -> Status:
        """Health and cache statistics."""
        info.context.volatile = True
        runtime = info.context.runtime
        (row,) = await info.context.fetch("tracking")
        groups, prices = row.get("groups_generation"), row.get("prices_generation")
        return Status(
            generation="untracked" if groups is None else str(groups + prices),
            database_time=row["database_time"],
            listener=ListenerStatus(
                mode=runtime.generations.mode,
                reason=runtime.generations.untracked_reason,
                behind_seconds=row["behind_seconds"],
                confirmed_at=runtime.generations.confirmed_at,
                reconnects=max(0, runtime.generations.reconnects),
            ),
            universes=CacheStatus.of(runtime.stats(UNIVERSES)),
            prices=CacheStatus.of(runtime.stats(PRICES)),
            columns=CacheStatus.of(runtime.column_cache.stats()),
            answers=CacheStatus.of(runtime.response_cache.stats()),
            holdings=CacheStatus.of(runtime.stats(HOLDINGS)),
            group_names=CacheStatus.of(runtime.stats(GROUP_NAMES)),
            documents=CacheStatus.of(runtime.documents.stats()),
            memory=MemoryStatus(bytes=runtime.memory, limit=runtime.settings.memory_bytes),
            version=version("stockgraph"),
        )
